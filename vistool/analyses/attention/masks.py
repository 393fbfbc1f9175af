"""The tokens that hold most of the attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vistool.results import Heatmap


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


def outlined(entries: Sequence[Heatmap], row: str, share: float) -> list[Heatmap]:
    """The maps of a row with the tokens outlined that hold a share of the mass, and a row of the photo lit there."""
    found = [replace(e, mask=mass_mask(e.values, share)) if e.row == row else e for e in entries]
    title = _lit(row, share)
    lit = [
        replace(
            e,
            values=e.mask.astype(np.float32),
            row=title,
            name=f'{e.name}/{share:.0%}',
            mask=None,
            range=None,
            spotlight=True,
        )
        for e in found
        if e.row == row and e.mask is not None
    ]
    return found + lit


def _lit(row: str, share: float) -> str:
    return ' · '.join(filter(None, [row, f'{share:.0%} of the mass']))
