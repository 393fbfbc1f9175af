"""A run of a command that draws heat maps, from its arguments to its files and exit code."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vistool import commands as cli
from vistool.data.datasets import DatasetItem
from vistool.data.samples import Item, Sample
from vistool.errors import InputError, param
from vistool.gallery.build import build_gallery, check_others
from vistool.models.configs import resolve
from vistool.models.model import Model
from vistool.results import Heatmaps
from vistool.runs.batches import Batches
from vistool.runs.checks import check_options
from vistool.runs.comparison import labels
from vistool.runs.explaining import HeatmapAnalysis, explain_with, views_of
from vistool.runs.launch import Place, deterministic, hint_at_gpu, joined
from vistool.runs.loading import find_items, load_all, read_item
from vistool.runs.manifest import Manifest, groups_of, stamp, with_their_batches
from vistool.runs.progress import Failure, described, report, throughput
from vistool.runs.records import Written, about_run, line_of
from vistool.runs.selection import Guess, guesses, select
from vistool.visualization.backends import open_backends
from vistool.visualization.files import is_file
from vistool.visualization.style import Style
from vistool.visualization.visualizer import Visualizer, sheet

log = logging.getLogger('vistool')

AnyItem = Item | DatasetItem

Walk = Callable[[], Iterator[list[list[Sample]]]]
"""Goes over all batches of a run from the start: each batch as one list of samples per model."""

Settle = Callable[[list[Model], Walk, int], HeatmapAnalysis]
"""``(models, walk, number of images) → analysis``: fixes, before the first picture, what is one over the whole run."""


def draw_heatmaps(
    args: argparse.Namespace,
    command: str,
    analysis: HeatmapAnalysis,
    choices: Sequence[object],
    settle: Settle | None = None,
    *,
    prepare: Callable[[Model], object] | None = None,
    beside: Callable[[Heatmaps, Path, Style], list[Path]] | None = None,
) -> int:
    """Runs ``analysis`` on the images that the arguments name and writes the pictures.

    Args:
        args: Parsed arguments, with those of ``add_model``, ``add_picture``, ``add_compare``, ``add_inputs``,
            ``add_batch`` and ``add_run`` of :mod:`vistool.commands`.
        command: The command's name, for the default folder.
        analysis: What to do.
        choices: What the user chose for this run (method, class, layer), for file names.
        settle: Called once before the first picture; the analysis that it returns is used instead of ``analysis``.
        prepare: Called with each model before it reads anything.
        beside: Writes what else a result has, given its picture's path; returns the files.

    Returns:
        The exit code.
    """
    check_options(args)
    with joined(args.launcher, args.device) as place, deterministic(args.deterministic):
        args.device = place.device(args.device)
        if not place.first:
            log.setLevel(max(log.level, logging.WARNING))
        return HeatmapRun(args, command, analysis, choices, settle, prepare, beside, place).draw()


@dataclass
class HeatmapRun:
    """One run; the arguments are those of :func:`draw_heatmaps`.

    Attributes:
        place: This process among those of the run.
        kept: Results for the sheet.
        failures: What could not be read or explained.
    """

    args: argparse.Namespace
    command: str
    analysis: HeatmapAnalysis
    choices: Sequence[object]
    settle: Settle | None
    prepare: Callable[[Model], object] | None
    beside: Callable[[Heatmaps, Path, Style], list[Path]] | None
    place: Place
    kept: list[Heatmaps] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def draw(self) -> int:
        """Does all of it; returns the exit code."""
        args = self.args
        source = resolve(args.config, cli.config_options(args.cfg_options))
        self.items: Sequence[AnyItem] = find_items(args.img, source)
        self.style = cli.style_of(args)
        self.out = cli.out_path(args, source.name, self.command)
        self.visualizer = Visualizer(self.out, self.style, save_raw=args.save_raw, show=args.show, panels=args.panels)
        partly = bool(args.indices or args.classes or args.per_class or args.max_samples or args.only)
        self.visualizer.check(1 if partly else len(self.items))
        self.models = load_all(args, source)
        if self.prepare is not None:
            for model in self.models:
                self.prepare(model)
        self.batches: Batches[AnyItem, Written] = Batches(
            self.read, self.explain, self.write, args.batch_size, args.workers, shown=self.place.first
        )
        order = self.select()
        self.visualizer.check(len(order))
        hint_at_gpu(args.device, len(order))
        place = self.place
        self.visualizer.backends = open_backends(args.vis_backend, self.out, source.config, place.rank, place.world)
        self.manifest = self.begin(source, order)
        pending = self.pending(order)
        if len(pending) < len(order):
            log.info('%d of %d images are done already', len(order) - len(pending), len(order))
        if self.settle is not None and pending:
            with self.models[0].precision(args.amp):
                self.analysis = self.settle(self.models, lambda: self.walk(order), len(order))
        self.run(order, pending)
        return self.finish(len(order))

    def select(self) -> list[int]:
        """Places of the images that are taken."""
        model, args = self.models[0], self.args

        def guess(pool: Sequence[int]) -> Iterable[Guess]:
            own = [
                each
                for samples in self.batches.walk(self.items, groups_of(pool, pool, self.place, args.batch_size, True))
                for each in guesses(model, samples, args.amp)
            ]
            return [each for part in self.place.gather(own) for each in part]

        return select(args, self.items, guess)

    def begin(self, source: Any, order: Sequence[int]) -> Manifest | None:
        """The record of a run over many images; a single picture has none."""
        args = self.args
        one = is_file(self.out) or (not args.img.startswith('@') and len(self.items) == 1 and Path(args.img).is_file())
        if not one:
            if args.gallery:
                check_others(self.out, [Path(folder) for folder in args.gallery])
            about = about_run(args, self.command, source, self.models)
            return Manifest.begin(self.out, about, self.place, args.resume, args.overwrite)
        for option, given in (('resume', args.resume), ('gallery', args.gallery is not None)):
            if given:
                raise InputError('is for many images in a folder', hint='leave it out', parameter=option)
        return None

    def pending(self, order: Sequence[int]) -> list[int]:
        """Places of the images that have to be done."""
        pending = [index for index in order if not self.is_done(index)]
        if not self.args.deterministic or self.manifest is None or not self.manifest.done:
            return pending
        failed = [index for index in pending if self.manifest.failed(self.items[index].name)]
        return with_their_batches(order, pending, failed, self.args.batch_size)

    def is_done(self, index: int) -> bool:
        """Whether an earlier run left this image's files whole, tiles for the gallery included if they are wanted."""
        if self.manifest is None or not self.manifest.done:
            return False
        item = self.items[index]
        if self.args.gallery is not None and not self.manifest.done.get(item.name, {}).get('tiles'):
            return False
        return self.manifest.has(stamp(item, index))

    def run(self, order: Sequence[int], pending: Sequence[int]) -> None:
        """Reads, explains and writes this process's part of what is not done."""
        groups = groups_of(order, pending, self.place, self.args.batch_size, self.args.deterministic)
        unwanted = set(order).difference(pending) if self.args.deterministic else set()
        try:
            self.batches.run(self.items, self.done, self.failed, groups, unwanted)
        except InputError as error:
            if self.manifest is None or not self.batches.clock.images:
                raise
            hint = f'{error.hint}; what is written stays, {param("resume")} goes on'.removeprefix('; ')
            raise InputError(error.problem, accepted=error.accepted, hint=hint, parameter=error.parameter) from error
        finally:
            self.visualizer.close()

    def finish(self, total: int) -> int:
        """Merges the record, makes the gallery and the sheet, and tells how it went; returns the exit code."""
        failures = [each for part in self.place.gather(self.failures) for each in part]
        clocks = self.place.gather(self.batches.clock)
        if self.manifest is not None:
            self.manifest.finish()
        if self.place.first:
            if self.kept:
                cli.announce(sheet(self.kept, self.args.sheet, self.style))
            if self.args.gallery is not None:
                cli.announce(build_gallery(self.out, [Path(folder) for folder in self.args.gallery]))
            if total > 1 and any(clock.images for clock in clocks):
                log.info('%s', throughput(clocks))
        self.place.wait()
        return report(failures, total) if self.place.first else int(bool(failures))

    def read(self, index: int, item: AnyItem) -> Sample:
        """An image as the first model reads it."""
        return read_item(self.models[0], item, self.args.seed, index)

    def explain(self, samples: list[Sample]) -> list[Heatmaps]:
        """The results of a batch."""
        results = explain_with(self.models, self.analysis, samples, self.args)
        if self.args.sheet:
            self.kept.extend(results)
        return results

    def walk(self, order: Sequence[int]) -> Iterator[list[list[Sample]]]:
        """All batches of the run, for what is settled before the first picture."""
        for samples in self.batches.walk(self.items, [order]):
            yield views_of(self.models, samples, self.args.seed)

    def write(self, result: Any, sample: Sample, seconds: float) -> Written:
        """Writes one result; runs in a pool."""
        item = self.items[sample.index or 0]
        name = cli.file_name(sample.name, *self.chosen)
        written = self.visualizer.write(result, name, sample.index or 0)
        if self.beside is not None and written:
            written += self.beside(result, written[0], self.style)
        if self.manifest is None:
            return Written(written, None)
        return line_of(self.args, self.out, item, sample, result, written, self.style, self.models[0], seconds)

    def done(self, written: Written) -> None:
        """Records and announces one image's files."""
        if self.manifest is not None and written.line is not None:
            self.manifest.add(written.line)
        cli.announce(written.paths)

    def failed(self, index: int, item: AnyItem, error: InputError) -> None:
        """Records what could not be read or explained."""
        self.failures.append(Failure(described(item), error.line(param)))
        if self.manifest is not None:
            self.manifest.add({**stamp(item, index), 'index': index, 'files': [], 'error': str(error)})

    @property
    def chosen(self) -> list[object]:
        """What file names say besides the image's own."""
        others = ['vs', *labels(self.models)[1:]] if len(self.models) > 1 else []
        weights = [self.models[0].weights_name] if self.args.checkpoint else []
        return [*self.choices, *([others] if others else []), *weights]
