"""Each known transform's geometry: what it did to the pixel grid, from its parameters as drawn.

A rule takes a :class:`TransformCall` and returns the :class:`~vistool.data.geometry.GeometricStep`. Rules are looked up
by package and class name, so nothing here imports the libraries it describes: OpenMMLab, torchvision (both generations
of its transforms) and timm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vistool.data.geometry import GeometricStep, Size, affine, crop, erase, flip, resize, window
from vistool.data.replay import RandomState, kept


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
    if call.transform.interpolation == 'nearest' and abs(shift % 1 - 0.5) > 1e-4:  # at halves, pixels move either way
        shift = round(shift)
    return affine(call.before, call.after, [[1, 0, shift * across], [0, 1, shift * (not across)]])


#: Transforms of OpenMMLab that leave every pixel in place.
_STILL = [
    'Normalize', 'ColorJitter', 'Lighting', 'AutoContrast', 'Invert', 'Equalize', 'Solarize', 'SolarizeAdd',
    'Posterize', 'Contrast', 'ColorTransform', 'Brightness', 'Sharpness', 'GaussianBlur', 'RandomGrayscale',
    'PhotoMetricDistortion', 'YOLOXHSVRandomAug', 'CLAHE', 'AdjustGamma', 'Rerange', 'RGB2Gray', 'ToTensor',
    'ImageToTensor', 'Transpose', 'NumpyToPIL', 'PILToNumpy', 'Collect', 'PackInputs', 'PackMultiTaskInputs',
    'PackDetInputs', 'PackSegInputs', 'LoadAnnotations', 'FilterAnnotations', 'BEiTMaskGenerator',
    'SimMIMMaskGenerator', 'CleanCaption', 'OFAAddObjects', 'MAEMaskGenerator', 'InferencerLoader',
]  # fmt: skip

#: Rules by class name, for every OpenMMLab package.
OPENMMLAB: dict[str, Rule] = {
    **dict.fromkeys(_STILL, still),
    **dict.fromkeys(['Resize', 'RandomResize', 'RandomChoiceResize', 'ResizeEdge', 'FixScaleResize'], stretched),
    **dict.fromkeys(['ResizeShortestEdge', 'ResizeToMultiple'], stretched),
    'Pad': padded_at_end,
    'CenterCrop': center_cropped,
    'RandomFlip': flipped,
}

#: Rules for mmpretrain only: other packages use some of these names for other transforms.
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
    'RandomChannelPermutation', 'RGB', 'JPEG', 'Identity',
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
    'RandomErasing': torchvision_erased,
}

TIMM: dict[str, Rule] = {
    **dict.fromkeys(['ToTensor', 'MaybeToTensor', 'MaybePILToTensor', 'ToNumpy'], still),
    'ResizeKeepRatio': stretched,
    'CenterCropOrPad': torchvision_center_cropped,
    'RandomCropOrPad': random_cropped_or_padded,
    'RandomResizedCropAndInterpolation': drawn_box_resized,
}
