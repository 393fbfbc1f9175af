"""Features to maps with their coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vistool.analyses.featmap.plan import Plan
from vistool.analyses.featmap.reductions import REDUCTIONS, check_channels, find_cell, similarity, top_channels
from vistool.data.samples import Sample
from vistool.environment import versions
from vistool.models.model import Model
from vistool.network.features import Feature
from vistool.results import Coordinates, Heatmap, Heatmaps, Layer, Top


@dataclass(frozen=True)
class Picture:
    """One map of one layer and image, before it is compared with those of other models.

    Attributes:
        values: float32 ``(h, w)``, or ``(h, w, 3)`` colors.
        place: What it shows of its layer, as coordinates: ``reduction``, ``channel`` or ``query``.
        source: ``(c, h, w)``: the channels that it was made of.
        signed: ``(h, w)``, the first component, where ``values`` are colors; else None.
    """

    values: NDArray[np.float32]
    place: Coordinates
    source: Tensor
    signed: NDArray[np.float32] | None = None


def choose_channels(plan: Plan, feature: Feature, index: int) -> list[int] | None:
    """The channels of a layer that are shown for one image; None for all of them together."""
    maps = feature.maps[index]
    if plan.topk is not None:
        return top_channels(maps, plan.topk, plan.criterion)
    if plan.channels:
        chosen = [int(channel) for channel in plan.channels]
        check_channels(chosen, len(maps), feature.name)
        return chosen
    if plan.reduction == 'select_max':
        return top_channels(maps, 1, 'mean')
    return list(range(len(maps))) if plan.reduction == 'none' and not plan.similar_to else None


def pictures(
    plan: Plan, feature: Feature, index: int, sample: Sample, channels: Sequence[int] | None, layer: str
) -> list[Picture]:
    """The maps of one layer and image.

    Args:
        plan: What to show.
        feature: The layer's features for the batch.
        index: The image in the batch.
        sample: That image.
        channels: The channels, from :func:`choose_channels` (for other models: of the first).
        layer: The layer's name in the basis.
    """
    maps = feature.maps[index]
    if plan.similar_to:
        cells = [find_cell(point, sample, (maps.shape[1], maps.shape[2])) for point in plan.similar_to]
        named = zip(plan.similar_to, cells, strict=True)
        return [Picture(similarity(maps, *cell), Coordinates(query=f'({x:g}, {y:g})'), maps) for (x, y), cell in named]
    if plan.reduction == 'pca':
        assert plan.basis is not None
        basis = plan.basis.layer(layer, len(maps))
        first = basis.project(maps)[..., 0].astype(np.float32)
        return [Picture(basis.colors(maps), Coordinates(reduction='pca'), maps, first)]
    if channels is not None:
        check_channels(channels, len(maps), feature.name)
    if plan.reduction in REDUCTIONS:
        chosen = maps if channels is None else maps[list(channels)]
        return [Picture(_array(REDUCTIONS[plan.reduction](chosen)), Coordinates(reduction=plan.reduction), chosen)]
    shown = {'reduction': plan.reduction} if plan.reduction == 'select_max' else {}
    return [Picture(_array(maps[c]), Coordinates({**shown, 'channel': c}), maps[c : c + 1]) for c in channels or ()]


def results(plan: Plan, model: Model, samples: Sequence[Sample], found: Sequence[Feature]) -> list[Heatmaps]:
    """One result per image."""
    drawn = []
    for index, sample in enumerate(samples):
        maps: list[Heatmap] = []
        chosen: dict[str, list[int] | None] = {}
        for number, feature in enumerate(found):
            channels = chosen[feature.name] = choose_channels(plan, feature, index)
            for picture in pictures(plan, feature, index, sample, channels, feature.name):
                maps.append(as_map(plan, picture, feature, layer_of(plan, feature, number)).at(model=model.name))
        entries = described(plan, model, sample, found, chosen)
        drawn.append(result(plan, sample, maps, model.name, found, entries))
    return drawn


def result(
    plan: Plan,
    sample: Sample,
    maps: Sequence[Heatmap],
    model: str,
    found: Sequence[Feature],
    entries: Mapping[str, Any],
) -> Heatmaps:
    """A result of one image.

    Args:
        plan: What to show.
        sample: The image.
        maps: Its maps.
        model: The model's name, ``''`` where several are compared.
        found: The layers' features, of the first model.
        entries: The provenance.
    """
    return Heatmaps(
        kind='feature',
        image=sample.image,
        maps=tuple(maps),
        original=sample.original,
        shown=sample.shown,
        geometry=sample.geometry,
        model=model,
        layers=tuple(feature.name for feature in found),
        queries={f'({x:g}, {y:g})': (x + 0.5, y + 0.5) for x, y in plan.similar_to},
        top=None if plan.topk is None else Top(plan.topk, plan.criterion),
        provenance=entries,
    )


def as_map(plan: Plan, picture: Picture, feature: Feature, layer: Layer) -> Heatmap:
    """A picture of a layer with its coordinates."""
    return Heatmap(
        picture.values,
        Coordinates({**picture.place, 'layer': feature.name}),
        layer=layer,
        signed=picture.signed,
        diverging=bool(plan.similar_to),
    )


def layer_of(plan: Plan, feature: Feature, number: int) -> Layer:
    """A layer with its size and, where the layers are the network's stages, its number."""
    if feature.layer in plan.layers:  # a stage may give several maps, and a comparison may leave out the first stages
        number = list(plan.layers).index(feature.layer)
    channels, height, width = feature.maps.shape[1:]
    size = channels, height, width
    staged = Layer(feature.name, number + 1, size, place=feature.place)
    return replace(staged if plan.staged else Layer(feature.name, size=size), unchecked=feature.unchecked)


def described(
    plan: Plan,
    model: Model,
    sample: Sample,
    found: Sequence[Feature],
    chosen: Mapping[str, list[int] | None],
) -> dict[str, Any]:
    """The provenance."""
    basis = plan.basis and {'model': plan.basis.model, 'sha256': plan.basis.sha256, 'foreground': plan.foreground}
    return {
        'analysis': 'featmap',
        **model.provenance(),
        'layers': [feature.name for feature in found],
        'sizes': [list(feature.maps.shape[1:]) for feature in found],
        'reduction': 'cosine' if plan.similar_to else plan.reduction,
        'criterion': plan.criterion if plan.topk else None,
        'channels': dict(chosen),
        'similar_to': [list(point) for point in plan.similar_to],
        'basis': basis,
        'extra_tokens': None if plan.hints is None or plan.hints.prefix is None else plan.hints.text,
        **sample.provenance(),
        'versions': versions(),
    }


def _array(maps: Tensor) -> NDArray[np.float32]:
    return maps.float().cpu().numpy()
