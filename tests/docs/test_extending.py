"""The examples of docs/extending.md, written to a stranger's folder and run there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.docs.pages import ROOT, read, write
from tests.oracles.encoders import net
from visrep import results

PAGE = read("docs/extending.md")
# What makes a command of the page quick; the first of the page is a form, not an example.
QUICKLY = {
    "pretrain": ["steps=3", "knn.times=1", "optim.warmup_epochs=0", "device=cpu", "threads=1"],
    "knn": ["device=cpu", "threads=1", "k=1"],
    "detect": ["--dry-run"],
}
RUN = """
import json, sys
from visrep.cli import main
for line in json.loads(sys.argv[1]):
    print("#", *line, flush=True)
    try:
        main(line)
    except SystemExit as end:
        if end.code:
            sys.exit(f"{line}: {end.code}")
"""


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which all commands of the page have run, and what they printed."""
    folder = tmp_path_factory.mktemp("stranger")
    write(PAGE.files, folder)
    for part in ("train", "test"):
        (folder / "plates" / part).mkdir(parents=True)
        for name, grey in (("a", 10), ("b", 200)):
            Image.new("RGB", (32, 32), (grey,) * 3).save(folder / "plates" / part / f"{name}_1.png")
    tensors = {f"foo/{name}": tensor for name, tensor in net(stem="imagenet").state_dict().items()}
    torch.save({"weights": {**tensors, "steps": torch.ones(3)}}, folder / "model.pth")
    lines = [[*line, *QUICKLY.get(line[0], [])] for line in PAGE.commands[1:]]
    done = subprocess.run(
        (sys.executable, "-c", RUN, json.dumps(lines)),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder, done.stdout


def test_every_kind_of_part_has_an_example() -> None:
    kinds = ["pretrain", "knn", "views", "convert", "detect", "report"]
    assert [line[0] for line in PAGE.commands[1:]] == kinds


def test_the_tests_that_the_table_names_are_there() -> None:
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    named = [cell.strip(" `") for line in text.splitlines() for cell in line.split("|")[4:5]]
    files = [name for name in named if name.startswith("tests/")]
    assert len(files) == 6 and [name for name in files if not (ROOT / name).is_file()] == []


def test_the_method_trains(stranger: tuple[Path, str]) -> None:
    folder, _ = stranger
    measured = results.read(folder / "runs" / "agree" / "results.jsonl")
    assert {record.task for record in measured} == {"pretrain"}
    assert (folder / "runs" / "agree" / "encoder.safetensors").is_file()


def test_the_data_set_is_read(stranger: tuple[Path, str]) -> None:
    (record,) = results.read(stranger[0] / "runs" / "plates" / "results.jsonl")
    assert record.dataset == "plates/test" and record.value == 100.0


def test_the_operation_is_applied(stranger: tuple[Path, str]) -> None:
    folder, _ = stranger
    with Image.open(folder / "views.png") as picture:
        assert picture.width > picture.height > 0


def test_the_format_is_read(stranger: tuple[Path, str]) -> None:
    _, printed = stranger
    assert "foo" in printed and (stranger[0] / "encoder.safetensors").is_file()


def test_the_task_states_its_length(stranger: tuple[Path, str]) -> None:
    assert "iterations: 12000" in stranger[1]


def test_the_section_is_shown(stranger: tuple[Path, str]) -> None:
    html = (stranger[0] / "runs" / "report.html").read_text(encoding="utf-8")
    assert "<h2>Seeds</h2>" in html and "Agree" in html
