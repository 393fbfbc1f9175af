"""Tokens ↔ maps: how a layer's output is laid out in space, found by looking at tensors, not by flags."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

MAX_PREFIX = 64
"""More tokens than this beside a grid are not prefix tokens but a sign that the grid is the wrong one."""

USUAL_PREFIX = 8
"""Class, distillation and register tokens of most networks; a grid that leaves more is the last guess."""


_SUMS_TO_ONE = 0.05  # bfloat16 included


@dataclass(frozen=True)
class Layout:
    """How a tensor becomes ``(B, C, h, w)``.

    Attributes:
        axes: ``'BCHW'``, ``'BHWC'``, ``'BLC'`` (tokens) or ``'BCL'``.
        grid: ``(h, w)``.
        prefix: Tokens before the grid (class, distillation, registers).
    """

    axes: str
    grid: tuple[int, int]
    prefix: int = 0

    def to_map(self, tensor: Tensor) -> Tensor:
        """``tensor`` as ``(B, C, h, w)``, a view where that is possible; prefix tokens are dropped."""
        if self.axes == 'BCHW':
            return tensor
        if self.axes == 'BHWC':
            return tensor.permute(0, 3, 1, 2)
        if self.axes == 'BLC':
            tensor = tensor.transpose(1, 2)
        return tensor[:, :, self.prefix :].unflatten(2, self.grid)

    def from_map(self, maps: Tensor, like: Tensor) -> Tensor:
        """The inverse of :meth:`to_map`; prefix tokens are taken from ``like``."""
        if self.axes == 'BCHW':
            return maps
        if self.axes == 'BHWC':
            return maps.permute(0, 2, 3, 1)
        result = like.clone()
        flat = maps.flatten(2)
        if self.axes == 'BLC':
            result[:, self.prefix :] = flat.transpose(1, 2)
        else:
            result[:, :, self.prefix :] = flat
        return result


class NoSpatialMap(ValueError):
    """A tensor that cannot be laid out in space; the message says why."""


def find_layout(
    tensor: Tensor,
    input_size: tuple[int, int],
    grids: Sequence[tuple[int, int]] = (),
    *,
    batch: int | None = None,
    layer: nn.Module | None = None,
    prefix: int | None = None,
    tokens: bool | None = None,
) -> Layout:
    """How ``tensor``, the output of ``layer``, is laid out.

    Args:
        tensor: The layer's output.
        input_size: ``(H, W)`` of the network input, for the aspect ratio.
        grids: Spatial sizes that were seen before the layer ran, most recent last.
        batch: Images in the batch; a tensor with another first axis holds windows or heads, not images.
        layer: The module, which settles the place of the channels where the shape alone does not.
        prefix: Number of prefix tokens, if the user said so (0 is a value).
        tokens: True where the user said that the tensor holds tokens.

    Raises:
        NoSpatialMap: If there is no map in it.
    """
    shape = tuple(tensor.shape)
    if batch is not None and shape and shape[0] != batch:
        raise NoSpatialMap(f'its output {shape} has {shape[0]} entries for {batch} image(s): windows, heads or regions')
    if tensor.ndim == 4:
        _refuse_attention(tensor, grids, layer)
        return _find_map(shape, input_size, layer)
    if tensor.ndim == 3:
        return _find_tokens(shape, input_size, grids, layer, prefix, tokens)
    raise NoSpatialMap(f'its output {shape} has no two spatial axes')


def _refuse_attention(tensor: Tensor, grids: Sequence[tuple[int, int]], layer: nn.Module | None) -> None:
    """Raises for ``(B, heads, tokens, tokens)``, which would pass for a square map."""
    shape = tuple(tensor.shape)
    side = shape[2]
    weights = isinstance(layer, (nn.Softmax, nn.modules.dropout._DropoutNd))
    prefixed = any(h > 1 < w and 1 <= side - h * w <= USUAL_PREFIX for h, w in grids)
    if side != shape[3] or side == 1 or not (prefixed or (weights and any(side == h * w for h, w in grids))):
        return
    # 56 × 56 positions are no 7 × 7 tokens and 7 more: only weights sum to 1
    if tensor.is_meta or bool(((tensor[0, :, 0].detach().double().sum(-1) - 1).abs() < _SUMS_TO_ONE).all()):
        raise NoSpatialMap(f'its output {shape} weighs {side} tokens against each other')


def _find_map(shape: tuple[int, ...], input_size: tuple[int, int], layer: nn.Module | None) -> Layout:
    first, last = (shape[2], shape[3]), (shape[1], shape[2])
    normalised = tuple(getattr(layer, 'normalized_shape', ()) or ())
    if isinstance(layer, nn.Linear) or (type(layer) is nn.LayerNorm and normalised == shape[-1:]):
        axes = 'BHWC'
    elif isinstance(layer, (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)):
        axes = 'BCHW'
    else:
        axes = 'BCHW' if _distortion(first, input_size) <= _distortion(last, input_size) else 'BHWC'
    grid = first if axes == 'BCHW' else last
    if grid == (1, 1):
        raise NoSpatialMap(f'its output {shape} is pooled to a single position')
    return Layout(axes, grid)


def _find_tokens(
    shape: tuple[int, ...],
    input_size: tuple[int, int],
    grids: Sequence[tuple[int, int]],
    layer: nn.Module | None,
    prefix: int | None,
    tokens: bool | None,
) -> Layout:
    # Channels before tokens are rare, and there are no prefix tokens then; a size seen on the way goes before a guess.
    seen = partial(_seen_grid, grids=grids)
    rules: tuple[tuple[str, Callable[..., Any], int | None], ...] = (
        ('BLC', partial(seen, most=USUAL_PREFIX), prefix),
        ('BLC', _aspect_grid, prefix or 0),
        ('BCL', seen, prefix or 0),
        ('BLC', _aspect_grid, prefix),
        ('BCL', _aspect_grid, prefix or 0),
        ('BLC', seen, prefix),
    )
    possible = _axes(layer, shape, tokens)
    for axes, grid_of, spare in rules:
        length = shape[1] if axes == 'BLC' else shape[2]
        if axes in possible and (fit := grid_of(length, input_size, prefix=spare)) is not None:
            return Layout(axes, *fit)
    extra = '' if prefix is None else f' after {prefix} extra token(s)'
    raise NoSpatialMap(f'its output {shape} leaves {shape[1] - (prefix or 0)} tokens{extra}, which form no grid')


def _seen_grid(
    length: int,
    input_size: tuple[int, int],
    grids: Sequence[tuple[int, int]],
    prefix: int | None,
    most: int = MAX_PREFIX,
) -> tuple[tuple[int, int], int] | None:
    """The spatial size among ``grids`` that ``length`` tokens fill with the fewest to spare, the latest first."""
    allowed = range(most + 1) if prefix is None else (prefix,)
    fits = [
        (length - h * w, -age, (h, w))
        for age, (h, w) in enumerate(grids)
        if h * w > 1 and length - h * w in allowed and _distortion((h, w), input_size) < math.log(2)
    ]
    if not fits:
        return None
    spare, _, grid = min(fits)
    return grid, spare


def _axes(layer: nn.Module | None, shape: tuple[int, ...], tokens: bool | None) -> tuple[str, ...]:
    """Where the channels may be: the user's word, what the layer works on, or either."""
    normalised = tuple(getattr(layer, 'normalized_shape', ()) or ())
    if tokens or isinstance(layer, nn.Linear) or (isinstance(layer, nn.LayerNorm) and normalised == shape[-1:]):
        return ('BLC',)
    return ('BCL',) if isinstance(layer, (nn.BatchNorm1d, nn.Conv1d, nn.Unfold)) else ('BLC', 'BCL')


def _aspect_grid(length: int, input_size: tuple[int, int], prefix: int | None) -> tuple[tuple[int, int], int] | None:
    """The grid that one whole stride makes of the image (rounded up or down), with as few prefix tokens as possible."""
    height, width = input_size
    for spare in (0, 1, 2, 5) if prefix is None else (prefix,):
        area = length - spare
        if area < 2:
            continue
        near = math.sqrt(height * width / area)
        for stride in sorted(range(max(1, int(near * 0.5)), int(near * 2) + 2), key=lambda s: abs(s - near)):
            for grid in ((height // stride, width // stride), (-(-height // stride), -(-width // stride))):
                if grid[0] * grid[1] == area:
                    return grid, spare
    return None


def _distortion(grid: tuple[int, int], input_size: tuple[int, int]) -> float:
    """How far a grid's cells are from square, as |log| of their aspect ratio."""
    return abs(math.log((input_size[0] * grid[1]) / (input_size[1] * grid[0])))
