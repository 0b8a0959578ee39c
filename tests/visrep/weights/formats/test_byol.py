"""BYOL: haiku's pickles of pretraining and of linear evaluation."""

import pytest
import torch

from tests.oracles.checkpoints import tf
from tests.visrep.weights.formats.test_simclr import difference, features, projected
from visrep.errors import UserError
from visrep.weights import read_weights
from visrep.weights.foreign import Choice
from visrep.weights.reading import classifier_of


def images(height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def byol(tmp_path_factory):
    net = tf.byol_net()
    path = tmp_path_factory.mktemp("byol") / "pretrain_res50x1.pkl"
    path.write_bytes(net.pickled())
    return net, path


@pytest.mark.parametrize("size", [(64, 64), (65, 47), (34, 90)])
@pytest.mark.parametrize("side", ["online", "target"])
def test_features_of_both_networks(byol, size, side):
    net, path = byol
    file = read_weights(path, Choice(encoder=side))
    other = "target" if side == "online" else "online"
    assert (file.encoder, file.alternatives) == (side, (other,))
    assert file.backbone == {
        "depth": 14,
        "width": 0.0625,
        "sk": False,
        "stem": "imagenet",
        "padding": "haiku",
    }
    x = images(*size)
    assert difference(features(file, x), net.features(x, side)) < 1e-5
    assert difference(projected(file, x), net.projected(x, side)) < 1e-5
    assert difference(features(file, x), net.features(x, other)) > 0.01


def test_the_default_is_the_online_network(byol):
    file = read_weights(byol[1])
    assert file.encoder == "online"
    assert file.preprocess["std"] == [0.229, 0.224, 0.225]
    assert file.preprocess["interpolation"] == "bicubic"  # TensorFlow 2's
    assert file.preprocess["antialias"] is False
    assert [layer["norm"] for layer in file.head["layers"]] == ["affine", "none"]
    norms = 1 + 4 * 3 + 4 + 2  # stem, blocks, shortcuts, of the two MLPs
    assert file.dropped == {
        "of the batch norms' biased averages": 3 * norms,
        "of the classifier (classifier=0 keeps it)": 2,
        "of the target network": len(byol[0].nets["target"].values),
        "of the predictor": 5 + 2,
        "of the optimizer": sum(k.startswith("params/") for k in byol[0].nets["online"].values),
    }


@pytest.mark.parametrize("side", ["online", "target"])
def test_networks_that_are_the_same_objects_are_both_there(tmp_path, side):
    """As in a file of the first step: the pickle holds the parameters once."""
    net = tf.byol_net()
    net.nets["target"] = net.nets["online"]
    (tmp_path / "first.pkl").write_bytes(net.pickled())
    file = read_weights(tmp_path / "first.pkl", Choice(encoder=side))
    assert file.encoder == side
    assert difference(features(file, images()), net.features(images())) < 1e-5


def test_the_classifier_in_place_of_the_head(byol):
    net, path = byol
    file = read_weights(path, Choice(classifier=0))
    assert file.head is None
    with torch.inference_mode():
        given = classifier_of(file)(images())
    assert difference(given, net.logits(images())) < 1e-5
    with pytest.raises(UserError, match="give classifier=0"):
        read_weights(path, Choice(classifier=1))


@pytest.mark.parametrize(
    ("depth", "channels", "expected"),
    [(18, 2, {"project": True}), (101, 1, {"depth": 101})],
)
def test_other_nets_in_files_of_linear_evaluation(tmp_path, depth, channels, expected):
    net = tf.byol_net(depth=depth, channels=2 * channels)
    path = tmp_path / "linear-eval.pkl"
    path.write_bytes(net.linear_eval())
    file = read_weights(path)
    assert {key: file.backbone[key] for key in expected} == expected
    assert (file.encoder, file.alternatives) == ("", ())
    assert ("before December 2020" in file.source.get("note", "")) == (depth == 18)
    x = images()
    assert difference(features(file, x), net.features(x)) < 1e-5
    with torch.inference_mode():
        assert difference(classifier_of(file)(x), net.logits(x)) < 1e-5


def test_torchs_padding_is_another_net(byol):
    net, path = byol
    given = features(read_weights(path, Choice(padding="torch")), images())
    assert difference(given, net.features(images())) > 0.05


def test_plain_dicts_do_as_well(tmp_path):
    net = tf.byol_net(depth=10)
    trees = {
        f"{s}_{p}": tf.haiku_tree(net.nets[s], p) for s in net.nets for p in ("params", "state")
    }
    path = tmp_path / "m.pkl"
    path.write_bytes(tf.dill_pickle("State", trees, frozen=False))
    assert difference(features(read_weights(path), images()), net.features(images())) < 1e-5


@pytest.mark.parametrize(
    ("name", "clause"),
    [
        ("params/res_net14/~/final_batchnorm/scale", "final_batchnorm/scale has no place in it"),
        ("params/res_net14/~/block_group_4/~/block_0/~/conv_0/w", "block_group_4"),
        ("params/res_net14/~/block_group_0/~/block_0/~/conv_3/w", "conv_3/w has no place"),
        ("params/encoder/linear/w", "online_params/encoder/linear/w has no place in it"),
    ],
)
def test_a_module_of_another_net_is_refused(tmp_path, name, clause):
    net = tf.byol_net()
    net.nets["online"].get(name, (2, 2), 0, 1)
    path = tmp_path / "m.pkl"
    path.write_bytes(net.pickled())
    with pytest.raises(UserError, match=clause):
        read_weights(path)


def test_missing_statistics_are_named(tmp_path):
    net = tf.byol_net()
    del net.nets["online"].values["state/res_net14/~/initial_batchnorm/~/mean_ema/average"]
    path = tmp_path / "m.pkl"
    path.write_bytes(net.pickled())
    with pytest.raises(UserError, match="it lacks bn1.running_mean"):
        read_weights(path)
