"""The report of browse_dataset: samples measured in workers, one page written."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from vistool import commands as cli
from vistool.analyses.dataset import DatasetReport, Measured
from vistool.data.recording import Samples
from vistool.data.workers import ordered_map
from vistool.models.configs import Source
from vistool.results import DatasetSummary
from vistool.runs.progress import Failure, progress, report
from vistool.visualization.files import VECTOR_SUFFIXES, encode_pixels
from vistool.visualization.style import Style
from vistool.visualization.visualizer import Visualizer

log = logging.getLogger('vistool')


def write_report(
    args: argparse.Namespace, source: Source, samples: Samples, chosen: list[int], style: Style, workers: int
) -> int:
    """Measures the chosen samples and writes the page; returns the exit code."""
    visualizer = Visualizer(cli.out_path(args, source.name, 'browse_dataset'), style)
    visualizer.check()
    analysis = DatasetReport()
    measured: list[Measured] = []
    with progress(len(chosen)) as advance:
        for each in ordered_map(partial(analysis.measured, samples), chosen, workers):
            measured.append(each)
            advance()
    result = analysis.summed(samples, measured)
    title = f'{source.name} · {args.phase} · {len(chosen):,} of {len(samples):,} samples'
    result = replace(result, title=title)
    name = cli.file_name('report', args.phase, args.classes)
    cli.announce([visualizer.put(name, summary_bytes(result, style, visualizer.suffix))])
    log.info('%s', _line(result))
    if args.save_raw:
        from vistool.runs.browsing import write_table

        cli.announce([write_table([_row(each) for each in measured], visualizer, name)])
    return report([Failure(f'sample {index}', reason) for index, reason in result.failed], len(chosen))


def summary_bytes(result: DatasetSummary, style: Style, suffix: str) -> bytes:
    """The page as the bytes of a picture file."""
    from vistool.visualization import vector
    from vistool.visualization.summary import summary_figure

    made = summary_figure(result, style.page(vector=suffix in VECTOR_SUFFIXES))
    if suffix in VECTOR_SUFFIXES:
        return vector.encode([made], suffix)
    return encode_pixels(vector.rasterize(made), suffix)


def _line(result: DatasetSummary) -> str:
    def numbers(values: Any) -> str:
        return ' '.join(f'{value:.1f}' for value in values)

    found = f'mean {numbers(result.found[:, 0])}, std {numbers(result.found[:, 1])} (R, G, B)'
    if result.expected is not None:
        found += f'; config: mean {numbers(result.expected[:, 0])}, std {numbers(result.expected[:, 1])}'
    return f'{found}: {result.verdict}'


def _row(each: Measured) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if each.moments is not None:
        means, spreads = each.moments[:, 0], np.sqrt(np.maximum(each.moments[:, 1] - each.moments[:, 0] ** 2, 0))
        for place, channel in enumerate(('red', 'green', 'blue')):
            found |= {f'{channel}_mean': round(means[place], 3), f'{channel}_std': round(spreads[place], 3)}
    else:
        found = {f'{channel}_{what}': '' for channel in ('red', 'green', 'blue') for what in ('mean', 'std')}
    classes = ' '.join(map(str, each.classes))
    return {'index': each.index, 'classes': classes, 'height': each.size[0], 'width': each.size[1], **found,
            'error': each.error}  # fmt: skip
