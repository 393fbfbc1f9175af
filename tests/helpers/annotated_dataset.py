"""Generated scenes with boxes, masks, keypoints and label maps, as OpenMMLab's and PyTorch's datasets keep them."""

import json
from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from PIL import Image

from demo.scenes.scenes import CLASSES, scene


def write_scenes(folder, count=4, seed=0):
    """JPEGs, label maps, and ``scenes.json`` with what is in them; returns the scenes."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    scenes, known = [scene(rng) for _ in range(count)], []
    for k, each in enumerate(scenes):
        Image.fromarray(each.image).save(folder / f'scene_{k}.png')
        Image.fromarray(each.mask.astype(np.uint8)).save(folder / f'map_{k}.png')
        known.append({'boxes': each.boxes.tolist(), 'labels': each.labels.tolist()})
    (folder / 'scenes.json').write_text(json.dumps(known))
    return scenes


@DATASETS.register_module(force=True)
class WrittenScenes(BaseDataset):
    """The scenes of a folder; ``changes``: index → {object: {key: value}}, to plant faults."""

    METAINFO = {'classes': CLASSES, 'palette': [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)]}

    def __init__(self, folder, changes=None, **kwargs):
        self.folder, self.changes = folder, changes or {}
        super().__init__(**{'serialize_data': False, **kwargs})

    def load_data_list(self):
        known = json.loads(Path(self.folder, 'scenes.json').read_text())
        return [self._info(k, each) for k, each in enumerate(known)]

    def _info(self, k, known):
        instances = []
        for box, label in zip(known['boxes'], known['labels'], strict=True):
            points = [box[0] + 2, box[1] + 2, 2, box[2] - 2, box[3] - 2, 2, 0, 0, 0]
            instances.append({'bbox': box, 'bbox_label': label, 'ignore_flag': 0, 'keypoints': points})
        for place, change in self.changes.get(k, {}).items():
            if place == len(instances):
                instances.append({**instances[0], **change})
            instances[place] |= change
        return {
            'img_path': f'{self.folder}/scene_{k}.png',
            'seg_map_path': f'{self.folder}/map_{k}.png',
            'seg_fields': [],
            'instances': instances,
        }
