"""Samples as points of a plane, colored by class, with a legend that stays readable at a hundred classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from numpy.typing import NDArray

from vistool.errors import counted
from vistool.results import Embedding, EmbeddingMap
from vistool.visualization import text as fitting
from vistool.visualization.style import Page
from vistool.visualization.vector import parameters

_WIDTH = 760.0  # of one panel on the screen, in units
_LEAST_BESIDE = {False: 560.0, True: 320.0}  # units, on the screen and on paper
_BESIDE = 20  # classes whose names stand in one column at the right
_MOST_NAMED = 200
_MOST_LINES = 40
_KEPT = 0.5
"""A sample that keeps a smaller share of its neighbors has changed its neighborhood."""

# Colors that are told apart by people who see few of them (Okabe and Ito, 2008), black and yellow left out.
_FEW = ('#0072b2', '#e69f00', '#009e73', '#d55e00', '#cc79a7', '#56b4e9')
_MARKERS = 'os^DvPX*<>hp'
_GRAY = '0.45'


def draw_embedding(result: EmbeddingMap, made: Figure, page: Page) -> None:
    """One panel per model, in rows of two; the legend beside a single panel of few classes, else below."""
    names = result.classes[:_MOST_NAMED]
    count = len(result.embeddings)
    columns = min(2, count)
    rows = math.ceil(count / columns)
    width = page.width or _WIDTH * columns
    beside = 0 < len(names) <= _BESIDE and count == 1 and width >= _LEAST_BESIDE[page.paper]
    panel = width / columns * (0.8 if beside else 1.0)
    small = page.small_font if len(names) <= 2 * _BESIDE else page.least_font
    per_line, lines = _legend_shape(names, width, small)
    titles = [_wrapped(_title(result, each, place), panel, page) for place, each in enumerate(result.embeddings)]
    tallest = max(map(len, titles))
    titles = [[''] * (tallest - len(title)) + title for title in titles]
    height = rows * (panel + tallest * page.font * 1.6 + 12) + (0 if beside or not names else lines * small * 1.6 + 10)
    points = page.points
    look = {
        'font.size': page.small_font * points,
        'axes.titlesize': page.font * points,
        'legend.fontsize': small * points,
    }
    with parameters(look):
        made.set_size_inches(width * points / 72, height * points / 72)
        made.set_layout_engine('constrained')
        looks = _looks(names)
        panels = made.subplots(rows, columns, squeeze=False).reshape(-1)
        for axes in panels[count:]:
            axes.set_axis_off()
        pictured = any(sample.thumbnail is not None for sample in result.samples)
        limits = _limits(result, (_thumbnail_side(page) + 6) / panel if pictured else 0.0)
        for place, (axes, title) in enumerate(zip(panels, titles, strict=False)):
            axes.set(xlim=limits[0], ylim=limits[1], aspect='equal', anchor='S')  # room that is left goes to the title
            axes.set_title('\n'.join(title), loc='left')
            _panel(axes, result, place, looks, page)
        if names:
            handles = [_handle(name, looks[name], small * points * 0.75) for name in names]
            _add_legend(made, handles, 0 if beside else per_line)
        made.canvas.draw()  # while the parameters hold; the layout runs here
        if pictured:
            for axes, embedding in zip(panels, result.embeddings, strict=False):
                _thumbnails(axes, result, embedding.points, looks, page)
            made.canvas.draw()


def _add_legend(made: Figure, handles: Sequence[Line2D], per_line: int) -> None:
    """The names below the panels, so many in a line, or with 0 beside them."""
    where = {'loc': 'outside lower center', 'ncols': per_line} if per_line else {'loc': 'outside right upper'}
    made.legend(handles=handles, frameon=False, columnspacing=1.0, handletextpad=0.2, handlelength=1.2, **where)


def _limits(result: EmbeddingMap, border: float) -> NDArray[np.float64]:
    """The square that holds the points of all panels: ``((left, right), (bottom, top))``.

    Args:
        result: The points.
        border: The part of a panel's width that a thumbnail takes, so that one at the edge is whole.
    """
    points = np.concatenate([each.points for each in result.embeddings])
    low, high = points.min(0), points.max(0)
    half = max(0.57, 0.5 / (1 - min(1.1 * border, 0.5))) * float((high - low).max()) or 1.0
    middle = (low + high) / 2
    return np.stack([middle - half, middle + half], axis=1)


def _wrapped(lines: Sequence[str], width: float, page: Page) -> list[str]:
    """Lines broken at words where they are wider than a panel."""
    found: list[str] = []
    for line in lines:
        current = ''
        for word in line.split(' '):
            longer = f'{current} {word}'.strip()
            if current and fitting.text_width(longer, page.font) > 0.96 * width:
                found.append(current)
                longer = word
            current = longer
        found.append(current)
    return found


def _legend_shape(names: Sequence[str], width: float, size: float) -> tuple[int, int]:
    """Names per line, and lines, of a legend of this width."""
    widest = max((fitting.text_width(_short(name), size) for name in names), default=1.0)
    per_line = max(1, int((width - 2 * size) / (1.04 * widest + 2.6 * size)))  # marker and gaps beside each name
    return per_line, math.ceil(len(names) / per_line)


def _short(name: str) -> str:
    return name if len(name) <= 24 else f'{name[:23]}…'


Look = tuple[Any, str]


def _looks(names: Sequence[str]) -> dict[str, Look]:
    """A color and a marker for each class; no two are the same."""
    import seaborn

    if len(names) <= len(_FEW):
        return {name: (color, 'o') for name, color in zip(names, _FEW, strict=False)}
    if len(names) <= 2 * _BESIDE:
        colors = seaborn.color_palette('tab20' if len(names) <= _BESIDE else 'husl', min(len(names), _BESIDE))
    else:
        colors = seaborn.color_palette('husl', 20)
    # Neighbors in the list get colors far apart on the wheel.
    order = np.argsort([(place * 7) % len(colors) for place in range(len(colors))])
    colors = [colors[place] for place in order]
    return {
        name: (colors[place % len(colors)], _MARKERS[(place // len(colors)) % len(_MARKERS)])
        for place, name in enumerate(names)
    }


def _handle(name: str, look: Look, size: float) -> Line2D:
    return Line2D([], [], linestyle='', marker=look[1], markersize=size, color=look[0], label=_short(name))


def _panel(axes: Any, result: EmbeddingMap, place: int, looks: dict[str, Look], page: Page) -> None:
    embedding = result.embeddings[place]
    if place:
        _movements(axes, result, place)
    _points(axes, result, place, embedding.points, looks, _marker_size(len(result.samples), page))
    if embedding.variance is not None:
        labels = (
            f'component {number} ({share:.0%} of the variance)' for number, share in enumerate(embedding.variance, 1)
        )
        axes.set_xlabel(next(labels))
        axes.set_ylabel(next(labels))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color('0.75')


def _marker_size(count: int, page: Page) -> float:
    """Area of a marker, in square points."""
    return float(np.clip(9000 / max(count, 1), 5, 40)) * (0.5 if page.paper else 1.0)


def _points(
    axes: Any, result: EmbeddingMap, place: int, points: NDArray[np.float64], looks: dict[str, Look], size: float
) -> None:
    """Samples by class; hollow where the prediction is wrong."""
    classes = [each.name if each else '' for each in result.colored_by]
    wrong = np.array(_wrong(result, place))
    for name in dict.fromkeys(classes):
        color, marker = looks.get(name, (_GRAY, 'o'))
        own = np.array([each == name for each in classes])
        for hollow, chosen in ((False, own & ~wrong), (True, own & wrong)):
            if chosen.any():
                face = 'white' if hollow else color
                axes.scatter(
                    *points[chosen].T, s=size, marker=marker, facecolors=face, edgecolors=[color], alpha=0.85,
                    linewidths=1.0 if hollow else 0.0, zorder=3,
                )  # fmt: skip


def _wrong(result: EmbeddingMap, place: int) -> list[bool]:
    """Whether the prediction of a model is wrong, for each sample."""
    pairs = [(sample.label, sample.predictions[place]) for sample in result.samples]
    return [bool(result.judged and label and guess and label.id != guess.id) for label, guess in pairs]


def _title(result: EmbeddingMap, embedding: Embedding, place: int) -> list[str]:
    """The model; how points were laid out and how well classes part; what lines and hollow points mean."""
    judged = [] if embedding.silhouette is None else [f'silhouette {embedding.silhouette:.2f}'.replace('-', '−')]
    judged += [] if embedding.accuracy is None else [f'{result.neighbors}-NN accuracy {embedding.accuracy:.2f}']
    how = f'{result.settings} of {counted(len(result.samples), "sample")}'
    where = f' in {embedding.features.shape[1]} dimensions' if judged else ''
    lines = [embedding.model, how if place == 0 else 'aligned with the first', ', '.join(judged) + where]
    notes = []
    if any(_wrong(result, place)):
        notes.append('hollow: predicted wrong')
    if place:
        moved = int((result.kept[place - 1] < _KEPT).sum())
        lines_drawn = '' if moved <= _MOST_LINES else f'; the {_MOST_LINES} that kept fewest are joined'
        notes.append(f'{moved} of {len(result.samples)} kept fewer than half of their neighbors{lines_drawn}')
    return [line for line in (*lines, '; '.join(notes)) if line]


def _movements(axes: Any, result: EmbeddingMap, place: int) -> None:
    """Lines from where the first model has the samples that changed neighborhoods."""
    kept = result.kept[place - 1]
    changed = np.flatnonzero(kept < _KEPT)
    chosen = changed[np.argsort(kept[changed], kind='stable')][:_MOST_LINES]
    start, end = result.embeddings[0].points, result.embeddings[place].points
    for number in chosen:
        axes.annotate(
            '', end[number], start[number], arrowprops={'arrowstyle': '-|>', 'color': '0.6', 'lw': 0.6, 'shrinkB': 2},
            zorder=1,
        )  # fmt: skip


def _thumbnail_side(page: Page) -> float:
    """Side of a thumbnail, in units of the page."""
    return 22.0 if page.paper else 44.0


def _thumbnails(
    axes: Any, result: EmbeddingMap, points: NDArray[np.float64], looks: dict[str, Look], page: Page
) -> None:
    """Small pictures with a border in the color of their class; one that would cover an earlier one is left out."""
    places = axes.transData.transform(points) * 72 / axes.figure.dpi
    side = _thumbnail_side(page) * page.points
    taken: list[NDArray[np.float64]] = []
    for sample, point, place, target in zip(result.samples, points, places, result.colored_by, strict=True):
        if sample.thumbnail is None or any(np.abs(place - other).max() < side + 4 for other in taken):
            continue
        taken.append(place)
        image = OffsetImage(sample.thumbnail, zoom=side / max(sample.thumbnail.shape[:2]), dpi_cor=True)
        color = looks.get(target.name if target else '', (_GRAY, 'o'))[0]
        frame = {'edgecolor': color, 'linewidth': 1.5 if page.paper else 2.0, 'boxstyle': 'square,pad=0'}
        axes.add_artist(AnnotationBbox(image, point, pad=0.0, bboxprops=frame, zorder=4))
