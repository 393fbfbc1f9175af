"""Metrics that change the image where a map says so, and look at what happens to the score."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from vistool.metrics.perturbation import Order, Removal, removal_order
from vistool.metrics.protocol import Baseline
from vistool.metrics.registry import Case, Copy, Measured, Needs, Scoring, Together, register_metric
from vistool.results import ScoreCurve

RISE = 'Petsiuk et al., RISE, BMVC 2018'


@register_metric(
    'insertion',
    short='ins',
    paper=RISE,
    formula='area under the score while units come in over a baseline, the most relevant first',
    range=(0, 1),
    needs=Needs.SCORES,
)
def insertion(case: Case) -> Scoring:
    """The area under the score as units of the image come in over the baseline."""
    protocol = case.protocol
    return (yield from _curve(case, 'insertion', protocol.start or protocol.baseline))


@register_metric(
    'deletion',
    short='del',
    paper=RISE,
    formula='area under the score while units are removed, the most relevant first',
    range=(0, 1),
    better='lower',
    needs=Needs.SCORES,
)
def deletion(case: Case) -> Scoring:
    """The area under the score as units of the image are removed."""
    return (yield from _curve(case, 'deletion', case.protocol.baseline))


def _curve(case: Case, name: str, kind: Baseline) -> Scoring:
    order, removal = removal_order(case, case.protocol.order == 'least'), Removal(case, kind)
    step = math.ceil(order.count / case.protocol.steps)
    counts = [*range(0, order.count, step), order.count]
    masks = [order.first(count) for count in counts]
    removed = [~mask for mask in masks] if name == 'insertion' else masks
    scores = (yield [removed_copy(case, removal, mask) for mask in removed]).double().numpy()
    fractions = np.array([float(mask.double().mean()) for mask in masks])
    area = float((np.diff(fractions) * (scores[1:] + scores[:-1]) / 2).sum())  # NumPy 1 has no trapezoid()
    return Measured(area, {name: ScoreCurve(fractions, scores)})


def removed_copy(case: Case, removal: Removal, removed: Tensor) -> Copy:
    """The image without the pixels of a mask; the untouched and the empty image are the same for all maps."""
    if not removed.any():
        return plain_copy(case)
    if removed.all():
        return Copy(('removed', removal.kind), lambda: removal(removed))
    key = 'removed', removal.kind, removed.numpy().tobytes()
    if removal.kind != 'linear':
        return Copy(key, lambda: removal(removed))
    return Copy(key, lambda: removal(removed), Together(case.protocol, removal.imputed), removed)


def plain_copy(case: Case) -> Copy:
    """The image as it is."""
    return Copy('plain', lambda: case.image)


@register_metric(
    'road',
    paper='Rong et al., ROAD, ICML 2022',
    formula='(mean score with the least relevant removed − with the most relevant removed) / 2, by linear imputation',
    range=(-0.5, 0.5),
    needs=Needs.SCORES,
)
def road(case: Case) -> Scoring:
    """Half the difference between removing the least and the most relevant pixels, both imputed from the rest."""
    removal, percent = Removal(case, 'linear'), case.protocol.percent
    orders: list[Order] = [removal_order(case, least) for least in (False, True)]
    masks = [order.first_percent(each) for order in orders for each in percent]
    scores = (yield [removed_copy(case, removal, mask) for mask in masks]).double().numpy()
    fractions = np.array([float(mask.double().mean()) for mask in masks])
    most, least = scores[: len(percent)], scores[len(percent) :]
    curves = {
        'road most relevant': ScoreCurve(fractions[: len(percent)], most),
        'road least relevant': ScoreCurve(fractions[len(percent) :], least),
    }
    return Measured(float(least.mean() - most.mean()) / 2, curves)


def _explanation(case: Case) -> Copy:
    """The image with each pixel as strong as the map says, over the baseline."""
    removal = Removal(case, 'mean' if case.protocol.baseline == 'linear' else case.protocol.baseline)
    return Copy(('faded', removal.kind, case.key), lambda: removal.faded(case.known))


@register_metric(
    'drop',
    paper='Chattopadhay et al., Grad-CAM++, WACV 2018',
    formula='max(0, score − score of the image times the map) / score',
    range=(0, 1),
    better='lower',
    needs=Needs.SCORES,
)
def drop(case: Case) -> Scoring:
    """How much of the score is lost where only what the map shows is left of the image."""
    plain, masked = (yield [plain_copy(case), _explanation(case)]).tolist()
    lost = max(0.0, plain - masked)
    if case.protocol.drop == 'absolute':
        return Measured(lost)
    return Measured(lost / plain if plain > 0 else math.nan)  # a value may be negative: it has no share


@register_metric(
    'increase',
    short='inc',
    paper='Chattopadhay et al., Grad-CAM++, WACV 2018',
    formula='1 if the image times the map has a higher score than the image, else 0',
    range=(0, 1),
    needs=Needs.SCORES,
)
def increase(case: Case) -> Scoring:
    """Whether the score rises where only what the map shows is left of the image."""
    plain, masked = (yield [plain_copy(case), _explanation(case)]).tolist()
    return Measured(float(masked > plain))
