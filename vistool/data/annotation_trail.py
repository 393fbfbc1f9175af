"""The annotations of one sample on their way through a pipeline, and what each step did to the picture under them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vistool.data.annotations import Annotations, annotations_of
from vistool.data.geometry import GeometricStep, Geometry, Size
from vistool.errors import message_of


@dataclass(frozen=True, eq=False)
class Stage:
    """The annotations after one step.

    Attributes:
        step: The transform's name; ``''`` as they were loaded.
        annotations: After it.
        before: Before it; None where the step did not have to move them.
        moved: What the step did to the pixel grid; None likewise.
    """

    step: str
    annotations: Annotations
    before: Annotations | None = None
    moved: GeometricStep | None = None


class Trail:
    """Reads the annotations after every step of one sample.

    Annotations that are loaded after the image was moved are in pixels of the original: mmdet's and mmseg's test
    pipelines load them last, since predictions are scored there. They are moved to the picture here.

    Attributes:
        now: The annotations of the image as it is now; None without any.
        original: Those of the loaded image, where they were not loaded together with it.
        stages: What there is to check.
        unread: Why annotations could not be read; ``''`` where they could.
    """

    def __init__(self) -> None:
        self.now: Annotations | None = None
        self.original: Annotations | None = None
        self.stages: list[Stage] = []
        self.unread = ''
        self._loaded = self._late = False

    def take(
        self,
        name: str,
        value: Any,
        size: Size,
        step: GeometricStep | None = None,
        geometry: Geometry | None = None,
        mixes: bool = False,
    ) -> bool:
        """Reads the annotations that ``value`` holds after a step.

        Args:
            name: Of the step.
            value: What the step returned.
            size: ``(H, W)`` of its image.
            step: What it did to the pixel grid, where that is known.
            geometry: From the image to the loaded one, where that is known.
            mixes: Whether the step adds parts of other images.

        Returns:
            Whether this step loaded annotations for a picture that was already there.
        """
        packed = value.get('data_samples') if isinstance(value, Mapping) else None
        if getattr(packed, 'gt_instance_labels', None) is not None:
            return False  # MMPose packs keypoints and boxes of the original; those of the step before hold
        try:
            found = annotations_of(value, size, None if geometry is None else geometry.original_size)
        except Exception as error:  # the data may hold anything
            self.unread = self.unread or message_of(error)
            found = None
        if found is None:
            self.now = None
            return False
        appears = not found.of_original and not self._loaded
        if appears:
            self._loaded, self._late = True, geometry is not None and _has_moved(geometry)
        if geometry is not None and (found.of_original or self._late):
            self._place(replace(found, size=geometry.original_size), geometry, appears)
            return appears
        before, self.now = self.now, found
        if appears or not self.stages:
            self.original, self.stages = None, [Stage('', found)]
        else:
            known = step is not None and step.exact and not mixes and before is not None
            self.stages.append(Stage(name, found, before if known else None, step if known else None))
        return appears

    def _place(self, found: Annotations, geometry: Geometry, appears: bool) -> None:
        """Lays annotations of the original over the image as it is now."""
        if self.original is None or appears:
            self.original, self.stages = found, [Stage('', found)]
        self.now = (found.seen_by(geometry) if _has_moved(geometry) else found) if geometry.exact else None

    def fork(self) -> Trail:
        """The same trail, for one of several images that are made from here on."""
        other = Trail()
        other.__dict__.update(self.__dict__)
        other.stages = list(self.stages)
        return other


def _has_moved(geometry: Geometry) -> bool:
    if geometry.network_size != geometry.original_size or geometry.field is not None:
        return True
    return not np.allclose(geometry.matrix, np.eye(3), atol=1e-9)
