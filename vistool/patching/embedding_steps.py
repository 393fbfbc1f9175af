"""One step of an embedding: how a convolution, a pooling or an unfolding is set, and what its tokens see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vistool.errors import InputError
from vistool.patching.grid import PatchGrid, Size, by


@dataclass(frozen=True)
class Step:
    """One step of an embedding.

    Attributes:
        name: The module.
        kernel: Taken in at a time, in pixels or tokens of the step before.
        stride: From one to the next, likewise.
        grid: Its tokens' receptive fields in the image.
    """

    name: str
    kernel: Size
    stride: Size
    grid: PatchGrid


def first_step(name: str, module: nn.Module, taken: Tensor, output: Tensor, image: Tensor | None, size: Size) -> Step:
    """The step that takes in the image; ``taken`` and ``output`` are what went into the module and came out."""
    seen = (int(taken.shape[2]), int(taken.shape[3]))
    if seen[0] < size[0] or seen[1] < size[1]:
        raise InputError(f'the network resizes the image to {by(seen)} before {name} cuts it', argument='config')
    kernel, stride, before, shape = _setting(module, taken, output)
    top, left = _place(taken, image, size)
    grid = PatchGrid(size, kernel, stride, (-before[0] - top, -before[1] - left), shape)
    return Step(name, kernel, stride, grid)


def next_step(name: str, module: nn.Module, taken: Tensor, output: Tensor, last: Step) -> Step:
    """A step that takes in the tokens of the ``last``."""
    if tuple(taken.shape[2:]) != last.grid.shape:
        raise InputError(f'the embedding branches at {name}: a token has no one field in the image', argument='config')
    kernel, stride, before, shape = _setting(module, taken, output)
    return Step(name, kernel, stride, last.grid.then(kernel, stride, before, shape))


def _setting(module: nn.Module, taken: Tensor, output: Tensor) -> tuple[Size, Size, Size, Size]:
    """Kernel (with its holes), stride, padding above and at the left, and the shape of what comes out."""
    dilation = as_pair(getattr(module, 'dilation', 1))
    sides = zip(as_pair(module.kernel_size), dilation, strict=True)
    kernel = _both(spacing * (side - 1) + 1 for side, spacing in sides)
    stride, shape = as_pair(module.stride), _shape_of(module, output, taken)
    declared = module.padding if not isinstance(module.padding, str) else 0
    before = []
    for axis, padding in enumerate(as_pair(declared)):
        # Some layers pad by themselves, on both sides, what their settings do not tell; the output's size does.
        wanted = (shape[axis] - 1) * stride[axis] + kernel[axis] - int(taken.shape[2 + axis])
        before.append(wanted // 2 if wanted > 2 * padding else padding)
    return kernel, stride, _both(before), shape


def _shape_of(module: nn.Module, output: Tensor, taken: Tensor) -> Size:
    if not isinstance(module, nn.Unfold):
        return int(output.shape[2]), int(output.shape[3])
    settings = (as_pair(value) for value in (module.kernel_size, module.dilation, module.padding, module.stride))
    kernel, dilation, padding, stride = settings
    return _both(
        (int(taken.shape[2 + i]) + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
        for i in range(2)
    )


def _place(taken: Tensor, image: Tensor | None, size: Size) -> Size:
    """Where the image lies in what the first layer takes in: networks pad on one side, or on both."""
    spare = taken.shape[2] - size[0], taken.shape[3] - size[1]
    for top, left in ((0, 0), (spare[0] // 2, spare[1] // 2), (-(-spare[0] // 2), -(-spare[1] // 2))):
        part = taken[:, :, top : top + size[0], left : left + size[1]]
        if image is not None and part.shape == image.shape and torch.equal(part, image):
            return top, left
    return 0, 0


def as_pair(value: Any) -> Size:
    """A setting of a module, one number or two."""
    return (int(value), int(value)) if isinstance(value, int) else _both(value)


def _both(values: Any) -> Size:
    height, width = values
    return int(height), int(width)
