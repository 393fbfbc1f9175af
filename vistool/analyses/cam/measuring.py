"""Metrics of maps of a class: which maps are measured, and what is scored of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vistool.analyses.cam.instances import InstanceTarget
from vistool.analyses.cam.methods import Key, Method, titles_of
from vistool.analyses.cam.regions import RegionTarget
from vistool.analyses.cam.report import Drawn, MapMeasured
from vistool.analyses.cam.targets import ClassTarget, Target
from vistool.data.samples import Sample
from vistool.errors import InputError, param
from vistool.metrics import METRICS, Case, Metric, Network, Protocol, Truths, evaluate, no_truth, truth_of
from vistool.metrics import Needs as MetricNeeds
from vistool.metrics.evaluation import Scorer
from vistool.metrics.perturbation import with_noise
from vistool.models.model import Model
from vistool.network.detection import Adapter
from vistool.network.outputs import Readout
from vistool.network.tensors import NetworkInput, Size, find_image, input_size, replace_tensor, rows


@dataclass(frozen=True)
class Measuring:
    """What is measured of every map of a run.

    Attributes:
        metrics: Name → metric.
        protocol: How.
        truths: Masks of the objects, if there are any.
        at_once: How many changed copies of an image run at once.
    """

    metrics: Mapping[str, Metric]
    protocol: Protocol
    truths: Truths
    at_once: int

    def needs(self, what: MetricNeeds) -> list[str]:
        """The metrics that need something."""
        return [name for name, metric in self.metrics.items() if what in metric.needs]

    def check_truth(self, samples: Sequence[Sample]) -> None:
        """Refuses metrics that need to know where the objects are where that is not known.

        Raises:
            InputError: There are neither masks nor samples that know it.
        """
        wanting = self.needs(MetricNeeds.TRUTH)
        if wanting and self.truths is None and all(sample.truth is None for sample in samples):
            raise no_truth(wanting)

    def check_copies(self) -> None:
        """Checks how many copies run at once.

        Raises:
            InputError: It is not a positive number.
        """
        if self.at_once < 1:
            raise InputError(f'{self.at_once}', accepted='an integer from 1 up', parameter='copies')

    def check(self, methods: Mapping[str, Method]) -> None:
        """Checks what can be wrong whatever the images are.

        Raises:
            InputError: A metric needs what is not there.
        """
        self.check_copies()
        agnostic = [entry.title for entry in methods.values() if not entry.shows_class and not entry.is_baseline]
        if (scored := self.needs(MetricNeeds.SCORES)) and agnostic:
            other = MetricNeeds.SCORES | MetricNeeds.TRUTH
            rest = [name for name, metric in METRICS.items() if not metric.needs & other]
            raise InputError(
                f'{", ".join(scored)} measures the evidence for a class, and {", ".join(agnostic)} is class-agnostic',
                accepted=', '.join(rest) + ' for such maps',
                hint=f'or other methods: {titles_of(lambda entry: entry.shows_class or entry.is_baseline)}',
                parameter='metrics',
            )

    def measure(
        self,
        model: Model,
        samples: Sequence[Sample],
        inputs: NetworkInput,
        targets: Sequence[Target],
        drawn: Mapping[Key, Sequence[Drawn]],
        again: Sequence[Mapping[Key, Sequence[Drawn]]],
        detector: Adapter | None = None,
    ) -> list[dict[tuple[Key, int], MapMeasured]]:
        """The metrics of every map.

        Args:
            model: The model.
            samples: The images.
            inputs: The batch.
            targets: What the maps explain.
            drawn: The maps.
            again: The maps of each noisy copy of the batch.
            detector: What runs the model, if it is a detector.

        Returns:
            For each image: the key of a map and its number among those of the key → what was measured.

        Raises:
            InputError: There is no score to measure, or a mask does not fit.
        """
        if (scored := self.needs(MetricNeeds.SCORES)) and not targets:
            rest = [name for name, metric in METRICS.items() if MetricNeeds.SCORES not in metric.needs]
            raise InputError(
                f'{", ".join(scored)} measures a score, and {model.name} gives none',
                accepted=', '.join(rest),
                hint=f'or give an image to compare with ({param("reference", "IMG")})',
                parameter='metrics',
            )
        size, found = input_size(inputs)[0], []
        for index, sample in enumerate(samples):
            one = rows(inputs, index, index + 1)
            network = Network(model.module, one, [self._scorer(target, index) for target in targets], self.at_once)
            if detector is not None:
                network.arranged = partial(_repeated, detector, index)
            truths = self._truths(sample, index, len(samples), targets, size)
            keys = [
                (key, place)
                for key, every in drawn.items()
                if key[1] is None or targets[key[1]].asks(index)
                for place in range(len(every))
            ]
            cases = []
            for key, place in keys:
                values, *noisy = (torch.from_numpy(each[key][place].values[index]) for each in (drawn, *again))
                case = Case(values, network.image, self.protocol, sample.image, truths[key[1]], noisy)
                cases.append((case, key[1] or 0))
            metrics = self.metrics
            if truths[None] is None:  # nobody knows where this image's object is
                metrics = {name: each for name, each in metrics.items() if MetricNeeds.TRUTH not in each.needs}
            wanted = bool(self.needs(MetricNeeds.TRUTH))
            measured = [
                MapMeasured(each, case.truth if wanted else None)
                for each, (case, _) in zip(evaluate(cases, metrics, network), cases, strict=True)
            ]
            found.append(dict(zip(keys, measured, strict=True)))
        return found

    def _truths(
        self, sample: Sample, index: int, count: int, targets: Sequence[Target], size: Size
    ) -> dict[int | None, NDArray[np.bool_] | None]:
        """Where the object of each target is, by its number; for None, which is of no class, all objects."""
        numbers: list[int | None] = [None, *range(len(targets))]
        if self.truths is not None or sample.truth is None or not self.needs(MetricNeeds.TRUTH):
            return dict.fromkeys(numbers, truth_of(self.truths, index, count, size))
        labels: dict[int | None, int | None] = {None: None}
        found: dict[int | None, NDArray[np.bool_] | None] = {}
        for number, target in enumerate(targets):
            labels[number] = None
            if isinstance(target, ClassTarget) and not target.readout.is_value:
                labels[number] = int(target.classes[index])
            elif isinstance(target, RegionTarget):
                labels[number] = target.classes[index]
            elif isinstance(target, InstanceTarget) and target.asks(index):
                found[number] = target.truth(index, sample)
        masks = {label: sample.inside(label) for label in set(labels.values())}
        return {number: masks[label] for number, label in labels.items()} | found

    def noisy(self, inputs: NetworkInput) -> list[NetworkInput]:
        """The batch with the noise of sensitivity on its image, once for each copy; empty where nothing needs it."""
        image = find_image(inputs)
        assert image is not None
        if not self.needs(MetricNeeds.MAPS):
            return []
        copies = range(self.protocol.samples)
        return [
            replace_tensor(inputs, image, torch.stack([with_noise(each, self.protocol, copy) for each in image]))
            for copy in copies
        ]

    def _scorer(self, target: Target, index: int) -> Scorer:
        """What finds the score of a target in the output for changed copies of an image."""
        if isinstance(target, RegionTarget):
            return lambda output, count: target.confidence(output, torch.full((count,), index))
        if not isinstance(target, ClassTarget):
            return lambda output, count: target.score(output, torch.full((count,), index))
        readout, column = target.readout, int(target.classes[index])
        against = target.signs is not None and bool(target.signs[index] < 0)
        as_probability = self._scored(readout) == 'probability'

        def score(output: Any, count: int) -> Tensor:
            scores = readout.scores(output, count)
            found = (readout.numbers(scores) if as_probability else scores)[:, column]
            return (1 - found if as_probability else -found) if against else found

        return score

    def check_dense(self) -> None:
        """Refuses what cannot be measured of single predictions and regions.

        Raises:
            InputError: A metric needs maps of changed images, in which other objects are found.
        """
        if wanting := self.needs(MetricNeeds.MAPS):
            raise InputError(
                f'{", ".join(wanting)} compares maps of changed images, in which other objects or regions are found',
                accepted=', '.join(name for name, each in METRICS.items() if MetricNeeds.MAPS not in each.needs),
                parameter='metrics',
            )

    def _scored(self, readout: Readout) -> str:
        if readout.meaning in ('value', 'scores'):
            return readout.meaning
        if self.protocol.score == 'logit' and readout.meaning == 'probabilities':
            raise InputError(
                'the network gives probabilities, not logits',
                accepted=param('score', 'probability'),
                parameter='protocol',
            )
        return self.protocol.score

    def entry(self, readout: Readout | None) -> dict[str, Any]:
        """For provenance: the metrics with their formulas, and the protocol with what was scored."""
        scored = None if readout is None else self._scored(readout)
        return {
            'metrics': {name: metric.formula for name, metric in self.metrics.items()},
            'protocol': {**self.protocol.entry(), 'scored': scored},
        }


def _repeated(detector: Adapter, index: int, inputs: NetworkInput, count: int) -> NetworkInput:
    """The input of a detector for copies of one image of a batch."""
    return detector.repeated(inputs, index, count)
