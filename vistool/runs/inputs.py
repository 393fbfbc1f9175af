"""From what a run names to its models and its images, and which of the images are taken."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import nn

from vistool.data.datasets import (
    PHASES,
    DatasetItem,
    DatasetItems,
    LabeledSamples,
    at_indices,
    class_ids,
    dataset_items,
    of_classes,
)
from vistool.data.samples import Item, Sample, find_inputs
from vistool.errors import InputError, param
from vistool.models.configs import Source, resolve
from vistool.models.input_size import sizing
from vistool.models.model import Model, load
from vistool.network.outputs import class_scores, probabilities
from vistool.runs.spec import Images, Models, ModelSpec, Selection

log = logging.getLogger('vistool')

AnyItem = Item | DatasetItem

OUTCOMES = ('wrong', 'right', 'uncertain')
MARGIN = 0.2
"""An image is uncertain where the probabilities of the two most likely classes differ by less than this."""


def find_source(spec: ModelSpec, models: Models) -> Source | Model | nn.Module:
    """What a model is made of: its config where it is named, the model itself where it is loaded."""
    if isinstance(spec.model, (Model, nn.Module)):
        return spec.model
    return resolve(spec.model, models.options)


def name_of(source: Source | Model | nn.Module) -> str:
    """What a model is called in folders and captions."""
    return type(source).__name__ if isinstance(source, nn.Module) else source.name


def config_of(source: Source | Model | nn.Module) -> Any:
    """A model's config, or None."""
    return None if isinstance(source, nn.Module) else source.config


@contextmanager
def opened_models(models: Models, first: Source | Model | nn.Module, seed: int) -> Iterator[list[Model]]:
    """The models of a run, ready to read images; those that the caller made are restored at the end.

    Args:
        models: Which.
        first: What the first is made of.
        seed: Of random weights.

    Raises:
        InputError: One of them cannot be found, built or loaded.
    """
    sources = [first, *(find_source(each, models) for each in models.compare)]
    resize = sizing(models.img_size, models.fit)
    with ExitStack() as restored:
        loaded = []
        for spec, source in zip((models.first, *models.compare), sources, strict=True):
            model = _load(spec, source, models, seed)
            model.use_files(models.files, models.draw_on)
            if resize is not None:
                restored.callback(resize(model).remove)
            loaded.append(model)
        yield loaded


def _load(spec: ModelSpec, source: Source | Model | nn.Module, models: Models, seed: int) -> Model:
    if isinstance(source, Model):  # the caller's own stays as it is
        return replace(source) if models.files or models.draw_on or models.img_size else source
    return load(
        source,
        spec.checkpoint,
        device=models.device,
        transform=spec.transform,
        trust_checkpoint=models.trust_checkpoint,
        seed=seed,
    )


def find_items(images: Images, source: Source | Model | nn.Module) -> Sequence[AnyItem]:
    """The images of a run, in a fixed order.

    Raises:
        InputError: There are none.
    """
    spec = os.fspath(images) if isinstance(images, (str, os.PathLike)) else ''
    if not spec.startswith('@'):
        return find_inputs(images)
    phase, config = spec[1:], config_of(source)
    if phase not in PHASES:
        raise InputError(
            f'unknown dataset {spec!r}', accepted=', '.join(f'@{each}' for each in PHASES), parameter='images'
        )
    if config is None:
        raise InputError(f'{name_of(source)} has no config that names a dataset', parameter='images')
    items = dataset_items(config, phase)
    if not len(items):
        raise InputError(f'the {phase} dataset of {name_of(source)} is empty', parameter='images')
    return items


def is_one_file(images: Images, items: Sequence[AnyItem]) -> bool:
    """Whether a run is over a single image that was named by its path."""
    return isinstance(images, (str, os.PathLike)) and len(items) == 1 and Path(images).is_file()


def read_views(models: Sequence[Model], item: AnyItem, seed: int, index: int = 0) -> tuple[Sample, ...]:
    """An image as each model's pipeline reads it."""
    if isinstance(item, DatasetItem):
        first = models[0].read(item.source, seed=seed, index=item.index, name=item.name, info=item.info)
    else:
        first = models[0].read(item.path, seed=seed, index=index, name=item.name)
    photo = first.original if first.path is None else first.path
    assert photo is not None, 'an image was read, so there is one'
    others = [model.read(photo, seed=seed, index=first.index or 0, name=first.name) for model in models[1:]]
    return (first, *others)


def labels(models: Sequence[Model]) -> list[str]:
    """What tells the models apart in a figure: their names, or their checkpoints where the names are the same."""
    names = [model.name for model in models]
    if len(set(names)) == len(names):
        return names
    return [f'{model.name} {model.weights_name}' if len(set(names)) > 1 else model.weights_name for model in models]


@dataclass(frozen=True)
class Prediction:
    """What the model predicts for one image.

    Attributes:
        index: The image's position.
        class_id: The most likely class.
        score: Its probability.
        margin: How much less likely the next class is.
    """

    index: int
    class_id: int
    score: float
    margin: float


def predict(model: Model, samples: Sequence[Sample], amp: bool = False) -> list[Prediction]:
    """The model's predictions for a batch.

    Raises:
        InputError: The model gives no class scores.
    """
    import torch

    with model.borrowed(), torch.no_grad(), model.precision(amp):
        scores = class_scores(model.module(model.batch(samples)))
    if scores is None:
        raise InputError(f'{model.name} gives no class scores', hint='leave it out', parameter='only')
    shares = probabilities(model.module, scores)
    best = shares.topk(min(2, shares.shape[1]))
    found = []
    for sample, values, ids in zip(samples, best.values.tolist(), best.indices.tolist(), strict=True):
        assert sample.index is not None
        margin = values[0] - values[1] if len(values) > 1 else values[0]
        found.append(Prediction(sample.index, ids[0], values[0], margin))
    return found


def select(
    selection: Selection,
    items: Sequence[Any],
    predictions: Callable[[Sequence[int]], Iterable[Prediction]],
    seed: int = 0,
) -> list[int]:
    """Positions in ``items`` of the images that are taken, in ascending order.

    Args:
        selection: Where there are more images than it asks for they are drawn with the seed; of the wrong ones the most
            confident are taken, of the uncertain ones the least.
        items: A dataset's, or files.
        predictions: Of the images at these positions; called only with ``only``. Images that it leaves out cannot be
            read; they are taken, so that the run reports them.
        seed: Decides what is drawn.

    Raises:
        InputError: The selection does not fit the images, or no image is left.
    """
    _check(selection, items)
    count, classes = len(items), [str(each) for each in selection.classes]
    indices = [str(each) for each in selection.indices]
    pool = list(dict.fromkeys(at_indices(indices, count))) if indices else list(range(count))
    if classes:
        pool = of_classes(cast(LabeledSamples, items), pool, classes, None, None)
    unread: list[int] = []
    if selection.only and pool:
        pool, unread = _by_outcome(selection.only, items, pool, predictions, seed)
    elif selection.per_class or selection.max_samples:
        pool = np.random.default_rng(abs(seed)).permutation(pool).tolist()
    if selection.per_class:
        pool = of_classes(cast(LabeledSamples, items), pool, classes, selection.per_class, selection.max_samples)
    chosen = sorted([*(pool[: selection.max_samples] if selection.max_samples else pool), *unread])
    if not chosen:
        only = [selection.only] if selection.only else []
        words = ['no', *only, 'image', *(['of', *classes] if classes else [])]
        raise InputError(f'{" ".join(words)} among those chosen', parameter='only' if only else 'classes')
    if len(chosen) < count:
        log.info('%d of %d images chosen', len(chosen), count)
    return chosen


def _check(selection: Selection, items: Sequence[Any]) -> None:
    for name in ('per_class', 'max_samples'):
        value = getattr(selection, name)
        if value is not None and value < 1:
            raise InputError(f'{value} is not a number of images', accepted='1 or more', parameter=name)
    if selection.only and selection.only not in OUTCOMES:
        raise InputError(f'unknown outcome {selection.only!r}', accepted=', '.join(OUTCOMES), parameter='only')
    if isinstance(items, DatasetItems):
        return
    accepted = '@train, @val, @test'
    for name in ('classes', 'per_class'):
        if getattr(selection, name):
            raise InputError('files have no labels', accepted=accepted, parameter=name)
    if selection.only in ('wrong', 'right'):
        hint = f'{param("only", "uncertain")} needs no labels'
        raise InputError('files have no labels', accepted=accepted, hint=hint, parameter='only')


def _by_outcome(
    only: str, items: Any, pool: Sequence[int], predictions: Callable[[Sequence[int]], Iterable[Prediction]], seed: int
) -> tuple[list[int], list[int]]:
    """The positions that ``only`` asks for, those to be taken first in front; and those that could not be read."""
    found = {each.index: each for each in predictions(pool)}
    unread = [position for position in pool if position not in found]
    if only == 'uncertain':
        kept = [each for each in found.values() if each.margin < MARGIN]
        return [each.index for each in sorted(kept, key=lambda each: (each.margin, each.index))], unread
    truth = {position: class_ids(items.label(position)) for position in found}
    if truth and not any(truth.values()):
        raise InputError('the dataset has no labels', accepted='uncertain', parameter='only')
    right = only == 'right'
    kept = [each for each in found.values() if truth[each.index] and (each.class_id in truth[each.index]) == right]
    if not right:
        return [each.index for each in sorted(kept, key=lambda each: (-each.score, each.index))], unread
    order = np.random.default_rng(abs(seed)).permutation(sorted(each.index for each in kept))
    return order.tolist(), unread
