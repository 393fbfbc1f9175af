"""Scenes to pixels, with numpy and OpenCV: no matplotlib, a few milliseconds a picture, safe in threads."""

from __future__ import annotations

import cv2
import numpy as np

from vistool.errors import InputError, param
from vistool.visualization import text as fonts
from vistool.visualization.scene import Box, Color, ImageItem, PathItem, Pixels, Scene, TextItem

_LARGEST_SIDE = 65500  # what a JPEG can hold
#: Width of the outline around letters, as a part of their size, and how much of the picture it covers.
HALO, _HALO_WEIGHT = 0.1, 0.8
_FRACTION_BITS = 4  # sub-pixel positions of OpenCV's lines


def paint(scene: Scene, density: float) -> Pixels:
    """A scene as uint8 ``(height, width, 3)`` RGB.

    Args:
        scene: What to draw.
        density: Pixels per unit.

    Raises:
        InputError: The picture would be too large for an image file.
    """
    width, height = max(1, round(scene.width * density)), max(1, round(scene.height * density))
    if max(width, height) > _LARGEST_SIDE:
        hint = f'draw fewer maps, or choose a smaller {param("width")} or {param("dpi")}'
        raise InputError(f'the picture would be {width} x {height} pixels', hint=hint)
    canvas = np.full((height, width, 3), 255, np.uint8)
    for item in scene.items:
        if isinstance(item, ImageItem):
            _paint_image(canvas, item, density)
        elif isinstance(item, TextItem):
            _paint_text(canvas, item, density)
        else:
            _paint_path(canvas, item, density)
    return canvas


def _pixels(box: Box, density: float) -> tuple[int, int, int, int]:
    """Left, top, width, height in pixels; boxes of one size get one size, wherever they lie."""
    width, height = max(1, round(box.width * density)), max(1, round(box.height * density))
    return round(box.x * density), round(box.y * density), width, height


def _paint_image(canvas: Pixels, item: ImageItem, density: float) -> None:
    left, top, width, height = _pixels(item.box, density)
    # Rounding may push the last tile a pixel over the edge: shift it rather than cut it.
    left, top = min(left, canvas.shape[1] - width), min(top, canvas.shape[0] - height)
    if left < 0 or top < 0:
        left, top = max(left, 0), max(top, 0)
        width, height = min(width, canvas.shape[1]), min(height, canvas.shape[0])
    canvas[top : top + height, left : left + width] = item.tile((height, width))


def _paint_text(canvas: Pixels, item: TextItem, density: float) -> None:
    if not item.text:
        return
    mask, baseline, advance = fonts.text_mask(item.text, item.size * density)
    shift = {'left': 0.0, 'center': advance / 2, 'right': float(advance)}[item.anchor]
    if item.vertical:
        mask = np.rot90(mask)
        left = round(item.x * density) - baseline
        top = round(item.y * density + shift) - mask.shape[0]
    else:
        left, top = round(item.x * density - shift), round(item.y * density) - baseline
    if item.ground is not None:
        pad = max(1, round(0.2 * item.size * density))
        rise, drop = round(0.95 * item.size * density), round(0.32 * item.size * density)
        base = top + baseline
        area = canvas[max(0, base - rise) : base + drop, max(0, left - pad) : left + advance + pad]
        area[:] = item.ground
    if item.halo is not None:
        reach = max(1, round(HALO * item.size * density))
        wide = cv2.dilate(np.pad(mask, reach), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2))
        _stamp(canvas, (wide * _HALO_WEIGHT).astype(np.uint8), left - reach, top - reach, item.halo)
    _stamp(canvas, mask, left, top, item.color)


def _stamp(canvas: Pixels, mask: np.ndarray, left: int, top: int, color: Color) -> None:
    cut_top, cut_left = max(0, -top), max(0, -left)
    mask = mask[cut_top : canvas.shape[0] - top, cut_left : canvas.shape[1] - left]
    if mask.size == 0:
        return
    area = canvas[top + cut_top : top + cut_top + mask.shape[0], left + cut_left : left + cut_left + mask.shape[1]]
    weight = mask[..., None].astype(np.float32) / np.float32(255)
    area[:] = np.rint(area * (1 - weight) + np.array(color, np.float32) * weight)


def _paint_path(canvas: Pixels, item: PathItem, density: float) -> None:
    left, top, width, height = _pixels(item.clip, density)
    area = np.ascontiguousarray(canvas[top : top + height, left : left + width])
    if area.size == 0:
        return
    # OpenCV's integer coordinates are pixel centers, ours are pixel edges.
    points = (np.array(item.points) * density - (left, top) - 0.5) * (1 << _FRACTION_BITS)
    corners = [np.rint(points).astype(np.int32)]
    cv2.polylines(area, corners, True, item.color, max(1, round(item.width * density)), cv2.LINE_AA, _FRACTION_BITS)
    canvas[top : top + height, left : left + width] = area
