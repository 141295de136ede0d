"""Wrong captions are wrong, and hard ones are near."""

import torch
import torch.nn.functional as F

from stylegan_t.training.captions import SAME_MEANING_COSINE, WrongCaptions


def unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(0)), dim=-1)


def uniform(n: int) -> torch.Tensor:
    return torch.rand(n, 2, generator=torch.Generator().manual_seed(1))


def test_a_wrong_caption_never_means_the_same():
    pool = unit(100, 4)  # crowded: many pairs are nearly alike
    c = pool[:50]
    wrong = WrongCaptions(pool, p_hard=1.0).draw(c, uniform(50))
    assert ((wrong * c).sum(1) <= SAME_MEANING_COSINE).all()


def test_hard_captions_are_nearer_than_others():
    pool, c = unit(2000, 8), unit(64, 8)
    similarity = {p: (WrongCaptions(pool, p).draw(c, uniform(64)) * c).sum(1).mean() for p in (0.0, 1.0)}
    assert similarity[1.0] > 0.5 > 0.2 > similarity[0.0]


def test_repeated_captions_count_once():
    pool = torch.cat([unit(3, 8), unit(3, 8)[:1].expand(500, 8)])
    assert len(WrongCaptions(pool, 0.5).pool) == 3


def test_a_pool_of_one_meaning_still_gives_a_caption():
    c = unit(1, 8)
    assert torch.equal(WrongCaptions(c, 0.5).draw(c, uniform(1)), c)
