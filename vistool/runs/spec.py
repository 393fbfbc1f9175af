"""What a run is asked to do, as typed values, and the models and images that it names."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from torch import Tensor, nn

from vistool.analyses.base import MapAnalysis
from vistool.data.dataloaders import PHASES, phases_with_data
from vistool.data.datasets import (
    DatasetItem,
    DatasetItems,
    Label,
    LabeledFiles,
    LabeledSamples,
    at_indices,
    class_ids,
    dataset_items,
    of_classes,
)
from vistool.data.display import Display
from vistool.data.samples import Item, Sample, find_inputs
from vistool.environment import anonymized
from vistool.errors import InputError, check_count, check_seed, counted, naming, param
from vistool.models.classes import read_names
from vistool.models.configs import Source, resolve
from vistool.models.input_size import sizing
from vistool.models.model import Model, load
from vistool.network.inputs import run_network
from vistool.network.outputs import CHOOSE, OutputName, Readout, absence
from vistool.results import MetricsSummary
from vistool.visualization.files import ProtectedFiles
from vistool.visualization.style import Style

if TYPE_CHECKING:
    from mmengine.config import Config

log = logging.getLogger('vistool')

MOST_IMAGES, MOST_WORKERS = 4096, 256
"""The largest batch, and the most threads or processes, that a run takes."""

PathLike: TypeAlias = 'str | Path'
Images: TypeAlias = 'PathLike | Sequence[PathLike | Item]'
"""A file, a folder, a glob pattern, a ``.txt`` list, ``@train``, ``@val`` or ``@test`` of the config, paths, or
images that were found before."""


@dataclass(frozen=True)
class ModelSpec:
    """One model of a run.

    Attributes:
        model: A config file, ``mmpretrain::…``, a model name, a run directory, ``timm::NAME``, …; or a loaded model, or
            a plain module.
        checkpoint: A path, URL, ``demo://NAME`` or ``'none'``; None: the run directory's, else the config's.
        transform: For a plain module: PIL image → input tensor ``(C, H, W)``.
    """

    model: Model | nn.Module | PathLike
    checkpoint: str | None = None
    transform: Callable[[Any], Tensor] | None = None


@dataclass(frozen=True)
class Models:
    """The models of a run, and how they are loaded.

    Attributes:
        first: The model that is explained.
        compare: Models that stand beside it, held to its targets and layers.
        options: Changes to the configs, ``{'model.backbone.depth': 18}``.
        device: ``'cpu'``, ``'cuda'``, ``'cuda:0'``, …
        trust_checkpoint: Whether a checkpoint's pickle may run code.
        files: For a network with several inputs: input name → file, or a folder with a file of the image's name.
        draw_on: The input on which maps are drawn.
        img_size: The size at which photos are read: an edge (``'518'``), ``'480,640'`` or a factor (``'0.5x'``); None:
            what the pipeline makes of them.
        fit: What is done with sizes that are not a multiple of the patch: ``'crop'``, ``'pad'`` or ``'resize'``.
        output: Which tensor of the networks' outputs holds the scores; None: each config's, else it is found.
        activation: What the scores mean; None: each config's, else ``'auto'``. See :class:`~vistool.Model`.
        display_range: The values that pictures show as black and white, for images that are not photos of 8 bits:
            ``'auto'``, ``'0,4095'``, ``'2%,98%'`` or two numbers. Networks get the same whatever it says.
        bands: The bands that pictures show as red, green and blue: ``'4,3,2'`` or numbers, from 1.
        axes: ``'HWC'`` or ``'CHW'``, of arrays in files; None: as the pipeline and the network declare.
        names: What the models are called in figures, the first one's included; ``()``: see :func:`labels`.
        classes_file: A text file with the names of the outputs, one a line; None: the checkpoint's, else the dataset's.
    """

    first: ModelSpec
    compare: tuple[ModelSpec, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str = 'cpu'
    trust_checkpoint: bool = False
    files: Mapping[str, Path] = field(default_factory=dict)
    draw_on: str | None = None
    img_size: str | None = None
    fit: str = 'crop'
    output: OutputName = None
    activation: str | None = None
    display_range: str | Sequence[float] | None = None
    bands: str | int | Sequence[int] | None = None
    axes: str | None = None
    names: tuple[str, ...] = ()
    classes_file: PathLike | None = None

    def __post_init__(self) -> None:
        """Refuses a display or names that are not accepted before anything is loaded."""
        self.display  # noqa: B018
        count = 1 + len(self.compare)
        if self.names and not self.compare:
            raise InputError('nothing is compared', hint=f'{param("compare")} adds models', parameter='names')
        if self.names and (len(self.names) != count or len(set(self.names)) != count):
            given = ', '.join(map(repr, self.names))
            accepted = f'{count} different names: one for each model, the first one included'
            raise InputError(f'{given} for {count} models', accepted=accepted, parameter='names')

    @property
    def display(self) -> Display:
        """How images that are not photos of 8 bits are shown."""
        return Display.of(self.display_range, self.bands, self.axes)

    @cached_property
    def classes(self) -> tuple[str, ...] | None:
        """The names in the file; None without one."""
        return read_names(self.classes_file, 'classes_file') if self.classes_file else None

    @property
    def said(self) -> dict[str, Any]:
        """What the caller says about the networks' outputs, where it says something."""
        given = {'output': self.output, 'activation': self.activation, 'classes': self.classes}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Selection:
    """Which images of a run are taken.

    Attributes:
        indices: Their places: ``7``, ``'-1'``, ``'10-19'``.
        classes: Of a dataset: class ids or names.
        per_class: Of a dataset: at most this many of each class, drawn with the seed.
        only: ``'wrong'``, ``'right'`` or ``'uncertain'``, by what the model predicts.
        max_samples: At most this many in all, drawn with the seed.
    """

    indices: Sequence[int | str] = ()
    classes: Sequence[int | str] = ()
    per_class: int | None = None
    only: str | None = None
    max_samples: int | None = None

    def __bool__(self) -> bool:
        return bool(self.indices or self.classes or self.per_class or self.max_samples or self.only)


@dataclass(frozen=True)
class Execution:
    """How a run is carried out; apart from the last digits it does not change what is written.

    Attributes:
        batch_size: Images per forward; halved where the memory does not suffice.
        workers: Threads that read, and threads that write.
        amp: Mixed precision: fp16 on a GPU, bf16 on the CPU. (It does change what is written.)
        resume: Whether to continue the run in the output folder.
        overwrite: Whether to start again, whatever the output folder holds.
        launcher: What started the processes of the run: ``'none'``, ``'pytorch'`` or ``'slurm'``.
        deterministic: The same bytes however many processes and interruptions there are.
    """

    batch_size: int = 8
    workers: int = 2
    amp: bool = False
    resume: bool = False
    overwrite: bool = False
    launcher: str = 'none'
    deterministic: bool = False

    def __post_init__(self) -> None:
        for name, most in (('batch_size', MOST_IMAGES), ('workers', MOST_WORKERS)):
            check_count(getattr(self, name), 1, most, name)
        if self.resume and self.overwrite:
            raise InputError(
                f'continues a run, {param("overwrite")} starts it again', hint='leave one out', parameter='resume'
            )

    def needs_every_image(self, parameter: str) -> None:
        """Refuses to be combined with what needs all images in one process.

        Args:
            parameter: The parameter that does.

        Raises:
            InputError: This process will see only a part of the images.
        """
        for other, given, sees in (
            ('resume', self.resume, 'processes only the remaining ones'),
            ('launcher', self.launcher != 'none', 'gives each process a part of them'),
        ):
            if given:
                raise InputError(f'needs every image; {param(other)} {sees}', hint='leave one out', parameter=parameter)


@dataclass(frozen=True)
class Output:
    """What a run writes, and where.

    Attributes:
        out: A file with a picture's suffix for one image, else a folder; None: ``work_dirs/<model>/<tool>/``.
        style: How results are drawn.
        save_raw: Whether the numbers are written beside each picture.
        panels: Folder for each tile, untitled and at native resolution.
        sheet: File for pages with all images of the run.
        all_channels: Folder for each channel of feature maps as a picture of its own.
        show: Whether each picture is shown in a window as well.
        gallery: None, or a web page over the run, with the folders of other runs to stand beside it.
        embedding: Where the images lie on a map of that page: the output folder of vis_tsne, or a table.
        backends: mmengine's visualization backends that get each picture too: ``tensorboard``, ``wandb``, …
    """

    out: PathLike | None = None
    style: Style = field(default_factory=Style)
    save_raw: bool = False
    panels: PathLike | None = None
    sheet: PathLike | None = None
    all_channels: PathLike | None = None
    show: bool = False
    gallery: tuple[PathLike, ...] | None = None
    backends: tuple[str, ...] = ()
    embedding: PathLike | None = None
    anonymous: bool = False

    def path(self, model: str, tool: str) -> Path:
        """Where results go.

        Args:
            model: The model's name, for the default folder.
            tool: The run's tool, for the default folder.
        """
        return Path(self.out) if self.out else Path('work_dirs') / model / tool


@dataclass(frozen=True)
class RunSpec:
    """A run of an analysis over images.

    Attributes:
        analysis: The analysis.
        models: The models.
        images: The images.
        selection: Which of them are taken.
        execution: How the run is carried out.
        output: What is written.
        seed: Of random transforms, random weights and random choices of images.
        tool: What the run is called in its folder and its record: the command's name.
        command: The command line, for provenance.
        masks: Folder with a mask of the object for each image, for metrics of localization: the same stem, nonzero is
            inside. None: as the dataset's annotations say.
        again: The words of the same command line for other images, None where those stand; empty: there is none.
    """

    analysis: MapAnalysis
    models: Models
    images: Images
    selection: Selection = field(default_factory=Selection)
    execution: Execution = field(default_factory=Execution)
    output: Output = field(default_factory=Output)
    seed: int = 0
    tool: str = 'run'
    command: str = ''
    masks: PathLike | None = None
    again: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.output.embedding is not None and self.output.gallery is None:
            raise InputError('is for a gallery', hint=f'add {param("gallery", True)}', parameter='embedding')
        if self.output.sheet is not None:
            self.execution.needs_every_image('sheet')
        if self.analysis.reduces:
            self.execution.needs_every_image(self.analysis.reduces)

    def on_device(self, device: str) -> RunSpec:
        """The same run on another device."""
        return replace(self, models=replace(self.models, device=device))


@dataclass(frozen=True)
class Failure:
    """An item that could not be read or explained.

    Attributes:
        item: Its path or name.
        error: Why.
    """

    item: str
    error: InputError

    @property
    def reason(self) -> str:
        """Why, in one line."""
        return str(self.error)

    def __repr__(self) -> str:
        return f'{self.item}: {self.reason}'


@dataclass(frozen=True, repr=False)
class RunSummary:
    """How a run ended.

    Attributes:
        out: The folder or file that it wrote to.
        done: Items that it wrote.
        skipped: Items that were done before (``resume``).
        failures: Items that could not be read or explained.
        files: The files that this process wrote, in order.
        seconds: How long it took.
        canceled: Whether it was canceled; ``resume`` continues it.
        metrics: The metrics over all images of the run, where any were asked for; in the first process only.
    """

    out: Path
    done: int = 0
    skipped: int = 0
    failures: tuple[Failure, ...] = ()
    files: tuple[Path, ...] = ()
    seconds: float = 0.0
    canceled: bool = False
    metrics: MetricsSummary | None = None

    @property
    def images_per_second(self) -> float:
        """Throughput over the whole run, loading the model included."""
        return self.done / self.seconds if self.seconds else 0.0

    def __repr__(self) -> str:
        parts = [f'{self.done} done']
        parts += [f'{self.skipped} skipped'] * bool(self.skipped)
        parts += [f'{len(self.failures)} failed'] * bool(self.failures)
        parts += ['canceled'] * self.canceled
        files = counted(len(self.files), 'file')
        return f'RunSummary({", ".join(parts)} in {self.seconds:.1f} s: {files} in {str(self.out)!r})'


def log_failures(failures: Sequence[Failure], total: int) -> None:
    """Logs which items failed and why."""
    for failure in failures:
        error = failure.error
        if error.parameter == 'images':  # the line names the image itself
            error = InputError(error.problem, accepted=error.accepted, hint=error.hint)
        line = error.line(param)
        log.error('%s', line if failure.item in line else f'{failure.item}: {line}')
    if failures and len(failures) < total:
        log.error('%d of %s failed; the others are written', len(failures), counted(total, 'image'))
    elif failures:
        every = 'the only image' if total == 1 else f'all {counted(total, "image")}'
        log.error('%s failed; nothing is written', every)


AnyItem = Item | DatasetItem

OUTCOMES = ('wrong', 'right', 'uncertain')


class NoneOfThisOutcome(InputError):
    """The model predicts no image as ``only`` asks for: an answer, not a mistake, for runs that can write nothing."""


MARGIN = 0.2
"""An image is uncertain where the probabilities of the two most likely classes differ by less than this; with
independent labels, where those of a label and of its absence do."""


def find_source(spec: ModelSpec, models: Models) -> Source | Model | nn.Module:
    """What a model is made of: its config where it is named, the model itself where it is loaded."""
    if isinstance(spec.model, (Model, nn.Module)):
        return spec.model
    return resolve(spec.model, models.options)


def name_of(source: Source | Model | nn.Module) -> str:
    """What a model is called in folders and captions."""
    return type(source).__name__ if isinstance(source, nn.Module) else source.name


def config_of(source: Source | Model | nn.Module) -> Config | None:
    """A model's config, or None."""
    return None if isinstance(source, nn.Module) else source.config


@contextmanager
def opened_models(models: Models, first: Source | Model | nn.Module, seed: int) -> Iterator[list[Model]]:
    """The models of a run, ready to read images; those that the caller made are restored at the end.

    Args:
        models: Which.
        first: What the first is made of.
        seed: Of random weights.

    Raises:
        InputError: One of them cannot be found, built or loaded.
    """
    sources = [first, *(find_source(each, models) for each in models.compare)]
    resize = sizing(models.img_size, models.fit)
    with ExitStack() as restored:
        loaded = []
        for spec, source in zip((models.first, *models.compare), sources, strict=True):
            model = _load(spec, source, models, seed)
            model.use_files(models.files, models.draw_on)
            if models.display != Display():
                model.use_display(models.display)
            if resize is not None:
                restored.callback(resize(model).remove)
            loaded.append(model)
        yield loaded


def _load(spec: ModelSpec, source: Source | Model | nn.Module, models: Models, seed: int) -> Model:
    if isinstance(source, Model):  # the caller's own stays as it is
        changed = models.files or models.draw_on or models.img_size or models.display != Display() or models.said
        named_by = 'classes_file' if models.classes else source.named_by
        return replace(source, **models.said, named_by=named_by) if changed else source
    with naming('classes_file', 'classes') if models.classes else nullcontext():
        model = load(
            source,
            spec.checkpoint,
            device=models.device,
            transform=spec.transform,
            trust_checkpoint=models.trust_checkpoint,
            seed=seed,
            **models.said,
        )
    if models.classes:
        model.named_by = 'classes_file'
    return model


def find_items(images: Images, source: Source | Model | nn.Module) -> Sequence[AnyItem]:
    """The images of a run, in a fixed order.

    Raises:
        InputError: There are none.
    """
    spec = os.fspath(images) if isinstance(images, (str, os.PathLike)) else ''
    if not spec.startswith('@'):
        return find_inputs(images)
    phase, config = spec[1:], config_of(source)
    if phase not in PHASES:
        raise InputError(
            f'unknown dataset {spec!r}', accepted=', '.join(f'@{each}' for each in PHASES), parameter='images'
        )
    if config is None:
        raise InputError(f'{name_of(source)} has no config that names a dataset', parameter='images')
    there = phases_with_data(config)
    if there and phase not in there:
        raise InputError(
            f'{name_of(source)} has no {phase} dataset ({phase}_dataloader.dataset)',
            accepted=', '.join(f'@{each}' for each in there),
            parameter='images',
        )
    with naming('images', 'phase'):
        items = dataset_items(config, phase)
    if not len(items):
        raise InputError(f'the {phase} dataset of {name_of(source)} is empty', parameter='images')
    return items


def labeled(items: Sequence[AnyItem], classes: tuple[str, ...] | None) -> Sequence[AnyItem]:
    """The images of a run with the ids of the classes that a list of files writes beside them.

    Raises:
        InputError: The model has no such class.
    """
    files = [item for item in items if isinstance(item, Item)] if isinstance(items, list) else []
    return LabeledFiles(files, classes) if any(item.label is not None for item in files) else items


def keep_images(items: Sequence[AnyItem], **files: PathLike | None) -> None:
    """Refuses, before the work, to write a picture over one of the images that it is made from.

    Args:
        items: The images; of a dataset they are looked up only where a file is in the way.
        files: Where pictures go, by parameter; None and folders are passed over, in which the visualizer looks
            (:meth:`~vistool.visualization.visualizer.Visualizer.keep`).

    Raises:
        InputError: One of the files is one of the images.
    """
    there = {parameter: Path(file) for parameter, file in files.items() if file is not None and os.path.isfile(file)}
    photos = ProtectedFiles(item.path for item in items) if there else ProtectedFiles()
    for parameter, file in there.items():
        photos.refuse(file, parameter)


def is_one_file(images: Images, items: Sequence[AnyItem]) -> bool:
    """Whether a run is over a single image that was named by its path."""
    return isinstance(images, (str, os.PathLike)) and len(items) == 1 and Path(images).is_file()


def read_views(models: Sequence[Model], item: AnyItem, seed: int, index: int = 0) -> tuple[Sample, ...]:
    """An image as each model's pipeline reads it."""
    if isinstance(item, DatasetItem):
        first = models[0].read(item.source, seed=seed, index=item.index, name=item.name, info=item.info)
    else:
        info = {'gt_label': item.label} if isinstance(item.label, int) else None
        first = models[0].read(item.path, seed=seed, index=index, name=item.name, info=info)
    source = item.source if isinstance(item, DatasetItem) else item.path
    others = [model.read(source, seed=seed, index=first.index or 0, name=first.name) for model in models[1:]]
    views = (first, *others)
    return views if isinstance(item, DatasetItem) else tuple(map(item.named, views))


def labels(models: Sequence[Model], names: Sequence[str] = ()) -> list[str]:
    """What tells the models apart in a figure.

    Args:
        models: The models.
        names: What the caller calls them; ``()``: the names of their configs; where those are the same, what is
            different in the paths of their checkpoints.
    """
    if names:
        return list(names)
    configs = anonymized([model.name for model in models])
    if len(set(configs)) == len(configs):
        return configs
    weights = anonymized(told_apart([model.weights_source if model.checkpoint else 'random' for model in models]))
    if len(set(configs)) == 1:
        return weights
    return [f'{config} {weight}' for config, weight in zip(configs, weights, strict=True)]


def told_apart(paths: Sequence[str]) -> list[str]:
    """The shortest end of each path that no other path has, without what all of them end in.

    >>> told_apart(['runs/a/best.pth', 'runs/b/best.pth'])
    ['a', 'b']
    >>> told_apart(['a/epoch_1.pth', 'a/epoch_2.pth'])
    ['epoch_1', 'epoch_2']

    Equal paths stay equal.
    """
    parts = [(*PurePath(path).parts[:-1], PurePath(path.removeprefix('demo://')).stem) for path in paths]
    depth = max(len(each) for each in parts)
    for first in range(1, depth + 1):
        for last in range(first, 0, -1):
            ends = ['/'.join(each[-first : len(each) - last + 1]) for each in parts]
            if len(set(ends)) == len(set(parts)) and all(ends):
                return ends
    return ['/'.join(each) for each in parts]


@dataclass(frozen=True)
class Prediction:
    """What the model predicts for one image.

    Attributes:
        index: The image's position.
        class_id: The most likely class.
        score: Its probability; of independent labels, that of the surest decision.
        margin: How much less likely the next class is; of independent labels, how much less likely the other decision
            about the least certain label is.
        labels: The ids of the labels with a probability of at least 0.5, where they are independent; else None.
        binary: Whether the network's one number stands for two classes.
    """

    index: int
    class_id: int
    score: float
    margin: float
    labels: tuple[int, ...] | None = None
    binary: bool = False

    def is_right(self, label: Label) -> bool | None:
        """Whether a sample's label says the same; None where it says nothing.

        Of classes that exclude each other the predicted one has to be among the label's. Of independent labels exactly
        those of the label have to be predicted, or, if the label is a single id, the most likely has to be it.
        """
        if label is None or isinstance(label, dict):
            return None
        if self.binary and isinstance(label, np.ndarray) and label.size == 1:
            return self.class_id == int(label.item() >= 0.5)
        truth = class_ids(label)
        if self.labels is not None and not isinstance(label, int):
            return set(self.labels) == set(truth)
        return self.class_id in truth if truth else None


def predict(model: Model, samples: Sequence[Sample], amp: bool = False) -> list[Prediction]:
    """The model's predictions for a batch.

    Raises:
        InputError: The model gives no class scores.
    """
    import torch

    inputs = model.batch(samples)
    with model.borrowed(), torch.no_grad(), model.precision(amp):
        output = run_network(model.module, inputs)
        readout = model.readout(output, len(samples), inputs)
    if readout is None or readout.meaning in ('value', 'scores'):
        gives = f'gives {readout.words}' if readout else f'gives no class scores ({absence(model.module, output)})'
        raise InputError(f'{model.name} {gives}', hint=f'leave it out, or {CHOOSE}', parameter='only')
    shares = readout.numbers(readout.scores(output, len(samples)))
    return [_prediction(sample, each, readout) for sample, each in zip(samples, shares, strict=True)]


def _prediction(sample: Sample, shares: Tensor, readout: Readout) -> Prediction:
    """From the probabilities ``(C,)`` of one image."""
    assert sample.index is not None
    best = shares.topk(min(2, len(shares)))
    values, ids = best.values.tolist(), best.indices.tolist()
    if readout.exclusive:
        margin = values[0] - values[1] if len(values) > 1 else values[0]
        return Prediction(sample.index, ids[0], values[0], margin, binary=readout.columns == 1)
    decided = (2 * shares - 1).abs()
    labels = tuple((shares >= 0.5).nonzero()[:, 0].tolist())
    return Prediction(sample.index, ids[0], float((decided.max() + 1) / 2), float(decided.min()), labels)


def select(
    selection: Selection,
    items: Sequence[AnyItem],
    predictions: Callable[[Sequence[int]], Iterable[Prediction]],
    seed: int = 0,
) -> list[int]:
    """Positions in ``items`` of the images that are taken, in ascending order.

    Args:
        selection: Where there are more images than it asks for they are drawn with the seed; of the wrong ones the most
            confident are taken, of the uncertain ones the least.
        items: A dataset's, or files.
        predictions: Of the images at these positions; called only with ``only``. Images that it leaves out cannot be
            read; they are taken, so that the run reports them.
        seed: Decides what is drawn.

    Raises:
        InputError: The selection does not fit the images, or no image is left.
    """
    _check(selection, items)
    count = len(items)
    classes = [each if isinstance(each, str) else f'id:{each}' for each in selection.classes]
    indices = [str(each) for each in selection.indices]
    pool = list(dict.fromkeys(at_indices(indices, count))) if indices else list(range(count))
    if classes:
        pool = of_classes(cast(LabeledSamples, items), pool, classes, None, None)
        if not pool:
            raise InputError(f'no image of {" ".join(classes)} among those chosen', parameter='classes')
    unread: list[int] = []
    if selection.only and pool:
        pool, unread = _by_outcome(selection.only, items, pool, predictions, seed)
    elif selection.per_class or selection.max_samples:
        pool = np.random.default_rng(abs(seed)).permutation(pool).tolist()
    if selection.per_class:
        pool = of_classes(cast(LabeledSamples, items), pool, classes, selection.per_class, selection.max_samples)
    chosen = sorted([*(pool[: selection.max_samples] if selection.max_samples else pool), *unread])
    if not chosen:
        only = [selection.only] if selection.only else []
        words = ['no', *only, 'image', *(['of', *classes] if classes else [])]
        kind = NoneOfThisOutcome if only else InputError
        raise kind(f'{" ".join(words)} among those chosen', parameter='only' if only else 'classes')
    if len(chosen) < count:
        log.info('%d of %s chosen', len(chosen), counted(count, 'image'))
    return chosen


def _check(selection: Selection, items: Sequence[AnyItem]) -> None:
    for name in ('per_class', 'max_samples'):
        value = getattr(selection, name)
        if value is not None and value < 1:
            raise InputError(f'{value} is not a number of images', accepted='1 or more', parameter=name)
    if selection.only and selection.only not in OUTCOMES:
        raise InputError(f'unknown outcome {selection.only!r}', accepted=', '.join(OUTCOMES), parameter='only')
    if isinstance(items, (DatasetItems, LabeledFiles)):
        return
    accepted = '@train, @val, @test, or a .txt or .csv list of "PATH,CLASS"'
    for name in ('classes', 'per_class'):
        if getattr(selection, name):
            raise InputError('files have no labels', accepted=accepted, parameter=name)
    if selection.only in ('wrong', 'right'):
        hint = f'{param("only", "uncertain")} needs no labels'
        raise InputError('files have no labels', accepted=accepted, hint=hint, parameter='only')


def _by_outcome(
    only: str, items: Any, pool: Sequence[int], predictions: Callable[[Sequence[int]], Iterable[Prediction]], seed: int
) -> tuple[list[int], list[int]]:
    """The positions that ``only`` asks for, those to be taken first in front; and those that could not be read."""
    found = {each.index: each for each in predictions(pool)}
    unread = [position for position in pool if position not in found]
    if only == 'uncertain':
        kept = [each for each in found.values() if each.margin < MARGIN]
        return [each.index for each in sorted(kept, key=lambda each: (each.margin, each.index))], unread
    judged = {position: each.is_right(items.label(position)) for position, each in found.items()}
    if judged and all(verdict is None for verdict in judged.values()):
        raise InputError('the dataset has no labels', accepted='uncertain', parameter='only')
    right = only == 'right'
    kept = [each for each in found.values() if judged[each.index] is right]
    if not right:
        return [each.index for each in sorted(kept, key=lambda each: (-each.score, each.index))], unread
    order = np.random.default_rng(abs(seed)).permutation(sorted(each.index for each in kept))
    return order.tolist(), unread
