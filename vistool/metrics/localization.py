"""Metrics that compare a map with a mask of the object. An empty mask gives NaN: it is left out, never a hit.

The chance level beside each is what a map that knows nothing gets: the share of the image that the mask covers.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vistool.metrics.registry import Case, Measured, Needs, register_metric


@register_metric(
    'energy',
    paper='Wang et al., Score-CAM, CVPRW 2020',
    formula='sum of the positive values inside the mask / sum of the positive values',
    range=(0, 1),
    needs=Needs.TRUTH,
)
def energy(case: Case) -> Measured:
    """The share of the map's positive values that lies inside the mask; a flat map gets the mask's share."""
    truth, values = _truth(case), case.known.double().numpy().clip(min=0)
    total = values.sum()
    found = float(values[truth].sum() / total) if truth.any() and total else math.nan
    return Measured(found, chance=_share(truth))


@register_metric(
    'pointing',
    short='point',
    paper='Zhang et al., Excitation Backprop, ECCV 2016',
    formula='1 if the largest value lies inside the mask, or within the tolerance of it, else 0',
    range=(0, 1),
    needs=Needs.TRUTH,
)
def pointing(case: Case) -> Measured:
    """Whether the largest value hits the mask. Of several equal ones, the share that hits it.

    The tolerance is in pixels of the network's input. A random point hits with the share of the enlarged mask.
    """
    hit, values = enlarged(_truth(case), case.protocol.tolerance), case.known.numpy()
    if not hit.any() or values.max() <= 0:
        return Measured(math.nan, chance=_share(hit))
    return Measured(float(hit[values == values.max()].mean()), chance=_share(hit))


@register_metric(
    'iou',
    short='IoU',
    paper='Zhou et al., CAM, CVPR 2016',
    formula='intersection over union of the mask and the pixels above a share of the maximum',
    range=(0, 1),
    needs=Needs.TRUTH,
)
def iou(case: Case) -> Measured:
    """Intersection over union with the mask, at the protocol's threshold; the whole image gets the mask's share."""
    truth, values = _truth(case), case.known.numpy()
    if not truth.any() or values.max() <= 0:
        return Measured(math.nan, chance=_share(truth))
    shown = values >= case.protocol.threshold * values.max()
    return Measured(float((shown & truth).sum() / (shown | truth).sum()), chance=_share(truth))


@register_metric(
    'best_iou',
    short='best IoU',
    paper='Choe et al., Evaluating Weakly Supervised Object Localization Methods Right, CVPR 2020',
    formula='the largest intersection over union of the mask and the pixels from a value up, over all values',
    range=(0, 1),
    needs=Needs.TRUTH,
)
def best_iou(case: Case) -> Measured:
    """Intersection over union with the mask at the threshold that suits this map best: at least the mask's share."""
    truth, values = _truth(case).ravel(), case.known.numpy().ravel()
    if not truth.any() or values.max() <= 0:
        return Measured(math.nan, chance=_share(truth))
    order = np.argsort(-values, kind='stable')
    inside, count = np.cumsum(truth[order]), np.arange(1, len(order) + 1)
    last = np.append(np.diff(values[order]) != 0, True)  # equal values are above a threshold together
    found = (inside / (count + truth.sum() - inside))[last]
    return Measured(float(found.max()), chance=_share(truth))


def enlarged(mask: NDArray[np.bool_], tolerance: int) -> NDArray[np.bool_]:
    """A mask with all pixels whose distance from it is at most ``tolerance``."""
    if not tolerance or not mask.any():
        return mask
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~mask) <= tolerance)


def _share(mask: NDArray[np.bool_]) -> float:
    """The share of the image that a mask covers; NaN for an empty one, which is left out."""
    return float(mask.mean()) if mask.any() else math.nan


def _truth(case: Case) -> NDArray[np.bool_]:
    assert case.truth is not None
    return case.truth
