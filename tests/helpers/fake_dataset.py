"""Datasets over photographs that are made up: one that any pipeline of mmpretrain takes, and one that mixes samples."""

import copy

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from PIL import Image


def photo(seed, size=(120, 160)):
    """Smooth colored noise: something to crop, jitter and compress."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC))


def write_photos(folder, count, size=(120, 160)):
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f'photo_{k}.jpg' for k in range(count)]
    for k, path in enumerate(paths):
        Image.fromarray(photo(k, size)).save(path)
    return paths


@DATASETS.register_module(force=True)
class FakeDataset(BaseDataset):
    """Photos of a folder; ``arrays``: images in memory, as CIFAR's; ``pairs``: two files a sample, as NLVR2's."""

    METAINFO = {'classes': ('cat', 'dog', 'cup')}

    def __init__(self, folder, arrays=False, pairs=False, **kwargs):
        self.folder, self.arrays, self.pairs = folder, arrays, pairs
        super().__init__(**{'serialize_data': False, **kwargs})  # which collects garbage for half a second

    def load_data_list(self):
        from pathlib import Path

        paths = sorted(Path(self.folder).glob('*.jpg'))
        return [self.info(k, path, str(paths[k - 1])) for k, path in enumerate(paths)]

    def get_cat_ids(self, index):
        return [self.get_data_info(index)['gt_label']]

    def info(self, k, path, other):
        known = {
            'gt_label': k % 3,
            'gt_score': None,
            'gt_caption': 'a photo of a cat.',
            'caption': 'a photo of a cat.',
            'text': 'left cat',
            'question': 'what is it?',
            'gt_answer': 'a cat',
            'gt_answer_weight': [1.0],
            'image_id': k,
            'img_id': k,
            'question_id': k,
            'is_matched': True,
            'gt_bboxes': np.array([[2, 3, 60, 50]], np.float32),
        }
        del known['gt_score']
        if self.arrays:
            return {'img': photo(k, (32, 32)), 'gt_label': k % 3}
        return {'img_path': [str(path), other] if self.pairs else str(path), **known}


class Mixing:
    """As MMDetection's MultiImageMixDataset: its transforms may ask for the samples that they mix in."""

    def __init__(self, dataset, pipeline):
        self.dataset, self.pipeline, self.metainfo = dataset, pipeline, getattr(dataset, 'metainfo', None)

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        results = copy.deepcopy(self.dataset[index])
        for transform in self.pipeline:
            if hasattr(transform, 'get_indices'):
                results['mix_results'] = [copy.deepcopy(self.dataset[k]) for k in transform.get_indices(self.dataset)]
            results = transform(copy.deepcopy(results))
            results.pop('mix_results', None)
        return results
