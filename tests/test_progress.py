"""Progress on a terminal (a real pseudo-terminal) and elsewhere."""

import os
import pty
import re
import subprocess
import sys

import pytest

WORK = """if True:
    import logging, sys
    from stylegan_t.progress import Progress
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    with Progress("train_generator", 400, done=100) as progress:
        for i in range(3):
            progress.advance(100, note="8 px")
            if i == 1:
                logging.warning("a logger failed")
    logging.warning("all is over")
"""
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(scope="module")
def terminal() -> str:
    """What a person's terminal is sent."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120"}
    with subprocess.Popen([sys.executable, "-c", WORK], stderr=theirs, env=environment) as process:
        os.close(theirs)
        received = b""
        try:
            while part := os.read(ours, 1 << 16):
                received += part
        except OSError:  # Linux: the other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0, received.decode()
    return received.decode()


def test_a_terminal_gets_a_bar_with_rate_and_memory(terminal):
    last = CONTROL.sub("", terminal).replace("\r", "\n").rpartition("train_generator")[2]
    assert re.search(r"━+ +100% +\d+:\d\d:\d\d +0:00:00 +\d+ images/s, \d+ MiB, 8 px", last)


@pytest.mark.parametrize("message", ["a logger failed", "all is over"])
def test_a_log_message_has_a_line_of_its_own(terminal, message):
    lines = re.split(r"[\r\n]+", CONTROL.sub("", terminal))
    assert message in [line.strip() for line in lines]


def test_elsewhere_the_end_is_one_plain_line():
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True)
    failed, line, over = done.stderr.splitlines()
    assert (failed, over) == ("a logger failed", "all is over")
    assert re.fullmatch(r"train_generator: 400/400 images, \d+ s, \d+ images/s, \d+ MiB", line)


UNHEARD = """
import os
import pty
import subprocess
import sys
from stylegan_t import progress
progress.SECONDS_BETWEEN_LINES = 0
sys.stdin.readline()
with progress.Progress("work", 3) as shown:
    for _ in range(3):
        shown.advance()
    sys.exit(75)
"""


@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_work_ends_as_it_should_though_nobody_reads_any_more(terminal):
    reader, writer = pty.openpty() if terminal else os.pipe()
    process = subprocess.Popen([sys.executable, "-c", UNHEARD], stdin=subprocess.PIPE, stderr=writer)
    os.close(writer)
    os.close(reader)  # as when the ssh session ends, or the `tee` behind the pipe
    process.communicate(b"go\n", timeout=60)
    assert process.returncode == 75
