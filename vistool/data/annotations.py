"""What a sample is annotated with at one point of its pipeline: boxes, masks, keypoints and a map of classes.

Read from whatever holds them there, without the package that made it: results of OpenMMLab's pipelines before and after
packing, tv_tensors, and the targets of torchvision's detection datasets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vistool.data.geometry import Geometry, Mask, Size, transform
from vistool.data.truth import IGNORED, polygon_mask, rle_mask
from vistool.errors import InputError, counted

Points: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ObjectMask:
    """The pixels of one object, kept as the part of the image around them.

    Attributes:
        size: ``(H, W)`` of the whole mask.
        top: The first row that is kept.
        left: The first column that is kept.
        inside: bool ``(h, w)``; without a pixel where the mask is empty.
    """

    size: Size
    top: int
    left: int
    inside: Mask

    @classmethod
    def of(cls, whole: NDArray[Any]) -> ObjectMask:
        """A mask ``(H, W)``; what is not zero is inside."""
        inside = np.asarray(whole) != 0
        size = inside.shape[0], inside.shape[1]
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        if not len(rows):
            return cls(size, 0, 0, np.zeros((0, 0), np.bool_))
        top, left = int(rows[0]), int(columns[0])
        return cls(size, top, left, inside[top : rows[-1] + 1, left : columns[-1] + 1].copy())

    @property
    def box(self) -> Points | None:
        """Left, top, right and bottom of its pixels; None where it is empty."""
        if not self.inside.size:
            return None
        height, width = self.inside.shape
        return np.array([self.left, self.top, self.left + width, self.top + height], np.float64)

    def at(self, points: Points) -> Mask:
        """Whether points ``(..., 2)`` lie inside."""
        column, row = np.floor(points[..., 0]) - self.left, np.floor(points[..., 1]) - self.top
        if not self.inside.size:
            return np.zeros(column.shape, np.bool_)
        height, width = self.inside.shape
        near = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        found = self.inside[row.clip(0, height - 1).astype(np.intp), column.clip(0, width - 1).astype(np.intp)]
        return np.asarray(found & near, np.bool_)


@dataclass(frozen=True, eq=False)
class Annotation:
    """One object.

    Attributes:
        box: float64 ``(4,)`` left, top, right, bottom, as the data have them; None without one.
        corners: ``(4, 2)`` of a rotated box, in order; None where the box is upright.
        mask: Its pixels; None without one.
        keypoints: ``(K, 3)``: x, y, and 0 (not labeled), 1 (hidden) or 2 (visible); None without any.
        label: The class id, or the class's name where the data name it; None where it is not known.
        ignored: Whether training leaves it out.
        crowd: Whether it stands for many objects.
    """

    box: Points | None = None
    corners: Points | None = None
    mask: ObjectMask | None = None
    keypoints: Points | None = None
    label: int | str | None = None
    ignored: bool = False
    crowd: bool = False

    @property
    def extent(self) -> Points | None:
        """Left, top, right and bottom: of the box, else of the mask; None without either."""
        if self.box is not None:
            return self.box
        return None if self.mask is None else self.mask.box


@dataclass(frozen=True, eq=False)
class Annotations:
    """All that one image is annotated with.

    Attributes:
        size: ``(H, W)`` of the image that they are drawn on.
        objects: Boxes, masks and keypoints.
        label_map: int ``(h, w)``, a class for each pixel; None without one.
        ignore_index: The value of the label map that belongs to no class.
        of_original: Whether they are in pixels of the image as it was loaded, and not of the one that they came with.
        from_one: Whether class ids start from 1, and 0 is the background, as in torchvision.
    """

    size: Size
    objects: tuple[Annotation, ...] = ()
    label_map: NDArray[np.int64] | None = None
    ignore_index: int = IGNORED
    of_original: bool = False
    from_one: bool = False

    @property
    def labels(self) -> list[int | str]:
        """The classes of the objects."""
        return [each.label for each in self.objects if each.label is not None]

    def seen_by(self, geometry: Geometry) -> Annotations:
        """The same, of an original image, as they lie in an image that was made of it.

        Args:
            geometry: From that image to the original.
        """
        size = geometry.network_size
        grid = _centers(size)
        where = geometry.field if geometry.field is not None else transform(geometry.matrix, grid)
        objects = tuple(_moved(each, geometry, where) for each in self.objects)
        values = self.label_map
        if values is not None:
            inside = ((where >= 0) & (where < values.shape[::-1])).all(-1)
            values = np.where(inside, nearest(values, where), self.ignore_index)
        return replace(self, size=size, objects=objects, label_map=values, of_original=False)


def nearest(values: NDArray[Any], points: Points) -> NDArray[Any]:
    """The value ``(h, w)`` of the pixel that holds each point ``(..., 2)``; beyond the border, of the last one."""
    points = np.nan_to_num(points, nan=-1.0)
    column, row = (np.clip(np.floor(points[..., axis]), 0, values.shape[1 - axis] - 1) for axis in (0, 1))
    return np.asarray(values[row.astype(np.intp), column.astype(np.intp)])


def hull(points: Points) -> Points:
    """Left, top, right and bottom of points ``(N, 2)``."""
    return np.concatenate([points.min(0), points.max(0)])


def corners_of(box: Points) -> Points:
    """The corners ``(4, 2)`` of an upright box, clockwise from the top left."""
    left, top, right, bottom = box
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _centers(size: Size) -> Points:
    x, y = np.meshgrid(np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5)
    return np.stack([x, y], axis=-1)


def _moved(each: Annotation, geometry: Geometry, where: Points) -> Annotation:
    """An object of the original in the image that shows the original's points ``(H, W, 2)`` at its pixels."""
    box, corners, mask, keypoints = each.box, each.corners, each.mask, each.keypoints
    if corners is not None:
        corners = geometry.to_network(corners)
    if box is not None and np.isfinite(box).all():
        box = hull(corners if corners is not None else geometry.to_network(corners_of(box)))
    if mask is not None:
        mask = ObjectMask.of(mask.at(where))
    if keypoints is not None:
        keypoints = np.column_stack([geometry.to_network(keypoints[:, :2]), keypoints[:, 2]])
    return replace(each, box=box, corners=corners, mask=mask, keypoints=keypoints)


def annotations_of(value: Any, size: Size, original: Size | None = None) -> Annotations | None:
    """The annotations in a results dict, in packed data, or in a pair of image and target; None if there are none.

    Args:
        value: At some point of a pipeline, or what a dataset returned.
        size: ``(H, W)`` of the image there.
        original: ``(H, W)`` of the image as it was loaded; None: the same.
    """
    if isinstance(value, (tuple, list)):
        return _of_target(value[1], size) if len(value) == 2 else None
    if not isinstance(value, Mapping):
        return None
    if (packed := value.get('data_samples')) is not None:
        return _of_packed(packed, size)
    return (
        _of_results(value, size) or _of_instances(value.get('instances'), original or size) or _of_target(value, size)
    )


def _present(value: Mapping[str, Any], *keys: str) -> Any:
    return next((value[key] for key in keys if value.get(key) is not None), None)


def _of_results(value: Mapping[str, Any], size: Size) -> Annotations | None:
    """Of mmcv's, mmdet's, mmseg's and mmpose's pipelines, before packing."""
    boxes, masks = value.get('gt_bboxes'), value.get('gt_masks')
    keypoints = _present(value, 'transformed_keypoints', 'gt_keypoints', 'keypoints')
    seen = value.get('keypoints_visible')
    if boxes is None and keypoints is not None and 'transformed_keypoints' not in value:
        boxes = value.get('bbox')  # of mmpose, which crops later by other keys
    labels, ignored = _present(value, 'gt_bboxes_labels', 'gt_labels'), value.get('gt_ignore_flags')
    label_map = _label_map(_present(value, 'gt_seg_map', 'gt_semantic_seg'))
    if boxes is not None or masks is not None or keypoints is not None or label_map is not None:
        return Annotations(size, _objects(size, boxes, masks, keypoints, labels, ignored, seen=seen), label_map)
    return None


def _of_instances(instances: Any, size: Size) -> Annotations | None:
    """Of a dataset whose pipeline does not load its annotations: in pixels of the original."""
    if not isinstance(instances, (list, tuple)):
        return None
    objects = []
    for each in instances:
        box, keypoints = each.get('bbox'), each.get('keypoints')
        if box is None and each.get('mask') is None and keypoints is None:
            continue
        (made,) = _objects(
            size,
            None if box is None else [box],
            None if each.get('mask') is None else [each['mask']],
            None if keypoints is None else [np.reshape(np.asarray(keypoints, np.float64), (-1, 3))],
            [each.get('bbox_label', each.get('mask_label'))],
            [bool(each.get('ignore_flag'))],
        )
        objects.append(made)
    return Annotations(size, tuple(objects), of_original=True) if objects else None


def _of_packed(packed: Any, size: Size) -> Annotations | None:
    """Of OpenMMLab's data samples."""
    found: list[Annotation] = []
    known = False
    for name, ignored in (('gt_instances', False), ('ignored_instances', True)):
        each = getattr(packed, name, None)
        if each is None:
            continue
        boxes, masks = getattr(each, 'bboxes', None), getattr(each, 'masks', None)
        keypoints, labels = getattr(each, 'keypoints', None), getattr(each, 'labels', None)
        known = known or boxes is not None or masks is not None or keypoints is not None
        count = _count(boxes, masks, keypoints)
        found += _objects(size, boxes, masks, keypoints, labels, [ignored] * count)
    area = getattr(packed, 'gt_sem_seg', None)
    label_map = None if area is None else _label_map(_first(area, 'sem_seg', 'data'))
    return Annotations(size, tuple(found), label_map) if known or label_map is not None else None


def _first(owner: Any, *names: str) -> Any:
    return next((found for name in names if (found := getattr(owner, name, None)) is not None), None)


def _of_target(target: Any, size: Size) -> Annotations | None:
    """Of torchvision's detection and segmentation datasets, wrapped for its v2 transforms or not."""
    if is_label_map(target):
        return Annotations(size, (), _label_map(target))
    if isinstance(target, (list, tuple)):
        return _of_coco(target, size)
    if not isinstance(target, Mapping):
        return None
    if isinstance(target.get('annotation'), Mapping) and not any(key in target for key in ('boxes', 'masks')):
        return _of_voc(target['annotation'], size)
    boxes, masks = target.get('boxes'), target.get('masks')
    if boxes is None and masks is None:
        return None
    keypoints, labels, crowds = target.get('keypoints'), target.get('labels'), target.get('iscrowd')
    objects = _objects(size, boxes, masks, keypoints, labels, None, crowds)
    return Annotations(size, objects, from_one=True)


def _of_coco(target: Sequence[Any], size: Size) -> Annotations | None:
    """Of raw annotations: COCO's with left, top, width and height, or KITTI's with corners."""
    if not target or not all(isinstance(each, Mapping) and 'bbox' in each for each in target):
        return None
    objects = []
    for each in target:
        box = np.asarray(each['bbox'], np.float64).reshape(-1)
        corners = box if 'type' in each else np.concatenate([box[:2], box[:2] + box[2:]])
        mask, keypoints = each.get('segmentation'), each.get('keypoints')
        (made,) = _objects(
            size,
            [corners],
            [mask] if mask else None,
            None if keypoints is None else [np.reshape(np.asarray(keypoints, np.float64), (-1, 3))],
            [each.get('category_id', each.get('type'))],
            None,
            [bool(each.get('iscrowd'))],
        )
        objects.append(made)
    return Annotations(size, tuple(objects), from_one=True)


def _of_voc(record: Mapping[str, Any], size: Size) -> Annotations | None:
    listed = record.get('object') or []
    objects = []
    for each in listed if isinstance(listed, list) else [listed]:
        edges = each.get('bndbox') or {}
        if all(name in edges for name in ('xmin', 'ymin', 'xmax', 'ymax')):
            box = np.array([float(edges[name]) for name in ('xmin', 'ymin', 'xmax', 'ymax')])
            objects.append(Annotation(box, label=each.get('name'), ignored=str(each.get('difficult')) == '1'))
    return Annotations(size, tuple(objects)) if objects else None


def _count(*several: Any) -> int:
    return next((len(each) for each in several if each is not None), 0)


def _objects(
    size: Size,
    boxes: Any,
    masks: Any,
    keypoints: Any,
    labels: Any = None,
    ignored: Any = None,
    crowds: Any = None,
    seen: Any = None,
) -> tuple[Annotation, ...]:
    """Objects from lists that run side by side, any of which may be missing."""
    upright, corners = _boxes(boxes)
    bitmaps = _masks(masks, size)
    points = _keypoints(keypoints, seen)
    count = max(len(each) for each in (upright, bitmaps, points))
    ids, left_out, many = _flat(labels), _flat(ignored), _flat(crowds)
    return tuple(
        Annotation(
            _at(upright, k),
            _at(corners, k),
            _at(bitmaps, k),
            _at(points, k),
            _label(_at(ids, k)),
            bool(_at(left_out, k)),
            bool(_at(many, k)),
        )
        for k in range(count)
    )


def _at(listed: Sequence[Any], place: int) -> Any:
    return listed[place] if place < len(listed) else None


def _label(value: Any) -> int | str | None:
    if value is None or isinstance(value, str):
        return value
    number = float(value)
    return int(number) if number == number else None


def as_array(value: Any) -> NDArray[Any]:
    """A tensor on any device, a list or an array, as an array."""
    return np.asarray(value.detach().cpu().numpy() if hasattr(value, 'detach') else value)


def _flat(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else as_array(value).reshape(-1).tolist()


def _boxes(value: Any) -> tuple[list[Points], list[Points]]:
    """Upright boxes, and the corners of rotated ones.

    The columns are those of mmdet's and mmrotate's box classes, of tv_tensors in any format, or left, top, right,
    bottom.
    """
    if value is None or not len(value):
        return [], []
    form = str(getattr(getattr(value, 'format', None), 'name', 'XYXY'))
    if form.endswith('R'):  # rotated, in degrees
        from torchvision.transforms.v2.functional import convert_bounding_box_format

        value, form = convert_bounding_box_format(value, new_format='XYXYXYXY'), 'XYXY'
    columns = as_array(getattr(value, 'tensor', value)).astype(np.float64)
    columns = columns.reshape(len(columns), -1)
    if form == 'XYWH':
        columns = np.column_stack([columns[:, :2], columns[:, :2] + columns[:, 2:]])
    elif form == 'CXCYWH':
        columns = np.column_stack([columns[:, :2] - columns[:, 2:] / 2, columns[:, :2] + columns[:, 2:] / 2])
    if columns.shape[1] == 5 and 'otated' in type(value).__name__:
        corners = [_turned(*each) for each in columns.tolist()]
    elif columns.shape[1] == 8:
        corners = list(columns.reshape(-1, 4, 2))
    else:
        return list(columns[:, :4]), []
    return [hull(each) for each in corners], corners


def _turned(x: float, y: float, width: float, height: float, angle: float) -> Points:
    """The corners of a box about a center, turned by an angle in radians that looks clockwise."""
    cos, sin = np.cos(angle), np.sin(angle)
    half = np.array([[-width, -height], [width, -height], [width, height], [-width, height]]) / 2
    return np.asarray(half @ np.array([[cos, sin], [-sin, cos]]) + [x, y])


def _masks(value: Any, size: Size) -> list[ObjectMask | None]:
    """Masks in any container: mmdet's bitmaps and polygons, tensors, and lists of polygons or run lengths."""
    if value is None:
        return []
    height, width = getattr(value, 'height', None), getattr(value, 'width', None)
    size = size if height is None or width is None else (int(height), int(width))
    return [_mask(each, size) for each in getattr(value, 'masks', value)]


def _mask(mask: Any, size: Size) -> ObjectMask | None:
    if isinstance(mask, Mapping):
        height, width = mask['size']
        return ObjectMask.of(rle_mask(mask, (int(height), int(width))))
    if isinstance(mask, (list, tuple)):
        return ObjectMask.of(polygon_mask([part for part in mask if len(part) >= 6], size))
    values = as_array(mask)
    if values.ndim not in (2, 3):
        raise InputError(f'a mask with {counted(values.ndim, "axis", "axes")}', accepted='height and width')
    return ObjectMask.of(values.reshape(values.shape[-2:]) if values.ndim == 3 else values)


def _keypoints(value: Any, seen: Any) -> list[Points]:
    if value is None:
        return []
    found = as_array(value).astype(np.float64) if not isinstance(value, list) else np.stack(value)
    found = found[None] if found.ndim == 2 else found
    if found.shape[-1] == 2:
        visible = np.full(found.shape[:2], 2.0)
        if seen is not None:
            visible = 2.0 * (as_array(seen).reshape(*found.shape[:2], -1)[..., 0] > 0)
        found = np.concatenate([found, visible[..., None]], axis=2)
    return list(found)


def is_label_map(target: Any) -> bool:
    """Whether a target is a label map: a tv_tensors Mask with two axes, or a PIL image of indices."""
    if type(target).__name__ == 'Mask':
        return target.ndim == 2 or (target.ndim == 3 and len(target) == 1)
    return getattr(target, 'mode', None) in ('P', 'L') and hasattr(target, 'getbands')


def _label_map(value: Any) -> NDArray[np.int64] | None:
    if value is None:
        return None
    values = as_array(value)
    values = values.reshape(values.shape[-2:]) if values.ndim == 3 and values.shape[0] == 1 else values
    return values.astype(np.int64) if values.ndim == 2 and values.dtype.kind in 'iub' else None


def classes_in(annotations: Annotations | None) -> tuple[int, ...]:
    """The class ids of objects, or of a label map, each once."""
    if annotations is None:
        return ()
    found: Iterable[Any] = annotations.labels
    if annotations.label_map is not None and not annotations.objects:
        found = [each for each in np.unique(annotations.label_map).tolist() if each != annotations.ignore_index]
    return tuple(sorted({each for each in found if isinstance(each, int)}))
