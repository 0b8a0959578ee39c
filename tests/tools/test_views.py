"""`visrep views`: the picture shows the images and what training would see."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torchvision.io import ImageReadMode, read_image, write_png

from tests.oracles.views import photos
from visrep import config
from visrep.errors import ConfigError
from visrep.tools import views as show_views

SIZE, CELL, GAP = 32, 96, show_views.GAP


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "images"
    place.mkdir()
    for i, image in enumerate(photos(5, SIZE, SIZE)):
        write_png(image, str(place / f"{i}.png"))
    return place


def settings(folder: Path, *overrides: str):
    given = ["data=folder", f"data.root={folder}", "views=scenes", "rows=3", "columns=4"]
    return config.compose("views", [*given, *overrides])[0]


def cell_of(page, row, column):
    """The picture in one cell, enlarged threefold; column 0 is the image."""
    left = GAP + column * (CELL + GAP) + (column > 0) * 3 * GAP
    top = GAP + row * (CELL + GAP)
    return page[:, top : top + CELL, left : left + CELL][:, 1::3, 1::3]


def test_picture(folder, tmp_path, capsys):
    out = tmp_path / "views.png"
    show_views.main(settings(folder, f"out={out}"))
    page = read_image(str(out), ImageReadMode.RGB)
    assert page.shape == (3, 3 * (CELL + GAP) + GAP, 5 * (CELL + GAP) + 4 * GAP)
    stored = photos(5, SIZE, SIZE)
    shown = [cell_of(page, row, 0) for row in range(3)]
    assert all(any(torch.equal(image, one) for one in stored) for image in shown)
    assert len({tuple(image.flatten().tolist()) for image in shown}) == 3
    views = {tuple(cell_of(page, r, c).flatten().tolist()) for r in range(3) for c in range(1, 5)}
    assert len(views) == 12
    assert capsys.readouterr().out.startswith(f"{out}: 3 images of ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "views.png"]


def test_normalisation_is_undone(folder, tmp_path):
    """Views that leave the image as it is look like it."""
    out = tmp_path / "views.png"
    calm = ["scale=[1,1]", "ratio=[1,1]", "jitter_p=0", "gray_p=0", "invert_p=0"]
    show_views.main(settings(folder, f"out={out}", *(f"views.{setting}" for setting in calm)))
    page = read_image(str(out), ImageReadMode.RGB).int()
    for row in range(3):
        for column in range(1, 5):
            difference = cell_of(page, row, column) - cell_of(page, row, 0)
            assert difference.abs().max() <= 1


def test_what_is_shown_is_what_training_draws(folder, tmp_path):
    """Of two views per step, cells 3 and 4 are those of step 1."""
    cfg = settings(folder, f"out={tmp_path / 'views.png'}")
    views = config.instantiate(cfg.views)
    images = list(photos(5, SIZE, SIZE)[:3])
    rows = show_views.views_of(images, views, seed=7, count=4)
    params = views.draw(seed=7, step=1, batch=3)
    made = views(torch.stack(images), params)
    mean, std = torch.tensor([views.mean, views.std])[..., None, None]
    for i in range(3):
        for v in range(2):
            expected = (made[v][i] * std + mean).clamp(0, 1)
            # The crop of `views_of` is rounded to grey levels, which a strong jitter multiplies.
            assert (rows[i][2 + v] - expected).abs().mean() < 0.01


def test_the_seed_chooses(folder, tmp_path):
    pages = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        out = tmp_path / f"{name}.png"
        show_views.main(settings(folder, f"out={out}", f"seed={seed}"))
        pages.append(out.read_bytes())
    assert pages[0] == pages[1] != pages[2]


def test_images_of_unequal_size(tmp_path):
    place = tmp_path / "images"
    place.mkdir()
    for i, (height, width) in enumerate([(40, 200), (90, 30), (64, 64)]):
        write_png(photos(1, height, width)[0], str(place / f"{i}.png"))
    out = tmp_path / "views.jpg"
    show_views.main(settings(place, f"out={out}", "columns=3"))
    assert read_image(str(out)).shape == (3, 3 * 100 + 4, 4 * 100 + 4 * GAP)


def test_fewer_images_than_rows(folder, tmp_path):
    out = tmp_path / "views.png"
    show_views.main(settings(folder, f"out={out}", "rows=50", "columns=1"))
    assert read_image(str(out)).shape[1] == 5 * (CELL + GAP) + GAP


def test_refusals(folder, tmp_path):
    out = tmp_path / "views.png"
    out.write_bytes(b"mine")
    for given, message in (
        ([f"out={out}"], "exists: .*overwrite=true"),
        ([f"out={tmp_path / 'views.txt'}"], "a picture ends in"),
        ([f"out={tmp_path / 'a.png'}", "rows=0"], "rows=0"),
        ([f"out={tmp_path / 'a.png'}", "columns=-1"], "columns=-1"),
        ([f"out={tmp_path / 'a.png'}", "views.blur_p=2"], "blur_p=2"),
    ):
        with pytest.raises(ConfigError, match=message):
            show_views.main(settings(folder, *given))
    assert out.read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "views.png"]
    show_views.main(settings(folder, f"out={out}", "overwrite=true"))
    assert out.read_bytes() != b"mine"


def test_defaults_are_the_built_in_data():
    cfg = config.compose("views", ["out=x.png"])[0]
    assert cfg.data.name == "scenes"
    assert cfg.views.size == 32
    assert OmegaConf.is_missing(OmegaConf.load(config.config_dir() / "views.yaml"), "out")
