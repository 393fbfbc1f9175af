"""COCO's annotation files as they are written, to see what a dataset leaves out of them without a word.

MMDetection's datasets drop objects without an area, outside of their image, or of an unknown category.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vistool.data.annotation_checks import Fault, static_faults
from vistool.data.annotations import annotations_of

_TOLERANCE = 2  # digits after the point in which boxes of one object agree


@dataclass(frozen=True, eq=False)
class CocoFile:
    """The objects of a file by image.

    Attributes:
        objects: Image id → its annotations.
        categories: The ids that the file describes.
    """

    objects: Mapping[Any, list[Mapping[str, Any]]]
    categories: frozenset[Any]

    @classmethod
    def of(cls, dataset: Any) -> CocoFile | None:
        """The file that a dataset was read from; None where it has none, or the file has another form."""
        path = Path(os.path.expanduser(str(getattr(dataset, 'ann_file', '') or '')))
        if path.suffix != '.json' or not path.is_file():
            return None
        try:
            record = json.loads(path.read_bytes())
            objects = defaultdict(list)
            for each in record['annotations']:
                objects[each['image_id']].append(each)
            return cls(objects, frozenset(each['id'] for each in record['categories']))
        except (ValueError, KeyError, TypeError):
            return None

    def left_out(self, info: Mapping[str, Any], source: str) -> tuple[Fault, ...]:
        """What is wrong with the objects of an image that are in the file and not in the dataset.

        Args:
            info: What the dataset knows of the image.
            source: The dataset's class.
        """
        listed, instances = self.objects.get(info.get('img_id'), ()), info.get('instances')
        height, width = info.get('height'), info.get('width')
        if not isinstance(instances, list) or len(instances) >= len(listed) or not height or not width:
            return ()
        there = {_key(each['bbox']) for each in instances if 'bbox' in each}
        faults = []
        for each in listed:
            left, top, across, down = (float(value) for value in each.get('bbox') or [np.nan] * 4)
            if _key([left, top, left + across, top + down]) in there:
                continue
            found = annotations_of((None, [{**each, 'segmentation': None}]), (int(height), int(width)))
            known = [] if found is None else static_faults(found)
            if each.get('category_id') not in self.categories:
                text = f'category {each.get("category_id")} is not among the categories of the file'
                known.append(Fault('label', text))
            about = f'annotation {each.get("id")}, which {source} leaves out'
            faults += [replace(fault, text=f'{about}: {fault.text.removeprefix("object 0: ")}') for fault in known]
        return tuple(faults)


def _key(box: Any) -> tuple[float, ...]:
    return tuple(round(float(value), _TOLERANCE) for value in box)
