"""Metrics over the images of a run, as a figure of mean curves and intervals, and as a table of text."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vistool.errors import counted
from vistool.results import Estimate, MetricMean, MetricsSummary
from vistool.visualization import text as fitting
from vistool.visualization.facets import arrow, short_number
from vistool.visualization.style import Page
from vistool.visualization.vector import parameters

_GRAYS = ('0.25', '0.45', '0.62', '0.75')
_DASHES = ((0, (1, 1.2)), (0, (4, 1.5)), (0, (4, 1.5, 1, 1.5)), (0, (7, 2)))
_WIDTH = 960.0
_LEAST_PANEL = 115.0
_CURVE_ASPECT = 0.78
_ROW, _AROUND = 1.75, 4.6
"""Heights in lines of text: of a method's row in a panel, and of what stands around the rows."""
_AXES = {'insertion': 'share of the pixels inserted', 'deletion': 'share of the pixels removed'}


def draw_metrics(result: MetricsSummary, made: Figure, page: Page) -> None:
    """Mean curves with bands above; below a panel for each metric, with an interval for each method."""
    width = (page.width or _WIDTH) * page.points
    size, small = page.font * page.points, page.small_font * page.points
    across = max(1, min(3, int(width / _LEAST_PANEL)))
    curves = [name for name in result.measures if name in _AXES and any(each.name == name for each in result.curves)]
    cells = len(curves) + bool(curves)  # the legend has a cell of its own
    curve_rows, metric_rows = math.ceil(cells / across), math.ceil(len(result.measures) / across)
    heights = [width / across * _CURVE_ASPECT] * curve_rows
    heights += [size * (_AROUND + _ROW * len(result.series))] * metric_rows
    notes = textwrap.wrap(_legend_text(result), int(width / (0.52 * small)))
    height = sum(heights) + (1.0 + 1.25 * len(notes)) * small
    below = 1 - sum(heights) / height
    with parameters(_look(page, size, small)):
        made.set_size_inches(width / 72, height / 72)
        made.set_layout_engine('constrained', h_pad=0.04, w_pad=0.04, rect=(0, below, 1, 1 - below))
        grid = made.add_gridspec(curve_rows + metric_rows, across, height_ratios=heights)
        looks = _looks(result)
        for place, name in enumerate(curves):
            _draw_curves(made.add_subplot(grid[divmod(place, across)]), result, name, looks)
        if curves:
            _draw_legend(made.add_subplot(grid[divmod(len(curves), across)]), result, looks)
        for place, name in enumerate(result.measures):
            row, column = divmod(place, across)
            axes = made.add_subplot(grid[curve_rows + row, column])
            _draw_intervals(axes, result, name, looks, size, named=not column)
            axes.xaxis.set_major_locator(MaxNLocator(max(2, min(4, int(width / across / 42))), min_n_ticks=2))
        made.text(0.01, 0.75 * below, '\n'.join(notes), fontsize=small, color='0.3', va='top')
        made.canvas.draw()  # while the parameters hold; the layout runs here


def _look(page: Page, size: float, small: float) -> dict[str, Any]:
    return {
        'font.size': small, 'axes.titlesize': size, 'axes.labelsize': small, 'legend.fontsize': size,
        'xtick.labelsize': small, 'ytick.labelsize': size, 'axes.spines.top': False, 'axes.spines.right': False,
        'axes.titlelocation': 'left', 'axes.linewidth': 0.6, 'grid.linewidth': 0.4, 'grid.color': '0.88',
        'axes.axisbelow': True, 'lines.linewidth': 1.0 if page.paper else 1.4, 'xtick.major.width': 0.6,
        'ytick.major.width': 0.6, 'xtick.major.size': 3, 'ytick.major.size': 0,
    }  # fmt: skip


def _looks(result: MetricsSummary) -> dict[str, dict[str, Any]]:
    """A hue for each method, a gray and dashes for each baseline."""
    import seaborn as sns

    methods = [each for each in result.series if each not in result.baselines]
    hues = sns.color_palette('colorblind' if len(methods) <= 10 else 'husl', max(len(methods), 1))
    looks: dict[str, dict[str, Any]] = {
        each: {'color': color, 'linestyle': '-'} for each, color in zip(methods, hues, strict=False)
    }
    for place, each in enumerate(result.baselines):
        looks[each] = {'color': _GRAYS[place % len(_GRAYS)], 'linestyle': _DASHES[place % len(_DASHES)]}
    return looks


def _draw_curves(axes: Any, result: MetricsSummary, name: str, looks: Mapping[str, Mapping[str, Any]]) -> None:
    for each in (curve for curve in result.curves if curve.name == name):
        color, weight = looks[each.series]['color'], 0.06 if each.series in result.baselines else 0.14
        axes.fill_between(each.fractions, each.low, each.high, color=color, alpha=weight, linewidth=0)
        axes.plot(each.fractions, each.mean, **looks[each.series], zorder=3)
    axes.set(xlabel=_AXES[name], ylabel='mean score', xlim=(0, 1))
    axes.set_title(_title(result, name))
    axes.grid(True)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _draw_legend(axes: Any, result: MetricsSummary, looks: Mapping[str, Mapping[str, Any]]) -> None:
    axes.set_axis_off()
    lines = [axes.plot([], [], **looks[each])[0] for each in result.series]
    axes.legend(lines, result.series, loc='center left', frameon=False, handlelength=2.6)


def _draw_intervals(
    axes: Any, result: MetricsSummary, name: str, looks: Mapping[str, Mapping[str, Any]], size: float, named: bool
) -> None:
    """One metric: a mean with its interval for each method, filled where it differs from the first."""
    found = [(place, each) for place, one in enumerate(result.series) if (each := result.of(one, name)) is not None]
    first = result.series[0]
    for place, each in found:
        color, value = looks[each.series]['color'], each.value
        if math.isfinite(value.low):
            axes.plot([value.low, value.high], [place, place], color=color, solid_capstyle='butt')
        filled = each.series == first or each.differs
        axes.plot([value.mean], [place], 'o', markersize=0.55 * size, mfc=color if filled else 'white', mec=color)
        if each.chance is not None:
            axes.plot([each.chance] * 2, [place - 0.38, place + 0.38], color='0.35', linewidth=0.9, linestyle=':')
    names = [fitting.elide(one, 7, 90) or one[:14] for one in result.series]
    axes.set_yticks(range(len(names)), names if named else [''] * len(names))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(True, axis='x')
    axes.margins(x=0.08)
    counts = sorted({each.images for _, each in found})
    if counts != [result.images]:
        axes.set_xlabel(f'{"–".join(map(str, dict.fromkeys((counts[0], counts[-1]))))} of {result.images} images')
    axes.set_title(_title(result, name))


def _title(result: MetricsSummary, name: str) -> str:
    """A metric's name, or its short name where that is how papers write it (IoU), and where it is better."""
    measure = result.measures[name]
    written = measure.short if any(map(str.isupper, measure.short)) else name.replace(' - ', ' − ')
    return f'{written} {arrow(measure)}'


def _legend_text(result: MetricsSummary) -> str:
    parts = [f'means over {counted(result.images, "image")} with 95 % intervals']
    if len(result.series) > 1:
        parts.append(f'filled: the paired difference to {result.series[0]} is significant (95 %)')
    if any(each.chance is not None for each in result.means):
        parts.append('dotted: chance')
    return '; '.join(parts)


def summary_text(result: MetricsSummary) -> str:
    """The summary as a table of text, with what it means below."""
    names = list(result.measures)
    head = ['', *(f'{result.measures[name].short} {arrow(result.measures[name])}' for name in names)]
    lines = [head]
    for one in result.series:
        lines.append([one, *(_cell(result.of(one, name)) for name in names)])
    if any(each.chance is not None for each in result.means):
        lines.append(['chance', *(_chance(result, name) for name in names)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ['  '.join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return '\n'.join([_heading(result), *table, *_left_out(result), *_verdicts(result)])


def _heading(result: MetricsSummary) -> str:
    means = f'metrics over {counted(result.images, "image")}: means'
    means += ' with 95 % intervals (bootstrap)' if result.images > 1 else ''
    several = len(result.series) > 1 and result.images > 1
    return means + (f'; * the paired difference to {result.series[0]} is significant' if several else '')


def _cell(each: MetricMean | None) -> str:
    return '' if each is None else _estimate(each.value) + '*' * each.differs


def _estimate(value: Estimate) -> str:
    if not math.isfinite(value.low):
        return short_number(value.mean)
    return f'{short_number(value.mean)} [{short_number(value.low)}, {short_number(value.high)}]'


def _chance(result: MetricsSummary, name: str) -> str:
    known = [each.chance for each in result.means if each.metric == name and each.chance is not None]
    return short_number(float(np.mean(known))) if known else ''


def _left_out(result: MetricsSummary) -> Iterator[str]:
    """How many images have no value, such as those with an empty mask: they are not counted."""
    series: dict[tuple[str, int], list[str]] = {}
    for each in result.means:
        if each.left_out:
            series.setdefault((result.measures[each.metric].short, each.left_out), []).append(each.series)
    shorts: dict[tuple[int, tuple[str, ...]], list[str]] = {}
    for (short, count), methods in series.items():
        shorts.setdefault((count, tuple(methods)), []).append(short)
    for (count, alike), names in shorts.items():
        who = '' if len(alike) == len(result.series) else f' of {", ".join(alike)}'
        yield f'left out, because it is not defined: {", ".join(names)}{who} for {count} of {result.images} images'


def _verdicts(result: MetricsSummary) -> Iterator[str]:
    """Which methods do not beat a baseline, and in what."""
    if result.images < 2:
        if result.baselines:
            yield 'one image does not tell whether a method beats the baselines'
        return
    for one in result.series:
        lost: dict[tuple[str, ...], list[str]] = {}
        for each in result.means:
            if each.series == one and each.not_better_than:
                lost.setdefault(each.not_better_than, []).append(result.measures[each.metric].short)
        if lost:
            told = '; '.join(f'{", ".join(others)} in {", ".join(shorts)}' for others, shorts in lost.items())
            yield f'{one} does not beat {told}: there it says little'
