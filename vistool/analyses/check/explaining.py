"""The maps that checks compare: the same analysis of the same images and classes, run again under other conditions."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from vistool.analyses.cam import CAM
from vistool.analyses.cam.methods import Method
from vistool.data.samples import Sample
from vistool.models.model import Model
from vistool.network.inputs import run_network
from vistool.network.layers import find_call
from vistool.network.outputs import ScoreReader
from vistool.network.tensors import NetworkInput
from vistool.results import Heatmap, Heatmaps

log = logging.getLogger('vistool')

AT_ONCE = 8
"""Images that go through the network together."""

Choice = int | str
Classes = Sequence[Sequence[Choice]]
"""The classes that are explained of each image."""


@dataclass(frozen=True, eq=False)
class Explained:
    """The images of a check with their maps, and how to make others.

    Attributes:
        model: The model.
        samples: The images.
        cam: The analysis, with its layers by name.
        methods: Its methods by name.
        classes: The class of each image whose maps are checked; None where a score of another kind is explained.
        results: Their maps.
    """

    model: Model
    samples: Sequence[Sample]
    cam: CAM
    methods: Mapping[str, Method]
    classes: Classes | None
    results: Sequence[Heatmaps]

    @classmethod
    def of(cls, cam: CAM, methods: Mapping[str, Method], model: Model, samples: Sequence[Sample]) -> Explained:
        """Explains the images: of each the first target, at layers that stay the same from here on."""
        results = explain(cam, model, samples, None)
        for result in results:
            result.check_finite()
        first = [result.targets[0].choice if result.targets else None for result in results]
        classes = None if any(each is None for each in first) else [[each] for each in first if each is not None]
        if classes is not None:
            cam = replace(cam, targets=(), score_sign='+')  # the classes say which sign they have
        return cls(model, samples, replace(cam, layers=list(results[0].layers)), methods, classes, results)

    def maps(self, cam: CAM | None = None) -> dict[str, list[Heatmap]]:
        """Method → a map of each image, by the analysis with other parameters or under other conditions."""
        results = self.results if cam is None else explain(cam, self.model, self.samples, self.classes)
        return {name: [map_of(result, name) for result in results] for name in self.methods}

    @property
    def layers(self) -> dict[str, nn.Module]:
        """The target layers by name."""
        return dict(find_call(self.model.module, name) for name in self.results[0].layers)

    @cached_property
    def numbers(self) -> list[Tensor]:
        """The probability of each class ``(C,)`` of each image; empty where the network gives no classes."""
        found: dict[int, Tensor] = {}
        for group in _batches(self.samples):
            inputs = self.model.batch([self.samples[index] for index in group])
            with self.model.borrowed(), torch.no_grad():
                output = run_network(self.model.module, inputs)
                readout = None if self.classes is None else self.model.readout(output, len(group), inputs)
            if readout is None or readout.meaning in ('value', 'scores'):
                return []
            found |= zip(group, readout.numbers(readout.scores(output, len(group))).cpu(), strict=True)
        return [found[index] for index in range(len(self.samples))]

    def reader(self, inputs: NetworkInput) -> ScoreReader:
        """What finds the class scores in the network's output."""
        key = self.model.output_hints.output, self.model.classes, False
        return ScoreReader(functools.partial(self.model.scores, inputs=inputs, value=False), key)

    def one(self, index: int) -> NetworkInput:
        """The network's input for one image."""
        return self.model.batch([self.samples[index]])


def explain(cam: CAM, model: Model, samples: Sequence[Sample], classes: Classes | None) -> list[Heatmaps]:
    """The maps of all images, those of one size in batches.

    Args:
        cam: The analysis.
        model: The model.
        samples: The images.
        classes: Classes of each; None leaves them to the analysis.
    """
    found: dict[int, Heatmaps] = {}
    for group in _batches(samples):
        chosen = cam if classes is None else replace(cam, targets=[classes[index] for index in group])
        found |= zip(group, chosen.results(model, [samples[index] for index in group]), strict=True)
    return [found[index] for index in range(len(samples))]


def _batches(samples: Sequence[Sample]) -> Iterator[list[int]]:
    sizes: dict[tuple[int, ...], list[int]] = {}
    for index, sample in enumerate(samples):
        sizes.setdefault(np.shape(sample.image), []).append(index)
    for group in sizes.values():
        for start in range(0, len(group), AT_ONCE):
            yield group[start : start + AT_ONCE]


def map_of(result: Heatmaps, method: str, number: int = 0) -> Heatmap:
    """The map of a method and a target; a method that shows no class has one for all of them."""
    own = [each for each in result.maps if each.coordinates['method'] == method]
    return own[min(number, len(own) - 1)]


@contextmanager
def without_warnings() -> Iterator[None]:
    """Within it only errors are logged: what is wrong with a random network, or a layer tried, is no news."""

    def passes(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    log.addFilter(passes)
    try:
        yield
    finally:
        log.removeFilter(passes)
