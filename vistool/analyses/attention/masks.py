"""The tokens that hold most of the attention."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mass_mask(values: NDArray[np.float32], share: float) -> NDArray[np.bool_]:
    """The fewest tokens that together hold a share of a map's mass, as DINO draws them.

    Caron et al., «Emerging properties in self-supervised vision transformers», ICCV 2021.

    Args:
        values: ``(h, w)``, not negative.
        share: In (0, 1].

    Returns:
        bool ``(h, w)``; nothing for a map that is 0 everywhere.
    """
    flat = np.clip(values.astype(np.float64).ravel(), 0, None)
    total = flat.sum()
    if total <= 0:
        return np.zeros(values.shape, np.bool_)
    order = np.argsort(flat, kind='stable')
    kept = np.cumsum(flat[order]) / total > 1 - share
    mask = np.empty(len(flat), np.bool_)
    mask[order] = kept
    return mask.reshape(values.shape)
