"""The geometry of torchvision's transforms (both generations) and timm's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from vistool.data.geometry import Size, Step, affine, crop, erase, flip, window
from vistool.data.transforms.openmmlab import Call, Rule, drawn_box_resized, four_sides, still, stretched


def centre_cropped(call: Call) -> Step:
    """CenterCrop (and timm's CenterCropOrPad), padding what is missing on both sides first."""
    offsets = []
    for have, want in zip(call.before, call.after, strict=True):
        pad = (want - have) // 2 if want > have else 0
        offsets.append(round((max(have, want) - want) / 2.0) - pad)
    return crop(call.before, call.after, offsets[1], offsets[0])


def padded(call: Call) -> Step:
    """Pad."""
    left, top, _, _ = four_sides(call.transform.padding)
    return crop(call.before, call.after, -left, -top)


def random_cropped(call: Call) -> Step:
    """RandomCrop; where padding is needed, all that is missing is added on both sides."""
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


def random_cropped_or_padded(call: Call) -> Step:
    """Timm's RandomCropOrPad."""
    top, left = call.last('get_params')
    return crop(call.before, call.after, left, top)


def random_resized_crop(call: Call) -> Step:
    """RandomResizedCrop."""
    if (params := call.last('transform')) is None:
        return drawn_box_resized(call)
    return window(call.before, call.after, params['left'], params['top'], params['width'], params['height'])


def zoomed_out(call: Call) -> Step:
    """RandomZoomOut: the image somewhere on a larger canvas."""
    if (params := call.last('transform')) is None:
        return call.still
    return crop(call.before, call.after, -params['padding'][0], -params['padding'][1])


def _applied(call: Call) -> bool:
    """Whether a transform with a probability and nothing else to draw went ahead."""
    import torch

    if 'v2' in type(call.transform).__module__:
        return call.last('transform') is not None
    return bool(call.redraw(lambda: torch.rand(1).item()) < call.transform.p)


def flipped_horizontally(call: Call) -> Step:
    """RandomHorizontalFlip."""
    return flip(call.before, horizontal=_applied(call))


def flipped_vertically(call: Call) -> Step:
    """RandomVerticalFlip."""
    return flip(call.before, vertical=_applied(call))


def _about(before: Size, after: Size, linear: Any, centre: Any, shift: tuple[float, float] = (0, 0)) -> Step:
    """A linear map about a centre, in corner-based pixel coordinates as PIL and torchvision count them.

    A canvas that has grown has grown alike on opposite sides.
    """
    (h, w), linear = before, np.asarray(linear)
    pivot = np.array([w / 2, h / 2] if centre is None else centre, np.float64)
    growth = np.array([after[1] - w, after[0] - h]) / 2
    offset = pivot + shift + growth - linear @ pivot
    return affine(before, after, np.column_stack([linear, offset]), centres=False)


def _turn(degrees: float) -> Any:
    """Rotation that looks clockwise for positive angles (y points down)."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cos, -sin], [sin, cos]])


def rotated(call: Call) -> Step:
    """RandomRotation: counter-clockwise for positive angles."""
    params, t = call.last('transform'), call.transform
    angle = call.last('get_params') if params is None else params['angle']
    return _about(call.before, call.after, _turn(-angle), t.center)


def moved(call: Call) -> Step:
    """RandomAffine: shear, scale, rotate clockwise, shift."""
    params = call.last('transform')
    if params is None:
        angle, shift, scale, shear = call.last('get_params')
    else:
        angle, shift, scale, shear = (params[name] for name in ('angle', 'translate', 'scale', 'shear'))
    x, y = (math.tan(math.radians(s)) for s in shear)
    linear = scale * _turn(angle) @ np.array([[1, 0], [-y, 1]]) @ np.array([[1, -x], [0, 1]])
    return _about(call.before, call.after, linear, call.transform.center, tuple(shift))


def erased(call: Call) -> Step:
    """RandomErasing; a patch that did not fit in ten attempts comes back as the whole image, untouched."""
    params = call.last('transform')
    if params is not None:
        box = None if params['v'] is None else tuple(params[name] for name in 'ijhw')
    else:
        box = None if call.last('get_params') is None else tuple(call.last('get_params')[:4])
    if box is None or box[2:] == call.before:
        return call.still
    top, left, height, width = box
    return erase(call.before, [(top, left, height, width)])


_STILL = [
    'ToTensor', 'PILToTensor', 'ToPILImage', 'ToImage', 'ToDtype', 'ToPureTensor', 'ConvertImageDtype', 'Normalize',
    'ColorJitter', 'Grayscale', 'RandomGrayscale', 'GaussianBlur', 'GaussianNoise', 'RandomInvert', 'RandomPosterize',
    'RandomSolarize', 'RandomAdjustSharpness', 'RandomAutocontrast', 'RandomEqualize', 'RandomPhotometricDistort',
    'RandomChannelPermutation', 'RGB', 'JPEG', 'Identity',
]  # fmt: skip

TORCHVISION: dict[str, Rule] = {
    **dict.fromkeys(_STILL, still),
    **dict.fromkeys(['Resize', 'RandomResize', 'RandomShortestSize', 'ScaleJitter'], stretched),
    'CenterCrop': centre_cropped,
    'Pad': padded,
    'RandomCrop': random_cropped,
    'RandomResizedCrop': random_resized_crop,
    'RandomHorizontalFlip': flipped_horizontally,
    'RandomVerticalFlip': flipped_vertically,
    'RandomRotation': rotated,
    'RandomAffine': moved,
    'RandomZoomOut': zoomed_out,
    'RandomErasing': erased,
}

TIMM: dict[str, Rule] = {
    **dict.fromkeys(['ToTensor', 'MaybeToTensor', 'MaybePILToTensor', 'ToNumpy'], still),
    'ResizeKeepRatio': stretched,
    'CenterCropOrPad': centre_cropped,
    'RandomCropOrPad': random_cropped_or_padded,
    'RandomResizedCropAndInterpolation': drawn_box_resized,
}
