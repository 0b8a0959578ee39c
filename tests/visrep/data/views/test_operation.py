"""The contract of a view operation, and one from a stranger's single file."""

import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.oracles.views import photos
from visrep import config, plugins
from visrep.data.views.batch import View, Views
from visrep.data.views.operation import Operation, between, is_share, on, tuple_of
from visrep.data.views.spec import make_view
from visrep.errors import ConfigError

ROOT = Path(__file__).resolve().parents[4]
PLAIN = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}

STRANGER = """
from dataclasses import dataclass

from visrep.data.views.operation import Operation, between, on

@dataclass(frozen=True, kw_only=True)
class Posterize(Operation):
    name = "posterize"
    numbers = 1
    p: float = 0.5
    most: int = 8

    def __post_init__(self):
        self.require(self.most >= 2, "most", "2 levels or more")

    def apply(self, images, numbers):
        steps = on(images.device, between(numbers[:, 0], 1, self.most - 1).round())
        steps = steps[:, None, None, None]
        return (images * steps).round() / steps
"""
ENTRY = "{_target_: posterize_of_mine.Posterize, p: 0.6}"
YAML = f"""
_target_: visrep.data.views.spec.make_views
copies: 2
size: 32
jitter: [0.4, 0.4, 0.4, 0.1]
jitter_p: 0.8
gray_p: 0.2
order: [jitter, {ENTRY}, gray]
mean: [0, 0, 0]
std: [1, 1, 1]
"""


@dataclass(frozen=True, kw_only=True)
class Halve(Operation):
    """Marks the samples that it is applied to."""

    name = "halve"
    p: float = 0.5

    def apply(self, images, numbers):
        return images / 2


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A folder with one file and one yaml, loaded as `plugins=` does."""
    (tmp_path / "posterize_of_mine.py").write_text(STRANGER)
    (tmp_path / "conf/views").mkdir(parents=True)
    (tmp_path / "conf/views/posterized.yaml").write_text(YAML)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(plugins, "_loaded", {})
    plugins.load(["posterize_of_mine"])
    yield tmp_path
    del sys.modules["posterize_of_mine"]


def test_one_file_adds_an_operation(stranger):
    """Named in an order; what ours draw and do stays what it is, bit for bit."""
    given = ["out=x.png", "views=scenes", "views.invert_p=0"]
    plain = config.instantiate(config.compose("views", given)[0].views)
    mine = [*given, f"views.order=[jitter,gray,{ENTRY.replace(' ', '')}]"]
    views = config.instantiate(config.compose("views", mine)[0].views)
    assert [o.name for o in views.views[0].operations] == ["jitter", "gray", "posterize"]
    assert views.views[0].operations[2].p == 0.6
    images = photos(64, 40, 40)
    drawn = {"seed": 1, "step": 2, "batch": 64}
    ours, params = plain.draw(**drawn), views.draw(**drawn)
    assert np.array_equal(ours.uniforms, params.uniforms)
    for v, (before, after) in enumerate(
        zip(plain(images, ours), views(images, params), strict=True)
    ):
        applied = torch.from_numpy(params.own["posterize"][:, v, 0] < 0.6)
        assert 20 < applied.sum() < 55
        assert torch.equal(before[~applied], after[~applied])
        counts = [len(image.unique()) for image in after[applied]]
        assert max(counts) <= 8 and len(set(counts)) > 3


def test_as_a_command(stranger):
    """`visrep views` with the stranger's own yaml; a wrong setting is one line."""

    def visrep(*overrides):
        mine = ("plugins=posterize_of_mine", "config_dir=conf", "views=posterized", "data=scenes")
        return subprocess.run(
            [sys.executable, "-m", "visrep", "views", *mine, "rows=2", *overrides],
            cwd=stranger,
            env={"PYTHONPATH": str(ROOT), "HOME": str(Path.home()), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )

    done = visrep("out=picture.png")
    assert done.returncode == 0, done.stderr
    assert (stranger / "picture.png").stat().st_size > 1000
    wrong = visrep("out=x.png", "views.order=[{_target_:posterize_of_mine.Posterize,most:1}]", *OFF)
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1
    assert "posterize_most=1: give 2 levels or more" in wrong.stderr


OFF = ("views.jitter_p=0", "views.gray_p=0")


def halved(**settings):
    view = View(size=8, scale=(1, 1), ratio=(1, 1), flip_p=0, operations=(Halve(**settings),))
    return Views(views=[view, view], **PLAIN)


def test_its_draws_are_a_function_of_name_seed_step_and_position():
    views = halved()
    params = views.draw(seed=0, step=3, batch=40)
    assert params.own["halve"].shape == (40, 2, 1)
    assert not np.isin(params.own["halve"], params.uniforms).any()
    assert not np.array_equal(params.own["halve"][:, 0], params.own["halve"][:, 1])
    longer = views.draw(seed=0, step=3, batch=60)
    assert np.array_equal(longer.own["halve"][:40], params.own["halve"])
    assert np.array_equal(params[7:9].own["halve"], params.own["halve"][7:9])
    again = pickle.loads(pickle.dumps(params))
    assert np.array_equal(again.own["halve"], params.own["halve"])
    for other in ({"seed": 1, "step": 3}, {"seed": 0, "step": 4}):
        assert not np.isin(views.draw(**other, batch=40).own["halve"], params.own["halve"]).any()


def test_it_is_applied_with_its_probability_to_chosen_samples_only():
    images = torch.full((400, 3, 8, 8), 200, dtype=torch.uint8)
    views = halved(p=0.3)
    params = views.draw(seed=0, step=0, batch=400)
    for v, made in enumerate(views(images, params)):
        applied = made[:, 0, 0, 0] < 0.5
        assert np.array_equal(applied.numpy(), params.own["halve"][:, v, 0] < 0.3)
        assert 80 < applied.sum() < 160
    assert halved(p=0).views[0].operations == ()


def test_ours_in_a_yaml_may_also_be_given_whole():
    whole = {"_target_": "visrep.data.views.operations.Gray", "p": 0.25}
    node = {"_target_": "visrep.data.views.spec.make_views", "size": 8, "order": [whole], **PLAIN}
    assert config.instantiate(node).views == (make_view(size=8, gray_p=0.25),)


class Nameless(Operation):
    p = 0.5

    def apply(self, images, numbers):
        return images


class Chanceless(Operation):
    name = "chanceless"

    def apply(self, images, numbers):
        return images


class Unfinished(Operation):
    name, p = "unfinished", 0.5


class Shrinking(Halve):
    def apply(self, images, numbers):
        return images[..., :4]


class Doubling(Halve):
    def apply(self, images, numbers):
        return images.double()


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        (["gray"], "order=gray: give names and Operations"),
        ([{"_target": 1}], "order=.*: give names and Operations"),
        ([Nameless()], r"Nameless\.name=.*give the class a value"),
        ([Chanceless()], r"Chanceless\.p=.*give the class a value"),
        ([Halve(p=1.5)], r"halve_p=1\.5: give a number in \[0, 1\]"),
        ([Halve(p="often")], "halve_p=often: give a number"),
        ([Halve(), Halve(p=0.1)], "order=.*each operation once"),
    ],
)
def test_what_breaks_the_contract_is_one_line(operations, message):
    with pytest.raises(ConfigError, match=message) as caught:
        View(size=8, operations=operations)
    assert "\n" not in str(caught.value)


def test_an_operation_without_apply_is_named():
    with pytest.raises(TypeError, match="Unfinished .*apply"):
        Unfinished()


@pytest.mark.parametrize(("kind", "given"), [(Shrinking, r"8, 4\]"), (Doubling, "float64")])
def test_what_apply_gives_is_looked_at(kind, given):
    views = Views(views=[View(size=8, operations=(kind(p=1.0),))], **PLAIN)
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ConfigError, match=rf"{kind.__name__}\.apply gives .*{given}.*must give"):
        views(images, views.draw(seed=0, step=0, batch=2))


def test_two_classes_of_one_name_would_share_their_draws():
    one, other = (View(size=8, operations=(kind(),)) for kind in (Halve, Shrinking))
    with pytest.raises(ConfigError, match="each class a name of its own"):
        Views(views=[one, other], **PLAIN)


def test_helpers():
    assert between(np.array([0.0, 0.5]), 2, 6).tolist() == [2, 4]
    assert on(torch.device("cpu"), np.array([True, False])).tolist() == [1.0, 0.0]
    assert is_share(0) and is_share(1.0) and not is_share("0.5") and not is_share(float("nan"))
    assert tuple_of("x", [1, 2], 2) == (1.0, 2.0)
    for wrong in ([1], 3, ["a", "b"]):
        with pytest.raises(ConfigError, match="x=.*a list of 2 numbers"):
            tuple_of("x", wrong, 2)
