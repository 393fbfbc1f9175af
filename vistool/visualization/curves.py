"""Curves over training to a matplotlib figure: epochs below, iterations above, a short warm-up enlarged beside."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure

from vistool.results import Curve, Curves
from vistool.visualization.curve_axes import Axis, add_legend, axis_of, mark_ends, tell_values
from vistool.visualization.style import Page, Theme
from vistool.visualization.vector import parameters

# seaborn's looks, from the style sheets that matplotlib brings (a test compares them): importing seaborn takes over a second.
_SHEETS = 'stylelib/seaborn-v0_8-{}.mplstyle'
_RAMP = 'viridis_r'  # the last layers, which learn fastest, are the dark ones
_PALE = 0.08  # of the ramp, which nobody could see on white
_SCREEN_WIDTH = 960.0
_PANEL_ASPECT, _PAPER_ASPECT = 2.2, 1.7
_ZOOM_SHARE = 3.6  # widths of the whole run to one of its warm-up
_FLAT_SHARE = 0.35
_POINTS_PER_INCH = 72.0
# A line on a page shows no more than this many points; drawing each of a million iterations takes seconds.
_MOST_POINTS = 4000
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
        height = width / (_PAPER_ASPECT if page.paper else _PANEL_ASPECT) * sum(shares) / max(shares)
        made.set_size_inches(width, height if page.height is None else page.height * page.points / _POINTS_PER_INCH)
        made.set_layout_engine('constrained')
        grid = made.add_gridspec(
            len(names), 2 if zoom else 1, width_ratios=[_ZOOM_SHARE, 1] if zoom else [1], height_ratios=shares
        )
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
    colors = _draw(axes, curves, axis)
    axes.set_ylabel(_NAMES.get(name, name), parse_math=False)
    tell_values(axes)
    mark_ends(axes, curves, axis, colors, page.paper)
    add_legend(axes, curves, colors)
    ordered = {curve.config for curve in curves if curve.order is not None}
    if len(ordered) == 1 and len({curve.config for curve in curves}) == 1:
        ramp = ScalarMappable(Normalize(0, 1), ListedColormap([_ramp_color(i / 255) for i in range(256)]))
        bar = axes.figure.colorbar(ramp, ax=axes, ticks=[0, 1], fraction=0.025, pad=0.02, aspect=30)
        bar.ax.set_yticklabels(result.ramp)
        bar.outline.set_linewidth(0)


def _draw(axes: Any, curves: Sequence[Curve], axis: Axis) -> list[Any]:
    """The lines; their colours are returned."""
    configs = list(dict.fromkeys(curve.config for curve in curves))
    hues = axes._get_lines
    own = {config: hues.get_next_color() for config in configs}
    several = len(configs) > 1
    colors: list[Any] = []
    met: dict[str, int] = {}
    for curve in curves:
        met[curve.config] = met.get(curve.config, 0) + 1
        first = met[curve.config] == 1
        if curve.measured:
            color: Any = '0.15' if not several else own[curve.config]
        elif curve.order is not None:
            color = _tint(own[curve.config], 0.2 + 0.8 * curve.order) if several else _ramp_color(curve.order)
        elif several:
            color = own[curve.config] if first else _tint(own[curve.config], max(0.3, 1 - 0.25 * (met[curve.config] - 1)))
        else:
            color = own[curve.config] if first else hues.get_next_color()
        steps, values = (curve.steps, curve.values) if curve.measured else _thinned(curve)
        look = {'linestyle': 'none', 'marker': 'o', 'markerfacecolor': 'none', 'zorder': 4} if curve.measured else {}
        axes.plot(axis.position(curve.config, steps), values, color=color, **look)
        colors.append(color)
    return colors


def _ramp_color(order: float) -> Any:
    return colormaps[_RAMP](_PALE + (1 - _PALE) * order)


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
            shown.append(Curve(curve.steps[inside], curve.values[inside], curve.config, curve.group, curve.parameter, curve.order, '', curve.measured))
    _draw(axes, shown, axis)
    axes.margins(x=0.02)
    axes.text(0.95, 0.04, 'warm-up', transform=axes.transAxes, ha='right', color='0.4', fontsize='small')
    axes.tick_params(labelleft=False)
    axis.finish(axes, axes)


def _headings(made: Figure, result: Curves, page: Page) -> None:
    """The title, and the facts in grey; on paper no facts, and no title that only repeats the config's name."""
    size, small = page.font * page.points, page.small_font * page.points
    title = result.title if not (page.paper and result.title in {curve.config for curve in result.curves}) else ''
    facts = [] if page.paper or not result.facts else _wrapped(result.facts, made.get_figwidth() * _POINTS_PER_INCH / (0.58 * small))
    lines = ([title] if title else []) + facts
    if not lines:
        return
    # An empty heading of as many lines makes room; the lines themselves differ in size and colour.
    made.suptitle('\n'.join([' '] * len(lines)), fontsize=size)
    top, step = 1 - 1.3 * size / made.get_figheight() / _POINTS_PER_INCH, 1.35 * size / made.get_figheight() / _POINTS_PER_INCH
    for index, line in enumerate(lines):
        heading = bool(title) and index == 0
        look = {'fontsize': size} if heading else {'fontsize': small, 'color': '0.4'}
        made.text(0.01, top - index * step, line, va='baseline', parse_math=False, in_layout=False, **look)


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
