"""The report of browse_dataset: samples measured in workers, one page written."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from functools import partial
from typing import Any

from vistool import commands as cli
from vistool.analyses.dataset import DatasetReport, Measured
from vistool.data.recording import Samples
from vistool.data.workers import ordered_map
from vistool.models.configs import Source
from vistool.results import DatasetSummary
from vistool.runs.progress import Failure, progress, report
from vistool.visualization.style import Style
from vistool.visualization.visualizer import Visualizer

log = logging.getLogger('vistool')


def write_report(
    args: argparse.Namespace, source: Source, samples: Samples, chosen: list[int], style: Style, workers: int
) -> int:
    """Measures the chosen samples and writes the page; returns the exit code."""
    visualizer = Visualizer(cli.out_path(args, source.name, 'browse_dataset'), style, save_raw=args.save_raw)
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
    cli.announce(visualizer.write(result, name))
    log.info('%s', _line(result))
    return report([Failure(f'sample {index}', reason) for index, reason in result.failed], len(chosen))


def _line(result: DatasetSummary) -> str:
    def numbers(values: Any) -> str:
        return ' '.join(f'{value:.1f}' for value in values)

    found = f'mean {numbers(result.found[:, 0])}, std {numbers(result.found[:, 1])} (R, G, B)'
    if result.expected is not None:
        found += f'; config: mean {numbers(result.expected[:, 0])}, std {numbers(result.expected[:, 1])}'
    return f'{found}: {result.verdict}'
