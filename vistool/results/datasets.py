"""A dataset as a whole, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DatasetSummary:
    """A dataset as a whole.

    Attributes:
        counts: Samples per class name, in the order of class ids.
        sizes: int ``(N, 2)`` heights and widths of the images as loaded.
        found: float64 ``(3, 2)`` mean and standard deviation of R, G, B, 0-255, of the images that the network gets.
        expected: The same as the config normalises with, or None where it does not.
        verdict: Whether the two fit, in words.
        failed: Index and reason of each sample that cannot be read.
        title: Heading.
        provenance: How the result came about; plain JSON values.
    """

    counts: Mapping[str, int]
    sizes: NDArray[np.int64]
    found: NDArray[np.float64]
    expected: NDArray[np.float64] | None
    verdict: str
    failed: tuple[tuple[int, str], ...] = ()
    title: str = ''
    provenance: Mapping[str, Any] = field(default_factory=dict)
