"""Captions and the wrong ones beside them."""

import pytest
import torch

from stylegan_t.errors import DataError
from stylegan_t.evaluation.captions import Captions

CAPTIONS = [f"picture {i % 40}" for i in range(50)]  # ten captions appear twice


def numbered(captions):
    return torch.tensor([[float(c.split()[-1])] for c in captions])


def test_prompts_follow_the_held_out_captions_over_and_over():
    assert Captions(CAPTIONS, numbered, seed=0).prompts(120) == CAPTIONS + CAPTIONS + CAPTIONS[:20]


def test_the_first_choice_is_the_own_caption_and_the_others_are_31_different_wrong_ones():
    captions = Captions(CAPTIONS, numbered, seed=0)
    choices = captions.choices(120)
    assert choices.shape == (120, 32)
    assert [captions.unique[row] for row in choices[:, 0]] == captions.prompts(120)
    assert all(len(set(row.tolist())) == 32 for row in choices)


def test_few_captions_give_fewer_choices():
    captions = Captions(["picture 1", "picture 2", "picture 3"], numbered, seed=0)
    assert captions.choices(3).sort(dim=1).values.tolist() == [[0, 1, 2]] * 3


def test_one_caption_for_all_pictures_is_refused_with_the_cure():
    with pytest.raises(DataError, match=r"1 different captions.*filter\.p_heldout"):
        Captions(["picture 1"] * 9, numbered, seed=0)
