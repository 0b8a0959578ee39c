"""The command line: one line per mistake, the right exit code, the nearest known name."""

import pytest
import yaml
from omegaconf import OmegaConf

from visrep import config, groups
from visrep.cli import COMMANDS, main
from visrep.errors import ConfigError
from visrep.paths import config_dir


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    output = capsys.readouterr()
    return int(caught.value.code or 0), output.out, output.err


def refused(capsys, *arguments: str) -> str:
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert len(err.strip().splitlines()) == 1, err
    return err


def test_help_lists_every_command(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(f"  {name} " in out for name in COMMANDS)


def test_no_command_is_a_usage_error(capsys):
    assert run(capsys)[0] == 2


def test_unknown_command_names_the_nearest(capsys):
    assert "did you mean pretrain?" in refused(capsys, "pretrian")


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("bach_size=3", "batch_size"),
        ("optim.momentun=3", "optim.momentum"),
        ("method.temprature=3", "method.temperature"),
        ("backbone=resnet51", "resnet5"),
        ("method=simclrr", "simclr"),
        ("knn.kk=3", "knn.k"),
    ],
)
def test_unknown_key_or_choice_names_the_nearest(capsys, override, nearest):
    err = refused(capsys, "pretrain", "out=x", override)
    assert f"did you mean {nearest}" in err
    assert override.split("=")[0] in err


def test_a_published_run_takes_no_other_method(capsys):
    err = refused(capsys, "pretrain", "out=x", "paper=byol_1000ep", "method=simclr")
    assert "paper=byol_1000ep brings its method" in err and "one of the two" in err


@pytest.mark.parametrize("word", ["batch_size", "--batch-size=3", "seed={", "=3"])
def test_what_is_no_setting_is_refused(capsys, word):
    refused(capsys, "pretrain", "out=x", word)


def test_a_required_value_is_asked_for(capsys):
    assert "out=..." in refused(capsys, "pretrain")


def test_dry_run_prints_the_resolved_configuration(capsys):
    code, out, _ = run(capsys, "pretrain", "out=x", "batch_size=96", "--dry-run")
    assert code == 0
    cfg = OmegaConf.create(out)
    assert cfg.batch_size == 96 and cfg.out == "x"


def test_dry_run_shows_what_the_data_decide_or_says_why_not(capsys, tmp_path):
    scenes = ("pretrain", "out=x", "data=scenes", "method=simclr_scenes", "epochs=0.5")
    code, out, _ = run(capsys, *scenes, "--dry-run")
    cfg = OmegaConf.create(out)
    an_epoch = 6000 // cfg.batch_size
    assert code == 0 and (cfg.steps, cfg.snapshot_every) == (round(an_epoch / 2), an_epoch)
    nowhere = ("distill", "out=x", "data=imagefolder", f"data.root={tmp_path / 'no'}", "teacher=t")
    code, out, _ = run(capsys, *nowhere, "student=s", "--dry-run")
    assert code == 0 and OmegaConf.create(out).steps is None
    assert out.startswith("# What the data decide is as typed: ") and str(tmp_path / "no") in out


def test_plain_words_stand_for_the_first_keys(capsys, tmp_path):
    err = run(capsys, "lint-d2", "a.yaml", "b.pkl", "c")[2]
    assert "cannot read 'c'" in err
    assert "cannot read a.yaml" in run(capsys, "lint-d2", "config=a.yaml", "weights=b.pkl")[2]
    assert "did you mean lint-d2?" in refused(capsys, "lint_d2")


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(capsys, command):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0 and COMMANDS[command][1] in out


def test_a_constructor_argument_that_the_yaml_does_not_state_is_accepted():
    cfg, accepted = config.compose("pretrain", ["out=x", "backbone.zero_init_residual=false"])
    assert cfg.backbone.zero_init_residual is False
    assert "+backbone.zero_init_residual=false" in accepted


def test_sources_are_the_files_that_a_command_reads():
    found = groups.sources("pretrain", ["data=scenes", "method=byol_scenes", "optim.lr=1", "out=x"])
    names = {path.relative_to(config_dir()).with_suffix("").as_posix() for path in found}
    assert names >= {"pretrain", "data/scenes", "method/byol_scenes", "views/scenes_strong",
                     "optim/sgd", "backbone/resnet50"}  # fmt: skip
    assert not names & {"method/simclr_scenes", "rehearse", "views/scenes"}
    paper = groups.sources("pretrain", ["paper=byol_1000ep"])
    assert config_dir() / "method" / "byol.yaml" in paper  # one that a chosen file chooses
    assert groups.sources("no_such_command", ["a=b"]) == []


def test_nothing_outside_our_packages_is_instantiated():
    for target in ("torch.load", "os.system", "builtins.eval", "visrepx.y"):
        with pytest.raises(ConfigError, match="is not allowed"):
            config.instantiate({"_target_": target})
        with pytest.raises(ConfigError, match="is not allowed"):
            config.instantiate({"_target_": "torch.optim.SGD", "params": [{"_target_": target}]})


def test_every_group_file_instantiates_only_what_is_trusted():
    for path in config_dir().glob("*/*.yaml"):
        for target in config._targets(OmegaConf.load(path)):
            assert target.startswith(config.TRUSTED), path


def test_no_plain_key_of_a_command_is_named_like_a_group():
    """A sweep would take `demo -m backbone=x,y` for choices of a group that it has not.

    convert's task= names a file of that group, or several, which is no choice of one.
    """
    groups = {path.name for path in config_dir().iterdir() if path.is_dir()}
    for command in COMMANDS:
        name = command.replace("-", "_")
        content = yaml.safe_load((config_dir() / f"{name}.yaml").read_text(encoding="utf-8"))
        plain = {key for key, value in content.items() if not isinstance(value, dict)}
        named = {"task"} if command == "convert" else set()
        assert (plain - {"defaults"}) & groups == named, command
    several = ["task=[voc07_c4,voc0712_c4]", "weights=x", "out=y"]
    assert config.compose("convert", several)[0].task == ["voc07_c4", "voc0712_c4"]
