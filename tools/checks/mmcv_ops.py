"""Lets mmdet predict where mmcv was installed without its compiled operators: nms and roi_align by torchvision.

For checks only, never for users: whoever wants results installs mmcv with its operators. Importing this module enters
``mmcv._ext``, so that comes before anything imports mmcv. Any other operator raises when it is called.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import nms, roi_align


class Operators(types.ModuleType):
    """``mmcv._ext`` with the operators that detectors need to predict."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith('__'):
            raise AttributeError(name)

        def call(*args: Any, **options: Any) -> Any:
            raise RuntimeError(f'the operator {name} of mmcv is not compiled')

        return call

    @staticmethod
    def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
        """Row numbers of the boxes that are kept."""
        kept: Tensor = nms(boxes, scores, iou_threshold)
        return kept

    @staticmethod
    def roi_align_forward(
        features: Tensor,
        regions: Tensor,
        output: Tensor,
        argmax_y: Tensor,
        argmax_x: Tensor,
        aligned_height: int,
        aligned_width: int,
        spatial_scale: float,
        sampling_ratio: int,
        pool_mode: int,
        aligned: bool,
    ) -> None:
        """Writes the pooled features to ``output``."""
        size = aligned_height, aligned_width
        output.copy_(roi_align(features, regions, size, spatial_scale, sampling_ratio, aligned))

    @staticmethod
    def roi_align_backward(
        gradient: Tensor,
        regions: Tensor,
        argmax_y: Tensor,
        argmax_x: Tensor,
        wanted: Tensor,
        aligned_height: int,
        aligned_width: int,
        spatial_scale: float,
        sampling_ratio: int,
        pool_mode: int,
        aligned: bool,
    ) -> None:
        """Writes the gradient at the features to ``wanted``."""
        size = aligned_height, aligned_width
        backward = torch.ops.torchvision._roi_align_backward
        wanted.copy_(backward(gradient, regions, spatial_scale, *size, *wanted.shape, sampling_ratio, aligned))


sys.modules['mmcv._ext'] = operators = Operators('mmcv._ext')
operators.__spec__ = ModuleSpec('mmcv._ext', None)
