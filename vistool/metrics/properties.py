"""Metrics of the map itself, and of its maps under noise."""

from __future__ import annotations

import math

import numpy as np

from vistool.metrics.registry import Case, Needs, register_metric


@register_metric(
    'sparseness',
    short='sparse',
    paper='Chalasani et al., Concise Explanations, ICML 2020',
    formula='Gini index of the values: 0 for a constant map, near 1 for a single point',
    range=(0, 1),
)
def sparseness(case: Case) -> float:
    """The Gini index of the map's absolute values."""
    values = np.sort(np.abs(case.known.double().numpy().ravel()))
    total = values.sum()
    if total == 0:
        return math.nan
    places = np.arange(1, len(values) + 1)
    return float(1 - 2 * (values / total * (len(values) - places + 0.5) / len(values)).sum())


@register_metric(
    'sensitivity',
    short='sens',
    paper='Yeh et al., (In)fidelity and Sensitivity, NeurIPS 2019',
    formula='max over noisy copies of ‖map of the copy − map‖ / ‖map‖',
    range=(0, math.inf),
    better='lower',
    needs=Needs.MAPS,
)
def sensitivity(case: Case) -> float:
    """The largest relative change of the map under noise that nobody sees."""
    norm = float(case.known.double().norm())
    if norm == 0:
        return math.nan
    return max(float((again.nan_to_num() - case.known).double().norm()) for again in case.again) / norm
