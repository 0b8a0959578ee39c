"""The demo's chain, without running it: its order, its commands, what is made again."""

import os
from pathlib import Path

import pytest

from visrep import config
from visrep.errors import UserError
from visrep.paths import import_entry

demo = import_entry("visrep.tools.demo")


@pytest.fixture
def cfg(tmp_path):
    return config.compose("demo", [f"out={tmp_path}"])[0]


def test_every_need_comes_before_its_use(cfg, tmp_path):
    seen: set[str] = set()
    for job in demo.chain(tmp_path, cfg):
        assert set(job.needs) <= seen, job.name
        assert job.name not in seen
        seen.add(job.name)


def test_every_job_is_a_command_that_a_user_could_type(cfg, tmp_path):
    for job in demo.chain(tmp_path, cfg):
        command, *overrides = demo.command_of(job, tmp_path)
        composed, _ = config.compose(command, overrides)
        assert str(tmp_path) in str(composed.out)


def test_both_sides_are_measured_alike(cfg, tmp_path):
    """Same command, same seeds and draws; only weights and init differ."""

    def plain(job) -> tuple[str, ...]:
        return tuple(a for a in job.arguments if not a.startswith(("weights=", "init=")))

    jobs = {job.name: job for job in demo.chain(tmp_path, cfg)}
    names = [name for name in jobs if "-pretrained" in name]
    assert len(names) == 2 + cfg.seeds + cfg.draws * len(cfg.labels)
    for name in names:
        assert plain(jobs[name]) == plain(jobs[name.replace("-pretrained", "-random")])


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """A `visrep` of two commands: one notes that it ran, the other fails."""
    package = tmp_path / "fake" / "visrep"
    package.mkdir(parents=True)
    (package / "__main__.py").write_text(
        "import sys\n"
        "place = dict(a.split('=', 1) for a in sys.argv[2:])['out']\n"
        "open(place + '/ran', 'a').write('x')\n"
        "sys.exit('broken: no such thing') if sys.argv[1] == 'fail' else None\n"
    )
    (package / "__init__.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.chdir(package.parent)
    return tmp_path / "out"


def ran(out: Path, name: str) -> int:
    return len((out / name / "ran").read_text())


def test_a_second_call_makes_only_what_is_missing_and_its_users(commands, capsys):
    jobs = [demo.Job("a", ("ok",), (), 1), demo.Job("b", ("ok",), ("a",), 1)]
    jobs.append(demo.Job("c", ("ok",), (), 1))
    for _ in range(2):
        demo.run_all(jobs, commands, slots=2)
    assert [ran(commands, name) for name in "abc"] == [1, 1, 1]
    assert capsys.readouterr().out.count("there already") == 3
    os.unlink(commands / ".done" / "a")
    demo.run_all(jobs, commands, slots=1)
    assert [ran(commands, name) for name in "abc"] == [2, 2, 1]


def test_a_failed_job_ends_the_demo_with_its_last_line(commands):
    jobs = [demo.Job("a", ("fail",), (), 1), demo.Job("b", ("ok",), ("a",), 1)]
    with pytest.raises(UserError, match="a failed with code 1: broken: no such thing"):
        demo.run_all(jobs, commands, slots=2)
    assert not (commands / "b").exists()
