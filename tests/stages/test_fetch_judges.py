"""The judges as local files: copied, downloaded, or absent with the reason until they can be had."""

import json
from http.client import IncompleteRead
from pathlib import Path

import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file

from stylegan_t.errors import DataError
from stylegan_t.models.judges import load_judge, why_absent
from stylegan_t.stages import fetch_encoders
from stylegan_t.stages import pretrained as stages_pretrained
from stylegan_t.stages.fetch_encoders import run
from stylegan_t.stages.parts import Parts
from stylegan_t.stages.workspace import Workspace
from tests import inceptions
from tests.stages.encoders_world import config, judged_by, make_raw, outputs

PUBLISH = Parts.publish


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return make_raw(tmp_path)


INCEPTIONS = {
    "inception": r"inception-2015-12-05\.pt: not clean-fid's Inception",
    "inception_pytorch": r"pt_inception.*\.pth: not clean-fid's Inception",
}


@pytest.mark.parametrize("kind", INCEPTIONS)
def test_a_local_file_that_is_no_inception_is_a_data_error(workspace, tmp_path, kind):
    path = tmp_path / "inception.pt"
    path.write_bytes(b"not a network")
    with pytest.raises(DataError, match=INCEPTIONS[kind]):
        run(judged_by(theirs={"kind": kind, "weights": str(path)}), workspace, "cpu")
    assert not workspace.artifacts("fetch_encoders").exists()


def test_a_local_file_of_another_network_is_a_data_error_whatever_the_judge(workspace, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"visual.proj": torch.zeros(2, 2)}, path)
    with pytest.raises(DataError, match=f"timm's vit_large_.*dinov2.* with weights {path} cannot be loaded"):
        run(judged_by(dinov2={"kind": "dinov2", "weights": str(path)}), workspace, "cpu")


def test_a_local_inception_is_copied_and_measures_as_its_file_says(workspace, tmp_path):
    path = tmp_path / "theirs.pt"
    inceptions.save_small(path)
    run(judged_by(inception={"kind": "inception", "weights": str(path)}), workspace, "cpu")
    images = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0)).float()
    network = load_judge(workspace.judges / "inception", "legacy_tensorflow")
    with pytest.warns(FutureWarning):
        expected = torch.jit.load(path)(images)
    torch.testing.assert_close(network(network.prepare(images / 127.5 - 1)), expected)


def no_network(*arguments, **named):
    raise OSError("the network is\nunreachable")


@pytest.fixture
def offline(monkeypatch):
    """Nothing can be downloaded; returns what brings the network back, with a stand-in for FID's network on it."""

    def online():
        def download(folder):
            inceptions.save_small(Path(folder) / "inception-2015-12-05.pt")
            return str(Path(folder) / "inception-2015-12-05.pt")

        monkeypatch.setattr(stages_pretrained, "check_download_inception", download)

    monkeypatch.setattr(stages_pretrained, "check_download_inception", no_network)
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    monkeypatch.setattr(timm, "create_model", no_network)
    monkeypatch.setattr(open_clip, "create_model", no_network)
    return online


REMOTE = {
    "inception": {"kind": "inception", "weights": "pretrained"},
    "ported": {"kind": "inception_pytorch", "weights": "pretrained"},
    "dinov2": {"kind": "dinov2", "weights": "pretrained"},
    "vit_g_14": {"kind": "pretrained", "model": "ViT-g-14", "weights": "laion2b_s12b_b42k"},
}


def test_judges_that_cannot_be_downloaded_are_absent_with_the_reason_and_others_are_made(workspace, offline, caplog):
    run(judged_by(**REMOTE), workspace, "cpu")
    for name in REMOTE:
        reason = why_absent(workspace.judges, name)
        assert "the network is unreachable" in reason and "on a machine with network" in reason
        assert [path.name for path in (workspace.judges / name).rglob("*")] == ["config.json"], "no half of a network"
        assert f"judge {name} is absent" in caplog.text
    assert "`dvc repro --force --single-item fetch_encoders` tries again" in caplog.text
    assert why_absent(workspace.judges, "small_clip") is None
    assert json.loads(outputs(workspace)["metrics.json"])


def test_an_absent_judge_is_tried_again_by_the_next_run_which_trains_nothing_again(workspace, offline, monkeypatch):
    monkeypatch.setattr(Parts, "publish", PUBLISH)  # so that finished networks are kept, as in life
    settings = judged_by(inception=REMOTE["inception"], dinov2=REMOTE["dinov2"])
    run(settings, workspace, "cpu")
    before = outputs(workspace)
    offline()
    monkeypatch.setattr(fetch_encoders, "train_clip", no_network)
    run(settings, workspace, "cpu")
    assert why_absent(workspace.judges, "inception") is None
    judge = load_judge(workspace.judges / "inception", "clean")
    assert judge(judge.prepare(torch.zeros(1, 3, 32, 32))).shape == (1, 2048)
    assert "unreachable" in why_absent(workspace.judges, "dinov2"), "still"
    after = outputs(workspace)
    assert {k: v for k, v in after.items() if "/inception/" not in k} == {
        k: v for k, v in before.items() if "/inception/" not in k
    }


def test_a_download_that_breaks_off_or_is_another_file_is_no_judge(workspace, offline, monkeypatch):
    def torn(folder):
        raise IncompleteRead(b"half")

    def a_page(folder):
        path = Path(folder) / "inception-2015-12-05.pt"
        path.write_text("<html>log in, please</html>")
        return str(path)

    for download, reason in ((torn, "cannot be downloaded"), (a_page, "not clean-fid's Inception")):
        monkeypatch.setattr(stages_pretrained, "check_download_inception", download)
        run(judged_by(inception=REMOTE["inception"]), workspace, "cpu")
        assert reason in why_absent(workspace.judges, "inception")
        assert [path.name for path in (workspace.judges / "inception").rglob("*")] == ["config.json"]


def test_a_player_that_cannot_be_downloaded_stops_the_stage(workspace, offline):
    paper = {"kind": "pretrained", "model": "ViT-L-14-quickgelu", "weights": "openai"}
    with pytest.raises(DataError, match=r"ViT-L-14-quickgelu with weights openai cannot be loaded \(the network is un"):
        run(config(clip=paper), workspace, "cpu")
