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
from vistool.analyses.featmap.engine import Feature, find_targets, unwrapped
from vistool.analyses.featmap.similarity import cosine, linear_cka, resampled
from vistool.errors import InputError
from vistool.inputs import Sample
from vistool.models import Model
from vistool.results import Heatmap, Heatmaps, NetworkView

if TYPE_CHECKING:
    from vistool.analyses.featmap import FeatureMaps

log = logging.getLogger('vistool')

_NEAR = 1.5  # pixels of the original by which two networks' views may differ: resizing rounds


def features_of(plan: FeatureMaps, models: Sequence[Model], views: Sequence[Sequence[Sample]]) -> list[list[Feature]]:
    """Features of the same images and layers, one list per model.

    Raises:
        InputError: If the models give different numbers of maps.
    """
    every = []
    for model, samples in zip(models, views, strict=True):
        mine = plan if model is models[0] else replace(plan, layers=layers_of(plan, model, samples))
        sizes = {sample.image.shape for sample in samples}
        # One batch where that is possible: another batch size gives other last digits, and then differences.
        groups = [list(samples)] if len(sizes) == 1 else [[sample] for sample in samples]
        parts = [mine.features(model, group) for group in groups]
        every.append(_joined(parts))
    for model, found in zip(models, every, strict=True):
        if len(found) != len(every[0]):
            raise InputError(
                f'{models[0].name} gives {len(every[0])} layers and {model.name} {len(found)}',
                hint='name as many layers as both have with --target-layers',
                argument='--compare',
            )
    return every


def _joined(parts: Sequence[Sequence[Feature]]) -> list[Feature]:
    if len(parts) == 1:
        return list(parts[0])
    sizes = {tuple(feature.maps.shape[1:] for feature in found) for found in parts}
    if len(sizes) > 1:
        raise InputError('images of one batch reach the compared model in different sizes', hint='give --batch-size 1')
    return [Feature(same[0].name, torch.cat([each.maps for each in same])) for same in zip(*parts, strict=True)]


def layers_of(plan: FeatureMaps, model: Model, samples: Sequence[Sample] | None) -> Sequence[str]:
    """The layers of ``plan`` in another model, or that model's own stages where it has others."""
    try:
        find_targets(unwrapped(model.module), plan.layers)
        return plan.layers
    except InputError as error:
        if samples is None:
            return ()
        if not plan.staged:
            raise InputError(f'{model.name}: {error.problem}', hint=error.hint, argument='--compare') from error
    stages = replace(plan, layers=()).located(model, samples).layers
    if len(stages) < len(plan.layers):
        raise InputError(
            f'{model.name} has {len(stages)} stages, not {len(plan.layers)}',
            hint='name layers that both models have with --target-layers',
            argument='--compare',
        )
    return stages[-len(plan.layers) :]  # networks agree at their ends: the deepest stage against the deepest


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
        # What belongs together stands together: all models for one query (or layer), then all for the next
        places = [drawing.placed(plan, c.pictures[0], c.feature, c.number, len(every[0]) > 1).row for c in columns]
        ordered = [
            item
            for place in dict.fromkeys(places)
            for row in maps
            for item, own in zip(row, places, strict=True)
            if own == place
        ]
        provenance = [model.provenance() for model in models[1:]]
        drawn.append(
            Heatmaps(
                kind='feature',
                image=sample.image,
                maps=tuple(ordered),
                original=sample.original,
                geometry=sample.geometry,
                queries=drawing.queries(plan, rows),
                caption=' · '.join([*same_model, *drawing.said(plan, every[0])]),
                recipe={
                    **drawing.described(plan, models[0], sample, every[0], chosen),
                    'compare': [
                        {'model': name, **which, 'layers': [feature.name for feature in found]}
                        for name, which, found in zip(names[1:], provenance, every[1:], strict=True)
                    ],
                    'similarity': numbers,
                },
            )
        )
    return drawn


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
