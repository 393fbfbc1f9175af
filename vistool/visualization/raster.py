"""Arrays and scenes to pixels, with numpy and OpenCV: no matplotlib, a few milliseconds a picture, safe in threads."""

from __future__ import annotations

from typing import Any, Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from vistool.errors import InputError
from vistool.visualization import text as fonts
from vistool.visualization.scene import Box, Color, ImageItem, PathItem, Pixels, Scene, TextItem
from vistool.visualization.style import Align, Interpolation

Map = NDArray[np.float32]

NOT_FINITE: Color = (255, 0, 255)
"""Marks values that are NaN or infinite; jet, inferno, viridis and red-blue have no such color."""

# Where alpha is 'heat', the hottest pixel still lets this much of the photo through.
_HEAT_TRANSPARENCY = 0.2
# Smaller pictures than this are shown pixel by pixel (CIFAR, patches); larger ones are enlarged smoothly.
_TINY = 96
_CV2_INTERPOLATION = {'nearest': cv2.INTER_NEAREST, 'bilinear': cv2.INTER_LINEAR, 'bicubic': cv2.INTER_CUBIC}


def to_uint8(image: Any, name: str = 'image') -> Pixels:
    """An RGB image as uint8, refusing what cannot be one.

    Args:
        image: uint8, or float in [0, 1]; ``(H, W, 3)``, ``(H, W, 1)`` or ``(H, W)``. Anything that numpy can read.
        name: What to call it in an error.

    Returns:
        uint8 ``(H, W, 3)``.

    Raises:
        InputError: The values are those of a normalized image, or the shape is not that of one image.
    """
    array = np.asarray(image)
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1):
        array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise InputError(f'the {name} has shape {array.shape}', accepted='(H, W, 3), RGB', hint=_shape_hint(array))
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool or not np.issubdtype(array.dtype, np.floating):
        raise InputError(f'the {name} has dtype {array.dtype}', accepted='uint8, or float in [0, 1]')
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):
        raise InputError(
            f'the {name} has values from {low:.3g} to {high:.3g}, as after normalization with mean and std',
            accepted='uint8, or float in [0, 1]',
            hint='give the image as it was before normalization',
        )
    return np.rint(array * 255).astype(np.uint8)


def _shape_hint(array: NDArray[Any]) -> str:
    if array.ndim == 4:
        return 'a batch axis was left on; give one image'
    if array.ndim == 3 and array.shape[0] in (1, 3):
        return 'channels come last here; transpose (C, H, W) to (H, W, C)'
    return ''


def check_map(values: Any, name: str = 'heat map') -> Map:
    """A heat map as float32 ``(h, w)``, or ``(h, w, 3)`` for one that is colors already.

    Raises:
        InputError: The shape is another one; a batch axis left on is named as such.
    """
    array = np.asarray(values)
    if array.ndim >= 3 and array.shape[0] == 1 and not (array.ndim == 3 and array.shape[2] == 3):
        raise InputError(
            f'the {name} has shape {array.shape}: a batch axis was left on',
            accepted='(h, w)',
            hint='take one map of the batch, such as maps[0]',
        )
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)) or 0 in array.shape:
        raise InputError(f'the {name} has shape {array.shape}', accepted='(h, w), or (h, w, 3) for colors')
    return np.asarray(array, np.float32)


def normalize(values: Map, low: float, high: float, signed: bool = False) -> Map:
    """``values`` with ``low`` at 0 and ``high`` at 1, clipped. NaN stays NaN.

    Where the two are equal all values are 0, or with ``signed``, where zero is in the middle of the scale, 0.5.
    """
    if not high > low:
        return np.where(np.isnan(values), values, np.float32(0.5 if signed else 0)).astype(np.float32)
    return np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)


def colorize(values: Map, table: Pixels, hatch: int = 0) -> Pixels:
    """Values in [0, 1], ``(h, w)``, as colors of a ``(256, 3)`` table; 256 equal bins.

    Args:
        values: NaN is marked, see :func:`mark_missing`.
        table: Colors.
        hatch: As there.
    """
    index = np.clip(values * np.float32(256), 0, 255)
    missing = np.isnan(index)
    several = bool(missing.any())
    if several:
        index = np.nan_to_num(index)
    # OpenCV's look-up is several times faster than numpy's, and keeps the table's order of channels.
    colors = _pixels(cv2.applyColorMap(index.astype(np.uint8), table.reshape(256, 1, 3)))
    return mark_missing(colors, missing, hatch) if several else colors


def mark_missing(colors: Pixels, missing: NDArray[np.bool_], hatch: int = 0) -> Pixels:
    """Colors with the places of values that are not finite in a color that no color map has.

    Args:
        colors: uint8 ``(h, w, 3)``.
        missing: ``(h, w)``.
        hatch: Pixels from one line to the next of a hatching, black on white as print needs it; 0: magenta all over.
    """
    marked = colors.copy()
    marked[missing] = NOT_FINITE
    if hatch:
        rows, columns = np.nonzero(missing)
        lines = (rows + columns) % hatch < max(1, hatch // 4)
        marked[rows, columns] = np.where(lines[:, None], 0, 255)
    return marked


def blend(image: Pixels, colors: Pixels, alpha: float | Map, covered: NDArray[np.bool_] | None = None) -> Pixels:
    """``(1 - alpha) * image + alpha * colors``, rounded; ``image`` where not ``covered``.

    Args:
        image: uint8 ``(h, w, 3)``.
        colors: uint8 ``(h, w, 3)``.
        alpha: Weight of the colors, one number or ``(h, w)``.
        covered: ``(h, w)``; None where all is.
    """
    if isinstance(alpha, np.ndarray):
        weight = alpha[..., None]
        mixed = np.rint(image * (1 - weight) + colors * weight).astype(np.uint8)
    else:
        mixed = _pixels(cv2.addWeighted(image, 1 - float(alpha), colors, float(alpha), 0))
    if covered is None or bool(covered.all()):
        return mixed
    return _pixels(cv2.copyTo(mixed, covered.astype(np.uint8), image.copy()))


def _pixels(array: Any) -> Pixels:
    """OpenCV's arrays keep the type that they came with; its annotations do not say so."""
    return cast(Pixels, array)


def overlay(
    image: Pixels,
    values: Map,
    table: Pixels,
    alpha: float | Literal['heat'] = 0.5,
    covered: NDArray[np.bool_] | None = None,
    hatch: int = 0,
) -> Pixels:
    """A heat map over a photo of the same size, whose brightness stays as it is.

    Args:
        image: uint8 ``(h, w, 3)``, or float in [0, 1].
        values: In [0, 1], ``(h, w)``, or colors ``(h, w, 3)``; NaN is marked, see :func:`mark_missing`.
        table: Colors, uint8 ``(256, 3)``.
        alpha: Weight of the colors, or ``heat``: proportional to the value.
        covered: Where the map is; None: everywhere.
        hatch: How NaN is marked.

    Raises:
        InputError: The image is normalized, the map has a batch axis, or their sizes differ.
    """
    image, values = to_uint8(image), check_map(values)
    if values.shape[:2] != image.shape[:2]:
        raise InputError(f'the heat map is {values.shape[:2]} and the image {image.shape[:2]}; they must be equal')
    missing = _missing(values) if covered is None else _missing(values) & covered
    if values.ndim == 3:
        mixed = blend(image, rgb_map(values), 1.0 if alpha == 'heat' else alpha, covered)
    else:
        weight: float | Map = np.nan_to_num(values) * np.float32(1 - _HEAT_TRANSPARENCY) if alpha == 'heat' else alpha
        mixed = blend(image, colorize(values, table), weight, covered)
    return mark_missing(mixed, missing, hatch) if missing.any() else mixed


def rgb_map(values: Map, hatch: int = 0) -> Pixels:
    """A map of colors in [0, 1] as uint8; values beyond are clipped, NaN is marked, see :func:`mark_missing`."""
    colors = np.rint(np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8)
    missing = _missing(values)
    return mark_missing(colors, missing, hatch) if missing.any() else colors


def _missing(values: Map) -> NDArray[np.bool_]:
    """Positions ``(h, w)`` of a map, or of a map of colors, that are not a number."""
    return np.asarray(np.isnan(values).any(axis=2) if values.ndim == 3 else np.isnan(values), np.bool_)


def resize_image(image: Pixels, size: tuple[int, int]) -> Pixels:
    """A photo at ``(height, width)``: averaged when made smaller; tiny ones keep their pixels when made larger.

    At its own size it is the photo itself, which must not be written to.
    """
    height, width = size
    if image.shape[:2] == (height, width):
        itself = image.view()
        itself.setflags(write=False)
        return itself
    if height <= image.shape[0] and width <= image.shape[1]:
        return _pixels(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
    if max(image.shape[:2]) <= _TINY:
        rows, columns = _nearest(image.shape[0], height), _nearest(image.shape[1], width)
        return image.take(columns, axis=1).take(rows, axis=0)  # whole rows last: they are copied fast
    return _pixels(cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC))


def resize_map(
    values: Map, size: tuple[int, int], interpolation: Interpolation = 'bilinear', align: Align = 'center'
) -> Map:
    """A map at ``(height, width)``; values are interpolated, never colors.

    Args:
        values: ``(h, w)`` or ``(h, w, C)``.
        size: Height and width to bring it to.
        interpolation: ``nearest``, ``bilinear`` or ``bicubic`` (a = -0.75, not antialiased).
        align: ``center``: ``src + 0.5 = (dst + 0.5) * in / out``, as torch with ``align_corners=False``; ``corner``:
            ``src = dst * in / out``. Beyond the edge the edge's value goes on.
    """
    if values.shape[:2] == tuple(size):
        return values
    if interpolation == 'nearest':
        rows = _nearest(values.shape[0], size[0], align)
        return values.take(_nearest(values.shape[1], size[1], align), axis=1).take(rows, axis=0)
    if align == 'center':
        return cast(Map, cv2.resize(values, size[::-1], interpolation=_CV2_INTERPOLATION[interpolation]))
    down, across = (_taps(n, m, interpolation) for n, m in zip(values.shape[:2], size, strict=True))
    return np.einsum('yi,ij...,xj->yx...', down, values, across, optimize=True).astype(np.float32)


def _nearest(count: int, wanted: int, align: Align = 'center') -> NDArray[np.intp]:
    # Integers, because count / wanted in floating point can fall just below a pixel's edge.
    positions = np.arange(wanted)
    if align == 'center':
        return (2 * positions + 1) * count // (2 * wanted)
    return positions * count // wanted


def _taps(count: int, wanted: int, interpolation: Interpolation) -> Map:
    """The ``(wanted, count)`` matrix that interpolates along one axis, aligned at the corner."""
    source = np.arange(wanted) * (count / wanted)
    first = np.floor(source).astype(int)
    matrix = np.zeros((wanted, count), np.float32)
    reach = range(0, 2) if interpolation == 'bilinear' else range(-1, 3)
    for offset in reach:
        distance = np.abs(source - (first + offset))
        weight = 1 - distance if interpolation == 'bilinear' else _cubic(distance)
        np.add.at(matrix, (np.arange(wanted), np.clip(first + offset, 0, count - 1)), weight.astype(np.float32))
    return matrix


def _cubic(distance: NDArray[np.float64], a: float = -0.75) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel (1981), with the ``a`` that torch and OpenCV use."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


HALO, _HALO_WEIGHT = 0.1, 0.8
"""Width of the outline around letters, as a part of their size, and how much of the picture it covers."""
_FRACTION_BITS = 4  # sub-pixel positions of OpenCV's lines


def paint(scene: Scene, density: float) -> Pixels:
    """A scene as uint8 ``(height, width, 3)`` RGB.

    Args:
        scene: What to draw.
        density: Pixels per unit.

    Raises:
        InputError: The picture would be too large for an image file.
    """
    width, height = scene.pixels(density)
    items = scene.items
    if items and isinstance(items[0], ImageItem) and _pixel_box(items[0].box, density) == (0, 0, width, height):
        pixels = items[0].tile((height, width))
        canvas = pixels if pixels.flags.writeable else pixels.copy()  # a large picture twice is much memory
        items = items[1:]
    else:
        canvas = np.full((height, width, 3), 255, np.uint8)
    for item in items:
        if isinstance(item, ImageItem):
            _paint_image(canvas, item, density)
        elif isinstance(item, TextItem):
            _paint_text(canvas, item, density)
        else:
            _paint_path(canvas, item, density)
    return canvas


def _pixel_box(box: Box, density: float) -> tuple[int, int, int, int]:
    """Left, top, width, height in pixels; boxes of one size get one size, wherever they lie."""
    width, height = max(1, round(box.width * density)), max(1, round(box.height * density))
    return round(box.x * density), round(box.y * density), width, height


def _paint_image(canvas: Pixels, item: ImageItem, density: float) -> None:
    left, top, width, height = _pixel_box(item.box, density)
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
    mask = mask[cut_top : max(0, canvas.shape[0] - top), cut_left : max(0, canvas.shape[1] - left)]
    if mask.size == 0:
        return
    area = canvas[top + cut_top : top + cut_top + mask.shape[0], left + cut_left : left + cut_left + mask.shape[1]]
    weight = mask[..., None].astype(np.float32) / np.float32(255)
    area[:] = np.rint(area * (1 - weight) + np.array(color, np.float32) * weight)


def _paint_path(canvas: Pixels, item: PathItem, density: float) -> None:
    left, top, width, height = _pixel_box(item.clip, density)
    area = np.ascontiguousarray(canvas[top : top + height, left : left + width])
    if area.size == 0:
        return
    # OpenCV's integer coordinates are pixel centers, ours are pixel edges.
    points = (np.array(item.points) * density - (left, top) - 0.5) * (1 << _FRACTION_BITS)
    corners = [np.rint(points).astype(np.int32)]
    if item.filled:
        cv2.fillPoly(area, corners, item.color, cv2.LINE_AA, _FRACTION_BITS)
    else:
        cv2.polylines(area, corners, True, item.color, max(1, round(item.width * density)), cv2.LINE_AA, _FRACTION_BITS)
    canvas[top : top + height, left : left + width] = area
