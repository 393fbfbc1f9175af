"""The run of vis_check: images of a selection, read once, and one report about all of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vistool.analyses.check import Check
from vistool.data.datasets import DatasetItems
from vistool.data.samples import Sample
from vistool.errors import InputError, check_seed, naming, param
from vistool.models.model import Model
from vistool.results.checks import CheckReport
from vistool.runs.run import Callbacks
from vistool.runs.spec import (
    AnyItem,
    Failure,
    Images,
    Models,
    Output,
    Prediction,
    Selection,
    find_items,
    find_source,
    keep_images,
    labeled,
    log_failures,
    name_of,
    opened_models,
    predict,
    read_views,
    select,
)
from vistool.visualization.files import file_name
from vistool.visualization.visualizer import Visualizer

log = logging.getLogger('vistool')

FEW = 32
"""Images that are checked where no number is given: each runs through the network a few hundred times."""


@dataclass(frozen=True)
class CheckSpec:
    """A check of methods on a model, and the images that it is made on.

    Attributes:
        analysis: The check.
        models: The model.
        images: The images.
        selection: Which of them are taken; 32 drawn with the seed where there are more and no number is given.
        output: What is written.
        seed: Of random transforms and of the images that are drawn.
        command: The command line, for provenance.
    """

    analysis: Check
    models: Models
    images: Images
    selection: Selection = field(default_factory=Selection)
    output: Output = field(default_factory=Output)
    seed: int = 0
    command: str = ''

    def __post_init__(self) -> None:
        check_seed(self.seed)


@dataclass(frozen=True)
class CheckSummary:
    """How a check ended.

    Attributes:
        report: What was found.
        failures: Images that could not be read.
        files: The files written.
        seconds: How long it took.
    """

    report: CheckReport
    failures: tuple[Failure, ...] = ()
    files: tuple[Path, ...] = ()
    seconds: float = 0.0


def check(spec: CheckSpec, callbacks: Callbacks | None = None) -> CheckSummary:
    """Reads the images, makes the checks, and writes the report.

    Raises:
        InputError: A parameter is not accepted, or no image can be read.
    """
    callbacks, started = callbacks or Callbacks(), time.perf_counter()
    source = find_source(spec.models.first, spec.models)
    items = find_items(spec.images, source)
    out = spec.output.path(name_of(source), 'vis_check')
    keep_images(items, out=out)
    visualizer = Visualizer(out, spec.output.style, spec.output.save_raw, spec.output.show)
    visualizer.check()
    with opened_models(spec.models, source, spec.seed) as (model,):
        model.classes = model.classes or (items.classes if isinstance(items, DatasetItems) else None)
        items = labeled(items, model.classes)
        spec.analysis.check(model)
        samples, failures = _read(spec, model, items)
        visualizer.keep(sample.path for sample in samples)
        report = spec.analysis(model, samples)
    log_failures(failures, len(samples) + len(failures))
    report = report.with_provenance(**({'command': spec.command} if spec.command else {}), seed=spec.seed)
    name = samples[0].name if len(samples) == 1 else 'check'
    files = visualizer.write(report, file_name(name, *spec.analysis.cam.choices))
    callbacks.written(files)
    return CheckSummary(report, tuple(failures), tuple(files), time.perf_counter() - started)


def _read(spec: CheckSpec, model: Model, items: Sequence[AnyItem]) -> tuple[list[Sample], list[Failure]]:
    """The images that are chosen, and those that cannot be read."""
    selection = spec.selection
    if not selection and len(items) > FEW:
        log.info('%d of %d images are drawn; choose others with %s', FEW, len(items), param('max_samples'))
        selection = replace(selection, max_samples=FEW)

    def read(index: int) -> Sample:
        with naming('images'):
            return read_views([model], items[index], spec.seed, index)[0]

    def predictions(pool: Sequence[int]) -> list[Prediction]:
        found = []
        for index in pool:
            try:
                found += predict(model, [read(index)])
            except InputError as error:
                log.debug('%s', error)
        return found

    samples, failures = [], []
    chosen = select(selection, items, predictions, spec.seed)
    for index in chosen:
        try:
            samples.append(read(index))
        except InputError as error:
            if len(chosen) == 1:
                raise
            failures.append(Failure(str(items[index].path or items[index].name), error))
    if not samples:
        raise failures[0].error
    return samples, failures
