"""What a user may write for seeds and prompts."""

import pytest

from stylegan_t.errors import SettingsError
from stylegan_t.prompts import check_prompts, parse_seeds


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", [3]), ("0-3", [0, 1, 2, 3]), ("1, 5,10-12", [1, 5, 10, 11, 12]), ("7-7", [7])]
)
def test_seeds_are_numbers_and_ranges(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["0-", "-3", "", "a", "5-2", "1,,2", "1.5"])
def test_other_seeds_are_refused_with_an_example(text):
    with pytest.raises(SettingsError, match=r"write 3, 0-7 or 1,5,10-12"):
        parse_seeds(text)


def test_a_repeated_prompt_counts_once():
    assert check_prompts(["a dog", " a dog ", "a cat"]) == ["a dog", "a cat"]
