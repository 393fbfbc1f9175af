"""What the commands that draw heat maps have in common: images in, models loaded, maps compared, files out."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from vistool import cli
from vistool.config import Source, resolve
from vistool.datasets import PHASES, DatasetItem, dataset_items
from vistool.errors import InputError
from vistool.inputs import Item, Sample, find_inputs
from vistool.inputs.multiple import parse_files
from vistool.jobs.batches import Batches, report
from vistool.jobs.comparison import labels, side_by_side
from vistool.models import Model, build_module, load
from vistool.results import Heatmaps
from vistool.visualization import Visualizer
from vistool.visualization.style import Style
from vistool.visualization.visualizer import sheet

log = logging.getLogger('vistool')


class HeatmapAnalysis(Protocol):
    """An analysis whose results can be compared between models."""

    def __call__(self, model: Any, subject: Any) -> Any:
        """Results for a list of samples."""

    def follow(self, result: Heatmaps, model: Model) -> HeatmapAnalysis:
        """The same analysis of another model, held to the choices made for ``result`` (its classes, its layers)."""


@runtime_checkable
class ComparingAnalysis(HeatmapAnalysis, Protocol):
    """An analysis that puts models beside each other itself, because it looks at more than their maps."""

    def compare(
        self, models: Sequence[Model], views: Sequence[Sequence[Sample]], names: Sequence[str]
    ) -> list[Heatmaps]:
        """One result per image; ``views`` are the same images as each model reads them."""


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
    prepare: Callable[[Model], None] | None = None,
    beside: Callable[[Heatmaps, Path, Style], list[Path]] | None = None,
) -> int:
    """Runs ``analysis`` on the images that the arguments name and writes the pictures.

    Args:
        args: Parsed arguments, with those of ``add_model``, ``add_picture``, ``add_compare``, ``add_inputs``,
            ``add_batch`` and ``add_run`` of :mod:`vistool.cli`.
        command: The command's name, for the default folder.
        analysis: What to do.
        choices: What the user chose for this run (method, class, layer), for file names.
        settle: Called once before the first picture; the analysis that it returns is used instead of ``analysis``.
        prepare: Called with each model before it reads anything.
        beside: Writes what else a result has, given its picture's path; returns the files.

    Returns:
        The exit code.
    """
    if args.batch_size < 1 or args.workers < 1:
        raise InputError('must be at least 1', argument='--batch-size' if args.batch_size < 1 else '--workers')
    source = resolve(args.config, cli.config_options(args.cfg_options))
    items = find_items(args.img, source)
    style = cli.style_of(args)
    out = cli.out_path(args, source.name, command)
    visualizer = Visualizer(out, style, save_raw=args.save_raw, show=args.show, panels=args.panels)
    visualizer.check(len(items))
    models = load_all(args, source)
    if prepare is not None:
        for model in models:
            prepare(model)
    chosen = [*choices, *(['vs', *labels(models)[1:]] if len(models) > 1 else [])]
    if args.checkpoint:
        chosen.append(models[0].weights_name)
    kept: list[Heatmaps] = []

    def read(index: int, item: Item | DatasetItem) -> Sample:
        return read_item(models[0], item, args.seed, index)

    def explain(samples: list[Sample]) -> list[Heatmaps]:
        results = explain_with(models, analysis, samples, args)
        if args.sheet:
            kept.extend(results)
        return results

    def write(result: Any, sample: Sample) -> list[Path]:
        written = visualizer.write(result, cli.file_name(sample.name, *chosen))
        return [*written, *(beside(result, written[0], style) if beside else ())]

    batches: Batches[Item | DatasetItem] = Batches(read, explain, write, args.batch_size, args.workers)

    def walk() -> Iterator[list[list[Sample]]]:
        return (views_of(models, samples, args.seed) for samples in batches.walk(items))

    if settle is not None:
        with models[0].precision(args.amp):
            analysis = settle(models, walk, len(items))
    failures = batches.run(items, cli.announce)
    if kept:
        cli.announce(sheet(kept, args.sheet, style))
    return report(failures, len(items))


def find_items(spec: str, source: Source) -> Sequence[Item | DatasetItem]:
    """The images that ``img`` names: a file, folder, glob or list, or ``@train``, ``@val``, ``@test`` of the config.

    Raises:
        InputError: If there are none.
    """
    if not spec.startswith('@'):
        return find_inputs(spec)
    if spec[1:] not in PHASES:
        raise InputError(
            f'unknown dataset {spec!r}', accepted=', '.join(f'@{phase}' for phase in PHASES), argument='img'
        )
    items = dataset_items(source.config, spec[1:])
    if not len(items):
        raise InputError(f'the {spec[1:]} dataset of {source.name} is empty', argument='img')
    return items


def read_item(model: Model, item: Item | DatasetItem, seed: int, index: int = 0) -> Sample:
    """An image as the model's pipeline reads it."""
    if isinstance(item, DatasetItem):
        return model.read(item.source, seed=seed, index=item.index, name=item.name, info=item.info)
    return model.read(item.path, seed=seed, index=index, name=item.name)


def load_all(args: argparse.Namespace, source: Source) -> list[Model]:
    """The model of ``config`` and ``checkpoint``, then those of ``--compare``."""
    given: list[tuple[Source, str | None]] = [(source, args.checkpoint)]
    for words in args.compare:
        if len(words) > 2:
            raise InputError(
                f'{" ".join(words)!r}: {len(words)} words',
                accepted='CONFIG, or CONFIG CHECKPOINT',
                hint='put positionals before --compare',
                argument='--compare',
            )
        given.append((resolve(words[0], cli.config_options(args.cfg_options)), words[1] if len(words) > 1 else None))
    files = parse_files(args.input)
    models = []
    for each, checkpoint in given:
        trusted = args.trust_checkpoint
        models.append(load(each, checkpoint, device=args.device, trust_checkpoint=trusted, seed=args.seed))
        models[-1].use_files(files, args.draw_on)
    return models


def explain_with(
    models: Sequence[Model], analysis: HeatmapAnalysis, samples: list[Sample], args: argparse.Namespace
) -> list[Heatmaps]:
    """Results of the first model on a batch; beside them those of the others, held to the first one's choices."""
    provenance = {'command': args.command, 'seed': args.seed, 'amp': args.amp}
    if len(models) > 1 and isinstance(analysis, ComparingAnalysis):
        with models[0].precision(args.amp):
            found = analysis.compare(models, views_of(models, samples, args.seed), labels(models))
        return [result.with_recipe(**provenance) for result in found]
    with models[0].precision(args.amp):
        results: list[Heatmaps] = analysis(models[0], samples)
    results = [result.with_recipe(**provenance) for result in results]
    if len(models) == 1:
        return results
    names = labels(models)
    compared = []
    for result, sample in zip(results, samples, strict=True):
        beside = [result]
        for model in models[1:]:
            again = model.read(
                sample.original if sample.path is None else sample.path, seed=args.seed, index=sample.index or 0
            )
            with model.precision(args.amp):
                beside += analysis.follow(result, model)(model, [again])
        compared.append(side_by_side(beside, names))
    return compared


def views_of(models: Sequence[Model], samples: list[Sample], seed: int) -> list[list[Sample]]:
    """The same images as each model reads them."""

    def read(model: Model, sample: Sample) -> Sample:
        photo = sample.original if sample.path is None else sample.path
        return replace(model.read(photo, seed=seed, index=sample.index or 0), name=sample.name)

    return [samples, *([read(model, sample) for sample in samples] for model in models[1:])]


def preview_model(args: argparse.Namespace) -> int:
    """Lists the network's modules on stdout; needs neither image nor checkpoint."""
    cli.announce([build_module(resolve(args.config, cli.config_options(args.cfg_options)), args.seed)])
    return cli.OK
