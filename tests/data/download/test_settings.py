from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from pydantic import ValidationError

from stylegan_t.data.download.fetch import Limits
from stylegan_t.data.download.pictures import Storage
from stylegan_t.settings.download import Fetching, Stored
from tests.data.download.world import AS_THEY_COME, LIMITS

FETCHING = {field.name: getattr(LIMITS, field.name) for field in fields(LIMITS)}
STORED = {field.name: getattr(AS_THEY_COME, field.name) for field in fields(AS_THEY_COME)}


@pytest.mark.parametrize(("section", "plain"), [(Fetching, Limits), (Stored, Storage)])
def test_each_setting_is_what_the_downloader_knows_by_that_name(section, plain):
    assert list(section.model_fields) == [field.name for field in fields(plain)]


def test_the_values_reach_the_downloader_as_they_are():
    assert Limits(**Fetching.model_validate(FETCHING).model_dump()) == LIMITS
    assert Storage(**Stored.model_validate(STORED).model_dump()) == AS_THEY_COME


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"allowed_networks": ["10.0.0.1/8"]}, "has host bits set; write a network like"),
        ({"allowed_networks": ["example.com"]}, "write a network like 10.1.0.0/16"),
        ({"max_held_bytes": 39_999}, "max_held_bytes = 39999: one picture may have 20000 bytes .*use 40000"),
        ({"opt_outs": ["NoAI"]}, "pattern"),
        ({"user_agent": ""}, "at least 1 character"),
        ({"user_agent": "a\r\nCookie: b"}, "pattern"),
        ({"connect_seconds": 0.0}, "greater than 0"),
        ({"max_attempts": 0}, "greater than 0"),
        ({"max_unreached": 0}, "greater than 0"),
        ({"max_redirects": -1}, "greater than or equal to 0"),
    ],
)
def test_senseless_limits_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        Fetching.model_validate(FETCHING | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size_px": 64}, "size_px = 64 with resize = 'none'"),
        ({"resize": "keep_ratio"}, "size_px = None with resize = 'keep_ratio'"),
        ({"quality": 101}, "less than or equal to 100"),
        ({"max_pixels": 10**9}, "less than or equal to"),
        ({"max_aspect_ratio": 0.5}, "greater than or equal to 1"),
    ],
)
def test_senseless_ways_to_store_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        Stored.model_validate(STORED | changes)
