"""Readings to results: which map stands where, and what of the photo it covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistool import recipe
from vistool.analyses.attention.masks import mass_mask
from vistool.analyses.attention.places import cover
from vistool.analyses.attention.reading import Reading
from vistool.analyses.attention.selection import Query, find_heads
from vistool.geometry import crop
from vistool.inputs import Sample
from vistool.models import Model
from vistool.results import Heatmap, Heatmaps, NetworkView

Values = NDArray[np.float32]


def raw_result(
    model: Model,
    sample: Sample,
    image: int,
    readings: Sequence[Reading],
    patch: tuple[int, int] | None,
    heads: Sequence[int | str],
    settings: Mapping[str, Any],
) -> Heatmaps:
    """The maps of one image: layers and queries down, heads across.

    Args:
        model: The model.
        sample: The image.
        image: Its place in the batch.
        readings: One per layer.
        patch: Stride of the first convolution.
        heads: Which heads.
        settings: For the recipe.
    """
    size = sample.image.shape[0], sample.image.shape[1]
    views = {grid: seen(sample, cover(size, grid, patch)) for grid in {_grid(reading) for reading in readings}}
    base = views[_grid(readings[-1])]
    several = len(readings) > 1
    entries: list[Heatmap] = []
    masses = []
    points: dict[str, tuple[float, float]] = {}
    for reading in readings:
        view = views[_grid(reading)]
        for number, query in enumerate(reading.queries):
            several_queries = len(reading.queries) > 1
            row = ' · '.join([f'layer {reading.index}'] * several + [query.label] * several_queries)
            if query.kind == 'point':
                points[row] = (query.x + 0.5, query.y + 0.5)
            masses.append(_masses(reading, image, number))
            entries += [
                Heatmap(
                    values=values,
                    name=f'{query.label}/{column}' if several_queries else column,
                    group=reading.name,
                    row=row,
                    column=column,
                    view=None if view is base else view,
                )
                for column, values in _heads(reading, image, number, heads)
            ]
    first = readings[0]
    constants = [
        model.name,
        '' if several else first.name,
        '' if len(first.queries) > 1 else first.queries[0].label,
        '' if len(masses) > 1 else _said(masses[0]),
    ]
    return Heatmaps(
        kind='attention',
        image=base.image,
        maps=tuple(entries),
        original=sample.original,
        geometry=base.geometry,
        queries=points,
        caption=' · '.join(filter(None, constants)),
        recipe={
            'analysis': 'attention',
            **model.provenance(),
            'layers': [{'index': r.index, 'name': r.name, 'residual': r.residual, 'mixed': r.mixed} for r in readings],
            'queries': [query.label for query in first.queries],
            'mass': masses,
            **settings,
            **recipe.of_sample(replace(sample, geometry=base.geometry)),
            'versions': recipe.versions(),
        },
    )


def seen(sample: Sample, extent: tuple[int, int]) -> NetworkView:
    """What of the network's image the tokens cover: less where a patch embedding drops a strip, more where it pads."""
    image, geometry = sample.image, sample.geometry
    size = image.shape[0], image.shape[1]
    if extent == size:
        return NetworkView(image, geometry)
    shown = np.zeros((*extent, 3), np.uint8)
    height, width = min(size[0], extent[0]), min(size[1], extent[1])
    shown[:height, :width] = image[:height, :width]
    return NetworkView(shown, None if geometry is None else geometry.then(crop(size, extent, 0, 0)))


def _grid(reading: Reading) -> tuple[int, int]:
    return reading.maps.shape[-2], reading.maps.shape[-1]


def _heads(reading: Reading, image: int, query: int, wanted: Sequence[int | str]) -> list[tuple[str, Values]]:
    maps = reading.maps[image, query].float().cpu().numpy()
    drawn = []
    for head in find_heads(wanted, len(maps)):
        if head == 'mean':
            drawn.append(('mean', maps.mean(0)))
        elif head == 'max':
            drawn.append(('max', maps.max(0)))
        else:
            drawn.append((f'head {head}', maps[int(head)]))
    return drawn


def _masses(reading: Reading, image: int, number: int) -> dict[str, Any]:
    """Where a query's attention goes, averaged over the heads: the image, prefix tokens one by one, padding."""
    return {
        'layer': reading.index,
        'query': reading.queries[number].label,
        'image': float(reading.maps[image, number].sum((-1, -2)).mean()),
        'prefix': [float(value) for value in reading.prefix[image, number].mean(0)],
        'padding': float(reading.padding[image, number].mean()),
    }


def _said(mass: Mapping[str, Any]) -> str:
    """The share that the maps do not show, for the caption."""
    parts = []
    if mass['prefix']:
        parts.append(f'{sum(mass["prefix"]):.0%} on {"the class token" if len(mass["prefix"]) == 1 else "prefix tokens"}')
    if mass['padding'] >= 0.005:
        parts.append(f'{mass["padding"]:.0%} on padding')
    return ', '.join(parts)
