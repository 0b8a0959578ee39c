"""The number of views that a method wants."""

import pytest

from visrep.errors import ConfigError
from visrep.pretrain.method import Plan


def test_another_number_of_views_is_refused() -> None:
    plan = Plan(batch_size=8, views=2, images=100, steps=10)
    plan.require_views(2)
    with pytest.raises(ConfigError, match="takes 1 view of an image, but views= makes 2"):
        plan.require_views(1)
