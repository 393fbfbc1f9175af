"""Finished maps → results with coordinates and provenance."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vistool.analyses.base import target_of
from vistool.analyses.cam import targets as cam_targets
from vistool.analyses.cam.instances import InstanceTarget
from vistool.analyses.cam.methods import Key, Method
from vistool.analyses.cam.regions import RegionTarget
from vistool.data.samples import Sample
from vistool.environment import versions
from vistool.metrics import Measured
from vistool.models.model import Model
from vistool.network.outputs import Readout
from vistool.results import Coordinate, Coordinates, Heatmap, Heatmaps, Instance, Layer, Measure, Target


@dataclass(frozen=True)
class Drawn:
    """The maps of one method and score for a whole batch.

    Attributes:
        values: float32 ``(B, H, W)`` in [0, 1].
        ranges: ``(B, 2)``, the raw values mapped to 0 and 1, where they have a unit.
        layer: The layer, where each has a map of its own.
        signed: float32 ``(B, h, w)`` before ReLU and scaling, at the layer's own size; None where maps of several
            layers or augmented views were averaged.
    """

    values: NDArray[np.float32]
    ranges: NDArray[np.float32] | None
    layer: str = ''
    signed: NDArray[np.float32] | None = None


class MapMeasured(NamedTuple):
    """What was measured of one map.

    Attributes:
        metrics: By name.
        truth: bool ``(H, W)``, where the object is that the map was compared with; None where no metric asks.
    """

    metrics: Mapping[str, Measured]
    truth: NDArray[np.bool_] | None


@dataclass(frozen=True)
class Report:
    """What all results of a batch have in common.

    Attributes:
        model: The model.
        methods: Name → method, in the order of the figure's columns.
        layers: Names of the target layers.
        asked: What the maps explain.
        readout: What the scores mean; None where there are none.
        numbers: What is printed for each class ``(B, C)``: probabilities, or values; None where there are none.
        values: Scores ``(B,)`` of each target that is not a class; None for classes.
        drawn: The maps.
        settings: Whatever else the provenance keeps.
        measures: The metrics that were asked for.
        measured: For each image what was measured of each map, by its key and number.
        instances: For each image what a detector or segmenter found; empty for other networks.
        missed: For each image the objects of the dataset that a detector did not find.
        unchecked: The layers whose order of tokens is assumed.
    """

    model: Model
    methods: Mapping[str, Method]
    layers: Sequence[str]
    asked: Sequence[cam_targets.Target]
    readout: Readout | None
    numbers: Tensor | None
    values: Sequence[Tensor | None]
    drawn: Mapping[Key, Sequence[Drawn]]
    settings: Mapping[str, Any]
    measures: Mapping[str, Measure]
    measured: Sequence[Mapping[tuple[Key, int], MapMeasured]]
    instances: Sequence[Sequence[Instance]] = ()
    missed: Sequence[Sequence[Instance]] = ()
    unchecked: Collection[str] = ()

    def result(self, index: int, sample: Sample) -> Heatmaps:
        """The result for image ``index`` of the batch."""
        targets = _told_apart(
            [
                self._target(number, target, index, sample)
                for number, target in enumerate(self.asked)
                if target.asks(index)
            ]
        )
        prediction = self._prediction(index, sample)
        return Heatmaps(
            kind='cam',
            image=sample.image,
            maps=tuple(self._maps(index, targets)),
            original=sample.original,
            shown=sample.shown,
            geometry=sample.geometry,
            model=self.model.name,
            targets=targets,
            label=self._label(sample),
            prediction=prediction,
            titles={name: method.title for name, method in self.methods.items()},
            layers=tuple(self.layers),
            measures=self.measures,
            instances=tuple(self.instances[index]) if self.instances else (),
            missed=tuple(self.missed[index]) if self.missed else (),
            reference=next((each.reference for each in self.asked if isinstance(each, cam_targets.ScoreTarget)), None),
            provenance={
                'analysis': 'cam',
                **self.model.provenance(),
                'methods': [method.title for method in self.methods.values()],
                'layers': list(self.layers),
                'targets': [target.entry() for target in targets],
                **({'predictions': [each.entry() for each in self.instances[index]]} if self.instances else {}),
                'prediction': prediction and prediction.entry(),
                'scores': None if self.readout is None else self.readout.entry(),
                **self.settings,
                **sample.provenance(),
                'versions': versions(),
            },
        )

    @property
    def _group(self) -> str:
        return '+'.join(self.layers)

    def _target(self, number: int, target: cam_targets.Target, index: int, sample: Sample) -> Target:
        value = self.values[number]
        if isinstance(target, (InstanceTarget, RegionTarget)):
            return target.explained(index)
        if value is not None:
            assert isinstance(target, cam_targets.ScoreTarget)
            return Target(target.name, score=float(value[index]))
        assert isinstance(target, cam_targets.ClassTarget) and self.readout is not None and self.numbers is not None
        chosen, against = target.chosen[index]
        return target_of(self.model, self.readout, chosen, self.numbers[index], against, sample.values, target.word)

    def _prediction(self, index: int, sample: Sample) -> Target | None:
        """The most likely class, or the value, whatever is explained; None for several values."""
        if self.numbers is None or self.readout is None or (self.readout.is_value and self.readout.classes > 1):
            return None
        numbers = self.numbers[index]
        return target_of(self.model, self.readout, int(numbers.argmax()), numbers, truths=sample.values)

    def _label(self, sample: Sample) -> Target | None:
        if sample.label is None or (self.readout is not None and self.readout.is_value):
            return None
        return Target(self.model.class_name(sample.label), sample.label)

    def _maps(self, index: int, targets: Sequence[Target]) -> Iterator[Heatmap]:
        """Row by row; a method that shows no class stands in the first row only."""
        numbers = [number for number, target in enumerate(self.asked) if target.asks(index)]
        asked = [self.asked[number] for number in numbers]
        for number in range(max(1, len(targets))):
            for name in self.methods:
                free = (name, None) in self.drawn
                if (free and number) or (not free and not targets):  # another detector does not find the objects
                    continue
                key = name, None if free else numbers[number]
                for place, drawn in enumerate(self.drawn[key]):
                    found = self._map(index, name, drawn, targets[number] if targets else None, free)
                    found = self._placed(found, asked[number] if asked and not free else None, index)
                    yield with_measured(found, self.measured[index][key, place]) if self.measured else found

    def _placed(self, found: Heatmap, target: cam_targets.Target | None, index: int) -> Heatmap:
        """The map with what it explains of which object, and where that is."""
        if not isinstance(target, (InstanceTarget, RegionTarget)):
            return found
        one = target.instance(index)
        assert one is not None
        found = found.at(instance=one.number)
        return found if target.attribute == 'class' else found.at(attribute=target.attribute)

    def _map(self, index: int, name: str, drawn: Drawn, target: Target | None, free: bool) -> Heatmap:
        ranges, layer = drawn.ranges, drawn.layer or self._group
        place: dict[str, Coordinate] = {'model': self.model.name, 'method': name}
        if layer:
            place['layer'] = layer
        if target is not None and not free:
            place['target'] = target.name
        return Heatmap(
            drawn.values[index],
            Coordinates(place),
            layer=Layer(layer, unchecked=drawn.layer in self.unchecked if drawn.layer else bool(self.unchecked))
            if layer
            else None,
            range=None if ranges is None else (float(ranges[index, 0]), float(ranges[index, 1])),
            score=None if target is None else target.score,
            signed=None if drawn.signed is None else drawn.signed[index],
        )


def with_measured(item: Heatmap, measured: MapMeasured) -> Heatmap:
    """A map with what was measured of it."""
    found = measured.metrics
    return replace(
        item,
        metrics={name: each.value for name, each in found.items()},
        chance={name: each.chance for name, each in found.items() if each.chance is not None},
        curves={title: curve for each in found.values() for title, curve in each.curves.items()},
        truth=measured.truth,
    )


def _told_apart(targets: Sequence[Target]) -> tuple[Target, ...]:
    """The targets, with their ids in the names of classes that share one (ImageNet has two cranes)."""
    names = [target.name for target in targets]
    return tuple(
        replace(target, name=f'{target.name} ({target.id})')
        if target.id is not None and names.count(target.name) > 1
        else target
        for target in targets
    )
