"""Judges look at pictures of any sizes in whole batches."""

from __future__ import annotations

import pytest
import torch

from stylegan_t.evaluation.panel import Panel
from stylegan_t.models.judges import ClipFeatures, InceptionFeatures
from stylegan_t.settings.protocol import Measure
from tests.evaluation.judged import CPU, measure_of, random_pictures, save_two_judges

SIZES = [(32, 32), (32, 32), (32, 48), (32, 32), (32, 48), (32, 48), (32, 48), (32, 32), (56, 40)]


@pytest.fixture(scope="module")
def panel(tmp_path_factory) -> Panel:
    measures = [
        measure_of("small_clip", "kernel"),
        measure_of("inception", "kernel", resize="clean"),
        measure_of("inception", "kernel", resize="legacy_tensorflow"),
    ]
    judges = save_two_judges(tmp_path_factory.mktemp("judges"))
    return Panel(judges, [Measure.model_validate(each) for each in measures], CPU, None)


@pytest.fixture(scope="module")
def photographs() -> list[torch.Tensor]:
    pictures = [random_pictures(1, seed=i, px=56)[0][:height, :width] for i, (height, width) in enumerate(SIZES)]
    return [torch.from_numpy(picture.copy()).permute(2, 0, 1) for picture in pictures]


def test_a_picture_of_another_size_has_its_own_row_at_its_own_place(panel, photographs):
    together = panel.look(photographs, batch_size=6)
    for place, picture in enumerate(photographs):
        for name, row in panel.look([picture], batch_size=6).items():
            torch.testing.assert_close(together[name][[place]], row, rtol=1e-5, atol=1e-5)


def test_sizes_share_a_batch_unless_the_network_itself_resizes(panel, photographs, monkeypatch):
    passes: dict[str, list[int]] = {}

    def note(kind: type) -> None:
        forward = kind.forward

        def noted(self, images):
            passes.setdefault(self.resize, []).append(len(images))
            return forward(self, images)

        monkeypatch.setattr(kind, "forward", noted)

    note(ClipFeatures)
    note(InceptionFeatures)
    panel.look(photographs, batch_size=6)
    clip = panel.extractors["small_clip"].features.resize
    assert passes == {clip: [6, 3], "clean-fid's clean": [6, 3], "clean-fid's legacy_tensorflow": [3, 3, 1, 1, 1]}
