"""The kinds of image that pass through a pipeline: arrays, tensors and PIL images, alone or in a results dict."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistool.geometry import Size


def is_tensor(image: Any) -> bool:
    """Whether it is a torch tensor (asked without importing torch)."""
    return hasattr(image, 'detach') and hasattr(image, 'dim')


def size_of(image: Any) -> Size | None:
    """``(h, w)`` of an image of any kind: PIL, ``(H, W[, C])`` array, ``(C, H, W)`` tensor or array; else None."""
    if is_tensor(image):
        return (int(image.shape[-2]), int(image.shape[-1])) if image.dim() >= 2 else None
    if isinstance(image, np.ndarray):
        if image.ndim == 3 and image.shape[2] not in (1, 2, 3, 4) and image.shape[0] in (1, 2, 3, 4):
            return image.shape[1], image.shape[2]
        return (image.shape[0], image.shape[1]) if image.ndim in (2, 3) else None
    if hasattr(image, 'getbands'):
        return image.height, image.width
    return None


def image_of(value: Any) -> Any:
    """The image in a results dict, or the value itself where the pipeline passes images; None where there is none."""
    if isinstance(value, dict):
        value = value['img'] if value.get('img') is not None else value.get('inputs')
    return value if size_of(value) is not None else None


def with_image(value: Any, image: Any) -> Any:
    """A deep copy of the value with another image in it."""
    if not isinstance(value, dict):
        return image
    key = 'img' if value.get('img') is not None else 'inputs'
    return {**copy.deepcopy({k: v for k, v in value.items() if k != key}), key: image}


def planes_of(image: Any) -> NDArray[Any]:
    """Any image as an array ``(C, H, W)``."""
    if is_tensor(image):
        array = image.detach().cpu().numpy()
        return array.reshape(-1, *array.shape[-2:]) if array.ndim != 3 else array
    array = np.asarray(image)
    if array.ndim == 2:
        return array[None]
    first = size_of(image) == array.shape[1:] and size_of(image) != array.shape[:2]
    return array if first else array.transpose(2, 0, 1)
