"""The runs of browse_dataset: samples drawn in workers and written in order, or measured for a report."""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from vistool.analyses.dataset import BrowseDataset, DatasetReport, Measured, duplicate_grid, hashed_sample
from vistool.data.batching import Batcher
from vistool.data.dataloaders import phases_with_data
from vistool.data.datasets import choose, dataset_config
from vistool.data.display import Display
from vistool.data.near_duplicates import DISTANCE, HashedImage, can_hash, near_duplicates
from vistool.data.recording import Samples
from vistool.data.workers import ordered_map
from vistool.errors import InputError, check_count, check_seed, counted, naming, on_one_line
from vistool.models.configs import Source, images_of, resolve
from vistool.records import shown
from vistool.results import DatasetSummary, ImageGrid, channel_names
from vistool.runs.run import Callbacks
from vistool.runs.spec import MOST_WORKERS, Failure, Output, PathLike, RunSummary, log_failures
from vistool.visualization.files import file_name, table, write_file
from vistool.visualization.grids import rescaled
from vistool.visualization.kinds import open_window, picture_bytes
from vistool.visualization.style import Style
from vistool.visualization.visualizer import Visualizer

log = logging.getLogger('vistool')

SHOWN_BY_DEFAULT = 64
"""Samples shown where neither a number nor an output is given."""
DAY = 86_400
"""Seconds that a window stays open at most."""
MOST_PAIRS = 24
"""Pairs of near-duplicates that are drawn; the table has all."""
MOST_LINES = 100
"""Pairs of near-duplicates that are printed."""
MOST_DISTANCE = 16
"""Hashes of images that have nothing in common differ in 32 of 64 bits on average, and sometimes in 20."""
_WORTH_WORKERS = 32
_MOST_OF_SHEET = 64  # samples that a message suggests to put on one


@dataclass(frozen=True)
class DatasetSpec:
    """Which samples of a dataset are shown, how, and where they are written.

    Attributes:
        config: The config of the dataset.
        options: Changes to the config.
        phase: ``'train'``, ``'val'`` or ``'test'``.
        indices: Positions: ``7``, ``'-1'``, ``'10-19'``; none: all.
        classes: Class ids or names; none: all.
        per_class: At most this many of each class.
        shuffle: Whether the order is drawn, with the seed.
        show_number: At most this many, or ``'all'``; None: all, but 64 where no output and no indices are given.
        channel_order: ``'BGR'`` or ``'RGB'``, of loaded images; None: as their loader says.
        analysis: How samples are shown.
        rescale_factor: How much larger pixels are drawn; None: tiles have their natural size.
        output: What is written.
        show_interval: Seconds for which a window stays open.
        workers: Processes that read and draw; 0: this one alone; None: some where there are many samples.
        seed: Of random transforms.
        display_range: The values that are shown as black and white, as in :class:`~vistool.runs.spec.Models`.
        bands: The bands that are shown as red, green and blue.
        axes: The order of axes of arrays; None: as their sizes and the config say.
        duplicates: In how many of 64 bits the perceptual hashes of near-duplicates may differ, for a report; ``'off'``:
            they are not searched.
    """

    config: PathLike
    options: Mapping[str, Any] = field(default_factory=dict)
    phase: str = 'train'
    indices: Sequence[int | str] = ()
    classes: Sequence[int | str] = ()
    per_class: int | None = None
    shuffle: bool = False
    show_number: int | str | None = None
    channel_order: str | None = None
    analysis: BrowseDataset = field(default_factory=BrowseDataset)
    rescale_factor: float | None = None
    output: Output = field(default_factory=Output)
    show_interval: float = 2.0
    workers: int | None = None
    seed: int = 0
    display_range: str | Sequence[float] | None = None
    bands: str | int | Sequence[int] | None = None
    axes: str | None = None
    duplicates: int | str = DISTANCE

    @property
    def display(self) -> Display:
        """How images that are not photos of 8 bits are shown."""
        return Display.of(self.display_range, self.bands, self.axes)

    @property
    def distance(self) -> int | None:
        """In how many bits the hashes of near-duplicates may differ; None: they are not searched."""
        if str(self.duplicates) == 'off':
            return None
        if not re.fullmatch(r'[0-9]{1,2}', str(self.duplicates)) or int(self.duplicates) > MOST_DISTANCE:
            raise InputError(
                f'{shown(str(self.duplicates))} is not a number of bits',
                accepted=f'0 to {MOST_DISTANCE}, or off',
                parameter='duplicates',
            )
        return int(self.duplicates)

    def __post_init__(self) -> None:
        self.display  # noqa: B018 - refuses what is not accepted
        self.distance  # noqa: B018 - likewise
        factor = self.rescale_factor
        if factor is not None and not 0 < factor <= 1000:
            raise InputError(f'{factor} is not a factor', accepted='above 0', parameter='rescale_factor')
        if not 0 <= self.show_interval <= DAY:
            raise InputError(f'{self.show_interval} seconds', accepted=f'0 to {DAY}', parameter='show_interval')
        check_seed(self.seed)
        if self.workers is not None:
            check_count(self.workers, 0, MOST_WORKERS, 'workers')
        if factor is not None and self.output.style.width:
            raise InputError('both a factor and a width', hint='give one of them', parameter='rescale_factor')

    def open(self) -> tuple[Source, Samples]:
        """The config and its dataset.

        Raises:
            InputError: They cannot be found or read.
        """
        source = images_of(str(self.config), self.options) or resolve(self.config, self.options)
        return source, Samples.of(source.config, self.phase, self.seed, self.channel_order, self.display)

    def choose(self, samples: Samples, shuffle: bool) -> list[int]:
        """Positions of the samples that are shown, in order."""
        text = self.show_number
        if text not in (None, 'all') and not re.fullmatch(r'[+-]?[0-9]{1,18}', str(text)):
            raise InputError(
                f'{shown(text)} is not a number of images', accepted='1 or more, or all', parameter='show_number'
            )
        limited = text is None and not self.output.out and not self.indices
        number = SHOWN_BY_DEFAULT if limited else None if text is None or text == 'all' else int(text)
        indices, classes = [str(each) for each in self.indices], [str(each) for each in self.classes]
        chosen = choose(samples, indices, classes, self.per_class, shuffle, number)
        if limited and len(chosen) == SHOWN_BY_DEFAULT < len(samples):
            log.info('%d of %s; -n all', len(chosen), f'{len(samples):,}')
        return chosen

    def processes(self, total: int) -> int:
        """How many processes work: as given, else some where there are many images and no window is opened."""
        if self.workers is not None:
            return 0 if self.output.show else self.workers
        return 0 if self.output.show or total < _WORTH_WORKERS else min(4, os.cpu_count() or 1)


@dataclass(frozen=True, eq=False)
class _Page:
    """One picture, ready to be written.

    Attributes:
        data: The file's bytes; None where no sample could be read.
        result: What it shows, without its pixels unless it is to be shown in a window.
    """

    data: bytes | None
    result: ImageGrid


@dataclass
class _Drawing:
    """``(number, indices) → page``; runs in a worker."""

    analysis: BrowseDataset
    samples: Samples
    style: Style
    suffix: str
    factor: float | None
    keep: bool

    def __call__(self, job: tuple[int, Sequence[int]]) -> _Page:
        """Reads and draws the samples of one picture."""
        number, indices = job
        result = self.analysis(self.samples, indices, number)
        if not result.rows:
            return _Page(None, result)
        style = rescaled(result, self.factor, self.style) if self.factor is not None else self.style
        data = picture_bytes(result, style, self.suffix)
        return _Page(data, result if self.keep else replace(result, rows=()))


@dataclass
class _Browsed:
    """What the samples that were drawn so far are reported with.

    Attributes:
        failures: The samples that could not be read.
        faults: What is wrong with annotations: index, path, text.
    """

    failures: list[Failure] = field(default_factory=list)
    faults: list[tuple[int, str, str]] = field(default_factory=list)

    def add(self, result: ImageGrid) -> None:
        """Adds one picture, and logs what is to know about it."""
        for text in (each.describe() for each in result.shown):
            if text:
                log.info('%s', text)
        for fault in result.faults:
            log.warning('%s', fault_line(*fault))
        self.failures += [Failure(f'sample {index}', error) for index, error in result.failed]
        self.faults += result.faults

    def finish(self, total: int) -> None:
        """Logs at the end how much was wrong with ``total`` samples."""
        _count_faults(self.faults, total)
        log_failures(self.failures, total)


def browse(spec: DatasetSpec, callbacks: Callbacks | None = None) -> RunSummary:
    """Draws samples of a dataset.

    Raises:
        InputError: The dataset cannot be opened, nothing can be written, or the only sample cannot be read.
    """
    callbacks, started = callbacks or Callbacks(), time.perf_counter()
    source, samples = spec.open()
    analysis, output = spec.analysis, spec.output
    shuffle = spec.shuffle
    if analysis.mode == 'batch':
        batcher = Batcher(source.config, spec.phase, spec.seed)
        analysis = replace(analysis, batcher=batcher)
        shuffle |= batcher.shuffles and not spec.indices
    chosen = spec.choose(samples, shuffle)
    size = analysis.per_picture
    jobs = [(number, chosen[start : start + size]) for number, start in enumerate(range(0, len(chosen), size))]
    out = output.path(source.name, 'browse_dataset')
    visualizer = Visualizer(out, output.style, show=output.show)
    visualizer.check(len(jobs), sheet=_sheet_of(len(chosen), analysis))
    drawing = _Drawing(analysis, samples, output.style, visualizer.suffix, spec.rescale_factor, output.show)
    choices = _choices(spec)
    kind = 'batch' if analysis.mode == 'batch' else 'sheet' if analysis.sheet else ''
    rows: list[Mapping[str, Any]] = []
    files: list[Path] = []
    found = _Browsed()
    for number, page in enumerate(ordered_map(drawing, jobs, spec.processes(len(chosen)))):
        callbacks.progress(number, len(jobs))
        found.add(page.result)
        if page.data is None:
            continue
        rows += page.result.samples if output.save_raw else []  # kept to the end: a kilobyte a sample
        name = file_name(f'{kind}-{number + 1:04d}' if kind else page.result.name, *choices)
        visualizer.keep(each['path'] for each in page.result.samples if each.get('path'))
        files.append(visualizer.put(name, page.data))
        callbacks.written(files[-1:])
        if output.show:
            open_window(page.result, output.style, name, spec.show_interval)
    callbacks.progress(len(jobs), len(jobs))
    if len(chosen) == 1 and found.failures:
        raise found.failures[0].error.under('config')
    if output.save_raw:
        files.append(_write_table(rows, visualizer, file_name('samples', *choices)))
        callbacks.written(files[-1:])
    found.finish(len(chosen))
    done = len(chosen) - len(found.failures)
    return RunSummary(out, done, 0, tuple(found.failures), tuple(files), time.perf_counter() - started)


def fault_line(index: int, path: str, text: str) -> str:
    """One fault of the annotations as a line: its sample, its file, what is wrong."""
    return f'sample {index}{f" ({on_one_line(path)})" if path else ""}: {text}'


def _count_faults(faults: Sequence[tuple[int, str, str]], total: int) -> None:
    if faults:
        wrong = len({index for index, _, _ in faults})
        told = counted(len(faults), 'fault'), wrong, counted(total, 'sample')
        log.warning('%s in the annotations of %d of %s', *told)


def report(spec: DatasetSpec, callbacks: Callbacks | None = None) -> RunSummary:
    """Measures samples of a dataset and writes one page about them.

    Raises:
        InputError: The dataset cannot be opened, no sample can be read, or nothing can be written.
    """
    callbacks, started = callbacks or Callbacks(), time.perf_counter()
    source, samples = spec.open()
    chosen, output = spec.choose(samples, spec.shuffle), spec.output
    out = output.path(source.name, 'browse_dataset')
    visualizer = Visualizer(out, output.style, save_raw=output.save_raw)
    visualizer.check()
    distance = spec.distance if can_hash() else None
    if spec.distance is not None and distance is None:
        log.warning('near-duplicates are not searched: imagehash is not installed; pip install imagehash')
    analysis = DatasetReport(spec.phase, hashes=distance is not None)
    measured: list[Measured] = []
    for each in ordered_map(partial(analysis.measured, samples), chosen, spec.processes(len(chosen))):
        callbacks.progress(len(measured), len(chosen))
        measured.append(each)
    callbacks.progress(len(chosen), len(chosen))
    title = f'{source.name} · {spec.phase} · {len(chosen):,} of {counted(len(samples), "sample")}'
    with naming('config'):
        result = replace(analysis.summed(samples, measured), title=title)
    if distance is not None:
        result = _with_duplicates(result, spec, source, samples, [each.hashed for each in measured], distance)
    name = file_name('report', spec.phase, spec.classes)
    visualizer.keep(each.path for each in measured)
    files = visualizer.write(result, name)
    files += _write_findings(result, visualizer, name)
    callbacks.written(files)
    for fault in result.faults:
        log.warning('%s', fault_line(*fault))
    _count_faults(result.faults, len(chosen))
    pairs = result.duplicates or ()
    for pair in pairs[:MOST_LINES]:
        log.warning('%s: %s', 'leak' if pair.leaks else 'near-duplicate', pair.text)
    if len(pairs) > MOST_LINES:
        log.warning('and %s more, in the table', counted(len(pairs) - MOST_LINES, 'pair'))
    log.info('%s', _line(result))
    failures = [Failure(f'sample {index}', error) for index, error in result.failed]
    log_failures(failures, len(chosen))
    done = len(chosen) - len(failures)
    return RunSummary(out, done, 0, tuple(failures), tuple(files), time.perf_counter() - started)


def _with_duplicates(
    result: DatasetSummary,
    spec: DatasetSpec,
    source: Source,
    samples: Samples,
    hashes: Sequence[HashedImage | None],
    distance: int,
) -> DatasetSummary:
    """The summary with all pairs of near-duplicates in the samples and between them and the other phases."""
    datasets = {spec.phase: samples, **_other_phases(spec, source)}
    images = [each for each in hashes if each is not None]
    for phase, others in datasets.items():
        if phase != spec.phase:
            work = partial(hashed_sample, others, phase)
            found = ordered_map(work, range(len(others)), spec.processes(len(others)))
            images += [each for each in found if each is not None]
    pairs = [each for each in near_duplicates(images, distance) if spec.phase in (each.first.phase, each.second.phase)]
    companions = dict(result.companions)
    if pairs:
        companions['duplicates'] = duplicate_grid(pairs[:MOST_PAIRS], datasets)
    return replace(result, duplicates=tuple(pairs), companions=companions)


def _other_phases(spec: DatasetSpec, source: Source) -> dict[str, Samples]:
    """The datasets of the other phases that the config has, each once; those that cannot be opened are named."""
    known = [dataset_config(source.config, spec.phase)]
    found: dict[str, Samples] = {}
    for phase in phases_with_data(source.config):
        if phase == spec.phase or (described := dataset_config(source.config, phase)) in known:
            continue
        known.append(described)
        try:
            found[phase] = Samples.of(source.config, phase, spec.seed, spec.channel_order, spec.display)
        except InputError as error:
            log.warning('near-duplicates between %s and %s are not searched: %s', spec.phase, phase, error)
    return found


def _write_findings(result: DatasetSummary, visualizer: Visualizer, name: str) -> list[Path]:
    """Tables of the faults and of the near-duplicates, where there are any."""
    files = []
    if result.faults:
        rows = [{'index': index, 'path': path, 'fault': text} for index, path, text in result.faults]
        files.append(_write_table(rows, visualizer, name, '_faults'))
    if result.duplicates:
        pairs = [
            {
                'phase': pair.first.phase,
                'index': pair.first.index,
                'path': pair.first.path,
                'other_phase': pair.second.phase,
                'other_index': pair.second.index,
                'other_path': pair.second.path,
                'distance': pair.distance,
                'mirrored': pair.mirrored,
            }
            for pair in result.duplicates
        ]
        files.append(_write_table(pairs, visualizer, name, '_duplicates'))
    return files


def _choices(spec: DatasetSpec) -> tuple[object, ...]:
    """What the run varies, for file names."""
    repeats = spec.analysis.repeats
    drawn = f'x{repeats}' if repeats > 1 else ''
    return spec.phase, spec.analysis.mode, spec.classes, drawn, f'seed{spec.seed}' if spec.seed else ''


def _sheet_of(count: int, analysis: BrowseDataset) -> str:
    """The rows and columns that hold so many samples in one picture; ``''`` where a picture is a batch."""
    if analysis.mode == 'batch' or count > _MOST_OF_SHEET:
        return ''
    columns = 1 if analysis.mode == 'pipeline' or analysis.repeats > 1 else math.ceil(math.sqrt(count))
    shown = 2 * columns if analysis.mode == 'concat' else columns  # each sample takes two places there
    return f'{math.ceil(count / columns)} {shown}'


def _write_table(rows: Sequence[Mapping[str, Any]], visualizer: Visualizer, name: str, suffix: str = '') -> Path:
    """Writes a table: beside the picture where there is one file, else in the folder.

    Args:
        rows: What it holds.
        visualizer: Where pictures are written.
        name: Of the table in a folder.
        suffix: What its name has besides.
    """
    out = Path(str(visualizer.out))
    in_one_file = out.suffix.lower() == visualizer.suffix
    path = out.with_name(f'{out.stem}{suffix}.csv') if in_one_file else out / f'{name}{suffix}.csv'
    write_file(path, table(rows, ['index']))
    return path


def _line(result: DatasetSummary) -> str:
    def numbers(values: Any) -> str:
        return ' '.join(f'{value:.1f}' for value in values)

    names = ', '.join(channel_names(len(result.found))).replace('red, green, blue', 'R, G, B')
    found = f'mean {numbers(result.found[:, 0])}, std {numbers(result.found[:, 1])} ({names})'
    if result.expected is not None:
        found += f'; config: mean {numbers(result.expected[:, 0])}, std {numbers(result.expected[:, 1])}'
    return f'{found}: {result.verdict}'
