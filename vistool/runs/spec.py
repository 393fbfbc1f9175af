"""What a run is asked to do, as typed values (models, images, execution, output), and how it ended."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from vistool.analyses.base import MapAnalysis
from vistool.errors import InputError, param
from vistool.models.model import Model
from vistool.visualization.style import Style

log = logging.getLogger('vistool')

PathLike: TypeAlias = 'str | Path'
Images: TypeAlias = 'PathLike | Sequence[PathLike]'
"""A file, a folder, a glob pattern, a ``.txt`` list, ``@train``, ``@val`` or ``@test`` of the config, or paths."""


@dataclass(frozen=True)
class ModelSpec:
    """One model of a run.

    Attributes:
        model: A config file, ``mmpretrain::…``, a model name, a run's folder, ``timm::NAME``, …; or a loaded model, or
            a plain module.
        checkpoint: A path, URL, ``demo://NAME`` or ``'none'``; None: the run folder's, else the config's.
        transform: For a plain module: PIL image → input tensor ``(C, H, W)``.
    """

    model: Model | nn.Module | PathLike
    checkpoint: str | None = None
    transform: Any = None  # the user's own callable


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
        for name in ('batch_size', 'workers'):
            if getattr(self, name) < 1:
                raise InputError('must be at least 1', parameter=name)
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

    def __post_init__(self) -> None:
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
        cancelled: Whether it was cancelled; ``resume`` continues it.
    """

    out: Path
    done: int = 0
    skipped: int = 0
    failures: tuple[Failure, ...] = ()
    files: tuple[Path, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    @property
    def images_per_second(self) -> float:
        """Throughput over the whole run, loading the model included."""
        return self.done / self.seconds if self.seconds else 0.0

    def __repr__(self) -> str:
        parts = [f'{self.done} done']
        parts += [f'{self.skipped} skipped'] * bool(self.skipped)
        parts += [f'{len(self.failures)} failed'] * bool(self.failures)
        parts += ['cancelled'] * self.cancelled
        return f'RunSummary({", ".join(parts)} in {self.seconds:.1f} s: {len(self.files)} files in {str(self.out)!r})'


def log_failures(failures: Sequence[Failure], total: int) -> None:
    """Logs which items failed and why."""
    for failure in failures:
        log.error('%s: %s', failure.item, failure.error.line(param))
    if failures:
        log.error('%d of %d images failed; the others are written', len(failures), total)
