"""A run of an analysis over images: everything that the commands for maps do, from Python."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from vistool.analyses.base import MapAnalysis, Views
from vistool.analyses.cam import CAM
from vistool.data.datasets import DatasetItems
from vistool.data.samples import Sample
from vistool.environment import anonymous_files
from vistool.errors import InputError, counted, log_speller, naming, on_one_line, param
from vistool.gallery.build import build_gallery, check_others
from vistool.gallery.points import read_points
from vistool.models.classes import check_names, dataset_classes, fitting_names
from vistool.models.configs import Source, resolve
from vistool.models.model import Model, build_module, find_device
from vistool.network.layers import words_for
from vistool.network.outputs import output_count
from vistool.results import Heatmaps, MetricsSummary, Result
from vistool.runs.batches import Batches, throughput
from vistool.runs.distributed import DistInfo, deterministic, distributed, hint_at_gpu
from vistool.runs.manifest import (
    Manifest,
    again_of,
    entry_of,
    failed_entry,
    fingerprint,
    groups_of,
    other_roots,
    run_record,
    with_their_batches,
)
from vistool.runs.measurements import write_metrics
from vistool.runs.spec import (
    AnyItem,
    Execution,
    Failure,
    Images,
    Models,
    ModelSpec,
    NoneOfThisOutcome,
    Output,
    PathLike,
    Prediction,
    RunSpec,
    RunSummary,
    Selection,
    config_of,
    find_items,
    find_source,
    is_one_file,
    keep_images,
    labeled,
    labels,
    log_failures,
    name_of,
    opened_models,
    predict,
    read_views,
    select,
)
from vistool.runs.truth import TruthSource, find_truth, known_objects
from vistool.visualization.files import check_file, check_folder, file_name, is_file
from vistool.visualization.style import LEAST_PANEL, MOST_PANEL, Style
from vistool.visualization.visualizer import Visualizer, open_backends, sheet

log = logging.getLogger('vistool')


class CancelEvent(Protocol):
    """What can cancel a run, such as a :class:`threading.Event`."""

    def is_set(self) -> bool:
        """Whether to stop."""


@dataclass(frozen=True)
class Callbacks:
    """What a run calls on its way, always in the thread that drives it.

    Attributes:
        written: With the files of each item, as soon as they are whole and in the order of the items.
        progress: With the number of items that are finished and their total, in the first process only.
        fitted: With the analysis after :meth:`~vistool.analyses.base.MapAnalysis.fit`, in the first process only.
        canceled: Asked before each batch; true ends the run in a state that ``resume`` continues.
    """

    written: Callable[[Sequence[Path]], None] = lambda paths: None
    progress: Callable[[int, int], None] = lambda finished, total: None
    fitted: Callable[[MapAnalysis], None] = lambda analysis: None
    canceled: Callable[[], bool] = lambda: False


def run(
    model: Model | nn.Module | PathLike,
    images: Images,
    analysis: MapAnalysis,
    *,
    checkpoint: str | None = None,
    transform: Callable[[Any], Tensor] | None = None,
    compare: Sequence[Model | nn.Module | PathLike | tuple[PathLike, str]] = (),
    options: Mapping[str, Any] | None = None,
    device: str = 'cpu',
    trust_checkpoint: bool = False,
    files: Mapping[str, Path] | None = None,
    draw_on: str | None = None,
    img_size: str | None = None,
    fit: str = 'crop',
    output: str | int | None = None,
    activation: str | None = None,
    display_range: str | Sequence[float] | None = None,
    bands: str | int | Sequence[int] | None = None,
    axes: str | None = None,
    names: Sequence[str] = (),
    classes_file: PathLike | None = None,
    indices: Sequence[int | str] = (),
    classes: Sequence[int | str] = (),
    per_class: int | None = None,
    only: str | None = None,
    max_samples: int | None = None,
    out: PathLike | None = None,
    style: Style | None = None,
    save_raw: bool = False,
    panels: PathLike | None = None,
    sheet: PathLike | None = None,
    all_channels: PathLike | None = None,
    show: bool = False,
    gallery: bool | Sequence[PathLike] = False,
    embedding: PathLike | None = None,
    anonymous: bool = False,
    backends: Sequence[str] = (),
    batch_size: int = 8,
    workers: int = 2,
    amp: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    deterministic: bool = False,
    launcher: str = 'none',
    seed: int = 0,
    masks: PathLike | None = None,
    progress: Callable[[int, int], None] | None = None,
    written: Callable[[Sequence[Path]], None] | None = None,
    fitted: Callable[[MapAnalysis], None] | None = None,
    cancel: CancelEvent | None = None,
) -> RunSummary:
    """Runs an analysis over images and writes its pictures: what the commands do, from Python.

    >>> vt.run('work_dirs/exp', 'photos/', vt.CAM(['gradcam']), out='maps', gallery=True)
    RunSummary(37 done in 4.1 s: 39 files in 'maps')

    The parameters are described where they are kept: :class:`~vistool.runs.spec.Models`,
    :class:`~vistool.runs.spec.Selection`, :class:`~vistool.runs.spec.Output` and :class:`~vistool.runs.spec.Execution`.

    Args:
        model: A config, a model name, a run directory, …, as :func:`vistool.load` takes it; or a loaded model; or an
            ``nn.Module`` with its ``transform``.
        images: A file, a folder, a glob pattern, a ``.txt`` list, ``@train``, ``@val`` or ``@test`` of the config, or a
            list of paths.
        analysis: What to do with them: :class:`vistool.CAM`, :class:`vistool.Attention`, :class:`vistool.FeatureMaps`.
        checkpoint: The weights of ``model`` where it is named, not loaded.
        transform: For a plain module: PIL image → input tensor ``(C, H, W)``.
        compare: Models that stand beside the first, each as ``model`` or as ``(config, checkpoint)``.
        options: Changes to the configs.
        device: Where the models run.
        trust_checkpoint: Whether a checkpoint's pickle may run code.
        files: For a network with several inputs: input name → file or folder.
        draw_on: The input on which maps are drawn.
        img_size: The size at which photos are read.
        fit: What is done with sizes that are not a multiple of the patch.
        output: Which tensor of the networks' outputs holds the scores.
        activation: What the scores mean.
        display_range: The values that pictures show as black and white.
        bands: The bands that pictures show as red, green and blue.
        axes: The order of axes of arrays in files.
        names: What the models are called in figures, the first one's included.
        classes_file: A text file with the names of the outputs, one a line.
        indices: Which images, by position.
        classes: Which images of a dataset, by class.
        per_class: At most this many of each class.
        only: Which images, by what the model predicts.
        max_samples: At most this many images.
        out: A file for one image, else a folder.
        style: How results are drawn.
        save_raw: Whether numbers are written beside the pictures.
        panels: Folder for each tile as a picture of its own.
        sheet: File for pages with all images.
        all_channels: Folder for each channel as a picture of its own.
        show: Whether pictures are shown in windows.
        gallery: Whether a web page over the run is made; or folders of other runs to stand beside it there.
        embedding: Where the images lie on a map of that page: the output folder of vis_tsne, or a table.
        anonymous: Whether files say nothing that tells who made them, and where.
        backends: mmengine's visualization backends.
        batch_size: Images per forward.
        workers: Threads that read, and threads that write.
        amp: Mixed precision.
        resume: Whether to continue the run in ``out``.
        overwrite: Whether to start again, whatever ``out`` holds.
        deterministic: The same bytes however often the run is interrupted.
        launcher: What started the processes of the run.
        seed: Of whatever is random.
        masks: Folder with a mask of the object for each image, for metrics of localization.
        progress: Called with the number of finished images and their total.
        written: Called with the files of each image, as soon as they are whole.
        fitted: Called with the analysis once it knows what it has to know over all images (a PCA basis).
        cancel: Ends the run once its ``is_set()`` is true; ``resume`` continues it.

    Returns:
        How it ended.

    Raises:
        InputError: A parameter is not accepted, or nothing could be explained or written.
    """
    spec = RunSpec(
        analysis,
        Models(
            first=ModelSpec(model, checkpoint, transform),
            compare=tuple(ModelSpec(*each) if isinstance(each, tuple) else ModelSpec(each) for each in compare),
            options=options or {},
            device=device,
            trust_checkpoint=trust_checkpoint,
            files=files or {},
            draw_on=draw_on,
            img_size=img_size,
            fit=fit,
            output=output,
            activation=activation,
            display_range=display_range,
            bands=bands,
            axes=axes,
            names=tuple(names),
            classes_file=classes_file,
        ),
        images,
        Selection(indices=indices, classes=classes, per_class=per_class, only=only, max_samples=max_samples),
        Execution(
            batch_size=batch_size,
            workers=workers,
            amp=amp,
            resume=resume,
            overwrite=overwrite,
            launcher=launcher,
            deterministic=deterministic,
        ),
        Output(
            out=out,
            style=style or Style(),
            save_raw=save_raw,
            panels=panels,
            sheet=sheet,
            all_channels=all_channels,
            show=show,
            gallery=None if gallery is False else () if gallery is True else tuple(gallery),
            backends=tuple(backends),
            embedding=embedding,
            anonymous=anonymous,
        ),
        seed,
        type(analysis).__name__.lower(),
        masks=masks,
    )
    defaults = Callbacks()
    callbacks = Callbacks(
        written=written or defaults.written,
        progress=progress or defaults.progress,
        fitted=fitted or defaults.fitted,
        canceled=cancel.is_set if cancel else defaults.canceled,
    )
    return execute(spec, callbacks)


def execute(spec: RunSpec, callbacks: Callbacks | None = None) -> RunSummary:
    """Runs what a specification says; see :func:`run`."""
    execution, output = spec.execution, spec.output
    if output.anonymous and output.backends:
        problem = 'backends name their files after this machine'
        raise InputError(problem, hint=f'leave out {param("backends")}', parameter='anonymous')
    anonymous = anonymous_files(output.anonymous)
    with distributed(execution.launcher, spec.models.device) as dist, deterministic(execution.deterministic), anonymous:
        if not dist.is_main:
            log.setLevel(max(log.level, logging.WARNING))
        return _Run(spec.on_device(dist.device(spec.models.device)), dist, callbacks or Callbacks()).execute()


@dataclass(frozen=True)
class _Written:
    """The files of one image, and its entry in the manifest."""

    paths: list[Path]
    entry: dict[str, Any] | None


class _AllImages(Iterable[Views]):
    """The batches of a whole run, read anew for each iteration."""

    def __init__(self, read: Callable[[], Iterator[Views]]) -> None:
        self.read = read

    def __iter__(self) -> Iterator[Views]:
        return self.read()


def unweighted(spec: RunSpec) -> tuple[Model, Sample]:
    """The network of a run without its checkpoint, and the run's first image; what a run checks first is checked.

    Raises:
        InputError: As :func:`run` would raise before any image is explained.
    """
    models = spec.models
    described = models.first.model
    assert isinstance(described, (str, os.PathLike)), 'commands name a config'
    source = resolve(described, models.options)
    items = find_items(spec.images, source)
    open_output(spec, spec.output.path(source.name, spec.tool), len(items))
    device = find_device(models.device)
    module = build_module(source, spec.seed)
    count = output_count(module)
    if models.classes and count is not None:
        check_names(source.name, models.classes, count, 'classes_file')
    said = {'classes': fitting_names(source.name, [dataset_classes(source.config)], count), **models.said}
    model = Model(module, source.name, source.config, device=device, **said)
    spec.analysis.check(model)
    model.use_files(models.files, models.draw_on)
    with naming('images'):
        return model, read_views([model], items[0], spec.seed)[0]


def open_output(spec: RunSpec, out: Path, images: int) -> Visualizer:
    """What writes a run's results, after a check that it can.

    Args:
        spec: The run.
        out: Its file or folder.
        images: How many there are before the selection.

    Raises:
        InputError: Something cannot be written where the run says.
    """
    output = spec.output
    folders = {'channels': output.all_channels} if output.all_channels else {}
    if output.all_channels:
        check_folder(Path(output.all_channels), 'all_channels')
    if output.sheet is not None:
        check_file(Path(output.sheet), 'sheet')
    style = output.style if output.sheet is None else output.style.beside_sheet()
    visualizer = Visualizer(out, style, output.save_raw, output.show, output.panels, companions=folders)
    visualizer.check(1 if spec.selection else images, sheet=str(out))
    return visualizer


class _Run:
    """One run, as one of its processes sees it."""

    def __init__(self, spec: RunSpec, dist: DistInfo, callbacks: Callbacks) -> None:
        self.spec, self.dist, self.callbacks = spec, dist, callbacks
        self.analysis = spec.analysis
        self.started = time.perf_counter()
        self.files: list[Path] = []
        self.failures: list[Failure] = []
        self.sheet_results: list[Heatmaps] = []
        self.reduced: Mapping[str, Result] = {}
        self.total = self.finished = self.done_count = 0
        self.canceled = False
        self.truth: TruthSource | None = None
        self.metrics: MetricsSummary | None = None

    def execute(self) -> RunSummary:
        """Does all of it."""
        spec = self.spec
        source = find_source(spec.models.first, spec.models)
        self.items: Sequence[AnyItem] = find_items(spec.images, source)
        self.out = spec.output.path(name_of(source), spec.tool)
        keep_images(self.items, out=self.out, sheet=spec.output.sheet)
        self.visualizer = open_output(spec, self.out, len(self.items))
        truth = find_truth(self.analysis, spec.masks, self.items)
        with opened_models(spec.models, source, spec.seed) as self.models:
            self.name_classes()
            self.items = labeled(self.items, self.models[0].classes)
            self.analysis = self.analysis.for_model(self.models[0])
            self.choices = self.analysis.choices
            for model in self.models:
                self.analysis.check(model)
            if truth is None and self.analysis.finds_objects(self.models[0]):
                truth = known_objects(self.items)
            return self.explain_all(source, truth)

    def name_classes(self) -> None:
        """Gives models without class names those of the dataset, which may know them only once it is open."""
        names = self.items.classes if isinstance(self.items, DatasetItems) else None
        for model in self.models:
            model.classes = model.classes or names

    def explain_all(self, source: Source | Model | nn.Module, truth: TruthSource | None = None) -> RunSummary:
        """What comes after the models are loaded."""
        spec = self.spec
        self.batches: Batches[AnyItem, Heatmaps, _Written] = Batches(
            self.read, self.explain, self.write, spec.execution.batch_size, spec.execution.workers,
            canceled=self.ask_canceled,
        )  # fmt: skip
        try:
            order = self.select()
        except NoneOfThisOutcome as none:
            log.info('%s: nothing is written', none.problem)
            return RunSummary(self.out)
        self.visualizer.keep(self.items[index].path for index in order)
        self.visualizer.check(len(order))
        if truth is not None:
            truth.check(order, self.analysis.needs_truth)
            truth.translate(self.models[0].classes)
        self.truth = truth
        self.visualizer.style = self.with_common_panels(order)
        hint_at_gpu(spec.models.device, len(order))
        self.visualizer.backends = open_backends(
            spec.output.backends, self.out, config_of(source), self.dist.rank, self.dist.world_size
        )
        self.manifest = self.begin_manifest()
        pending = self.pending(order)
        skipped = len(order) - len(pending)
        if skipped:
            log.info('%d of %s done already', skipped, counted(len(order), 'image'))
        if pending:
            self.fit(order)
        self.process(order, pending)
        return self.finish(len(order), skipped)

    def select(self) -> list[int]:
        """Positions of the images that are taken."""
        model, execution = self.models[0], self.spec.execution

        def predictions(pool: Sequence[int]) -> Iterable[Prediction]:
            groups = groups_of(pool, pool, self.dist, execution.batch_size, True)
            own = [
                each
                for views in self.batches.walk(self.items, groups)
                for each in predict(model, views[0], execution.amp)
            ]
            return [each for part in self.dist.gather(own) for each in part]

        return select(self.spec.selection, self.items, predictions, self.spec.seed)

    def with_common_panels(self, order: Sequence[int]) -> Style:
        """The style in which panels of several images have one height: that of the first image that can be read."""
        style = self.visualizer.style
        if self.spec.output.panels is None or len(order) < 2 or style.panel_size is not None:
            return style
        whole = style.view == 'original' or (style.view is None and isinstance(self.analysis, CAM))
        for index in order:
            try:
                sample = self.read(index, self.items[index])[0]
            except InputError:  # reported when its turn comes
                continue
            known = sample.geometry is not None and sample.geometry.exact
            photo = sample.original if whole and known and sample.original is not None else sample.image
            return replace(style, panel_size=min(max(photo.shape[0], LEAST_PANEL), MOST_PANEL))
        return style

    def begin_manifest(self) -> Manifest | None:
        """The manifest of a run over many images, which is written with the first result; a single picture has none."""
        execution, gallery = self.spec.execution, self.spec.output.gallery
        if not (is_file(self.out) or is_one_file(self.spec.images, self.items)):
            if gallery:
                check_others(self.out, [Path(folder) for folder in gallery])
            if self.spec.output.embedding is not None:
                read_points(self.spec.output.embedding, 'embedding')
            again = again_of(self.spec.again, self.spec.images, self.out, execution.deterministic)
            record = {**run_record(self.spec, self.models), **again}
            # One process waits for its first result; several have to agree before they start.
            begin = Manifest.open if self.dist.world_size == 1 else Manifest.begin
            return begin(self.out, record, self.dist, execution.resume, execution.overwrite, other_roots(self.spec))
        of_many = {
            'resume': execution.resume,
            'gallery': gallery is not None,
            'embedding': self.spec.output.embedding is not None,
        }
        for option, given in of_many.items():
            if given:
                raise InputError('is for many images in a folder', hint='leave it out', parameter=option)
        return None

    def pending(self, order: Sequence[int]) -> list[int]:
        """Positions of the images that are not done."""
        pending = [index for index in order if not self.is_done(index)]
        execution = self.spec.execution
        if not execution.deterministic or self.manifest is None or not self.manifest.done:
            return pending
        failed = [index for index in pending if self.manifest.failed(self.items[index].name)]
        return with_their_batches(order, pending, failed, execution.batch_size)

    def is_done(self, index: int) -> bool:
        """Whether an earlier run left this image's files whole, with tiles for the gallery if they are wanted."""
        if self.manifest is None or not self.manifest.done:
            return False
        item = self.items[index]
        if self.spec.output.gallery is not None and not self.manifest.done.get(item.name, {}).get('tiles'):
            return False
        return self.manifest.has(fingerprint(item, index))

    def fit(self, order: Sequence[int]) -> None:
        """Lets the analysis see all images first, if it has to."""
        batches = _AllImages(lambda: self.batches.walk(self.items, [order]))
        with self.models[0].precision(self.spec.execution.amp):
            self.analysis = self.analysis.fit(self.models, batches, len(order))
        if self.dist.is_main:
            self.callbacks.fitted(self.analysis)

    def process(self, order: Sequence[int], pending: Sequence[int]) -> None:
        """Reads, explains and writes this process's part of what is pending."""
        execution = self.spec.execution
        groups = groups_of(order, pending, self.dist, execution.batch_size, execution.deterministic)
        unwanted = set(order).difference(pending) if execution.deterministic else set()
        self.total = sum(map(len, groups))
        self.unwanted = unwanted
        self.report_progress(0)
        try:
            self.batches.run(self.items, self.done, self.failed, groups, unwanted)
        except InputError as error:
            if self.manifest is None or not self.batches.clock.images:
                raise
            hint = f'{error.hint}; what is written stays, {param("resume", True)} continues'.removeprefix('; ')
            raise InputError(error.problem, accepted=error.accepted, hint=hint, parameter=error.parameter) from error
        finally:
            self.visualizer.close()

    def ask_canceled(self) -> bool:
        """Whether the run is to end before its next batch."""
        self.canceled = self.canceled or self.callbacks.canceled()
        return self.canceled

    def read(self, index: int, item: AnyItem) -> tuple[Sample, ...]:
        """An image as each model reads it; runs in a pool."""
        with naming('images'):
            views = read_views(self.models, item, self.spec.seed, index)
            truth = self.truth
            return views if truth is None else tuple(truth.told(item, sample) for sample in views)

    def explain(self, views: list[list[Sample]]) -> list[Heatmaps]:
        """The results of a batch; those of several models are joined."""
        amp = self.spec.execution.amp
        with self.models[0].precision(amp):
            if len(self.models) > 1:
                results = self.analysis.compare(self.models, views, labels(self.models, self.spec.models.names))
            else:
                results = self.analysis.results(self.models[0], views[0])
        for result in results:
            result.check_finite()
            missing, total = result.not_finite
            if missing:
                log.warning('%d of %d values of the maps are not finite; they are marked', missing, total)
        command = {'command': self.spec.command} if self.spec.command else {}
        results = [result.with_provenance(**command, seed=self.spec.seed, amp=amp) for result in results]
        self.reduced = self.analysis.reduce(self.reduced, results)
        if self.manifest is not None:
            self.manifest.start()
        if self.spec.output.sheet:
            self.sheet_results.extend(results)
        return results

    def write(self, result: Heatmaps, sample: Sample, seconds: float) -> _Written:
        """Writes one result; runs in a pool."""
        start = time.perf_counter()
        if self.reduced:  # those companions are part of a whole
            beside = {key: value for key, value in result.companions.items() if key not in self.reduced}
            result = replace(result, companions=beside)
        name = file_name(sample.name, *self.name_parts)
        paths = self.visualizer.write(result, name, sample.index or 0)
        if self.manifest is None:
            return _Written(paths, None)
        item = self.items[sample.index or 0]
        classes = self.items.classes if isinstance(self.items, DatasetItems) else None
        entry = entry_of(self.spec, self.out, self.models[0], item, sample, result, paths, classes)
        took = None if self.spec.execution.deterministic else round(seconds + time.perf_counter() - start, 4)
        return _Written(paths, {**entry, 'seconds': took, 'error': None})

    @property
    def name_parts(self) -> list[object]:
        """What file names say besides the image's own."""
        models = self.spec.models
        others = [['vs', *labels(self.models, models.names)[1:]]] if len(self.models) > 1 else []
        weights = [self.models[0].weights_name] if models.first.checkpoint else []
        return [*self.choices, models.img_size, *others, *weights]

    def done(self, written: _Written | None) -> None:
        """Records and announces one image's files."""
        if written is not None:
            if self.manifest is not None and written.entry is not None:
                self.manifest.add(written.entry)
            self.done_count += 1
            self.announce(written.paths)
        self.report_progress(1)

    def failed(self, index: int, item: AnyItem, error: InputError) -> None:
        """Records what could not be read or explained."""
        self.failures.append(Failure(on_one_line(item.path or item.name), error))
        if self.manifest is not None:
            self.manifest.add(failed_entry(item, index, error.line(log_speller.spelling)))
        self.report_progress(1)

    def announce(self, paths: Sequence[Path]) -> None:
        """Passes on what was written."""
        self.files += paths
        self.callbacks.written(paths)

    def report_progress(self, more: int) -> None:
        """Passes on how far the run is."""
        self.finished += more
        if self.dist.is_main:
            self.callbacks.progress(self.finished, self.total)

    def finish(self, total: int, skipped: int) -> RunSummary:
        """Merges the manifest, and writes what there is one of in the whole run."""
        dist = self.dist
        failures = tuple(each for part in dist.gather(self.failures) for each in part)
        clocks = dist.gather(self.batches.clock)
        canceled = any(dist.gather(self.canceled))
        if self.manifest is not None and not canceled:
            self.manifest.finish()
        if dist.is_main:
            if not canceled:
                self.write_whole()
            if total > 1 and any(clock.images for clock in clocks):
                log.info('%s', throughput(clocks))
            log_failures(failures, total)
        dist.wait()
        seconds, done = time.perf_counter() - self.started, sum(dist.gather(self.done_count))
        files = tuple(self.files)
        return RunSummary(self.out, done, skipped, failures, files, seconds, canceled, self.metrics)

    def write_whole(self) -> None:
        """Writes what there is one of in the whole run: a sheet, the gallery, what the analysis reduced."""
        output = self.spec.output
        if self.sheet_results and output.sheet is not None:
            self.announce(sheet(self.sheet_results, output.sheet, output.style))
        if output.gallery is not None:
            others = [Path(folder) for folder in output.gallery]
            embedding = None if output.embedding is None else Path(output.embedding)
            self.announce(build_gallery(self.out, others, embedding))
        if self.manifest is not None and self.analysis.measures:
            self.metrics, files = write_metrics(self.out, self.analysis.measures, self.spec.seed, output.style)
            self.announce(files)
        for key, result in self.reduced.items():
            if is_file(self.out):
                path = self.out.with_name(f'{self.out.stem}_{key}{self.out.suffix}')
            else:
                path = self.out / f'{file_name(key, words_for(self.spec.analysis.layers))}.png'
            self.announce(Visualizer(path, output.style, save_raw=True).write(result, path.stem))
