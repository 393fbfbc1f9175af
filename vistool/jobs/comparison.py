"""The same image, class and layer from several models, as one figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vistool.models import Model
from vistool.results import Heatmap, Heatmaps, NetworkView


def labels(models: Sequence[Model]) -> list[str]:
    """What tells the models apart in a figure: their names, or their checkpoints where the names are the same."""
    names = [model.name for model in models]
    if len(set(names)) == len(names):
        return names
    return [f'{model.name} {model.weights_name}' if len(set(names)) > 1 else model.weights_name for model in models]


def side_by_side(results: Sequence[Heatmaps], names: Sequence[str]) -> Heatmaps:
    """Results of one image from several models, their maps in columns next to each other.

    Args:
        results: One per model; the first one's image, ground truth and queries stand for all. Rows must agree, apart
            from the scores behind them, which go under the tiles.
        names: What tells the models apart.

    Returns:
        One result. Each map that comes from another network keeps what that network saw.
    """
    base = results[0]
    several = len(base.columns) > 1
    maps: list[Heatmap] = []
    for row in range(len(base.rows)):
        for column in base.columns:
            for number, (result, name) in enumerate(zip(results, names, strict=True)):
                for item in result.maps:
                    if item.column != column or item.row != result.rows[min(row, len(result.rows) - 1)]:
                        continue
                    heading = f'{column} · {name}' if several else name
                    maps.append(_beside(item, base, row, heading, name, number, result))
    recipe = {**base.recipe, 'compare': [{'model': n, **r.recipe} for n, r in zip(names[1:], results[1:], strict=True)]}
    constant = '' if several or not base.columns else base.columns[0]
    return replace(base, maps=tuple(maps), caption=constant, recipe=recipe)


def _beside(item: Heatmap, base: Heatmaps, row: int, column: str, name: str, number: int, result: Heatmaps) -> Heatmap:
    view = None if number == 0 else NetworkView(result.image, result.geometry)
    title, _, score = item.row.rpartition(' ')
    scored = bool(title) and score.replace('.', '', 1).isdigit()
    return replace(
        item,
        name=f'{name}/{item.name}',
        group=f'{name}: {item.group}' if number else item.group,
        row=base.rows[row].rpartition(' ')[0] if scored else item.row,
        column=column,
        footer=f'{title} {score}' if scored else item.footer,
        view=view,
    )
