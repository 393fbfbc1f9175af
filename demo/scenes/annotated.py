"""The scenes beside this file as a dataset in OpenMMLab's form, with a box or a label map for each object."""

from __future__ import annotations

import json
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from demo.scenes.scenes import CLASSES, HERE


@DATASETS.register_module()
class AnnotatedScenes(BaseDataset):
    """Scenes whose annotations are boxes, or label maps.

    Args:
        label_maps: Whether the annotations are label maps.
        options: What mmengine's datasets take, such as the pipeline.
    """

    def __init__(self, label_maps: bool = False, **options: Any) -> None:
        self.label_maps = label_maps
        super().__init__(ann_file=str(HERE / 'scenes.json'), metainfo={'classes': CLASSES}, **options)

    def load_data_list(self) -> list[dict[str, Any]]:
        """One entry for each scene."""
        record = json.loads((HERE / 'scenes.json').read_text(encoding='utf-8'))
        found = []
        for image in record['images']:
            path = HERE / image['file_name']
            entry = {'img_path': str(path), 'height': image['height'], 'width': image['width']}
            if self.label_maps:
                entry['seg_map_path'] = str(path.with_name(f'{path.stem}_mask.png'))
            else:
                own = [each for each in record['annotations'] if each['image_id'] == image['id']]
                entry['instances'] = [
                    {
                        'bbox': [x, y, x + width, y + height],
                        'bbox_label': each['category_id'],
                        'ignore_flag': each['iscrowd'],
                    }
                    for each in own
                    for x, y, width, height in [each['bbox']]
                ]
            found.append(entry)
        return found
