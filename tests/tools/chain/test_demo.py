"""The demo's chain, without running it: its order and its commands."""

import subprocess
import sys
import time

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


@pytest.mark.slow
def test_a_demo_that_is_killed_leaves_no_job_and_goes_on(tmp_path):
    """SIGKILL, then a second call, which SIGTERM ends with its code once its jobs have saved."""
    out, steps = tmp_path / "demo", tmp_path / "demo/pretrain/metrics.jsonl"

    def start() -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "visrep", "demo", f"out={out}", "jobs=1", "seeds=1", "draws=1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def count() -> int:
        return len(steps.read_text().splitlines()) if steps.exists() else 0

    def until_more_than(before: int, demo: subprocess.Popen) -> None:
        while count() <= before:
            assert demo.poll() is None, demo.stdout.read()
            time.sleep(0.05)

    demo = start()
    until_more_than(0, demo)
    demo.kill()
    demo.wait()
    log = out / ".done/pretrain.log"
    end = time.monotonic() + 30
    while "the snapshot is saved" not in log.read_text():
        assert time.monotonic() < end
        time.sleep(0.1)
    before = count()
    demo = start()
    until_more_than(before, demo)
    demo.terminate()
    said = demo.stdout.read().decode()
    assert demo.wait() == 143 and "its jobs have ended, the same command goes on" in said
    assert "resumed from the snapshot of step" in log.read_text()
    assert "the snapshot is saved" in log.read_text()
