"""The protocol of analyses that a run takes over many images."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from torch import Tensor

from vistool.data.datasets import class_name, classes_called
from vistool.data.samples import Sample
from vistool.errors import InputError, param
from vistool.models.model import Model
from vistool.network.capture import remembered
from vistool.network.layers import LayersGiven
from vistool.network.outputs import Readout
from vistool.results import Heatmaps, Result, Target, side_by_side

log = logging.getLogger('vistool')

Views = Sequence[Sequence[Sample]]
"""One batch of images, as each model of a comparison reads it: ``views[model][image]``."""

A = TypeVar('A', bound='MapAnalysis')


class MapAnalysis(ABC):
    """An analysis that gives heat maps of images; subclasses are frozen dataclasses of its parameters.

    A run over many images calls, in this order:

    1. :meth:`for_model` with the first model, and :meth:`check` with each, before an image is read;
    2. :meth:`fit` once, for what must be known over all images first;
    3. the analysis itself for each batch, or :meth:`compare` where there are several models;
    4. :meth:`reduce` after each batch, for what there is only one of in the whole run.

    Attributes:
        layers: The layers that were named, if any were.
    """

    layers: LayersGiven = ()

    def check(self, model: Model) -> None:  # noqa: B027 (optional)
        """Checks parameters that can be wrong whatever the images are.

        Args:
            model: A model of the run.

        Raises:
            InputError: A parameter is not accepted, contradicts another, or does not fit the model.
        """

    def for_model(self: A, model: Model) -> A:
        """The analysis with what its parameters leave to the kind of the network, such as the default method."""
        return self

    def fit(self: A, models: Sequence[Model], batches: Iterable[Views], count: int) -> A:
        """The analysis with what must be known over all images before the first result: a PCA basis, default layers.

        Args:
            models: The models of the run.
            batches: All images of the run. Nothing is read until it is iterated over; it may be iterated over more
                than once, and reads the images anew each time.
            count: How many images there are.
        """
        return self

    @abstractmethod
    def __call__(self, model: Model, subject: Sequence[Sample]) -> Heatmaps | list[Heatmaps]:
        """Results of one batch: a list with one per sample, in their order. Single samples may be accepted as well."""

    def results(self, model: Model, samples: Sequence[Sample]) -> list[Heatmaps]:
        """Results of one batch, one per sample."""
        found = self(model, samples)
        return [found] if isinstance(found, Heatmaps) else found

    @property
    def reduces(self) -> str:
        """The parameter that asks for a result over the whole run, such as ``'stats'``; ``''`` where none does."""
        return ''

    @property
    def measures(self) -> Sequence[str]:
        """Names of the metrics that are measured of each map; none where none were asked for."""
        return ()

    @property
    def needs_truth(self) -> Sequence[str]:
        """The metrics that need samples that know where the objects are; none where nothing does."""
        return ()

    def finds_objects(self, model: Model) -> bool:
        """Whether results say which objects are found, so that samples should tell where a dataset knows objects."""
        return False

    @property
    def choices(self) -> Sequence[object]:
        """What the user chose, for file names: another choice never overwrites the pictures of the last."""
        return ()

    def reduce(self, before: Mapping[str, Result], results: Sequence[Heatmaps]) -> Mapping[str, Result]:
        """Adds a batch to what there is only one of in the whole run, such as statistics over all images.

        The run folds its batches with this method and writes what the last call returned, each under its key. A
        companion of a result whose key is returned here is part of the whole: it is not written beside its image.

        Args:
            before: What the call for the batch before returned; empty at first.
            results: The results of this batch.
        """
        return before

    @abstractmethod
    def follow(self: A, results: Sequence[Heatmaps], model: Model) -> A:
        """The same analysis of another model, held to the choices made for a batch.

        Args:
            results: What the first model gave for the batch. Each image keeps its own targets.
            model: The other model.
        """

    def compare(self, models: Sequence[Model], views: Views, names: Sequence[str]) -> list[Heatmaps]:
        """Results of the first model beside those of the others, which are held to the first one's choices.

        Override it for an analysis that compares more than maps.

        Args:
            models: The models.
            views: The same images as each model reads them.
            names: What tells the models apart.

        Returns:
            One joined result per image.
        """
        first = self.results(models[0], views[0])
        columns = [first]
        for model, samples in zip(models[1:], views[1:], strict=True):
            column: list[Heatmaps] = [*first]
            for group in _same_size(samples):
                follower = self.follow([first[image] for image in group], model)
                found = follower.results(model, [samples[image] for image in group])
                for image, result in zip(group, found, strict=True):
                    column[image] = result
            columns.append(column)
        return [side_by_side(beside, names) for beside in zip(*columns, strict=True)]


def target_of(
    model: Model,
    readout: Readout,
    index: int,
    numbers: Tensor,
    against: bool = False,
    truths: Sequence[float] = (),
    word: str = '',
) -> Target:
    """A class or value as results name it, with its number.

    Args:
        model: The model.
        readout: What its scores mean.
        index: Which of them.
        numbers: ``(C,)``, what :meth:`~vistool.network.outputs.Readout.numbers` gives for the image.
        against: Whether the evidence against it is shown.
        truths: What the dataset says that the values are; of another number, it speaks of something else.
        word: How it was asked for, where that does not name it.
    """
    name = class_name(index, model.names_of(readout))
    number = float(numbers[index])
    truth = truths[index] if readout.is_value and len(truths) == readout.classes else None
    own = None if readout.is_value else index
    return Target(f'against {name}' if against else name, own, number, against, truth, '' if own is None else word)


def followed_targets(results: Sequence[Heatmaps], model: Model) -> list[list[int | str]]:
    """The classes that results show, as targets of another model; a list for each image.

    A class is found by its name where both models name theirs: another dataset, or another folder of training images,
    orders them otherwise.

    Raises:
        InputError: The other model has neither a class of that name nor one of that number.
    """
    return [[_same_class(each, model) for each in result.targets if each.id is not None] for result in results]


def _same_class(target: Target, model: Model) -> int | str:
    assert target.id is not None
    names, name, found = model.classes, target.name, target.id
    name = name.removeprefix('against ') if target.against else name
    if names is not None and name != class_name(found, None):
        called = classes_called(name, names)
        if len(called) == 1:
            found = called[0]
        elif len(called) > 1 and found not in called:
            raise InputError(
                f'{model.name} has {len(called)} classes called {name!r}: {", ".join(map(str, called))}',
                hint=f'compare one class by its number: {param("targets", "id:N")}',
                parameter='targets',
            )
        elif found >= len(names):
            raise InputError(
                f'{model.name} has no class {name!r}, which the first model explains',
                hint=f'{param("targets", "own")} explains what each model predicts',
                parameter='targets',
            )
        elif found not in called:
            other = f'its class {found} ({class_name(found, names)}) is explained instead'
            told = f'{model.name} has no class {name!r}; {other}'
            remembered(model.module, 'class of another name', told, lambda: log.warning(told))  # said once
    return f'-id:{found}' if target.against else found


def _same_size(samples: Sequence[Sample]) -> list[list[int]]:
    """Positions of samples that one batch can hold: another model's pipeline may give images of several sizes."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for position, sample in enumerate(samples):
        groups.setdefault(sample.image.shape, []).append(position)
    return list(groups.values())
