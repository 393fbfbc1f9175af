"""Images → patches → images: three equivalent ways to cut out patches, and their exact inverse.

The three routes give identical tensors for every element type, bit for bit:

- :func:`split_einops` rearranges a strided view. It copies each pixel once, is the fastest, and takes numpy arrays too.
- :func:`split_unfold` is ``F.unfold``, which takes floating point only.
- :func:`split_convolution` is a strided convolution with an identity kernel, or ``F.pixel_unshuffle`` where patches are
  square and do not overlap.

If torch's operators lack a type, or would turn infinity into NaN, the bytes of the pixels go through them instead:
whole numbers up to 255, which every float type represents.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vistool.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Size = tuple[int, int]
Images = TypeVar('Images', 'Tensor', NDArray[Any])
"""Images as a tensor or as a numpy array."""


@dataclass(frozen=True)
class PatchGrid:
    """The positions of an image's patches. Sizes are ``(height, width)``, in pixels.

    Patch ``(r, c)``, in reading order number ``r * columns + c``, covers ``patch`` pixels from
    ``stride * (r, c) + start`` on. It may reach beyond the image; what lies there is padding.

    Attributes:
        image: Size of the image.
        patch: Size of a patch.
        stride: From one patch to the next.
        start: Upper left corner of the first patch; negative if the image is padded.
        shape: Rows and columns of patches.
    """

    image: Size
    patch: Size
    stride: Size
    start: Size
    shape: Size

    @classmethod
    def over(
        cls, image: Size, patch: int | Size, stride: int | Size | None = None, padding: int | Size = 0
    ) -> PatchGrid:
        """As many patches as fit, counted as in a convolution; a remainder at the right and below is not covered.

        Args:
            image: Size of the image.
            patch: Size of a patch.
            stride: From one patch to the next; default: the patch's size.
            padding: Pixels added on each side of the image.

        Raises:
            InputError: Sizes are not positive, the patch is larger than the image, or the stride than the patch.
        """
        patch = pair(patch, 'patch size')
        stride = patch if stride is None else pair(stride, 'stride')
        padding = pair(padding, 'padding', least=0)
        full = (image[0] + 2 * padding[0], image[1] + 2 * padding[1])
        if patch[0] > full[0] or patch[1] > full[1]:
            raise InputError(f'a patch of {by(patch)} pixels is larger than the image, {by(image)}')
        if stride[0] > patch[0] or stride[1] > patch[1]:
            raise InputError(
                f'a stride of {by(stride)} leaves gaps between patches of {by(patch)}', accepted=f'1 to {by(patch)}'
            )
        shape = ((full[0] - patch[0]) // stride[0] + 1, (full[1] - patch[1]) // stride[1] + 1)
        return cls(image, patch, stride, (-padding[0], -padding[1]), shape)

    def then(self, kernel: Size, stride: Size, padding: Size, shape: Size) -> PatchGrid:
        """The grid of a further layer over these patches: the receptive fields of its outputs in the image."""
        axes = range(2)
        return PatchGrid(
            self.image,
            _size(self.patch[i] + (kernel[i] - 1) * self.stride[i] for i in axes),
            _size(self.stride[i] * stride[i] for i in axes),
            _size(self.start[i] - padding[i] * self.stride[i] for i in axes),
            shape,
        )

    @property
    def count(self) -> int:
        """Number of patches."""
        return self.shape[0] * self.shape[1]

    @property
    def overlaps(self) -> bool:
        """Whether neighboring patches share pixels."""
        return self.stride != self.patch

    @property
    def stop(self) -> Size:
        """Where the last patch ends, ``(y, x)``."""
        return _size(self.start[i] + (self.shape[i] - 1) * self.stride[i] + self.patch[i] for i in range(2))

    def box(self, index: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of a patch in image pixels; in the padding they lie outside the image."""
        row, column = divmod(index, self.shape[1])
        top, left = self.start[0] + row * self.stride[0], self.start[1] + column * self.stride[1]
        return left, top, left + self.patch[1], top + self.patch[0]

    def pixels(self, axis: int) -> NDArray[np.intp]:
        """Coordinate along an axis of each pixel of each patch, ``(number of patches along it, patch)``."""
        first = self.start[axis] + self.stride[axis] * np.arange(self.shape[axis])
        return first[:, None] + np.arange(self.patch[axis])

    def covered(self) -> NDArray[np.bool_]:
        """``(H, W)``: the image's pixels that lie in a patch."""
        along = []
        for axis in range(2):
            inside = self.pixels(axis)
            seen = np.zeros(self.image[axis], bool)
            seen[inside[(inside >= 0) & (inside < self.image[axis])]] = True
            along.append(seen)
        return along[0][:, None] & along[1]


def pair(value: int | Size, name: str, least: int = 1) -> Size:
    """One whole number or two as ``(height, width)``, each at least ``least``.

    Raises:
        InputError: The value is not of this form.
    """
    sizes = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(sizes) != 2 or not all(isinstance(size, int) and size >= least for size in sizes):
        wanted = f'one whole number or two (height, width), {least} or more'
        raise InputError(f'{value!r} is not a {name}', accepted=wanted)
    return sizes[0], sizes[1]


def by(size: Size) -> str:
    """``'14×14'``."""
    return f'{size[0]}×{size[1]}'


def _size(values: Any) -> Size:
    height, width = values
    return height, width


def fitting(image: Size, patch: Size, stride: Size) -> Size:
    """The largest size within ``image`` that patches cover without a remainder."""
    return _size(patch[i] + (image[i] - patch[i]) // stride[i] * stride[i] for i in range(2))


def filling(image: Size, patch: Size, stride: Size) -> Size:
    """The smallest size around ``image`` that patches cover without a remainder."""
    return _size(patch[i] + math.ceil(max(image[i] - patch[i], 0) / stride[i]) * stride[i] for i in range(2))


def split_einops(images: Images, grid: PatchGrid, value: float = 0) -> Images:
    """Patches of an image, or of a batch, as einops writes it: ``'c (h h1) (w w1) -> (h w) c h1 w1'``.

    Args:
        images: ``(C, H, W)`` or ``(B, C, H, W)``, a tensor or a numpy array of any type.
        grid: Where the patches lie.
        value: The value of the padding.

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
    """The same with ``F.unfold``, each column of which is a patch, channels first."""
    from torch.nn import functional

    def unfold(planes: Tensor) -> Tensor:
        columns = functional.unfold(planes, grid.patch, stride=grid.stride)
        return columns.unflatten(1, (planes.shape[1], *grid.patch)).movedim(-1, 1)

    return _by_planes(unfold, images, grid, value, ('float32', 'float64'))


def split_convolution(images: Tensor, grid: PatchGrid, value: float = 0) -> Tensor:
    """The same with a strided convolution, each output channel of which picks one pixel of the patch."""
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


def join(patches: Images, grid: PatchGrid, fill: float = 0) -> Images:
    """The inverse of the three routes: the image, with every covered pixel restored.

    Args:
        patches: ``(N, C, h, w)`` or ``(B, N, C, h, w)``, a tensor or a numpy array.
        grid: Where they were cut.
        fill: The value of pixels outside all patches.

    Returns:
        ``(C, H, W)`` or ``(B, C, H, W)``. If patches overlap and differ, the last one is used.
    """
    from einops import rearrange

    rows, columns = grid.shape
    tiles: Any = rearrange(patches, '... (h w) c h1 w1 -> ... c h1 w1 h w', h=rows, w=columns)
    size: Size = (grid.stop[0] - grid.start[0], grid.stop[1] - grid.start[1])
    whole: Any = _empty(patches, (*tiles.shape[:-4], *size), fill)
    (h, w), (down, across) = grid.patch, grid.stride
    for y in reversed(range(h)):  # later patches start nearer, so this order lets them write last
        for x in reversed(range(w)):
            last = y + (rows - 1) * down + 1, x + (columns - 1) * across + 1
            whole[..., y : last[0] : down, x : last[1] : across] = tiles[..., y, x, :, :]
    return window(whole, (-grid.start[0], -grid.start[1]), grid.image, fill)


def _cropped(images: Images, grid: PatchGrid, value: float) -> Images:
    """The part of the padded image that patches cover."""
    if tuple(images.shape[-2:]) != tuple(grid.image) or images.ndim not in (3, 4):
        shape = tuple(images.shape)
        raise InputError(f'a grid over {by(grid.image)} pixels does not fit images {shape}', accepted='(…, C, H, W)')
    return window(images, grid.start, (grid.stop[0] - grid.start[0], grid.stop[1] - grid.start[1]), value)


def window(images: Images, corner: Size, size: Size, value: float) -> Images:
    """``size`` pixels from ``corner`` on; pixels outside the image are set to ``value``."""
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
    """Runs a route on images of the types that it copies exactly, else on their bytes as planes of floats."""
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
    """A copy with contiguous strides, on axes of length 1 too, as a view with another element size requires."""
    import torch

    return tensor.clone(memory_format=torch.contiguous_format)


MASKS = ('random', 'block', 'grid')

# Bao et al., BEiT (2022), algorithm 1: blocks of at least 16 patches, with aspect ratios in this range.
_LEAST_BLOCK = 16
_ASPECT = 0.3
_TRIES = 100


def make_mask(shape: tuple[int, int], ratio: float, kind: str = 'random', seed: int = 0) -> NDArray[np.bool_]:
    """A mask over a grid of patches.

    Args:
        shape: Rows and columns of patches.
        ratio: Share to mask; of N patches ``int(N * (1 - ratio))`` stay visible, as in MAE.
        kind: ``random``: independent patches (MAE). ``block``: rectangles (BEiT), the last one cut to the ratio.
            ``grid``: evenly spread; at 0.75 one patch of each 2×2 stays visible.
        seed: Seed of a random or block mask.

    Returns:
        bool ``(N,)``, True where masked.
    """
    count = shape[0] * shape[1]
    masked = count - int(count * (1 - ratio) + 1e-9)
    if kind == 'block':
        return _blocks(shape, masked, np.random.default_rng(seed)).ravel()
    order = _dither(shape) if kind == 'grid' else np.random.default_rng(seed).permutation(count)
    hidden = np.ones(count, bool)
    hidden[order[: count - masked]] = False
    return hidden


def _dither(shape: tuple[int, int]) -> NDArray[np.intp]:
    """Patches in the order of an 8×8 ordered dither (Bayer, 1973): every prefix of the order is evenly spread."""
    pattern = np.zeros((1, 1), int)
    for _ in range(3):
        pattern = np.block([[4 * pattern, 4 * pattern + 2], [4 * pattern + 3, 4 * pattern + 1]])
    rows, columns = np.indices(shape)
    return np.argsort(pattern[rows % 8, columns % 8].ravel(), kind='stable')


def _blocks(shape: tuple[int, int], wanted: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    hidden = np.zeros(shape, bool)
    for _ in range(_TRIES * max(1, wanted)):
        left = wanted - int(hidden.sum())
        if left <= 0:
            break
        area = generator.uniform(min(_LEAST_BLOCK, left), left)
        aspect = math.exp(generator.uniform(math.log(_ASPECT), -math.log(_ASPECT)))
        height = min(max(1, round(math.sqrt(area * aspect))), shape[0])
        width = min(max(1, round(math.sqrt(area / aspect))), shape[1])
        top, edge = generator.integers(shape[0] - height + 1), generator.integers(shape[1] - width + 1)
        block = np.zeros(shape, bool)
        block[top : top + height, edge : edge + width] = True
        fresh = np.flatnonzero(block & ~hidden)
        hidden.flat[fresh[:left]] = True
    return hidden
