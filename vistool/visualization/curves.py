"""Curves over training to a matplotlib figure: epochs below, iterations above, a short warm-up enlarged beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from vistool.results import Curve, Curves
from vistool.visualization.curve_axes import Axis, add_legend, axis_of, mark_ends, tell_values
from vistool.visualization.curve_lines import draw_lines, ramp_color
from vistool.visualization.style import Page, Theme
from vistool.visualization.vector import parameters

# seaborn's looks, from the sheets that matplotlib brings (a test compares them); importing seaborn takes a second.
_SHEETS = 'stylelib/seaborn-v0_8-{}.mplstyle'
_SCREEN_WIDTH = 960.0
_PANEL_ASPECT, _PAPER_ASPECT = 2.2, 1.7
_ZOOM_SHARE = 3.6  # widths of the whole run to one of its warm-up
_FLAT_SHARE = 0.35
_POINTS_PER_INCH = 72.0
_SHORT_WARMUP = 0.02  # of the run; a longer one can be seen without help
_NAMES = {'lr': 'learning rate', 'weight_decay': 'weight decay', 'beta1': 'beta 1', 'beta2': 'beta 2'}


def curves_figure(result: Curves, page: Page, theme: Theme = 'whitegrid') -> Figure:
    """One panel per parameter (lr, momentum …), one line per config and group.

    Args:
        result: The curves; must not be empty.
        page: Width and text sizes.
        theme: seaborn's style of that name.
    """
    made = Figure(dpi=page.density * _POINTS_PER_INCH / page.points)
    draw_curves(result, page, made, theme)
    return made


def draw_curves(result: Curves, page: Page, made: Figure, theme: Theme = 'whitegrid') -> None:
    """Draw curves over the whole of a figure, which gets the size they need."""
    if not result.curves:
        raise ValueError('a result without curves cannot be drawn')
    names = list(dict.fromkeys(curve.parameter for curve in result.curves))
    axis = axis_of(result)
    zoom = _zoom(result, axis)
    shares = [_share([curve for curve in result.curves if curve.parameter == name]) for name in names]
    with parameters(_look(page, theme)):
        width = (page.width or _SCREEN_WIDTH) * page.points / _POINTS_PER_INCH
        made.set_size_inches(width, _height(page, width, sum(shares) / max(shares)))
        made.set_layout_engine('constrained')
        widths = [_ZOOM_SHARE, 1] if zoom else [1]
        grid = made.add_gridspec(len(names), len(widths), width_ratios=widths, height_ratios=shares)
        panels: list[Any] = []
        for row, name in enumerate(names):
            panels.append(made.add_subplot(grid[row, 0], sharex=panels[0] if panels else None))
            own = [curve for curve in result.curves if curve.parameter == name]
            _panel(panels[-1], own, name, axis, result, page)
            if zoom and name == 'lr':
                _zoomed(made.add_subplot(grid[row, 1], sharey=panels[-1]), own, axis, zoom)
        axis.finish(panels[-1], panels[0])
        for above in panels[:-1]:
            above.tick_params(labelbottom=False)
        _headings(made, result, page)
        made.canvas.draw()  # while the parameters hold; the layout runs here


def _height(page: Page, width: float, rows: float) -> float:
    if page.height is not None:
        return page.height * page.points / _POINTS_PER_INCH
    return width / (_PAPER_ASPECT if page.paper else _PANEL_ASPECT) * rows


def _share(curves: Sequence[Curve]) -> float:
    """A panel's share of the height: what never changes needs little."""
    return 1.0 if any(float(np.ptp(curve.values)) > 0 for curve in curves) else _FLAT_SHARE


def _look(page: Page, theme: Theme) -> dict[str, Any]:
    size, small = page.font * page.points, page.small_font * page.points
    # read by itself: matplotlib.style reads every sheet there is when it is imported, 0.25 s
    path = Path(matplotlib.get_data_path(), _SHEETS.format(theme))
    sheet = dict(matplotlib.rc_params_from_file(path, use_default_template=False).items())
    framed, ticked = float(sheet['axes.linewidth']) > 0, float(sheet['xtick.major.size']) > 0
    return {
        **sheet,
        'font.family': ['DejaVu Sans'],
        'font.size': size,
        'axes.titlesize': size,
        'axes.labelsize': size,
        'legend.fontsize': small,
        'xtick.labelsize': small,
        'ytick.labelsize': small,
        'axes.linewidth': 0.6 if framed else 0.0,
        'grid.linewidth': 0.5,
        'lines.linewidth': 0.8 if page.paper else 1.2,
        'lines.markersize': 2.5 if page.paper else 3.5,
        'xtick.major.width': 0.6,
        'ytick.major.width': 0.6,
        'xtick.major.size': 3 if ticked else 0,
        'ytick.major.size': 3 if ticked else 0,
    }


def _panel(axes: Any, curves: Sequence[Curve], name: str, axis: Axis, result: Curves, page: Page) -> None:
    colors = draw_lines(axes, curves, axis)
    axes.set_ylabel(_NAMES.get(name, name), parse_math=False)
    tell_values(axes)
    if axis.counts_training:
        mark_ends(axes, curves, axis, colors, page.paper)
    add_legend(axes, curves, colors)
    if len({curve.config for curve in curves}) == 1 and any(curve.order is not None for curve in curves):
        ramp = ScalarMappable(Normalize(0, 1), ListedColormap([ramp_color(level / 255) for level in range(256)]))
        bar = axes.figure.colorbar(ramp, ax=axes, ticks=[0, 1], fraction=0.025, pad=0.02, aspect=30)
        bar.ax.set_yticklabels(result.ramp)
        bar.outline.set_linewidth(0)


def _zoom(result: Curves, axis: Axis) -> float:
    """How far the enlarged part reaches, in the axis' unit; 0 where no warm-up is too short to be seen."""
    short = []
    for config, length in result.warmup.items():
        total = max(len(curve.steps) for curve in result.curves if curve.config == config)
        if 1 < length < _SHORT_WARMUP * total:
            short.append(float(axis.position(config, np.array([length * 1.6]))[0]))
    return max(short, default=0.0)


def _zoomed(axes: Any, curves: Sequence[Curve], axis: Axis, reach: float) -> None:
    """The first part of the run on axes of its own."""
    shown = []
    for curve in curves:
        inside = axis.position(curve.config, curve.steps) <= reach
        if inside.any():
            shown.append(replace(curve, steps=curve.steps[inside], values=curve.values[inside]))
    draw_lines(axes, shown, axis)
    axes.margins(x=0.02)
    axes.text(0.95, 0.11, 'warm-up', transform=axes.transAxes, ha='right', color='0.4', fontsize='small')
    axes.tick_params(labelleft=False)
    axis.finish(axes, axes)


def _headings(made: Figure, result: Curves, page: Page) -> None:
    """The title, and the facts in grey; on paper no facts, and no title that only repeats the config's name."""
    size, small = page.font * page.points, page.small_font * page.points
    width, height = (side * _POINTS_PER_INCH for side in made.get_size_inches())
    repeats = result.title in {curve.config for curve in result.curves}
    lines = [(result.title, size, '0.0')] if result.title and not (page.paper and repeats) else []
    if result.facts and not page.paper:
        lines += [(line, small, '0.4') for line in _wrapped(result.facts, width / (0.58 * small))]
    if not lines:
        return
    # An empty heading of as many lines makes room; the lines themselves differ in size and colour.
    made.suptitle('\n'.join([' '] * len(lines)), fontsize=size)
    for index, (line, points, color) in enumerate(lines):
        place = 1 - (1.3 + 1.35 * index) * size / height
        made.text(0.01, place, line, color=color, fontsize=points, va='baseline', parse_math=False, in_layout=False)


def _wrapped(facts: str, room: float) -> list[str]:
    """Facts on lines of at most ``room`` characters, broken between facts."""
    lines = ['']
    for fact in facts.split(' · '):
        longer = f'{lines[-1]} · {fact}' if lines[-1] else fact
        if lines[-1] and len(longer) > room:
            lines.append(fact)
        else:
            lines[-1] = longer
    return lines
