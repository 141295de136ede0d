"""The words for features that no metric can use."""

import pytest
import torch

from stylegan_t.metrics.checks import require_comparable


def test_sets_of_different_widths_are_refused():
    with pytest.raises(ValueError, match="of 3 and of 4 numbers come from different networks"):
        require_comparable(torch.zeros(5, 3), torch.zeros(5, 4))


def test_the_smaller_set_decides_whether_there_are_enough():
    require_comparable(torch.zeros(4, 3), torch.zeros(9, 3), least=4)
    for sizes in ((4, 9), (9, 4)):
        with pytest.raises(ValueError, match="at least 5 feature vectors on each side, got 4"):
            require_comparable(*(torch.zeros(n, 3) for n in sizes), least=5)
