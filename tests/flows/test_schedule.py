"""The pipeline on a schedule, on a server that it starts itself."""

import signal

import psutil
import pytest

from tests.flows import standin


@pytest.mark.slow
def test_a_scheduled_run_fires_and_completes_and_nothing_stays_after_ctrl_c(tmp_path):
    folder = standin.make(
        tmp_path,
        first={"cmd": "echo 1 > first"},
        second={"cmd": "cp first second", "deps": ["first"]},
    )
    process = standin.start(folder, "--cron", "* * * * *")
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if "Finished in state" in line and "Flow run" in line:
            break
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)

    assert "Completed()" in lines[-1]
    assert standin.table("".join(lines)) == {"first": "ran", "second": "ran"}
    assert (folder / "second").read_text() == "1\n"
    assert process.returncode == 0
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
