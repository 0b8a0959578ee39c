"""`visrep lint-d2`: its words, its exit codes, and what it prints."""

import pytest
import torch

from tests.oracles.detectron2_files import converted
from tests.oracles.encoders import in_memory
from visrep.cli import main
from visrep.d2.pkl import detectron2_name


@pytest.fixture
def config(tmp_path):
    """A good config, `x.yaml`, whose weights `x.pkl` lie beside it."""
    converted(tmp_path, depth=50, width=0.0625, stem="imagenet")
    return tmp_path / "x.yaml"


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["lint-d2", *map(str, arguments)])
    output = capsys.readouterr()
    return int(caught.value.code or 0), output.out, output.err


def test_the_command_takes_plain_words_and_tells_fatal_from_the_rest(config, capsys):
    pkl = config.with_suffix(".pkl")
    code, out, err = run(capsys, config, pkl)
    assert (code, err) == (0, "")
    assert out.startswith(f"x.yaml, with {pkl} (visrep's .pkl)\n")
    assert out.endswith("fatal     0\nwarning   0\nnote      1   loaded\n")
    bad = config.with_name("bad.yaml")
    bad.write_text("_BASE_: x.yaml\nINPUT: {FORMAT: BGR}\n")
    code, out, err = run(capsys, bad, f"weights={pkl}")
    assert code == 3 and err == f"visrep: {bad}: 1 fatal: channel-order\n"
    assert out.startswith("bad.yaml <- x.yaml, with")
    assert "    fix\n        INPUT:\n          FORMAT: RGB\n        MODEL:\n" in out
    assert all(len(line) <= 100 for line in out.splitlines()[1:])
    assert run(capsys, config.with_name("none.yaml"))[0] == 1
    assert run(capsys)[0] == 2


def test_weights_that_the_config_names_are_looked_at(config, capsys):
    assert "loaded" in run(capsys, config)[1]
    config.write_text(config.read_text().replace("DEPTH: 50", "DEPTH: 101"))
    code, _, err = run(capsys, config)
    assert code == 3 and err == f"visrep: {config}: 1 fatal: depth\n"


def test_the_option_behind_a_name_is_detectron2s(config, capsys):
    file = in_memory(depth=50, width=0.0625, stem="imagenet")
    model = {detectron2_name(n, stem="imagenet"): t for n, t in file.tensors.items()}
    torch.save({"model": model}, config.with_suffix(".pth"))
    config.write_text(config.read_text().replace("x.pkl", "x.pth"))
    assert run(capsys, config)[0] == 3
    text = config.read_text()
    weights = str(config.with_suffix(".pth"))
    config.write_text(text.replace(weights, f"{weights}?matching_heuristics=True"))
    assert run(capsys, config)[0] == 0
    assert run(capsys, config, f"weights={weights}")[0] == 0


def test_control_characters_of_a_file_are_not_printed(config, capsys):
    text = config.read_text().replace(str(config.with_suffix(".pkl")), '"\\e[31mred"')
    config.write_text(f'{text}"\\e[2J": {{A: 1}}\n"\\e[2J": {{B: 1}}\n')
    code, out, _ = run(capsys, config)
    assert code == 0 and "repeated-key" in out and "\x1b" not in out
