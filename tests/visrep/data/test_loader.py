"""The order and the views of a step are functions of (seed, step): of no worker and no process."""

import pytest
import torch

from tests.processes import run_on_two
from visrep.data.dataset import MemoryImages
from visrep.data.images import BrokenImage
from visrep.data.loader import Loader
from visrep.data.views.batch import Views
from visrep.data.views.spec import make_view
from visrep.errors import ConfigError, UserError
from visrep.seeds import generator

COUNT = 22


def pictures() -> torch.Tensor:
    return torch.randint(0, 256, (COUNT, 3, 12, 12), generator=generator("pictures")).byte()


class OnDisk:
    """A data set whose images must be decoded one by one; some are broken."""

    def __init__(self, broken: tuple[int, ...] = ()) -> None:
        self.name, self.fingerprint, self.images = "disk", "0", None
        self.classes, self.labels = ["a", "b"], torch.arange(COUNT) % 2
        self.broken = broken
        self.pictures = pictures()

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, i: int) -> torch.Tensor:
        if i in self.broken:
            raise BrokenImage(self.file(i), "cut short")
        return self.pictures[i]

    def file(self, i: int) -> str:
        return f"{i:02d}.jpg"


def resident() -> MemoryImages:
    data = OnDisk()
    return MemoryImages(
        name="memory", images=data.pictures, labels=data.labels, classes=data.classes,
        files=[data.file(i) for i in range(COUNT)],
    )  # fmt: skip


def views() -> Views:
    view = make_view(size=8, jitter=(0.4, 0.4, 0.4, 0.1), jitter_p=0.8, gray_p=0.2)
    return Views(views=[view, view], mean=(0.5,) * 3, std=(0.25,) * 3)


def make(dataset=None, **kwargs) -> Loader:
    kwargs = {"batch_size": 4, "seed": 3} | kwargs
    return Loader(dataset or resident(), views=views(), **kwargs)


def take(loader: Loader, count: int, start: int = 0) -> list[dict]:
    stream = loader.iterate(start)
    return [next(stream) for _ in range(count)]


def same(one: dict, two: dict) -> None:
    assert one["seed"] == two["seed"]
    assert torch.equal(one["index"], two["index"])
    assert torch.equal(one["label"], two["label"])
    for a, b in zip(one["views"], two["views"], strict=True):
        assert torch.equal(a, b)


def test_an_epoch_shows_every_image_once_and_drops_the_rest():
    loader = make()
    assert loader.steps_per_epoch == 5
    first = torch.cat([loader.samples_of(step) for step in range(5)])
    second = torch.cat([loader.samples_of(step) for step in range(5, 10)])
    assert len(first.unique()) == len(second.unique()) == 20
    assert not torch.equal(first, second)


def test_a_continuous_stream_runs_over_the_ends_of_epochs():
    loader = make(batch_size=30, continuous=True)
    stream = torch.cat([loader.samples_of(step) for step in range(11)])  # 15 epochs
    for epoch in stream.split(COUNT):
        assert len(epoch.unique()) == COUNT


def test_labels_and_indices_belong_to_the_images():
    batch = take(make(), 1)[0]
    assert batch["size"] == 4 and batch["views"][0].shape == (4, 3, 8, 8)
    assert torch.equal(batch["label"], batch["index"] % 2)


def test_the_stream_can_start_anywhere():
    for one, two in zip(take(make(), 9)[6:], take(make(), 3, start=6), strict=True):
        same(one, two)


@pytest.mark.parametrize("workers", [0, 2])
def test_images_in_memory_and_on_disk_give_the_same_views(workers):
    ours, theirs = take(make(), 3), take(make(OnDisk(), workers=workers), 3)
    for one, two in zip(ours, theirs, strict=True):
        assert torch.equal(one["index"], two["index"])
        for a, b in zip(one["views"], two["views"], strict=True):
            # A crop is rounded to uint8 on its way from a worker; jitter magnifies that a little.
            assert (a - b).abs().mean() < 4 / 255 / 0.25


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_batch_is_drawn_once(on_disk, monkeypatch):
    steps = []
    draw = Views.draw
    monkeypatch.setattr(
        Views, "draw", lambda self, **given: steps.append(given["step"]) or draw(self, **given)
    )
    take(make(OnDisk() if on_disk else None), 4, start=2)
    assert steps == [2, 3, 4, 5]


def test_a_share_of_the_samples_can_be_chosen():
    chosen = torch.tensor([1, 5, 8, 13, 21])
    loader = make(indices=chosen)
    assert set(torch.cat([loader.samples_of(s) for s in range(9)]).tolist()) == set(chosen.tolist())


def test_a_broken_image_gives_way_to_the_next_with_its_own_label():
    loader = make(OnDisk(broken=(3, 4)), max_broken=0.1)
    batches = take(loader, 5)
    seen = torch.cat([batch["index"] for batch in batches])
    assert not {3, 4} & set(seen.tolist())
    for batch in batches:
        assert torch.equal(batch["label"], batch["index"] % 2)
    with pytest.raises(UserError, match="03.jpg|04.jpg"):
        take(make(OnDisk(broken=(3, 4)), max_broken=0.01), 6)


def test_a_batch_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="larger than the data"):
        make(batch_size=23)


def slices_of_two_processes() -> list[dict]:
    return take(make(), 2)


def test_two_processes_share_the_batch_of_one():
    whole = take(make(), 2)
    halves = run_on_two(slices_of_two_processes)
    for step in range(2):
        for view in range(2):
            joined = torch.cat([half[step]["views"][view] for half in halves])
            assert torch.equal(joined, whole[step]["views"][view])
        assert halves[0][step]["seed"] == halves[1][step]["seed"] == whole[step]["seed"]
        joined = torch.cat([half[step]["index"] for half in halves])
        assert torch.equal(joined, whole[step]["index"])
