"""What the commands that draw heat maps have in common: images in, models loaded, maps compared, files out."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from vistool import cli
from vistool.batch import Batches, report
from vistool.comparison import labels, side_by_side
from vistool.config import Source, resolve
from vistool.errors import InputError
from vistool.inputs import Item, Sample, find_inputs
from vistool.inputs.multiple import parse_files
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


def draw_heatmaps(
    args: argparse.Namespace,
    command: str,
    analysis: HeatmapAnalysis,
    choices: Sequence[object],
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
        prepare: Called with each model before it reads anything.
        beside: Writes what else a result has, given its picture's path; returns the files.

    Returns:
        The exit code.
    """
    if args.batch_size < 1 or args.workers < 1:
        raise InputError('must be at least 1', argument='--batch-size' if args.batch_size < 1 else '--workers')
    source = resolve(args.config, cli.config_options(args.cfg_options))
    items = find_inputs(args.img)
    style = cli.style_of(args)
    out = cli.out_path(args, source.name, command)
    visualizer = Visualizer(out, style, save_raw=args.save_raw, show=args.show, panels=args.panels)
    visualizer.check(len(items))
    models = load_all(args, source)
    for model in models if prepare else ():
        prepare(model)
    chosen = [*choices, *(['vs', *labels(models)[1:]] if len(models) > 1 else [])]
    if args.checkpoint:
        chosen.append(models[0].weights_name)
    kept: list[Heatmaps] = []

    def read(index: int, item: Item) -> Sample:
        return replace(models[0].read(item.path, seed=args.seed, index=index), name=item.name)

    def explain(samples: list[Sample]) -> list[Heatmaps]:
        results = explain_with(models, analysis, samples, args)
        if args.sheet:
            kept.extend(results)
        return results

    def write(result: Any, sample: Sample) -> list[Path]:
        written = visualizer.write(result, cli.file_name(sample.name, *chosen))
        return [*written, *(beside(result, written[0], style) if beside else ())]

    batches: Batches[Item] = Batches(read, explain, write, args.batch_size, args.workers)
    failures = batches.run(items, cli.announce)
    if kept:
        cli.announce(sheet(kept, args.sheet, style))
    return report(failures, len(items))


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
    with models[0].precision(args.amp):
        results: list[Heatmaps] = analysis(models[0], samples)
    provenance = {'command': args.command, 'seed': args.seed, 'amp': args.amp}
    results = [result.with_recipe(**provenance) for result in results]
    if len(models) == 1:
        return results
    names = labels(models)
    compared = []
    for result, sample in zip(results, samples, strict=True):
        beside = [result]
        for model in models[1:]:
            again = model.read(sample.path, seed=args.seed, index=sample.index or 0)
            with model.precision(args.amp):
                beside += analysis.follow(result, model)(model, [again])
        compared.append(side_by_side(beside, names))
    return compared


def preview_model(args: argparse.Namespace) -> int:
    """Lists the network's modules on stdout; needs neither image nor checkpoint."""
    cli.announce([build_module(resolve(args.config, cli.config_options(args.cfg_options)), args.seed)])
    return cli.OK
