"""Wrong captions are wrong, and hard ones differ in little."""

import torch
import torch.nn.functional as F

from stylegan_t.training.captions import SAME_MEANING_COSINE, WrongCaptions

COLOURS, THINGS = ("red", "green", "blue"), ("cat", "dog", "cow", "owl")
CAPTIONS = [f"a {colour} {thing} number {i}" for colour in COLOURS for thing in THINGS for i in range(3)]


def unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(0)), dim=-1)


def uniform(n: int) -> torch.Tensor:
    return torch.rand(n, 2, generator=torch.Generator().manual_seed(1))


def test_a_wrong_caption_never_means_the_same():
    pool = unit(100, 4)  # crowded: many pairs are nearly alike
    captions = [f"caption {i % 50}-{i}" for i in range(100)]
    wrong = WrongCaptions(captions, pool, p_hard=1.0).draw(captions[:50], pool[:50], uniform(50))
    assert ((wrong * pool[:50]).sum(1) <= SAME_MEANING_COSINE).all()


def test_hard_captions_share_more_words_than_others_however_far_their_embeddings():
    c = torch.eye(len(CAPTIONS))  # every caption is as far from every other
    drawn = {}
    for p_hard in (0.0, 1.0):
        wrong = WrongCaptions(CAPTIONS, c, p_hard).draw(CAPTIONS, c, uniform(len(CAPTIONS))).argmax(dim=1)
        pairs = zip(CAPTIONS, [CAPTIONS[i] for i in wrong.tolist()], strict=True)
        drawn[p_hard] = [len(set(right.split()) - set(other.split())) for right, other in pairs]
    assert set(drawn[1.0]) == {1, 2}
    assert sum(drawn[0.0]) > 1.3 * sum(drawn[1.0])


def test_repeated_captions_count_once():
    captions = [*CAPTIONS[:3], *[CAPTIONS[0]] * 500]
    wrong = WrongCaptions(captions, unit(len(captions), 8), 0.5)
    assert torch.equal(wrong.pool, unit(len(captions), 8)[:3])


def test_a_pool_of_one_meaning_still_gives_a_caption():
    c = unit(1, 8)
    assert torch.equal(WrongCaptions(["a cat"], c, 0.5).draw(["a cat"], c, uniform(1)), c)


def test_a_caption_of_unknown_words_gets_a_wrong_one():
    c = unit(3, 8)
    assert WrongCaptions(CAPTIONS[:3], c, 1.0).draw(["something else"], unit(4, 8)[3:], uniform(1)).shape == (1, 8)
