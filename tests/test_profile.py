"""``stylegan-t profile``: a complete params.yaml, or an error and no file touched."""

import pytest
import yaml

from stylegan_t.config import load_config
from stylegan_t.errors import SettingsError
from stylegan_t.profile import DATASETS, PROFILES, dataset_spec, write_profile
from tests.imports import ROOT


@pytest.fixture
def path(tmp_path):
    return tmp_path / "params.yaml"


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_without_settings_is_copied_with_its_comments(name, path):
    write_profile(name, [], path)
    assert path.read_text() == (ROOT / "stylegan_t" / "profiles" / f"{name}.yaml").read_text()


def test_settings_change_what_they_name_and_nothing_else(path):
    write_profile("tiny", [], path)
    before = yaml.safe_load(path.read_text())
    settings = [
        "evaluate.psi=[1.0, 0.5]",
        "train_generator.lr_decay.final_factor=1e-2",
        "filter.keep_fraction=null",
    ]
    write_profile("tiny", [*settings, "evaluate.prompt_set=my prompts.txt", "seed=7"], path)
    after = yaml.safe_load(path.read_text())
    before["evaluate"] |= {"psi": [1.0, 0.5], "prompt_set": "my prompts.txt"}
    before["train_generator"]["lr_decay"]["final_factor"] = 0.01
    before["filter"]["keep_fraction"] = None
    before["seed"] = 7
    assert after == before
    assert load_config(path).evaluate.psi == [1.0, 0.5]


def test_a_source_can_be_replaced_as_a_whole(path):
    settings = [
        "download.source={kind: folder, path: my/pictures, caption_columns: [text]}",
        "evaluate.prompt_set=heldout",
    ]
    write_profile("tiny", settings, path)
    assert load_config(path).download.source.model_dump() == {
        "kind": "folder", "path": "my/pictures", "caption_columns": ["text"],
    }  # fmt: skip


def test_an_equals_sign_may_stand_in_a_value(path):
    write_profile("emoji", ["download.source.path=a=b"], path)
    assert load_config(path).download.source.model_dump()["path"] == "a=b"


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("tiney", "seed=1", "profile 'tiney' is unknown; one of: micro, tiny, emoji, lite, full"),
        ("tiny", "seed", "expected KEY=VALUE"),
        ("tiny", "=1", "expected KEY=VALUE"),
        (
            "tiny",
            "train_generator.batchsize=8",
            r"train_generator.batchsize: unknown key; did you mean batch_size\?",
        ),
        ("tiny", "train_generater.batch_size=8", "train_generater does not exist"),
        ("tiny", "seed.more=8", "seed is no group of settings"),
        ("tiny", "train_generator.batch_size=9", "train_generator.batch_size = 9: .*use 8 or 16"),
        ("tiny", "train_generator.batch_size=many", "train_generator.batch_size = 'many'"),
        ("tiny", "evaluate.psi=[1.0", "not valid YAML"),
        ("tiny", "train_generator=3", "train_generator"),
    ],
)
def test_a_mistake_is_told_and_the_file_stays_as_it_was(path, name, setting, message):
    path.write_text("as it was")
    with pytest.raises(SettingsError, match=message) as error:
        write_profile(name, [setting], path)
    assert "\n" not in str(error.value)
    assert path.read_text() == "as it was"


@pytest.mark.parametrize("name", DATASETS)
def test_a_public_data_set_is_a_source_for_every_profile_that_shows_heldout_captions(path, name):
    write_profile("lite", ["seed=3"], path, dataset=name)
    config = load_config(path)
    assert config.download.source == dataset_spec(name).source and config.seed == 3
    assert path.read_text().startswith(f"# Profile lite with settings of its own: data set {name}; seed=3\n")


def test_the_data_sets_are_those_that_lie_there():
    folder = ROOT / "stylegan_t" / "datasets"
    assert {file.stem for file in folder.glob("*.yaml")} == set(DATASETS)


def test_an_unknown_data_set_is_named_with_those_that_exist(path):
    with pytest.raises(SettingsError, match="data set 'cc4m' is unknown; one of: cc3m, cc12m, redcaps"):
        write_profile("lite", [], path, dataset="cc4m")
    assert not path.exists()


def test_the_data_card_tells_every_data_set_as_its_file_does():
    card = (ROOT / "data" / "README.md").read_text()
    for name in DATASETS:
        spec = dataset_spec(name)
        assert f"| `{name}` | [{spec.title}]({spec.home}) | {spec.num_pairs:,} | {spec.pictures_gb:,.0f} |" in card, (
            name
        )
