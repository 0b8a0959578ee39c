"""What a pretraining begins from: fresh weights, or those of a file (`init_weights`)."""

import logging
from pathlib import Path

from torch import nn

from visrep.data.preprocess import Preprocess
from visrep.data.views.batch import Views
from visrep.errors import ConfigError
from visrep.nn.resnet import ResNet
from visrep.weights.foreign import Choice
from visrep.weights.reading import read_weights

log = logging.getLogger("visrep")


def begin_from(
    encoder: nn.Module, weights: str | Path, *, views: Views, prefix: str | None = None
) -> str:
    """Give `encoder` the weights of a file that visrep reads, and return their sha256.

    Only the encoder's are taken: the head and what else a method has begin afresh.

    Args:
        encoder: of the method.
        weights: of the file.
        views: of the run, whose mean and std are compared with the file's.
        prefix: where the net is in a file of no known format.

    Raises:
        UserError: the file cannot be read or holds no encoder.
        ConfigError: its net is another one, or `encoder` is no ResNet.
    """
    if not isinstance(encoder, ResNet):
        raise ConfigError(
            f"init_weights={weights}: a {type(encoder).__name__} begins from fresh weights only; "
            "leave it out, or choose a ResNet as backbone="
        )
    file = read_weights(weights, Choice(prefix=prefix))
    keys = {*file.backbone, *encoder.spec}
    other = {
        key: (file.backbone.get(key), encoder.spec.get(key))
        for key in sorted(keys)
        if file.backbone.get(key) != encoder.spec.get(key)
    }
    if other:
        said = ", ".join(
            f"{key} {there} there, {here} here" for key, (there, here) in other.items()
        )
        raise ConfigError(
            f"init_weights={weights} holds another net ({said}): choose backbone= and its keys as "
            "there, or other weights"
        )
    encoder.load_state_dict(file.part(""))
    log.info("begins from the encoder of %s (sha256 %s)", weights, file.sha256[:12])
    seen = Preprocess.from_dict(file.preprocess)
    if (seen.mean, seen.std) != (tuple(views.mean), tuple(views.std)):
        log.warning(
            "it was trained on images with mean %s and std %s, and views= has %s and %s: "
            "views.mean= and views.std= set them",
            *(list(values) for values in (seen.mean, seen.std, views.mean, views.std)),
        )
    return file.sha256
