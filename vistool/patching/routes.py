"""Images → patches → images: three equivalent ways to cut patches out, and the exact way back.

The three routes give identical tensors for every element type, bit for bit:

- :func:`split_einops` rearranges a strided view. It copies each pixel once, is the fastest, and takes numpy arrays too.
- :func:`split_unfold` is ``F.unfold``, which knows floating point only.
- :func:`split_convolution` is a strided convolution with an identity kernel, or ``F.pixel_unshuffle`` where patches are
  square and do not overlap.

Where torch's operators lack a type, or would turn infinity into NaN, the bytes of the pixels go through them instead:
whole numbers up to 255, which any float holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from vistool.errors import InputError
from vistool.patching.grid import PatchGrid, Size, by

if TYPE_CHECKING:
    from torch import Tensor


def split_einops(images: Any, grid: PatchGrid, value: float = 0) -> Any:
    """Patches of an image, or of a batch, as einops writes it: ``'c (h h1) (w w1) -> (h w) c h1 w1'``.

    Args:
        images: ``(C, H, W)`` or ``(B, C, H, W)``, a tensor or a numpy array of any type.
        grid: Where the patches lie.
        value: What padding holds.

    Returns:
        ``(N, C, h, w)`` or ``(B, N, C, h, w)``, in reading order.
    """
    from einops import rearrange

    whole = _cropped(images, grid, value)
    if not grid.overlaps:
        rows, columns = grid.shape
        return rearrange(whole, '... c (h h1) (w w1) -> ... (h w) c h1 w1', h=rows, w=columns)
    (h, w), (down, across) = grid.patch, grid.stride
    if isinstance(whole, np.ndarray):
        view = np.lib.stride_tricks.sliding_window_view(whole, (h, w), (-2, -1))[..., ::down, ::across, :, :]
    else:
        view = whole.unfold(-2, h, down).unfold(-2, w, across)
    return rearrange(view, '... c h w h1 w1 -> ... (h w) c h1 w1')


def split_unfold(images: Tensor, grid: PatchGrid, value: float = 0) -> Tensor:
    """The same by ``F.unfold``, whose columns hold a patch each, channels first."""
    from torch.nn import functional

    def unfold(planes: Tensor) -> Tensor:
        columns = functional.unfold(planes, grid.patch, stride=grid.stride)
        return columns.unflatten(1, (planes.shape[1], *grid.patch)).movedim(-1, 1)

    return _by_planes(unfold, images, grid, value, ('float32', 'float64'))


def split_convolution(images: Tensor, grid: PatchGrid, value: float = 0) -> Tensor:
    """The same by a strided convolution, each output channel of which picks one pixel of the patch."""
    import torch
    from torch.nn import functional

    h, w = grid.patch

    def convolve(planes: Tensor) -> Tensor:
        channels = planes.shape[1]
        kernel = torch.eye(h * w, dtype=planes.dtype, device=planes.device).reshape(h * w, 1, h, w)
        picked = functional.conv2d(planes, kernel.repeat(channels, 1, 1, 1), stride=grid.stride, groups=channels)
        return _from_channels(picked, channels, grid)

    def unshuffle(planes: Tensor) -> Tensor:
        return _from_channels(functional.pixel_unshuffle(planes, h), planes.shape[1], grid)

    if not grid.overlaps and h == w:
        return _by_planes(unshuffle, images, grid, value, ('uint8', 'float16', 'float32', 'float64'))
    return _by_planes(convolve, images, grid, value)


split = split_einops
"""The fastest of the three (``tools/benchmarks/bench_patches.py``), which the commands use."""


def join(patches: Any, grid: PatchGrid, fill: float = 0) -> Any:
    """The inverse of the three routes: the image, every covered pixel as it was.

    Args:
        patches: ``(N, C, h, w)`` or ``(B, N, C, h, w)``, a tensor or a numpy array.
        grid: Where they were cut.
        fill: What pixels get that lie in no patch.

    Returns:
        ``(C, H, W)`` or ``(B, C, H, W)``. Where patches overlap and differ, the last one counts.
    """
    from einops import rearrange

    rows, columns = grid.shape
    tiles = rearrange(patches, '... (h w) c h1 w1 -> ... c h1 w1 h w', h=rows, w=columns)
    size = (grid.stop[0] - grid.start[0], grid.stop[1] - grid.start[1])
    whole = _empty(patches, (*tiles.shape[:-4], *size), fill)
    (h, w), (down, across) = grid.patch, grid.stride
    for y in reversed(range(h)):  # so that of patches that overlap the later ones, which start nearer, write last
        for x in reversed(range(w)):
            last = y + (rows - 1) * down + 1, x + (columns - 1) * across + 1
            whole[..., y : last[0] : down, x : last[1] : across] = tiles[..., y, x, :, :]
    return window(whole, (-grid.start[0], -grid.start[1]), grid.image, fill)


def _cropped(images: Any, grid: PatchGrid, value: float) -> Any:
    """The part of the padded image that patches cover."""
    if tuple(images.shape[-2:]) != tuple(grid.image) or images.ndim not in (3, 4):
        shape = tuple(images.shape)
        raise InputError(f'a grid over {by(grid.image)} pixels does not fit images {shape}', accepted='(…, C, H, W)')
    return window(images, grid.start, (grid.stop[0] - grid.start[0], grid.stop[1] - grid.start[1]), value)


def window(images: Any, corner: Size, size: Size, value: float) -> Any:
    """``size`` pixels from ``corner`` on; what lies outside the image gets ``value``."""
    height, width = images.shape[-2:]
    (top, left), (bottom, right) = corner, (corner[0] + size[0], corner[1] + size[1])
    inside = images[..., max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if top >= 0 and left >= 0 and bottom <= height and right <= width:
        return inside
    whole = _empty(images, (*images.shape[:-2], *size), value)
    y, x = max(-top, 0), max(-left, 0)
    whole[..., y : y + inside.shape[-2], x : x + inside.shape[-1]] = inside
    return whole


def _empty(like: Any, shape: tuple[int, ...], value: float) -> Any:
    if isinstance(like, np.ndarray):
        return np.full(shape, value, like.dtype)
    return like.new_full(shape, value)


def _from_channels(picked: Tensor, channels: int, grid: PatchGrid) -> Tensor:
    """``(B, C·h·w, rows, columns)`` → ``(B, N, C, h, w)``."""
    return picked.flatten(2).unflatten(1, (channels, *grid.patch)).movedim(-1, 1)


def _by_planes(
    route: Callable[[Tensor], Tensor], images: Tensor, grid: PatchGrid, value: float, types: tuple[str, ...] = ()
) -> Tensor:
    """Runs a route on images of the types it moves exactly, and on the bytes of any other as planes of floats."""
    import torch

    whole = _cropped(images, grid, value)
    batch = whole if whole.ndim == 4 else whole[None]
    if str(batch.dtype).removeprefix('torch.') in types:
        patches = route(batch)
    else:
        width = batch.element_size()
        planes = _in_order(batch).view(torch.uint8).unflatten(-1, (-1, width)).movedim(-1, 2).flatten(1, 2)
        patches = route(planes.float()).to(torch.uint8).unflatten(2, (-1, width)).movedim(3, -1)
        patches = _in_order(patches.flatten(-2)).view(batch.dtype)
    return patches.reshape(*whole.shape[:-3], *patches.shape[1:])


def _in_order(tensor: Tensor) -> Tensor:
    """A copy whose strides are the usual ones, of axes of length 1 too: a view of other element size asks for that."""
    import torch

    return tensor.clone(memory_format=torch.contiguous_format)
