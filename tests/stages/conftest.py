from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from stylegan_t.stages.parts import Parts

KEEPERS = "tests.stages.test_parts"


@pytest.fixture(autouse=True)
def nothing_published_is_kept(request: pytest.FixtureRequest) -> Iterator[None]:
    """So that a stage that runs twice makes everything twice, and not a second name for it."""
    publish = Parts.publish

    def publish_and_forget(self: Parts, output: Path) -> None:
        publish(self, output)
        shutil.rmtree(self.folder)

    with pytest.MonkeyPatch.context() as patch:
        if request.module.__name__ != KEEPERS:
            patch.setattr(Parts, "publish", publish_and_forget)
        yield
