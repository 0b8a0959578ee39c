"""The demo's chain, without running it: its order and its commands."""

import pytest

from visrep import config
from visrep.tools.chain import demo, jobs


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
        command, *overrides = jobs.command_of(job, tmp_path)
        composed, _ = config.compose(command, overrides)
        assert str(tmp_path) in str(composed.out)


def test_both_sides_are_measured_alike(cfg, tmp_path):
    """Same command, same seeds and draws; only weights and init differ."""

    def plain(job) -> tuple[str, ...]:
        return tuple(a for a in job.arguments if not a.startswith(("weights=", "init=")))

    named = {job.name: job for job in demo.chain(tmp_path, cfg)}
    names = [name for name in named if "-pretrained" in name]
    assert len(names) == 2 + cfg.seeds + cfg.draws * len(cfg.labels)
    for name in names:
        assert plain(named[name]) == plain(named[name.replace("-pretrained", "-random")])
