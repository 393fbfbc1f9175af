"""Features to maps in their places in a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from vistool.results import Heatmap, Heatmaps

COSINE = 'cosine similarity'


@dataclass(frozen=True)
class Picture:
    """One map of one image, before it has a place among those of other layers and models.

    Attributes:
        values: float32 ``(h, w)``, or ``(h, w, 3)`` colours.
        label: What it shows of its layer: ``'mean'``, ``'channel 17'``, ``'(250, 100)'``.
        source: ``(c, h, w)``: the channels that it was made of.
        signed: ``(h, w)`` to take differences of, where ``values`` are colours; else None.
    """

    values: NDArray[np.float32]
    label: str
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
        return [Picture(similarity(maps, *cell), f'({x:g}, {y:g})', maps) for (x, y), cell in named]
    if plan.reduction == 'pca':
        assert plan.basis is not None
        basis = plan.basis.layer(layer, len(maps))
        return [Picture(basis.colors(maps), 'pca', maps, basis.project(maps)[..., 0].astype(np.float32))]
    if channels is not None:
        check_channels(channels, len(maps), feature.name)
    if plan.reduction in REDUCTIONS:
        chosen = maps if channels is None else maps[list(channels)]
        return [Picture(_array(REDUCTIONS[plan.reduction](chosen)), plan.reduction, chosen)]
    return [Picture(_array(maps[c]), f'channel {c}', maps[c : c + 1]) for c in channels or ()]


def results(plan: Plan, model: Model, samples: Sequence[Sample], found: Sequence[Feature]) -> list[Heatmaps]:
    """One figure per image."""
    drawn = []
    for index, sample in enumerate(samples):
        maps: list[Heatmap] = []
        chosen: dict[str, list[int] | None] = {}
        for number, feature in enumerate(found):
            channels = chosen[feature.name] = choose_channels(plan, feature, index)
            for picture in pictures(plan, feature, index, sample, channels, feature.name):
                maps.append(placed(plan, picture, feature, number, several=len(found) > 1))
        caption = ' · '.join((model.name, *said(plan, found)))
        drawn.append(
            Heatmaps(
                kind='feature',
                image=sample.image,
                maps=tuple(maps),
                original=sample.original,
                geometry=sample.geometry,
                queries=queries(plan),
                caption=caption,
                model=model.name,
                layers=tuple(feature.name for feature in found),
                provenance=described(plan, model, sample, found, chosen),
            )
        )
    return drawn


def placed(plan: Plan, picture: Picture, feature: Feature, number: int, several: bool) -> Heatmap:
    """A map in its row and column: layers across; channels across and layers down; queries down."""
    layer = title(plan, feature, number)
    row, column, footer = '', layer, ''
    if plan.similar_to:
        row = picture.label
    elif plan.reduction == 'select_max':
        footer = picture.label
    elif plan.reduction == 'none':
        row, column = layer if several else '', picture.label
    return Heatmap(
        values=picture.values,
        name=f'{feature.name}/{picture.label}',
        group=feature.name,
        row=row,
        column=column,
        footer=footer,
        scale=COSINE if plan.similar_to else feature.name,
        signed=bool(plan.similar_to),
    )


def title(plan: Plan, feature: Feature, number: int) -> str:
    """``'stage 3 · 14×14×320'``, or the layer's own name with its size."""
    if feature.name in plan.layers:  # a comparison may leave out the first ones
        number = list(plan.layers).index(feature.name)
    return f'stage {number + 1} · {feature.size}' if plan.staged else f'{feature.name} · {feature.size}'


def said(plan: Plan, found: Sequence[Feature]) -> list[str]:
    """What is constant over a figure: the layer, where there is one, and how its channels are shown."""
    by = f' by {plan.criterion}'
    how = {
        'mean': 'mean over channels',
        'sum': 'sum over channels',
        'max': 'maximum over channels',
        'norm': 'norm over channels',
        'select_max': 'channel of the largest mean',
        'pca': 'principal components 1–3 as red, green, blue',
        'none': f'top {plan.topk} channels{by}' if plan.topk else '',
    }[plan.reduction]
    how = 'cosine similarity to the position ringed' if plan.similar_to else how
    alone = [title(plan, found[0], 0)] if len(found) == 1 and plan.reduction == 'none' else []
    return [text for text in (*alone, how) if text]


def queries(plan: Plan, rows: Sequence[str] = ('',)) -> dict[str, tuple[float, float]]:
    """Row → the middle of the query's pixel; rows of several models end in the model's name."""
    found = {}
    for x, y in plan.similar_to:
        for name in rows:
            label = f'({x:g}, {y:g})'
            found[f'{label} · {name}' if name else label] = (x + 0.5, y + 0.5)
    return found


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
        'extra_tokens': plan.hints and plan.hints.prefix,
        **sample.provenance(),
        'versions': versions(),
    }


def _array(maps: Tensor) -> NDArray[np.float32]:
    return maps.float().cpu().numpy()
