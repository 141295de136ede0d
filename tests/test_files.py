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


def test_a_process_alone_in_a_folder_keeps_others_out_until_it_ends(tmp_path):
    """However it ends, and whatever becomes of its children, which a killed process leaves behind."""
    code = (
        "import os, time; from pathlib import Path; from stylegan_t.files import alone_in\n"
        f"with alone_in(Path({str(tmp_path)!r})):\n"
        "    child = os.fork()\n"
        "    if child: print(child, flush=True)\n"
        "    time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    with pytest.raises(InUse, match=f"process {process.pid} works in it"), alone_in(tmp_path):
        pass
    process.kill()
    assert process.wait() == -signal.SIGKILL
    with alone_in(tmp_path):
        pass
    os.kill(child, signal.SIGKILL)
    process.stdout.close()
