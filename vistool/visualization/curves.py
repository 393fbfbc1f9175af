"""Curves over training to a matplotlib figure: epochs below, iterations above, a short warm-up enlarged beside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colormaps, rcParams
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from vistool.results import Curve, Curves
from vistool.visualization.style import Page, Theme
from vistool.visualization.text import elide, text_width
from vistool.visualization.vector import parameters

_RAMP = 'viridis_r'  # the last layers, which learn fastest, are the dark ones
_PALE = 0.08  # of the ramp, which nobody could see on white
# A line on a page shows no more than this many points; drawing each of a million iterations takes seconds.
_MOST_POINTS = 4000
_MOST_DOTS = 50


def draw_lines(axes: Any, curves: Sequence[Curve], axis: Axis) -> list[Any]:
    """Draws the curves of a panel and returns their colors."""
    colors = _colors(axes, curves)
    for curve, color in zip(curves, colors, strict=True):
        steps, values = _spaced(curve) if curve.measured else _thinned(curve)
        look: dict[str, Any] = {**DOTS, 'zorder': 4} if curve.measured else {}
        axes.plot(axis.position(curve.config, steps), values, color=color, **look)
    return colors


def _spaced(curve: Curve) -> tuple[Any, Any]:
    """Single values, evenly spaced where there are more than can be told apart; the last one stays."""
    count = len(curve.steps)
    kept = np.unique(np.linspace(0, count - 1, min(count, _MOST_DOTS)).astype(int))
    return curve.steps[kept], curve.values[kept]


def ramp_color(order: float) -> Any:
    """The color of a place on the ramp of layers, 0 to 1."""
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


DOTS: dict[str, Any] = {'linestyle': 'none', 'marker': 'o', 'markerfacecolor': 'none'}
"""How single values look, as against a course."""

_SAMPLE = 3.6
"""Width of the line before a label in a legend and of the space after it, for a font of size 1."""
_BELOW, _BETWEEN = 3.7, 0.4
"""From a panel down to its legend, likewise: below its axis with numbers and a name, and without them."""
_LEGEND_LINE = 1.6
"""Height of a line of a legend, likewise."""
_MOST_LABELS = 8
_LEAST_LABEL, _LONGEST_LABEL = 8.0, 32.0
"""Widths of a label in a legend, for a font of size 1."""
_ROUND = [1, 2, 2.5, 5, 10]


@dataclass(frozen=True)
class Axis:
    """What the horizontal axis counts.

    Attributes:
        lengths: Iterations per epoch by config, where known.
        unit: ``both`` (epochs below, iterations above) where all configs share one epoch length; ``epoch`` where they
            differ; ``iteration`` where some are unknown; else the name of something else, such as channels.
    """

    lengths: Mapping[str, float]
    unit: str

    @property
    def counts_training(self) -> bool:
        """Whether the curves run over a training, so that they have a peak and an end."""
        return self.unit in ('both', 'epoch', 'iteration')

    def position(self, config: str, steps: NDArray[Any]) -> NDArray[Any]:
        """Steps in the axis' unit; with ``both`` the data stay in iterations."""
        return steps / self.lengths[config] if self.unit == 'epoch' else steps

    def finish(self, bottom: Any, top: Any) -> None:
        """Ticks and labels below the lowest and above the highest panel, as many as have room."""
        low, high = bottom.get_xlim()
        bins = _room(bottom, _counted(high))
        if self.unit != 'both':
            bottom.set_xlabel(self.unit)
            bottom.xaxis.set_major_locator(MaxNLocator(nbins=bins, steps=_ROUND))
            bottom.xaxis.set_major_formatter(FuncFormatter(_counted))
            return
        # The data are in iterations; both axes get round numbers in their own unit.
        length = next(iter(self.lengths.values()))
        above = top.secondary_xaxis('top')
        above.set_xlabel('iteration')
        above.xaxis.set_major_locator(MaxNLocator(nbins=bins, steps=_ROUND))
        above.xaxis.set_major_formatter(FuncFormatter(_counted))
        rounded = MaxNLocator(nbins=bins, integer=high / length >= 4, steps=_ROUND)
        ticks = rounded.tick_values(max(low, 0) / length, high / length)
        inside = [tick for tick in ticks if low <= tick * length <= high]
        bottom.set_xticks([tick * length for tick in inside], [f'{tick:g}' for tick in inside])
        bottom.set_xlabel('epoch')
        bottom.set_xlim(low, high)


def axis_of(result: Curves) -> Axis:
    """The unit that all configs of a result have in common."""
    lengths = {curve.config: result.epoch_length.get(curve.config) for curve in result.curves}
    known = {config: length for config, length in lengths.items() if length}
    if len(known) < len(lengths):
        return Axis(known, result.x_label)
    return Axis(known, 'both' if len(set(known.values())) == 1 else 'epoch')


def _counted(value: float, _: Any = None) -> str:
    return f'{value:,.0f}' if abs(value - round(value)) < 1e-6 else f'{value:g}'


def _room(axes: Any, longest: str) -> int:
    """How many labels like this fit along an axis."""
    width = axes.figure.get_figwidth() * 72 * axes.get_position().width
    return max(2, min(8, int(width / (_letter('xtick.labelsize') * (0.62 * len(longest) + 1.5)))))


def _letter(setting: Any) -> float:
    return FontProperties(size=rcParams[setting]).get_size_in_points()


def tell_values(axes: Any) -> None:
    """Ticks that say their whole value, with no power of ten in a corner, and room above for one line of words."""
    letter = _letter('ytick.labelsize')
    height = axes.figure.get_figheight() * 72 * axes.get_position().height
    axes.margins(x=0.01, y=min(0.25, max(0.08, 1.9 * letter / height)))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=max(2, min(8, int(height / (3 * letter)))), steps=_ROUND))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{0.0 if abs(value) < 1e-15 else value:.10g}'))


def mark_ends(axes: Any, curves: Sequence[Curve], axis: Axis, colors: Sequence[Any], paper: bool) -> None:
    """Dots on the peak and the end of each config's highest curve; their values in words where there is one config.

    On paper those of the end stand below or above it: at its side they would narrow the picture.
    """
    planned = [(curve, color) for curve, color in zip(curves, colors, strict=True) if not curve.measured]
    configs = list(dict.fromkeys(curve.config for curve, _ in planned))
    for config in configs:
        own = [pair for pair in planned if pair[0].config == config]
        curve, color = max(own, key=lambda pair: float(pair[0].values.max()))
        values = curve.values[[int(curve.values.argmax()), -1]]
        if values[0] == curve.values.min():
            continue
        places = axis.position(config, curve.steps[[int(curve.values.argmax()), -1]])
        axes.plot(places, values, linestyle='none', marker='o', color=color, zorder=5, clip_on=False)
        if len(configs) == 1:
            falls = float(curve.values[-len(curve.values) // 5 :].mean()) >= values[1]
            _say_ends(axes, places, values, paper, falls)


def _say_ends(axes: Any, places: NDArray[Any], values: NDArray[Any], paper: bool, falls: bool) -> None:
    shared = {'textcoords': 'offset points', 'color': '0.25', 'fontsize': 'small', 'annotation_clip': False}
    side, anchor = (4, 'left') if places[0] < places[1] / 2 else (-4, 'right')
    axes.annotate(f'peak {values[0]:.3g}', (places[0], values[0]), (side, 3), ha=anchor, **shared)
    if (values[1] > 0 or axes.get_yscale() != 'log') and not (paper and places[0] == places[1]):
        below = {'xytext': (-5, -4.6), 'ha': 'right', 'va': 'center'}  # a curve that falls does not pass there
        above = {'xytext': (-5, 4), 'ha': 'right', 'va': 'bottom'}
        where = {'xytext': (6, 0), 'va': 'center'} if not paper else below if falls else above
        axes.annotate(f'end {values[1]:.3g}', (places[1], values[1]), **where, **shared)


def add_legend(axes: Any, curves: Sequence[Curve], colors: Sequence[Any], lowest: bool) -> float:
    """A legend of the labelled curves below their panel, where it covers none of them.

    Args:
        axes: The panel.
        curves: Its curves.
        colors: Their colors.
        lowest: Whether the numbers and the name of the horizontal axis are below this panel.

    Returns:
        The legend's height in points; 0 where no curve has a label.
    """
    entries = _entries(curves, colors)
    if not entries:
        return 0.0
    if len(entries) > _MOST_LABELS:
        more = len(entries) - _MOST_LABELS + 1
        entries = [*entries[: _MOST_LABELS - 1], (Line2D([], [], linestyle='none'), f'… {more} more', '')]
    size = _letter('legend.fontsize')
    room = _width_of(axes) - _SAMPLE * size
    labels = [_fitted(label, told, size, room) for _, label, told in entries]
    across = max(1, int((room + _SAMPLE * size) / (max(text_width(each, size) for each in labels) + _SAMPLE * size)))
    down = math.ceil(len(labels) / min(across, len(labels)))
    below = (_BELOW if lowest else _BETWEEN) * size
    legend = axes.legend(
        [handle for handle, _, _ in entries],
        labels,
        loc='upper left',
        bbox_to_anchor=(0, 0),
        bbox_transform=axes.transAxes + ScaledTranslation(0, -below / _POINTS_PER_INCH, axes.figure.dpi_scale_trans),
        ncols=math.ceil(len(labels) / down),
        frameon=False,
        borderaxespad=0,
        borderpad=0,
        handlelength=1.6,
        columnspacing=1.2,
        labelspacing=0.3,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return _LEGEND_LINE * size * down


def _entries(curves: Sequence[Curve], colors: Sequence[Any]) -> list[tuple[Line2D, str, str]]:
    """Line, label and values of each labelled curve; the values only where there are several configs."""
    several = len({curve.config for curve in curves}) > 1
    entries = []
    for curve, color in zip(curves, colors, strict=True):
        if curve.label:
            values = f' · peak {curve.values.max():.3g}, end {curve.values[-1]:.3g}'
            look = DOTS if curve.measured else {}
            told = values if several and not curve.measured else ''
            entries.append((Line2D([], [], color=color, **look), curve.label, told))
    return entries


def same_legend(one: Sequence[Curve], other: Sequence[Curve]) -> bool:
    """Whether the curves of two panels have the same legend: the same labels in the same order, and one config."""
    told = [[(each.label, each.order, each.measured, each.config) for each in curves] for curves in (one, other)]
    return told[0] == told[1] and len({each.config for each in one}) == 1


def _width_of(axes: Any) -> float:
    """About how wide a panel will be, in points: the layout that makes room for numbers and names runs later."""
    figure, outside = axes.figure, 9 * _letter('ytick.labelsize')
    share = axes.get_position().width / (figure.subplotpars.right - figure.subplotpars.left)
    return float((figure.get_figwidth() * _POINTS_PER_INCH - outside) * share)


def _fitted(label: str, told: str, size: float, room: float) -> str:
    """A label with its values; the label without its middle, or the values left out, where there is no room."""
    free = room - text_width(told, size)
    if free < _LEAST_LABEL * size:
        free, told = max(room, _LEAST_LABEL * size), ''
    return elide(label, size, min(free, _LONGEST_LABEL * size)) + told


# seaborn's looks, from the sheets that matplotlib brings (a test compares them); importing seaborn takes a second.
_SHEETS = 'stylelib/seaborn-v0_8-{}.mplstyle'
_SCREEN_WIDTH = 960.0
_PANEL_ASPECT, _PAPER_ASPECT = 2.2, 1.7
_ZOOM_SHARE = 3.6  # widths of the whole run to one of its warm-up
_FLAT_SHARE = 0.35
_POINTS_PER_INCH = 72.0
_SHORT_WARMUP = 0.02  # of the run; a longer one can be seen without help
_NAMES = {'lr': 'learning rate', 'weight_decay': 'weight decay', 'beta1': 'beta 1', 'beta2': 'beta 2'}


def draw_curves(result: Curves, page: Page, made: Figure, theme: Theme = 'whitegrid', log_scale: bool = False) -> None:
    """Draw curves over the whole of a figure, which gets the size they need.

    Args:
        result: The curves.
        page: Its measures.
        made: The figure.
        theme: seaborn's style of that name.
        log_scale: Whether values have a logarithmic axis.
    """
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
        legends = 0.0
        for row, (name, following) in enumerate(zip(names, [*names[1:], ''], strict=True)):
            panels.append(made.add_subplot(grid[row, 0], sharex=panels[0] if panels else None))
            legends += _panel(panels[-1], name, axis, result, page, log_scale, following)
            if zoom and name == 'lr':
                own = [curve for curve in result.curves if curve.parameter == name]
                _zoomed(made.add_subplot(grid[row, 1], sharey=panels[-1]), panels[-1], own, axis, zoom)
        if page.height is None:
            made.set_figheight(made.get_figheight() + legends / _POINTS_PER_INCH)
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
    every = matplotlib.rc_params_from_file(path, use_default_template=False)
    sheet: dict[str, Any] = {str(name): value for name, value in every.items() if not name.startswith('font.')}
    framed, ticked = float(sheet['axes.linewidth']) > 0, float(sheet['xtick.major.size']) > 0
    return {
        **sheet,
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


def _panel(axes: Any, name: str, axis: Axis, result: Curves, page: Page, log_scale: bool, following: str) -> float:
    """Draws the curves of a parameter, before those of the ``following`` one; returns its legend's height in points."""
    curves = [curve for curve in result.curves if curve.parameter == name]
    drawn = [_above_zero(curve) for curve in curves] if log_scale else curves
    colors = draw_lines(axes, drawn, axis)
    axes.set_ylabel(_NAMES.get(name, name), parse_math=False)
    tell_values(axes)
    if log_scale and any((curve.values > 0).any() for curve in curves):
        _by_powers(axes)
    else:
        _say_where_it_starts(axes, curves)
    if axis.counts_training:
        mark_ends(axes, curves, axis, colors, page.paper)
    below = [curve for curve in result.curves if curve.parameter == following]  # says the same once
    legend = 0.0 if same_legend(curves, below) else add_legend(axes, curves, colors, lowest=not following)
    if len({curve.config for curve in curves}) == 1 and any(curve.order is not None for curve in curves):
        ramp = ScalarMappable(Normalize(0, 1), ListedColormap([ramp_color(level / 255) for level in range(256)]))
        bar = axes.figure.colorbar(ramp, ax=axes, ticks=[0, 1], fraction=0.025, pad=0.02, aspect=30)
        bar.ax.set_yticklabels(result.ramp)
        bar.outline.set_linewidth(0)
    return legend


def _above_zero(curve: Curve) -> Curve:
    """A curve with gaps where a logarithmic axis has no place."""
    return replace(curve, values=np.where(curve.values > 0, curve.values, np.nan))


def _by_powers(axes: Any) -> None:
    """A logarithmic axis, with whole values at its ticks."""
    axes.set_yscale('log', nonpositive='mask')
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:.10g}'))
    axes.yaxis.set_minor_formatter(NullFormatter())


_SMALL_CHANGE = 0.05


def _say_where_it_starts(axes: Any, curves: Sequence[Curve]) -> None:
    """A line under the axis' name where a change below 5 % fills the height: at a glance it would look like a fall."""
    low = min(float(curve.values.min()) for curve in curves)
    high = max(float(curve.values.max()) for curve in curves)
    if 0 < high - low < _SMALL_CHANGE * high:
        axes.set_ylabel(f'{axes.get_ylabel()}\n(axis does not start at 0)', parse_math=False)


def _zoom(result: Curves, axis: Axis) -> float:
    """How far the enlarged part reaches, in the axis' unit; 0 where no warm-up is too short to be seen."""
    short = []
    for config, length in result.warmup.items():
        total = max(len(curve.steps) for curve in result.curves if curve.config == config)
        if 1 < length < _SHORT_WARMUP * total:
            short.append(float(axis.position(config, np.array([length * 1.6]))[0]))
    return max(short, default=0.0)


def _zoomed(axes: Any, whole: Any, curves: Sequence[Curve], axis: Axis, reach: float) -> None:
    """The first part of the run on axes of its own, with the heights and the room for words of the whole."""
    shown = []
    for curve in curves:
        inside = axis.position(curve.config, curve.steps) <= reach
        if inside.any():
            shown.append(replace(curve, steps=curve.steps[inside], values=curve.values[inside]))
    draw_lines(axes, shown, axis)
    axes.margins(x=0.02, y=whole.margins()[1])
    axes.text(0.95, 0.11, 'warm-up', transform=axes.transAxes, ha='right', color='0.4', fontsize='small')
    axes.tick_params(labelleft=False)
    axis.finish(axes, axes)


def _headings(made: Figure, result: Curves, page: Page) -> None:
    """The title, and the facts in gray; on paper no facts, and no title that only repeats the config's name."""
    size, small = page.font * page.points, page.small_font * page.points
    width, height = (side * _POINTS_PER_INCH for side in made.get_size_inches())
    repeats = result.title in {curve.config for curve in result.curves}
    lines = [(result.title, size, '0.0')] if result.title and not (page.paper and repeats) else []
    if result.facts and not page.paper:
        lines += [(line, small, '0.4') for line in _wrapped(result.facts, width / (0.58 * small))]
    if not lines:
        return
    # An empty heading of as many lines makes room; the lines themselves differ in size and color.
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
