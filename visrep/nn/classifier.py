"""Encoder, part of a projection head, and a linear classifier on top."""

from torch import Tensor, nn

from visrep.errors import ConfigError
from visrep.nn.heads import MLP
from visrep.nn.resnet import ResNet


class Classifier(nn.Module):
    """N x 3 x H x W -> N x classes logits.

    `head` is a projection head, of which the first `layers` layers are kept (None: all of it; 0:
    none, the classifier sits on the encoder). SimCLR v2 finetunes on 1 % and 10 % of the labels
    from layers=1 (arXiv 2006.10029, section 3). The kept layers are shared with `head`, not copied.
    `zero_init` starts the classifier at zero: all classes are equally likely, and the first
    gradient into the encoder is exactly 0. Raises ConfigError where there are fewer layers.
    """

    head: MLP | None

    def __init__(
        self,
        *,
        encoder: ResNet,
        classes: int,
        head: MLP | None = None,
        layers: int | None = None,
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        if head is None and layers:
            raise ConfigError(
                f"there is no projection head to keep {layers} layers of: set layers=0"
            )
        if head is not None and layers is not None:
            head = head.first(layers)
        self.head = head if head is not None and len(head.layers) else None
        width = encoder.out_dim if self.head is None else self.head.out_dim
        self.fc = nn.Linear(width, classes)
        if zero_init:
            nn.init.zeros_(self.fc.weight)
            nn.init.zeros_(self.fc.bias)

    def features(self, x: Tensor) -> Tensor:
        """N x 3 x H x W -> N x D, the input of the classifier."""
        x = self.encoder(x)
        return x if self.head is None else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))
