"""Columns of Arrow as NumPy arrays, and lists in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from jaxtyping import Bool, Float32, Int64

pc: Any = pyarrow.compute
"""Its functions are made when it is imported, so no type checker knows them."""


def bools(column: pa.ChunkedArray | pa.Array) -> Bool[np.ndarray, " n"]:
    """A column of truth values; null is false."""
    return np.asarray(pc.fill_null(column, False), bool)


def floats(column: pa.ChunkedArray | pa.Array) -> Float32[np.ndarray, " n"]:
    """A column of numbers; null is NaN."""
    return np.asarray(pc.cast(column, pa.float32(), safe=False).to_numpy(zero_copy_only=False), np.float32)


def some_true(values: Bool[np.ndarray, " m"], starts: Int64[np.ndarray, " n_plus_1"]) -> Bool[np.ndarray, " n"]:
    """Whether any value of each list is true; list i has the values from ``starts[i]`` to ``starts[i + 1]``."""
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(values)])
    return before[starts[1:]] > before[starts[:-1]]
