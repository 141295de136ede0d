"""Agreement between pictures and captions, on vectors whose angles are known."""

import pytest
import torch

from stylegan_t.metrics.pairs import cosines, scaled


def test_rows_meet_their_own_and_lengths_do_not_matter():
    images = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    texts = torch.tensor([[5.0, 0.0], [1.0, 0.0], [-1.0, -1.0]])
    torch.testing.assert_close(cosines(images, texts), torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("scale", "expected"), [("cosine", [-0.2, 0.0, 0.3]), ("x100", [-20, 0, 30]), ("w2.5", [0, 0, 0.75])]
)
def test_each_scale_of_the_clip_score_is_the_one_of_its_name(scale, expected):
    found = scaled(torch.tensor([-0.2, 0.0, 0.3]), scale)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32))
