"""The same layers of several models: on one scale, with signed differences and two measures of similarity."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from vistool.analyses.featmap import report as drawing
from vistool.analyses.featmap.plan import Plan
from vistool.analyses.featmap.reductions import cosine, linear_cka, resampled
from vistool.analyses.featmap.report import Picture
from vistool.data.samples import Sample
from vistool.errors import InputError, param
from vistool.models.model import Model
from vistool.network.features import Feature
from vistool.results import Coordinate, Heatmap, Heatmaps, NetworkView, distinct

log = logging.getLogger('vistool')

_NEAR = 1.5  # pixels of the original by which two networks' views may differ: resizing rounds


@dataclass(frozen=True)
class _Column:
    """One map of the first model and its counterparts."""

    feature: Feature
    number: int
    pictures: tuple[Picture, ...]


def results(
    plan: Plan,
    models: Sequence[Model],
    views: Sequence[Sequence[Sample]],
    every: Sequence[Sequence[Feature]],
    names: Sequence[str],
) -> list[Heatmaps]:
    """One figure per image: a row per model, then a row per difference from the first.

    Values of layers with other channels than the first model's are neither on its scale nor to be subtracted: such a
    model has a scale of its own and no difference, only CKA below its maps.
    """
    names = distinct(names)
    drawn = []
    same_model = models[0].name if len({model.name for model in models}) == 1 else ''
    for index, sample in enumerate(views[0]):
        seen = [samples[index] for samples in views]
        _check_views(sample, seen[1:], names)
        chosen = {feature.name: drawing.choose_channels(plan, feature, index) for feature in every[0]}
        _check_channels(every, chosen, names)
        columns = _columns(plan, every, seen, index, chosen)
        maps = [_own(plan, columns, k, seen, names, every) for k in range(len(models))]
        for k in range(1, len(models)):
            if _comparable(plan, every, k):
                maps.append(_differences(plan, columns, k, names, every))
        placed = _in_order([item for row in maps for item in row])
        numbers = [_numbers(item) for row in maps for item in row if item.metrics]
        entries = drawing.described(plan, models[0], sample, every[0], chosen)
        more = {'compare': _others(models, every, names), 'similarity': numbers}
        drawn.append(drawing.result(plan, sample, placed, same_model, every[0], {**entries, **more}))
    return drawn


def _comparable(plan: Plan, every: Sequence[Sequence[Feature]], k: int) -> bool:
    """Whether maps of model ``k`` can stand on the first model's scale: cosines always can."""
    widths = [[feature.maps.shape[1] for feature in found] for found in (every[0], every[k])]
    return bool(plan.similar_to) or widths[0] == widths[1]


def _in_order(maps: Sequence[Heatmap]) -> list[Heatmap]:
    """All models for one query (or layer of which channels are shown), then all for the next."""

    def together(item: Heatmap) -> Coordinate | None:
        by_channel = 'channel' in item.coordinates and 'reduction' not in item.coordinates
        return item.coordinates.get('query') or (item.coordinates.get('layer') if by_channel else None)

    order = list(dict.fromkeys(together(item) for item in maps))
    return sorted(maps, key=lambda item: order.index(together(item)))


def _others(models: Sequence[Model], every: Sequence[Sequence[Feature]], names: Sequence[str]) -> list[dict[str, Any]]:
    """What the provenance says of the models after the first."""
    return [
        {'model': name, **model.provenance(), 'layers': [feature.name for feature in found]}
        for name, model, found in zip(names[1:], models[1:], every[1:], strict=True)
    ]


def _columns(
    plan: Plan,
    every: Sequence[Sequence[Feature]],
    seen: Sequence[Sample],
    index: int,
    chosen: dict[str, list[int] | None],
) -> list[_Column]:
    columns = []
    for number, first in enumerate(every[0]):
        by_model = [
            drawing.pictures(plan, found[number], index, sample, chosen[first.name], first.name)
            for found, sample in zip(every, seen, strict=True)
        ]
        columns += [_Column(first, number, same) for same in zip(*by_model, strict=True)]
    return columns


def _own(
    plan: Plan,
    columns: Sequence[_Column],
    k: int,
    seen: Sequence[Sample],
    names: Sequence[str],
    every: Sequence[Sequence[Feature]],
) -> list[Heatmap]:
    """The maps of one model, on the scales of the first, or on its own with the similarity to the first."""
    view = None if np.array_equal(seen[k].image, seen[0].image) else NetworkView(seen[k].image, seen[k].geometry)
    comparable = _comparable(plan, every, k)
    found = []
    for column in columns:
        own = drawing.layer_of(plan, every[k][column.number], column.number)
        item = drawing.as_map(plan, column.pictures[k], column.feature, own).at(model=names[k])
        metrics = {} if comparable else _similarity(column, k)
        found.append(replace(item, view=view, comparable=comparable, metrics=metrics))
    return found


def _similarity(column: _Column, k: int) -> dict[str, float]:
    """CKA and cosine of a map's channels in model ``k`` and the first; NaN where a channel count does not allow one."""
    base, other = column.pictures[0].source, column.pictures[k].source
    moved = resampled(other.to(base), (base.shape[1], base.shape[2]))
    return {'cka': linear_cka(base, moved), 'cosine': cosine(base, moved)}


def _numbers(item: Heatmap) -> dict[str, Any]:
    """The similarities of a map, for the provenance."""
    place = item.coordinates
    shown = place.get('query') or (f'channel {place["channel"]}' if 'channel' in place else place.get('reduction'))
    known = {kind: None if math.isnan(value) else round(value, 6) for kind, value in item.metrics.items()}
    return {'model': place['model'], 'map': f'{place["layer"]}/{shown}', **known}


def _differences(
    plan: Plan,
    columns: Sequence[_Column],
    k: int,
    names: Sequence[str],
    every: Sequence[Sequence[Feature]],
) -> list[Heatmap]:
    """Model ``k`` minus the first, each with CKA and cosine."""
    found = []
    for column in columns:
        base, other = column.pictures[0], column.pictures[k]
        size = (base.source.shape[1], base.source.shape[2])
        layer = drawing.layer_of(plan, column.feature, column.number)
        height, width = other.source.shape[1:]
        item = drawing.as_map(plan, base, column.feature, layer).at(model=names[k], minus=names[0])
        found.append(
            replace(
                item,
                values=_difference(base, other, size),
                signed=None,
                diverging=True,
                metrics=_similarity(column, k),
                resampled_from=None if (height, width) == size else (height, width),
            )
        )
    return found


def _difference(base: Picture, other: Picture, size: tuple[int, int]) -> np.ndarray:
    before = base.values if base.signed is None else base.signed
    after = other.values if other.signed is None else other.signed
    return resampled(torch.from_numpy(after)[None], size)[0].numpy() - before


def _check_channels(
    every: Sequence[Sequence[Feature]], chosen: Mapping[str, Sequence[int] | None], names: Sequence[str]
) -> None:
    """Refuses channels by number where a model has none of that number."""
    for name, found in zip(names[1:], every[1:], strict=True):
        for first, other in zip(every[0], found, strict=True):
            wide, most = other.maps.shape[1], max(chosen[first.name] or (0,))
            if most >= wide:
                raise InputError(
                    f'channel {most} of {first.name} has no counterpart in {name}, '
                    f'whose {other.name} has {wide} channels',
                    hint=f'compare by a {param("reduction")} over all channels',
                    parameter='compare',
                )


def _check_views(first: Sample, others: Sequence[Sample], names: Sequence[str]) -> None:
    """Warns where positions of two networks are not the same places of the photo."""
    for name, other in zip(names[1:], others, strict=True):
        if first.geometry is None or other.geometry is None:
            continue
        apart = np.abs(first.geometry.crop() - other.geometry.crop()).max()
        if apart > _NEAR:
            log.warning('%s sees another part of the photo than %s: differences mix places', name, names[0])
