"""Runs transforms one by one and tracks what each does to the pixel grid and to the values."""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import math
import random
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from vistool.data.geometry import GeometricStep, Geometry, Size, affine, crop, erase, flip, resize, window
from vistool.data.photometry import Photometry, followed
from vistool.data.samples import Pair, image_of, is_tensor, size_of, with_image
from vistool.errors import InputError, message_of


@dataclass(frozen=True, eq=False)
class TransformCall:
    """One call of a transform on one image.

    Attributes:
        transform: The transform.
        before: ``(h, w)`` of the image that went in.
        after: ``(h, w)`` of the image that came out.
        drawn: Return values of the transform's random methods, in order, by the method's name.
        state: The random states before the call.
    """

    transform: Any
    before: Size
    after: Size
    drawn: Mapping[str, list[Any]]
    state: RandomState

    def last(self, name: str, default: Any = None) -> Any:
        """What the random method returned last, or ``default`` if it was not called."""
        return self.drawn[name][-1] if self.drawn.get(name) else default

    def redraw(self, draw: Callable[[], Any]) -> Any:
        """What ``draw`` returns from the random states before the call."""
        with kept():
            self.state.restore()
            return draw()

    @property
    def still(self) -> GeometricStep:
        """The step of a transform that moved nothing."""
        return resize(self.before, self.after)


Rule = Callable[[TransformCall], GeometricStep]


def still(call: TransformCall) -> GeometricStep:
    """Colors only."""
    return call.still


def stretched(call: TransformCall) -> GeometricStep:
    """Any resize: edges map to edges, so the two sizes determine it."""
    return _resized(call, 0, 0, call.before[1], call.before[0])


def _resized(call: TransformCall, left: float, top: float, width: float, height: float) -> GeometricStep:
    """A rectangle resized. OpenCV's nearest interpolation reads up to half an output pixel too far to the left."""
    how = getattr(call.transform, 'resize', call.transform)
    if getattr(how, 'interpolation', '') == 'nearest' and getattr(how, 'backend', 'pillow') == 'cv2':
        left, top = left + _cv2_nearest(width, call.after[1]), top + _cv2_nearest(height, call.after[0])
    return window(call.before, call.after, left, top, width, height)


def _cv2_nearest(before: float, after: int) -> float:
    """Mean offset, in input pixels, of the pixels that OpenCV's nearest interpolation picks."""
    scale, index = before / after, np.arange(after)
    return max(float(np.mean(np.floor(index * scale) + 0.5 - (index + 0.5) * scale)), -0.5 * scale)


def padded_at_end(call: TransformCall) -> GeometricStep:
    """Padding at the right and below."""
    return crop(call.before, call.after, 0, 0)


def center_cropped(call: TransformCall) -> GeometricStep:
    """CenterCrop of mmcv, which first pads at the right and below if the image is too small."""
    top, left = (round((max(b, a) - a) / 2.0) for b, a in zip(call.before, call.after, strict=True))
    return crop(call.before, call.after, left, top)


def flipped(call: TransformCall) -> GeometricStep:
    """RandomFlip in its three directions."""
    direction = call.last('_choose_direction')
    return flip(call.before, direction in ('horizontal', 'diagonal'), direction in ('vertical', 'diagonal'))


def four_sides(padding: Any) -> tuple[int, int, int, int]:
    """Left, top, right and bottom from one, two or four numbers, as mmcv and torchvision write them."""
    sides: list[Any] = [padding] if np.isscalar(padding) else list(padding)
    left, top, right, bottom = sides * (4 // len(sides))
    return int(left), int(top), int(right), int(bottom)


def random_cropped(call: TransformCall) -> GeometricStep:
    """RandomCrop: fixed padding, then half of the missing pixels on each side, then the crop."""
    t, (h, w) = call.transform, call.before
    left = top = 0
    if t.padding is not None:
        left, top, right, bottom = four_sides(t.padding)
        h, w = h + top + bottom, w + left + right
    if t.pad_if_needed:
        top += -(-max(0, t.crop_size[0] - h) // 2)
        left += -(-max(0, t.crop_size[1] - w) // 2)
    offset_y, offset_x = call.last('rand_crop_params')[:2]
    return crop(call.before, call.after, offset_x - left, offset_y - top)


def _box_resized(call: TransformCall, top: float, left: float, height: float, width: float) -> GeometricStep:
    """A crop as mmcv's imcrop rounds it (truncated inclusive corners, kept inside), then a resize."""
    x0, y0 = int(left), int(top)
    x1, y1 = min(int(left + width - 1), call.before[1] - 1), min(int(top + height - 1), call.before[0] - 1)
    return _resized(call, x0, y0, x1 - x0 + 1, y1 - y0 + 1)


def random_resized_crop(call: TransformCall) -> GeometricStep:
    """RandomResizedCrop and its EfficientNet child."""
    return _box_resized(call, *call.last('rand_crop_params'))


def efficientnet_center_crop(call: TransformCall) -> GeometricStep:
    """EfficientNetCenterCrop: a centered square in proportion to the short side, then a resize."""
    t, (h, w) = call.transform, call.before
    side = t.crop_size / (t.crop_size + t.crop_padding) * min(h, w)
    return _box_resized(call, max(0, round((h - side) / 2.0)), max(0, round((w - side) / 2.0)), side, side)


def drawn_box_resized(call: TransformCall) -> GeometricStep:
    """Transforms whose ``get_params`` returns top, left, height, width of the part that they resize."""
    top, left, height, width = call.last('get_params')
    return window(call.before, call.after, left, top, width, height)


def random_erased(call: TransformCall) -> GeometricStep:
    """RandomErasing."""
    patch = call.last('random_patch')
    return erase(call.before, [] if patch is None else [patch])


def cut_out(call: TransformCall) -> GeometricStep:
    """Cutout draws its position inside mmcv, so it is repeated on a black image with white paint."""
    if call.last('random_disable'):
        return call.still
    paint, call.transform.pad_val = call.transform.pad_val, 1
    try:
        marked = call.redraw(lambda: call.transform.transform({'img': np.zeros(call.before, np.uint8)})['img'])
    finally:
        call.transform.pad_val = paint
    return GeometricStep(np.eye(3), call.before, call.after, erased=marked.astype(bool) if marked.any() else None)


def translate_padded(call: TransformCall) -> GeometricStep:
    """RandomTranslatePad: the image at a random position on a black square."""
    (h, w), size = call.before, call.transform.size
    top, left = call.last('rand_translate_params', (round((size - h) / 2.0 - 0.1), round((size - w) / 2.0 - 0.1)))
    return crop(call.before, call.after, -left, -top)


def rotated(call: TransformCall) -> GeometricStep:
    """Rotate: clockwise for positive angles, about pixel index ``(size - 1) / 2``."""
    if call.last('random_disable'):
        return call.still
    t, (h, w), angle = call.transform, call.before, np.deg2rad(float(call.last('random_negative')))
    cx, cy = t.center or ((w - 1) * 0.5, (h - 1) * 0.5)
    cos, sin = t.scale * np.cos(angle), t.scale * np.sin(angle)
    turn = [[cos, -sin, cx - cos * cx + sin * cy], [sin, cos, cy - sin * cx - cos * cy]]
    return affine(call.before, call.after, turn)


def sheared(call: TransformCall) -> GeometricStep:
    """Shear, about the first pixel's center."""
    if call.last('random_disable'):
        return call.still
    amount, across = float(call.last('random_negative')), call.transform.direction == 'horizontal'
    return affine(call.before, call.after, [[1, amount * across, 0], [amount * (not across), 1, 0]])


def translated(call: TransformCall) -> GeometricStep:
    """Translate, in fractions of the image's size."""
    if call.last('random_disable'):
        return call.still
    amount, across = float(call.last('random_negative')), call.transform.direction == 'horizontal'
    shift = amount * call.before[1 if across else 0]
    if call.transform.interpolation == 'nearest':
        half = abs(shift % 1 - 0.5) < 1e-4
        shift = math.floor(shift) + _moved_by_cv2(across) if half else round(shift)
    return affine(call.before, call.after, [[1, 0, shift * across], [0, 1, shift * (not across)]])


@functools.cache
def _moved_by_cv2(across: bool) -> float:
    """How far OpenCV's nearest interpolation moves pixels on average when asked to move them by half a pixel.

    OpenCV 5 decides pixel by pixel, OpenCV 4 moves all of them alike.
    """
    import cv2

    places = np.broadcast_to(np.arange(64, dtype=np.float32), (64, 64))
    matrix = np.array([[1, 0, 0.5 * across], [0, 1, 0.5 * (not across)]])
    ramp = np.ascontiguousarray(places if across else places.T)
    moved = ramp - cv2.warpAffine(ramp, matrix, (64, 64), flags=cv2.INTER_NEAREST)
    return float(moved[8:-8, 8:-8].mean())


_STILL = [
    'Normalize', 'ColorJitter', 'Lighting', 'AutoContrast', 'Invert', 'Equalize', 'Solarize', 'SolarizeAdd',
    'Posterize', 'Contrast', 'ColorTransform', 'Brightness', 'Sharpness', 'GaussianBlur', 'RandomGrayscale',
    'PhotoMetricDistortion', 'YOLOXHSVRandomAug', 'CLAHE', 'AdjustGamma', 'Rerange', 'RGB2Gray', 'ToTensor',
    'ImageToTensor', 'Transpose', 'NumpyToPIL', 'PILToNumpy', 'Collect', 'PackInputs', 'PackMultiTaskInputs',
    'PackDetInputs', 'PackSegInputs', 'LoadAnnotations', 'FilterAnnotations', 'BEiTMaskGenerator',
    'SimMIMMaskGenerator', 'CleanCaption', 'OFAAddObjects', 'MAEMaskGenerator', 'InferencerLoader',
]  # fmt: skip
"""Transforms of OpenMMLab that leave every pixel in place."""

OPENMMLAB: dict[str, Rule] = {
    **dict.fromkeys(_STILL, still),
    **dict.fromkeys(['Resize', 'RandomResize', 'RandomChoiceResize', 'ResizeEdge', 'FixScaleResize'], stretched),
    **dict.fromkeys(['ResizeShortestEdge', 'ResizeToMultiple'], stretched),
    'Pad': padded_at_end,
    'CenterCrop': center_cropped,
    'RandomFlip': flipped,
}
"""Rules by class name, for every OpenMMLab package."""

MMPRETRAIN: dict[str, Rule] = {
    'RandomCrop': random_cropped,
    'RandomResizedCrop': random_resized_crop,
    'EfficientNetRandomCrop': random_resized_crop,
    'EfficientNetCenterCrop': efficientnet_center_crop,
    'MAERandomResizedCrop': drawn_box_resized,
    'RandomResizedCropAndInterpolationWithTwoPic': drawn_box_resized,
    'RandomErasing': random_erased,
    'RandomTranslatePad': translate_padded,
    'Rotate': rotated,
    'Shear': sheared,
    'Translate': translated,
    'Cutout': cut_out,
}
"""Rules for mmpretrain only: other packages use some of these names for other transforms."""


def torchvision_center_cropped(call: TransformCall) -> GeometricStep:
    """CenterCrop and timm's CenterCropOrPad, which first pad the missing pixels on both sides."""
    offsets = []
    for have, want in zip(call.before, call.after, strict=True):
        pad = (want - have) // 2 if want > have else 0
        offsets.append(round((max(have, want) - want) / 2.0) - pad)
    return crop(call.before, call.after, offsets[1], offsets[0])


def torchvision_padded(call: TransformCall) -> GeometricStep:
    """Pad."""
    left, top, _, _ = four_sides(call.transform.padding)
    return crop(call.before, call.after, -left, -top)


def torchvision_random_cropped(call: TransformCall) -> GeometricStep:
    """RandomCrop; if padding is needed, all missing pixels are added on each side."""
    if (params := call.last('transform')) is not None:
        left, top = params['padding'][:2]
        return crop(call.before, call.after, params['left'] - left, params['top'] - top)
    t, (h, w) = call.transform, call.before
    left = top = 0
    if t.padding is not None:
        left, top, right, bottom = four_sides(t.padding)
        h, w = h + top + bottom, w + left + right
    if t.pad_if_needed:
        left += max(0, t.size[1] - w)
        top += max(0, t.size[0] - h)
    offset_y, offset_x = call.last('get_params')[:2]
    return crop(call.before, call.after, offset_x - left, offset_y - top)


def random_cropped_or_padded(call: TransformCall) -> GeometricStep:
    """Timm's RandomCropOrPad."""
    top, left = call.last('get_params')
    return crop(call.before, call.after, left, top)


def torchvision_random_resized_crop(call: TransformCall) -> GeometricStep:
    """RandomResizedCrop."""
    if (params := call.last('transform')) is None:
        return drawn_box_resized(call)
    return window(call.before, call.after, params['left'], params['top'], params['width'], params['height'])


def zoomed_out(call: TransformCall) -> GeometricStep:
    """RandomZoomOut: the image at a random position on a larger canvas."""
    if (params := call.last('transform')) is None:
        return call.still
    return crop(call.before, call.after, -params['padding'][0], -params['padding'][1])


def iou_cropped(call: TransformCall) -> GeometricStep:
    """RandomIoUCrop, which may keep the whole image."""
    params = call.last('transform')
    return crop(call.before, call.after, params['left'], params['top']) if params else call.still


def _applied(call: TransformCall) -> bool:
    """Whether a transform that draws nothing but its probability was applied."""
    import torch

    if 'v2' in type(call.transform).__module__:
        return call.last('transform') is not None
    return bool(call.redraw(lambda: torch.rand(1).item()) < call.transform.p)


def flipped_horizontally(call: TransformCall) -> GeometricStep:
    """RandomHorizontalFlip."""
    return flip(call.before, horizontal=_applied(call))


def flipped_vertically(call: TransformCall) -> GeometricStep:
    """RandomVerticalFlip."""
    return flip(call.before, vertical=_applied(call))


def _about(before: Size, after: Size, linear: Any, center: Any, shift: tuple[float, float] = (0, 0)) -> GeometricStep:
    """A linear map about a center, in corner-based pixel coordinates as PIL and torchvision count them.

    A canvas that grows, grows equally on opposite sides.
    """
    (h, w), linear = before, np.asarray(linear)
    pivot = np.array([w / 2, h / 2] if center is None else center, np.float64)
    growth = np.array([after[1] - w, after[0] - h]) / 2
    offset = pivot + shift + growth - linear @ pivot
    return affine(before, after, np.column_stack([linear, offset]), centers=False)


def _turn(degrees: float) -> Any:
    """Rotation that looks clockwise for positive angles (y points down)."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cos, -sin], [sin, cos]])


def torchvision_rotated(call: TransformCall) -> GeometricStep:
    """RandomRotation: counter-clockwise for positive angles."""
    params, t = call.last('transform'), call.transform
    angle = call.last('get_params') if params is None else params['angle']
    return _about(call.before, call.after, _turn(-angle), t.center)


def torchvision_affine(call: TransformCall) -> GeometricStep:
    """RandomAffine: shear, scale, rotate clockwise, shift."""
    params = call.last('transform')
    if params is None:
        angle, shift, scale, shear = call.last('get_params')
    else:
        angle, shift, scale, shear = (params[name] for name in ('angle', 'translate', 'scale', 'shear'))
    x, y = (math.tan(math.radians(s)) for s in shear)
    linear = scale * _turn(angle) @ np.array([[1, 0], [-y, 1]]) @ np.array([[1, -x], [0, 1]])
    return _about(call.before, call.after, linear, call.transform.center, tuple(shift))


def torchvision_erased(call: TransformCall) -> GeometricStep:
    """RandomErasing; if no patch fits in ten attempts, it returns the whole image unchanged."""
    params = call.last('transform')
    if params is not None:
        box = None if params['v'] is None else tuple(params[name] for name in 'ijhw')
    else:
        box = None if call.last('get_params') is None else tuple(call.last('get_params')[:4])
    if box is None or box[2:] == call.before:
        return call.still
    top, left, height, width = box
    return erase(call.before, [(top, left, height, width)])


_TORCHVISION_STILL = [
    'ToTensor', 'PILToTensor', 'ToPILImage', 'ToImage', 'ToDtype', 'ToPureTensor', 'ConvertImageDtype', 'Normalize',
    'ColorJitter', 'Grayscale', 'RandomGrayscale', 'GaussianBlur', 'GaussianNoise', 'RandomInvert', 'RandomPosterize',
    'RandomSolarize', 'RandomAdjustSharpness', 'RandomAutocontrast', 'RandomEqualize', 'RandomPhotometricDistort',
    'RandomChannelPermutation', 'RGB', 'JPEG', 'Identity', 'ClampBoundingBoxes', 'SanitizeBoundingBoxes',
    'ConvertBoundingBoxFormat', 'ClampKeyPoints', 'SanitizeKeyPoints', 'SetClampingMode',
]  # fmt: skip

TORCHVISION: dict[str, Rule] = {
    **dict.fromkeys(_TORCHVISION_STILL, still),
    **dict.fromkeys(['Resize', 'RandomResize', 'RandomShortestSize', 'ScaleJitter'], stretched),
    'CenterCrop': torchvision_center_cropped,
    'Pad': torchvision_padded,
    'RandomCrop': torchvision_random_cropped,
    'RandomResizedCrop': torchvision_random_resized_crop,
    'RandomHorizontalFlip': flipped_horizontally,
    'RandomVerticalFlip': flipped_vertically,
    'RandomRotation': torchvision_rotated,
    'RandomAffine': torchvision_affine,
    'RandomZoomOut': zoomed_out,
    'RandomIoUCrop': iou_cropped,
    'RandomErasing': torchvision_erased,
}

TIMM: dict[str, Rule] = {
    **dict.fromkeys(['ToTensor', 'MaybeToTensor', 'MaybePILToTensor', 'ToNumpy'], still),
    'ResizeKeepRatio': stretched,
    'CenterCropOrPad': torchvision_center_cropped,
    'RandomCropOrPad': random_cropped_or_padded,
    'RandomResizedCropAndInterpolation': drawn_box_resized,
}


_LOCK = threading.RLock()
"""The states belong to the process: threads that read images take turns with them."""


@dataclass(frozen=True, eq=False)
class RandomState:
    """A copy of the states of ``random``, numpy and torch (CPU)."""

    python: Any
    numpy: Any
    torch: torch.Tensor

    @classmethod
    def now(cls) -> RandomState:
        """The current states."""
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state())

    def restore(self) -> None:
        """Restores the states."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)


@contextmanager
def kept() -> Iterator[RandomState]:
    """Restores the random states at the end, also after an exception."""
    state = RandomState.now()
    try:
        yield state
    finally:
        state.restore()


@contextmanager
def seeded(seed: int, index: int = 0) -> Iterator[int]:
    """Seeds the random states from ``(seed, index)`` alone, and restores the former states at the end.

    Yields:
        A 32-bit seed derived from both, for generators that a transform owns.
    """
    words = np.random.SeedSequence([abs(int(seed)), abs(int(index)), int(seed < 0)]).generate_state(4)
    with _LOCK, kept():
        random.seed(int(words[0]))
        np.random.seed(int(words[1]))
        torch.default_generator.manual_seed(int(words[2]))
        yield int(words[3])


Transform = Callable[[Any], Any]


def replay(
    transform: Any, state: RandomState, image: Any, result: Any, run: Callable[[Any, Any], Any]
) -> GeometricStep | None:
    """The step of one call, or None if it cannot be determined.

    Args:
        transform: A copy of the transform, made before the call.
        state: The random states before the call.
        image: A copy of the image that went in.
        result: The image that came out.
        run: Calls a transform on an image (inside its results dict, if it takes one) and returns the resulting image.
    """

    def again(coded: Any) -> Any:
        state.restore()
        return run(copy.deepcopy(transform), coded)

    before, after = size_of(image), size_of(result)
    if before is None or after is None:
        return None
    with kept():
        if not _same(_attempt(again, copy.deepcopy(image)), result):
            return None
        for fine in (True, False):
            planes = _planes(again, image, before, fine)
            if planes is not None and (step := _step(planes, before, after, fine)) is not None:
                return step
    return None


def _attempt(run: Transform, image: Any) -> Any:
    """The transform's result; None if it fails, as it may on an image that it was not made for."""
    try:
        return run(image)
    except Exception:
        return None


def _same(a: Any, b: Any) -> bool:
    return a is not None and type(a) is type(b) and size_of(a) == size_of(b) and np.array_equal(a, b, equal_nan=False)


def _planes(run: Transform, image: Any, before: Size, fine: bool) -> list[NDArray[np.float64]] | None:
    """The codes after the transform, each ``(h, w)`` in [0, 1]; sent as floats, or as bytes if not ``fine``."""
    h, w = before
    y, x = np.meshgrid((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w, indexing='ij')
    planes = []
    for code in (np.zeros((h, w)), np.ones((h, w)), x, y, (1 - x) ** 2, (1 - y) ** 2):
        out = _attempt(run, _like(image, code, fine))
        if out is None or size_of(out) is None:
            return None
        planes.append(_plane(out) / (1 if fine else 255))
    return planes if len({plane.shape for plane in planes}) == 1 else None


def _like(image: Any, code: NDArray[np.float64], fine: bool) -> Any:
    """A code as an image of the same kind, equal in all channels."""
    from PIL import Image

    pixels = code.astype(np.float32) if fine else np.rint(code * 255).astype(np.uint8)
    if isinstance(image, Image.Image):
        return Image.fromarray(pixels) if fine else Image.fromarray(pixels).convert(image.mode)
    if is_tensor(image):
        import torch

        coded = torch.from_numpy(pixels).expand(*image.shape[:-2], *pixels.shape).clone()
        return coded.as_subclass(type(image))  # torchvision's transforms ask whether it is an Image
    if image.ndim == 2:
        return pixels
    if size_of(image) != image.shape[:2]:
        return np.repeat(pixels[None], image.shape[0], axis=0)
    return np.repeat(pixels[:, :, None], image.shape[2], axis=2)


def _plane(image: Any) -> NDArray[np.float64]:
    array = np.asarray(image, np.float64)
    if array.ndim == 3:
        array = array[0] if size_of(image) == array.shape[1:] else array[..., 0]
    return array


def _step(planes: list[NDArray[np.float64]], before: Size, after: Size, fine: bool) -> GeometricStep | None:
    zero, one, *codes = planes
    if zero.shape != after:
        return None
    (h, w), weight = before, np.abs(one - zero)
    shown = weight >= 0.5 * np.percentile(weight, 95)  # at least half of the pixel comes from the image
    if weight.max() < 1e-6 or shown.sum() < max(9, 0.01 * shown.size):
        return None
    with np.errstate(divide='ignore', invalid='ignore'):
        x, y, far_x, far_y = ((code - zero) / (one - zero) for code in codes)
    shrunk = max(1.0, h / after[0], w / after[1])
    slack = (0.003 if fine else 0.015) + (shrunk / min(h, w)) ** 2
    core = weight >= 0.95 * np.percentile(weight, 95)
    if max(np.abs(far - (1 - near) ** 2)[core].max() for far, near in ((far_x, x), (far_y, y))) > slack:
        return None
    field = np.stack([x * w, y * h], axis=-1)
    matrix, residual = _fit(field, core, before)
    if matrix is None:
        return None
    if residual <= 0.5 * shrunk + (0 if fine else max(h, w) / 255):
        return _holed(GeometricStep(_snapped(matrix, before, after), before, after), shown)
    field[~shown] = np.nan
    return GeometricStep(matrix, before, after, field=field) if fine else None


def _fit(
    field: NDArray[np.float64], shown: NDArray[np.bool_], before: Size
) -> tuple[NDArray[np.float64] | None, float]:
    """The affine map nearest to a field well inside the input, and its error for all but a few pixels."""
    h, w = before
    inner = shown & (field > 1).all(axis=-1) & (field < [w - 1, h - 1]).all(axis=-1)
    rows, columns = np.nonzero(inner)
    if len(rows) < 9 or np.ptp(rows) < 2 or np.ptp(columns) < 2:
        return None, np.inf
    points, targets = np.column_stack([columns + 0.5, rows + 0.5, np.ones(len(rows))]), field[inner]
    near = np.ones(len(points), bool)
    for _ in range(3):  # repeated borders bend the ends of the codes, so the worst are left out
        solution = np.linalg.lstsq(points[near], targets[near], rcond=None)[0]
        distance = np.abs(points @ solution - targets).max(axis=1)
        near = distance <= max(0.02, float(np.percentile(distance, 80)))
    matrix = np.vstack([solution.T, [0, 0, 1]])
    if abs(np.linalg.det(matrix)) < 1e-9:
        return None, np.inf
    place, rim = points @ solution, min(3.0, h / 8, w / 8)  # filters bend the codes along the border
    deep = (place > rim).all(axis=1) & (place < [w - rim, h - rim]).all(axis=1)
    return matrix, float(np.percentile(distance[deep], 95)) if deep.any() else np.inf


def _snapped(matrix: NDArray[np.float64], before: Size, after: Size) -> NDArray[np.float64]:
    """The matrix of a plain resize, without the rounding of the fit, if the fit is close to one."""
    plain = resize(before, after).matrix
    corners = np.array([[0, 0, 1], [after[1], 0, 1], [0, after[0], 1]]).T
    return plain if np.abs((matrix - plain) @ corners).max() < 0.1 else matrix


def _holed(step: GeometricStep, shown: NDArray[np.bool_]) -> GeometricStep:
    """Marks holes as painted over: they show nothing although the map puts them inside the input."""
    h, w = step.after
    x, y = np.meshgrid(np.arange(w) + 0.5, np.arange(h) + 0.5)
    place = np.stack([x, y], axis=-1) @ step.matrix[:2, :2].T + step.matrix[:2, 2]
    inside = ((place > 1) & (place < [step.before[1] - 1, step.before[0] - 1])).all(axis=-1)
    hole = inside & ~shown
    return GeometricStep(step.matrix, step.before, step.after, erased=hole if hole.any() else None)


log = logging.getLogger('vistool')

_RULES: dict[str, dict[str, Any]] = {
    'mmcv': OPENMMLAB,
    'mmdet': OPENMMLAB,
    'mmseg': OPENMMLAB,
    'mmpretrain': OPENMMLAB | MMPRETRAIN,
    'mmcls': OPENMMLAB | MMPRETRAIN,
    'torchvision': TORCHVISION,
    'timm': TIMM,
    'vistool': {'Cover': stretched, 'Pack': still},
}

_CONTAINERS: dict[str, dict[str, Any]] = {
    'mmcv': dict.fromkeys(['Compose', 'KeyMapper', 'RandomChoice', 'RandomApply'], True),
    'mmengine': {'Compose': True},
    'mmpretrain': dict.fromkeys(['AutoAugment', 'RandAugment'], True),
    'mmcls': dict.fromkeys(['AutoAugment', 'RandAugment'], True),
    'torchvision': dict.fromkeys(['Compose', 'RandomApply', 'RandomChoice', 'RandomOrder'], True),
}
"""Transforms that only run others, kept in their attribute ``transforms``."""

_CALLS = ('transform', 'forward', '__call__')


def find(tables: dict[str, dict[str, Any]], transform: Any) -> Any:
    """A transform's entry, looked up along its base classes; None if a subclass overrides how it works."""
    changed = False
    for cls in type(transform).__mro__:
        entry = tables.get(cls.__module__.split('.')[0], {}).get(cls.__name__)
        if entry is not None:
            return None if changed else entry
        changed = changed or any(name in vars(cls) for name in _CALLS)
    return None


MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 1 << 27)
"""A step may not enlarge an image beyond so many pixels: 30000×1 resized to 224 on its short edge has 1.5 billion."""


def planned_size(transform: Any, size: Size) -> tuple[float, float] | None:
    """Height and width that a resize will give, as far as its parameters say, before any rounding; else None.

    Args:
        transform: A resize of mmpretrain (``ResizeEdge``), mmcv (``Resize``), torchvision or timm (``size`` of the
            short edge), or vistool (``Cover``).
        size: Of the image that goes in.
    """
    name, (h, w) = type(transform).__name__, size
    scale, factors = getattr(transform, 'scale', None), getattr(transform, 'scale_factor', None)
    if name == 'ResizeEdge' and isinstance(scale, (int, float)):
        edges = {'short': min(h, w), 'long': max(h, w), 'width': w, 'height': h}
        factor = scale / edges.get(getattr(transform, 'edge', 'short'), min(h, w))
        return h * factor, w * factor
    if name == 'Resize' and factors is not None:
        across, down = factors if isinstance(factors, (tuple, list)) else (factors, factors)
        return h * down, w * across
    if name == 'Cover':
        factor = max(transform.size[0] / h, transform.size[1] / w)
        return h * factor, w * factor
    edge = getattr(transform, 'size', None)
    edge = edge[0] if isinstance(edge, (tuple, list)) and len(edge) == 1 else edge
    if name == 'Resize' and isinstance(edge, int) and getattr(transform, 'max_size', None) is None:
        return h * edge / min(h, w), w * edge / min(h, w)
    return None


def _check_size(transform: Any, before: Size, after: tuple[float, float] | None) -> None:
    """Refuses a step that blows an image up.

    Raises:
        InputError: It has more than :data:`MOST_PIXELS` after the step, and more than before.
    """
    if after is not None and after[0] * after[1] > max(MOST_PIXELS, before[0] * before[1]):
        raise InputError(
            f'the transform {name_of(transform)} enlarges {before[1]}×{before[0]} pixels to '
            f'{round(after[1])}×{round(after[0])}',
            accepted=f'up to {MOST_PIXELS // 10**6} million pixels',
            hint='crop the image or pad it to a less extreme shape first',
        )


class Tracer:
    """One sample on its way through a pipeline.

    Args:
        geometry: From the image as it enters to the original; None if the image is yet to be loaded.
        photometry: Of the image as it enters.
        warned: Names of transforms that were warned about; extended in place.
        observe: Called with ``(transform, value)`` after each step, inner ones included.
    """

    def __init__(
        self,
        geometry: Geometry | None,
        photometry: Photometry,
        warned: set[str] | None = None,
        observe: Callable[[Any, Any], None] | None = None,
    ) -> None:
        self.geometry, self.photometry = geometry, photometry
        self._warned = set() if warned is None else warned
        self._observe = observe
        self.drawn: Mapping[str, list[Any]] = {}  # by the last step's random methods
        self.step: GeometricStep | None = None  # what the last transform did to the pixel grid, where it is tracked

    def run(self, transforms: Sequence[Any], value: Any) -> Any:
        """Applies transforms in order; an InputError if one fails or returns nothing."""
        for transform in transforms:
            value = self.apply(transform, value)
            if value is None:
                raise InputError(f'the transform {name_of(transform)} discarded the image')
        return value

    def apply(self, transform: Any, value: Any) -> Any:
        """Applies one transform, stepping into those that only run others."""
        if type(transform).__name__ == 'TorchVisonTransformWrapper':
            value['img'] = self.apply(transform.t, value['img'])
            return value
        if find(_CONTAINERS, transform) and _keeps_image(transform):
            with self._stepping_into(transform):
                return called(transform, value)
        return self._leaf(transform, value)

    @contextmanager
    def _stepping_into(self, container: Any) -> Iterator[None]:
        """Lets a container call this tracer in place of its children."""

        def traced(child: Any) -> Callable[[Any], Any]:
            return lambda value, *target: self.apply(child, Pair((value, *target)) if target else value)

        inner = container.transforms
        is_one = find(_CONTAINERS, inner) is not None
        with attribute(container, 'transforms', traced(inner) if is_one else [traced(child) for child in inner]):
            yield

    def _leaf(self, transform: Any, value: Any) -> Any:
        before = image_of(value)
        rule = getattr(transform, 'geometry_rule', None) or find(_RULES, transform)  # a transform may define its own
        self.drawn, self.step = {}, None
        if before is None:
            out = applied(transform, value)
        else:
            channels = self.photometry.channels
            size, state = size_of(before, channels), RandomState.now()
            if size is not None:
                _check_size(transform, size, planned_size(transform, size))
            saved = None if rule else _copies(transform, value)
            with _recording(transform) as drawn:
                out = applied(transform, value)
            after, self.drawn = image_of(out), drawn
            source = before if saved is None else image_of(saved[1])
            self.photometry = followed(self.photometry, transform, source, after, rule is not None)
            if size is not None:
                _check_size(transform, size, size_of(after, channels))
            if self.geometry is not None and size is not None:
                new = size_of(after, channels) or size
                call = TransformCall(transform, size, new, drawn, state)
                found = (
                    None if after is None else _known(rule, call) if rule else _replayed(saved, state, before, after)
                )
                self.step = found or self._unknown(transform, size, new, after is None)
                self.geometry = self.geometry.then(self.step)
        if self._observe is not None:
            self._observe(transform, out)
        return out

    def _unknown(self, transform: Any, before: Size, after: Size, several: bool) -> GeometricStep:
        """A step of which only the sizes are right; warns once per transform."""
        name = name_of(transform)
        if name not in self._warned:
            self._warned.add(name)
            log.warning(
                'the transform %s %s: maps cannot be laid over the original image, only over what the network saw',
                name,
                'returns several images' if several else 'moves pixels in a way that could not be determined',
            )
        return replace(resize(before, after), exact=False)


def name_of(transform: Any) -> str:
    """A transform's name for messages."""
    return getattr(transform, '__name__', type(transform).__name__)


def called(transform: Any, value: Any) -> Any:
    """The transform's result; one that takes an image and its target gets both."""
    if not isinstance(value, Pair):
        return transform(value)
    out = transform(*value)
    return Pair(out) if isinstance(out, (tuple, list)) else out


def applied(transform: Any, value: Any) -> Any:
    """The transform's result; an InputError that names the transform if it fails."""
    try:
        return called(transform, value)
    except InputError:
        raise
    except Exception as error:
        said = message_of(error)
        raise InputError(f'the transform {name_of(transform)} failed: {said}', hint=_remedy(said)) from error


def _remedy(said: str) -> str:
    """The next step after what a transform said, where its cause is known.

    OpenMMLab's ``Albu`` passes a sample with entries such as ``img_path`` (mmseg 1.2), which the ``Compose`` of
    albumentations 1.4 refuses and that of 1.3 passes on. mmcv's resizes by Pillow take bytes only, and files of floats
    or of 16 bits keep their values.
    """
    if re.search(r'Key \S+ is not in available keys', said):
        return (
            "albumentations 1.4 and later refuse the entries of OpenMMLab's samples: pip install 'albumentations<1.4'"
        )
    if 'Pillow backend only support uint8' in said:
        return "set backend='cv2' in that step of the config, or convert the file to 8 bits"
    return ''


def _keeps_image(container: Any) -> bool:
    """Whether the children of a container see the image under its usual key; KeyMapper can rename it."""
    mapping = getattr(container, 'mapping', None)
    return mapping is None or mapping.get('img', 'img') == 'img'


def _copies(transform: Any, value: Any) -> tuple[Any, Any] | None:
    """Copies of an unknown transform and its input, made before the call, for a replay."""
    try:
        return copy.deepcopy(transform), copy.deepcopy(value)
    except Exception:  # locks, handles and the like
        return None


def _known(rule: Rule, call: TransformCall) -> GeometricStep | None:
    """A rule's step; None if the transform is not exactly the one that the rule was written for."""
    try:
        step = rule(call)
    except (KeyError, AttributeError, TypeError, IndexError, ValueError):
        return None
    return step if step.after == call.after else None


def _replayed(saved: tuple[Any, Any] | None, state: RandomState, before: Any, after: Any) -> GeometricStep | None:
    if saved is None:
        return None
    transform, value = saved
    image = image_of(value)
    old, new = size_of(image), size_of(after)
    if old is None or new is None:
        return None
    unchanged = type(image) is type(after) and old == new and np.array_equal(image, after)
    if unchanged and after is before:
        return resize(old, new)
    step = replay(transform, state, image, after, lambda t, coded: image_of(called(t, with_image(value, coded))))
    return resize(old, new) if step is None and unchanged else step


@contextmanager
def attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replaces an attribute inside the context, also one that is a registered torch module."""
    modules = getattr(owner, '_modules', None)
    registered = modules.pop(name) if modules and name in modules else None
    former = owner.__dict__.get(name, owner)  # the owner itself stands for an absent attribute
    owner.__dict__[name] = value
    try:
        yield
    finally:
        if former is owner:
            owner.__dict__.pop(name, None)
        else:
            owner.__dict__[name] = former
        if registered is not None and modules is not None:
            modules[name] = registered


@contextmanager
def _recording(transform: Any) -> Iterator[dict[str, list[Any]]]:
    """Records what a transform's random methods return while it runs, by the method's name.

    These are mmcv's cached random methods and torchvision's ``get_params``. For the second generation of torchvision's
    transforms it records the parameters that are passed to ``transform``.
    """
    drawn: dict[str, list[Any]] = defaultdict(list)
    names = {*getattr(transform, '_methods_with_randomness', ()), 'get_params'}
    names = {name for name in names if hasattr(transform, name)}
    if type(transform).__module__.startswith('torchvision.transforms.v2'):
        names.add('transform')
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(attribute(transform, name, _recorder(getattr(transform, name), drawn[name], name)))
        yield drawn


def _recorder(method: Callable[..., Any], kept: list[Any], name: str) -> Callable[..., Any]:
    def recorded(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        kept.append(args[1] if name == 'transform' else result)
        return result

    return recorded
