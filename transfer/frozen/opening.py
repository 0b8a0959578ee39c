"""How the four commands on frozen features begin: the net, the run, the data, the features."""

import logging
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig
from torch import Tensor, nn

from visrep.config import instantiate
from visrep.data.classes import some
from visrep.data.dataset import ImageDataset, checked
from visrep.data.images import BrokenImages
from visrep.data.preprocess import Preprocess
from visrep.data.selection import Selection
from visrep.engine.evaluation import warn_of_overlap
from visrep.engine.run import Run, open_run
from visrep.errors import ConfigError
from visrep.transfer.frozen import features
from visrep.transfer.frozen.outputs import frozen_output
from visrep.weights.foreign import Choice
from visrep.weights.reading import read_weights

log = logging.getLogger("visrep")


@dataclass
class Opening:
    """An open run with its data and what makes features of them.

    Attributes:
        train, test: `data.train` and `data.test`; which labels they have, the command finds out.
            Once there are features, without the images that cannot be read.
        net: N x 3 x H x W -> N x D in eval mode, on the run's device; None: the pixels themselves.
        sha256: of the net, "none" for pixels.
        loading: `device`, `batch_size` and `workers`.
        max_broken: share of unreadable images that is left out before it ends.
    """

    run: Run
    train: Any
    test: Any
    net: nn.Module | None
    preprocess: Preprocess
    sha256: str
    loading: dict[str, Any]
    precision: str
    max_broken: float

    def features(self) -> tuple[Tensor, Tensor]:
        """Those of train and of test, N x D float32 on the CPU; of a net through the cache.

        Images that cannot be read are named and left out, of `train` and `test` as well.

        Raises:
            UserError: more than `max_broken` of a part cannot be read.
        """
        warn_of_overlap(self.train, self.test)
        self.train, bank = self._features(self.train)
        self.test, queries = self._features(self.test)
        return bank, queries

    def _features(self, dataset: ImageDataset) -> tuple[ImageDataset, Tensor]:
        broken = BrokenImages(self.max_broken, len(dataset))
        if self.net is None:
            found, kept = features.raw_pixels(
                dataset, self.preprocess, broken=broken, workers=self.loading["workers"]
            )
        else:
            found, kept = features.cached(
                self.net,
                dataset,
                self.preprocess,
                precision=self.precision,
                broken=broken,
                **self.loading,
            )
        if len(kept) == len(dataset):
            return dataset, found
        if dataset.labels is not None and dataset.classes is not None:
            lost = set(dataset.labels.tolist()) - set(dataset.labels[kept].tolist())
            if lost:
                names = some([dataset.classes[number] for number in sorted(lost)])
                log.warning("warning: no image of %s in %s can be read", names, dataset.name)
        return Selection(dataset, kept), found


def open_frozen(cfg: DictConfig, *, raw_pixels: bool = False) -> Opening:
    """Read the weights, open the run, read the data; a mistake in the first leaves no folder.

    Raises:
        UserError, ConfigError: as `frozen_output`, `open_run` and the data's reader; or
            `raw_pixels` without weights, whose preprocessing images of several sizes need.
    """
    net = None
    if not raw_pixels:
        net, preprocess, sha256 = frozen_output(
            cfg.weights,
            prefix=cfg.prefix,
            output=cfg.output,
            init=cfg.init,
            seed=int(cfg.seed),
            grids=cfg.grids,
            size=cfg.size,
        )
    run = open_run(cfg)
    train, test = checked(instantiate(cfg.data.train)), checked(instantiate(cfg.data.test))
    if net is None:
        preprocess, sha256 = _of_pixels(cfg.weights, cfg.prefix, train), "none"
    else:
        net.to(run.device)
    return Opening(
        run=run,
        train=train,
        test=test,
        net=net,
        preprocess=preprocess,
        sha256=sha256,
        loading={
            "device": run.device,
            "batch_size": int(cfg.batch_size),
            "workers": int(cfg.workers),
        },
        precision=cfg.precision,
        max_broken=float(cfg.max_broken),
    )


def _of_pixels(weights: str | None, prefix: str | None, train: ImageDataset) -> Preprocess:
    """How the encoder file prepares images; without one, images that are all of one size as is."""
    if weights is not None:
        return Preprocess.from_dict(read_weights(weights, Choice(prefix=prefix)).preprocess)
    if prefix is not None:
        raise ConfigError(f"prefix={prefix} is a place in weights=: give both or none")
    if train.images is None:
        raise ConfigError(
            f"the images of {train.name} differ in size: give weights=, whose preprocessing they "
            "then get"
        )
    size = train.images.shape[-1]
    return Preprocess(size=size, resize=None, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
