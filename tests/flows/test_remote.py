"""Contents to and from a remote that is not always there."""

from __future__ import annotations

import shutil
import threading

import pytest

from flows.dvc import DATA, NoRemote, RemoteFailed, Stage, has_remote, pull, push, remote, repro
from tests.flows import cluster, standin


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "BACKOFF_SECONDS", 1.0)
    folder = standin.make(
        tmp_path / "workspace", stage={"cmd": "mkdir stage; seq 9 > stage/a; seq 5 > stage/b", "outs": ["stage"]}
    )
    repro(Stage("stage"), folder, print)
    with (folder / ".dvc" / "config").open("a") as config:
        config.write(f"    remote = store\n['remote \"store\"']\n    url = {tmp_path}/mounted/store\n")
    return folder


def forget(folder) -> None:
    shutil.rmtree(folder / "stage")
    shutil.rmtree(folder / ".dvc" / "cache")


def test_what_was_pushed_can_be_pulled_whole_or_in_part(folder):
    push(folder, ["stage"], print)
    forget(folder)
    pull(folder, ["stage/b"], print)
    assert (folder / "stage" / "b").exists() and not (folder / "stage" / "a").exists()
    pull(folder, ["stage"], print)
    assert (folder / "stage" / "a").read_text().split() == [str(n) for n in range(1, 10)]


def test_a_remote_that_is_gone_for_a_while_is_asked_again(folder):
    mounted = folder.parent / "mounted"
    mounted.write_text("no folder: the disk is not mounted")
    lines: list[str] = []

    def mount() -> None:
        cluster.wait_until(lambda: any("again in" in line for line in lines))
        mounted.unlink()

    thread = threading.Thread(target=mount)
    thread.start()
    push(folder, ["stage"], lines.append)
    thread.join()
    assert list(mounted.glob("store/files/md5/*/*"))
    assert any("dvc push stage: failed (" in line for line in lines)


def test_a_remote_that_stays_away_is_given_up_and_may_be_tried_later(folder, monkeypatch):
    monkeypatch.setattr(remote, "ATTEMPTS", 2)
    (folder.parent / "mounted").write_text("no folder")
    with pytest.raises(RemoteFailed, match="dvc push failed 2 times: ") as failure:
        push(folder, ["stage"], print)
    assert failure.value.worth_retrying


def test_what_the_remote_lacks_is_a_fault_of_the_data_and_not_asked_for_again(folder):
    forget(folder)
    lines: list[str] = []
    with pytest.raises(RemoteFailed, match=r"stage: the remote lacks it .*dvc push.*where it was made") as failure:
        pull(folder, ["stage"], lines.append)
    assert failure.value.exit_code == DATA and not failure.value.worth_retrying
    assert not any("again in" in line for line in lines)


def test_without_a_remote_it_is_said_how_to_name_one(tmp_path):
    folder = standin.make(tmp_path, stage={"cmd": "touch stage"})
    assert not has_remote(folder)
    with pytest.raises(NoRemote, match="dvc remote add --default"):
        push(folder, ["stage"], print)
