"""Images that are nearly the same, within a dataset and between its phases, by perceptual hashes."""

from __future__ import annotations

import importlib
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vistool.errors import counted, on_one_line

log = logging.getLogger('vistool')

BITS = 64
DISTANCE = 4
"""Perceptual hashes of near-duplicates differ in at most so many bits, unless another number is asked for."""
MOST_COPIES = 20
"""Of thousands of nearly equal images, each is listed with so many others."""

_ALIKE = 0.9
_THUMBNAIL = 16
_PLAIN = 1e-3
"""A thumbnail whose norm after subtracting the mean is below this has one gray value."""
_AT_ONCE = 256
_SET_BITS = np.array([byte.bit_count() for byte in range(256)], np.uint8)


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
    """Pairs of near-duplicates: those between phases first, then the nearest.

    Hashes of plain images are alike by chance, so the thumbnails of a pair must correlate as well. Several samples of
    one file, as in a repeated dataset, are one image within a phase. An image is paired with :data:`MOST_COPIES` of
    those before it at most, so that thousands of equal frames give a list that grows with their number, not with its
    square; a warning says so where that leaves pairs out.

    Args:
        images: Of one phase or several.
        distance: The largest number of bits in which hashes may differ, 0 to 63.
    """
    once = {(each.phase, each.path or str(each.index)): each for each in reversed(images)}
    unique = list(once.values())[::-1]
    if not unique:
        return []
    groups = _EqualHashes(unique, distance)
    found, cut = list[NearDuplicate](), 0
    for group in range(len(groups.members)):
        near = groups.near(group)
        for place in groups.members[group]:
            pairs = _copies_before(place, near, unique, groups)
            found += pairs[:MOST_COPIES]
            cut += len(pairs) > MOST_COPIES
    if cut:
        log.warning('%s: only %d near-duplicates of each are listed', counted(cut, 'image'), MOST_COPIES)
    return sorted(found, key=lambda each: (not each.leaks, each.distance, each.first.index, each.second.index))


@dataclass(frozen=True, eq=False)
class _Near:
    """Images that may be near-duplicates of those of one group, each once for each way in which it may be.

    Attributes:
        places: int ``(n,)``, ascending for each distance and way.
        distances: int ``(n,)``, bits that differ.
        mirrored: bool ``(n,)``, whether one is compared with the mirror image of the other.
        phases: int ``(n,)``, numbers of their phases.
    """

    places: NDArray[np.intp]
    distances: NDArray[np.intp]
    mirrored: NDArray[np.bool_]
    phases: NDArray[np.intp]


class _EqualHashes:
    """Images grouped by their hashes; hashes are compared once for each group.

    Of ``distance + 1`` bands of bits, hashes that are near enough agree in at least one, so that only groups that
    share a band are compared.

    Attributes:
        members: For each group the places of its images, ascending.
        phases: int ``(images,)``, the number of each image's phase.
        thumbnails: float32 ``(images, 256)``, each with mean 0 and norm 1, or 0 where it is plain.
    """

    def __init__(self, images: Sequence[HashedImage], distance: int) -> None:
        self.distance = distance
        by_hash: dict[bytes, list[int]] = defaultdict(list)
        for place, each in enumerate(images):
            by_hash[each.bits.tobytes() + each.mirrored.tobytes()].append(place)
        self.members = [np.array(places, np.intp) for places in by_hash.values()]
        first = [images[places[0]] for places in self.members]
        self._hashes = np.stack([each.bits for each in first]), np.stack([each.mirrored for each in first])
        self._packed = tuple(np.packbits(each, axis=1) for each in self._hashes)
        self._bands = np.array_split(np.arange(BITS), distance + 1)
        self._buckets = [[_buckets(hashes[:, band]) for band in self._bands] for hashes in self._hashes]
        numbers = {phase: number for number, phase in enumerate(dict.fromkeys(each.phase for each in images))}
        self.phases = np.array([numbers[each.phase] for each in images], np.intp)
        flat = np.stack([each.thumbnail.reshape(-1) for each in images])
        self._raw = flat
        self.thumbnails = flat - flat.mean(1, keepdims=True)
        norms = np.linalg.norm(self.thumbnails, axis=1)
        self._plain = norms < _PLAIN
        self.thumbnails /= np.where(self._plain, 1, norms)[:, None]

    def near(self, group: int) -> _Near:
        """The images whose hashes are near those of a group, its own included."""
        found = []
        for mirrored, sides in ((False, ((0, 0),)), (True, ((0, 1), (1, 0)))):
            others = np.unique(np.concatenate([self._sharing(group, *side) for side in sides]))
            apart = np.min([self._apart(group, others, *side) for side in sides], axis=0)
            for other, bits in zip(others[apart <= self.distance], apart[apart <= self.distance], strict=True):
                places = self.members[other]
                found.append((places, np.full(len(places), bits), np.full(len(places), mirrored)))
        places, distances, ways = (np.concatenate(each) for each in zip(*found, strict=True))
        return _Near(places, distances, ways, self.phases[places])

    def alike(self, place: int, others: NDArray[np.intp], mirrored: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether the thumbnails of other images correlate with that of one; of plain ones, whether they are equal."""
        side = _THUMBNAIL
        mirror = self.thumbnails[place].reshape(side, side)[:, ::-1].reshape(-1)
        own = np.where(mirrored[:, None], mirror, self.thumbnails[place])
        correlated = np.einsum('ij,ij->i', self.thumbnails[others], own) >= _ALIKE
        plain = self._plain[others] | self._plain[place]
        if plain.any():
            equal = np.abs(self._raw[others] - self._raw[place]).max(1) < 1
            return np.where(plain, equal, correlated)
        return correlated

    def _sharing(self, group: int, own: int, theirs: int) -> NDArray[np.intp]:
        """The groups that have a band of bits in common with one, in its hash or its mirror image's."""
        hashes = self._hashes[own][group]
        nothing = np.array([], np.intp)
        shared = [
            buckets.get(hashes[band].tobytes(), nothing)
            for band, buckets in zip(self._bands, self._buckets[theirs], strict=True)
        ]
        return np.concatenate(shared) if sum(map(len, shared)) < len(self.members) else np.arange(len(self.members))

    def _apart(self, group: int, others: NDArray[np.intp], own: int, theirs: int) -> NDArray[np.intp]:
        different = np.bitwise_xor(self._packed[theirs][others], self._packed[own][group])
        return np.asarray(_SET_BITS[different].sum(1), np.intp)


def _buckets(bits: NDArray[np.bool_]) -> dict[bytes, NDArray[np.intp]]:
    """The rows of ``bits`` that are equal, by their value."""
    found: dict[bytes, list[int]] = defaultdict(list)
    for place, row in enumerate(bits):
        found[row.tobytes()].append(place)
    return {key: np.array(places, np.intp) for key, places in found.items()}


def _copies_before(place: int, near: _Near, images: Sequence[HashedImage], groups: _EqualHashes) -> list[NearDuplicate]:
    """The near-duplicates among the images before one, those of other phases first, then the nearest.

    Returns:
        At most one more than :data:`MOST_COPIES`, by which it is seen that there are more.
    """
    (before,) = np.nonzero(near.places < place)
    same = near.phases[before] == groups.phases[place]
    order = before[np.lexsort((near.places[before], near.mirrored[before], near.distances[before], same))]
    found: dict[int, NearDuplicate] = {}
    for start in range(0, len(order), _AT_ONCE):
        some = order[start : start + _AT_ONCE]
        for each in some[groups.alike(place, near.places[some], near.mirrored[some])]:
            other = int(near.places[each])
            if other not in found:
                apart, mirrored = int(near.distances[each]), bool(near.mirrored[each])
                found[other] = NearDuplicate(images[other], images[place], apart, mirrored)
            if len(found) > MOST_COPIES:
                return list(found.values())
    return list(found.values())
