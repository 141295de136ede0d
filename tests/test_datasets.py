"""The ready data sets, on small lists in the form in which the real ones are published."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stylegan_t.profile import DATASETS, dataset_spec
from stylegan_t.stages.sources import open_source
from tests.data.download.server import Server, always
from tests.data.download.world import jpeg
from tests.sources import all_of
from tests.stages.data_world import config

CAPTIONS = ["a very typical bus station", 'says "hi", twice']


def put(root: Path, name: str, data: bytes) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(data)


def publish(root: Path, name: str, urls: list[str]) -> list[str]:
    """Write the list of a data set with two pictures below ``root``; the paths to read it from."""
    pairs = list(zip(urls, CAPTIONS, strict=True))
    if name == "cc3m":
        put(root, "data/lists/cc3m/Train_GCC-training.tsv", "".join(f"{c}\t{u}\n" for u, c in pairs).encode())
    elif name == "cc12m":
        put(root, "cc12m.tsv", "".join(f"{u}\t{c}\n" for u, c in pairs).encode())
        return ["cc12m.tsv"]
    elif name == "redcaps":
        for number, (url, caption) in enumerate(pairs):
            post = {
                "image_id": f"bpzj{number}",
                "url": url,
                "raw_caption": caption.upper(),
                "caption": caption,
                "score": 7,
            }
            posts = {"info": {"version": "v1.0"}, "annotations": [post]}
            put(root, f"data/lists/redcaps/annotations/sub_{2017 + number}.json", json.dumps(posts).encode())
    elif name == "yfcc15m":
        rows = [
            {"url": u, "title": c, "description": "", "photoid": f"{n}", "uid": "x"} for n, (u, c) in enumerate(pairs)
        ]
        put(root, "data/lists/yfcc15m.jsonl.gz", gzip.compress("".join(f"{json.dumps(r)}\n" for r in rows).encode()))
    elif name == "laion_aesthetic_6plus":
        rows = [{"URL": u, "TEXT": c, "WIDTH": 640.0, "AESTHETIC_SCORE": 6.5, "hash": -(2**60)} for u, c in pairs]
        folder = root / "data/lists/laion_aesthetic_6plus"
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / "train-00000-of-00001.parquet")
    else:
        split = name.removeprefix("coco2014_")
        coco = {
            "images": [{"id": n, "coco_url": u, "license": 3} for n, (u, _) in enumerate(pairs)],
            "annotations": [
                {"image_id": n, "caption": text} for n, (_, c) in enumerate(pairs) for text in (c, "again")
            ],
        }  # fmt: skip
        with zipfile.ZipFile(root / "annotations_trainval2014.zip", "w") as archive:
            archive.writestr(f"annotations/captions_{split}2014.json", json.dumps(coco))
        return [f"zip://annotations/captions_{split}2014.json::{root}/annotations_trainval2014.zip"]
    return dataset_spec(name).source.paths  # type: ignore[union-attr]


@pytest.mark.parametrize("name", DATASETS)
def test_a_list_as_it_is_published_gives_its_pairs(tmp_path, name):
    with Server({f"/{n}.jpg": always(jpeg(n)) for n in range(2)}) as server:
        paths = publish(tmp_path, name, [server.url(f"/{n}.jpg") for n in range(2)])
        spec = dataset_spec(name).source.model_copy(update={"paths": paths})
        download = config().download
        fetching = download.fetching.model_copy(update={"allowed_networks": ["127.0.0.1/32"]})
        samples, skipped = all_of(open_source(spec, fetching, download.stored, 10, 0, tmp_path), tmp_path / "work")
    assert not skipped and [sample.caption for sample in samples] == CAPTIONS
    assert [sample.image for sample in samples] == [jpeg(n) for n in range(2)]
    if name.startswith("coco"):
        assert samples[0].captions == [CAPTIONS[0], "again"]
        assert [sample.key for sample in samples] == ["0", "1"] and samples[0].metadata["license"] == 3


@pytest.mark.parametrize("name", DATASETS)
def test_every_fact_is_told(name):
    spec = dataset_spec(name)
    assert spec.home.startswith("https://")
    for text in (spec.title, spec.origin, spec.licence, spec.preparation):
        assert text.strip() and "\n" not in text.strip()
