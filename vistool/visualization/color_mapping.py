"""The color mapping of each map: its table, the values at the table's ends, and its weight over the photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from vistool.results import Heatmap, Heatmaps
from vistool.visualization.cells import Bar
from vistool.visualization.colors import lookup_table
from vistool.visualization.draw import Map, check_map, normalize
from vistool.visualization.facets import scale_of
from vistool.visualization.scene import Pixels
from vistool.visualization.style import Interpolation, Style

_COLORMAPS = {'cam': 'jet', 'attention': 'inferno', 'feature': 'viridis'}
_SIGNED = 'RdBu_r'
_PERCENTILES = (2, 98)


@dataclass(frozen=True)
class ColorMapping:
    """How one map is colored.

    Attributes:
        values: ``(h, w)`` scaled to [0, 1], or ``(h, w, 3)`` colors.
        table: uint8 ``(256, 3)``.
        bar: The scale, where a bar is to be drawn.
        alpha: Weight over the photo; None: drawn without the photo.
        interpolation: How it is enlarged.
    """

    values: Map
    table: Pixels
    bar: Bar | None
    alpha: float | Literal['heat'] | None
    interpolation: Interpolation


def map_colors(result: Heatmaps, style: Style) -> tuple[ColorMapping, ...]:
    """One color mapping for each of the result's maps.

    Raises:
        InputError: A map has a batch axis left on, or the colormap is unknown.
    """
    maps = [replace(item, values=check_map(item.values, f'heat map ({item.coordinates!r})')) for item in result.maps]
    keys = [_scale_key(result, style, index) for index in range(len(maps))]
    members: dict[str, list[Heatmap]] = {}
    for item, key in zip(maps, keys, strict=True):
        members.setdefault(key, []).append(item)
    spans = {key: _span(result, style, sharing) for key, sharing in members.items()}
    with_bar = style.colorbar if style.colorbar is not None else style.scale == 'shared' or result.kind == 'feature'
    mappings = []
    for item, key in zip(maps, keys, strict=True):
        low, high, signed = spans[key]
        # A difference stays red-blue whatever is asked for: only a diverging map shows where zero is.
        chosen = None if item.diverging else style.colormap
        table = lookup_table(chosen or (_SIGNED if signed else _COLORMAPS[result.kind]))
        colors = item.values.ndim == 3
        values = item.values if colors else normalize(_restored(result, style, item), low, high)
        bar = Bar(key, low, high, table) if with_bar and not colors else None
        mappings.append(
            ColorMapping(values, table, bar, _alpha(result, style), style.interpolation or _interpolation(result))
        )
    return tuple(mappings)


def _interpolation(result: Heatmaps) -> Interpolation:
    return 'bilinear' if result.kind == 'cam' else 'nearest'


def _alpha(result: Heatmaps, style: Style) -> float | Literal['heat'] | None:
    if style.alpha is not None:
        return style.alpha
    return 0.5 if result.kind == 'cam' or style.layout == 'overlay' else None


def _scale_key(result: Heatmaps, style: Style, index: int) -> str:
    """Maps with one key share a scale."""
    item = result.maps[index]
    scale = scale_of(result, item)
    if style.scale == 'shared':
        return f'all {scale}' if item.diverging else 'all'
    if style.scale != 'each' and result.kind == 'feature':
        return f'group {scale}'
    if style.scale != 'each' and result.kind == 'attention' and scale:
        return scale  # one head of several models
    # A CAM map is in [0, 1] already: all of them have the same bar.
    return 'unit' if result.kind == 'cam' else f'map {index}'


def _restored(result: Heatmaps, style: Style, item: Heatmap) -> Map:
    """The values that a map scaled to [0, 1] had before, where maps are to be compared; else as they are."""
    if style.scale != 'shared' or item.range is None:
        return item.values
    low, high = item.range
    return item.values * np.float32(high - low) + np.float32(low)


def _span(result: Heatmaps, style: Style, maps: Sequence[Heatmap]) -> tuple[float, float, bool]:
    """The values at the ends of the scale, and whether it is signed (then symmetric about zero)."""
    if result.kind == 'cam' and style.scale != 'shared':
        return 0.0, 1.0, False
    finite = [values[np.isfinite(values)] for m in maps if (values := _restored(result, style, m)).ndim == 2]
    finite = [values for values in finite if values.size]
    if not finite:
        return 0.0, 1.0, False
    low, high = min(float(v.min()) for v in finite), max(float(v.max()) for v in finite)
    if style.scale == 'percentile':
        low, high = (float(end) for end in np.percentile(np.concatenate(finite), _PERCENTILES))
    if result.kind != 'feature' and low >= 0:
        return 0.0, high, False  # no attention, or no evidence, is the coldest color
    if any(m.diverging for m in maps) or (result.kind == 'feature' and low < 0):
        bound = max(-low, high)
        return -bound, bound, True
    return low, high, False
