"""Boxes, masks, keypoints and label maps drawn on the picture that they belong to, in a color for each class."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from vistool.data.annotations import Annotation, Annotations, ObjectMask, Points, corners_of
from vistool.data.datasets import class_name
from vistool.visualization import text as fonts
from vistool.visualization.raster import resize_image
from vistool.visualization.scene import BLACK, WHITE, Box, Color, PathItem, Pixels, TextItem
from vistool.visualization.style import Page
from vistool.visualization.table import Drawn

# Neighbors are far apart in hue, and all are seen on photos, where gray and brown are not.
_COLORS: tuple[Color, ...] = (
    (230, 25, 75), (0, 130, 200), (60, 180, 75), (245, 130, 48), (145, 30, 180), (0, 190, 200), (240, 50, 230),
    (128, 160, 0), (255, 190, 0), (0, 128, 128), (170, 110, 40), (70, 90, 255),
)  # fmt: skip
_UNLABELED: Color = (255, 214, 0)
_TINT = {True: 0.5, False: 0.4}  # how much of a label map's color, and of a mask's, covers the photo
_SMALL = 24.0  # boxes narrower than this, in thin lines, get thinner lines
_LEAST = 5.0  # and are drawn at least this large, around their center
_DASH = 5.0, 4.0  # drawn and left out, in thin lines
_MOST_NAMES = 8  # classes of a label map whose name is written on it
_NAMED = 0.01  # of the image's area: a smaller class is not named
_LONGEST_NAME = 22
_Room: TypeAlias = tuple[float, float, float, float]


def class_color(label: int | str | None, palette: Sequence[Color] = ()) -> Color:
    """The color of a class: the dataset's own, else one that depends on its id or name alone."""
    if label is None:
        return _UNLABELED
    number = label if isinstance(label, int) else sum(label.encode())
    own = palette[number] if isinstance(label, int) and 0 <= number < len(palette) else None
    return own if own is not None and sum(own) > 0 else _COLORS[number % len(_COLORS)]


@dataclass(frozen=True, eq=False)
class AnnotationDrawing(Drawn):
    """The annotations of one picture: its masks are painted on it, the rest is drawn over it.

    Attributes:
        annotations: What to draw, in pixels of the picture.
        classes: Names by id; None without names.
        palette: Colors by id, for label maps; those of objects must be seen on photos, and many datasets' are dark.
        skeleton: Pairs of keypoints that are joined by a line.
    """

    annotations: Annotations
    classes: tuple[str, ...] | None = None
    palette: tuple[Color, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()

    def paint(self, pixels: Pixels, size: tuple[int, int]) -> Pixels:
        """The picture at ``(height, width)`` pixels under its translucent label map and masks.

        What is ignored, and crowds, are hatched.
        """
        drawn = resize_image(pixels, size)
        if self.annotations.label_map is not None:
            drawn = self._with_label_map(drawn, self.annotations.label_map)
        for each in self._by_area():
            if each.mask is not None:
                drawn = _with_mask(drawn, each.mask, class_color(each.label), _is_dashed(each))
        return drawn

    def _with_label_map(self, drawn: Pixels, label_map: NDArray[np.int64]) -> Pixels:
        values = _resized(label_map, drawn.shape[:2])
        colors, known = drawn.astype(np.float32), values != self.annotations.ignore_index
        for label in np.unique(values[known]).tolist():
            if self._is_background(label):
                continue  # most of many images, which would all be tinted
            inside = values == label
            colors[inside] = _mixed(colors[inside], class_color(label, self.palette), _TINT[True])
        colors[~known & _hatch(drawn.shape[:2])] *= 0.4
        return np.rint(colors).astype(np.uint8)

    def items(self, box: Box, page: Page) -> Iterator[PathItem | TextItem]:
        """Outlines and keypoints of the objects, the smallest last, and names where there is room."""
        thin = 0.5 if page.paper else 1.0
        height, width = self.annotations.size
        scale = np.array([box.width / width, box.height / height])
        start = np.array([box.x, box.y])
        taken: list[_Room] = []
        names: list[TextItem] = []
        for each in self._by_area():
            color = class_color(each.label)
            corners = _corners(each)
            if corners is not None:
                corners = start + _large_enough(corners * scale, _LEAST * thin)
                yield from _outline(corners, color, _is_dashed(each), box, thin)
            if each.keypoints is not None:
                points = start + each.keypoints[:, :2] * scale
                yield from _bones(points, each.keypoints[:, 2], self.skeleton, color, box, thin)
                yield from _dots(start + each.keypoints[:, :2] * scale, each.keypoints[:, 2], color, box, thin)
        for each in reversed(self._by_area()):  # small objects choose first
            corners = _corners(each)
            if corners is not None and (name := self._name(each)):
                names += _placed(name, start + corners * scale, class_color(each.label), taken, box, page)
        yield from names
        if self.annotations.label_map is not None:
            yield from self._class_names(self.annotations.label_map, box, page)

    def _by_area(self) -> list[Annotation]:
        """The objects, the largest first."""

        def area(each: Annotation) -> float:
            extent = each.extent
            return 0.0 if extent is None else float(np.nan_to_num((extent[2:] - extent[:2]).prod()))

        return sorted(self.annotations.objects, key=area, reverse=True)

    def _is_background(self, label: int) -> bool:
        return class_name(label, self.classes).lower() == 'background'

    def _name(self, each: Annotation) -> str:
        if each.label is None:
            return 'ignored' if each.ignored else 'crowd' if each.crowd else ''
        text = each.label if isinstance(each.label, str) else class_name(each.label, self.classes)
        text = text if len(text) <= _LONGEST_NAME else f'{text[: _LONGEST_NAME - 1]}…'
        return f'{text} (crowd)' if each.crowd else f'{text} (ignored)' if each.ignored else text

    def _class_names(self, label_map: NDArray[np.int64], box: Box, page: Page) -> Iterator[TextItem]:
        """Names of the largest classes, each in the thickest part of its area."""
        stride = max(1, max(label_map.shape) // 256)
        coarse = label_map[::stride, ::stride]
        found, counts = np.unique(coarse, return_counts=True)
        ranked = sorted(zip(counts.tolist(), found.tolist(), strict=True), reverse=True)
        for count, label in ranked[:_MOST_NAMES]:
            if label == self.annotations.ignore_index or self._is_background(label) or count < _NAMED * coarse.size:
                continue
            inside = np.pad(coarse == label, 1).astype(np.uint8)
            depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
            row, column = np.unravel_index(int(depth.argmax()), depth.shape)
            name = class_name(label, self.classes)
            size = page.small_font
            half = fonts.text_width(name, size) / 2
            x = box.x + (int(column) + 0.5) / coarse.shape[1] * box.width
            y = box.y + (int(row) + 0.5) / coarse.shape[0] * box.height
            if 2 * half < box.width:
                x = min(max(x, box.x + half + 2), box.right - half - 2)
                y = min(max(y, box.y + size), box.bottom - size)
                yield TextItem(x, y + 0.36 * size, name, size, WHITE, 'center', halo=BLACK)


def _is_dashed(each: Annotation) -> bool:
    return each.ignored or each.crowd


def _corners(each: Annotation) -> Points | None:
    """The corners of its outline; None where it has no box that can be drawn."""
    if each.corners is not None:
        return each.corners if np.isfinite(each.corners).all() else None
    extent = each.extent
    return None if extent is None or not np.isfinite(extent).all() else corners_of(extent)


def _large_enough(corners: Points, least: float) -> Points:
    """Corners of at least this width and height, about the same center."""
    center = corners.mean(0)
    half = np.maximum(np.abs(corners - center).max(0), 1e-6)
    return np.asarray(center + (corners - center) * np.maximum(1.0, least / 2 / half))


def _outline(corners: Points, color: Color, dashed: bool, clip: Box, thin: float) -> Iterator[PathItem]:
    """A closed line with a dark rim; of ignored objects in dashes."""
    small = float(np.ptp(corners, 0).min()) < _SMALL * thin
    rim, width = (2.2 * thin, 1.2 * thin) if small else (3.2 * thin, 1.8 * thin)
    clip_points = [np.clip(corners, -1e5, 1e5)]
    lines = _dashes(clip_points[0], thin, clip) if dashed else clip_points
    for line in lines:
        points = tuple((float(x), float(y)) for x, y in line)
        yield PathItem(points, BLACK, rim, clip)
        yield PathItem(points, color, width, clip)


def _dashes(corners: Points, thin: float, clip: Box) -> list[Points]:
    """The sides of a closed line cut into dashes, as far as they are near the tile."""
    on, off = _DASH[0] * thin, _DASH[1] * thin
    dashes = []
    low = np.array([clip.x, clip.y]) - on
    high = np.array([clip.right, clip.bottom]) + on
    for start, end in zip(corners, np.roll(corners, -1, 0), strict=True):
        length = float(np.hypot(*(end - start)))
        if not length:
            continue
        for at in np.arange(0, min(length, 1e4), on + off):
            ends = np.array([start + (end - start) * min(part, length) / length for part in (at, at + on)])
            if (ends >= low).all() and (ends <= high).all():
                dashes.append(ends)
    return dashes


def _bones(
    points: Points,
    seen: NDArray[np.float64],
    skeleton: Sequence[tuple[int, int]],
    color: Color,
    clip: Box,
    thin: float,
) -> Iterator[PathItem]:
    """Lines between keypoints that are both labeled; a link to a keypoint that does not exist is left out."""
    labeled = (seen > 0) & np.isfinite(points).all(1)
    for first, second in skeleton:
        if max(first, second) < len(points) and min(first, second) >= 0 and labeled[first] and labeled[second]:
            (x1, y1), (x2, y2) = points[[first, second]].tolist()
            yield PathItem(((x1, y1), (x2, y2)), BLACK, 2.4 * thin, clip)
            yield PathItem(((x1, y1), (x2, y2)), color, 1.4 * thin, clip)


def _dots(points: Points, seen: NDArray[np.float64], color: Color, clip: Box, thin: float) -> Iterator[PathItem]:
    """Keypoints: full dots where they are visible, rings where they are hidden, none where they are not labeled."""
    angles = np.linspace(0, 2 * math.pi, 13)[:-1]
    for (x, y), visible in zip(points.tolist(), seen.tolist(), strict=True):
        if not (visible > 0 and math.isfinite(x) and math.isfinite(y)):
            continue
        radius = 1.2 * thin if visible > 1 else 2.4 * thin
        circle = tuple((x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles)
        yield PathItem(circle, WHITE, (4.4 if visible > 1 else 2.6) * thin, clip)
        yield PathItem(circle, color, (2.6 if visible > 1 else 1.2) * thin, clip)


def _placed(name: str, corners: Points, color: Color, taken: list[_Room], box: Box, page: Page) -> Iterator[TextItem]:
    """A name above, in, or below its box, where it covers no other; none where there is no such place."""
    size = page.small_font
    width, height = fonts.text_width(name, size) + 0.4 * size, 1.15 * size
    left, top = corners.min(0)
    right, bottom = corners.max(0)
    if right < box.x or bottom < box.y or left > box.right or top > box.bottom or width > box.width:
        return
    x = float(min(max(left, box.x), box.right - width))
    rows = [top - height, bottom, max(top, box.y), bottom - height]
    inside = width <= right - left and height <= bottom - top
    for y in rows if inside else rows[:2]:
        room = (x, float(y), x + width, float(y) + height)
        if y < box.y or room[3] > box.bottom or any(_overlap(room, other) for other in taken):
            continue
        taken.append(room)
        ink = WHITE if np.dot(color, (0.3, 0.59, 0.11)) < 150 else BLACK
        yield TextItem(x + 0.2 * size, float(y) + 0.85 * size, name, size, ink, ground=color)
        return


def _overlap(one: _Room, other: _Room) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _with_mask(drawn: Pixels, mask: ObjectMask, color: Color, hatched: bool) -> Pixels:
    """A picture with one object tinted, and the rim of the object in full color."""
    height, width = drawn.shape[:2]
    if not mask.inside.size:
        return drawn
    rows, at_row = _covered(mask.top, mask.inside.shape[0], height / mask.size[0], height)
    columns, at_column = _covered(mask.left, mask.inside.shape[1], width / mask.size[1], width)
    if not len(rows) or not len(columns):
        return drawn
    inside = mask.inside[np.ix_(at_row, at_column)]
    inner = cv2.erode(np.pad(inside, 1).astype(np.uint8), np.ones((3, 3), np.uint8))[1:-1, 1:-1] > 0
    part = np.ix_(rows, columns)
    colors = drawn[part].astype(np.float32)
    stripes = _hatch(inside.shape) if hatched else np.ones(inside.shape, np.bool_)
    tinted = inside & stripes
    colors[tinted] = _mixed(colors[tinted], color, _TINT[False])
    rim = inside & ~inner & stripes
    colors[rim] = color
    drawn = drawn.copy()
    drawn[part] = np.rint(colors).astype(np.uint8)
    return drawn


def _covered(start: int, count: int, scale: float, most: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The pixels of a picture whose centers show ``count`` mask pixels from ``start`` on, and which each shows."""
    pixels = np.arange(max(0, math.floor(start * scale)), min(most, math.ceil((start + count) * scale)), dtype=np.intp)
    shown = np.floor((pixels + 0.5) / scale - start).astype(np.intp)
    keep = (shown >= 0) & (shown < count)
    return pixels[keep], shown[keep]


def _mixed(colors: NDArray[np.float32], color: Color, share: float) -> NDArray[np.float32]:
    return np.asarray(colors * (1 - share) + share * np.array(color, np.float32), np.float32)


def _hatch(size: tuple[int, int]) -> NDArray[np.bool_]:
    """Diagonal stripes."""
    return np.add.outer(np.arange(size[0]), np.arange(size[1])) // 3 % 3 == 0


def _resized(values: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.int64]:
    rows = (np.arange(size[0]) + 0.5) * values.shape[0] / size[0]
    columns = (np.arange(size[1]) + 0.5) * values.shape[1] / size[1]
    return values[np.ix_(rows.astype(np.intp), columns.astype(np.intp))]
