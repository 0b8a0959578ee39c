"""Run folders as the commands write them, small, for the tests of the report."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from visrep import config, results
from visrep.data.detection import Box, DetectionDataset, ImageRecord
from visrep.results import Record
from visrep.tools.report import report
from visrep.transfer.detection.evaluation.coco import evaluate_coco
from visrep.transfer.detection.evaluation.errors import look
from visrep.transfer.detection.prediction import load


def record(**changes: Any) -> Record:
    values: dict[str, Any] = {
        "task": "knn",
        "dataset": "scenes/test",
        "metric": "top1",
        "value": 70.0,
        "weights": "a" * 64,
        "init": "pretrained",
        "command": "visrep knn",
        "config": {"weights": "runs/x/pretrain/encoder.safetensors"},
        "engine": "visrep",
        "seed": 0,
        "time": "2026-11-24T10:00:00+00:00",
    }
    return Record(**values | changes)


def write(root: Path, folder: str, *records: Record, config: dict[str, Any] | None = None) -> Path:
    for each in records:
        results.append(root / folder / "results.jsonl", each)
    if config is not None:
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "config.yaml").write_text(yaml.safe_dump(config))
    return root / folder


def html_of(root: Path, **changes: Any) -> str:
    overrides = [f"runs={root}", *(f"{key}={value}" for key, value in changes.items())]
    cfg, _ = config.compose("report", overrides)
    report.main(cfg)
    return Path(cfg.out).read_text(encoding="utf-8")


def flat(html: str) -> str:
    """Without the space between tags, one space elsewhere, as a browser shows it."""
    return re.sub(r">\s+<", "><", re.sub(r"\s+", " ", html))


def png_bytes(width: int = 12, height: int = 10) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(stream, "PNG")
    return stream.getvalue()


def chain(root: Path) -> Path:
    """A small run of everything in `root`, laid out as the demo does."""
    pretrained = {"weights": "runs/demo/pretrain/encoder.safetensors"}
    untrained = {"weights": "runs/demo/untrained/encoder.safetensors"}
    backbone = {"depth": 18, "width": 0.25, "stem": "small"}
    base = {"name": "simclr_scenes", "backbone": backbone}
    pre = record(
        task="pretrain",
        dataset="scenes/train",
        metric="loss",
        extra={"method": "simclr_scenes", "title": "SimCLR"},
    )
    write(root, "pretrain", pre, config=base | {"steps": None})
    write(root, "untrained", replace(pre, weights="0" * 64), config=base | {"steps": 0})
    lines = [{"step": step, "loss": 5.0 - step / 100} for step in range(20, 401, 20)]
    lines += [{"step": step, "knn": 30.0 + step / 10} for step in range(0, 401, 100)]
    (root / "pretrain" / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    (root / "pretrain" / "views.png").write_bytes(png_bytes())
    write(root, "knn", record(value=71.0, config=pretrained))
    for seed, value in enumerate((30.0, 32.0)):
        again = {"init": "random", "seed": seed, "weights": str(seed) * 64, "config": untrained}
        write(root, f"knn-r{seed}", record(value=value, extra={"bn": "reestimated"}, **again))
        write(root, f"knn-i{seed}", record(value=value - 4, extra={"bn": "initial"}, **again))
    write(root, "knn-p", record(value=46.0, init="raw_pixels", weights="none", config={}))
    for init, source, value in (("pretrained", pretrained, 80.0), ("random", untrained, 50.0)):
        for draw in range(3):
            write(
                root,
                f"finetune-{init}-{draw}",
                record(
                    task="finetune",
                    value=value + draw,
                    init=init,
                    extra={"labels": 0.1, "draw": draw},
                    config=source | {"draw": draw, "labels": 0.1},
                ),
            )
    for init, source, value in (("pretrained", pretrained, 60.0), ("random", untrained, 59.0)):
        for seed in range(2):
            folder = write(
                root,
                f"detect-{init}-{seed}",
                record(
                    task="detection",
                    metric="AP50",
                    value=value + 3 * seed,
                    init=init,
                    seed=seed,
                    engine="torchvision",
                    config=source,
                    extra={"form": "VOC 11-point"},
                ),
            )
            predictions(folder, root / "image.png")
    for role, value, parameters in (("teacher", 83.0, 700_000), ("student", 82.5, 175_000)):
        extra = {"role": role, "parameters": parameters, "bytes": 4 * parameters}
        sha = role[0] * 64
        write(root, "distill", record(task="distill", value=value, weights=sha, extra=extra))
        export = {"task": "export", "metric": "latency_ms", "weights": sha}
        latency = record(
            **export, value=0.4, engine="onnxruntime", extra={"bytes": 5 * parameters, "threads": 1}
        )
        write(root, "export", latency)
    near = [{"image": encoded(), "label": "3", "similarity": 0.91}]
    near += [{"image": encoded(), "label": "5", "similarity": 0.75}]
    query = {"image": encoded(), "label": "3", "neighbours": near}
    (root / "knn" / "neighbours.json").write_text(json.dumps({"queries": [query]}))
    return root


def encoded() -> str:
    return base64.b64encode(png_bytes()).decode()


def predictions(folder: Path, file: Path) -> None:
    file.write_bytes(png_bytes(100, 80))
    image = {
        "id": "one",
        "file": str(file),
        "height": 80,
        "width": 100,
        "truth": {"boxes": [[10.0, 20.0, 30.0, 50.0]], "labels": [1]},
        "boxes": [[11.0, 21.0, 31.0, 52.0], [60.0, 5.0, 70.0, 15.0]],
        "labels": [1, 0],
        "scores": [0.97, 0.2],
    }
    content = {"dataset": "scenes/test", "classes": ["cat", "dog"], "images": [image]}
    (folder / "predictions.json").write_text(json.dumps(content))


def errors(root: Path) -> None:
    """Give the detectors of a chain the errors of their predictions: one of two objects found."""
    boxes = [Box((10.0, 20.0, 30.0, 50.0), 1), Box((60.0, 40.0, 90.0, 70.0), 0)]
    image = ImageRecord(str(root / "image.png"), "one", 80, 100, boxes)
    data = DetectionDataset(name="scenes/test", classes=["cat", "dog"], records=[image])
    for folder in root.glob("detect-*"):
        found = load(folder / "predictions.json")
        found["one"].scores[1] = 0.98  # a box on nothing, surer than the right one
        made = look(data, found, evaluate_coco(data, found))
        (folder / "errors.json").write_text(json.dumps(made))


class Page(HTMLParser):
    """Tags, their attributes, and whether they are balanced."""

    VOID = ("meta", "img", "br", "link", "input", "hr")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
