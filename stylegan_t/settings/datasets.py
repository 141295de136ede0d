"""Public data sets that are ready to be downloaded: what they are, whose, how large, and where their lists are."""

from __future__ import annotations

from pydantic import Field

from stylegan_t.settings.fields import Count, Positive, Section
from stylegan_t.settings.sources import OneSource


class DatasetSpec(Section):
    """A data set that others made, and that was not downloaded here: figures are its authors', or estimates."""

    title: str = Field(description="what it is called")
    home: str = Field(description="its page")
    origin: str = Field(description="where pictures and captions come from, and what was done to them")
    licence: str = Field(description="of the list, and of the pictures")
    num_pairs: Count = Field(description="pairs in the list; links die, so fewer arrive")
    list_gb: Positive = Field(description="size of the list, GB")
    pictures_gb: Positive = Field(description="size of all pictures, GB; at 256 px unless `origin` says otherwise")
    preparation: str = Field(description="how to get the list to where `source` looks for it")
    source: OneSource = Field(description="for download.source")
