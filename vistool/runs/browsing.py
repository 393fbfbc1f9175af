"""The run of browse_dataset: samples chosen, read and drawn in workers, files written in order."""

from __future__ import annotations

import argparse
import csv
import io
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vistool import commands as cli
from vistool.analyses.dataset import BrowseDataset
from vistool.data.batching import Batcher
from vistool.data.datasets import choose
from vistool.data.recording import Samples
from vistool.data.workers import ordered_map
from vistool.errors import InputError
from vistool.models.configs import resolve
from vistool.results import ImageGrid
from vistool.runs.progress import Failure, progress, report
from vistool.visualization.files import write_file
from vistool.visualization.grids import rescaled
from vistool.visualization.pictures import open_window, picture_bytes
from vistool.visualization.style import Style
from vistool.visualization.visualizer import Visualizer

log = logging.getLogger('vistool')

SHOWN_BY_DEFAULT = 64
"""Samples shown where the user named neither a number nor an output."""
_WORTH_WORKERS = 32


@dataclass(frozen=True, eq=False)
class Page:
    """One picture, ready to be written.

    Attributes:
        data: The file's bytes; None where no sample could be read.
        name: Of its first sample.
        rows: The numbers of its samples.
        failed: Index and reason of each sample that could not be read.
        result: The result itself, where it is to be shown in a window.
    """

    data: bytes | None
    name: str
    rows: Sequence[Mapping[str, Any]]
    failed: Sequence[tuple[int, str]]
    result: ImageGrid | None = None


@dataclass
class Drawing:
    """``(number, indices) → page``; runs in a worker.

    Attributes:
        analysis: What to draw.
        samples: Of which dataset.
        style: How.
        suffix: Of the pictures.
        factor: How much larger pixels are to be; None: tiles have their natural size.
        keep: Whether results are kept, for a window.
    """

    analysis: BrowseDataset
    samples: Samples
    style: Style = field(default_factory=Style)
    suffix: str = '.png'
    factor: float | None = None
    keep: bool = False

    def __call__(self, job: tuple[int, Sequence[int]]) -> Page:
        """Reads and draws the samples of one picture."""
        number, indices = job
        result = self.analysis(self.samples, indices, number)
        if not result.rows:
            return Page(None, '', (), result.failed)
        style = rescaled(result, self.factor, self.style) if self.factor is not None else self.style
        data = picture_bytes(result, style, self.suffix)
        return Page(data, result.name, result.samples, result.failed, result if self.keep else None)


def browse(args: argparse.Namespace) -> int:
    """Runs browse_dataset with its parsed arguments; returns the exit code."""
    _check(args)
    analysis = BrowseDataset(args.mode, args.repeats, tuple(args.sheet) if args.sheet else None)
    style = Style(width=int(args.width) if (args.width or '').isdigit() else args.width, dpi=args.dpi)
    source = resolve(args.config, cli.config_options(args.cfg_options))
    order = args.channel_order.upper() if args.channel_order else 'BGR' if args.bgr2rgb else None
    samples = Samples.of(source.config, args.phase, args.seed, order)
    out = cli.out_path(args, source.name, 'browse_dataset')
    if args.report:
        from vistool.runs.dataset_report import write_report

        chosen = _chosen(args, samples)
        return write_report(args, source, samples, chosen, style, workers(args, len(chosen)))
    if args.mode == 'batch':
        batcher = Batcher(source.config, args.phase, args.seed)
        analysis = replace(analysis, batcher=batcher)
        args.shuffle |= batcher.shuffles and not args.indices
    chosen = _chosen(args, samples)
    each = analysis.per_picture
    jobs = [(number, chosen[place : place + each]) for number, place in enumerate(range(0, len(chosen), each))]
    visualizer = Visualizer(out, style, show=args.show)
    visualizer.check(len(jobs))
    drawing = Drawing(analysis, samples, style, visualizer.suffix, args.rescale_factor, args.show)
    return _run(args, drawing, jobs, visualizer)


def _run(args: argparse.Namespace, drawing: Drawing, jobs: list[Any], visualizer: Visualizer) -> int:
    choices = _choices(args)
    rows: list[Mapping[str, Any]] = []
    failures: list[Failure] = []
    total = sum(len(indices) for _, indices in jobs)
    with progress(len(jobs)) as advance:
        for number, page in enumerate(ordered_map(drawing, jobs, workers(args, total))):
            failures += [Failure(f'sample {index}', reason) for index, reason in page.failed]
            rows += page.rows if args.save_raw else []  # kept to the end: a kilobyte a sample
            if page.data is not None:
                kind = 'batch' if args.mode == 'batch' else 'sheet' if args.sheet else ''
                name = cli.file_name(f'{kind}-{number + 1:04d}' if kind else page.name, *choices)
                cli.announce([visualizer.put(name, page.data)])
                if page.result is not None:
                    open_window(page.result, drawing.style, name, args.show_interval)
            advance()
    if total == 1 and failures:
        raise InputError(failures[0].reason)
    if args.save_raw:
        cli.announce([write_table(rows, visualizer, cli.file_name('samples', *choices))])
    return report(failures, total)


def _check(args: argparse.Namespace) -> None:
    if args.rescale_factor is not None and not 0 < args.rescale_factor <= 1000:
        raise InputError(f'{args.rescale_factor} is no factor', accepted='above 0', parameter='rescale_factor')
    if args.show_interval < 0:
        raise InputError(f'{args.show_interval} seconds', accepted='0 or more', parameter='show_interval')
    if args.workers is not None and args.workers < 0:
        raise InputError(f'{args.workers} workers', accepted='0 or more', parameter='workers')
    if args.rescale_factor is not None and args.width:
        raise InputError('both a factor and a width', hint='give one of them', parameter='rescale_factor')


def _chosen(args: argparse.Namespace, samples: Samples) -> list[int]:
    """The samples asked for; without a number and an output, the first 64, and a line that says so."""
    text = args.show_number
    if text not in (None, 'all') and not str(text).lstrip('+-').isdigit():
        raise InputError(f'{text!r} is no number of images', accepted='1 or more, or all', parameter='show_number')
    limited = text is None and not args.out and not args.indices
    number = SHOWN_BY_DEFAULT if limited else None if text in (None, 'all') else int(text)
    chosen = choose(samples, args.indices, args.classes, args.per_class, args.shuffle, number)
    if limited and len(chosen) == SHOWN_BY_DEFAULT < len(samples):
        log.info('%d of %s; -n all', len(chosen), f'{len(samples):,}')
    return chosen


def _choices(args: argparse.Namespace) -> tuple[object, ...]:
    """What the run varies, for file names."""
    drawn = f'x{args.repeats}' if args.repeats > 1 else ''
    return args.phase, args.mode, args.classes, drawn, f'seed{args.seed}' if args.seed else ''


def workers(args: argparse.Namespace, total: int) -> int:
    """How many processes: as asked for, else some where there are many images and nothing is shown in a window."""
    if args.workers is not None:
        return 0 if args.show else int(args.workers)
    return 0 if args.show or total < _WORTH_WORKERS else min(4, os.cpu_count() or 1)


def write_table(rows: Sequence[Mapping[str, Any]], visualizer: Visualizer, name: str) -> Path:
    """Writes the numbers of all samples as a table, beside the picture where there is one file, else in the folder."""
    buffer = io.StringIO()
    fields = list(rows[0]) if rows else ['index']
    writer = csv.DictWriter(buffer, fields, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    out = Path(str(visualizer.out))
    path = out.with_suffix('.csv') if out.suffix.lower() == visualizer.suffix else out / f'{name}.csv'
    write_file(path, buffer.getvalue().encode())
    return path
