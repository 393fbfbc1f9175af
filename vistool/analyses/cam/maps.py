"""From signed maps to what is drawn: ReLU, scale to [0, 1], upsample, fuse layers, undo test-time augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-7
BRIGHTNESS = (1.0, 0.9, 1.1)
"""Factors of test-time augmentation, the plain image first."""


def to_unit(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Min-max scaling of each map: ``(x − min) / (max(x − min) + 1e-7)``.

    Args:
        maps: ``(B, h, w)``.

    Returns:
        The scaled maps and ``(B, 2)``, the values that 0 and 1 stand for.
    """
    low = maps.amin((1, 2), keepdim=True)
    span = (maps - low).amax((1, 2), keepdim=True) + EPSILON
    return (maps - low) / span, torch.cat([low, low + span], 1).squeeze(2)


def finish(
    signed: Sequence[Tensor], size: tuple[int, int], fusion: Literal['mean', 'max'] = 'mean'
) -> tuple[Tensor, Tensor | None]:
    """Signed maps of one or more layers → one map in [0, 1] at the network's input size.

    Per layer: ReLU, min-max, bilinear to ``size`` (half-pixel centres); then the mean or the maximum over the layers,
    and min-max again.

    Args:
        signed: One ``(B, h, w)`` per layer.
        size: ``(H, W)`` of the network input.
        fusion: How several layers become one map.

    Returns:
        ``(B, H, W)`` in [0, 1], and ``(B, 2)``, the values that 0 and 1 stand for: of the layer's own map after ReLU
        for a single layer, None for several (fused, they have no unit).
    """
    scaled, ranges = zip(*(to_unit(layer.relu()) for layer in signed), strict=True)
    grown = [F.interpolate(layer[:, None], size, mode='bilinear', align_corners=False)[:, 0] for layer in scaled]
    stacked = torch.stack(grown)
    unit, span = to_unit(stacked.amax(0) if fusion == 'max' else stacked.mean(0))
    if len(grown) > 1:
        return unit, None
    low, high = ranges[0][:, :1], ranges[0][:, 1:]
    return unit, low + span * (high - low)


def augment(inputs: Tensor) -> Tensor:
    """The six variants of test-time augmentation: mirrored or not, times 0.9, 1 and 1.1; the plain images first.

    Args:
        inputs: ``(B, C, H, W)``, normalised.

    Returns:
        ``(6·B, C, H, W)``.
    """
    return torch.cat([view * factor for view in (inputs, inputs.flip(-1)) for factor in BRIGHTNESS])


def merge(maps: Tensor) -> Tensor:
    """The mean over the variants of :func:`augment`, mirrored ones turned back: ``(6·B, H, W)`` → ``(B, H, W)``."""
    plain, mirrored = maps.unflatten(0, (2, len(BRIGHTNESS), -1))
    return (plain + mirrored.flip(-1)).mean(0) / 2
