"""The geometry of an unknown transform, found by running it again on images that encode the position of each pixel.

The transform runs on constants (0 and 1), on the coordinates ``x``, ``y`` and on ``(1 - x)^2``, ``(1 - y)^2``, from the
random states of its first run. The constants show how much of a pixel comes from the image and how much from a border,
and undo a change of brightness. Any other color transform breaks the relation between the coordinates and the squares,
so it is not mistaken for a warp.
"""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vistool.data.geometry import GeometricStep, Size, resize
from vistool.data.images import is_tensor, size_of

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

        return torch.from_numpy(pixels).expand(*image.shape[:-2], *pixels.shape).clone()
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
