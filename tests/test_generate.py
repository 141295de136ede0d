"""`stylegan-t generate` and `interpolate`, as a user runs them."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from stylegan_t.errors import DataError, SettingsError
from stylegan_t.generate import generate, interpolate, slugs
from tests.bundles import tiny_bundle

PROMPTS = ["A red circle!", "a blue square"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


def paint(model, out, prompts=PROMPTS, seeds=(0, 1, 2), psi=0.8, batch_size=16):
    return generate(model, prompts, list(seeds), psi=psi, out=out, device="cpu", batch_size=batch_size)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "stylegan_t.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_prompt_and_seed_has_a_picture_and_the_grid_shows_them_all(model, tmp_path):
    files = paint(model, tmp_path)
    assert [f.name for f in files[:4]] == [
        "a-red-circle-seed0000.png", "a-red-circle-seed0001.png", "a-red-circle-seed0002.png",
        "a-blue-square-seed0000.png",
    ]  # fmt: skip
    assert files[-1].name == "grid.png"
    assert all(pixels(f).shape == (16, 16, 3) for f in files[:-1])
    sheet = pixels(files[-1])
    assert sheet.shape == (2 * 64, 3 * 64, 3)
    np.testing.assert_array_equal(sheet[64:, 128:][::4, ::4], pixels(tmp_path / "a-blue-square-seed0002.png"))


def test_the_other_seeds_change_no_picture_by_more_than_one_step(model, tmp_path):
    paint(model, tmp_path / "many", seeds=range(9), batch_size=5)
    paint(model, tmp_path / "one", seeds=[7], prompts=PROMPTS[1:])
    name = "a-blue-square-seed0007.png"
    assert abs(pixels(tmp_path / "many" / name) - pixels(tmp_path / "one" / name)).max() <= 1


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(model, tmp_path):
    for out in ("a", "b"):
        done = command("generate", "--model", model, "--prompt", "a dog", "--seeds", "0-3,7", "--out", tmp_path / out)
        assert done.returncode == 0, done.stderr
    names = sorted(f.name for f in (tmp_path / "a").iterdir())
    assert names == ["a-dog-seed0000.png", *(f"a-dog-seed{i:04d}.png" for i in (1, 2, 3, 7)), "grid.png"]
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)


def test_psi_zero_forgets_the_latent_but_not_the_prompt(model, tmp_path):
    weights = load_file(model / "generator.safetensors")
    quiet = tiny_bundle(tmp_path / "quiet")
    save_file(
        {n: t * 0 if n.endswith("noise_strength") else t for n, t in weights.items()},
        quiet / "generator.safetensors",
    )
    paint(quiet, tmp_path, psi=0.0)
    a, b = (pixels(tmp_path / f"a-red-circle-seed000{i}.png") for i in (0, 1))
    assert abs(a - b).max() <= 1
    assert abs(a - pixels(tmp_path / "a-blue-square-seed0000.png")).max() > 20


def test_prompts_are_read_from_a_file(model, tmp_path):
    (tmp_path / "prompts.txt").write_text("a dog\n\n a cat \n")
    done = command(
        "generate",
        "--model",
        model,
        "--prompts",
        tmp_path / "prompts.txt",
        "--seeds",
        "5",
        "--out",
        tmp_path / "out",
    )
    assert done.returncode == 0, done.stderr
    assert {f.name for f in (tmp_path / "out").iterdir()} == {
        "a-dog-seed0005.png",
        "a-cat-seed0005.png",
        "grid.png",
    }


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"psi": 1.6}, "psi 1.6: 0 .* to 1.5"),
        ({"psi": -0.1}, "psi -0.1"),
        ({"psi": float("nan")}, "psi nan"),
        ({"prompts": ["a dog", "  "]}, "a prompt is empty"),
        ({"prompts": []}, "no prompt"),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_written(model, tmp_path, changed, message):
    with pytest.raises(SettingsError, match=message):
        paint(model, tmp_path / "out", **changed)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_bundle_is_one_clear_line(tmp_path):
    with pytest.raises(DataError, match="a bundle is the folder that a training stage writes"):
        paint(tmp_path / "nowhere", tmp_path / "out")
    done = command("generate", "--model", tmp_path, "--prompt", "a dog", "--out", tmp_path / "out")
    assert done.returncode == 3
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_a_missing_tensor_is_named(tmp_path):
    model = tiny_bundle(tmp_path / "model")
    weights = load_file(model / "generator.safetensors")
    del weights["mapping.fc1.bias"]
    save_file(weights, model / "generator.safetensors")
    with pytest.raises(DataError, match=r"generator\.safetensors: tensor mapping\.fc1\.bias missing"):
        paint(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_file_names_differ_wherever_prompts_do():
    names = slugs(["A dog", "a dog!", "???", "a-dog 2", "犬", "x" * 300])
    assert names[0] == "a-dog"
    assert len(set(names)) == len(names)
    assert max(map(len, names)) < 100
    assert not any("/" in name for name in slugs(["../../etc/passwd", "a/b"]))


def test_a_walk_starts_at_its_first_station_and_returns_to_it(model, tmp_path):
    files = interpolate(model, PROMPTS, [3, 4], frames=4, psi=0.7, out=tmp_path, device="cpu")
    assert [f.name for f in files] == [*(f"frame{i:04d}.png" for i in range(8)), "interpolation.webp"]
    paint(model, tmp_path / "stations", prompts=PROMPTS[:1], seeds=[3], psi=0.7)
    station = pixels(tmp_path / "stations" / "a-red-circle-seed0003.png")
    frames = [pixels(f) for f in files[:-1]]
    assert abs(frames[0] - station).max() <= 1
    step = [abs(a - b).mean() for a, b in zip(frames, [*frames[1:], frames[0]], strict=True)]
    assert min(step) > 0
    with Image.open(files[-1]) as film:
        assert (film.n_frames, film.size, film.info["loop"]) == (8, (64, 64), 0)


def test_a_walk_needs_two_stations(model, tmp_path):
    with pytest.raises(SettingsError, match="two stations"):
        interpolate(model, PROMPTS[:1], [3], frames=4, psi=1.0, out=tmp_path, device="cpu")
