"""What is wrong with a sample's annotations: in themselves, and after steps that move the picture but not them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vistool.data.annotation_trail import Stage, Trail
from vistool.data.annotations import Annotation, Annotations, Points, corners_of, hull, nearest
from vistool.data.geometry import GeometricStep, Geometry, field_at, transform
from vistool.errors import counted

OUTSIDE = 1.0
"""A box may reach so many pixels beyond its image: some data count the last pixel, others the edge after it."""
LOOSE = 4.0
"""A mask may end so many pixels inside or outside its box."""
STRAY = 2.0
"""A box may be so many pixels, and this many output pixels of the step, from where its image went."""
_LEAST_SEEN, _LEAST_SHARE = 50, 0.8
_MOST_PROBES = 300_000


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        kind: What: the same words for the same fault.
        text: What and where, in words.
        step: The transform after which it was found; ``''`` as loaded.
    """

    kind: str
    text: str
    step: str = ''

    def __str__(self) -> str:
        return f'after {self.step}: {self.text}' if self.step else self.text


def check(trail: Trail, classes: int | None = None) -> tuple[Fault, ...]:
    """All faults of a sample, each kind where it is first seen.

    Annotations are checked as they were loaded and at the end of the pipeline, since a step may leave empty boxes that
    a later one removes. Whether boxes follow their image is checked after each step.

    Args:
        trail: The sample's annotations after each step.
        classes: How many classes there are; None where that is not known.
    """
    faults = [Fault('unreadable', f'the annotations cannot be read: {trail.unread}')] if trail.unread else []
    if not trail.stages:
        return tuple(faults)
    faults += static_faults(trail.stages[0].annotations, classes)
    known = {fault.kind for fault in faults}
    for stage in trail.stages[1:]:
        if stage.before is not None and stage.moved is not None and 'does not follow' not in known:
            faults += strays(stage, stage.before, stage.moved)
            known |= {fault.kind for fault in faults}
    if len(trail.stages) > 1:
        last = static_faults(trail.stages[-1].annotations, classes, loaded=False)
        new = [fault for fault in last if fault.kind not in known]
        steps = {kind: _since(trail.stages, kind, classes) for kind in {fault.kind for fault in new}}
        faults += [replace(fault, step=steps[fault.kind]) for fault in new]
    return tuple(faults)


def _since(stages: Sequence[Stage], kind: str, classes: int | None) -> str:
    """The step after which a fault that lasts to the end was there."""
    step = stages[-1].step
    for stage in reversed(stages[1:]):
        if all(fault.kind != kind for fault in static_faults(stage.annotations, classes, loaded=False)):
            break
        step = stage.step
    return step


def static_faults(annotations: Annotations, classes: int | None = None, loaded: bool = True) -> list[Fault]:
    """What is wrong with annotations in themselves.

    Args:
        annotations: Of one image.
        classes: How many classes there are; None where that is not known.
        loaded: Whether they are as they were loaded: later, boxes may reach beyond their image, masks may fill a part
            of their box, and one image may be mixed in twice.
    """
    faults: list[Fault] = []
    for place, each in enumerate(annotations.objects):
        for kind, text in _of_object(each, annotations, classes, loaded):
            faults.append(Fault(kind, f'object {place}: {text}'))
    faults += [Fault('duplicate', text) for text in _duplicates(annotations.objects)] if loaded else []
    faults += _of_label_map(annotations, classes)
    return faults


Found = Iterator[tuple[str, str]]


def _of_object(each: Annotation, annotations: Annotations, classes: int | None, loaded: bool) -> Found:
    if each.box is not None:
        yield from _of_box(each.box, annotations.size, loaded)
    if isinstance(each.label, int) and not each.ignored:
        yield from _of_label(each.label, classes, annotations.from_one)
    if each.mask is not None:
        yield from _of_mask(each, annotations, loaded)
    if each.keypoints is not None and loaded:
        yield from _of_keypoints(each.keypoints, annotations.size)


def _of_box(box: Points, size: tuple[int, int], loaded: bool) -> Found:
    left, top, right, bottom = box
    text = _numbers(box)
    height, width = size
    if not np.isfinite(box).all():
        yield 'not finite', f'the box {text} has edges that are not numbers'
    elif right < left or bottom < top:
        yield 'swapped corners', f'the box {text} ends before it begins'
    elif right == left or bottom == top:
        yield 'no area', f'the box {text} has no area'
    elif right <= 0 or bottom <= 0 or left >= width or top >= height:
        yield 'outside', f'the box {text} lies outside the image of {width}×{height}'
    elif loaded and (min(left, top) < -OUTSIDE or right > width + OUTSIDE or bottom > height + OUTSIDE):
        yield 'beyond the image', f'the box {text} reaches beyond the image of {width}×{height}'


def _of_label(label: int, classes: int | None, from_one: bool) -> Found:
    if label < 0 or (classes is not None and label >= classes + from_one):
        known = '' if classes is None else f', the classes are 0 to {classes - 1 + from_one}'
        yield 'label', f'the label is {label}{known}'


def _of_mask(each: Annotation, annotations: Annotations, loaded: bool) -> Found:
    assert each.mask is not None
    (h, w), (height, width) = each.mask.size, annotations.size
    if (h, w) != (height, width):
        yield 'mask of another size', f'the mask has {w}×{h} pixels, the image {width}×{height}'
        return
    if not loaded:
        return  # crops leave parts that no longer fill their box, and corners of boxes without a pixel
    tight = each.mask.box
    if tight is None:
        yield 'empty mask', 'the mask is empty'
        return
    if each.box is None or each.corners is not None or not _has_area(each.box):
        return
    clipped = np.clip(each.box, 0, [width, height, width, height])
    if not _has_area(clipped):
        return
    apart = np.abs(clipped - tight)
    slack = np.maximum(LOOSE, 0.1 * np.tile(clipped[2:] - clipped[:2], 2))
    if (apart > slack).any():
        yield 'mask and box', f'the mask fills {_numbers(tight)}, the box is {_numbers(each.box)}'


def _of_keypoints(keypoints: Points, size: tuple[int, int]) -> Found:
    height, width = size
    x, y, seen = keypoints.T
    labeled = seen > 0
    if not np.isfinite(keypoints[labeled]).all():
        yield 'not finite', 'a keypoint is not a number'
        return
    beyond = labeled & ((x < -OUTSIDE) | (y < -OUTSIDE) | (x > width + OUTSIDE) | (y > height + OUTSIDE))
    for place in np.flatnonzero(beyond)[:1]:
        where = f'({x[place]:.4g}, {y[place]:.4g})'
        yield 'keypoint outside', f'keypoint {place} at {where} lies outside the image of {width}×{height}'


def _duplicates(objects: Sequence[Annotation]) -> Iterator[str]:
    """Objects of one class whose boxes are the same; of those without a box, the boxes of their masks."""
    seen: dict[object, int] = {}
    for place, each in enumerate(objects):
        box = each.extent
        if box is None or not np.isfinite(box).all() or each.crowd:
            continue
        mask = b'' if each.mask is None else each.mask.inside.tobytes()
        points = b'' if each.keypoints is None else each.keypoints.tobytes()
        corners = b'' if each.corners is None else np.round(each.corners, 1).tobytes()
        key = (each.label, tuple(np.round(box, 1).tolist()), mask, points, corners)
        if key in seen:
            yield f'objects {seen[key]} and {place} are the same: {_numbers(box)}'
        else:
            seen[key] = place


def _of_label_map(annotations: Annotations, classes: int | None) -> list[Fault]:
    values = annotations.label_map
    if values is None:
        return []
    faults = []
    (h, w), (height, width) = values.shape, annotations.size
    if (h, w) != (height, width):
        faults.append(
            Fault('label map of another size', f'the label map has {w}×{h} pixels, the image {width}×{height}')
        )
    found = [int(each) for each in np.unique(values) if each != annotations.ignore_index]
    wrong = [each for each in found if each < 0 or (classes is not None and each >= classes)]
    if wrong:
        listed = ', '.join(map(str, wrong[:4])) + (' …' if len(wrong) > 4 else '')
        known = f'the classes are 0 to {classes - 1}' if classes is not None else 'classes start from 0'
        faults.append(Fault('label', f'the label map has pixels of {listed}; {known}'))
    if not found and values.size:
        faults.append(Fault('empty label map', 'the label map has no pixel of any class'))
    return faults


def _numbers(values: Points) -> str:
    return f'({", ".join(f"{value:.5g}" for value in values)})'


# --- whether annotations follow their image ---------------------------------------------------------------------------


def strays(stage: Stage, before: Annotations, moved: GeometricStep) -> list[Fault]:
    """Annotations that are not where a step moved the image under them.

    Objects may be dropped, clipped, and made smaller, as boxes around cropped masks are. Where a step adds objects,
    they come from elsewhere, and nothing is compared.

    Args:
        stage: The annotations after the step.
        before: Before it.
        moved: What it did to the pixel grid.
    """
    after = stage.annotations
    if after.label_map is not None and before.label_map is not None:
        lost = _map_strays(before.label_map, after.label_map, moved, after.ignore_index)
        if lost:
            return [Fault('does not follow', lost, stage.step)]
    if not 0 < len(after.objects) <= len(before.objects):
        return []
    forward = Geometry.identity(moved.before).then(moved).to_network
    slack = STRAY + _pixel(moved)
    for what, is_at in (('box', _box_is_at), ('keypoints', _keypoints_are_at)):
        lost_places = _lost(before, after, partial(is_at, forward=forward, moved=moved, slack=slack))
        if lost_places:
            return [Fault('does not follow', _stray_text(what, lost_places, len(after.objects)), stage.step)]
    if all(each.mask is None for each in after.objects):
        return []
    probes = _probes(moved, len(after.objects))
    lost_places = _lost(before, after, partial(_mask_is_at, after=probes[0], was=probes[1]))
    if lost_places:
        return [Fault('does not follow', _stray_text('mask', lost_places, len(after.objects)), stage.step)]
    return []


def _stray_text(what: str, places: Sequence[int], count: int) -> str:
    verb = 'do' if what == 'keypoints' else 'does'
    if len(places) > 1:
        what = {'box': 'boxes', 'mask': 'masks'}.get(what, what)
        return f'the {what} of {len(places)} of {counted(count, "object")} do not follow the image'
    return f'the {what} of object {places[0]} {verb} not follow the image'


def _lost(before: Annotations, after: Annotations, fits: Callable[[Annotation, Annotation], bool]) -> list[int]:
    """The objects after a step that fit none from before; in their order where none was dropped."""
    if len(before.objects) == len(after.objects) and before.labels == after.labels:
        pairs = zip(before.objects, after.objects, strict=True)
        return [place for place, (old, new) in enumerate(pairs) if not fits(old, new)]
    lost = []
    for place, new in enumerate(after.objects):
        if not any(fits(old, new) for old in before.objects if old.label == new.label):
            lost.append(place)
    return lost


def _pixel(moved: GeometricStep) -> float:
    """The size of an input pixel in output pixels, at least 1."""
    return max(1.0, 1.0 / max(1e-6, abs(float(np.linalg.det(moved.matrix[:2, :2]))) ** 0.5))


def _box_is_at(
    old: Annotation, new: Annotation, forward: Callable[[Points], Points], moved: GeometricStep, slack: float
) -> bool:
    """Whether a box lies in the hull of where its corners went, and fills it where nothing but the grid moved it."""
    if not (_has_area(old.box) and _has_area(new.box)):
        return True  # said of the box itself, or it waits for a later step that removes it
    assert old.box is not None and new.box is not None
    corners = old.corners if old.corners is not None else corners_of(old.box)
    whole = hull(forward(corners))
    height, width = moved.after
    clipped = np.clip(whole, 0, [width, height, width, height])
    if not any(_is_within(new.box, place, slack) for place in (whole, clipped)):
        return False
    upright = moved.field is None and moved.matrix[0, 1] == 0 == moved.matrix[1, 0]
    if not upright or old.mask is not None or old.corners is not None:
        return True
    return bool((np.abs(new.box - whole) <= slack).all() or (np.abs(new.box - clipped) <= slack).all())


def _has_area(box: Points | None) -> bool:
    return box is not None and bool(np.isfinite(box).all() and (box[2:] > box[:2]).all())


def _is_within(box: Points, other: Points, slack: float) -> bool:
    return bool((box[:2] >= other[:2] - slack).all() and (box[2:] <= other[2:] + slack).all())


def _keypoints_are_at(
    old: Annotation, new: Annotation, forward: Callable[[Points], Points], moved: GeometricStep, slack: float
) -> bool:
    """Whether each keypoint lies where one of the object's went: flips exchange left and right."""
    if old.keypoints is None or new.keypoints is None or len(old.keypoints) != len(new.keypoints):
        return True
    there, here = old.keypoints[old.keypoints[:, 2] > 0, :2], new.keypoints[new.keypoints[:, 2] > 0, :2]
    if not len(there) or not len(here) or not np.isfinite(there).all():
        return True
    went = forward(there)
    height, width = moved.after
    clipped = np.clip(went, 0, [width, height])
    for place in (went, clipped):
        distance = np.abs(here[:, None] - place[None]).max(2).min(1)
        if (distance <= slack).all():
            return True
    return False


def _probes(moved: GeometricStep, count: int) -> tuple[Points, Points]:
    """Points of the image after a step, and where they were before: pixel centers, fewer where objects are many."""
    height, width = moved.after
    stride = max(1, int(np.ceil((height * width * count / _MOST_PROBES) ** 0.5)))
    x, y = np.meshgrid(np.arange(0, width, stride) + 0.5, np.arange(0, height, stride) + 0.5)
    after = np.stack([x, y], axis=-1)
    return after, _was(moved, after)


def _was(moved: GeometricStep, after: Points) -> Points:
    """Where points were before a step; far outside where they show nothing of it."""
    if moved.field is None:
        return transform(moved.matrix, after)
    found = field_at(moved.field, after, moved.matrix)
    found[np.isnan(nearest(moved.field[..., 0], after))] = -1e6
    return found


def _mask_is_at(old: Annotation, new: Annotation, after: Points, was: Points) -> bool:
    """Whether two masks of an object overlap by half once one is moved as the image was."""
    if old.mask is None or new.mask is None or (new.box is not None and not _has_area(new.box)):
        return True
    here, there = new.mask.at(after), old.mask.at(was)
    both, either = int((here & there).sum()), int((here | there).sum())
    return min(int(here.sum()), int(there.sum())) < _LEAST_SEEN or both >= 0.5 * either


def _map_strays(old: NDArray[np.int64], new: NDArray[np.int64], moved: GeometricStep, ignored: int) -> str:
    """Whether a label map shows other classes than those that were there.

    Compared are the insides of areas of one class, for each class, as the background is much of most images. What a
    step ignores from then on does not count.
    """
    if new.shape != moved.after or old.shape != moved.before:
        return ''
    after, was = _probes(moved, 1)
    height, width = old.shape
    inside = (was[..., 0] > 1) & (was[..., 0] < width - 1) & (was[..., 1] > 1) & (was[..., 1] < height - 1)
    expected = nearest(old, was)
    here = nearest(new, after)
    same = np.ones(expected.shape, np.bool_)
    for axis in (0, 1):
        for side in (1, -1):
            same &= np.roll(expected, side, axis) == expected
    inner = inside & same
    if moved.erased is not None:
        inner &= ~nearest(moved.erased, after)
    inner &= here != ignored
    for label in np.unique(expected[inner]).tolist():
        area = inner & (expected == label)
        share = float((here == label)[area].mean())
        if int(area.sum()) >= _LEAST_SEEN and share < _LEAST_SHARE:
            return f'the label map does not follow the image: {1 - share:.0%} of class {label} is elsewhere'
    return ''
