"""The same image, class and layer from several models, as one figure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from vistool.models.model import Model
from vistool.results import Heatmap, Heatmaps, NetworkView


def labels(models: Sequence[Model]) -> list[str]:
    """What tells the models apart in a figure: their names, or their checkpoints where the names are the same."""
    names = [model.name for model in models]
    if len(set(names)) == len(names):
        return names
    return [f'{model.name} {model.weights_name}' if len(set(names)) > 1 else model.weights_name for model in models]


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
    recipe = {**base.recipe, 'compare': [{'model': n, **r.recipe} for n, r in zip(names[1:], results[1:], strict=True)]}
    if base.kind == 'attention':
        results = _one_scale(results)
        if any(len(result.columns) > 1 for result in results):
            return replace(_stacked(results, names), recipe=recipe)
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
    return replace(base, maps=tuple(maps), caption=constant, recipe=recipe)


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
