"""The same images through several models, up to layers that correspond."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from vistool.data.samples import Sample
from vistool.errors import InputError, param
from vistool.models.model import Model
from vistool.network.features import Feature
from vistool.network.layers import find_target_layers, unwrapped

if TYPE_CHECKING:
    from vistool.analyses.featmap import FeatureMaps


def features_of(plan: FeatureMaps, models: Sequence[Model], views: Sequence[Sequence[Sample]]) -> list[list[Feature]]:
    """Features of the same images and layers, one list per model.

    Raises:
        InputError: If the models give different numbers of maps.
    """
    every = []
    layers = [
        plan.layers if _built_alike(model, models[0]) else layers_of(plan, model, samples)
        for model, samples in zip(models, views, strict=True)
    ]
    if plan.staged:  # networks agree at their ends: the deepest stage against the deepest, as many as all have
        layers = [names[-min(map(len, layers)) :] for names in layers]
    for model, samples, names in zip(models, views, layers, strict=True):
        mine = replace(plan, layers=names)
        sizes = {sample.image.shape for sample in samples}
        # One batch where that is possible: another batch size gives other last digits, and then differences.
        groups = [list(samples)] if len(sizes) == 1 else [[sample] for sample in samples]
        parts = [mine.features(model, group) for group in groups]
        every.append(_joined(parts))
    for model, found in zip(models, every, strict=True):
        if len(found) != len(every[0]):
            raise InputError(
                f'{models[0].name} gives {len(every[0])} layers and {model.name} {len(found)}',
                hint=f'name as many layers as both have with {param("layers")}',
                parameter='compare',
            )
    return every


def _built_alike(one: Model, other: Model) -> bool:
    """Whether two networks have the same modules, so that names mean the same in both."""
    names = [[name for name, _ in unwrapped(model.module).named_modules()] for model in (one, other)]
    return names[0] == names[1]


def _joined(parts: Sequence[Sequence[Feature]]) -> list[Feature]:
    if len(parts) == 1:
        return list(parts[0])
    sizes = {tuple(feature.maps.shape[1:] for feature in found) for found in parts}
    if len(sizes) > 1:
        raise InputError(
            'images of one batch reach the compared model in different sizes', hint=f'give {param("batch_size", "1")}'
        )
    return [Feature(same[0].name, torch.cat([each.maps for each in same])) for same in zip(*parts, strict=True)]


def layers_of(plan: FeatureMaps, model: Model, samples: Sequence[Sample] | None) -> Sequence[str]:
    """The layers of ``plan`` in a network that is built otherwise: for stages its own, else those of that name."""
    if plan.staged and samples is not None:
        return replace(plan, layers=()).located(model, samples).layers
    try:
        find_target_layers(unwrapped(model.module), plan.layers)
    except InputError as error:
        if samples is None:
            return ()
        raise InputError(f'{model.name}: {error.problem}', hint=error.hint, parameter='compare') from error
    return plan.layers
