"""The same layers of several models: on one scale, with signed differences and two numbers for how alike they are."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vistool.analyses.featmap import drawing
from vistool.analyses.featmap.drawing import Picture
from vistool.analyses.featmap.engine import Feature
from vistool.analyses.featmap.similarity import cosine, linear_cka, resampled
from vistool.inputs import Sample
from vistool.models import Model
from vistool.results import Heatmap, Heatmaps, NetworkView

if TYPE_CHECKING:
    from vistool.analyses.featmap import FeatureMaps

log = logging.getLogger('vistool')

_NEAR = 1.5  # pixels of the original by which two networks' views may differ: resizing rounds


@dataclass(frozen=True)
class _Column:
    """One map of the first model and its counterparts."""

    feature: Feature
    number: int
    pictures: tuple[Picture, ...]


def results(
    plan: FeatureMaps,
    models: Sequence[Model],
    views: Sequence[Sequence[Sample]],
    every: Sequence[Sequence[Feature]],
    names: Sequence[str],
) -> list[Heatmaps]:
    """One figure per image: a row per model, then a row per difference from the first."""
    drawn = []
    same_model = [models[0].name] if len({model.name for model in models}) == 1 else []
    for index, sample in enumerate(views[0]):
        seen = [samples[index] for samples in views]
        _check_views(sample, seen[1:], names)
        chosen = {feature.name: drawing.choose_channels(plan, feature, index) for feature in every[0]}
        columns = _columns(plan, every, seen, index, chosen)
        maps = [_own(plan, columns, k, seen, names, every) for k in range(len(models))]
        numbers: list[dict[str, Any]] = []
        for k in range(1, len(models)):
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
                recipe={
                    **drawing.described(plan, models[0], sample, every[0], chosen),
                    'compare': _others(models, every, names),
                    'similarity': numbers,
                },
            )
        )
    return drawn


def _in_order(
    maps: Sequence[Heatmap], columns: Sequence[_Column], several: bool, plan: FeatureMaps
) -> tuple[Heatmap, ...]:
    """All models for one query (or layer), then all for the next: what belongs together stands together."""
    places = [drawing.placed(plan, c.pictures[0], c.feature, c.number, several).row for c in columns]
    order = {place: number for number, place in enumerate(dict.fromkeys(places))}
    ranks = [order[places[number % len(places)]] for number in range(len(maps))]
    return tuple(item for _, item in sorted(zip(ranks, maps, strict=True), key=lambda pair: pair[0]))


def _others(models: Sequence[Model], every: Sequence[Sequence[Feature]], names: Sequence[str]) -> list[dict[str, Any]]:
    """What the recipe says of the models after the first."""
    return [
        {'model': name, **model.provenance(), 'layers': [feature.name for feature in found]}
        for name, model, found in zip(names[1:], models[1:], every[1:], strict=True)
    ]


def _columns(
    plan: FeatureMaps,
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
    plan: FeatureMaps,
    columns: Sequence[_Column],
    k: int,
    seen: Sequence[Sample],
    names: Sequence[str],
    every: Sequence[Sequence[Feature]],
) -> list[Heatmap]:
    """The maps of one model, on the scales of the first."""
    view = None if np.array_equal(seen[k].image, seen[0].image) else NetworkView(seen[k].image, seen[k].geometry)
    found = []
    for column in columns:
        item = drawing.placed(plan, column.pictures[k], column.feature, column.number, len(every[0]) > 1)
        found.append(
            replace(
                item,
                name=f'{names[k]}/{item.name}' if k else item.name,
                group=f'{names[k]}: {every[k][column.number].name}' if k else item.group,
                row=_row(item.row, names[k]),
                view=view,
            )
        )
    return found


def _differences(
    plan: FeatureMaps, columns: Sequence[_Column], k: int, names: Sequence[str], several: bool, numbers: list[dict]
) -> list[Heatmap]:
    """Model ``k`` minus the first, each with CKA and cosine below, which also go to ``numbers``."""
    label = _difference_rows(names)[k - 1]
    found = []
    for column in columns:
        base, other = column.pictures[0], column.pictures[k]
        size = (base.source.shape[1], base.source.shape[2])
        moved = resampled(other.source.to(base.source), size)
        alike = {'cka': linear_cka(base.source, moved), 'cosine': cosine(base.source, moved)}
        item = drawing.placed(plan, base, column.feature, column.number, several)
        known = {name: None if math.isnan(value) else round(value, 6) for name, value in alike.items()}
        numbers.append({'model': names[k], 'map': item.name, **known})
        found.append(
            replace(
                item,
                values=_difference(base, other, size),
                name=f'{label}/{item.name}',
                group=f'{label}: {item.group}',
                row=_row(item.row, label),
                scale=f'difference: {item.scale}',
                signed=True,
                footer=' · '.join(
                    f'{short} {_two_digits(value)}'
                    for short, value in zip(('CKA', 'cos'), alike.values(), strict=True)
                    if not math.isnan(value)
                ),
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


def _check_views(first: Sample, others: Sequence[Sample], names: Sequence[str]) -> None:
    """Warns where positions of two networks are not the same places of the photo."""
    for name, other in zip(names[1:], others, strict=True):
        if first.geometry is None or other.geometry is None:
            continue
        apart = np.abs(first.geometry.crop() - other.geometry.crop()).max()
        if apart > _NEAR:
            log.warning('%s sees another part of the photo than %s: differences mix places', name, names[0])
