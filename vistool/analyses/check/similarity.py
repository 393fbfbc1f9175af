"""How alike two maps are."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Map = NDArray[np.float32]

CELLS = 28
"""Maps are compared at this many cells to a side at most: no class activation map knows anything finer."""
POINTING = 7
"""Cells to a side of the grid in which the maximum is looked for."""
_WINDOW, _DEVIATION = 11, 1.5


def _coarse(values: Map) -> NDArray[np.float64]:
    size = min(CELLS, values.shape[0]), min(CELLS, values.shape[1])
    tensor = torch.from_numpy(np.nan_to_num(values))[None, None].double()
    found: NDArray[np.float64] = F.adaptive_avg_pool2d(tensor, size)[0, 0].numpy()
    return found


def rank_correlation(one: Map, other: Map) -> float:
    """Spearman's rank correlation of two maps; 0 where one of them is constant and the other is not, else 1."""
    a, b = (_ranks(_coarse(each)) for each in (one, other))
    if a.std() == 0 or b.std() == 0:
        return float(a.std() == b.std())
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rank of each value, the mean rank for equal ones; scipy.stats does the same, and takes a second to import."""
    _, places, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks


def ssim(one: Map, other: Map) -> float:
    """The structural similarity of two maps in [0, 1] (Wang et al., 2004), with Gaussian windows of 11×11, σ = 1.5."""
    pair = torch.from_numpy(np.stack([_coarse(one), _coarse(other)]))[:, None]
    offsets = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    bell = torch.exp(-(offsets**2) / (2 * _DEVIATION**2))
    window = torch.outer(bell, bell)[None, None] / bell.sum() ** 2

    def smooth(values: Tensor) -> Tensor:
        return F.conv2d(F.pad(values, [_WINDOW // 2] * 4, mode='replicate'), window)

    means = smooth(pair)
    spreads = smooth(pair**2) - means**2
    shared = smooth(pair[:1] * pair[1:]) - means[:1] * means[1:]
    low, high = 0.01**2, 0.03**2
    found = (2 * means[:1] * means[1:] + low) * (2 * shared + high)
    return float((found / ((means**2).sum(0) + low) / (spreads.sum(0) + high)).mean())


def pointing_cell(values: Map) -> tuple[int, int] | None:
    """Row and column of the maximum in a grid of 7×7; None for a map without one."""
    known = np.nan_to_num(values)
    if known.max() <= known.min():
        return None
    row, column = np.unravel_index(known.argmax(), known.shape)
    return int(row) * POINTING // known.shape[0], int(column) * POINTING // known.shape[1]
