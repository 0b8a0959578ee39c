"""Files are whole or absent."""

import os
import subprocess
import sys
import textwrap

import pytest

from visrep import files
from visrep.errors import UserError


def test_success_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    files.write_text(path, "new")
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_failure_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(ZeroDivisionError), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*file/a.txt") as caught:
        files.write_text(tmp_path / "file" / "a.txt", "x")
    assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_no_file(tmp_path):
    """The limit on a file's size stands in for the disk: the write fails after N bytes."""
    script = textwrap.dedent(
        f"""
        import resource, signal
        from visrep import files
        from visrep.errors import UserError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            files.write_bytes({str(tmp_path / "big.bin")!r}, b"x" * 5000)
        except UserError as error:
            print(error)
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cannot write" in done.stdout and "big.bin" in done.stdout
    assert len(done.stdout.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
