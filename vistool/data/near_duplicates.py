"""Images that are nearly the same, within a dataset and between its phases, by perceptual hashes."""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from vistool.errors import on_one_line

BITS = 64
DISTANCE = 4
"""Perceptual hashes of near-duplicates differ in at most so many bits, unless another number is asked for."""
_ALIKE = 0.9
_THUMBNAIL = 16


@dataclass(frozen=True, eq=False)
class HashedImage:
    """One image of a dataset, in short.

    Attributes:
        index: Its index in the dataset of its phase.
        phase: ``train``, ``val`` or ``test``.
        path: Its file; ``''`` where it has none.
        bits: bool ``(64,)`` of the image, by pHash.
        mirrored: The same of its mirror image.
        thumbnail: float32 ``(16, 16)``, gray.
    """

    index: int
    phase: str
    path: str
    bits: NDArray[np.bool_]
    mirrored: NDArray[np.bool_]
    thumbnail: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class NearDuplicate:
    """Two images that are nearly the same.

    Attributes:
        first: One.
        second: The other.
        distance: In how many of 64 bits their hashes differ.
        mirrored: Whether one is the mirror image of the other.
    """

    first: HashedImage
    second: HashedImage
    distance: int
    mirrored: bool = False

    @property
    def leaks(self) -> bool:
        """Whether they are of different phases."""
        return self.first.phase != self.second.phase

    @property
    def text(self) -> str:
        """The two in words: ``'train #3 (a.jpg) and val #0 (b.jpg), 2 of 64 bits, mirrored'``."""
        one, other = (
            f'{each.phase} #{each.index}{f" ({on_one_line(each.path)})" if each.path else ""}'
            for each in (self.first, self.second)
        )
        return f'{one} and {other}: {self.distance} of {BITS} bits differ{", mirrored" if self.mirrored else ""}'


def can_hash() -> bool:
    """Whether the package imagehash is installed."""
    try:
        importlib.import_module('imagehash')
    except ModuleNotFoundError:
        return False
    return True


def hashed(pixels: NDArray[np.uint8], index: int, phase: str, path: str = '') -> HashedImage:
    """An image in short, by imagehash's pHash (Zauner, 2010): the signs of its lowest frequencies.

    Args:
        pixels: ``(H, W, 3)`` RGB.
        index: Its index in the dataset of its phase.
        phase: ``train``, ``val`` or ``test``.
        path: Its file.
    """
    import imagehash
    from PIL import Image

    image = Image.fromarray(pixels)
    mirror = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    small = image.convert('L').resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
    bits, mirrored = (np.asarray(imagehash.phash(each).hash, np.bool_).reshape(-1) for each in (image, mirror))
    return HashedImage(index, phase, path, bits, mirrored, np.asarray(small, np.float32))


def near_duplicates(images: Sequence[HashedImage], distance: int = DISTANCE) -> list[NearDuplicate]:
    """All pairs of near-duplicates: those between phases first, then the nearest.

    Hashes of plain images are alike by chance, so the thumbnails of a pair must correlate as well. Several samples of
    one file, as in a repeated dataset, are one image within a phase.

    Args:
        images: Of one phase or several.
        distance: The largest number of bits in which hashes may differ, 0 to 63.
    """
    once = {(each.phase, each.path or str(each.index)): each for each in reversed(images)}
    unique = list(once.values())[::-1]
    if not unique:
        return []
    hashes = np.stack([each.bits for each in unique])
    mirrors = np.stack([each.mirrored for each in unique])
    found: dict[tuple[int, int], NearDuplicate] = {}
    for mirrored, second in ((False, hashes), (True, mirrors)):
        for one, other in _candidates(hashes, second, distance):
            pair = min(one, other), max(one, other)
            apart = int((hashes[one] != second[other]).sum())
            if apart > distance or (pair in found and found[pair].distance <= apart):
                continue
            if _correlation(unique[one].thumbnail, unique[other].thumbnail, mirrored) >= _ALIKE:
                found[pair] = NearDuplicate(unique[pair[0]], unique[pair[1]], apart, mirrored)
    return sorted(found.values(), key=lambda each: (not each.leaks, each.distance, each.first.index))


def _candidates(hashes: NDArray[np.bool_], others: NDArray[np.bool_], distance: int) -> Iterator[tuple[int, int]]:
    """Pairs that share a band of bits: of ``distance + 1`` bands, hashes so near agree in at least one."""
    seen: set[tuple[int, int]] = set()
    for band in np.array_split(np.arange(hashes.shape[1]), distance + 1):
        buckets: dict[bytes, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for place in range(len(hashes)):
            buckets[hashes[place, band].tobytes()][0].append(place)
            buckets[others[place, band].tobytes()][1].append(place)
        for left, right in buckets.values():
            pairs = combinations(left, 2) if hashes is others else ((a, b) for a in left for b in right if a != b)
            for pair in pairs:
                if pair not in seen:
                    seen.add(pair)
                    yield pair


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32], mirrored: bool) -> float:
    second = second[:, ::-1] if mirrored else second
    one, other = (each.astype(np.float64).ravel() - each.mean() for each in (first, second))
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    if scale < 1e-6:
        return 1.0 if np.abs(first - second).max() < 1 else 0.0
    return float((one * other).sum()) / scale
