"""FinerCAM: what tells a class from those like it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vistool.analyses.cam.methods import Needs, gradcam, method, titles_of
from vistool.analyses.cam.targets import Goal, scores_of
from vistool.errors import InputError

SIMILAR = 3
"""How many classes are held against the one asked for."""


def finer_score(goal: Goal, output: Any, rows: Tensor) -> Tensor:
    """Σ_d p_d·(y_c − y_d) / (Σ_d p_d + 1e-9) over the similar classes d, p their softmax probabilities.

    Similar are the classes named by the goal, else those whose scores for the plain image are nearest to the class's
    own.

    Args:
        goal: A class for each image.
        output: What the network returned for n images.
        rows: int64 ``(n,)``, the image of each.

    Returns:
        ``(n,)``.

    Raises:
        InputError: If the goal is no class, or there is no other class.
    """
    if goal.classes is None or goal.plain is None:
        works = titles_of(lambda entry: entry.score is None)
        raise InputError(f'FinerCAM compares classes, and {goal.name} is none', accepted=works, parameter='methods')
    scores = scores_of(output)
    images = rows.to(scores.device) % len(goal.classes)
    own = goal.classes[images]
    others = (goal.similar if goal.similar is not None else nearest(goal.plain, goal.classes))[images]
    shares = scores.softmax(1).gather(1, others)
    margins = scores.gather(1, own[:, None]) - scores.gather(1, others)
    return (shares * margins).sum(1) / (shares.sum(1) + 1e-9)


def nearest(scores: Tensor, classes: Tensor, count: int = SIMILAR) -> Tensor:
    """The other classes with the nearest scores: ``(B, C)`` and ``(B,)`` → int64 ``(B, count)``, nearest first."""
    count = min(count, scores.shape[1] - 1)
    if count < 1:
        raise InputError('FinerCAM needs a second class to compare with', parameter='methods')
    distance = (scores - scores.gather(1, classes[:, None])).abs()
    distance = distance.scatter(1, classes[:, None], torch.inf)
    return distance.topk(count, dim=1, largest=False).indices


method(
    'finercam',
    'FinerCAM',
    'Zhang et al., Finer-CAM, CVPR 2025',
    needs=Needs.GRADIENTS | Needs.SCORE,
    score=finer_score,
)(gradcam)
