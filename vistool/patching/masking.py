"""Which patches a masked-image model would not see."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

MASKS = ('random', 'block', 'grid')

# Bao et al., BEiT (2022), algorithm 1: blocks of 16 patches at least, of these aspect ratios.
_LEAST_BLOCK = 16
_ASPECT = 0.3
_TRIES = 100


def make_mask(shape: tuple[int, int], ratio: float, kind: str = 'random', seed: int = 0) -> NDArray[np.bool_]:
    """A mask over a grid of patches.

    Args:
        shape: Rows and columns of patches.
        ratio: Share that is masked; of N patches ``int(N * (1 - ratio))`` stay visible, as MAE counts.
        kind: ``random``: each patch alone (MAE). ``block``: rectangles (BEiT), the last of which is cut; ``grid``:
            evenly spread; at 0.75 one patch of each 2×2 stays.
        seed: Decides a random or block mask.

    Returns:
        bool ``(N,)``, True where masked.
    """
    count = shape[0] * shape[1]
    masked = count - int(count * (1 - ratio) + 1e-9)
    if kind == 'block':
        return _blocks(shape, masked, np.random.default_rng(seed)).ravel()
    order = _dither(shape) if kind == 'grid' else np.random.default_rng(seed).permutation(count)
    hidden = np.ones(count, bool)
    hidden[order[: count - masked]] = False
    return hidden


def _dither(shape: tuple[int, int]) -> NDArray[np.intp]:
    """Patches in the order of an 8×8 ordered dither (Bayer, 1973): any first part of them is evenly spread."""
    pattern = np.zeros((1, 1), int)
    for _ in range(3):
        pattern = np.block([[4 * pattern, 4 * pattern + 2], [4 * pattern + 3, 4 * pattern + 1]])
    rows, columns = np.indices(shape)
    return np.argsort(pattern[rows % 8, columns % 8].ravel(), kind='stable')


def _blocks(shape: tuple[int, int], wanted: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    hidden = np.zeros(shape, bool)
    for _ in range(_TRIES * max(1, wanted)):
        left = wanted - int(hidden.sum())
        if left <= 0:
            break
        area = generator.uniform(min(_LEAST_BLOCK, left), left)
        aspect = math.exp(generator.uniform(math.log(_ASPECT), -math.log(_ASPECT)))
        height = min(max(1, round(math.sqrt(area * aspect))), shape[0])
        width = min(max(1, round(math.sqrt(area / aspect))), shape[1])
        top, edge = generator.integers(shape[0] - height + 1), generator.integers(shape[1] - width + 1)
        block = np.zeros(shape, bool)
        block[top : top + height, edge : edge + width] = True
        fresh = np.flatnonzero(block & ~hidden)
        hidden.flat[fresh[:left]] = True
    return hidden
