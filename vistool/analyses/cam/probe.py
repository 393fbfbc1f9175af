"""What a method gets that runs the network itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vistool.analyses.cam.targets import Goal
from vistool.network.forward import Layer


@dataclass(frozen=True)
class Probe:
    """The network, its inputs, and the score that is asked about.

    Attributes:
        module: The network, in eval mode, its parameters frozen.
        inputs: The batch: a tensor ``(B, C, H, W)``, or a tuple or dict of tensors.
        layers: The target layers as the shared forward left them: name, value, layout.
        modules: Their modules by name.
        goal: The score; None for a method that shows no class.
        eigen_smooth: Whether a principal component is asked for instead of a sum over channels.
        seed: Of whatever is drawn.
    """

    module: nn.Module
    inputs: Any
    layers: tuple[Layer, ...]
    modules: Mapping[str, nn.Module]
    goal: Goal | None = None
    eigen_smooth: bool = False
    seed: int = 0

    def score(self, output: Any, row: int, count: int) -> Tensor:
        """The score ``(count,)`` of an output of ``count`` versions of image ``row``."""
        assert self.goal is not None
        return self.goal.score(output, torch.full((count,), row))
