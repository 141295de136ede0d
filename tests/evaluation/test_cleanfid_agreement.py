"""FID and KID are those of clean-fid's own commands on the same two folders of pictures."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from cleanfid import fid
from cleanfid.inception_pytorch import FID_WEIGHTS_URL, InceptionV3
from cleanfid.inception_torchscript import InceptionV3W
from torch import nn

from stylegan_t.evaluation.panel import Panel
from stylegan_t.evaluation.pictures import FolderPictures
from stylegan_t.files import write_json
from stylegan_t.metrics.kernels import kernel_distance
from stylegan_t.metrics.moments import Moments, frechet_distance
from stylegan_t.models.judges import PYTORCH_INCEPTION
from stylegan_t.settings.protocol import Measure
from tests.evaluation.judged import CPU, INCEPTION_FILE, random_pictures, save_inception, write_pictures

NUM_COMPARED = 12
"""Features that enter the Fréchet distances: fewer than pictures, since clean-fid's matrix root of a singular
covariance is right to some parts in ten thousand only."""
WEIGHTS = os.environ.get("STYLEGAN_T_INCEPTION", "")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    return two_folders(tmp_path_factory.mktemp("pictures"), 60)


def two_folders(root: Path, count: int) -> tuple[Path, Path]:
    """Fakes, brighter and of another size, and a few more reals."""
    drawn = random_pictures(count, seed=2, px=40)
    brighter = [np.clip(picture * 0.8 + 60, 0, 255).astype(np.uint8) for picture in drawn]
    reals = random_pictures(count * 5 // 4, seed=1)
    return write_pictures(root / "fakes", brighter), write_pictures(root / "reals", reals)


@pytest.fixture(scope="module")
def judges(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("judges")
    save_inception(root / "inception")
    return root


def seen(folder: Path, judges: Path, judge: str, mode: str) -> torch.Tensor:
    measure = Measure.model_validate({"judge": judge, "resize": mode, "metrics": ["frechet"]})
    panel = Panel(judges, [measure], CPU, None)
    pictures = FolderPictures(folder)
    return panel.look(pictures.read(range(pictures.count)), batch_size=16)[f"{judge}_{mode}"]


def both_agree(judges: Path, judge: str, mode: str, net: nn.Module, folders: tuple[Path, Path], monkeypatch) -> None:
    """FID (of some features) and KID are to 1e-6 those that clean-fid's commands find with ``net``."""
    fakes, reals = (seen(folder, judges, judge, mode) for folder in folders)
    settings = {"mode": mode, "num_workers": 0, "device": CPU, "verbose": False}
    paths = [str(folder) for folder in folders]
    some = fakes.std(dim=0).argsort(descending=True)[:NUM_COMPARED]
    expected = fid.compute_fid(*paths, custom_feat_extractor=lambda x: net(x)[:, some], **settings)
    found = frechet_distance(Moments.of(fakes[:, some]), Moments.of(reals[:, some]))
    assert expected > 0.01
    assert found == pytest.approx(expected, rel=1e-6)
    monkeypatch.setattr(fid, "build_feature_extractor", lambda *_, **__: net)
    np.random.seed(5)
    expected = fid.compute_kid(*paths, **settings)
    assert kernel_distance(fakes, reals, seed=5) == pytest.approx(expected, rel=1e-6)
    assert expected > 1e-4


@pytest.mark.filterwarnings(
    "ignore:The `disp` argument:DeprecationWarning", "ignore:`torch.jit:FutureWarning"
)  # its ways
@pytest.mark.parametrize("mode", ["clean", "legacy_tensorflow"])
def test_a_stand_in_gives_cleanfids_numbers(judges, folders, mode, monkeypatch):
    net = InceptionV3W(str(judges / "inception"), download=False, resize_inside=mode == "legacy_tensorflow")
    both_agree(judges, "inception", mode, net, folders, monkeypatch)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # clean-fid's resize itself ignores all warnings from then on
def test_pytorch_fids_port_with_random_weights_gives_cleanfids_numbers(tmp_path, monkeypatch):
    folders = two_folders(tmp_path, 20)  # the whole network takes its time
    folder = tmp_path / "judges" / "inception_pytorch"
    save_pytorch_inception(folder, monkeypatch)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder))
    net = InceptionV3(output_blocks=[3], resize_input=False).eval()
    whole = lambda x: net(x / 255)[0].squeeze(-1).squeeze(-1)  # as cleanfid.features has it
    both_agree(folder.parent, "inception_pytorch", "legacy_pytorch", whole, folders, monkeypatch)


def save_pytorch_inception(folder: Path, monkeypatch) -> None:
    """pytorch-fid's architecture with weights as they are drawn, in the place of the published file.

    Its normalisations are set by random pictures: without, the drawn layers let next to nothing through.
    """
    with monkeypatch.context() as patch:
        patch.setattr(nn.Module, "load_state_dict", lambda *_: None)
        patch.setattr("cleanfid.inception_pytorch.load_state_dict_from_url", lambda *_, **__: {})
        torch.manual_seed(0)
        from cleanfid.inception_pytorch import fid_inception_v3

        net = fid_inception_v3()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    pictures = torch.from_numpy(np.stack(random_pictures(4, seed=3, px=160))).permute(0, 3, 1, 2)
    with torch.no_grad():
        net.train()(pictures / 127.5 - 1)
    (folder / PYTORCH_INCEPTION).parent.mkdir(parents=True)
    torch.save(net.state_dict(), folder / PYTORCH_INCEPTION)
    write_json(folder / "config.json", {"kind": "inception_pytorch"})
    assert PYTORCH_INCEPTION.endswith(FID_WEIGHTS_URL.rsplit("/", 1)[1])


def weights_of(mode: str) -> str:
    return WEIGHTS if mode != "legacy_pytorch" else os.environ.get("STYLEGAN_T_INCEPTION_PYTORCH", "")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["clean", "legacy_tensorflow", "legacy_pytorch"])
def test_the_published_inception_gives_cleanfids_numbers(tmp_path, folders, mode, monkeypatch):
    """All 2,048 features, singular covariances and all: to a thousandth."""
    if not Path(weights_of(mode)).is_file():
        pytest.skip(
            "no weights: name a local inception-2015-12-05.pt in STYLEGAN_T_INCEPTION, and "
            f"{FID_WEIGHTS_URL.rsplit('/', 1)[1]} in STYLEGAN_T_INCEPTION_PYTORCH"
        )
    kind = "inception_pytorch" if mode == "legacy_pytorch" else "inception"
    folder = tmp_path / "judges" / kind
    file = folder / (PYTORCH_INCEPTION if mode == "legacy_pytorch" else INCEPTION_FILE)
    file.parent.mkdir(parents=True)
    shutil.copyfile(weights_of(mode), file)
    write_json(folder / "config.json", {"kind": kind})
    fakes, reals = (seen(each, folder.parent, kind, mode) for each in folders)
    monkeypatch.setattr(fid, "build_feature_extractor", lambda *_, **__: cleanfids_own(folder, mode, monkeypatch))
    settings = {"mode": mode, "num_workers": 0, "device": CPU, "verbose": False}
    expected = fid.compute_fid(*map(str, folders), **settings)
    assert frechet_distance(Moments.of(fakes), Moments.of(reals)) == pytest.approx(expected, rel=1e-3)
    np.random.seed(0)
    expected = fid.compute_kid(*map(str, folders), **settings)
    assert kernel_distance(fakes, reals, seed=0) == pytest.approx(expected, rel=1e-3)


def cleanfids_own(folder: Path, mode: str, monkeypatch):
    if mode != "legacy_pytorch":
        return InceptionV3W(str(folder), download=False, resize_inside=mode == "legacy_tensorflow")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder))
    net = InceptionV3(output_blocks=[3], resize_input=False).eval()
    return lambda x: net(x / 255)[0].squeeze(-1).squeeze(-1)
