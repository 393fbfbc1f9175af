"""Readings to results: maps with their coordinates, and the part of the photo that they cover."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray

from vistool.analyses.attention.aggregation import Aggregation
from vistool.analyses.attention.reading import Reading
from vistool.analyses.attention.selection import Query, find_heads
from vistool.analyses.base import target_of
from vistool.analyses.cam.methods import Key
from vistool.analyses.cam.report import Drawn, MapMeasured, with_measured
from vistool.data.geometry import crop
from vistool.data.samples import Sample
from vistool.environment import versions
from vistool.models.model import Model
from vistool.network.tensors import Size
from vistool.network.token_layout import covered_size
from vistool.results import Coordinate, Coordinates, Heatmap, Heatmaps, Layer, Mass, Measure, NetworkView, Target


def mass_mask(values: NDArray[np.float32], share: float) -> NDArray[np.bool_]:
    """The fewest tokens that together hold a share of a map's mass, as DINO draws them.

    Caron et al., "Emerging properties in self-supervised vision transformers", ICCV 2021.

    Args:
        values: ``(h, w)``, not negative.
        share: In (0, 1].

    Returns:
        bool ``(h, w)``; nothing for a map that is 0 everywhere.
    """
    flat = np.clip(values.astype(np.float64).ravel(), 0, None)
    total = flat.sum()
    if total <= 0:
        return np.zeros(values.shape, np.bool_)
    order = np.argsort(flat, kind='stable')
    kept = np.cumsum(flat[order]) / total > 1 - share
    mask = np.empty(len(flat), np.bool_)
    mask[order] = kept
    return mask.reshape(values.shape)


def highlighted(maps: Sequence[Heatmap], share: float) -> list[Heatmap]:
    """The maps of one query with masks of the tokens that hold a share of the mass, then those masks as maps."""
    masked = [replace(item, mask=mass_mask(item.values, share)) for item in maps]
    lit = [
        replace(
            item,
            values=item.mask.astype(np.float32),
            mask=None,
            range=None,
            metrics={},
            chance={},
            curves={},
            sampled=None,
        ).at(share=share)
        for item in masked
        if item.mask is not None
    ]
    return [*masked, *lit]


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
        settings: For the provenance.
    """
    size = sample.image.shape[0], sample.image.shape[1]
    extents = [_extent(reading, size, patch, model) for reading in readings]
    views = {extent: seen(sample, extent) for extent in extents}
    places = list(zip(extents, map(_grid, readings), strict=True))
    padded = {(extent, grid): _padded(views[extent], grid) for extent, grid in set(places)}
    base = views[extents[-1]]
    found: list[Heatmap] = []
    for reading, extent in zip(readings, extents, strict=True):
        view = views[extent]
        maps = _maps(model, reading, image, heads, settings['threshold'])
        found += maps if view is base else [replace(item, view=view) for item in maps]
    masses = [
        _mass(reading, image, number, padded[place])
        for reading, place in zip(readings, places, strict=True)
        for number in range(len(reading.queries))
    ]
    layers = [{'index': r.index, 'name': r.name, 'residual': r.residual, 'mixed': r.mixed} for r in readings]
    numbers = {reading.name: reading.index for reading in readings}
    told = {
        'layers': layers,
        'queries': list(dict.fromkeys(query.label for reading in readings for query in reading.queries)),
        'mass': [_mass_entry(mass, numbers[mass.layer]) for mass in masses],
    }
    return replace(
        _result(model, sample, base, found, {**told, **settings}),
        layers=tuple(reading.name for reading in readings),
        queries=_points([query for reading in readings for query in reading.queries]),
        mass=tuple(masses),
    )


def _maps(
    model: Model, reading: Reading, image: int, heads: Sequence[int | str], threshold: float | None
) -> list[Heatmap]:
    """One layer's maps: query by query, head by head."""
    found: list[Heatmap] = []
    diverging = bool((reading.maps[image] < 0).any())  # heads mixed after the softmax
    layer = Layer(reading.name, reading.index, mixed=reading.mixed, unchecked=reading.unchecked)
    for number, query in enumerate(reading.queries):
        place: dict[str, Coordinate] = {
            'model': model.name, 'method': 'raw', 'layer': reading.name, 'query': query.label
        }  # fmt: skip
        looks = reading.sampled[image][number] if reading.sampled else None
        maps = [
            Heatmap(
                values,
                Coordinates({**place, 'head': head}),
                layer,
                diverging=diverging,
                sampled=None if looks is None else looks.of(head),
            )
            for head, values in _heads(reading, image, number, heads)
        ]
        found += maps if threshold is None else highlighted(maps, threshold)
    return found


def _points(queries: Sequence[Query]) -> dict[str, tuple[float, float]]:
    """Where the queries that are points lie: the middle of their pixel, in pixels of the original."""
    return {query.label: (query.x + 0.5, query.y + 0.5) for query in queries if query.kind == 'point'}


def _result(
    model: Model, sample: Sample, view: NetworkView, maps: Sequence[Heatmap], told: Mapping[str, Any]
) -> Heatmaps:
    return Heatmaps(
        kind='attention',
        image=view.image,
        maps=tuple(maps),
        original=sample.original,
        shown=sample.shown,
        geometry=view.geometry,
        model=model.name,
        titles={told['method']: told['method']},
        provenance={
            'analysis': 'attention',
            **model.provenance(),
            **told,
            **replace(sample, geometry=view.geometry).provenance(),
            'versions': versions(),
        },
    )


@dataclass(frozen=True)
class Measurements:
    """What was measured of the maps of a batch.

    Attributes:
        measures: The metrics that were asked for.
        values: For each image: number of the class → what was measured.
        entry: For the provenance.
    """

    measures: Mapping[str, Measure] = field(default_factory=dict)
    values: Sequence[Mapping[int, MapMeasured]] = ()
    entry: Mapping[str, Any] = field(default_factory=dict)


def drawn_at(flow: Aggregation, method: str, size: Size) -> dict[Key, list[Drawn]]:
    """The maps of every class at the network's input size, each scaled to [0, 1].

    Between the centers of tokens they are interpolated; where no token lies, they are 0.
    """
    height, width = size
    grid = int(flow.maps.shape[2]), int(flow.maps.shape[3])
    extent = covered_size(size, grid, flow.patch)
    low, high = flow.maps.amin((2, 3), keepdim=True), flow.maps.amax((2, 3), keepdim=True)
    unit = (flow.maps - low) / (high - low).clamp_min(1e-30)
    grown = F.interpolate(unit.float(), size=extent, mode='bilinear', align_corners=False)[..., :height, :width]
    whole = F.pad(grown, (0, width - grown.shape[3], 0, height - grown.shape[2])).detach().cpu().numpy()
    return {(method, number): [Drawn(whole[:, number], None)] for number in range(whole.shape[1])}


def flow_result(
    model: Model,
    sample: Sample,
    image: int,
    flow: Aggregation,
    settings: Mapping[str, Any],
    measurements: Measurements,
) -> Heatmaps:
    """The maps of one image through all layers: one per query, or per class with its score."""
    size = sample.image.shape[0], sample.image.shape[1]
    maps = flow.maps[image].float().cpu().numpy()
    view = seen(sample, covered_size(size, (maps.shape[1], maps.shape[2]), flow.patch, model.module))
    targets, method = _targets(model, flow, image, sample), settings['method']
    maps = maps[: len(targets)] if targets else maps
    asked = flow.queries if method != 'legrad' else ()
    queries = asked[:1] if targets else asked
    found: list[Heatmap] = []
    layer = Layer(flow.names[-1], flow.indices[-1], unchecked=True) if flow.unchecked else None
    for number, values in enumerate(maps):
        place: dict[str, Coordinate] = {'model': model.name, 'method': method}
        if queries:
            place['query'] = queries[0 if targets else number].label
        if targets:
            place['target'] = targets[number].name
        item = Heatmap(values, Coordinates(place), layer, score=targets[number].score if targets else None)
        item = _scaled(item) if targets else item
        if measurements.values:
            item = with_measured(item, measurements.values[image][number])
        found += [item] if settings['threshold'] is None else highlighted([item], settings['threshold'])
    told = {
        'layers': [{'index': i, 'name': n} for i, n in zip(flow.indices, flow.names, strict=True)],
        'residual': flow.residual,
        'queries': [query.label for query in queries],
        'targets': [target.entry() for target in targets],
        'scores': None if flow.readout is None else flow.readout.entry(),
        'prefix': None if flow.lost is None else [float(value) for value in flow.lost[image]],
    }
    return replace(
        _result(model, sample, view, found, {**told, **settings, **measurements.entry}),
        layers=tuple(flow.names),
        queries=_points(queries),
        targets=tuple(targets),
        measures=measurements.measures,
    )


def _targets(model: Model, flow: Aggregation, image: int, sample: Sample) -> list[Target]:
    if flow.chosen is None or flow.readout is None or flow.numbers is None:
        return []
    asked = [True] * flow.chosen.ids.shape[1] if flow.chosen.asked is None else flow.chosen.asked[image].tolist()
    pairs = zip(flow.chosen.ids[image].tolist(), flow.chosen.signs[image].tolist(), asked, strict=True)
    numbers, truths = flow.numbers[image], sample.values
    return [target_of(model, flow.readout, own, numbers, sign < 0, truths) for own, sign, wanted in pairs if wanted]


def _scaled(item: Heatmap) -> Heatmap:
    """A map of relevance scaled to [0, 1], with the raw values as its range."""
    finite = item.values[np.isfinite(item.values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    return replace(item, values=(item.values - low) / max(high - low, 1e-30), range=(low, high))


def seen(sample: Sample, extent: tuple[int, int]) -> NetworkView:
    """The part of the image that the tokens cover: less where a patch embedding drops a strip, more where it pads."""
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


def _extent(reading: Reading, size: Size, patch: tuple[int, int] | None, model: Model) -> Size:
    """Network pixels that a reading's grid covers; deformable attention counts in fractions of the whole input."""
    return size if reading.sampled else covered_size(size, _grid(reading), patch, model.module)


def _heads(reading: Reading, image: int, query: int, wanted: Sequence[int | str]) -> list[tuple[int | str, Values]]:
    maps = reading.maps[image, query].float().cpu().numpy()
    whole = {'mean': maps.mean(0), 'max': maps.max(0)}
    return [
        (head, whole[head]) if isinstance(head, str) else (head, maps[head]) for head in find_heads(wanted, len(maps))
    ]


def _padded(view: NetworkView, grid: tuple[int, int]) -> NDArray[np.bool_]:
    """Tokens that show nothing of the photo, only padding of the image, ``(h, w)``."""
    invalid = None if view.geometry is None else view.geometry.invalid
    if invalid is None or invalid.shape[0] % grid[0] or invalid.shape[1] % grid[1]:
        return np.zeros(grid, np.bool_)
    height, width = invalid.shape[0] // grid[0], invalid.shape[1] // grid[1]
    return np.asarray(invalid.reshape(grid[0], height, grid[1], width).all((1, 3)))


def _mass(reading: Reading, image: int, number: int, padded: NDArray[np.bool_]) -> Mass:
    """Where a query's attention goes."""
    shown = reading.maps[image, number].mean(0).cpu().numpy()
    return Mass(
        layer=reading.name,
        query=reading.queries[number].label,
        image=float(shown[~padded].sum()),
        prefix=tuple(reading.prefix[image, number].mean(0).tolist()),
        padding=float(reading.padding[image, number].mean()) + float(shown[padded].sum()),
    )


def _mass_entry(mass: Mass, layer: int) -> dict[str, Any]:
    """As plain values, for the provenance."""
    shares = {'image': mass.image, 'prefix': list(mass.prefix), 'padding': mass.padding}
    return {'layer': layer, 'query': mass.query, **shares}
