"""Which images of a run are taken: by place, class and number, and by what the model makes of them."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vistool.data.datasets import DatasetItems, at_indices, class_ids, of_classes
from vistool.data.samples import Sample
from vistool.errors import InputError, param
from vistool.models.model import Model
from vistool.network.outputs import class_scores, probabilities

log = logging.getLogger('vistool')

OUTCOMES = ('wrong', 'right', 'uncertain')
MARGIN = 0.2
"""An image is uncertain where the two likeliest classes are less than this apart."""


@dataclass(frozen=True)
class Guess:
    """What the model says of one image: the likeliest class, its probability, and how far the next one is behind."""

    index: int
    class_id: int
    score: float
    margin: float


def guesses(model: Model, samples: Sequence[Sample], amp: bool = False) -> list[Guess]:
    """The model's predictions for a batch.

    Raises:
        InputError: The model gives no class scores.
    """
    import torch

    with torch.no_grad(), model.precision(amp):
        scores = class_scores(model.module(model.batch(samples)))
    if scores is None:
        raise InputError(f'{model.name} gives no class scores', hint='leave it out', parameter='only')
    shares = probabilities(model.module, scores)
    best = shares.topk(min(2, shares.shape[1]))
    found = []
    for sample, values, ids in zip(samples, best.values.tolist(), best.indices.tolist(), strict=True):
        assert sample.index is not None
        found.append(Guess(sample.index, ids[0], values[0], values[0] - values[1] if len(values) > 1 else values[0]))
    return found


def select(
    args: argparse.Namespace, items: Sequence[Any], guess: Callable[[Sequence[int]], Iterable[Guess]]
) -> list[int]:
    """Places in ``items`` of the images that the options of ``add_batch`` choose, in ascending order.

    Args:
        args: With ``indices``, ``classes``, ``per_class``, ``max_samples``, ``only`` and ``seed``. Where there are more
            images than asked for they are drawn with the seed; of the wrong ones the most confident are taken, of the
            uncertain ones the least.
        items: A dataset's, or files.
        guess: Predictions for places; asked only with ``only``. Images that it leaves out cannot be read; they stay in,
            so that the run tells of them.

    Raises:
        InputError: An option does not fit the images, or none is left.
    """
    _check(args, items)
    pool = list(dict.fromkeys(at_indices(args.indices, len(items)))) if args.indices else list(range(len(items)))
    if args.classes:
        pool = of_classes(items, pool, args.classes, None, None)
    unread: list[int] = []
    if args.only and pool:
        pool, unread = _by_outcome(args, items, pool, guess)
    elif args.per_class or args.max_samples:
        pool = np.random.default_rng(abs(args.seed)).permutation(pool).tolist()
    if args.per_class:
        pool = of_classes(items, pool, args.classes, args.per_class, args.max_samples)
    chosen = sorted([*(pool[: args.max_samples] if args.max_samples else pool), *unread])
    if not chosen:
        what = ' '.join(
            ['no', *([args.only] if args.only else []), 'image', *(['of', *args.classes] if args.classes else [])]
        )
        raise InputError(f'{what} among those chosen', parameter='only' if args.only else 'classes')
    if len(chosen) < len(items):
        log.info('%d of %d images chosen', len(chosen), len(items))
    return chosen


def _check(args: argparse.Namespace, items: Sequence[Any]) -> None:
    for name in ('per_class', 'max_samples'):
        value = getattr(args, name)
        if value is not None and value < 1:
            option = f'--{name.replace("_", "-")}'
            raise InputError(f'{value} is no number of images', accepted='1 or more', parameter=option)
    if args.only and args.only not in OUTCOMES:
        raise InputError(f'unknown outcome {args.only!r}', accepted=', '.join(OUTCOMES), parameter='only')
    labelled = isinstance(items, DatasetItems)
    for name, asked in (('classes', args.classes), ('per_class', args.per_class)):
        if asked and not labelled:
            raise InputError('files have no labels', accepted='@train, @val, @test', parameter=name)
    if args.only in ('wrong', 'right') and not labelled:
        hint = f'{param("only")} uncertain needs no labels'
        raise InputError('files have no labels', accepted='@train, @val, @test', hint=hint, parameter='only')


def _by_outcome(
    args: argparse.Namespace, items: Any, pool: Sequence[int], guess: Callable[[Sequence[int]], Iterable[Guess]]
) -> tuple[list[int], list[int]]:
    """The places that ``only`` asks for, those to be taken first in front; and those that could not be read."""
    found = {each.index: each for each in guess(pool)}
    unread = [place for place in pool if place not in found]
    if args.only == 'uncertain':
        kept = [each for each in found.values() if each.margin < MARGIN]
        return [each.index for each in sorted(kept, key=lambda each: (each.margin, each.index))], unread
    truth = {place: class_ids(items.label(place)) for place in found}
    if truth and not any(truth.values()):
        raise InputError('the dataset has no labels', accepted='uncertain', parameter='only')
    right = args.only == 'right'
    kept = [each for each in found.values() if truth[each.index] and (each.class_id in truth[each.index]) == right]
    if not right:
        return [each.index for each in sorted(kept, key=lambda each: (-each.score, each.index))], unread
    order = np.random.default_rng(abs(args.seed)).permutation(sorted(each.index for each in kept))
    return order.tolist(), unread
