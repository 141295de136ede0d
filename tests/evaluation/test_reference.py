"""What real pictures look like to the judges, on disk and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from stylegan_t.errors import DataError
from stylegan_t.evaluation.reference import FACTS, STATISTICS, load_statistics, save_statistics
from stylegan_t.evaluation.scores import Reference
from stylegan_t.metrics.moments import Moments

CPU = torch.device("cpu")
ORIGIN = {"reals": "a", "judge clip": "b"}


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(20, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def saved(tmp_path: Path, features) -> Path:
    reference = Reference(Moments.of(features), features)
    save_statistics(tmp_path, {16: {"clip": reference}}, {"origin": ORIGIN, "num_images": 20, "px": [16]})
    return tmp_path


def test_moments_and_features_come_back_as_they_were(saved, features):
    found, facts = load_statistics(saved, ORIGIN, ["clip"], [16], CPU)
    reference = found[16]["clip"]
    assert torch.equal(reference.features, features)
    assert reference.moments.count == 20
    assert torch.equal(reference.moments.covariance, Moments.of(features).covariance)
    assert facts["px"] == [16]


@pytest.mark.parametrize(
    ("origin", "names", "sizes", "message"),
    [
        (ORIGIN | {"reals": "other"}, ["clip"], [16], "made from another reals; run `dvc repro"),
        (ORIGIN | {"judge dinov2": "c"}, ["clip"], [16], "made from another judge dinov2"),
        (ORIGIN, ["dinov2"], [16], "nothing of dinov2 at 16 px"),
        (ORIGIN, ["clip"], [16, 32], "nothing of clip at 32 px"),
    ],
)
def test_statistics_of_something_else_are_refused(saved, origin, names, sizes, message):
    with pytest.raises(DataError, match=message):
        load_statistics(saved, origin, names, sizes, CPU)


def test_missing_and_damaged_files_are_named(saved):
    (saved / STATISTICS).write_bytes(b"cut off")
    with pytest.raises(DataError, match="damaged"):
        load_statistics(saved, ORIGIN, ["clip"], [16], CPU)
    (saved / FACTS).write_text(json.dumps({"origin": ORIGIN}))
    with pytest.raises(DataError, match="damaged"):
        load_statistics(saved, ORIGIN, ["clip"], [16], CPU)
    (saved / FACTS).unlink()
    with pytest.raises(DataError, match=r"statistics\.json: missing; run `dvc repro"):
        load_statistics(saved, ORIGIN, ["clip"], [16], CPU)
