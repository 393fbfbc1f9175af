"""The pictures that a cut is shown in: overlapping fields, windows, and the image at a size that patches cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vistool.errors import InputError
from vistool.patching.grid import PatchGrid, Size, by, filling, fitting
from vistool.patching.routes import window
from vistool.results import Cut, GridImage

if TYPE_CHECKING:
    from vistool.patching.embedding import Embedding, Step

FITS = ('resize', 'crop', 'pad')
Pixels = NDArray[np.uint8]


def caption(grid: PatchGrid, special: Sequence[str] = (), noun: str = 'tokens') -> str:
    """``'14×14 = 196 tokens of 16×16 pixels + 1 CLS'``."""
    kinds: dict[str, int] = {}
    for name in special:
        kinds[name.rstrip('0123456789')] = kinds.get(name.rstrip('0123456789'), 0) + 1
    more = ''.join(f' + {count} {name}' for name, count in kinds.items())
    every = (
        f', one every {by(grid.stride) if grid.stride[0] != grid.stride[1] else grid.stride[0]}'
        if grid.overlaps
        else ''
    )
    return f'{by(grid.shape)} = {grid.count} {noun} of {by(grid.patch)} pixels{every}{more}'


def limit_size(image: Pixels, longest: int | None) -> Pixels:
    """The image made smaller where its longest side has more pixels than that."""
    if not longest or max(size_of(image)) <= longest:
        return image
    import cv2

    height, width = size_of(image)
    scale = longest / max(height, width)
    smaller = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, smaller, interpolation=cv2.INTER_AREA), np.uint8)


def fit_image(image: Pixels, patch: Size, stride: Size, how: str, color: tuple[int, int, int]) -> Pixels:
    """The image at a size that patches cover without rest.

    Args:
        image: uint8 ``(H, W, 3)``.
        patch: Size of a patch.
        stride: From one patch to the next.
        how: ``resize`` (smaller, as little as needed), ``crop`` (the middle), ``pad`` (at the right and below).
        color: Of the padding.

    Raises:
        InputError: The patch is larger than the image, or the stride than the patch.
    """
    size = size_of(image)
    try:
        PatchGrid.over(size, patch, stride)
    except InputError as error:
        raise error.under('--stride' if 'stride' in error.problem else '--patch-size') from None
    wanted = filling(size, patch, stride) if how == 'pad' else fitting(size, patch, stride)
    if wanted == size:
        return image
    if how == 'resize':
        import cv2

        return np.asarray(cv2.resize(image, wanted[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)
    if how == 'crop':
        top, left = (size[0] - wanted[0]) // 2, (size[1] - wanted[1]) // 2
        return image[top : top + wanted[0], left : left + wanted[1]]
    whole = np.empty((*wanted, 3), np.uint8)
    whole[:] = color
    whole[: size[0], : size[1]] = image
    return whole


def windowed(image: Pixels, cut: Cut, embedding: Embedding | None) -> tuple[GridImage, ...]:
    """One mosaic for each way in which windows lie."""
    windows = embedding.windows if embedding else ()
    if not windows:
        raise InputError("this network's attention has no windows", accepted='Swin and its kin', argument='--windows')
    rows, columns = cut.grid.shape
    tiles = []
    for each in windows:
        moved = f', shifted by {each.shift[0] or each.shift[1]}' if any(each.shift) else ''
        edges = each.edges(0, rows), each.edges(1, columns)
        tiles.append(GridImage(image, (f'windows of {by(each.size)} tokens{moved}',), cut=replace(cut, windows=edges)))
    return tuple(tiles)


def overlapping(image: Pixels, cut: Cut, steps: Sequence[Step]) -> tuple[tuple[GridImage, ...], ...]:
    """Above, the patches in full; below, the fields of four neighbours from the middle on the image."""
    grids = [step.grid for step in steps] or [cut.grid]
    mosaics, fields = [], []
    for number, grid in enumerate(grids):
        own = replace(cut, grid=grid, border=cut.border * min(grid.patch) / min(cut.grid.patch))
        own = own if grid == cut.grid else replace(own, highlight=(), order=False)
        mosaics.append(GridImage(image, (_step_title(steps, number, grid),), cut=own))
        fields.append(_fields(image, grid, grids[-1]))
    return ((mosaics[0], fields[0]),) if len(grids) == 1 else (tuple(mosaics), tuple(fields))


def _step_title(steps: Sequence[Step], number: int, grid: PatchGrid) -> str:
    of = f' of {by(grid.patch)} px'
    if not number:
        return f'{by(grid.shape)} patches{of}'
    step = steps[number]
    return f'{by(step.kernel)}, stride {step.stride[0]} → {by(grid.shape)}{of}'


def _fields(image: Pixels, grid: PatchGrid, widest: PatchGrid) -> GridImage:
    """The image with the padding of the widest grid, and four neighbouring patches outlined on it."""
    row, column = max(grid.shape[0] // 2 - 1, 0), max(grid.shape[1] // 2 - 1, 0)
    chosen = [
        r * grid.shape[1] + c
        for r in range(row, min(row + 2, grid.shape[0]))
        for c in range(column, min(column + 2, grid.shape[1]))
    ]
    top, left = min(widest.start[0], 0), min(widest.start[1], 0)
    size = max(widest.stop[0], grid.image[0]) - top, max(widest.stop[1], grid.image[1]) - left
    padded = window(image.transpose(2, 0, 1), (top, left), size, 225).transpose(1, 2, 0)
    boxes = [grid.box(number) for number in chosen]
    fields = tuple((x0 - left, y0 - top, x1 - left, y1 - top) for x0, y0, x1, y1 in boxes)
    return GridImage(np.ascontiguousarray(padded), ('the fields of four neighbours',), fields=fields)


def pixels_of(subject: Any) -> Pixels:
    """A path, a PIL image or an array as uint8 ``(H, W, 3)`` RGB."""
    from vistool.inputs.imread import as_rgb, read_image, to_rgb

    if isinstance(subject, (str, bytes)) or hasattr(subject, '__fspath__'):
        return read_image(subject)
    return to_rgb(subject) if hasattr(subject, 'getbands') else as_rgb(subject)


def size_of(image: Pixels) -> Size:
    """Height and width."""
    return image.shape[0], image.shape[1]
