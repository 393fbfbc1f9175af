"""The metrics of a finished run: a row for each number, means with intervals, and their picture."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vistool.analyses.cam.methods import METHODS
from vistool.metrics.aggregation import FRACTIONS, MapMetrics, summarize
from vistool.results import COORDINATES, MetricsSummary
from vistool.runs.manifest import DoneEntry, read_entries
from vistool.visualization.files import table, write_file
from vistool.visualization.style import Style
from vistool.visualization.visualizer import Visualizer

log = logging.getLogger('vistool')

_OF_THE_IMAGE = ('target', 'instance', 'query')
"""Coordinates whose maps are averaged within an image."""


def write_metrics(
    folder: Path, names: Sequence[str], seed: int, style: Style
) -> tuple[MetricsSummary | None, list[Path]]:
    """Writes ``metrics.csv``, ``metrics_summary.csv``, ``metrics.png`` and ``metrics.pdf``, and logs the summary.

    Everything is read from the manifest, so it does not matter how often the run was interrupted.

    Args:
        folder: The run's output folder, its manifest merged.
        names: The metrics that were asked for.
        seed: Of the bootstrap.
        style: How pictures are drawn.

    Returns:
        The summary and the files; nothing where no image was measured.
    """
    from vistool.visualization.measurements import summary_text  # matplotlib takes half a second

    entries = [entry for entry in read_entries(folder) if entry.get('metrics') and not entry.get('error')]
    rows = _long_rows(entries, names)
    if not rows:
        return None, []
    summary = summary_of(entries, names, seed)
    log.info('%s', summary_text(summary), extra={'table': True})
    files = [
        _write_table(folder / 'metrics.csv', rows),
        _write_table(folder / 'metrics_summary.csv', summary.rows()),
    ]
    for suffix in ('.png', '.pdf'):
        path = folder / f'metrics{suffix}'
        wide = replace(style, width=style.width or 'text') if suffix == '.pdf' else style
        files += [each for each in Visualizer(path, wide).write(summary, path.stem) if each not in files]
    return summary, files


def summary_of(entries: Sequence[DoneEntry], names: Sequence[str], seed: int) -> MetricsSummary:
    """The summary of a run's entries.

    Args:
        entries: Those of images that were measured.
        names: The metrics that were asked for.
        seed: Of the bootstrap.
    """
    varying = _varying(entries)
    maps, baselines = [], dict[str, None]()
    for number, entry in enumerate(entries):
        for item in entry['metrics']:
            series = _series(item, varying)
            if item.get('method') in METHODS and METHODS[item['method']].is_baseline:
                baselines[series] = None
            maps.append(
                MapMetrics(
                    number,
                    series,
                    {name: _number(item[name]) for name in names if name in item},
                    {name: _number(item[f'{name} chance']) for name in names if f'{name} chance' in item},
                    {name: curve for name, curve in (item.get('curves') or {}).items() if len(curve) == len(FRACTIONS)},
                )
            )
    return summarize(maps, list(baselines), seed)


def _series(item: Mapping[str, Any], varying: Sequence[str]) -> str:
    """What a map is called beside others: the method, and the layer or model where there are several."""
    named = {**item, 'method': item.get('title') or item.get('method', 'map')}
    return ' · '.join(str(named[name]) for name in varying if name in named)


def _varying(entries: Sequence[DoneEntry]) -> list[str]:
    """The coordinates that tell the maps of one image apart, the method always."""
    found = {'method'}
    for entry in entries:
        for name in COORDINATES:
            if name not in _OF_THE_IMAGE and len({item.get(name) for item in entry['metrics']}) > 1:
                found.add(name)
    order = ['method', *(name for name in COORDINATES if name != 'method')]
    return [name for name in order if name in found]


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _long_rows(entries: Sequence[DoneEntry], names: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each image, map and metric."""
    used = [each for each in COORDINATES if any(each in item for entry in entries for item in entry['metrics'])]
    return [
        {
            'image': entry['name'],
            **{each: item.get(each, '') for each in used},
            'metric': name,
            'value': item[name],
            'chance': item.get(f'{name} chance'),
        }
        for entry in entries
        for item in entry['metrics']
        for name in names
        if name in item
    ]


def _write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Numbers with nine digits, which is more than they are good for; what is not known is empty."""
    write_file(path, table([{key: _plain(value) for key, value in row.items()} for row in rows]))
    return path


def _plain(value: Any) -> Any:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ''
    return f'{value:.9g}' if isinstance(value, float) else value
