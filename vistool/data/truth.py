"""Where the objects of an image are: boxes, masks and label maps of a dataset, or a folder of masks.

A truth is in pixels of the original image, upright, and knows the class of each object where the data say it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vistool.data.geometry import Mask, Size
from vistool.data.images import (
    ARRAY_SUFFIXES,
    SUFFIXES,
    exif_orientation,
    open_image,
    photo_size,
    read_photo,
    upright,
)
from vistool.errors import InputError, counted
from vistool.records import find_path

log = logging.getLogger('vistool')

Draw: TypeAlias = Callable[[Size], Mask]
"""``(H, W) → bool (H, W)``, True inside."""

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom."""

KEYS = ('instances', 'gt_bboxes', 'gt_masks', 'gt_sem_seg', 'gt_seg_map', 'seg_map_path')
"""What a dataset may know about where the objects of an image are."""

IGNORED = 255
"""The value of label maps that belongs to no class."""

LOSSY = ('.jpg', '.jpeg')


@dataclass(frozen=True)
class Region:
    """One object, or all pixels of one class.

    Attributes:
        draw: Where it is.
        label: Its class id; None where that is not known.
        box: Its box, of objects that have one.
    """

    draw: Draw
    label: int | None = None
    box: Box | None = None


@dataclass(frozen=True)
class Truth:
    """Where the objects of one image are.

    Attributes:
        size: ``(H0, W0)`` of the original image, upright.
        regions: The objects; none where there is not one.
        source: What says so: ``'boxes'``, ``'masks'``, ``'label map'``, a file, or ``''``.
        ignored: Boxes of what the data mark as ignored: crowds, difficult objects.
    """

    size: Size
    regions: tuple[Region, ...] = ()
    source: str = ''
    ignored: tuple[Box, ...] = ()

    @property
    def labeled(self) -> bool:
        """Whether the class of any object is known."""
        return any(region.label is not None for region in self.regions)

    def mask(self, label: int | None = None) -> Mask:
        """The union ``(H0, W0)`` of the objects of a class; of all objects where no class is asked for or known."""
        every = label is None or not self.labeled
        return self.drawn([region for region in self.regions if every or region.label == label])

    def drawn(self, regions: Sequence[Region]) -> Mask:
        """The union ``(H0, W0)`` of some of the objects."""
        found = np.zeros(self.size, np.bool_)
        for region in regions:
            found |= region.draw(self.size)
        return found


def truth_of(info: Mapping[str, Any], size: Size, background: int | None = None) -> Truth:
    """What a dataset knows about where the objects of a sample are.

    Masks go before label maps, and those before boxes. Objects that the data mark as ignored are left out.

    Args:
        info: The sample's annotations, as mmengine's datasets keep them.
        size: ``(H0, W0)`` of its image, upright.
        background: The class id of what is not an object, in label maps.

    Raises:
        InputError: The annotations cannot be read, or are of an image of another size.
    """
    _check_size(info, size)
    every = info.get('instances') or ()
    objects = [each for each in every if not each.get('ignore_flag')]
    ignored = tuple(_box(each['bbox']) for each in every if each.get('ignore_flag') and each.get('bbox') is not None)
    masked = [each for each in objects if each.get('mask') is not None]
    if masked:
        regions = (
            Region(_drawing(each['mask']), _label(each, 'mask_label'), _box(each['bbox']) if 'bbox' in each else None)
            for each in masked
        )
        return Truth(size, tuple(regions), 'masks', ignored)
    masks = _listed(info.get('gt_masks'))
    if masks:
        return Truth(size, tuple(map(Region, map(_drawing, masks), _labels(info, len(masks)))), 'masks')
    areas = _of_label_map(info, background)
    if areas is not None:
        return Truth(size, areas, 'label map')
    boxes = [(each['bbox'], _label(each)) for each in objects if each.get('bbox') is not None]
    listed = _listed(info.get('gt_bboxes'))
    boxes += zip(listed, _labels(info, len(listed)), strict=True)
    found = ((_box(box), label) for box, label in boxes)
    return Truth(size, tuple(Region(partial(box_mask, box), label, box) for box, label in found), 'boxes', ignored)


def _check_size(info: Mapping[str, Any], size: Size) -> None:
    said = info.get('height'), info.get('width')
    if None not in said and (int(said[0] or 0), int(said[1] or 0)) != size:
        raise InputError(
            f'the annotations are of an image of {said[0]}×{said[1]} pixels (height, width), the image has '
            f'{size[0]}×{size[1]}',
            hint='the file may have been replaced, or turned by its EXIF orientation',
        )


def _label(each: Mapping[str, Any], own: str = '') -> int | None:
    label = each.get(own, each.get('bbox_label'))
    return None if label is None else int(label)


def _labels(info: Mapping[str, Any], count: int) -> list[int | None]:
    for key in ('gt_bboxes_labels', 'gt_labels'):
        labels = _listed(info.get(key))
        if labels:
            if len(labels) != count:
                raise InputError(f'{key} has {counted(len(labels), "label")} for {counted(count, "object")}')
            return [int(each) for each in labels]
    return [None] * count


def _listed(value: Any) -> list[Any]:
    """Boxes or masks in any container: a list, an array, a tensor, mmdet's BitmapMasks and PolygonMasks."""
    value = getattr(value, 'masks', getattr(value, 'tensor', value))
    return [] if value is None else list(value)


def _box(box: Any) -> Box:
    corners = np.asarray(box, np.float64).reshape(-1)
    if len(corners) != 4:
        raise InputError(f'a box of {counted(len(corners), "number")}', accepted='left, top, right, bottom')
    left, top, right, bottom = corners.tolist()
    return left, top, right, bottom


def box_mask(box: Box, size: Size) -> Mask:
    """The pixels whose center lies in a box ``(left, top, right, bottom)``."""
    y, x = (np.arange(side) + 0.5 for side in size)
    return ((y >= box[1]) & (y < box[3]))[:, None] & ((x >= box[0]) & (x < box[2]))


def polygon_mask(parts: Sequence[Any], size: Size) -> Mask:
    """The pixels whose center lies in any of several polygons ``[x1, y1, x2, y2, …]``."""
    found, x = np.zeros(size, np.bool_), np.arange(size[1]) + 0.5
    for part in parts:
        corners = np.asarray(part, np.float64).reshape(-1, 2)
        inside = np.zeros(size, np.bool_)
        for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, 0), strict=True):
            low, high = sorted((y0, y1))
            top, bottom = (int(np.clip(np.ceil(end - 0.5), 0, size[0])) for end in (low, high))
            if top < bottom:  # every row that the edge crosses changes sides to the right of it
                crossed = x0 + (np.arange(top, bottom) + 0.5 - y0) * (x1 - x0) / (y1 - y0)
                inside[top:bottom] ^= x > crossed[:, None]
        found |= inside
    return found


def rle_mask(encoded: Mapping[str, Any], size: Size) -> Mask:
    """COCO's run-length encoding, compressed or not: column by column, the outside first.

    Raises:
        InputError: It is of another size, or damaged.
    """
    height, width = (int(side) for side in encoded['size'])
    if (height, width) != size:
        raise InputError(f'a mask of {height}×{width} for an image of {size[0]}×{size[1]}')
    counts = encoded['counts']
    if isinstance(counts, (str, bytes)):
        counts = _uncompressed(counts.encode() if isinstance(counts, str) else counts)
    runs = np.asarray(counts, np.int64)
    if runs.sum() != height * width or (runs < 0).any():
        raise InputError('a run-length encoding does not fill its image')
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _uncompressed(text: bytes) -> list[int]:
    """COCO's text form: five bits a character, the sixth says that more follow; from the third on, differences."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = character - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts


def _array_mask(values: NDArray[Any], size: Size) -> Mask:
    if values.shape != size:
        raise InputError(f'a mask of {"×".join(map(str, values.shape))} for an image of {size[0]}×{size[1]}')
    return values != 0


def _drawing(mask: Any) -> Draw:
    """A mask in any of the forms that datasets have: run lengths, polygons, a bitmap."""
    if isinstance(mask, Mapping):
        return partial(rle_mask, mask)
    if isinstance(mask, (list, tuple)) and (not mask or not np.isscalar(mask[0])):
        return partial(polygon_mask, [part for part in mask if len(part) >= 6])
    values = np.asarray(mask)
    return partial(polygon_mask, [values]) if values.ndim == 1 else partial(_array_mask, values)


def _of_label_map(info: Mapping[str, Any], background: int | None) -> tuple[Region, ...] | None:
    """A region for each class of a sample's label map; None where it has none."""
    values = next((info[key] for key in ('gt_sem_seg', 'gt_seg_map') if info.get(key) is not None), None)
    path = info.get('seg_map_path')
    if values is None and path is None:
        return None
    values = _label_map(Path(str(path))) if values is None else np.asarray(getattr(values, 'data', values)).squeeze()
    if segments := info.get('segments_info'):
        if values.ndim == 3:  # COCO's panoptic colors
            values = values[..., :3].astype(np.int64) @ np.array([1, 256, 65536])
        return tuple(Region(partial(_equal, values, each['id']), int(each['category'])) for each in segments)
    if values.ndim != 2:
        raise InputError(f'the label map {path or ""} has colors', accepted='a class id for each pixel')
    old = values
    if info.get('reduce_zero_label'):
        values = np.where(values == 0, IGNORED, values.astype(np.int64) - 1)
        values[values == IGNORED - 1] = IGNORED
    if mapping := info.get('label_map'):
        old, values = values, values.copy()
        for before, after in mapping.items():
            values[old == before] = after
    ids = [int(each) for each in np.unique(values) if each not in (IGNORED, background)]
    return tuple(Region(partial(_equal, values, each), each) for each in ids)


def _equal(values: NDArray[Any], wanted: int, size: Size) -> Mask:
    return _array_mask(values == wanted, size)


def _label_map(path: Path) -> NDArray[Any]:
    """The class ids of a label map's file, of an indexed image the indices."""
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return read_photo(path).values.squeeze()
    image = open_image(path)
    return np.asarray(image)


class MaskFolder:
    """A folder with a mask for each image: same stem, what is not zero is inside.

    Attributes:
        folder: The folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Lists the folder.

        Raises:
            InputError: It is not a folder, or holds no image.
        """
        self.folder = find_path(folder, 'masks')
        if not self.folder.is_dir():
            raise InputError(f'{str(folder)!r} is not a folder', accepted='a folder of masks', parameter='masks')
        self._files: dict[str, list[Path]] = {}
        for path in sorted(self.folder.rglob('*')):
            if path.suffix.lower() in SUFFIXES | ARRAY_SUFFIXES and not path.name.startswith('.'):
                stem = path.relative_to(self.folder).with_suffix('').as_posix()
                self._files.setdefault(stem, []).append(path)
        if not self._files:
            raise InputError(f'no image in the folder {str(folder)!r}', accepted='masks', parameter='masks')

    def find(self, path: Path) -> Path | None:
        """The mask of an image: of the same stem, in the same sub-folders where it has any; None where there is none.

        Args:
            path: The image's file.

        Raises:
            InputError: There are several.
        """
        parts = path.with_suffix('').parts
        tails = ('/'.join(parts[start:]) for start in range(len(parts)))  # the longest that is there
        found = next((self._files[tail] for tail in tails if tail in self._files), [])
        if len(found) > 1:
            raise InputError(
                f'{path.name} has several masks: {", ".join(each.name for each in found)}',
                hint='keep one',
                parameter='masks',
            )
        return found[0] if found else None

    def check(self, images: Sequence[Path]) -> None:
        """Looks for the mask of every image and at its size, before any work.

        Args:
            images: Their files.

        Raises:
            InputError: One is missing, cannot be read, is of another size, or belongs to two images.
        """
        missing, owners = [], dict[Path, Path]()
        for path in images:
            mask = self.find(path)
            if mask is None:
                missing.append(path)
                continue
            other = owners.setdefault(mask, path)
            if other != path:
                raise InputError(
                    f'{mask} is the only mask for {other} and {path}',
                    hint='lay the masks in the same sub-folders as the images',
                    parameter='masks',
                )
        if missing:
            raise InputError(
                f'{str(self.folder)!r} has no mask for {len(missing)} of {counted(len(images), "image")}: '
                f'{_few(missing)}',
                accepted='a file of the same stem for each image',
                parameter='masks',
            )
        for mask, path in owners.items():
            self._check_size(mask, path)

    def _check_size(self, mask: Path, path: Path) -> None:
        try:
            size = photo_size(path)
        except InputError:
            return  # the run reports it as an image that cannot be read
        try:
            found = photo_size(mask)
        except InputError as error:
            raise error.under('masks') from error
        if found not in (size, size[::-1]):
            raise _other_size(mask, found, size)

    def truth(self, path: Path, size: Size) -> Truth:
        """The mask of an image.

        Args:
            path: The image's file.
            size: ``(H0, W0)`` of the image, upright.

        Raises:
            InputError: There is none, it cannot be read, or it is of another size.
        """
        mask = self.find(path)
        if mask is None:
            raise InputError(f'{path} has no mask in {str(self.folder)!r}', parameter='masks')
        try:
            inside = read_mask(mask)
        except InputError as error:
            raise error.under('masks') from error
        if inside.shape != size:
            inside = _turned_as(path, mask, inside, size)
        return Truth(size, (Region(partial(_array_mask, inside)),), str(mask))


def _few(paths: Sequence[Path]) -> str:
    return ', '.join(path.name for path in paths[:3]) + (f' and {len(paths) - 3} more' if len(paths) > 3 else '')


def _other_size(mask: Path, found: Size, size: Size) -> InputError:
    return InputError(
        f'{mask} has {found[1]}×{found[0]} pixels, its photo {size[1]}×{size[0]}',
        accepted="a mask of the photo's size",
        parameter='masks',
    )


def _turned_as(path: Path, mask: Path, inside: Mask, size: Size) -> Mask:
    """A mask that was drawn on the photo as its file stores it, turned upright as the photo is."""
    orientation = exif_orientation(path)
    if inside.shape != size[::-1] or orientation < 5 or exif_orientation(mask) != 1:
        raise _other_size(mask, (inside.shape[0], inside.shape[1]), size)
    log.info('masks lie as the files store the photos; they are turned by the EXIF orientation of the photos')
    return upright(inside, orientation)


def read_mask(path: Path) -> Mask:
    """A file as a mask, upright: what is not zero is inside.

    Of an indexed image the index counts, of a transparent one the transparency where it varies, else the color. JPEG
    blurs: there the upper half of the range is inside.

    Raises:
        InputError: The file cannot be read.
    """
    if path.suffix.lower() in (*ARRAY_SUFFIXES, '.tif', '.tiff'):
        return nonzero(read_photo(path).values)
    image = open_image(path)
    values = np.asarray(image)
    if path.suffix.lower() in LOSSY:
        inside = values.reshape(*values.shape[:2], -1).max(2) > values.max() / 2
        log.info('masks in JPEG files are blurred: values above half of the maximum count as inside')
    elif values.ndim == 3 and image.mode in ('LA', 'RGBA'):
        alpha = values[..., -1]
        inside = alpha > 0 if np.ptp(alpha) else nonzero(values[..., :-1])
    else:
        inside = nonzero(values)
    return upright(inside, exif_orientation(path))


def nonzero(values: NDArray[Any]) -> Mask:
    """Which pixels have a value that is not zero, in any band."""
    inside = np.nan_to_num(values) != 0
    return np.asarray(inside.any(2) if inside.ndim == 3 else inside, np.bool_)
