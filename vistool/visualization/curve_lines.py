"""Curves over training as lines: their colours, and only as many points as a picture can show."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgb

from vistool.results import Curve
from vistool.visualization.curve_axes import DOTS, Axis

_RAMP = 'viridis_r'  # the last layers, which learn fastest, are the dark ones
_PALE = 0.08  # of the ramp, which nobody could see on white
# A line on a page shows no more than this many points; drawing each of a million iterations takes seconds.
_MOST_POINTS = 4000


def draw_lines(axes: Any, curves: Sequence[Curve], axis: Axis) -> list[Any]:
    """Draws the curves of a panel and returns their colours."""
    colors = _colors(axes, curves)
    for curve, color in zip(curves, colors, strict=True):
        steps, values = (curve.steps, curve.values) if curve.measured else _thinned(curve)
        look: dict[str, Any] = {**DOTS, 'zorder': 4} if curve.measured else {}
        axes.plot(axis.position(curve.config, steps), values, color=color, **look)
    return colors


def ramp_color(order: float) -> Any:
    """The colour of a place on the ramp of layers, 0 to 1."""
    return colormaps[_RAMP](_PALE + (1 - _PALE) * order)


def _colors(axes: Any, curves: Sequence[Curve]) -> list[Any]:
    """A hue for each config where there are several, tints of it for the config's groups; else a hue for each group."""
    cycle = axes._get_lines
    configs = list(dict.fromkeys(curve.config for curve in curves))
    hues = {config: cycle.get_next_color() for config in configs} if len(configs) > 1 else {}
    met: dict[str, int] = {}
    colors: list[Any] = []
    for curve in curves:
        before = met[curve.config] = met.get(curve.config, -1) + 1
        if not hues:
            plain = '0.15' if curve.measured else None
            colors.append(plain or (cycle.get_next_color() if curve.order is None else ramp_color(curve.order)))
        elif curve.measured:
            colors.append(hues[curve.config])
        else:
            weight = max(0.3, 1 - 0.25 * before) if curve.order is None else 0.2 + 0.8 * curve.order
            colors.append(_tint(hues[curve.config], weight))
    return colors


def _tint(color: Any, weight: float) -> tuple[float, ...]:
    return tuple(1 - weight + weight * part for part in to_rgb(color))


def _thinned(curve: Curve) -> tuple[Any, Any]:
    """The curve without points that no pixel could show; in each stretch its ends, minimum and maximum stay."""
    count = len(curve.steps)
    if count <= _MOST_POINTS:
        return curve.steps, curve.values
    edges = np.linspace(0, count, _MOST_POINTS // 4 + 1).astype(int)
    kept: set[int] = {count - 1}
    for low, high in pairwise(edges.tolist()):
        piece = curve.values[low:high]
        kept.update((low, high - 1, low + int(piece.argmin()), low + int(piece.argmax())))
    indices = np.array(sorted(kept))
    return curve.steps[indices], curve.values[indices]
