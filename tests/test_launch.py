"""What is said of several processes that ended together."""

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from stylegan_t import launch
from stylegan_t.errors import DataError
from stylegan_t.launch import End, _report

LOST = End(1, "PeerLost", "lost the others")
GONE = End(3, "DataError", "a shard is gone")
SEE_ABOVE, GOES_ON = "; see above", "; the same command goes on from the last state"
CASES = {
    "killed": ({0: LOST, 1: End(-9)}, 1, "process 1 was ended by SIGKILL", GOES_ON),
    "two killed": (
        {1: End(-9), 2: End(-11)},
        1,
        "process 1 was ended by SIGKILL, process 2 was ended by SIGSEGV",
        GOES_ON,
    ),
    "crashed": ({0: LOST, 1: End(1), 2: LOST}, 1, "process 1 exited with 1", SEE_ABOVE),
    "a loader": ({0: LOST, 1: End(1, "LoaderLost", "killed")}, 1, "process 1 exited with 1 (killed)", GOES_ON),
    "its own data": ({0: LOST, 1: GONE}, 3, "process 1 exited with 3 (a shard is gone)", ""),
    "data of all": ({0: End(3), 1: GONE}, 3, "process 0 exited with 3", SEE_ABOVE),
    "nobody knows": ({0: LOST}, 1, "process 0 exited with 1 (lost the others)", GOES_ON),
}


@pytest.mark.parametrize(("ends", "code", "blamed", "advice"), CASES.values(), ids=CASES)
def test_the_one_to_blame_is_named_once_with_its_reason(capsys, ends, code, blamed, advice):
    assert _report(ends) == code
    assert capsys.readouterr().err == f"{blamed}, and the others were stopped{advice}\n"


@pytest.mark.parametrize("other", [75, -15], ids=["saved", "still starting"])
def test_where_all_were_asked_to_stop_nobody_is_to_blame(capsys, other):
    assert _report({0: End(75), 1: End(other)}) == 75
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("disk", ["well", "full"])
def test_a_reason_reaches_the_launcher_or_where_that_fails_the_terminal(tmp_path, monkeypatch, capsys, disk):
    file = tmp_path / ("error.json" if disk == "well" else "absent/error.json")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
    monkeypatch.setattr(launch, "MAIN_FIRST_SECONDS", 0)
    monkeypatch.setattr(launch, "stop_no_more", lambda: None)
    launch.leave_reason(DataError("a shard is gone"))
    told = launch._end_of(ProcessFailure(local_rank=1, pid=1, exitcode=3, error_file=str(file)))
    assert told == (GONE if disk == "well" else End(3))
    assert ("a shard is gone" in capsys.readouterr().err) == (disk == "full")
