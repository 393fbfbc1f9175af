"""Patches side by side with borders: array to array."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from vistool.patching.routes import split
from vistool.results import Cut
from vistool.visualization.draw import resize_image
from vistool.visualization.scene import Color, Pixels

BLANK = -1
"""Stands in a sheet where there is nothing; ``-2 - k`` stands for the k-th token before the patches."""

_MASKED: Color = (150, 150, 150)
_SPECIAL: Color = (205, 222, 240)
_FADE = 0.7
# Borders become thinner than this only where patches are a few pixels themselves.
_THINNEST = 1
_SMALLEST_PITCH = 3.0
# Of more patches than this each is a few pixels, and a seam is not seen.
_MOST_ONE_BY_ONE = 10_000


@dataclass(frozen=True)
class Sheet:
    """Tokens in rows and columns.

    Attributes:
        ids: ``(rows, columns)`` numbers of patches, or what :data:`BLANK` says.
        cut: What is known of the patches.
        border: Around each patch above and below, and at its sides, in pixels of the picture.
    """

    ids: NDArray[np.intp]
    cut: Cut
    border: tuple[float, float]

    @property
    def pitch(self) -> tuple[float, float]:
        """From one patch to the next, down and across, in pixels of the picture."""
        h, w = self.cut.grid.patch
        return h + 2 * self.border[0], w + 2 * self.border[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width at which each pixel of a patch is one pixel."""
        return round(self.ids.shape[0] * self.pitch[0]), round(self.ids.shape[1] * self.pitch[1])


def plain_sheet(cut: Cut) -> Sheet:
    """The patches at their places."""
    return Sheet(np.arange(cut.grid.count).reshape(cut.grid.shape), cut, (cut.border, cut.border))


def sequence_sheet(cut: Cut, columns: int, most: int = 40) -> Sheet:
    """The tokens as one row, broken after ``columns``; of more than ``most`` lines the middle is left out."""
    special = -2 - np.arange(len(cut.sequence or ()))
    ids = np.concatenate([special, np.arange(cut.grid.count)])
    lines = math.ceil(len(ids) / columns)
    ids = np.concatenate([ids, np.full(lines * columns - len(ids), BLANK)]).reshape(lines, columns)
    if lines > most:
        ids = np.concatenate([ids[: most - 4], np.full((1, columns), BLANK), ids[-3:]])
    return Sheet(ids, cut, (max(cut.border, 0.12 * cut.grid.patch[0]), cut.border))


def draw_sheet(sheet: Sheet, pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """A sheet at ``(height, width)`` pixels; borders are whole pixels, and patches equally large.

    Args:
        sheet: What to draw.
        pixels: The picture that is cut, uint8 ``(H, W, 3)``.
        size: At :attr:`Sheet.size` with whole borders each patch is copied pixel by pixel.
    """
    flat = _side_by_side(sheet, pixels)
    rows, columns = sheet.ids.shape
    if min(size[0] / rows, size[1] / columns) < _SMALLEST_PITCH:
        return resize_image(_marked(flat, sheet), size)
    places, extent = zip(*(_places(size[axis], sheet, axis) for axis in range(2)), strict=True)
    small = _resized(flat, sheet, extent)
    canvas = np.empty((*size, 3), np.uint8)
    canvas[:] = sheet.cut.color
    canvas[np.ix_(places[0], places[1])] = _marked(small, sheet)
    return canvas


def _resized(flat: Pixels, sheet: Sheet, extent: tuple[int, int]) -> Pixels:
    """Each patch at ``extent`` pixels; one by one where neighbours in the sheet are none in the picture."""
    (rows, columns), (h, w) = sheet.ids.shape, sheet.cut.grid.patch
    size = rows * extent[0], columns * extent[1]
    apart = sheet.cut.sequence is not None or sheet.cut.grid.overlaps
    if not apart or extent == (h, w) or sheet.ids.size > _MOST_ONE_BY_ONE:
        return resize_image(flat, size)
    tiles = rearrange(flat, '(r h) (c w) k -> (r c) h w k', r=rows, c=columns)
    resized = np.stack([resize_image(np.ascontiguousarray(tile), extent) for tile in tiles])
    return np.asarray(rearrange(resized, '(r c) h w k -> (r h) (c w) k', r=rows))


def _side_by_side(sheet: Sheet, pixels: Pixels) -> Pixels:
    """``(rows * h, columns * w, 3)``: the patches without borders."""
    grid, ids = sheet.cut.grid, sheet.ids
    if sheet.cut.sequence is None and not grid.overlaps and grid.start == (0, 0) and grid.stop <= grid.image:
        return pixels[: grid.stop[0], : grid.stop[1]]  # side by side they lie already
    patches = split(pixels.transpose(2, 0, 1), grid, sheet.cut.padding)
    if sheet.cut.sequence is not None:
        chosen = np.where(ids < 0, len(patches), ids).ravel()
        patches = np.concatenate([patches, np.full_like(patches[:1], 255)])[chosen]
    return np.asarray(rearrange(patches, '(r c) k h w -> (r h) (c w) k', r=ids.shape[0]))


def _marked(flat: Pixels, sheet: Sheet) -> Pixels:
    """The patches with masked ones grey, those that are not highlighted faded, and special tokens coloured."""
    cut, ids = sheet.cut, sheet.ids
    if cut.hidden is None and not cut.highlight and (ids >= 0).all():
        return flat
    marked = flat.copy()
    tiles = rearrange(marked, '(r h) (c w) k -> r c h w k', r=ids.shape[0], c=ids.shape[1])
    number = np.maximum(ids, 0)
    if cut.hidden is not None:
        tiles[(ids >= 0) & cut.hidden[number]] = _MASKED
    if cut.highlight:
        others = (ids >= 0) & ~np.isin(ids, cut.highlight)
        tiles[others] = np.rint(tiles[others] * (1 - _FADE) + 255 * _FADE).astype(np.uint8)
    tiles[ids == BLANK] = cut.color
    tiles[ids < BLANK] = _SPECIAL
    return marked


def _places(length: int, sheet: Sheet, axis: int) -> tuple[NDArray[np.intp], int]:
    """Where the pixels of patches go along an axis of ``length`` pixels, and how many each patch gets."""
    count, border = sheet.ids.shape[axis], sheet.border[axis]
    pitch = length / count
    extent = round(pitch * (1 - 2 * border / sheet.pitch[axis]))
    extent = min(max(extent, 1), math.floor(pitch) - (_THINNEST if border else 0))
    starts = np.floor(np.arange(count) * pitch + (pitch - extent) / 2 + 1e-9).astype(int)
    return (starts[:, None] + np.arange(extent)).ravel(), extent
