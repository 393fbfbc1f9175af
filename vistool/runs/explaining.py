"""One batch through an analysis, for one model or for several beside each other."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from vistool.data.samples import Sample
from vistool.models.model import Model
from vistool.results import Heatmaps, side_by_side
from vistool.runs.comparison import labels


class HeatmapAnalysis(Protocol):
    """An analysis whose results can be compared between models."""

    def __call__(self, model: Any, subject: Any) -> Any:
        """Results for a list of samples."""

    def follow(self, results: Sequence[Heatmaps], model: Model) -> HeatmapAnalysis:
        """The same analysis of another model, held to the choices made for a batch (classes, layers)."""


@runtime_checkable
class ComparingAnalysis(HeatmapAnalysis, Protocol):
    """An analysis that puts models beside each other itself, because it looks at more than their maps."""

    def compare(
        self, models: Sequence[Model], views: Sequence[Sequence[Sample]], names: Sequence[str]
    ) -> list[Heatmaps]:
        """One result per image; ``views`` are the same images as each model reads them."""


def explain_with(
    models: Sequence[Model], analysis: HeatmapAnalysis, samples: list[Sample], args: argparse.Namespace
) -> list[Heatmaps]:
    """Results of the first model on a batch; beside them those of the others, held to the first one's choices."""
    provenance = {'command': args.command, 'seed': args.seed, 'amp': args.amp}
    if len(models) > 1 and isinstance(analysis, ComparingAnalysis):
        with models[0].precision(args.amp):
            found = analysis.compare(models, views_of(models, samples, args.seed), labels(models))
        return [result.with_provenance(**provenance) for result in found]
    with models[0].precision(args.amp):
        results: list[Heatmaps] = analysis(models[0], samples)
    results = [result.with_provenance(**provenance) for result in results]
    if len(models) == 1:
        return results
    names = labels(models)
    compared = []
    for result, sample in zip(results, samples, strict=True):
        beside = [result]
        for model in models[1:]:
            photo: Any = sample.original if sample.path is None else sample.path
            again = model.read(photo, seed=args.seed, index=sample.index or 0)
            with model.precision(args.amp):
                beside += analysis.follow([result], model)(model, [again])
        compared.append(side_by_side(beside, names))
    return compared


def views_of(models: Sequence[Model], samples: list[Sample], seed: int) -> list[list[Sample]]:
    """The same images as each model reads them."""

    def read(model: Model, sample: Sample) -> Sample:
        photo: Any = sample.original if sample.path is None else sample.path
        return replace(model.read(photo, seed=seed, index=sample.index or 0), name=sample.name)

    return [samples, *([read(model, sample) for sample in samples] for model in models[1:])]
