"""Hours of damaged files, led by what of visrep.weights they reach.

`pip install atheris` and `python tests/fuzz/fuzz_weights.py -max_total_time=600 CORPUS`, from the
root of the repository; CORPUS is a folder, which is seeded with one file of every format.
"""

import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))
with atheris.instrument_imports(include=["visrep.weights"]):
    from tests.oracles.mutations import FILES, everything, examine, examine_tree, write
    from visrep.d2 import pkl

TABLE = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # how the index of a bundle ends


def seed(corpus: Path) -> None:
    corpus.mkdir(parents=True, exist_ok=True)
    for name, content in everything().items():
        (corpus / f"tree {name}").write_bytes(content)
    for kind in FILES:
        with tempfile.TemporaryDirectory() as folder:
            (corpus / kind).write_bytes(write(kind, Path(folder)).read_bytes())


def main() -> None:
    folders = [Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")]
    if len(folders) == 1 and not folders[0].is_file():  # a single file is one that is run again
        seed(folders[0])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.bin"
        index = write("simclr's index", Path(folder))
        out = Path(folder) / "out" / "encoder.safetensors"
        out.parent.mkdir()

        def run(content: bytes) -> None:
            path.write_bytes(content)
            examine_tree(path)
            examine(path, out)
            if content.startswith(b"\x80"):
                examine(path, out, pkl.read_pkl)
            if content.endswith(TABLE):
                index.write_bytes(content)
                examine(index, out)

        atheris.Setup(sys.argv, run)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
