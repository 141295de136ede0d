"""``stylegan-t evaluate`` finds the FID and KID of clean-fid's own commands on the same two folders of pictures."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from cleanfid import fid
from cleanfid.inception_pytorch import FID_WEIGHTS_URL, InceptionV3
from cleanfid.inception_torchscript import InceptionV3W
from torch import nn

from stylegan_t.measure import Request, measure
from stylegan_t.models.judges import PYTORCH_INCEPTION
from tests.evaluation.judged import CPU, INCEPTION_FILE, a_protocol, measure_of, random_pictures, write_pictures
from tests.inceptions import save_small

SEED = 5
BOTH = ("frechet", "kernel")


def two_folders(root: Path, count: int) -> tuple[Path, Path]:
    """Fakes, brighter and of another size, and a few more reals."""
    drawn = random_pictures(count, seed=2, px=40)
    brighter = [np.clip(picture * 0.8 + 60, 0, 255).astype(np.uint8) for picture in drawn]
    reals = random_pictures(count * 5 // 4, seed=1)
    return write_pictures(root / "fakes", brighter), write_pictures(root / "reals", reals)


def judge_of(mode: str) -> str:
    return "inception_pytorch" if mode == "legacy_pytorch" else "inception"


def measured(folders: tuple[Path, Path], work: Path, file: Path, mode: str, metrics) -> dict[str, float | None]:
    """What ``stylegan-t evaluate --weights`` finds, by name."""
    judge = judge_of(mode)
    protocol = a_protocol(
        judges={judge: {"kind": judge, "weights": "pretrained"}}, measures=[measure_of(judge, *metrics, resize=mode)]
    )
    (work / "protocol.yaml").write_text(yaml.safe_dump(protocol.model_dump()))
    fakes, reals = folders
    request = Request(
        model=None, images=fakes, against=reals, protocol=str(work / "protocol.yaml"), captions=None, judges=None,
        weights={judge: file}, num_images=None, psi=1.0, seed=SEED, batch_size=16, device="cpu", work=work,
    )  # fmt: skip
    found = measure(request)
    assert found is not None
    return {each.name: each.value for each in found.measurements}


def check(root: Path, file: Path, mode: str, count: int, monkeypatch, metrics=BOTH, within: float = 1e-6) -> None:
    """All features count, though their covariances are singular, for there are fewer pictures.

    Of such ones scipy's matrix root, which clean-fid takes, is right to some parts in ten million.
    """
    folders = two_folders(root, count)
    found = measured(folders, root, file, mode, metrics)
    net = cleanfids_own(root / "judges" / judge_of(mode), mode, monkeypatch)
    monkeypatch.setattr(fid, "build_feature_extractor", lambda *_, **__: net)
    commands = {"frechet": ("fid", fid.compute_fid, 0.01), "kernel": ("kid", fid.compute_kid, 1e-4)}
    for short, command, least in (commands[metric] for metric in metrics):
        np.random.seed(SEED)
        expected = command(*map(str, folders), mode=mode, num_workers=0, device=CPU, verbose=False)
        assert expected > least
        assert found[f"{short}{count}_reals_{mode}"] == pytest.approx(expected, rel=within)


def cleanfids_own(folder: Path, mode: str, monkeypatch):
    """The network as ``cleanfid.features`` builds it, from a local file."""
    if mode != "legacy_pytorch":
        return InceptionV3W(str(folder), download=False, resize_inside=mode == "legacy_tensorflow")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder))
    net = InceptionV3(output_blocks=[3], resize_input=False).eval()
    return lambda x: net(x / 255)[0].squeeze(-1).squeeze(-1)


@pytest.mark.filterwarnings(
    "ignore:The `disp` argument:DeprecationWarning",
    "ignore:Matrix is:scipy.linalg.LinAlgWarning",
    "ignore:`torch.jit:FutureWarning",
)  # its ways
@pytest.mark.parametrize(
    ("mode", "metrics"),
    [
        ("clean", ("kernel",)),
        ("legacy_tensorflow", ("kernel",)),
        pytest.param("clean", ("frechet",), marks=pytest.mark.slow),  # a root of 2,048² takes its time
        pytest.param("legacy_tensorflow", ("frechet",), marks=pytest.mark.slow),
    ],
)
def test_a_stand_in_gives_cleanfids_numbers(tmp_path, mode, metrics, monkeypatch):
    save_small(tmp_path / INCEPTION_FILE)
    check(tmp_path, tmp_path / INCEPTION_FILE, mode, 36, monkeypatch, metrics)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # clean-fid's resize itself ignores all warnings from then on
def test_pytorch_fids_port_with_random_weights_gives_cleanfids_numbers(tmp_path, monkeypatch):
    save_pytorch_inception(tmp_path / "random.pth", monkeypatch)
    check(tmp_path, tmp_path / "random.pth", "legacy_pytorch", 20, monkeypatch, within=1e-5)


def save_pytorch_inception(path: Path, monkeypatch) -> None:
    """pytorch-fid's architecture with weights as they are drawn, in the form of the published file.

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
    torch.save(net.state_dict(), path)
    assert PYTORCH_INCEPTION.endswith(FID_WEIGHTS_URL.rsplit("/", 1)[1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["clean", "legacy_tensorflow", "legacy_pytorch"])
def test_the_published_inception_gives_cleanfids_numbers(tmp_path, mode, monkeypatch):
    """To a thousandth: nobody had the file where this was written."""
    variable, name = {
        "inception": ("STYLEGAN_T_INCEPTION", INCEPTION_FILE),
        "inception_pytorch": ("STYLEGAN_T_INCEPTION_PYTORCH", FID_WEIGHTS_URL.rsplit("/", 1)[1]),
    }[judge_of(mode)]
    file = Path(os.environ.get(variable, ""))
    if not file.is_file():
        pytest.skip(f"no weights: name a local {name} in {variable}")
    check(tmp_path, file, mode, 60, monkeypatch, within=1e-3)
