"""Metrics that compare a map with a mask of the object. An empty mask gives NaN: it is left out, never a hit."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vistool.metrics.registry import Case, Needs, register_metric


@register_metric(
    'energy',
    paper='Wang et al., Score-CAM, CVPRW 2020',
    formula='sum of the map inside the mask / sum of the map',
    range=(0, 1),
    needs=Needs.TRUTH,
)
def energy(case: Case) -> float:
    """The share of the map's values that lies inside the mask; by chance, the mask's share of the image."""
    truth, values = _truth(case), case.known.double().numpy().clip(min=0)
    total = values.sum()
    return float(values[truth].sum() / total) if truth.any() and total else math.nan


@register_metric(
    'pointing',
    short='point',
    paper='Zhang et al., Excitation Backprop, ECCV 2016',
    formula='1 if the largest value lies inside the mask, or within the tolerance of it, else 0',
    range=(0, 1),
    needs=Needs.TRUTH,
)
def pointing(case: Case) -> float:
    """Whether the largest value hits the mask. Of several equal ones, the share that hits it."""
    truth, values = _truth(case), case.known.numpy()
    if not truth.any() or values.max() <= 0:
        return math.nan
    rows, columns = np.nonzero(truth)
    hits = [
        np.hypot(rows - row, columns - column).min() <= case.protocol.tolerance
        for row, column in zip(*np.nonzero(values == values.max()), strict=True)
    ]
    return float(np.mean(hits))


@register_metric(
    'iou',
    short='IoU',
    paper='Zhou et al., CAM, CVPR 2016',
    formula='intersection over union of the mask and the pixels above a share of the maximum',
    range=(0, 1),
    needs=Needs.TRUTH,
)
def iou(case: Case) -> float:
    """Intersection over union with the mask, at the protocol's threshold."""
    truth, values = _truth(case), case.known.numpy()
    if not truth.any() or values.max() <= 0:
        return math.nan
    shown = values >= case.protocol.threshold * values.max()
    return float((shown & truth).sum() / (shown | truth).sum())


def _truth(case: Case) -> NDArray[np.bool_]:
    assert case.truth is not None
    return case.truth
