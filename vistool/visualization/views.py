"""Where a heat map is drawn (on the whole original, or on what the network saw) and in which colors."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vistool.data.geometry import Geometry
from vistool.results import Heatmap, Heatmaps, NetworkView
from vistool.visualization.facets import bar_title, scale_of
from vistool.visualization.raster import Map, check_map, normalize, resize_map, to_uint8
from vistool.visualization.scene import Pixels
from vistool.visualization.style import Align, Interpolation, Style, lookup_table
from vistool.visualization.table import Bar, Outline

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
        InputError: A map has a batch axis left on or no finite value, or the colormap is unknown.
    """
    result.check_finite()
    maps = [replace(item, values=check_map(item.values, f'heat map ({item.coordinates!r})')) for item in result.maps]
    keys = [_scale_key(result, style, index) for index in range(len(maps))]
    members: dict[str, list[Heatmap]] = {}
    for item, key in zip(maps, keys, strict=True):
        members.setdefault(key, []).append(item)
    spans = {key: _span(result, style, sharing) for key, sharing in members.items()}
    common = style.scale == 'shared' or result.kind == 'feature' or any(_on_limits(style, item) for item in maps)
    with_bar = style.colorbar if style.colorbar is not None else common
    mappings = []
    for item, key in zip(maps, keys, strict=True):
        low, high, signed = spans[key]
        # A difference stays red-blue whatever is asked for: only a diverging map shows where zero is.
        chosen = None if item.diverging else style.colormap
        table = lookup_table(chosen or (_SIGNED if signed else _COLORMAPS[result.kind]))
        colors = item.values.ndim == 3
        values = _finite(item.values if colors else _restored(result, style, item))
        if style.scale == 'box' and not colors and (within := _within(result, item)) is not None:
            high = max(within, low + 1e-7)
        values = values if colors else normalize(values, low, high, signed)
        bar = Bar(key, low, high, table, bar_title(result, item)) if with_bar and not colors else None
        mappings.append(
            ColorMapping(values, table, bar, _alpha(result, style), style.interpolation or _interpolation(result))
        )
    return tuple(mappings)


def scaled_alone(result: Heatmaps, style: Style) -> bool:
    """Whether there are several maps, and each is drawn relative to its own maximum.

    Masks of the tokens that hold a share of the attention have no scale, so they do not count.
    """
    shown = [index for index, item in enumerate(result.maps) if 'share' not in item.coordinates]
    if result.kind == 'feature' or len(shown) < 2 or style.scale not in (None, 'each'):
        return False
    if any(_on_limits(style, result.maps[index]) for index in shown):
        return False
    keys = {_scale_key(result, style, index) for index in shown}
    return result.kind == 'cam' or len(keys) == len(shown)


def _within(result: Heatmaps, item: Heatmap) -> float | None:
    """The largest value of a map within the object that it explains; None where it explains none."""
    one = result.instance(item)
    if one is None:
        return None
    if one.seen is None:
        inside = item.values if one.mask is None else item.values[one.mask]
    else:
        height, width = item.values.shape[:2]
        left, top = max(int(one.seen[0]), 0), max(int(one.seen[1]), 0)
        right, bottom = min(math.ceil(one.seen[2]), width), min(math.ceil(one.seen[3]), height)
        inside = item.values[top : max(bottom, top + 1), left : max(right, left + 1)]
    return float(np.nanmax(inside, initial=0.0))


def _finite(values: Map) -> Map:
    """Values with NaN in the place of everything that is not finite."""
    finite = np.isfinite(values)
    return values if bool(finite.all()) else np.where(finite, values, np.float32(np.nan))


def _interpolation(result: Heatmaps) -> Interpolation:
    return 'bilinear' if result.kind == 'cam' else 'nearest'


def _alpha(result: Heatmaps, style: Style) -> float | Literal['heat'] | None:
    if style.alpha is not None:
        return style.alpha
    return 0.5 if result.kind == 'cam' or style.layout == 'overlay' else None


def _scale_key(result: Heatmaps, style: Style, index: int) -> str:
    """Maps with one key share a scale."""
    item = result.maps[index]
    if _on_limits(style, item):
        return f'limits {item.limits}'
    scale = scale_of(result, item)
    if style.scale == 'shared':
        return f'all {scale}' if item.diverging else 'all'
    if style.scale != 'each' and result.kind == 'feature':
        return f'group {scale}'
    if style.scale != 'each' and result.kind == 'attention' and scale:
        return scale  # one head of several models
    # A CAM map is in [0, 1] already: all of them have the same bar.
    return 'unit' if result.kind == 'cam' else f'map {index}'


def _on_limits(style: Style, item: Heatmap) -> bool:
    """Whether a map is drawn on the scale that it brings with it."""
    return item.limits is not None and style.scale in (None, 'shared')


def _restored(result: Heatmaps, style: Style, item: Heatmap) -> Map:
    """The values that a map scaled to [0, 1] had before, where maps are to be compared; else as they are."""
    if not (style.scale == 'shared' or _on_limits(style, item)) or item.range is None:
        return item.values
    low, high = item.range
    return item.values * np.float32(high - low) + np.float32(low)


def _span(result: Heatmaps, style: Style, maps: Sequence[Heatmap]) -> tuple[float, float, bool]:
    """The values at the ends of the scale, and whether it is signed (then symmetric about zero)."""
    given = maps[0].limits if _on_limits(style, maps[0]) else None
    if given is not None:
        low, high = given
        bound = max(-low, high)
        return (-bound, bound, True) if low < 0 else (0.0 if result.kind != 'feature' else low, high, False)
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


@dataclass(frozen=True)
class View:
    """A photo, and how maps and points come onto it.

    Attributes:
        photo: uint8 ``(H, W, 3)``: the original, or the network's image.
        geometry: Network pixels to original pixels, where ``photo`` is the original; else None.
    """

    photo: Pixels
    geometry: Geometry | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the photo."""
        return self.photo.shape[0], self.photo.shape[1]

    def map_at(
        self, values: Map, size: tuple[int, int], interpolation: Interpolation, align: Align, rows: slice | None = None
    ) -> tuple[Map, NDArray[np.bool_] | None]:
        """A map of the network's input at ``size`` of the whole view, and where it is (None: everywhere).

        Positions without a finite value stay so, and do not spread: around them the others are weighted alone.

        Args:
            values: ``(h, w)`` or ``(h, w, 3)``.
            size: Height and width.
            interpolation: How it is enlarged.
            align: See :func:`~vistool.visualization.raster.resize_map`.
            rows: The rows of ``size`` that are wanted; None: all.
        """
        missing = np.isnan(values)
        if not missing.any():
            return self._map_at(values, size, interpolation, align, rows)
        warped, covered = self._map_at(np.nan_to_num(values), size, interpolation, align, rows)
        weight, _ = self._map_at((~missing).astype(np.float32), size, interpolation, align, rows)
        hole, _ = self._map_at(missing.astype(np.float32), size, 'nearest', align, rows)
        return np.where(hole > 0.5, np.float32(np.nan), warped / np.where(weight > 1e-6, weight, 1)), covered

    def _map_at(
        self, values: Map, size: tuple[int, int], interpolation: Interpolation, align: Align, rows: slice | None
    ) -> tuple[Map, NDArray[np.bool_] | None]:
        if self.geometry is None:
            resized = resize_map(values, size, interpolation, align)
            return resized if rows is None else resized[rows], None
        if interpolation == 'bicubic' or align == 'corner':
            # Warping knows only centers and straight lines, so the enlargement happens on the network's grid.
            values = resize_map(values, self.geometry.network_size, interpolation, align)
        return self.geometry.warp(values, size, 'nearest' if interpolation == 'nearest' else 'bilinear', rows)

    def place(self, points: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
        """Points ``(n, 2)`` in fractions of the network input, as fractions of the view."""
        if self.geometry is not None:
            rows, columns = self.geometry.network_size
            height, width = self.size
            points = self.geometry.to_original(points * (columns, rows)) / (width, height)
        return tuple((float(x), float(y)) for x, y in points)

    def point(self, point: tuple[float, float], geometry: Geometry | None) -> tuple[float, float]:
        """A point in pixels of the original, as fractions of the view's width and height.

        Args:
            point: ``(x, y)``; without a ``geometry`` in network pixels.
            geometry: The way from what the network saw to the original.
        """
        place = np.array([point], np.float64)
        if self.geometry is None and geometry is not None:
            place = geometry.to_network(place)
        height, width = self.size
        return float(place[0, 0]) / width, float(place[0, 1]) / height

    def outline(self) -> Outline | None:
        """The border of the network's crop, or None where the crop shows everything."""
        if self.geometry is None:
            return None
        height, width = self.size
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
        seen = self.geometry.to_network(corners)
        rows, columns = self.geometry.network_size
        # Resizing rounds sizes to whole pixels, so an uncropped photo may stick out by one.
        inside = (seen >= -1.5) & (seen <= np.array([columns, rows]) + 1.5)
        if bool(inside.all()):
            return None
        points = self.geometry.crop() / np.array([width, height], np.float64)
        near_edge = np.abs(points - np.rint(points)) < 0.01
        points = np.where(near_edge, np.clip(points, 0.002, 0.998), points)
        return Outline(tuple((float(x), float(y)) for x, y in points))


def choose_view(result: Heatmaps, style: Style, seen: NetworkView | None = None) -> View:
    """The view that the style asks for, or the kind's own: the original for CAM, the network's for the rest.

    Attention and features show tokens and units, which only the network's view shows as they are.

    Args:
        result: The maps.
        style: How to draw.
        seen: What the network of the map in question saw; None: what the result says.
    """
    wanted = style.view or ('original' if result.kind == 'cam' else 'network')
    seen = seen or NetworkView(result.image, result.geometry)
    image = to_uint8(seen.image, 'image of the result')
    if wanted == 'network':
        return View(image, None)
    if result.original is None or seen.geometry is None or not seen.geometry.exact:
        if style.view == 'original' and result.original is not None:
            logging.getLogger('vistool').warning('the way back to the original is unknown; drawn on the network view')
        return View(image, None)
    return View(to_uint8(result.original, 'original of the result'), seen.geometry)
