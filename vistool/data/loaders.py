"""What a pipeline's first transform would have put into the results, from our own reading of the file.

mmcv's loader keeps 16-bit values, drops transparency and reads CMYK wrongly; here every file is read as a person sees
it and handed over in the channel order and type that the loader's options promise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistool.data.geometry import Geometry, Step
from vistool.data.transforms.photometry import Photometry, Preprocessing

#: Orientation -> whether the stored image is the upright one transposed, and then mirrored across and down.
_STORED = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def is_loader(transform: Any) -> bool:
    """Whether it is mmcv's image loader (or a package's child that reads files the same way)."""
    return any(
        cls.__name__ == 'LoadImageFromFile' and cls.__module__.startswith('mmcv.') for cls in type(transform).__mro__
    ) and type(transform).__module__.split('.')[0].startswith('mm')


def is_custom_loader(transform: Any) -> bool:
    """Whether it seems to load an image in some other way."""
    return type(transform).__name__.startswith('Load') and not is_label_loader(transform)


def is_label_loader(transform: Any) -> bool:
    """Whether it loads what only a dataset has: annotations, proposals, captions."""
    name = type(transform).__name__
    return name.startswith('Load') and any(word in name for word in ('Annotation', 'Proposal', 'Label', 'Semantic'))


def loaded(loader: Any, original: NDArray[np.uint8], orientation: int = 1) -> tuple[NDArray[Any], Photometry, Geometry]:
    """The image as the loader hands it on, with its photometry and geometry.

    Args:
        loader: mmcv's ``LoadImageFromFile``.
        original: uint8 ``(H, W, 3)`` RGB, upright.
        orientation: The file's EXIF orientation, for loaders that are told to ignore it.
    """
    flag = str(getattr(loader, 'color_type', 'color'))
    image, geometry = original, Geometry.identity(original.shape[:2])
    if flag.endswith('ignore_orientation') and orientation != 1:
        image, geometry = _stored(original, orientation)
    if flag.startswith('grayscale'):
        image, photometry = as_grey(image), Photometry()
    else:
        image, photometry = np.ascontiguousarray(image[:, :, ::-1]), Photometry(bgr=True)
    return image.astype(np.float32) if getattr(loader, 'to_float32', False) else image, photometry, geometry


def unloaded(
    transforms: list[Any], preprocessing: Preprocessing, original: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], Photometry]:
    """The image for a pipeline without a loader, whose dataset brings arrays: what the later steps expect to be given.

    BGR where a later step turns it into RGB, grey where there is one mean, else RGB.
    """
    if preprocessing.mean is not None and len(preprocessing.mean) == 1:
        return as_grey(original), Photometry()
    swaps = preprocessing.swaps or any(
        getattr(t, 'to_rgb', False) and type(t).__name__ in ('Normalize', 'NumpyToPIL') for t in transforms
    )
    return (np.ascontiguousarray(original[:, :, ::-1]) if swaps else original.copy()), Photometry(bgr=swaps)


def as_grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma ``(H, W)`` of an RGB image."""
    import cv2

    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def _stored(upright: NDArray[np.uint8], orientation: int) -> tuple[NDArray[np.uint8], Geometry]:
    """An image as its file stores it, before EXIF, and the way from there to the upright one."""
    transposed, across, down = _STORED.get(orientation, _STORED[1])
    image = upright.transpose(1, 0, 2) if transposed else upright
    h, w = image.shape[:2]
    image = image[:, ::-1] if across else image
    image = image[::-1] if down else image
    mirror = np.array([[-1 if across else 1, 0, w * across], [0, -1 if down else 1, h * down], [0, 0, 1.0]])
    exchange = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1.0]]) if transposed else np.eye(3)
    size = (upright.shape[0], upright.shape[1])
    return np.ascontiguousarray(image), Geometry.identity(size).then(Step(exchange @ mirror, size, (h, w)))
