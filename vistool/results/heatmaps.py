"""What analyses return: frozen, inert kinds of result.

Maps are kept as tidy data: a flat tuple in which each entry says in which row and column of a figure it belongs. The
visualizer arranges; an analysis never lays anything out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vistool.data.geometry import Geometry
from vistool.results.base import Result

Kind = Literal['cam', 'attention', 'feature']


@dataclass(frozen=True)
class NetworkView:
    """What one network saw of the photo: of use where several networks are compared, whose preprocessing may differ.

    Attributes:
        image: uint8 ``(H, W, 3)`` RGB, before normalisation.
        geometry: Network pixels to original pixels; None where there is no original.
    """

    image: NDArray[np.uint8]
    geometry: Geometry | None


@dataclass(frozen=True)
class Target:
    """What maps explain, or what a model predicted: a class, an instance, a similarity.

    Attributes:
        name: Its name.
        id: The class id; None where it is not a class.
        score: The model's score for it (a probability, where there are classes); None where it was not asked.
    """

    name: str
    id: int | None = None
    score: float | None = None

    def entry(self) -> dict[str, Any]:
        """As plain JSON values, for provenance and manifests; what is unknown is left out."""
        found = {'id': self.id, 'name': self.name, 'score': self.score}
        return {key: value for key, value in found.items() if value is not None}


@dataclass(frozen=True)
class Heatmap:
    """One map and its place in the figure.

    Attributes:
        values: float32 ``(h, w)``, or ``(h, w, 3)`` in [0, 1] for maps that are colours by themselves (PCA).
        name: Name within ``group`` in the raw file, unique there (``'gradcam/espresso'``, ``'head 3'``).
        group: Group in the raw file; all maps of a group have one shape (a layer, usually).
        row: What the figure's row stands for (a class with its score, a query, a model).
        column: What the figure's column stands for (a method, a head, a stage).
        range: The values that 0 and 1 stood for, where ``values`` were scaled to [0, 1]; else None.
        note: A remark drawn on the tile («no positive evidence»).
        footer: A line under the tile (a score of its own, a similarity).
        mask: bool ``(h, w)``, places that are outlined on the map; else None.
        spotlight: Whether the photo is drawn, bright where ``values`` are 1 and dark where they are 0.
        view: What the map's own network saw, where that is another one than the result's; else None.
        scale: Maps of one name share a colour scale by default; ``''`` means that ``group`` names it.
        signed: Whether colours are centred at zero even where all values lie on one side (a difference).
    """

    values: NDArray[np.float32]
    name: str
    group: str = ''
    row: str = ''
    column: str = ''
    range: tuple[float, float] | None = None
    note: str = ''
    footer: str = ''
    mask: NDArray[np.bool_] | None = None
    spotlight: bool = False
    view: NetworkView | None = None
    scale: str = ''
    signed: bool = False


@dataclass(frozen=True)
class Heatmaps(Result):
    """Heat maps over one image, from a CAM, an attention head or a channel.

    Attributes:
        kind: Decides the default look: ``cam`` (overlay, jet), ``attention`` (inferno, nearest), ``feature`` (viridis,
            or red-blue about zero for signed values).
        image: uint8 ``(H, W, 3)`` RGB, exactly what the network saw, before normalisation.
        maps: The maps, in the order in which they are drawn. Each covers the whole network input.
        original: uint8 ``(H0, W0, 3)`` RGB, the file as a person sees it (EXIF applied); None where there is none.
        geometry: Network pixels to original pixels; None where there is no original.
        queries: For each row that has one, the query's ``(x, y)`` in original pixels (without a geometry: network
            pixels).
        caption: What is constant over the figure, said once.
        ground_truth: Label of the image where it is known and the prediction is wrong, else ``''``.
        model: Name of the model.
        targets: What the maps explain, with the model's score for each.
        prediction: The most likely class, whatever is explained; None where there are no classes.
        titles: The methods that made the maps: id → title (``{'gradcam': 'GradCAM'}``).
        layers: Names of the layers that were looked at.
    """

    kind: Kind
    image: NDArray[np.uint8]
    maps: tuple[Heatmap, ...]
    original: NDArray[np.uint8] | None = None
    geometry: Geometry | None = None
    queries: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    caption: str = ''
    ground_truth: str = ''
    model: str = ''
    targets: tuple[Target, ...] = ()
    prediction: Target | None = None
    titles: Mapping[str, str] = field(default_factory=dict)
    layers: tuple[str, ...] = ()

    @property
    def methods(self) -> tuple[str, ...]:
        """Titles of the methods that made the maps."""
        return tuple(self.titles.values())

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows of the figure, in order of first appearance."""
        return tuple(dict.fromkeys(heatmap.row for heatmap in self.maps))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the figure, in order of first appearance."""
        return tuple(dict.fromkeys(heatmap.column for heatmap in self.maps))


def side_by_side(results: Sequence[Heatmaps], names: Sequence[str]) -> Heatmaps:
    """Results of one image from several models as one: models in columns, or in rows where heads are in columns.

    Args:
        results: One per model; the first one's image, ground truth and queries stand for all. Rows must agree, apart
            from the scores behind them, which go under the tiles.
        names: What tells the models apart.

    Returns:
        One result. Each map that comes from another network keeps what that network saw. Attention maps of one size
        that stand for the same share a colour scale; on grids of different sizes probabilities cannot be compared.
    """
    base = results[0]
    provenance = {
        **base.provenance,
        'compare': [{'model': n, **r.provenance} for n, r in zip(names[1:], results[1:], strict=True)],
    }
    if base.kind == 'attention':
        results = _one_scale(results)
        if any(len(result.columns) > 1 for result in results):
            return replace(_stacked(results, names), provenance=provenance)
    several = len(base.columns) > 1
    maps: list[Heatmap] = []
    for row in range(len(base.rows)):
        for column in base.columns:
            for number, (result, name) in enumerate(zip(results, names, strict=True)):
                heading = f'{column} · {name}' if several else name
                for item in _of_row(result, row):
                    if item.column == column:
                        maps.append(_beside(item, base, row, heading, name, number, result))
    constant = '' if several or not base.columns else base.columns[0]
    return replace(base, maps=tuple(maps), caption=constant, provenance=provenance)


def _stacked(results: Sequence[Heatmaps], names: Sequence[str]) -> Heatmaps:
    """Every row of the first model's figure, followed by the same row of the others."""
    base = results[0]
    maps: list[Heatmap] = []
    queries: dict[str, tuple[float, float]] = {}
    for number, title in enumerate(base.rows):
        for model, (result, name) in enumerate(zip(results, names, strict=True)):
            label = ' · '.join(filter(None, [title, name]))
            if title in base.queries:
                queries[label] = base.queries[title]
            for item in _of_row(result, number):
                beside = _beside(item, base, number, item.column, name, model, result)
                maps.append(replace(beside, row=label))
    return replace(base, maps=tuple(maps), queries=queries, caption='')


def _of_row(result: Heatmaps, row: int) -> list[Heatmap]:
    title = result.rows[min(row, len(result.rows) - 1)]
    return [item for item in result.maps if item.row == title]


def _one_scale(results: Sequence[Heatmaps]) -> list[Heatmaps]:
    """Attention maps with a colour scale for each place of the figure and size of a map."""
    scaled = []
    for result in results:
        rows = result.rows
        maps = [
            item
            if item.range is not None or item.spotlight
            else replace(item, scale=f'{rows.index(item.row)}/{item.column}/{item.values.shape}')
            for item in result.maps
        ]
        scaled.append(replace(result, maps=tuple(maps)))
    return scaled


def _beside(item: Heatmap, base: Heatmaps, row: int, column: str, name: str, number: int, result: Heatmaps) -> Heatmap:
    view = None if number == 0 else NetworkView(result.image, result.geometry)
    title, _, score = item.row.rpartition(' ')
    scored = bool(title and re.fullmatch(r'\d\.\d\d', score))  # «espresso 0.95», not «layer 9»
    return replace(
        item,
        name=f'{name}/{item.name}',
        group=f'{name}: {item.group}' if number else item.group,
        row=base.rows[row].rpartition(' ')[0] if scored else item.row,
        column=column,
        footer=f'{title} {score}' if scored else item.footer,
        view=view,
    )
