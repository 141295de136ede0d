from __future__ import annotations

import pytest

from stylegan_t.data.sources.drawn import Shapes
from stylegan_t.data.sources.folder import Folder
from stylegan_t.data.sources.mixture import Mixture
from stylegan_t.data.sources.webdataset import Webdataset
from tests.sources import parts_of, put
from tests.tars import sample, write_tar


@pytest.fixture
def mixture(tmp_path):
    put(tmp_path / "pictures", {"a.png": "x", "a.txt": "a", "b.png": "y"})
    return Mixture({"drawn": Shapes(5, 16, 0.125, 0, 2), "mine": Folder(tmp_path / "pictures", ["text"], 10)})


def test_parts_of_all_data_sets_follow_each_other_and_keys_tell_them_apart(mixture, tmp_path):
    work = tmp_path / "work"
    parts = parts_of(mixture, work)
    assert [[pair.key for pair in part] for part in parts] == [
        ["drawn-shapes-00000000", "drawn-shapes-00000001"], ["drawn-shapes-00000002", "drawn-shapes-00000003"],
        ["drawn-shapes-00000004"], ["mine-a", "mine-b"],
    ]  # fmt: skip
    assert [mixture.dataset(part, work) for part in range(4)] == ["drawn"] * 3 + ["mine"]
    alone = parts_of(Shapes(5, 16, 0.125, 0, 2), tmp_path / "alone")
    assert [pair.fields for part in parts[:3] for pair in part] == [pair.fields for part in alone for pair in part]


def test_facts_and_counts_are_those_of_all(mixture, tmp_path):
    work = tmp_path / "work"
    mixture.plan(work)
    assert mixture.num_candidates(work) == 7
    assert {name: facts["kind"] for name, facts in mixture.facts(work)["datasets"].items()} == {
        "drawn": "shapes", "mine": "folder",
    }  # fmt: skip
    write_tar(tmp_path / "0.tar", sample("a"))
    unknown = Mixture({"tars": Webdataset(["0.tar"], ["txt"], "key", None, tmp_path), **mixture.datasets})
    unknown.plan(tmp_path / "work-unknown")
    assert unknown.num_candidates(tmp_path / "work-unknown") is None


def test_the_fingerprint_follows_each_data_set_and_its_name(mixture, tmp_path):
    shapes, folder = mixture.datasets.values()
    found = [mixture, Mixture({"drawn": shapes, "other": folder}), Mixture({"drawn": shapes})]
    found.append(Mixture({"drawn": Shapes(5, 16, 0.125, 1, 2), "mine": folder}))
    assert len({source.fingerprint() for source in found}) == 4


def test_the_right_data_set_forgets(mixture, tmp_path, monkeypatch):
    mixture.plan(tmp_path / "work")
    forgotten = []
    monkeypatch.setattr(Folder, "forget", lambda self, part, work: forgotten.append((part, work.name)))
    mixture.forget(3, tmp_path / "work")
    assert forgotten == [(0, "mine")]
