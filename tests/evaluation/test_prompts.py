"""Prompt sets of the sample grids."""

import pytest

from stylegan_t.data import shapes
from stylegan_t.errors import SettingsError
from stylegan_t.evaluation.prompts import sample_prompts
from stylegan_t.settings.sources import FolderSource, ShapesSource

SHAPES = ShapesSource(kind="shapes", num_images=8, image_px=16, heldout_combinations=0.125)
FOLDER = FolderSource(kind="folder", path="somewhere", caption_columns=["text"])
CAPTIONS = [f"picture {i % 40}" for i in range(50)]  # ten captions appear twice


def prompts(name, source=SHAPES, root=None, count=6):
    return sample_prompts(name, count, captions=CAPTIONS, source=source, seed=0, root=root)


def test_heldout_prompts_are_the_first_different_captions(tmp_path):
    assert prompts("heldout", root=tmp_path) == CAPTIONS[:6]
    assert len(prompts("heldout", root=tmp_path, count=100)) == 40


def test_shapes_prompts_ask_in_turn_for_what_was_drawn_and_what_never_was(tmp_path):
    heldout = shapes.heldout_combinations(0, 0.125)
    sentences = {shapes.caption(c, t): c for c in shapes.combinations() for t in range(len(shapes.TEMPLATES))}
    asked = [sentences[prompt] in heldout for prompt in prompts("shapes", root=tmp_path)]
    assert asked == [False, True] * 3


def test_a_file_of_prompts_is_read_line_by_line(tmp_path):
    (tmp_path / "mine.txt").write_text("a dog\n\na cat\n")
    assert prompts("mine.txt", root=tmp_path) == ["a dog", "a cat"]


@pytest.mark.parametrize(
    ("name", "source", "allowed"),
    [
        ("coco", SHAPES, "use heldout, shapes, or the path of a text file"),
        ("shapes", FOLDER, "use heldout, or the path of a text file"),
    ],
)
def test_an_unknown_prompt_set_is_named_with_those_that_exist(tmp_path, name, source, allowed):
    with pytest.raises(SettingsError, match=rf"evaluate\.prompt_set = '{name}'.*{allowed}"):
        prompts(name, source, root=tmp_path)


def test_a_file_without_prompts_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(SettingsError, match=r"empty\.txt: no prompts"):
        prompts("empty.txt", root=tmp_path)
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match=r"binary\.txt: not UTF-8"):
        prompts("binary.txt", root=tmp_path)
