"""Readings to results: which map stands where, and what of the photo it covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistool.analyses.attention.aggregation import Aggregation
from vistool.analyses.attention.capture import Reading
from vistool.analyses.attention.selection import Query, find_heads
from vistool.data.geometry import crop
from vistool.data.samples import Sample
from vistool.environment import versions
from vistool.models.model import Model
from vistool.network.outputs import probabilities
from vistool.network.token_layout import covered_size
from vistool.results import Heatmap, Heatmaps, NetworkView, Target


def mass_mask(values: NDArray[np.float32], share: float) -> NDArray[np.bool_]:
    """The fewest tokens that together hold a share of a map's mass, as DINO draws them.

    Caron et al., «Emerging properties in self-supervised vision transformers», ICCV 2021.

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


def outlined(entries: Sequence[Heatmap], row: str, share: float) -> list[Heatmap]:
    """The maps of a row with the tokens outlined that hold a share of the mass, and a row of the photo lit there."""
    found = [replace(e, mask=mass_mask(e.values, share)) if e.row == row else e for e in entries]
    title = _lit(row, share)
    lit = [
        replace(
            e,
            values=e.mask.astype(np.float32),
            row=title,
            name=f'{e.name}/{share:.0%}',
            mask=None,
            range=None,
            spotlight=True,
        )
        for e in found
        if e.row == row and e.mask is not None
    ]
    return found + lit


def _lit(row: str, share: float) -> str:
    return ' · '.join(filter(None, [row, f'{share:.0%} of the mass']))


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
    views = {grid: seen(sample, covered_size(size, grid, patch)) for grid in {_grid(reading) for reading in readings}}
    base = views[_grid(readings[-1])]
    several = len(readings) > 1
    entries: list[Heatmap] = []
    for reading in readings:
        view = views[_grid(reading)]
        drawn = _entries(reading, image, several, heads, settings['threshold'])
        entries += drawn if view is base else [replace(entry, view=view) for entry in drawn]
    masses = [
        _masses(reading, image, number, _padded(views[_grid(reading)], _grid(reading)))
        for reading in readings
        for number in range(len(reading.queries))
    ]
    said = [
        '' if several else readings[0].name,
        '' if len(readings[0].queries) > 1 else readings[0].queries[0].label,
        '' if len(masses) > 1 else _said(masses[0]),
        'heads mixed after the softmax' if any(reading.mixed for reading in readings) else '',
    ]
    layers = [{'index': r.index, 'name': r.name, 'residual': r.residual, 'mixed': r.mixed} for r in readings]
    found: dict[str, Any] = {
        'layers': layers,
        'queries': [query.label for query in readings[0].queries],
        'mass': masses,
    }
    points = _points(entries, [(_row(r, several, q), q) for r in readings for q in r.queries])
    return _result(model, sample, base, entries, said, points, {**found, **settings})


def _entries(
    reading: Reading, image: int, several: bool, heads: Sequence[int | str], threshold: float | None
) -> list[Heatmap]:
    """One layer's maps."""
    entries: list[Heatmap] = []
    signed = bool((reading.maps[image] < 0).any())  # heads mixed after the softmax
    for number, query in enumerate(reading.queries):
        row = _row(reading, several, query)
        prefix = f'{query.label}/' if len(reading.queries) > 1 else ''
        entries += [
            Heatmap(values, f'{prefix}{column}', reading.name, row, column, signed=signed)
            for column, values in _heads(reading, image, number, heads)
        ]
        if threshold is not None:
            entries = outlined(entries, row, threshold)
    return entries


def _row(reading: Reading, several: bool, query: Query) -> str:
    parts = [f'layer {reading.index}'] * several + [query.label] * (len(reading.queries) > 1)
    return ' · '.join(parts)


def _points(entries: Sequence[Heatmap], asked: Sequence[tuple[str, Query]]) -> dict[str, tuple[float, float]]:
    """Where each row's query is, in original pixels; also for the rows that light a share of its mass."""
    rows = list(dict.fromkeys(entry.row for entry in entries))
    found: dict[str, Any] = {}
    for row, query in asked:
        if query.kind == 'point':
            lit = [other for other in rows if other.startswith(f'{row} · ') or (not row and len(asked) == 1)]
            found |= dict.fromkeys([row, *lit], (query.x + 0.5, query.y + 0.5))
    return found


def _result(
    model: Model,
    sample: Sample,
    view: NetworkView,
    entries: Sequence[Heatmap],
    said: Sequence[str],
    points: Mapping[str, tuple[float, float]],
    found: Mapping[str, Any],
    targets: Sequence[Target] = (),
) -> Heatmaps:
    return Heatmaps(
        kind='attention',
        image=view.image,
        maps=tuple(entries),
        original=sample.original,
        geometry=view.geometry,
        queries=points,
        caption=' · '.join(filter(None, [model.name, *said])),
        model=model.name,
        targets=tuple(targets),
        titles={found['method']: found['method']},
        layers=tuple(layer['name'] for layer in found['layers']),
        provenance={
            'analysis': 'attention',
            **model.provenance(),
            **found,
            **replace(sample, geometry=view.geometry).provenance(),
            'versions': versions(),
        },
    )


def flow_result(model: Model, sample: Sample, image: int, flow: Aggregation, settings: Mapping[str, Any]) -> Heatmaps:
    """The maps of one image through all layers: queries, or classes with their scores, down."""
    size = sample.image.shape[0], sample.image.shape[1]
    maps = flow.maps[image].float().cpu().numpy()
    view = seen(sample, covered_size(size, (maps.shape[1], maps.shape[2]), flow.patch))
    targets = _targets(model, flow, image)
    maps = maps[: len(targets)] if targets else maps
    rows = [f'{t.name} {t.score:.2f}' for t in targets] or [q.label if len(maps) > 1 else '' for q in flow.queries]
    method = settings['method']
    entries: list[Heatmap] = []
    for row, values in zip(rows, maps, strict=True):
        entry = Heatmap(values, f'{method}/{row}' if row else method, method, row, method)
        entries.append(_scaled(entry) if targets else entry)
        if settings['threshold'] is not None:
            entries = outlined(entries, row, settings['threshold'])
    asked = flow.queries if method != 'legrad' else ()
    single = asked[:1] if targets else asked
    points = _points(
        entries, [(row, query) for row in rows for query in single] if targets else list(zip(rows, asked, strict=True))
    )
    said = [method, f'{len(flow.indices)} layers', *[query.label for query in single if len(single) == 1]]
    found: dict[str, Any] = {
        'layers': [{'index': i, 'name': n} for i, n in zip(flow.indices, flow.names, strict=True)],
        'residual': flow.residual,
        'queries': [query.label for query in single],
        'targets': [target.entry() for target in targets],
        'prefix': None if flow.lost is None else [float(value) for value in flow.lost[image]],
    }
    return _result(model, sample, view, entries, said, points, {**found, **settings}, targets)


def _targets(model: Model, flow: Aggregation, image: int) -> list[Target]:
    if flow.classes is None or flow.scores is None:
        return []
    shares = probabilities(model.module, flow.scores)[image]
    chosen = (
        flow.classes[image] if flow.asked is None else flow.classes[image][flow.asked[image].to(flow.classes.device)]
    )
    ids = [int(index) for index in chosen]
    return [Target(model.class_name(index), index, float(shares[index])) for index in ids]


def _scaled(entry: Heatmap) -> Heatmap:
    """A map of relevance in [0, 1], with what 0 and 1 stood for."""
    low, high = float(entry.values.min()), float(entry.values.max())
    return replace(entry, values=(entry.values - low) / max(high - low, 1e-30), range=(low, high))


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


def _padded(view: NetworkView, grid: tuple[int, int]) -> NDArray[np.bool_]:
    """Tokens that show nothing of the photo, only padding of the image, ``(h, w)``."""
    invalid = None if view.geometry is None else view.geometry.invalid
    if invalid is None or invalid.shape[0] % grid[0] or invalid.shape[1] % grid[1]:
        return np.zeros(grid, np.bool_)
    height, width = invalid.shape[0] // grid[0], invalid.shape[1] // grid[1]
    return np.asarray(invalid.reshape(grid[0], height, grid[1], width).all((1, 3)))


def _masses(reading: Reading, image: int, number: int, padded: NDArray[np.bool_]) -> dict[str, Any]:
    """Where a query's attention goes, averaged over the heads: the image, prefix tokens one by one, padding."""
    shown = reading.maps[image, number].mean(0).cpu().numpy()
    return {
        'layer': reading.index,
        'query': reading.queries[number].label,
        'image': float(shown[~padded].sum()),
        'prefix': [float(value) for value in reading.prefix[image, number].mean(0)],
        'padding': float(reading.padding[image, number].mean()) + float(shown[padded].sum()),
    }


def _said(mass: Mapping[str, Any]) -> str:
    """The share that the maps do not show, for the caption."""
    parts = []
    if mass['prefix']:
        share = sum(mass['prefix'])
        name = 'the class token' if len(mass['prefix']) == 1 else 'prefix tokens'
        parts.append(f'{"<1%" if share < 0.005 else f"{share:.0%}"} on {name}')
    if mass['padding'] >= 0.005:
        parts.append(f'{mass["padding"]:.0%} on padding')
    return ', '.join(parts)
