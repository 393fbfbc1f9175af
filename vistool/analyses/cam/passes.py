"""Methods × scores → signed maps: one forward for those that share it, and the runs of those that do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vistool.analyses.cam.methods import Method
from vistool.analyses.cam.probe import Probe
from vistool.analyses.cam.targets import Goal
from vistool.network.forward import Forward

Key = tuple[str, int | None]
"""A method's name and the number of the goal; None for a method that shows no class."""
Signed = dict[Key, list[Tensor]]
"""Signed maps ``(B, h, w)``, one a layer, or one for all."""


def shared_maps(run: Forward, methods: Mapping[str, Method], goals: Sequence[Goal], eigen_smooth: bool) -> Signed:
    """The maps of those methods that one forward serves, with one backward through the tail for each score."""
    values = [layer.map(layer.value) for layer in run.layers]
    weighing = {name: method for name, method in methods.items() if method.run is None}
    signed: Signed = {
        (name, None): [method(value, None, eigen_smooth) for value in values]
        for name, method in weighing.items()
        if not method.gradients
    }
    kinds = dict.fromkeys(method.score for method in weighing.values() if method.gradients)
    asked = [(number, goal, kind) for number, goal in enumerate(goals) for kind in kinds]
    rows = torch.arange(run.count)
    for step, (number, goal, kind) in enumerate(asked):
        score = goal.score(run.output, rows) if kind is None else kind(goal, run.output, rows)
        gradients = run.gradients(score.sum(), last=step + 1 == len(asked))
        laid_out = [layer.map(gradient) for layer, gradient in zip(run.layers, gradients, strict=True)]
        for name, method in weighing.items():
            if method.gradients and method.score is kind:
                pairs = zip(values, laid_out, strict=True)
                signed[name, number] = [method(value, gradient, eigen_smooth) for value, gradient in pairs]
    return signed


def own_maps(probe: Probe, methods: Mapping[str, Method], goals: Sequence[Goal]) -> Signed:
    """The maps of those methods that run the network themselves."""
    signed: Signed = {}
    for name, method in methods.items():
        if method.run is None:
            continue
        if not method.shows_class:
            signed[name, None] = method.run(probe)
            continue
        for number, goal in enumerate(goals):
            signed[name, number] = method.run(replace(probe, goal=goal))
    return signed
