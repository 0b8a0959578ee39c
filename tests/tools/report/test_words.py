"""Numbers and names as people read them."""

import pytest

from visrep.tools.report import words


@pytest.mark.parametrize(
    ("made", "shown"),
    [
        (words.count(703_114), "0.70 M"),
        (words.count(795_000_000), "795 M"),
        (words.count(85_000), "85 k"),
        (words.size(2_843_000), "2.84 MB"),
        (words.size(71_200), "71 kB"),
        (words.signed(-0.51), "−0.5"),
        (words.signed(-0.04), "0.0"),
        (words.share(0.01), "1 %"),
        (words.share("my/list.txt"), "my/list.txt"),
        (words.milliseconds(0.4), "0.40 ms"),
        (words.metric("mask_AP50"), "mask AP50"),
        (words.capital("detection"), "Detection"),
        (words.capital("kNN"), "kNN"),
        (words.listed(["a", "b", "a", "", "c"]), "a, b and c"),
        (words.listed(["a", "b"]), "a and b"),
        (words.listed([]), ""),
        (words.joined("a", None, "", "b"), "a · b"),
        (
            words.backbone({"depth": 152, "width": 3, "sk": True}),
            "ResNet-152 with SK, width × 3",
        ),
    ],
)
def test_formats(made, shown):
    assert made == shown
