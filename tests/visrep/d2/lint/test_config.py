"""A Detectron2 config read without Detectron2: chain, repeated keys, defaults, hostile files."""

from pathlib import Path

import pytest

from visrep.d2.lint import config as reading
from visrep.errors import ConfigError, UserError


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def chain(tmp_path):
    write(
        tmp_path,
        "base.yaml",
        "MODEL:\n  RESNETS: {DEPTH: 101, NORM: BN}\n  MASK_ON: True\nSOLVER:\n  STEPS: (6, 8)\n",
    )
    write(tmp_path, "sub/middle.yaml", "_BASE_: ../base.yaml\nMODEL:\n  RESNETS: {NORM: SyncBN}\n")
    return write(
        tmp_path,
        "sub/top.yaml",
        '_BASE_: "middle.yaml"\nSOLVER:\n  BASE_LR: 0.1\n'
        "DATASETS: {TRAIN: \"('voc_2007_trainval',)\"}\n",
    )


def test_the_chain_is_merged_from_the_base_up(chain):
    config = reading.read_config(chain)
    assert [path.name for path in config.files] == ["base.yaml", "middle.yaml", "top.yaml"]
    assert config["MODEL.RESNETS.DEPTH"] == 101
    assert config["MODEL.RESNETS.NORM"] == "SyncBN"
    assert config["SOLVER.STEPS"] == [6, 8]
    assert config["DATASETS.TRAIN"] == ["voc_2007_trainval"]
    assert config["INPUT.FORMAT"] == "BGR" and not config.states("INPUT.FORMAT")
    assert config.shown("INPUT.FORMAT") == "INPUT.FORMAT is 'BGR', Detectron2's default"
    assert config.shown("SOLVER.BASE_LR") == "SOLVER.BASE_LR is 0.1"


def test_the_command_lines_settings_come_last(chain):
    opts = ["SOLVER.BASE_LR", "0.3", "SOLVER.STEPS", "(1,2)"]
    config = reading.read_config(chain, opts=opts)
    assert config["SOLVER.BASE_LR"] == 0.3 and config["SOLVER.STEPS"] == [1, 2]
    with pytest.raises(ConfigError, match="opts="):
        reading.read_config(chain, opts=["SOLVER.BASE_LR"])


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("bass.yaml", "'bass.yaml', and there is no such file; that folder has base.yaml"),
        ("../other/base.yaml", "there is no such file$"),
        ("detectron2://Base-RCNN-C4.yaml", "takes a base for a path: copy that file"),
        ("https://example.org/base.yaml", "on the network; visrep does not fetch it"),
    ],
)
def test_a_base_that_is_not_there_is_named(tmp_path, base, message):
    import re

    write(tmp_path, "base.yaml", "MODEL: {MASK_ON: True}\n")
    path = write(tmp_path, "top.yaml", f"_BASE_: {base}\nMODEL: {{MASK_ON: False}}\n")
    assert re.search(message, reading.read_config(path).missing_base)


def test_several_bases(tmp_path):
    write(tmp_path, "a.yaml", "MODEL: {MASK_ON: True, WEIGHTS: a}\n")
    write(tmp_path, "b.yaml", "MODEL: {WEIGHTS: b}\n")
    path = write(tmp_path, "top.yaml", "_BASE_: [a.yaml, b.yaml]\n")
    config = reading.read_config(path)
    assert config["MODEL.MASK_ON"] is True and config["MODEL.WEIGHTS"] == "b"


def test_yamls_own_merging(tmp_path):
    text = "X: &x {NORM: BN, DEPTH: 101}\nMODEL:\n  RESNETS: {<<: *x, DEPTH: 50}\n"
    config = reading.read_config(write(tmp_path, "x.yaml", text))
    assert config["MODEL.RESNETS.NORM"] == "BN" and config["MODEL.RESNETS.DEPTH"] == 50
    assert not config.repeated


def test_of_repeated_keys_the_last_counts_and_the_loss_is_listed(tmp_path):
    text = "MODEL:\n  RESNETS: {DEPTH: 50, NORM: BN}\n  RESNETS: {DEPTH: 50}\nTEST: {A: 1, A: 1}\n"
    config = reading.read_config(write(tmp_path, "x.yaml", text))
    first, second = config.repeated
    assert (first.key, first.line, first.lost) == ("MODEL.RESNETS", 3, {"MODEL.RESNETS.NORM": "BN"})
    assert (second.key, second.lost) == ("TEST.A", {})
    assert config["MODEL.RESNETS.NORM"] == "FrozenBN"


def test_code_in_a_yaml_is_not_run(tmp_path):
    mark = tmp_path / "mark"
    text = f"MODEL:\n  X: !!python/object/apply:os.mkdir ['{mark}']\n  Y: !!python/name:os.system\n"
    config = reading.read_config(write(tmp_path, "x.yaml", text))
    assert not mark.exists()
    assert [tag.split(":")[0] for tag in config.code] == ["MODEL.X", "MODEL.Y"]


def test_values_that_detectron2_refuses_are_set_aside(tmp_path):
    text = (
        'DATASETS: {TRAIN: ("coco_2017_train")}\nSOLVER: {BASE_LR: much, STEPS: [a]}\n'
        "MODEL: {MASK_ON: 1, PIXEL_STD: [1, 1, 1]}\n"
    )
    config = reading.read_config(write(tmp_path, "x.yaml", text))
    wanted = {"DATASETS.TRAIN": "list", "SOLVER.BASE_LR": "number", "SOLVER.STEPS": "list"}
    assert {k: kind for k, (_, kind) in config.misfits.items()} == {
        **wanted,
        "MODEL.MASK_ON": "truth value",
    }
    assert config["SOLVER.BASE_LR"] == 0.001 and config["MODEL.PIXEL_STD"] == [1, 1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL: {a: [}", "is no yaml at line 1"),
        ("just words", "it has no keys"),
        ("- 1\n- 2\n", "it has no keys"),
        ("", "it has no keys"),
        ("one: 1\n", "it has none of MODEL, SOLVER, _BASE_"),
        ("_BASE_: x.yaml\n", "round in a circle"),
        ("MODEL: &a [*a]\n", "it holds too much, or too deep"),
        ("MODEL: " + "[" * 3000 + "]" * 3000, "is no yaml|too deep"),
        ("MODEL: {? [a] : 1}\n", "MODEL has a key that is no word"),
        ("SOLVER: {A: !!int x}\n", "SOLVER.A has no readable value"),
        ("SOLVER: {STEPS: !!timestamp soon}\n", "SOLVER.STEPS has no readable value"),
        (
            "a: &a [x,x,x,x,x,x,x,x,x]\n"
            + "".join(
                f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n"
                for a, b in zip("abcdefg", "bcdefgh", strict=True)
            )
            + "MODEL: *h\n",
            "it holds too much",
        ),
    ],
)
def test_what_is_no_config_is_refused_in_one_line(tmp_path, text, message):
    path = write(tmp_path, "x.yaml", text)
    with pytest.raises(UserError, match=message) as caught:
        reading.read_config(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        reading.read_config(tmp_path / "none.yaml")
    path = tmp_path / "x.yaml"
    path.write_bytes(b"MODEL: \xff\xfe\x00")
    with pytest.raises(UserError, match="is no yaml"):
        reading.read_config(path)


@pytest.mark.detectron2
def test_the_defaults_are_detectron2s():
    from detectron2.config import get_cfg

    cfg = get_cfg()
    for key, value in reading.DEFAULTS.items():
        theirs = cfg
        for part in key.split("."):
            theirs = theirs[part]
        assert (list(theirs) if isinstance(theirs, tuple) else theirs) == value, key


@pytest.mark.detectron2
def test_detectron2_merges_its_own_configs_to_the_same(chain):
    from importlib.resources import files

    from detectron2.config import get_cfg

    zoo = Path(str(files("detectron2"))) / "model_zoo" / "configs"
    names = ["PascalVOC-Detection/faster_rcnn_R_50_C4", "COCO-Detection/retinanet_R_50_FPN_3x"]
    names += ["COCO-Keypoints/keypoint_rcnn_X_101_32x8d_FPN_3x", "Cityscapes/mask_rcnn_R_50_FPN"]
    for path in [chain, *(zoo / f"{name}.yaml" for name in names)]:
        if not path.exists():
            pytest.skip("this Detectron2 comes without its configs")
        cfg = get_cfg()
        cfg.merge_from_file(str(path), allow_unsafe=True)
        config = reading.read_config(path)
        for key in reading.DEFAULTS:
            theirs = cfg
            for part in key.split("."):
                theirs = theirs[part]
            assert (list(theirs) if isinstance(theirs, tuple) else theirs) == config[key], key
