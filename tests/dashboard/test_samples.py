"""The samples page: grids over training, their captions, and what an address remembers."""

from __future__ import annotations

import base64
import io
import re

from PIL import Image, ImageChops, ImageStat

from tests.dashboard.pages import captions, looked, opened, options, pick, tiles, tiles_body


def test_rows_carry_their_prompt_and_columns_their_seed(project, prompts):
    project.train(kimg=12, finished=False)
    app = opened()
    assert captions(app) == prompts
    assert tiles(app)[2][5] == f"{prompts[2]}, seed 5, 12 kimg · 8 px"
    assert all(len(row) == 6 for row in tiles(app))


def test_the_slider_goes_through_the_training(project):
    project.train()
    app = opened()
    assert "60 kimg · 16 px" in tiles(app)[0][0]
    pick(app, "select_slider", "Training so far", "samples/00012.00.webp")
    assert "12 kimg · 8 px" in tiles(app)[0][0]
    assert app.query_params["at"] == "samples/00012.00.webp"


def test_the_newest_grid_is_followed_while_an_older_one_stays(project):
    project.train(kimg=12, finished=False)
    following, staying = opened(), opened()
    pick(staying, "select_slider", "Training so far", "samples/00000.00.webp")
    project.train(kimg=24, finished=False)
    assert "24 kimg" in tiles(looked(following))[0][0]
    assert "0 kimg" in tiles(looked(staying))[0][0]


def test_a_new_run_is_followed_until_the_reader_picks_one(project):
    project.train("train_generator", kimg=12, started="2026-01-01T00:00:00+00:00")
    app = opened()
    project.train("finetune_text_encoder", "77bc", kimg=2, total=6, finished=False, resolutions=[16])
    assert "2 of 6" in " ".join(text.value.replace("**", "") for text in looked(app).markdown)
    pick(app, "button_group", "Stage", "train_generator")
    looked(app)
    assert app.query_params["stage"] == "train_generator"
    assert "12 kimg" in tiles(looked(app))[0][0]


def test_an_earlier_stage_that_trains_anew_is_followed(project):
    project.train("train_generator", "old", kimg=2, started="2026-01-01T00:00:00+00:00")
    project.train("finetune_text_encoder", "77bc", kimg=2, resolutions=[16])
    app = opened()
    project.train("train_generator", "new", kimg=5, finished=False, started="2026-02-01T00:00:00+00:00")
    assert "5 of 60" in " ".join(text.value.replace("**", "") for text in looked(app).markdown)


def test_each_tile_is_cut_from_its_place_in_the_picture(project):
    live = project.train(kimg=12, finished=False)
    body = tiles_body(opened())
    shown = re.findall(r'src="data:image/webp;base64,([^"]*)"', body)
    picture = Image.open(live / "samples/00012.00.webp").convert("RGB")
    assert len(shown) == 36
    for number, text in enumerate(shown):
        tile = Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")
        left, top = number % 6 * 64, number // 6 * 64
        difference = ImageChops.difference(tile, picture.crop((left, top, left + 64, top + 64)))
        assert max(ImageStat.Stat(difference).mean) < 12  # lossy


def test_a_resolution_shows_its_grids_only(project):
    project.train()
    app = pick(opened(), "button_group", "Resolution", 8)
    assert all(text.endswith("8 px") for text in options(app, "select_slider", "Training so far"))
    assert "8 px" in tiles(app)[0][0]


def test_first_and_last_stand_side_by_side(project, prompts):
    project.train(kimg=24, finished=False)
    app = pick(opened(), "button_group", "View", "ends")
    assert [tiles(app)[0][0], tiles(app)[0][6]] == [
        f"{prompts[0]}, seed 0, 0 kimg · 8 px",
        f"{prompts[0]}, seed 0, 24 kimg · 16 px",
    ]


def test_one_prompt_is_followed_over_the_training(project, prompts):
    project.train(kimg=24, finished=False)
    app = pick(opened(), "button_group", "View", "all")
    app = pick(app, "selectbox", "Prompt", "3")
    assert captions(app) == ["0 kimg · 8 px", "12 kimg · 8 px", "24 kimg · 16 px"]
    assert all(row[0].startswith(prompts[3]) for row in tiles(app))


def test_many_prompts_are_paged_and_none_is_lost(project, prompts):
    project.train(kimg=0, every=1, finished=False, prompts=prompts * 7)
    app, seen = opened(), []
    for number in [int(option) for option in options(app, "button_group", "Page")]:
        seen += captions(pick(app, "button_group", "Page", number))
    assert seen == prompts * 7


def test_an_address_opens_the_view_that_it_was_copied_from(project):
    project.train("train_generator", "aa", started="2026-01-01T00:00:00+00:00")
    project.train("train_generator", "bb", started="2026-02-01T00:00:00+00:00")
    app = opened(stage="train_generator", run="aa", view="ends", tile="128")
    again = opened(**app.query_params)
    assert app.query_params["run"] == "aa"
    assert tiles(again) == tiles(app)
    assert len(tiles(again)[0]) == 12


def test_an_address_that_names_nothing_is_the_usual_view(project):
    project.train(kimg=12, finished=False)
    assert tiles(opened(stage="gone", run="gone", at="x", view="y", tile="z")) == tiles(opened())


def test_captions_are_text_even_where_they_look_like_html(project):
    nasty = 'a large red circle on <script>alert(1)</script> white & "<b>grey</b>" background'
    project.train(kimg=0, every=1, finished=False, prompts=[nasty])
    app = opened()
    assert captions(app) == [nasty]
    body = tiles_body(app)
    assert "<script" not in body
    assert "<b>" not in body


def test_an_unreadable_picture_leaves_empty_tiles_and_a_warning(project):
    live = project.train(kimg=12, finished=False)
    project.tear(live / "samples/00012.00.webp")
    app = opened()
    assert set(tiles(app)[0]) == {""}
    assert len(app.warning) == 1


def test_an_evaluations_grids_are_told_apart_by_psi(project):
    project.evaluate()
    app = opened()
    assert options(app, "select_slider", "Truncation") == ["psi 0.50", "psi 1.00"]
    assert "psi 1.00" in tiles(app)[0][0]
