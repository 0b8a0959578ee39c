"""Features, and images that cannot be read, which are left out with all that goes with them."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.io import write_png

from tests.small_data import pictures, preprocess
from visrep.data.dataset import ImageFiles
from visrep.data.images import BrokenImage, BrokenImages
from visrep.engine.extraction import batches, extract
from visrep.errors import UserError


class Means(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


@pytest.fixture
def files(tmp_path: Path) -> ImageFiles:
    names = []
    for i, image in enumerate(pictures(7, seed=0)[0]):
        names.append(f"{i}.png")
        write_png(image, str(tmp_path / names[-1]))
    return ImageFiles(name="d/train", root=tmp_path, files=names)


def spoil(files: ImageFiles, *numbers: int) -> None:
    for i in numbers:
        path = files.root / files.file(i)
        path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_left_out_and_noted(files: ImageFiles, workers: int) -> None:
    whole, kept = extract(Means(), files, preprocess(), batch_size=3)
    assert kept.tolist() == list(range(7)) and whole.shape == (7, 3)
    spoil(files, 2, 3, 4, 5)  # the second batch of three has none left
    broken = BrokenImages(0.6, 7)
    left, kept = extract(Means(), files, preprocess(), batch_size=3, broken=broken, workers=workers)
    assert kept.tolist() == [0, 1, 6]
    assert torch.equal(left, whole[kept])
    assert [Path(name).name for name in broken.files] == ["2.png", "3.png", "4.png", "5.png"]
    some = torch.tensor([6, 4, 0])
    found = list(
        batches(files, preprocess(), batch_size=2, indices=some, broken=broken, workers=workers)
    )
    assert [index.tolist() for _, index in found] == [[6], [0]]


@pytest.mark.parametrize("workers", [0, 1])
def test_untolerated_ones_are_one_line(files: ImageFiles, workers: int) -> None:
    spoil(files, 3)
    with pytest.raises(BrokenImage, match=r"3\.png") as caught:
        extract(Means(), files, preprocess(), workers=workers)
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)
    with pytest.raises(UserError, match="1 of 7 images cannot be read"):
        extract(Means(), files, preprocess(), workers=workers, broken=BrokenImages(0.1, 7))
    with pytest.raises(UserError, match="holds no image"):
        extract(
            Means(), files, preprocess(), broken=BrokenImages(0.9, 7), indices=torch.tensor([3])
        )


def test_another_mistake_in_a_worker_is_one_line_as_well(files: ImageFiles) -> None:
    write_png(torch.zeros(3, 5, 9, dtype=torch.uint8), str(files.root / "1.png"))
    with pytest.raises(UserError, match="5 x 9 pixels") as caught:
        extract(Means(), files, preprocess(), workers=1, broken=BrokenImages(0.9, 7))
    assert "Traceback" not in str(caught.value)
