"""The same layers of several models: on one scale, with signed differences and two numbers for how alike they are."""

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
from vistool.results import Heatmap, Heatmaps, NetworkView

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
    drawn = []
    same_model = [models[0].name] if len({model.name for model in models}) == 1 else []
    for index, sample in enumerate(views[0]):
        seen = [samples[index] for samples in views]
        _check_views(sample, seen[1:], names)
        chosen = {feature.name: drawing.choose_channels(plan, feature, index) for feature in every[0]}
        _check_channels(every, chosen, names)
        columns = _columns(plan, every, seen, index, chosen)
        numbers: list[dict[str, Any]] = []
        maps = [_own(plan, columns, k, seen, names, every, numbers) for k in range(len(models))]
        for k in range(1, len(models)):
            if _comparable(plan, every, k):
                maps.append(_differences(plan, columns, k, names, len(every[0]) > 1, numbers))
        rows = [*names, *_difference_rows(names)]
        drawn.append(
            Heatmaps(
                kind='feature',
                image=sample.image,
                maps=_in_order([item for row in maps for item in row], columns, len(every[0]) > 1, plan),
                original=sample.original,
                geometry=sample.geometry,
                queries=drawing.queries(plan, rows),
                caption=' · '.join([*same_model, *drawing.said(plan, every[0])]),
                model=models[0].name,
                layers=tuple(feature.name for feature in every[0]),
                provenance={
                    **drawing.described(plan, models[0], sample, every[0], chosen),
                    'compare': _others(models, every, names),
                    'similarity': numbers,
                },
            )
        )
    return drawn


def _comparable(plan: Plan, every: Sequence[Sequence[Feature]], k: int) -> bool:
    """Whether maps of model ``k`` can stand on the first model's scale: cosines always can."""
    widths = [[feature.maps.shape[1] for feature in found] for found in (every[0], every[k])]
    return bool(plan.similar_to) or widths[0] == widths[1]


def _in_order(maps: Sequence[Heatmap], columns: Sequence[_Column], several: bool, plan: Plan) -> tuple[Heatmap, ...]:
    """All models for one query (or layer), then all for the next: what belongs together stands together."""
    places = [drawing.placed(plan, c.pictures[0], c.feature, c.number, several).row for c in columns]
    order = {place: number for number, place in enumerate(dict.fromkeys(places))}
    ranks = [order[places[number % len(places)]] for number in range(len(maps))]
    return tuple(item for _, item in sorted(zip(ranks, maps, strict=True), key=lambda pair: pair[0]))


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
    numbers: list[dict[str, Any]],
) -> list[Heatmap]:
    """The maps of one model, on the scales of the first, or on its own with CKA below."""
    view = None if np.array_equal(seen[k].image, seen[0].image) else NetworkView(seen[k].image, seen[k].geometry)
    several, comparable = len(every[0]) > 1, _comparable(plan, every, k)
    found = []
    for column in columns:
        item = drawing.placed(plan, column.pictures[k], column.feature, column.number, several)
        layer = every[k][column.number]
        if not comparable:
            alike = _alike(column, k, names, item.name, numbers)
            size = '' if plan.reduction == 'none' else layer.size  # the size in the column's title is the first's
            item = replace(item, scale=f'{names[k]}: {layer.name}', footer=' · '.join(filter(None, [size, alike])))
        found.append(
            replace(
                item,
                name=f'{names[k]}/{item.name}' if k else item.name,
                group=f'{names[k]}: {layer.name}' if k else item.group,
                row=_row(item.row, names[k]),
                view=view,
            )
        )
    return found


def _alike(column: _Column, k: int, names: Sequence[str], name: str, numbers: list[dict[str, Any]]) -> str:
    """CKA and cosine of a map's channels in model ``k`` and the first, as a footer; appended to ``numbers`` too."""
    base, other = column.pictures[0].source, column.pictures[k].source
    moved = resampled(other.to(base), (base.shape[1], base.shape[2]))
    alike = {'cka': linear_cka(base, moved), 'cosine': cosine(base, moved)}
    known = {kind: None if math.isnan(value) else round(value, 6) for kind, value in alike.items()}
    numbers.append({'model': names[k], 'map': name, **known})
    pairs = zip(('CKA', 'cos'), alike.values(), strict=True)
    return ' · '.join(f'{short} {_two_digits(value)}' for short, value in pairs if not math.isnan(value))


def _differences(
    plan: Plan,
    columns: Sequence[_Column],
    k: int,
    names: Sequence[str],
    several: bool,
    numbers: list[dict[str, Any]],
) -> list[Heatmap]:
    """Model ``k`` minus the first, each with CKA and cosine below, which also go to ``numbers``."""
    label = _difference_rows(names)[k - 1]
    found = []
    for column in columns:
        base, other = column.pictures[0], column.pictures[k]
        size = (base.source.shape[1], base.source.shape[2])
        item = drawing.placed(plan, base, column.feature, column.number, several)
        found.append(
            replace(
                item,
                values=_difference(base, other, size),
                name=f'{label}/{item.name}',
                group=f'{label}: {item.group}',
                row=_row(item.row, label),
                scale=f'difference: {item.scale}',
                signed=True,
                footer=_alike(column, k, names, item.name, numbers),
                note='' if tuple(other.source.shape[1:]) == size else 'from {}×{}'.format(*other.source.shape[1:]),
            )
        )
    return found


def _two_digits(value: float) -> str:
    text = f'{value:.2f}'.replace('-', '−')
    return '0.00' if text == '−0.00' else text


def _difference(base: Picture, other: Picture, size: tuple[int, int]) -> np.ndarray:
    before = base.values if base.signed is None else base.signed
    after = other.values if other.signed is None else other.signed
    return resampled(torch.from_numpy(after)[None], size)[0].numpy() - before


def _difference_rows(names: Sequence[str]) -> list[str]:
    return ['difference'] if len(names) == 2 else [f'{name} − {names[0]}' for name in names[1:]]


def _row(row: str, name: str) -> str:
    return f'{row} · {name}' if row else name


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
