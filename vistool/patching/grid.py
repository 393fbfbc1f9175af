"""Where the patches of an image lie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistool.errors import InputError

Size = tuple[int, int]


@dataclass(frozen=True)
class PatchGrid:
    """Where the patches of an image lie. Sizes are ``(height, width)``, in pixels.

    Patch ``(r, c)``, in reading order number ``r * columns + c``, covers ``patch`` pixels from
    ``stride * (r, c) + start`` on. It may reach beyond the image; what lies there is padding.

    Attributes:
        image: Size of the image.
        patch: Size of a patch.
        stride: From one patch to the next.
        start: Upper left corner of the first patch; negative where the image is padded.
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
        """As many patches as fit, counted as a convolution counts them; a rest at the right and below is not covered.

        Args:
            image: Size of the image.
            patch: Size of a patch.
            stride: From one patch to the next; default: the patch's size.
            padding: Added at each side of the image.

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
        """The grid of a further step that takes ``kernel`` of these patches: its receptive fields in the image."""
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
        """Whether neighbouring patches share pixels."""
        return self.stride != self.patch

    @property
    def stop(self) -> Size:
        """Where the last patch ends, ``(y, x)``."""
        return _size(self.start[i] + (self.shape[i] - 1) * self.stride[i] + self.patch[i] for i in range(2))

    def box(self, index: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of a patch in image pixels; the padding's are negative or beyond the image."""
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
    """One whole number or two as ``(height, width)``, none below ``least``.

    Raises:
        InputError: It is something else.
    """
    sizes = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(sizes) != 2 or not all(isinstance(size, int) and size >= least for size in sizes):
        wanted = f'one whole number or two (height, width), {least} or more'
        raise InputError(f'{value!r} is no {name}', accepted=wanted)
    return sizes[0], sizes[1]


def by(size: Size) -> str:
    """``'14×14'``."""
    return f'{size[0]}×{size[1]}'


def _size(values: Any) -> Size:
    height, width = values
    return height, width


def fitting(image: Size, patch: Size, stride: Size) -> Size:
    """The largest size within ``image`` that patches cover without rest."""
    return _size(patch[i] + (image[i] - patch[i]) // stride[i] * stride[i] for i in range(2))


def filling(image: Size, patch: Size, stride: Size) -> Size:
    """The smallest size around ``image`` that patches cover without rest."""
    return _size(patch[i] + math.ceil(max(image[i] - patch[i], 0) / stride[i]) * stride[i] for i in range(2))
