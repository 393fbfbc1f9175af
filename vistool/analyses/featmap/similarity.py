"""How alike two networks' features of one image are, in one number."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear centred kernel alignment (Kornblith et al., ICML 2019) over positions.

    Args:
        first: ``(C, h, w)``.
        second: ``(D, h, w)``; the number of channels may differ.

    Returns:
        ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) of the centred ``(h·w, C)`` and ``(h·w, D)``, in [0, 1]; NaN where either is constant.
    """
    x, y = (_centred(maps) for maps in (first, second))
    if len(x) <= max(x.shape[1], y.shape[1]):
        # Fewer positions than channels: the same number from the positions' Gram matrices
        kernel_x, kernel_y = x @ x.T, y @ y.T
        cross, own_x, own_y = (kernel_x * kernel_y).sum(), kernel_x.square().sum(), kernel_y.square().sum()
    else:
        cross, own_x, own_y = (y.T @ x).square().sum(), (x.T @ x).square().sum(), (y.T @ y).square().sum()
    return float((cross / (own_x * own_y).sqrt()).clamp(max=1.0))


def cosine(first: Tensor, second: Tensor) -> float:
    """Cosine of the angle between two features as long vectors; NaN where the sizes differ or one is 0."""
    if first.shape != second.shape:
        return float('nan')
    x, y = first.double().flatten(), second.double().flatten()
    return float((x @ y) / (x.norm() * y.norm()))


def _centred(maps: Tensor) -> Tensor:
    positions = maps.double().flatten(1).T
    return positions - positions.mean(0)


def resampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """``(C, h, w)`` at ``size``, bilinear between cell centres, averaged where made smaller."""
    if tuple(maps.shape[1:]) == size:
        return maps
    return torch.nn.functional.interpolate(maps[None], size, mode='bilinear', align_corners=False, antialias=True)[0]
