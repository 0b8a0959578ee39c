"""`init_weights=`: a pretraining begins from the weights of a file, or is refused in one line."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.pretrain.test_resuming import TINY, photos, refused, visrep  # noqa: F401
from visrep.data.preprocess import Preprocess
from visrep.errors import UserError
from visrep.nn.exemplar_nets import ExemplarNet
from visrep.nn.resnet import ResNet
from visrep.pretrain.beginning import begin_from
from visrep.weights.encoder_file import save_encoder
from visrep.weights.reading import read_weights


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    path = tmp_path / "weights.safetensors"
    net = ResNet(depth=18, width=0.125, stem="small")
    seen = Preprocess(size=32, resize=None, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))
    save_encoder(path, encoder=net, preprocess=seen, source={"method": "none"})
    return path


@pytest.mark.parametrize("method", ["simclr_small", "byol_small", "moco_small"])
def test_the_encoder_of_every_method_begins_there(photos, weights, tmp_path, capsys, method):  # noqa: F811
    run = [*TINY, f"method={method}", "batch_size=8", f"data.root={photos}", "steps=0"]
    visrep(*run, f"init_weights={weights}", f"out={tmp_path / 'run'}", "bn_splits=2")
    assert "begins from the encoder of" in capsys.readouterr().out
    began, file = read_weights(weights), read_weights(tmp_path / "run" / "encoder.safetensors")
    assert file.source["init_weights"] == began.sha256
    for name, tensor in began.part("").items():
        assert torch.equal(file.part("")[name], tensor), name


def test_another_net_is_refused_by_what_differs(photos, weights, tmp_path, capsys):  # noqa: F811
    run = [*TINY, f"data.root={photos}", "steps=0", f"out={tmp_path / 'run'}"]
    run.append(f"init_weights={weights}")
    err = refused(capsys, *run, "backbone.width=0.25")
    assert "holds another net (width 0.125 there, 0.25 here)" in err
    with pytest.raises(Exception, match="ExemplarNet begins from fresh weights only"):
        begin_from(ExemplarNet(net="small"), weights, views=None)


def test_the_net_that_a_prefix_names_is_the_one(tmp_path):
    torch.manual_seed(0)
    nets = [ResNet(depth=18, width=0.125, stem="imagenet") for _ in range(3)]
    path = tmp_path / "two.pth"
    torch.save({"a": nets[0].state_dict(), "b": nets[1].state_dict()}, path)
    views = SimpleNamespace(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    with pytest.raises(UserError, match="it holds several networks"):
        begin_from(nets[2], path, views=views)
    begin_from(nets[2], path, views=views, prefix="b")
    assert torch.equal(nets[2].conv1.weight, nets[1].conv1.weight)


def test_a_prefix_without_a_file_is_refused(photos, tmp_path, capsys):  # noqa: F811
    run = [*TINY, f"data.root={photos}", "steps=0", f"out={tmp_path / 'run'}", "init_prefix=net"]
    assert "init_prefix=net is a place in init_weights=" in refused(capsys, *run)
