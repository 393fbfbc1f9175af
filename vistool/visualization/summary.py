"""A dataset's summary to a matplotlib figure: one page of seaborn plots."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vistool.results import DatasetSummary
from vistool.visualization import text as fitting
from vistool.visualization.style import Page
from vistool.visualization.vector import parameters

_WIDTH = 960.0
_ASPECT = 0.78
_MOST_BARS = 24
_MOST_FAILED = 4
_CHANNELS = {'red': '#c44e52', 'green': '#55a868', 'blue': '#4c72b0'}
_GREY = '#8c8c8c'


def summary_figure(result: DatasetSummary, page: Page) -> Figure:
    """Classes, sizes, aspect ratios and colours, with what is wrong in words below."""
    width = (page.width or _WIDTH) * page.points / 72
    size, small = page.font * page.points, page.small_font * page.points
    look = {
        'font.size': small, 'axes.titlesize': size, 'axes.labelsize': small, 'legend.fontsize': small,
        'xtick.labelsize': small, 'ytick.labelsize': small, 'axes.spines.top': False, 'axes.spines.right': False,
        'axes.titlelocation': 'left',
    }  # fmt: skip
    made = Figure(figsize=(width, width * _ASPECT), dpi=page.density * 72 / page.points, layout='constrained')
    with parameters(look):
        notes = _notes(result, round(width * 72 / small * 1.75))
        parts: Any = made.subfigures(2, 1, height_ratios=(1, 0.05 * (1 + notes.count('\n'))))
        plots, below = parts
        classes, sizes, aspects, colours = plots.subplots(2, 2).reshape(-1)
        _classes(classes, result)
        _sizes(sizes, result)
        _aspects(aspects, result)
        _colours(colours, result)
        below.text(0.02, 0.95, notes, ha='left', va='top', fontsize=size)
        if result.title and not page.paper:
            made.suptitle(result.title, x=0.02, ha='left', fontsize=size, color=_GREY)
        made.canvas.draw()  # while the parameters hold; the layout runs here
    return made


def _classes(axes: Any, result: DatasetSummary) -> None:
    import seaborn as sns

    counts = sorted(result.counts.items(), key=lambda item: -item[1])
    axes.set_title(f'{len(counts)} classes' if counts else 'no class labels')
    if not counts:
        axes.set_axis_off()
    elif len(counts) <= _MOST_BARS:
        names = [fitting.elide(name, 6, 110) or name[:12] for name, _ in counts]
        sns.barplot(x=[count for _, count in counts], y=names, color=_CHANNELS['blue'], ax=axes)
        axes.set(xlabel='samples', ylabel='')
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    else:
        axes.fill_between(np.arange(1, len(counts) + 1), [count for _, count in counts], color=_CHANNELS['blue'], lw=0)
        axes.set(xlabel='classes, most frequent first', ylabel='samples', ylim=(0, None), xlim=(1, len(counts)))


def _sizes(axes: Any, result: DatasetSummary) -> None:
    import seaborn as sns

    height, width = result.sizes.T
    sns.scatterplot(x=width, y=height, s=18, alpha=0.5, color=_CHANNELS['blue'], linewidth=0, ax=axes)
    low, high = result.sizes.min(0), result.sizes.max(0)
    axes.set(xlabel='width (pixels)', ylabel='height (pixels)')
    axes.set_title(f'sizes, {_span(low[1], high[1])} × {_span(low[0], high[0])}')
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True))


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f'{low}–{high}'


def _aspects(axes: Any, result: DatasetSummary) -> None:
    import seaborn as sns

    ratio = result.sizes[:, 1] / result.sizes[:, 0]
    span = (ratio.min(), ratio.max()) if np.ptp(ratio) > 1e-6 else (ratio[0] - 0.5, ratio[0] + 0.5)
    sns.histplot(x=ratio, bins=min(30, max(5, len(ratio) // 4)), binrange=span, color=_CHANNELS['blue'], ax=axes)
    axes.set(xlabel='width / height', ylabel='samples')
    axes.set_title(f'aspect ratios, median {np.median(ratio):.2f}')
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))


def _colours(axes: Any, result: DatasetSummary) -> None:
    for place, (name, colour) in enumerate(_CHANNELS.items()):
        mean, spread = result.found[place]
        axes.errorbar(place - 0.12, mean, yerr=spread, fmt='o', color=colour, capsize=3, label=f'{name}, data')
        if result.expected is not None:
            mean, spread = result.expected[place]
            label = 'config' if place == 2 else None
            axes.errorbar(place + 0.12, mean, yerr=spread, fmt='s', mfc='white', color=_GREY, capsize=3, label=label)
    axes.set_xticks(range(3), list(_CHANNELS))
    axes.set(ylim=(0, 255), ylabel='mean ± standard deviation', xlim=(-0.5, 2.5))
    axes.set_title('what the network gets, and the normalisation' if result.expected is not None else 'pixel values')
    axes.legend(frameon=False, ncols=2, loc='upper right')


def _notes(result: DatasetSummary, columns: int) -> str:
    lines = textwrap.wrap(result.verdict[:1].upper() + result.verdict[1:], columns)
    if result.failed:
        lines.append(f'{len(result.failed)} cannot be read:')
        shown = [f'  #{index} {reason}' for index, reason in result.failed[:_MOST_FAILED]]
        lines += [line if len(line) <= columns else f'{line[: columns - 1]}…' for line in shown]
        lines += [f'  and {len(result.failed) - _MOST_FAILED} more'] if len(result.failed) > _MOST_FAILED else []
    return '\n'.join(lines)
