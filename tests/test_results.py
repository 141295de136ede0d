"""docs/results.md: only like stands beside like."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stylegan_t.cli import app
from stylegan_t.errors import DataError
from stylegan_t.records import Evaluation, Measurement, write_lines, write_record
from stylegan_t.results import page, published_tables, read_run
from tests.imports import ROOT

FID64, CLIP64 = "fid30k_coco64_legacy_tensorflow", "clip_score_cosine_vit_g_14_30k_coco64"


def measurement(name=FID64, value: float | None = 12.5, **facts) -> Measurement:
    known = {"metric": "frechet", "better": "lower", "extractor": "inception", "in_training": False}
    return Measurement.model_validate({"name": name, "value": value} | known | facts)


def evaluation(*measurements: Measurement, **facts) -> Evaluation:
    known = {
        "protocol": "coco64", "subject": "model", "subject_sha256": "s", "weights": "ema", "psi": 1.0, "seeds": "0",
        "count": 30000, "px": 64, "fit": "area", "captions_sha256": None, "reference": "coco", "reference_sha256": "r",
        "reference_count": 40504, "measurements": list(measurements),
    }  # fmt: skip
    return Evaluation.model_validate(known | facts)


@pytest.fixture
def page_of(tmp_path):
    """The page from one file for each list of evaluations."""

    def make(*runs: list[Evaluation]) -> str:
        files = []
        for number, evaluations in enumerate(runs, start=1):
            files.append(tmp_path / f"{number}.jsonl")
            files[-1].write_text("".join(each.model_dump_json() + "\n" for each in evaluations))
        return page([read_run(file) for file in files], "stylegan-t results …").replace(f"{tmp_path}/", "")

    return make


def published(text: str) -> str:
    return text.partition("## All that ours measured")[0]


def ours(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| **ours**")]


# ---- beside what was published ---------------------------------------------------------------------------------------


def test_the_papers_figures_stand_with_their_source(page_of):
    text = page_of()
    assert "| StyleGAN-T | 7.30 | 0.06 | arXiv:2301.09515, Table 2 |" in text
    assert "| StyleGAN-T | 13.90 | 0.10 | arXiv:2301.09515, Table 3 |" in text
    for model, fid, score in (("StyleGAN-XL", 51.88, 5.58), ("generator", 45.10, 6.02), ("discriminator", 26.77, 9.78)):
        assert re.search(rf"{model} \| {fid:.2f} \| {score:.2f} \| .*secondary source", text)
    assert all(len(row.values) == len(table.columns) for table in published_tables() for row in table.rows)


def test_a_number_of_the_same_name_stands_in_the_published_table(page_of):
    first, second, _ = published(page_of([evaluation(measurement(low=12.25, high=12.75))])).split("### ")[1:]
    assert ours(first) == ["| **ours**: model, psi 1, run 1 | 12.5 (12.25 … 12.75) | – | `1.jsonl` |"]
    assert not ours(second)


def test_scores_come_to_the_published_scale(page_of):
    third = published(page_of([evaluation(measurement(CLIP64, 0.25, low=0.24, high=0.26))])).split("### ")[3]
    assert ours(third) == ["| **ours**: model, psi 1, run 1 | – | 25 (24 … 26) | `1.jsonl` |"]


@pytest.mark.parametrize(
    "other",
    [
        measurement("fid5k_coco64_legacy_tensorflow"),
        measurement("fid30k_coco64_clean"),
        measurement("fid30k_coco128_legacy_tensorflow"),
        measurement("fid30k_shapes64_legacy_tensorflow"),
        measurement(f"{FID64}_seen_in_training", in_training=True),
        measurement(in_training=True),
        measurement("clip_score_x100_vit_g_14_30k_coco64"),
    ],
    ids=["count", "resize", "side", "real pictures", "flagged name", "flag alone", "scale"],
)
def test_a_number_of_another_kind_never_does(page_of, other):
    text = page_of([evaluation(other)])
    assert not ours(text)
    assert f"Ours: `{FID64}` is not measured here" in text
    assert f"`{other.name}`" in text.partition("## All that ours measured")[2]


def test_what_is_absent_says_why(page_of):
    text = page_of([evaluation(measurement(value=None, absent="no weights and no network"))])
    assert f"Ours: `{FID64}` is not measured here (no weights and no network)." in published(text)
    assert f"Absent: `{FID64}` (no weights and no network)." in text
    assert (
        "Ours: `fid30k_coco256_legacy_tensorflow` is not measured here (no record has a number of that name)." in text
    )


# ---- what ours measured ----------------------------------------------------------------------------------------------


def numbers(text: str) -> list[str]:
    """Lines of our own tables."""
    return [line for line in text.partition("## All that ours measured")[2].splitlines() if line.startswith("| `")]


def test_a_number_has_its_interval_and_a_flag_where_its_network_was_trained_with(page_of):
    found = [
        measurement("a", 1.5, low=1.0, high=2.0, in_training=False), measurement("b", 2.5, in_training=True),
        measurement("c", 3.5, in_training=None),
    ]  # fmt: skip
    assert numbers(page_of([evaluation(*found)])) == [
        "| `a` | model, psi 1 | 1.5 (1 … 2) |",
        "| `b` | model, psi 1 | 2.5 ⚑ |",
        "| `c` | model, psi 1 | 3.5 ? |",
    ]


def test_what_leads_stands_before_what_has_too_few_pictures_and_what_an_oracle_read(page_of):
    found = evaluation(measurement("led", leads=False), measurement("leads"), facts={"mean_accuracy": 0.75})
    assert numbers(page_of([found])) == [
        "| `leads` | model, psi 1 | 12.5 |",
        "| `led` | model, psi 1 | 12.5 ° |",
        "| `mean_accuracy` | model, psi 1 | 0.75 |",
    ]


def test_runs_stand_side_by_side_with_their_median(page_of):
    runs = [[evaluation(measurement("a", value))] for value in (1.0, 9.0, 2.0)]
    text = page_of(*runs)
    assert "| number | subject | run 1 | run 2 | run 3 | median |" in text
    assert numbers(text) == ["| `a` | model, psi 1 | 1 | 9 | 2 | 2 |"]


def test_a_run_without_the_number_leaves_a_gap(page_of):
    runs = [[evaluation(measurement("a", 1.0))], [evaluation(measurement("b", 3.0))]]
    assert numbers(page_of(*runs)) == ["| `a` | model, psi 1 | 1 | – | 1 |", "| `b` | model, psi 1 | – | 3 | 3 |"]


@pytest.mark.parametrize("other", [{"protocol": "quick"}, {"px": 32}, {"px": None}, {"count": 5000}])
def test_other_protocols_sides_and_counts_have_tables_of_their_own(page_of, other):
    text = page_of([evaluation(measurement("a", 1.0))], [evaluation(measurement("a", 2.0), **other)])
    assert text.count("### Protocol") == 2
    assert "median" not in text
    assert sorted(numbers(text)) == ["| `a` | model, psi 1 | 1 |", "| `a` | model, psi 1 | 2 |"]


def test_repetitions_in_a_file_count_as_runs_and_the_same_pictures_twice_do_not(page_of):
    same, again = evaluation(measurement("a", 1.0)), evaluation(measurement("a", 3.0), seeds="1")
    text = page_of([same, same, again])
    assert "| run 1 | run 1, repetition 2 | median |" in text
    assert numbers(text) == ["| `a` | model, psi 1 | 1 | 3 | 2 |"]


def test_runs_against_other_real_pictures_have_no_median_and_that_is_told(page_of):
    runs = [
        [evaluation(measurement("a", value), reference_sha256=reals, facts={"mean_accuracy": value})]
        for value, reals in ((1.0, "r"), (9.0, "s"))
    ]
    text = page_of(*runs)
    assert "They are not the same in all of these runs: no median is over different ones." in text
    assert numbers(text) == ["| `a` | model, psi 1 | 1 | 9 | – |", "| `mean_accuracy` | model, psi 1 | 1 | 9 | – |"]
    assert "not the same" not in page_of(runs[0], runs[0])


def test_numbers_by_another_network_of_the_same_name_have_no_median_and_that_is_told(page_of):
    runs = [
        [
            evaluation(
                measurement("a", value, extractor="small_clip", weights_sha256=weights),
                measurement("b", value, weights_sha256="w"),
                facts={"mean_accuracy": value},
            )
        ]
        for value, weights in ((1.0, "u"), (9.0, "v"))
    ]
    text = page_of(*runs)
    assert "`small_clip` is not the same network in all of these runs: no median is over different ones." in text
    assert "`inception` is not the same" not in text
    assert [line.rsplit("| ", 1)[1] for line in numbers(text)] == ["– |", "5 |", "5 |"]
    assert "not the same" not in page_of(runs[1], runs[1])


# ---- the command -----------------------------------------------------------------------------------------------------


def test_both_kinds_of_file_are_read(tmp_path):
    found = evaluation(measurement())
    write_record(tmp_path / "evaluation.json", found)
    write_lines(tmp_path / "evaluations.jsonl", [evaluation(measurement(), captions_sha256="c"), found][:1])
    assert read_run(tmp_path / "evaluation.json").evaluations == [found]
    assert len(read_run(tmp_path / "evaluations.jsonl").evaluations) == 1


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("absent.json", None, "absent.json: No such file or directory; give artifacts/evaluate/evaluations.jsonl"),
        ("m.json", b'{"fid": 3}', "m.json: the file is no record of an evaluation .protocol: Field required"),
        ("e.jsonl", b'{"fid": 3\n', "e.jsonl: line 1 is no record of an evaluation .Invalid JSON"),
        ("e.jsonl", b"", "e.jsonl: holds no evaluation"),
        ("picture.png", b"\x89PNG\xff", "picture.png: not a text"),
    ],
    ids=["absent", "another file", "torn", "empty", "binary"],
)
def test_a_wrong_file_is_told_in_words(tmp_path, name, content, complaint):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=complaint):
        read_run(tmp_path / name)


def test_the_same_records_give_the_same_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_record(tmp_path / "e.json", evaluation(measurement()))
    texts = []
    for _ in range(2):
        result = CliRunner().invoke(app, ["results", "e.json", "--out", "docs/results.md"])
        assert result.exit_code == 0, result.output
        texts.append((tmp_path / "docs" / "results.md").read_text())
    assert texts[0] == texts[1]
    assert "Made by `stylegan-t results e.json --out docs/results.md`" in texts[0]


def test_the_page_in_docs_was_made_by_the_command():
    text = (ROOT / "docs" / "results.md").read_text()
    assert "Made by `stylegan-t results" in text
    for table in published_tables():
        assert f"### {table.title}\n" in text


def test_the_committed_page_is_made_of_the_committed_records(monkeypatch):
    monkeypatch.chdir(ROOT)
    records = "docs/records/tiny.jsonl"
    command = f"stylegan-t results {records} --out docs/results.md"
    assert Path("docs/results.md").read_text() == page([read_run(Path(records))], command)
