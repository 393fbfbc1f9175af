"""Maps of a few fixed images of a network while it is trained, made without a trace in the training."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch

from vistool.analyses.base import MapAnalysis, target_of
from vistool.analyses.cam import CAM
from vistool.data.samples import Sample
from vistool.errors import InputError, check_count, close_matches, naming, param
from vistool.models.model import Model
from vistool.network.detection import find_detector
from vistool.network.inputs import run_network
from vistool.network.segmentation import find_segmenter
from vistool.registry import ANALYSES, ANALYSIS_MODULES
from vistool.results import Heatmaps
from vistool.runs.spec import AnyItem, Images, find_items, read_views

log = logging.getLogger('vistool')

AnalysisLike = MapAnalysis | Mapping[str, Any]
"""An analysis, or its config: ``dict(type='vistool.CAM', methods='layercam')``."""

_TOGETHER = 8
"""As many probes run through the network at once."""
_MOST = 1000


def build_analysis(described: AnalysisLike) -> MapAnalysis:
    """An analysis from its config.

    Raises:
        InputError: It does not exist, gives no maps of images, or has no such parameter.
    """
    if isinstance(described, MapAnalysis):
        return described
    accepted = ', '.join(f'vistool.{name}' for name in _map_analyses())
    if not isinstance(described, Mapping) or 'type' not in described:
        raise InputError(
            f'{described!r} is not an analysis', accepted="dict(type='vistool.CAM', …)", parameter='analysis'
        )
    kind = described['type']
    if isinstance(kind, str):
        kind = _class_called(kind, accepted)
    if not (isinstance(kind, type) and issubclass(kind, MapAnalysis)):
        name = getattr(kind, '__name__', repr(kind))
        raise InputError(f'{name} gives no maps of images', accepted=accepted, parameter='analysis')
    settings = {key: value for key, value in described.items() if key not in ('type', '_scope_')}
    known = [each.name for each in fields(kind)] if is_dataclass(kind) else list(settings)
    if unknown := next((name for name in settings if name not in known), None):
        hint = close_matches(unknown, known)
        raise InputError(
            f'{kind.__name__} has no parameter {unknown!r}',
            accepted=', '.join(known),
            hint=hint,
            parameter='analysis',
        )
    return kind(**settings)


def _map_analyses() -> list[str]:
    return ['CAM', 'Attention', 'FeatureMaps']


def _class_called(name: str, accepted: str) -> Any:
    """The class of an analysis; names that a registry does not know are dotted paths."""
    own = name.removeprefix('vistool.')
    try:
        found = ANALYSES.get(own if own in ANALYSIS_MODULES else name)
    except (RuntimeError, KeyError):
        found = None
    if found is None:
        hint = close_matches(own, ANALYSIS_MODULES)
        raise InputError(f'unknown analysis {name!r}', accepted=accepted, hint=hint, parameter='analysis')
    return found


def find_probes(images: Images, most: int, model: Model | None = None) -> list[AnyItem]:
    """The probes: all images that are named, or as many as are allowed, evenly spaced.

    Args:
        images: A folder, a file, a quoted glob, a ``.txt`` list, paths, or ``@train``, ``@val`` or ``@test``.
        most: How many there may be.
        model: The model, for a dataset of its config.

    Raises:
        InputError: There are none.
    """
    check_count(most, 1, _MOST, 'max_images')
    if model is None and str(images).startswith('@'):
        raise InputError(
            f'{images} is a dataset of a config, and there is none',
            accepted='a folder, a glob, a .txt or .csv list, or paths',
            parameter='images',
        )
    found = find_items(images, model)  # type: ignore[arg-type]  # a path needs no model
    if len(found) <= most:
        return list(found)
    log.warning('%d of %d images, evenly spaced; %s takes more', most, len(found), param('max_images'))
    return [found[place * len(found) // most] for place in range(most)]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Puts the random generators back as they were: those of Python, NumPy, and PyTorch on every device."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


class Probes:
    """A few images, read once, and what is asked of the network about them.

    Attributes:
        model: The network that is trained, with the pipeline that reads the images.
        analysis: What is drawn.
        samples: The images as the network gets them.
    """

    def __init__(self, model: Model, items: Sequence[AnyItem], analysis: MapAnalysis, seed: int = 0) -> None:
        """Reads the images.

        Args:
            model: The network.
            items: The images.
            analysis: What is drawn.
            seed: Of whatever random transforms draw.

        Raises:
            InputError: An image cannot be read, or a parameter of the analysis does not fit the network.
        """
        self.model = model
        with undisturbed():
            with naming('images'):
                self.samples: list[Sample] = [
                    read_views([model], item, seed, index)[0] for index, item in enumerate(items)
                ]
            self.analysis = analysis.for_model(model)
            with naming('analysis'):
                self.analysis.check(model)

    @property
    def names(self) -> list[str]:
        """The names of the images, each once."""
        return [sample.name for sample in self.samples]

    def explain(self) -> list[Heatmaps]:
        """The maps of every probe at this moment of the training.

        The network comes back as it was: modes, gradients, buffers, weights, hooks and random generators. The layer
        that a CAM finds for itself at the first call is kept, so that all moments show the same one.

        Raises:
            InputError: The network cannot be explained so.
        """
        with undisturbed():
            batches = list(self._batches())
            # Where something is fitted over all images (a PCA), each moment has its own: features move.
            analysis = self.analysis.fit([self.model], [[batch] for batch in batches], len(self.samples))
            results = [result for batch in batches for result in self._predicted(batch, analysis)]
        self._keep_layer(results)
        order = {id(sample): place for place, sample in enumerate(self.samples)}
        places = [order[id(sample)] for batch in batches for sample in batch]
        return [result for _, result in sorted(zip(places, results, strict=True), key=lambda pair: pair[0])]

    def _predicted(self, batch: Sequence[Sample], analysis: MapAnalysis) -> list[Heatmaps]:
        """The results of a batch, each with what is predicted, which not every analysis has to know."""
        results, model = analysis.results(self.model, batch), self.model
        if all(result.prediction is not None for result in results):
            return results
        inputs = model.batch(batch)
        with model.borrowed(), torch.no_grad():
            output = run_network(model.module, inputs)
            try:
                readout = model.readout(output, len(batch), inputs)
            except InputError:  # which of its outputs holds the scores is not clear
                readout = None
        if readout is None or readout.is_value:
            return results
        numbers = readout.numbers(readout.scores(output, len(batch))).cpu()
        predicted = [target_of(model, readout, int(each.argmax()), each) for each in numbers]
        return [replace(result, prediction=each) for result, each in zip(results, predicted, strict=True)]

    def _batches(self) -> Iterator[list[Sample]]:
        """The probes in groups of one size, each at most :data:`_TOGETHER`."""
        sizes: dict[tuple[int, ...], list[Sample]] = {}
        for sample in self.samples:
            sizes.setdefault(sample.image.shape, []).append(sample)
        for group in sizes.values():
            rest = iter(group)
            while batch := list(islice(rest, _TOGETHER)):
                yield batch

    def _keep_layer(self, results: Sequence[Heatmaps]) -> None:
        analysis = self.analysis
        dense = find_detector(self.model.module) is not None or find_segmenter(self.model.module) is not None
        if isinstance(analysis, CAM) and not analysis.layers and results[0].layers and not dense:
            self.analysis = replace(analysis, layers=results[0].layers)
