"""The encoders as local files: trained, copied from local weights, resumed; errors before any work."""

import json

import open_clip
import pytest
import timm
import torch
from open_clip.model import CustomTextCLIP
from safetensors.torch import save_file

from stylegan_t.data.shards import Sample, write_manifest, write_shards
from stylegan_t.errors import DataError, SettingsError
from stylegan_t.models.encoder_files import identity, load_clip, load_discriminator_vit
from stylegan_t.models.judges import load_judge
from stylegan_t.settings.encoders import PretrainedClip
from stylegan_t.stages import fetch_encoders
from stylegan_t.stages.fetch_encoders import load_pairs, run
from stylegan_t.stages.pretrained import check_names, pretrained_clip
from stylegan_t.stages.workspace import Workspace
from tests.models.test_encoders import MODEL_CFG
from tests.stages.encoders_world import config, make_raw, outputs, small_clip

TINY_CLIP = "tiny-clip-for-tests"


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return make_raw(tmp_path)


@pytest.fixture(scope="module")
def tiny_clip_file(tmp_path_factory) -> str:
    """Weights of a small architecture that open_clip is told about."""
    folder = tmp_path_factory.mktemp("open_clip")
    (folder / f"{TINY_CLIP}.json").write_text(json.dumps(MODEL_CFG))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    path = folder / "weights.safetensors"
    save_file(CustomTextCLIP(**MODEL_CFG).state_dict(), path)
    return str(path)


def test_it_writes_players_judges_and_figures_and_the_same_bytes_again(workspace):
    run(config(), workspace, "cpu")
    first = outputs(workspace)
    assert set(first) == {
        "metrics.json",
        "players/clip/config.json", "players/clip/model.safetensors", "players/discriminator_vit/config.json",
        "judges/small_clip/config.json", "judges/small_clip/model.safetensors",
    }  # fmt: skip
    metrics = json.loads(first["metrics.json"])
    assert set(metrics) == {"clip_retrieval_1_of_32", "judge_small_clip_retrieval_1_of_32"}
    assert all(0 <= value <= 1 for value in metrics.values())
    run(config(), workspace, "cpu")
    assert outputs(workspace) == first


def test_what_it_writes_loads_and_the_judge_is_another_network(workspace):
    run(config(), workspace, "cpu")
    clip, judge = load_clip(workspace.players / "clip"), load_clip(workspace.judges / "small_clip")
    assert identity(workspace.players / "clip") != identity(workspace.judges / "small_clip")
    assert clip.embed_dim != judge.embed_dim
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    _, embedding = load_discriminator_vit(workspace.players)(images, with_embedding=True)
    torch.testing.assert_close(torch.nn.functional.normalize(embedding, dim=1), clip.encode_image(images))
    judging = load_judge(workspace.judges / "small_clip", None)
    torch.testing.assert_close(judging(judging.prepare(images)), judge.encode_image(images))


def test_a_run_killed_at_the_judge_keeps_the_finished_clip(workspace, monkeypatch):
    trained = []
    real = fetch_encoders.train_clip

    def dies_at_the_judge(*args, name, **kwargs):
        trained.append(name)
        if trained == ["clip", "judge_small_clip"]:
            raise KeyboardInterrupt
        return real(*args, name=name, **kwargs)

    monkeypatch.setattr(fetch_encoders, "train_clip", dies_at_the_judge)
    with pytest.raises(KeyboardInterrupt):
        run(config(), workspace, "cpu")
    assert not workspace.artifacts("fetch_encoders").exists()
    run(config(), workspace, "cpu")
    assert trained == ["clip", "judge_small_clip", "judge_small_clip"]
    assert "judges/small_clip/model.safetensors" in outputs(workspace)


def test_changed_settings_or_data_never_continue_an_older_run(workspace):
    digest = fetch_encoders.fetch_digest(config(), workspace)
    longer = config(judges={"small_clip": small_clip(config().model_dump()) | {"contrastive_steps": 3}})
    assert fetch_encoders.fetch_digest(config(), workspace) == digest
    renamed = config(judges={"smaller_clip": small_clip(config().model_dump())})
    assert digest not in (fetch_encoders.fetch_digest(other, workspace) for other in (longer, renamed))
    manifest = workspace.raw / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"kind": "raw"', '"kind": "raw", "source": "other"'))
    assert fetch_encoders.fetch_digest(config(), workspace) != digest


def test_pictures_that_do_not_decode_are_left_out_with_their_captions(workspace):
    images, captions = load_pairs(workspace.raw, 32)
    assert images.shape == (59, 3, 32, 32)
    assert len(captions) == 59


def test_more_pictures_than_memory_holds_are_thinned_out_evenly(workspace, monkeypatch):
    monkeypatch.setattr(fetch_encoders, "MAX_PICTURE_BYTES", 3 * 32**2 * 3)
    images, captions = load_pairs(workspace.raw, 32)
    load_pairs.cache_clear()
    monkeypatch.undo()
    whole, all_captions = load_pairs(workspace.raw, 32)
    assert captions == [all_captions[0], all_captions[29], all_captions[-1]]
    assert torch.equal(images[0], whole[0])


def test_no_readable_picture_is_a_data_error(tmp_path):
    write_manifest(tmp_path, "raw", write_shards(tmp_path, [Sample("a", {"png": b"x", "txt": b"a"})], 1))
    with pytest.raises(DataError, match="no readable picture"):
        load_pairs(tmp_path, 32)


def test_a_local_open_clip_file_gives_the_same_embeddings_offline(workspace, tiny_clip_file):
    pretrained = {"kind": "pretrained", "model": TINY_CLIP, "weights": tiny_clip_file}
    one_block = {"kind": "clip_image_tower", "hooks": [0]}
    run(config(clip=pretrained, discriminator_vit=one_block), workspace, "cpu")
    theirs = open_clip.create_model(TINY_CLIP, tiny_clip_file, force_custom_text=True).eval().requires_grad_(False)
    tokens = open_clip.SimpleTokenizer()(["a red circle"], context_length=8)
    clip = load_clip(workspace.players / "clip")
    torch.testing.assert_close(clip.encode_text(["a red circle"]), theirs.encode_text(tokens, normalize=True))


def test_a_local_timm_file_feeds_the_discriminator(workspace, tmp_path):
    torch.manual_seed(0)
    net = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval().requires_grad_(False)
    path = tmp_path / "vit.safetensors"
    save_file(net.state_dict(), path)
    vit = {"kind": "timm", "model": "vit_tiny_patch16_224", "weights": str(path), "hooks": [2, 5]}
    run(config(discriminator_vit=vit), workspace, "cpu")
    loaded = load_discriminator_vit(workspace.players)
    images = torch.rand(1, 3, 224, 224) * 2 - 1
    torch.testing.assert_close(loaded(images, with_embedding=True)[1], net(loaded.preprocess(images)))
    assert loaded.hooks == (2, 5)


def pretrained(**changes) -> PretrainedClip:
    return PretrainedClip(**{"kind": "pretrained", "model": "ViT-L-14-quickgelu", "weights": "openai", **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"clip": pretrained(model="ViT-X")},
            r"fetch_encoders.clip.model = 'ViT-X': open_clip does not know it",
        ),
        (
            {"judges": {"paper": pretrained(weights="nope").model_dump()}},
            r"fetch_encoders.judges.paper.weights = 'nope': .*openai",
        ),
        ({"clip": pretrained(model="ViT-L-14")}, r"another activation; use ViT-L-14-quickgelu"),
        ({"clip": pretrained(model="coca_ViT-B-32", weights="x")}, r"also writes captions"),
        (
            {"discriminator_vit": {"kind": "timm", "model": "vit_no", "weights": "pretrained", "hooks": [0]}},
            r"discriminator_vit.model = 'vit_no': timm does not know it",
        ),
        (
            {"judges": {"dinov2": {"kind": "dinov2", "weights": "/no/file"}}},
            r"fetch_encoders.judges.dinov2.weights = '/no/file': no such file; a local file or 'pretrained'",
        ),
    ],
)
def test_a_network_that_does_not_exist_is_named_before_any_work(changes, message):
    plain = {k: v.model_dump() if isinstance(v, PretrainedClip) else v for k, v in changes.items()}
    with pytest.raises(SettingsError, match=message):
        check_names(config(**plain).fetch_encoders)


def test_the_papers_clip_passes_the_check():
    check_names(config(clip=pretrained().model_dump()).fetch_encoders)


def test_weights_of_another_network_are_a_data_error(tiny_clip_file, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"visual.proj": torch.zeros(2, 2)}, path)
    with pytest.raises(DataError, match="cannot be loaded .*name it as weights") as error:
        pretrained_clip(PretrainedClip(kind="pretrained", model=TINY_CLIP, weights=str(path)))
    assert "\n" not in str(error.value)


def test_hooks_beyond_the_tower_are_refused_with_the_settings():
    with pytest.raises(ValueError, match=r"hooks = \[0, 5\]: the image tower has 2 blocks"):
        config(discriminator_vit={"kind": "clip_image_tower", "hooks": [0, 5]})


def test_hooks_that_do_not_ascend_are_a_settings_error(workspace):
    with pytest.raises(SettingsError, match=r"hooks = \[1, 0\]: ascending numbers of the 2 blocks, 0 to 1"):
        run(config(discriminator_vit={"kind": "clip_image_tower", "hooks": [1, 0]}), workspace, "cpu")
