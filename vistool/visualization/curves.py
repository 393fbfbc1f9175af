"""Curves over training to a matplotlib figure: epochs below, iterations above."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import colormaps, style
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vistool.results import Curve, Curves
from vistool.visualization.style import Page
from vistool.visualization.vector import parameters

# seaborn's look, from the style sheet that matplotlib brings: importing seaborn takes over a second.
_SHEET = 'seaborn-v0_8-ticks'
_RAMP = 'viridis'
_SCREEN_WIDTH = 960.0
_PANEL_ASPECT = 2.2
_POINTS_PER_INCH = 72.0
# A line on a page shows no more than this many points; drawing each of a million iterations takes seconds.
_MOST_POINTS = 4000


def curves_figure(result: Curves, page: Page) -> Figure:
    """One panel per parameter (lr, momentum …), one line per config and group.

    Args:
        result: The curves; must not be empty.
        page: Width and text sizes.
    """
    made = Figure(dpi=page.density * _POINTS_PER_INCH / page.points)
    draw_curves(result, page, made)
    return made


def draw_curves(result: Curves, page: Page, made: Figure) -> None:
    """Draw curves over the whole of a figure, which gets the size they need."""
    if not result.curves:
        raise ValueError('a result without curves cannot be drawn')
    names = list(dict.fromkeys(curve.parameter for curve in result.curves))
    width = (page.width or _SCREEN_WIDTH) * page.points / _POINTS_PER_INCH
    with parameters(_look(page)):
        made.set_size_inches(width, width / _PANEL_ASPECT * len(names))
        made.set_layout_engine('constrained')
        panels = list(made.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0])
        for name, axes in zip(names, panels, strict=True):
            _panel(axes, [curve for curve in result.curves if curve.parameter == name], name)
        _step_axes(result, panels)
        _headings(made, panels[0], result, page)
        made.canvas.draw()  # while the parameters hold; the layout runs here


def _look(page: Page) -> dict[str, Any]:
    size, small = page.font * page.points, page.small_font * page.points
    return {
        **dict(style.library[_SHEET].items()),
        'font.family': ['DejaVu Sans'],
        'font.size': size,
        'axes.titlesize': size,
        'axes.labelsize': size,
        'legend.fontsize': small,
        'xtick.labelsize': small,
        'ytick.labelsize': small,
        'axes.linewidth': 0.6,
        'lines.linewidth': 1.2,
        'xtick.major.width': 0.6,
        'ytick.major.width': 0.6,
        'xtick.major.size': 3,
        'ytick.major.size': 3,
    }


def _panel(axes: Any, curves: Sequence[Curve], name: str) -> None:
    for curve in curves:
        color = None if curve.order is None else colormaps[_RAMP](0.9 * curve.order)
        steps, values = _thinned(curve)
        axes.plot(steps, values, color=color, label=curve.label or '_hidden')
    axes.set_ylabel({'lr': 'learning rate'}.get(name, name), parse_math=False)
    axes.spines['right'].set_visible(False)
    axes.margins(x=0.01)
    if any(curve.label for curve in curves):
        legend = axes.legend(frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
    if any(curve.order is not None for curve in curves):
        ramp = ScalarMappable(Normalize(0, 1), colormaps[_RAMP].resampled(256))
        axes.figure.colorbar(ramp, ax=axes, label='first layer to last', ticks=[], fraction=0.03, pad=0.02)


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


def _step_axes(result: Curves, panels: Sequence[Any]) -> None:
    """Epochs below and iterations above where all configs have one epoch length, else iterations below."""
    lengths = {result.epoch_length.get(curve.config) for curve in result.curves}
    length = next(iter(lengths)) if len(lengths) == 1 else None
    bottom, top = panels[-1], panels[0]
    if not length:
        bottom.set_xlabel(result.x_label, parse_math=False)
        top.spines['top'].set_visible(False)
        return
    for axes in panels[1:]:
        axes.spines['top'].set_visible(False)
    # The data are in iterations; both axes get round numbers in their own unit.
    above = top.secondary_xaxis('top')
    above.set_xlabel('iteration')
    low, high = bottom.get_xlim()
    ticks = MaxNLocator(nbins=8, integer=high / length >= 4).tick_values(max(low, 0) / length, high / length)
    inside = [tick for tick in ticks if low <= tick * length <= high]
    bottom.set_xticks([tick * length for tick in inside], [f'{tick:g}' for tick in inside])
    bottom.set_xlabel('epoch')
    bottom.set_xlim(low, high)


def _headings(made: Figure, axes: Any, result: Curves, page: Page) -> None:
    """The title, and the facts in grey; constants stand nowhere on paper."""
    if page.paper:
        return
    if result.title:
        made.suptitle(result.title, x=0.01, ha='left', fontsize=page.font * page.points, parse_math=False)
    if result.facts:
        axes.set_title(result.facts, loc='left', color='0.4', fontsize=page.small_font * page.points, parse_math=False)
