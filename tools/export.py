"""`visrep export weights=student.safetensors out=model.onnx`: a file that runs without torch.

The graph takes N x 3 x size x size float32, RGB in [0, 1]; mean and standard deviation are applied
inside, so that a deployment has one mistake less to make. It gives `logits`, or `features` when the
encoder file holds no classifier. Of a detector (`weights=runs/detect`) the graph takes one image of
any size and gives boxes, see export_detector.py. Preprocessing and class names travel in the ONNX
metadata and in a `.json` beside the file.

Nothing is kept unless onnxruntime gives torch's numbers, for several batch sizes or real images.
"""

import io
import json
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from visrep.d2.recipe import DetectionRecipe
from visrep.data.preprocess import Preprocess
from visrep.engine.evaluation import moments
from visrep.engine.run import Run, command_line, plain_config
from visrep.errors import CheckFailed, ConfigError, UserError
from visrep.files import atomic_path
from visrep.paths import config_dir
from visrep.seeds import generator
from visrep.tools import export_detector
from visrep.tools.onnx_running import latency_ms, require, session
from visrep.transfer.detection import detector_file
from visrep.weights.foreign import Choice
from visrep.weights.reading import classifier_of, encoder_of, read_weights

FORMAT = "visrep-onnx/1"
PROTOBUF_LIMIT = 2**31 - 2**20  # bytes; one message, with room for the graph


class Deployed(nn.Module):
    """`net` behind its own normalisation: [0, 1] RGB in, what `net` gives out."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.net = net
        self.bgr = preprocess.channel_order == "BGR"
        mean, std = moments(preprocess)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        if self.bgr:
            image = image.flip(1)
        return self.net((image - self.mean) / self.std)


def to_onnx(net: nn.Module, *, size: int, output: str) -> Any:
    """The ONNX model of `net` in eval mode, input `image`: batch x 3 x size x size, any batch."""
    example = torch.zeros(2, 3, size, size)  # a batch of 1 would be taken for a constant
    noise = io.StringIO()  # the exporter reports its own progress
    with warnings.catch_warnings(), redirect_stdout(noise), redirect_stderr(noise):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net.eval(),
            (example,),
            dynamo=True,
            input_names=["image"],
            output_names=[output],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # stack traces with paths of this machine
    return model


def difference(run: Any, net: nn.Module, *, size: int, batches: Sequence[int]) -> float:
    """Largest absolute difference between onnxruntime and torch over the batch sizes."""
    worst = 0.0
    for batch in batches:
        image = torch.rand(batch, 3, size, size, generator=generator("export", batch))
        (given,) = run.run(None, {"image": image.numpy()})
        with torch.inference_mode():
            expected = net(image)
        if given.shape != tuple(expected.shape):
            return float("inf")
        worst = max(worst, float((torch.from_numpy(given) - expected).abs().max()))
    return worst


def describe(
    classes: Sequence[str] | None,
    preprocess: Preprocess,
    *,
    output: str,
    sha256: str,
    source: dict[str, Any],
) -> dict[str, Any]:
    """What a deployment must know: what to feed, what comes out, where it is from."""
    return {
        "format": FORMAT,
        "input": {
            "name": "image",
            "shape": ["batch", 3, preprocess.size, preprocess.size],
            "dtype": "float32",
            "range": [0, 1],
            "channel_order": "RGB",
        },
        "before": _before(preprocess),
        "inside": preprocess.to_dict(),
        "output": {"name": output, "classes": None if classes is None else list(classes)},
        "weights": sha256,
        "source": source,
    }


def _before(preprocess: Preprocess) -> dict[str, Any]:
    """What is to be done with an image before it is fed, in this order."""
    resize = preprocess.resize
    kernel = {"interpolation": preprocess.interpolation}
    if preprocess.antialias or resize is None:
        return {"resize_short_side": resize, **kernel, "centre_crop": preprocess.size}
    share = preprocess.size / resize
    square = {"centre_crop_share_of_short_side": share, "resize": preprocess.size}
    return {**square, **kernel, "antialias": False}


def main(cfg: DictConfig) -> None:
    """Export, check, measure, record."""
    require()
    out = Path(cfg.out)
    if out.suffix != ".onnx":
        raise ConfigError(f"out={out}: name a file that ends in .onnx")
    if out.exists() and not cfg.overwrite:
        raise ConfigError(f"{out} exists: choose another out=, or overwrite=true to replace it")
    threads = int(cfg.threads or torch.get_num_threads())
    torch.set_num_threads(threads)
    usual: Any = OmegaConf.load(config_dir() / "export.yaml")
    if detector_file.is_one(cfg.weights):
        if cfg.batches != usual.batches or cfg.prefix is not None:
            raise ConfigError("batches= and prefix= are of encoders: leave them out")
        _export_detector(cfg, out, threads=threads)
    else:
        if cfg.images is not None or cfg.box_tolerance != usual.box_tolerance:
            raise ConfigError("images= and box_tolerance= are of detectors: leave them out")
        _export_encoder(cfg, out, threads=threads)


def _export_encoder(cfg: DictConfig, out: Path, *, threads: int) -> None:
    onnx, runtime = require()
    file = read_weights(cfg.weights, Choice(prefix=cfg.prefix))
    inner: nn.Module
    if file.part("fc"):
        inner, output, kind = classifier_of(file), "logits", "classifier"
    else:
        inner, output, kind = encoder_of(file), "features", "encoder"
    preprocess = Preprocess.from_dict(file.preprocess)
    net = Deployed(inner, preprocess).eval()
    parameters = _fitting(net, cfg.weights)
    size = preprocess.size
    print(f"exporting the {kind} of {cfg.weights}: {parameters:,} parameters, {size} x {size} px")
    model = to_onnx(net, size=size, output=output)
    card = describe(file.classes, preprocess, output=output, sha256=file.sha256, source=file.source)
    onnx.helper.set_model_props(
        model, {key: json.dumps(value) for key, value in card.items() if key != "format"}
    )
    model.metadata_props.add(key="format", value=FORMAT)
    with atomic_path(out) as graph, atomic_path(out.with_suffix(".json")) as description:
        graph.write_bytes(model.SerializeToString())
        description.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        run = session(runtime, str(graph), threads=threads)
        worst = difference(run, net, size=size, batches=cfg.batches)
        if not worst <= cfg.tolerance:
            raise CheckFailed(
                f"{out}: onnxruntime and torch differ by {worst:.2e}, more than {cfg.tolerance:g}; "
                "no file was kept. Install the versions that the extra names: "
                "pip install -U 'visrep[export]'"
            )
    print(f"onnxruntime and torch differ by at most {worst:.1e} (batches {list(cfg.batches)})")

    image = torch.rand(1, 3, size, size, generator=generator("export", "latency"))
    _measure(
        cfg,
        out,
        run,
        net,
        image,
        weights=file.sha256,
        parameters=parameters,
        threads=threads,
        usual=200,
        batch=1,
        max_difference=worst,
    )


def _export_detector(cfg: DictConfig, out: Path, *, threads: int) -> None:
    onnx, runtime = require()
    file = detector_file.read(cfg.weights)
    net = export_detector.deployed(file)
    parameters = _fitting(net, cfg.weights)
    recipe = DetectionRecipe(**file.recipe)
    images = export_detector.images_to_check(cfg.images, recipe)
    print(f"exporting the detector of {cfg.weights}: {parameters:,} parameters, task {recipe.task}")
    outputs = export_detector.outputs_of(file)
    card = export_detector.describe(file)
    model = export_detector.with_card(
        onnx, export_detector.to_onnx(net, images[0], outputs=outputs), card
    )
    with atomic_path(out) as graph, atomic_path(out.with_suffix(".json")) as description:
        graph.write_bytes(model)
        description.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        run = session(runtime, str(graph), threads=threads)
        boxes, rest, compared = export_detector.difference(run, net, images)
        if not (boxes <= cfg.box_tolerance and rest <= cfg.tolerance):
            raise CheckFailed(
                f"{out}: onnxruntime and torch differ by {boxes:.2e} px and {rest:.2e} of scores, "
                f"more than {cfg.box_tolerance:g} and {cfg.tolerance:g}; no file was kept. Install "
                "the versions that the extra names: pip install -U 'visrep[export]'"
            )
    sizes = len({tuple(image.shape) for image in images})
    print(
        f"onnxruntime and torch differ by at most {boxes:.1e} px and {rest:.1e} of scores "
        f"({compared} detections in {len(images)} images of {sizes} sizes)"
    )
    if not compared:
        print("the detector finds nothing in these images: give images= with its objects to check")
    _measure(
        cfg,
        out,
        run,
        net,
        images[0],
        weights=file.sha256,
        parameters=parameters,
        threads=threads,
        usual=10,
        compared=compared,
        max_difference=boxes,
        max_score_difference=rest,
    )


def _fitting(net: nn.Module, weights: str) -> int:
    """The number of parameters of `net`, whose file must not pass what ONNX can hold."""
    parameters = sum(p.numel() for p in net.parameters())
    if 4 * parameters > PROTOBUF_LIMIT:
        raise UserError(
            f"{weights}: {4 * parameters / 2**30:.1f} GiB of weights do not fit one ONNX file "
            "(2 GiB); distil it into a smaller net first"
        )
    return parameters


def _measure(
    cfg: DictConfig,
    out: Path,
    run: Any,
    net: nn.Module,
    image: Tensor,
    *,
    weights: str,
    threads: int,
    usual: int,
    **about: Any,
) -> None:
    """The latency of `image` in onnxruntime and torch, said and recorded; `usual` repeats."""
    array, repeats = image.numpy(), int(cfg.repeats or usual)
    with torch.inference_mode():
        slow = latency_ms(lambda: net(image), repeats=repeats)
    fast = latency_ms(lambda: run.run(None, {"image": array}), repeats=repeats)
    size_bytes = out.stat().st_size
    print(
        f"{out}: {size_bytes / 1e6:.2f} MB; one image takes {fast:.2f} ms in onnxruntime, "
        f"{slow:.2f} ms in torch (median of {repeats}, {threads} threads, CPU)"
    )
    record = Run(
        out=out.parent,
        device=torch.device("cpu"),
        seed=int(cfg.seed),
        config=plain_config(cfg),
        command=command_line(),
    ).record
    height, width = image.shape[-2:]
    for engine, value in (("onnxruntime", fast), ("torch", slow)):
        record(
            task="export",
            dataset=f"one image of {height} x {width} px",
            metric="latency_ms",
            value=value,
            weights=weights,
            engine=engine,
            file=out.name,
            bytes=size_bytes,
            threads=threads,
            repeats=repeats,
            **about,
        )
