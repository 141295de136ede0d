from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from PIL import Image

from stylegan_t.data.plots import DROPPED, DROPPED_HERE, KEPT, _bins, plot_funnel, plot_histogram

VALUES = np.random.default_rng(0).normal(size=1000).astype(np.float32)


def histogram(path, values=VALUES, threshold=-0.5):
    dropped = ~(values >= threshold)
    kept = ~dropped & (np.arange(len(values)) % 3 > 0)
    plot_histogram(path, "some number", values, kept, dropped, [threshold])
    return path.read_bytes()


def share(path, colour: str) -> float:
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    wanted = np.array(list(bytes.fromhex(colour[1:])))
    return float((abs(pixels.astype(int) - wanted).max(axis=2) < 3).mean())


def test_the_same_numbers_give_the_same_bytes_whatever_a_user_configured(tmp_path):
    first = histogram(tmp_path / "a.png")
    with matplotlib.rc_context({"figure.facecolor": "black", "font.size": 30}):
        assert histogram(tmp_path / "b.png") == first
        assert matplotlib.rcParams["font.size"] == 30, "and leaves that alone"
    assert histogram(tmp_path / "c.png", VALUES + 1) != first


def test_kept_and_dropped_pairs_stand_in_their_colours(tmp_path):
    histogram(tmp_path / "a.png")
    kept, here, elsewhere = (share(tmp_path / "a.png", colour) for colour in (KEPT, DROPPED_HERE, DROPPED))
    assert kept > here > 0.02
    assert kept == pytest.approx(2 * elsewhere, rel=0.2)


def test_the_funnel_narrows_by_what_each_rule_dropped(tmp_path):
    plot_funnel(tmp_path / "half.png", 1000, {"too_small": 500, "aspect": 0})
    plot_funnel(tmp_path / "most.png", 1000, {"too_small": 900, "aspect": 0})
    kept = [share(tmp_path / f"{name}.png", KEPT) for name in ("half", "most")]
    dropped = [share(tmp_path / f"{name}.png", DROPPED_HERE) for name in ("half", "most")]
    assert kept[0] > kept[1] > 0 and dropped[1] > dropped[0] > 0


def test_bins_reach_from_threshold_to_threshold_and_leave_outliers_out():
    values = np.concatenate([VALUES, np.array([1e9], np.float32)])
    bins = _bins(values, [-20.0, 5.0])
    assert bins[0] < -20 and 5 < bins[-1] < 10
    assert _bins(VALUES, [])[-1] > np.percentile(VALUES, 99)


@pytest.mark.parametrize("values", [np.empty(0), np.full(3, np.nan), np.full(3, 7.0)])
def test_no_or_equal_numbers_are_drawn_too(tmp_path, values):
    histogram(tmp_path / "a.png", values.astype(np.float32))
    plot_histogram(tmp_path / "b.png", "x", values.astype(np.float32), values > 0, values < 0, [])
