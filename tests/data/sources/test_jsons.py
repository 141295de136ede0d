from __future__ import annotations

import io
import json
import tracemalloc

import pytest

from stylegan_t.data.sources import jsons
from stylegan_t.data.sources.jsons import values_of

VALUES = [1, -2.5e3, 'ä ü \u2603 \\ " ]}', None, True, [], {}, [[1, {"a": [2]}], "x"], {"k": {"l": []}}, 12345]


@pytest.mark.parametrize("indent", [None, 3])
@pytest.mark.parametrize("chunk", [1, 7, 2**16])
def test_gives_what_the_whole_file_holds_however_little_is_read_at_a_time(monkeypatch, chunk, indent):
    monkeypatch.setattr(jsons, "CHUNK", chunk)
    text = json.dumps(VALUES, indent=indent, ensure_ascii=False).encode()
    assert list(values_of(io.BytesIO(text), None)) == VALUES
    inside = json.dumps({"a": [1, 2], "b": {"rows": 3}, "rows": VALUES, "c": 4}, indent=indent).encode()
    assert list(values_of(io.BytesIO(inside), "rows")) == VALUES


@pytest.mark.parametrize(
    ("text", "name", "match"),
    [
        ("", None, "ends in the middle"),
        ("[1, 2", None, "ends in the middle"),
        ("[1 2]", None, "'2' where one of , ] is expected"),
        ("[1, nul]", None, "Expecting value"),
        ('"text"', None, "begins with '\"'"),
        ("{}", "rows", "no list 'rows'; there are none"),
        ("[]", "rows", "it is a list, not an object"),
        ('{"a": 1}', None, "it has none"),
    ],
)
def test_what_is_no_such_list_is_told(text, name, match):
    with pytest.raises(ValueError, match=match):
        list(values_of(io.BytesIO(text.encode()), name))


def test_memory_does_not_grow_with_the_list():
    text = io.BytesIO(json.dumps([{"caption": "x" * 1000}] * 20_000).encode())
    tracemalloc.start()
    assert sum(1 for _ in values_of(text, None)) == 20_000
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
