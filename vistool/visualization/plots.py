"""Statistics drawn with seaborn: attention heads, channels, a dataset as a whole."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from vistool.errors import counted
from vistool.results import ChannelStatistics, Curve, Curves, DatasetSummary, HeadStatistics, channel_names
from vistool.visualization import text as fitting
from vistool.visualization.style import Page, Style
from vistool.visualization.vector import parameters

# --- attention heads --------------------------------------------------------------------------------------------------

_MEASURES = {
    'entropy': 'entropy (nats)',
    'distance': 'mean distance (px)',
    'cls': 'attention to the class token',
    'prefix': 'attention to other prefix tokens',
    'padding': 'attention to padding',
}


def draw_head_statistics(result: HeadStatistics, made: Figure, style: Style, page: Page) -> None:
    """One panel per measure that is not 0 everywhere, layers down, heads across."""
    import seaborn

    layers = sorted({int(row['layer']) for row in result.rows})
    heads = range(1 + max(int(row['head']) for row in result.rows))
    tables = {name: np.full((len(layers), len(heads)), np.nan) for name in _MEASURES}
    for row in result.rows:
        for name in _MEASURES:
            tables[name][layers.index(int(row['layer'])), int(row['head'])] = row[name]
    shown = [name for name, table in tables.items() if np.nan_to_num(table).any()]
    width = (page.width or 330.0 * len(shown)) * page.points / 72
    height = max(1.2, width / len(shown) * min(1.6, 0.35 + len(layers) / max(len(heads), 6)))
    with parameters({'font.size': page.font * page.points}):
        made.set_size_inches(width, height)
        made.set_layout_engine('constrained')
        for name, axes in zip(shown, made.subplots(1, len(shown), squeeze=False)[0], strict=True):
            seaborn.heatmap(
                tables[name], ax=axes, cmap=style.colormap or 'viridis', xticklabels=list(heads), yticklabels=layers,
                vmin=0, square=False, cbar_kws={'fraction': 0.06},
            )  # fmt: skip
            axes.set_title(textwrap.fill(_MEASURES[name], 20), fontsize=page.font * page.points)
            axes.set_xlabel('head')
            axes.set_ylabel('layer' if name == shown[0] else '')
            axes.tick_params(length=0, labelsize=page.small_font * page.points, rotation=0)
        made.canvas.draw()  # while the parameters hold; the layout runs here


# --- channels ---------------------------------------------------------------------------------------------------------


def channel_curves(result: ChannelStatistics) -> Curves:
    """Mean, std and share of zeros of the channels, each sorted from the largest down, one line per layer."""
    several = len({each.model for each in result.layers}) > 1
    drawn = []
    for each in result.layers:
        dead = int(each.dead.sum())
        label = f'{each.model} · {each.layer}' if several else each.layer
        label += f' ({dead} of {len(each.mean)} dead)' if dead else ''
        for name, values in {'mean': each.mean, 'std': each.std, 'share of zeros': each.zeros}.items():
            steps = np.arange(1, len(values) + 1, dtype=np.int64)
            told = label if name == 'mean' else ''
            drawn.append(Curve(steps, np.sort(values)[::-1], each.model, each.layer, name, label=told))
    return Curves(tuple(drawn), x_label='channels, largest first')


# --- datasets ---------------------------------------------------------------------------------------------------------

_WIDTH = 960.0
_ASPECT = 0.78
_NARROW = 4.5
"""A page that is narrower, in inches, has its plots below each other: beside each other their labels would touch."""
_FEW_BARS = 8
"""Fewer bars are no thicker than these would be."""
_MOST_BARS = 24
_MOST_FAILED = 4
_COCO = 32, 96  # sides of what COCO calls small and large objects
_CHANNELS = {'red': '#c44e52', 'green': '#55a868', 'blue': '#4c72b0'}
_GRAY = '#8c8c8c'


def draw_dataset_summary(result: DatasetSummary, made: Figure, page: Page) -> None:
    """Classes, sizes, aspect ratios and colors, with what is wrong in words below."""
    width = (page.width or _WIDTH) * page.points / 72
    size, small = page.font * page.points, page.small_font * page.points
    look = {
        'font.size': small, 'axes.titlesize': size, 'axes.labelsize': small, 'legend.fontsize': small,
        'xtick.labelsize': small, 'ytick.labelsize': small, 'axes.spines.top': False, 'axes.spines.right': False,
        'axes.titlelocation': 'left',
    }  # fmt: skip
    with parameters(look):
        panels = _panels(result)
        columns = 1 if width < _NARROW else 2 if len(panels) <= 4 else 3
        lines = math.ceil(len(panels) / columns)
        each_high = {1: 0.7, 2: _ASPECT / 2, 3: _ASPECT / 2.8}[columns]  # for the width of the page
        height = width * each_high * max(lines, 2)
        made.set_size_inches(width, height)
        made.set_layout_engine('constrained')
        notes = _notes(result, round(width * 72 / small * 1.75))
        said = min(0.5 * height, (1.25 * (1 + notes.count('\n')) + 2.0) * size / 72)  # inches
        parts: Any = made.subfigures(2, 1, height_ratios=(height - said, said))
        plots, below = parts
        axes = plots.subplots(lines, columns).reshape(-1)
        for each, draw in zip(axes, panels, strict=False):
            draw(each, result)
        for each in axes[len(panels) :]:
            each.set_axis_off()
        below.text(0.02, 0.95, notes, ha='left', va='top', fontsize=size)
        if result.title and not page.paper:
            made.suptitle(result.title, x=0.02, ha='left', fontsize=size, color=_GRAY)
        made.canvas.draw()  # while the parameters hold; the layout runs here


def _panels(result: DatasetSummary) -> list[Callable[[Any, DatasetSummary], None]]:
    """What the page shows: of images, and of their annotations where they have any."""
    found: list[Callable[[Any, DatasetSummary], None]] = [_classes, _sizes, _aspects, _colors]
    if result.objects is None:
        return found
    if len(result.objects.sizes):
        found = [_classes, _objects, _per_image, _box_sizes, _box_aspects, _box_shares, _sizes, _aspects, _colors]
    else:
        found = [_classes, _per_image, _sizes, _aspects, _colors]
    return [*found[:2], _class_pixels, *found[2:]] if result.objects.pixels else found


def _objects(axes: Any, result: DatasetSummary) -> None:
    assert result.objects is not None
    _bars(axes, result.objects.counts, counted(sum(result.objects.counts.values()), 'object'), 'objects')


def _class_pixels(axes: Any, result: DatasetSummary) -> None:
    assert result.objects is not None
    _bars(axes, result.objects.pixels, 'share of the pixels', 'share')


def _per_image(axes: Any, result: DatasetSummary) -> None:
    import seaborn as sns

    assert result.objects is not None
    values = result.objects.per_image
    what = 'objects' if len(result.objects.sizes) else 'classes'
    bins = np.arange(values.min(), values.max() + 2) - 0.5 if np.ptp(values) < 40 else 40
    sns.histplot(x=values, bins=bins, color=_CHANNELS['blue'], ax=axes)
    axes.set(xlabel=f'{what} in an image', ylabel='images')
    axes.set_title(f'median {np.median(values):g} in an image, {result.objects.empty} without any')
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True))


def _box_sizes(axes: Any, result: DatasetSummary) -> None:
    assert result.objects is not None
    width, height = result.objects.sizes.T
    sizes, counts = np.unique(result.objects.sizes, axis=0, return_counts=True)
    _dots(axes, sizes[:, 0], sizes[:, 1], counts)
    axes.set(xlabel='box width (pixels)', ylabel='box height (pixels)')
    if max(width.max() / width.min(), height.max() / height.min()) > 20:
        axes.set(xscale='log', yscale='log')
    area = width * height
    small, large = float((area < _COCO[0] ** 2).mean()), float((area >= _COCO[1] ** 2).mean())
    axes.set_title(f'{small:.0%} below {_COCO[0]}², {large:.0%} from {_COCO[1]}² on')


def _box_aspects(axes: Any, result: DatasetSummary) -> None:
    assert result.objects is not None
    ratio = result.objects.sizes[:, 0] / result.objects.sizes[:, 1]
    _log_histogram(axes, ratio, 'box width / height', f'box aspect ratios, median {np.median(ratio):.2f}')


def _box_shares(axes: Any, result: DatasetSummary) -> None:
    assert result.objects is not None
    share = result.objects.shares
    _log_histogram(axes, share, "share of the image's area", f'areas, median {np.median(share):.1%}')


def _log_histogram(axes: Any, values: NDArray[np.float64], label: str, title: str) -> None:
    import seaborn as sns

    low, high = values.min(), values.max()
    edges = np.geomspace(low, high, 24) if high > 1.001 * low else np.array([low / 1.2, low * 1.2])
    sns.histplot(x=values, bins=edges, color=_CHANNELS['blue'], ax=axes)
    axes.set(xscale='log', xlabel=label, ylabel='boxes')
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(_plain_number)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_title(title)


def _plain_number(value: float, place: int) -> str:
    return f'{value:g}'


def _classes(axes: Any, result: DatasetSummary) -> None:
    _bars(axes, result.counts, counted(len(result.counts), 'class', 'classes'), 'samples')


def _bars(axes: Any, values: Mapping[str, float], title: str, what: str) -> None:
    """A bar for each class, the largest first; a filled curve of many."""
    import seaborn as sns

    counts = sorted(values.items(), key=lambda item: -item[1])
    axes.set_title(title if counts else 'no class labels')
    if not counts:
        axes.set_axis_off()
    elif len(counts) <= _MOST_BARS:
        names = [fitting.elide(name, 6, 110) or name[:12] for name, _ in counts]
        thick = 0.7 * min(1.0, len(counts) / _FEW_BARS)
        sns.barplot(x=[count for _, count in counts], y=names, color=_CHANNELS['blue'], width=thick, ax=axes)
        axes.set(xlabel=what, ylabel='')
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=what != 'share'))
    else:
        axes.fill_between(np.arange(1, len(counts) + 1), [count for _, count in counts], color=_CHANNELS['blue'], lw=0)
        axes.set(xlabel='classes, most frequent first', ylabel=what, ylim=(0, None), xlim=(1, len(counts)))


def _sizes(axes: Any, result: DatasetSummary) -> None:
    sizes, counts = np.unique(result.sizes, axis=0, return_counts=True)
    _dots(axes, sizes[:, 1], sizes[:, 0], counts)
    low, high = result.sizes.min(0), result.sizes.max(0)
    axes.set(xlabel='width (pixels)', ylabel='height (pixels)')
    axes.set_title(f'width {_span(low[1], high[1])}, height {_span(low[0], high[0])}')
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True))


def _dots(axes: Any, x: NDArray[Any], y: NDArray[Any], counts: NDArray[np.int64]) -> None:
    """A dot for each size, its area by how many have it; with a legend where they differ."""
    area = 12 + 108 * (counts - 1) / max(int(counts.max()) - 1, 1)
    axes.scatter(x, y, s=area, alpha=0.5, color=_CHANNELS['blue'], linewidth=0)
    axes.margins(0.1)  # a large dot at the edge is whole
    if counts.max() > 1:
        axes.legend(
            [axes.scatter([], [], s=each, alpha=0.5, color=_CHANNELS['blue'], linewidth=0) for each in (12, 120)],
            ['1', f'{counts.max():,}'],
            frameon=False,
            loc='best',
        )


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


def _colors(axes: Any, result: DatasetSummary) -> None:
    names = channel_names(len(result.found))
    for place, name in enumerate(names):
        mean, spread = result.found[place]
        color = _CHANNELS.get(name, _GRAY)
        axes.errorbar(place - 0.12, mean, yerr=spread, fmt='o', color=color, capsize=3)
        if result.expected is not None:
            mean, spread = result.expected[place]
            axes.errorbar(place + 0.12, mean, yerr=spread, fmt='s', mfc='white', color=_GRAY, capsize=3)
    axes.set_xticks(range(len(names)), names)
    axes.set(ylabel='mean ± standard deviation', xlim=(-0.5, len(names) - 0.5))
    ends = [mean + side * spread for mean, spread in result.found for side in (-1, 1)]
    if min(ends) >= -128 and 2 < max(ends) <= 383:  # photos of 8 bits
        axes.set_ylim(0, 255)
    axes.set_title('pixel values' if result.expected is None else 'what the network gets')
    if result.expected is not None:
        kinds = {'data': {'marker': 'o', 'color': '0.2'}, 'config': {'marker': 's', 'color': _GRAY, 'mfc': 'white'}}
        handles = [axes.plot([], [], linestyle='', label=label, **look)[0] for label, look in kinds.items()]
        # Below the axes: bars of any height can stand anywhere inside.
        place_below = {'loc': 'upper center', 'bbox_to_anchor': (0.5, -0.14)}
        axes.legend(handles=handles, frameon=False, ncols=2, **place_below)


def _notes(result: DatasetSummary, columns: int) -> str:
    lines = textwrap.wrap(result.verdict[:1].upper() + result.verdict[1:], columns)
    if result.faults:
        wrong = len({index for index, _, _ in result.faults})
        lines.append(f'{counted(len(result.faults), "fault")} in the annotations of {counted(wrong, "sample")}:')
        lines += _few([f'  #{index} {text}' for index, _, text in result.faults], columns)
    if result.duplicates:
        leaks = sum(pair.leaks for pair in result.duplicates)
        between = f', {leaks} between phases' if leaks else ''
        lines.append(f'{counted(len(result.duplicates), "pair")} of nearly equal images{between}:')
        lines += _few([f'  {pair.text}' for pair in result.duplicates], columns)
    if result.failed:
        lines.append(f'{len(result.failed)} cannot be read:')
        lines += _few([f'  #{index} {error}' for index, error in result.failed], columns)
    return '\n'.join(lines)


def _few(lines: Sequence[str], columns: int) -> list[str]:
    """The first lines, each cut where it is too long, and how many there are besides."""
    shown = [line if len(line) <= columns else f'{line[: columns - 1]}…' for line in lines[:_MOST_FAILED]]
    return [*shown, f'  and {len(lines) - _MOST_FAILED} more'] if len(lines) > _MOST_FAILED else shown
