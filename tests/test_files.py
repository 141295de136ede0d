"""Files that are whole or absent, and folders with one process at a time."""

import os
import signal
import subprocess
import sys

import pytest

from stylegan_t.errors import InUse
from stylegan_t.files import alone_in, atomic
from tests.imports import ROOT


def test_a_file_whose_writing_fails_is_as_it_was(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_second_process_is_refused_and_told_who_is_there(tmp_path):
    with alone_in(tmp_path), pytest.raises(InUse, match=f"process {os.getpid()} works in it"), alone_in(tmp_path):
        pass
    with alone_in(tmp_path):
        pass  # free again


def test_a_killed_process_leaves_the_folder_free(tmp_path):
    code = (
        "import time; from pathlib import Path; from stylegan_t.files import alone_in\n"
        f"with alone_in(Path({str(tmp_path)!r})): print('in', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == b"in\n"
    with pytest.raises(InUse, match=str(process.pid)), alone_in(tmp_path):
        pass
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    with alone_in(tmp_path):
        pass
