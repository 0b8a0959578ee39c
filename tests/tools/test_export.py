"""`visrep export`: the file gives torch's numbers, says what it is, and is absent when it fails."""

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.small_data import CLASSES, count_reads, tiny_net, write_encoder
from visrep import results
from visrep.config import compose
from visrep.data.preprocess import Preprocess
from visrep.errors import CheckFailed, ConfigError, UserError
from visrep.nn.classifier import Classifier
from visrep.tools import export, onnx_running
from visrep.weights import load_classifier, save_encoder

runtime: Any = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
onnx: Any = pytest.importorskip("onnx", reason="the extra `export` is not installed")


def write_classifier(path: Path, **preprocess: Any) -> str:
    encoder = tiny_net()
    with torch.no_grad():
        for name, buffer in encoder.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
    net = Classifier(encoder=encoder, classes=3, zero_init=False)
    settings: dict[str, Any] = {"size": 16, "resize": 20, "mean": (0.4,) * 3, "std": (0.2,) * 3}
    return save_encoder(
        path,
        encoder=encoder,
        preprocess=Preprocess(**(settings | preprocess)),
        fc=net.fc,
        classes=CLASSES,
        source={"method": "none"},
    )


def run(weights: Path, out: Path, *overrides: str) -> None:
    cfg, _ = compose("export", [f"weights={weights}", f"out={out}", "repeats=3", *overrides])
    export.main(cfg)


def test_file_gives_torchs_logits_for_any_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, out = tmp_path / "student.safetensors", tmp_path / "sub" / "student.onnx"
    sha256 = write_classifier(weights)
    reads = count_reads(monkeypatch)
    run(weights, out)
    assert reads == [weights.name]

    session = runtime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    net = load_classifier(weights)
    images = torch.randint(0, 256, (5, 3, 20, 24), dtype=torch.uint8)
    # What the description says: resize and crop outside, [0, 1], normalisation inside.
    pixels = Preprocess(size=16, resize=20, mean=(0,) * 3, std=(1,) * 3)(images)
    for batch in (pixels, pixels[:1], pixels[:3]):
        (given,) = session.run(["logits"], {"image": batch.numpy()})
        with torch.no_grad():
            expected = net((batch - 0.4) / 0.2)
        assert (torch.from_numpy(given) - expected).abs().max() <= 1e-4
    with torch.no_grad():
        full = net(net.preprocess(images))
    assert (
        torch.from_numpy(session.run(None, {"image": pixels.numpy()})[0]) - full
    ).abs().max() < 1e-4

    onnx.checker.check_model(str(out), full_check=True)
    card = json.loads(out.with_suffix(".json").read_text())
    stored = session.get_modelmeta().custom_metadata_map
    assert stored.pop("format") == card.pop("format") == "visrep-onnx/1"
    assert {key: json.loads(value) for key, value in stored.items()} == card
    assert card["output"] == {"name": "logits", "classes": CLASSES}
    assert card["before"] == {
        "resize_short_side": 20,
        "interpolation": "bilinear",
        "centre_crop": 16,
    }
    assert card["weights"] == sha256
    text = out.read_bytes()
    assert str(Path(export.__file__).parent.parent).encode() not in text  # no path of this machine

    fast, slow = results.read(out.parent / "results.jsonl")
    assert (fast.task, fast.metric, fast.engine) == ("export", "latency_ms", "onnxruntime")
    assert (slow.engine, slow.weights) == ("torch", sha256)
    assert fast.extra["bytes"] == out.stat().st_size
    assert fast.extra["threads"] == 1
    assert fast.extra["max_difference"] <= 1e-4
    assert 0 < fast.value < 1000
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "results.jsonl",
        "student.json",
        "student.onnx",
    ]


def test_encoder_without_classifier_gives_features(tmp_path: Path) -> None:
    write_encoder(tmp_path / "encoder.safetensors")
    run(tmp_path / "encoder.safetensors", tmp_path / "encoder.onnx")
    session = runtime.InferenceSession(str(tmp_path / "encoder.onnx"))
    (features,) = session.run(["features"], {"image": torch.rand(4, 3, 16, 16).numpy()})
    assert features.shape == (4, 32)


def test_range_and_channel_order_are_inside(tmp_path: Path) -> None:
    """A net that takes BGR in 0..255 is exported as one that takes RGB in [0, 1]."""
    preprocess = Preprocess(
        size=16,
        resize=None,
        mean=(103.5, 116.3, 123.7),
        std=(57.4, 57.1, 58.4),
        channel_order="BGR",
        range=(0.0, 255.0),
    )
    net = export.Deployed(torch.nn.Identity(), preprocess)
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(net(images / 255), preprocess(images), atol=1e-5, rtol=1e-5)


def test_failed_check_exits_3_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, out = tmp_path / "student.safetensors", tmp_path / "out" / "student.onnx"
    write_classifier(weights)
    honest = export.to_onnx

    def broken(net: torch.nn.Module, **kwargs: Any) -> Any:
        with torch.no_grad():
            net.net.fc.bias.add_(0.01)
            model = honest(net, **kwargs)
            net.net.fc.bias.sub_(0.01)
        return model

    monkeypatch.setattr(export, "to_onnx", broken)
    with pytest.raises(CheckFailed, match="differ by 1.00e-02") as failure:
        run(weights, out)
    assert failure.value.exit_code == 3
    assert list(out.parent.iterdir()) == []


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, out = tmp_path / "student.safetensors", tmp_path / "student.onnx"
    write_classifier(weights)
    with pytest.raises(ConfigError, match=r"ends in \.onnx"):
        run(weights, tmp_path / "student.pt")
    with pytest.raises(UserError, match="gone"):
        run(tmp_path / "gone.safetensors", out)
    monkeypatch.setattr(export, "PROTOBUF_LIMIT", 1000)
    with pytest.raises(UserError, match="do not fit one ONNX file"):
        run(weights, out)
    assert not out.exists()
    out.write_bytes(b"mine")
    with pytest.raises(ConfigError, match="overwrite=true"):
        run(weights, out)
    assert out.read_bytes() == b"mine"


def test_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError("No module named 'onnxruntime'", name="onnxruntime")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"onnxruntime: pip install 'visrep\[export\]'"):
        run(tmp_path / "x.safetensors", tmp_path / "x.onnx")


def test_latency_is_a_median(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 0.001, 0.0, 0.002, 0.0, 0.9])
    monkeypatch.setattr(onnx_running.time, "perf_counter", lambda: next(ticks))
    calls: list[int] = []
    assert onnx_running.latency_ms(lambda: calls.append(1), repeats=3) == pytest.approx(2.0)
    assert len(calls) == 6  # three to warm up
