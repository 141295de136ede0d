"""The judges' networks: what they are shown, and what is said of those that are not there."""

from __future__ import annotations

import json
import os
from functools import cache
from threading import Barrier, get_ident

import numpy as np
import pytest
import torch
from cleanfid.resize import build_resizer
from torch import nn

from stylegan_t.data.images import to_signed
from stylegan_t.errors import DataError, SettingsError
from stylegan_t.models import judges
from stylegan_t.models.judges import (
    PYTORCH_INCEPTION,
    InceptionFeatures,
    bicubic,
    load_inception,
    load_judge,
    resized_by_cleanfid,
    save_absent,
    why_absent,
)
from tests.evaluation.judged import INCEPTION_FILE, random_pictures, save_inception, save_two_judges


def pictures(count: int = 5, px: int = 24) -> torch.Tensor:
    return torch.from_numpy(np.stack(random_pictures(count, px=px))).permute(0, 3, 1, 2)


@pytest.mark.parametrize("mode", ["clean", "legacy_pytorch"])
def test_many_pictures_at_once_are_resized_as_cleanfid_resizes_each(mode):
    with np.errstate(all="ignore"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.filterwarnings", lambda *_: None)  # clean-fid would silence this process
        resize = build_resizer(mode)
    several = pictures()
    found = resized_by_cleanfid(several, mode)
    for picture, each in zip(several, found, strict=True):
        torch.testing.assert_close(each, torch.from_numpy(resize(picture.permute(1, 2, 0).numpy())).permute(2, 0, 1))


@pytest.mark.parametrize("count", [1, 3])
def test_pictures_are_resized_on_as_many_threads_as_torch_has(count, monkeypatch):
    """torchrun gives each of its processes a share of the cores, and tells torch alone."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: count)
    monkeypatch.setattr(judges, "_threads", cache(judges._threads.__wrapped__))
    together, threads = Barrier(count), set()

    def resize(picture):
        together.wait(timeout=20)
        threads.add(get_ident())
        return np.zeros((299, 299, 3), np.float32)

    monkeypatch.setattr(judges, "build_resizer", lambda mode: resize)
    resized_by_cleanfid(pictures(3 * count), "clean")
    assert len(threads) == count


def test_the_resize_leaves_pythons_warnings_as_they_were():
    import warnings

    before = list(warnings.filters)
    resized_by_cleanfid(pictures(1), "legacy_pytorch")
    assert warnings.filters == before


def test_inception_is_shown_the_bytes_that_the_pictures_had():
    every_byte = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).repeat(1, 3, 1, 1)
    shown = InceptionFeatures(nn.Identity(), "legacy_tensorflow").prepare(to_signed(every_byte))
    torch.testing.assert_close(shown, every_byte.float(), rtol=0, atol=0)


def test_pretrained_networks_are_shown_the_centre_square():
    wide = torch.rand(2, 3, 8, 14) * 2 - 1
    elsewhere = wide.clone()
    elsewhere[..., :3], elsewhere[..., -3:] = -1, 1
    torch.testing.assert_close(bicubic(wide, 4), bicubic(elsewhere, 4))
    torch.testing.assert_close(bicubic(wide, 8), wide[..., 3:11])
    assert bicubic(wide.sign(), 5).abs().max() <= 1, "a bicubic kernel overshoots"


def test_a_judge_is_frozen_and_in_eval_mode(tmp_path):
    judges = save_two_judges(tmp_path)
    for name, resize in (("inception", "clean"), ("small_clip", None)):
        features = load_judge(judges / name, resize)
        assert not features.training
        assert not any(p.requires_grad for p in features.parameters())


def test_why_a_judge_is_absent_is_told_with_those_that_are_there(tmp_path):
    judges = save_two_judges(tmp_path / "judges")
    save_absent(judges / "dinov2", "no network here")
    assert why_absent(judges, "inception") is None
    assert why_absent(judges, "dinov2") == "no network here"
    assert why_absent(judges, "vit") == "no judge 'vit' in judges/ (there: inception, small_clip)"
    assert why_absent(tmp_path, "vit") == f"no judge 'vit' in {tmp_path.name}/ (there: none)"


@pytest.mark.parametrize(
    ("name", "resize", "message"),
    [
        ("inception", None, r"'inception' \(inception\) with resize: null; use clean or legacy_tensorflow"),
        ("inception", "legacy_pytorch", "use clean or legacy_tensorflow"),
        ("small_clip", "clean", r"'small_clip' \(small\) with resize: clean; use null"),
    ],
)
def test_a_resize_that_a_network_does_not_have_is_refused_with_those_it_has(tmp_path, name, resize, message):
    with pytest.raises(SettingsError, match=message):
        load_judge(save_two_judges(tmp_path) / name, resize)


def script_without_layers(path):
    class Other(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    path.parent.mkdir(parents=True, exist_ok=True)
    with pytest.warns(FutureWarning):
        torch.jit.script(Other()).save(str(path))


def garbage(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"no network at all")


def empty(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.mark.parametrize(
    ("mode", "file", "spoil"),
    [
        ("clean", INCEPTION_FILE, script_without_layers),
        ("clean", INCEPTION_FILE, garbage),
        ("legacy_tensorflow", INCEPTION_FILE, empty),
        ("legacy_pytorch", PYTORCH_INCEPTION, garbage),
        ("legacy_pytorch", PYTORCH_INCEPTION, empty),
    ],
)
def test_a_file_that_is_no_inception_is_named(tmp_path, mode, file, spoil):
    with pytest.raises(DataError, match="missing"):
        load_inception(tmp_path, mode)
    spoil(tmp_path / file)
    with pytest.raises(DataError, match=f"{file.split('/')[-1]}: not clean-fid's Inception"):
        load_inception(tmp_path, mode)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    file = tmp_path / PYTORCH_INCEPTION
    file.parent.mkdir()
    torch.save({"fc.weight": Bomb(tmp_path / "ran")}, file)
    with pytest.raises(DataError, match="not clean-fid's Inception"):
        load_inception(tmp_path, "legacy_pytorch")
    assert not (tmp_path / "ran").exists()


def test_a_damaged_config_is_named(tmp_path):
    save_inception(tmp_path / "inception")
    (tmp_path / "inception" / "config.json").write_text(json.dumps(["no object"]))
    with pytest.raises(DataError, match="config.json"):
        load_judge(tmp_path / "inception", "clean")
