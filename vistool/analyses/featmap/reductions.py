"""Channels to a map: reductions, choices of channels, cosine similarity to a position."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vistool.data.samples import Sample
from vistool.errors import InputError, close_matches


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear centered kernel alignment (Kornblith et al., ICML 2019) over positions.

    Args:
        first: ``(C, h, w)``.
        second: ``(D, h, w)``; the number of channels may differ.

    Returns:
        ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) of the centered ``(h·w, C)`` and ``(h·w, D)``, in [0, 1]; NaN where either is constant.
    """
    x, y = (_centered(maps) for maps in (first, second))
    if len(x) <= max(x.shape[1], y.shape[1]):
        # Fewer positions than channels: the same number from the positions' Gram matrices
        kernel_x, kernel_y = x @ x.T, y @ y.T
        cross, own_x, own_y = (kernel_x * kernel_y).sum(), kernel_x.square().sum(), kernel_y.square().sum()
    else:
        cross, own_x, own_y = (y.T @ x).square().sum(), (x.T @ x).square().sum(), (y.T @ y).square().sum()
    return float((cross / (own_x * own_y).sqrt()).clamp(max=1.0))


def cosine(first: Tensor, second: Tensor) -> float:
    """Cosine of the angle between two features as flat vectors; NaN if the sizes differ or one is 0."""
    if first.shape != second.shape:
        return float('nan')
    x, y = first.double().flatten(), second.double().flatten()
    return float((x @ y) / (x.norm() * y.norm()))


def _centered(maps: Tensor) -> Tensor:
    positions = maps.double().flatten(1).T
    return positions - positions.mean(0)


def resampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """``(C, h, w)`` at ``size``, bilinear between cell centers, averaged when shrinking."""
    if tuple(maps.shape[1:]) == size:
        return maps
    return torch.nn.functional.interpolate(maps[None], size, mode='bilinear', align_corners=False, antialias=True)[0]


REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    'mean': lambda maps: maps.mean(0),
    'sum': lambda maps: maps.sum(0),
    'max': lambda maps: maps.amax(0),
    'norm': lambda maps: torch.linalg.vector_norm(maps, dim=0),
}
"""``(C, h, w)`` → ``(h, w)``."""

CHOICES = (*REDUCTIONS, 'select_max', 'pca', 'none')
"""All values of a reduction: also the channel with the largest mean, colors by PCA, every channel."""

CRITERIA: dict[str, Callable[[Tensor], Tensor]] = {
    'mean': lambda maps: maps.flatten(1).mean(1),
    'max': lambda maps: maps.flatten(1).amax(1),
    'norm': lambda maps: torch.linalg.vector_norm(maps.flatten(1), dim=1),
    'std': lambda maps: maps.flatten(1).std(1, correction=0),
}
"""What ranks the channels: ``(C, h, w)`` → ``(C,)``."""


def check_choice(value: str, accepted: Sequence[str], argument: str) -> str:
    """``value`` if it is one of ``accepted``.

    Raises:
        InputError: If not.
    """
    if value not in accepted:
        raise InputError(
            f'unknown value {value!r}',
            accepted=', '.join(accepted),
            hint=close_matches(value, accepted),
            parameter=argument,
        )
    return value


def top_channels(maps: Tensor, count: int, criterion: str) -> list[int]:
    """The ``count`` channels of ``maps (C, h, w)`` that score highest, best first; ties go to the lower number.

    Raises:
        InputError: If there are fewer channels.
    """
    if not isinstance(count, int) or not 1 <= count <= len(maps):
        raise InputError(f'{count!r} of {len(maps)} channels', accepted=f'1 to {len(maps)}', parameter='topk')
    scores = CRITERIA[criterion](maps)
    return torch.argsort(scores, descending=True, stable=True)[:count].tolist()


def check_channels(channels: Sequence[int], count: int, layer: str) -> None:
    """Checks that a layer of ``count`` channels has all of ``channels``.

    Raises:
        InputError: If not.
    """
    wrong = [channel for channel in channels if channel >= count]
    if wrong:
        raise InputError(
            f'layer {layer!r} has no channel {wrong[0]}', accepted=f'0 to {count - 1}', parameter='channels'
        )


def find_cell(point: tuple[float, float], sample: Sample, grid: tuple[int, int]) -> tuple[int, int]:
    """Row and column of the cell of ``grid`` under a pixel ``(x, y)`` of the original image.

    Raises:
        InputError: If the pixel is outside the image, or outside what the network saw of it.
    """
    shape = sample.image.shape if sample.original is None else sample.original.shape
    height, width = shape[:2]
    x, y = point
    if not (0 <= x < width and 0 <= y < height):
        raise InputError(
            f'({x:g}, {y:g}) is outside the image',
            accepted=f'x from 0 to {width - 1}, y from 0 to {height - 1}',
            parameter='similar_to',
        )
    place = np.array([[x + 0.5, y + 0.5]])  # the middle of that pixel
    if sample.geometry is not None:
        place = sample.geometry.to_network(place)
    rows, columns = sample.image.shape[:2]
    row, column = int(np.floor(place[0, 1] * grid[0] / rows)), int(np.floor(place[0, 0] * grid[1] / columns))
    if not (0 <= row < grid[0] and 0 <= column < grid[1]):
        raise InputError(
            f'({x:g}, {y:g}) is outside what the network saw of the image',
            accepted=_seen(sample),
            parameter='similar_to',
        )
    return row, column


def _seen(sample: Sample) -> str:
    if sample.geometry is None:
        return ''
    corners = sample.geometry.crop()
    (left, top), (right, bottom) = np.ceil(corners.min(0)), np.floor(corners.max(0)) - 1
    return f'x from {max(left, 0):.0f} to {right:.0f}, y from {max(top, 0):.0f} to {bottom:.0f}'


def similarity(maps: Tensor, row: int, column: int) -> NDArray[np.float32]:
    """Cosine of the angle between the vector at ``(row, column)`` and that of each position.

    Args:
        maps: ``(C, h, w)``.
        row: Of the query.
        column: Of the query.

    Returns:
        float32 ``(h, w)`` in [-1, 1]; 0 where a vector is zero.
    """
    unit = torch.nn.functional.normalize(maps.double(), dim=0)
    cosines = torch.einsum('chw,c->hw', unit, unit[:, row, column])
    return cosines.clamp(-1, 1).float().cpu().numpy()
