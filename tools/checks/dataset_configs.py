"""Browses every dataset config of mmdet and mmseg in all modes, on generated data.

    python tools/checks/dataset_configs.py [--only coco voc] [--modes pipeline concat]

Each config under ``configs/_base_/datasets`` of the two packages keeps its dataset class and its pipeline; its files
are written anew as generated scenes, in the form that the class reads. Pipelines that mix images (Mosaic, MixUp,
CopyPaste, RandomMosaic, …) and transforms of albumentations are browsed likewise (``--only mixed``). It prints a
line for each config and phase: the modes that were drawn, the pictures with annotations, and faults that were found
(there are none in the data). Configs that cannot be built are listed with the reason. Exit code 1 if a mode fails or a
fault is found.

Known exceptions: ``coco_caption`` names ``PackInputs``, which mmdet does not have; ``levir_256x256`` reads with gdal;
``dsdl`` needs the package of its format; lvis and panoptic configs need the packages lvis and panopticapi. mmseg's
``Albu`` fails with albumentations 1.4, and is left out.
"""

from __future__ import annotations

import argparse
import csv
import inspect
import json
import logging
import pickle
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import Image

from demo.scenes.scenes import Scene, scene
from vistool.analyses.dataset import BrowseDataset
from vistool.data.batching import Batcher
from vistool.data.datasets import Mode
from vistool.data.recording import Samples
from vistool.errors import InputError
from vistool.results import ImageGrid
from vistool.visualization.kinds import picture_bytes
from vistool.visualization.style import Style

PACKAGES = ('mmdet', 'mmseg')
COUNT = 3
"""Images of each dataset."""


def main() -> int:
    """Browses the configs and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', default=[], help='parts of config names')
    parser.add_argument('--modes', nargs='+', default=list(get_args(Mode)), help='default: all')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    logging.getLogger('vistool').setLevel(logging.ERROR)
    wrong = 0
    for package, name, phase, config in (*_phased(), *_mixed()):
        if args.only and not any(part in name for part in args.only):
            continue
        line, good = _browsed(config, phase, package, args.modes)
        wrong += not good
        print(f'{package}/{name:<28} {phase:<6}{line}', flush=True)
    print(f'{wrong} wrong')
    return int(wrong > 0)


def _phased() -> Iterator[tuple[str, str, str, Any]]:
    for package, path in _configs():
        for phase, config in _phases(path, package):
            yield package, path.stem, phase, config


_SCALE = {'img_scale': (320, 256)}
_FLIPPED = {'type': 'RandomFlip', 'prob': 1.0}
_BOXES = {'type': 'BboxParams', 'format': 'pascal_voc', 'label_fields': ['gt_bboxes_labels', 'gt_ignore_flags']}
_ALBU = {
    'type': 'Albu',
    'transforms': [{'type': 'HorizontalFlip', 'p': 1.0}, {'type': 'ShiftScaleRotate', 'rotate_limit': 20, 'p': 1.0}],
    'bbox_params': {**_BOXES, 'min_visibility': 0.1, 'filter_lost_elements': True},
    'keymap': {'img': 'image', 'gt_masks': 'masks', 'gt_bboxes': 'bboxes'},
}
_MIXING: Mapping[str, Mapping[str, list[dict[str, Any]]]] = {
    'mmdet': {
        'mixed_mosaic': [dict(type='Mosaic', **_SCALE), {'type': 'RandomAffine', 'border': (-160, -128)}, _FLIPPED],
        'mixed_mixup': [dict(type='MixUp', **_SCALE), _FLIPPED],
        'mixed_yolox': [dict(type='Mosaic', **_SCALE), dict(type='MixUp', **_SCALE), {'type': 'YOLOXHSVRandomAug'}],
        'mixed_cached': [dict(type='CachedMosaic', **_SCALE), dict(type='CachedMixUp', **_SCALE)],
        'mixed_copy_paste': [{'type': 'CopyPaste', 'max_num_pasted': 3}, _FLIPPED],
        'mixed_albu': [_ALBU],
    },
    'mmseg': {
        'mixed_mosaic': [dict(type='RandomMosaic', prob=1.0, **_SCALE), _FLIPPED],
        'mixed_cut_out': [
            {'type': 'RandomCutOut', 'prob': 1.0, 'n_holes': (1, 3), 'cutout_ratio': [(0.1, 0.2)], 'seg_fill_in': 255},
            _FLIPPED,
        ],
    },
}
"""Pipelines that mix images, or hand them to another library: name → the steps after the annotations are loaded."""


def _mixed() -> Iterator[tuple[str, str, str, Any]]:
    """A config for each of :data:`_MIXING`, on a dataset with instances or with label maps."""
    from mmengine.config import Config

    paths = {(package, path.stem): path for package, path in _configs()}
    for package, pipelines in _MIXING.items():
        for name, steps in pipelines.items():
            masks = name in ('mixed_copy_paste', 'mixed_albu')  # mmdet's Mosaic and MixUp mix boxes only
            base = 'ade20k' if package == 'mmseg' else 'coco_instance' if masks else 'coco_detection'
            if (package, base) not in paths:
                continue
            config = Config.fromfile(paths[package, base])
            config['default_scope'] = package
            inner = config['train_dataloader']['dataset'].to_dict()
            inner['pipeline'] = inner['pipeline'][:2]  # what loads the image and its annotations
            pack = {'type': 'PackDetInputs' if package == 'mmdet' else 'PackSegInputs'}
            config['train_dataloader']['dataset'] = {
                'type': 'MultiImageMixDataset',
                'dataset': inner,
                'pipeline': [*steps, pack],
            }
            yield package, name, 'train', config


def _configs() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            print(f'{package} is not installed')
            continue
        for path in sorted(Path(spec.origin).parent.glob('.mim/configs/_base_/datasets/*.py')):
            yield package, path


def _phases(path: Path, package: str) -> Iterator[tuple[str, Any]]:
    """The config once for each phase that has a dataset of its own."""
    from mmengine.config import Config

    seen = []
    for phase in ('train', 'val', 'test'):
        config = Config.fromfile(path)
        config['default_scope'] = package
        loader = config.get(f'{phase}_dataloader')
        described = json.dumps(loader['dataset'].to_dict(), default=str) if loader else None
        if described is not None and described not in seen:
            seen.append(described)
            yield phase, config


def _browsed(config: Any, phase: str, package: str, modes: list[str]) -> tuple[str, bool]:
    """What came of one config and phase, and whether nothing is wrong."""
    with tempfile.TemporaryDirectory() as place:
        try:
            for number, leaf in enumerate(_leaves(config[f'{phase}_dataloader']['dataset'])):
                _write(leaf, Path(place) / str(number), package, seed=10 * number + (phase != 'train'))
            samples = Samples.of(config, phase)
        except Exception as error:  # what cannot be built is listed
            return f'not built: {_short(error)}', True
        drawn, faults, annotated, failed = [], set(), 0, ''
        for mode in modes:
            try:
                result = _drawn(samples, config, phase, mode)
            except InputError as error:
                failed = f'{mode}: {_short(error)}'
                continue
            drawn.append(mode)
            faults |= {text for _, _, text in result.faults}
            annotated += sum(image.annotations is not None for row in result.rows for image in row)
            failed = failed or ''.join(f'{mode}: {_short(error)}' for _, error in result.failed[:1])
    parts = [f'{len(drawn)} modes, {annotated} pictures with annotations']
    parts += [f'FAILED {failed}'] if failed else []
    parts += [f'FAULTS {sorted(faults)[:3]}'] if faults else []
    return '; '.join(parts), not faults and not failed


def _drawn(samples: Samples, config: Any, phase: str, mode: str) -> ImageGrid:
    batcher = Batcher(config, phase) if mode == 'batch' else None
    indices = list(range(min(2, len(samples)))) if mode == 'batch' else [len(samples) - 1]
    result = BrowseDataset(mode, batcher=batcher)(samples, indices)  # type: ignore[arg-type]
    if result.rows:
        picture_bytes(result, Style(width=600), '.png')
    return result


def _short(error: Exception) -> str:
    return ' '.join(str(error).split())[:160]


def _leaves(dataset: Any) -> Iterator[Any]:
    """The innermost datasets of a config."""
    inner = dataset.get('dataset') or dataset.get('datasets')
    if not inner:
        yield dataset
        return
    for each in inner if isinstance(inner, (list, tuple)) else [inner]:
        yield from _leaves(each)


# --- data in the form of each dataset ---------------------------------------------------------------------------------


def _write(leaf: Any, root: Path, package: str, seed: int) -> None:
    """Writes the files of one dataset and lets its config point to them."""
    from mmengine.registry import DATASETS

    __import__(f'{package}.datasets')
    with DATASETS.switch_scope_and_registry(package) as registry:
        cls = registry.get(leaf['type'])
    if cls is None:
        raise InputError(f'{leaf["type"]} is not registered')
    leaf['data_root'] = f'{root}/'
    leaf.setdefault('filter_cfg', {})
    rng = np.random.default_rng(seed)
    scenes = [_enlarged(scene(rng)) for _ in range(COUNT)]
    names = {base.__name__ for base in cls.__mro__}
    writer = next((write for name, write in _WRITERS.items() if name in names), None)
    if writer is None:
        raise InputError(f'no generated data for {cls.__name__}')
    writer(leaf, root, cls, scenes)


def _enlarged(each: Scene, factor: int = 2) -> Scene:
    """A scene with larger objects: some datasets leave out those below 32 pixels."""
    image, mask = (values.repeat(factor, 0).repeat(factor, 1) for values in (each.image, each.mask))
    return Scene(image, each.boxes * factor, each.labels, mask)


def _save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.npy':
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)


def _classes(leaf: Any, cls: Any) -> list[str]:
    if hasattr(cls, 'set_dataset_classes'):  # YouTube-VIS has other classes in each version
        cls.set_dataset_classes(leaf['dataset_version'])
    meta = {**(getattr(cls, 'METAINFO', None) or {}), **(leaf.get('metainfo') or {})}
    return list(meta.get('classes') or ('circle', 'square', 'triangle'))


def _default(cls: Any, name: str, otherwise: Any) -> Any:
    """The default of a constructor's argument."""
    for base in cls.__mro__:
        if '__init__' in vars(base):
            found = inspect.signature(base.__init__).parameters.get(name)
            if found is not None and found.default is not inspect.Parameter.empty:
                return found.default
    return otherwise


def _segmentation(leaf: Any, root: Path, cls: Any, scenes: list[Scene]) -> None:
    """Mmseg's and mmdet's datasets of label maps: a file for each image."""
    prefix = leaf.get('data_prefix') or {}
    suffix = leaf.get('img_suffix') or _default(cls, 'img_suffix', '.jpg')
    suffix = '.png' if cls.__name__ == 'REFUGEDataset' else suffix  # which its constructor does not say
    map_suffix = leaf.get('seg_map_suffix') or _default(cls, 'seg_map_suffix', '.png')
    zero = bool(leaf.get('reduce_zero_label', _default(cls, 'reduce_zero_label', False)))
    count = len(_classes(leaf, cls))
    stems = [f'bathroom_{number:04d}' for number in range(len(scenes))]  # NYU takes the room from the name
    for stem, each in zip(stems, scenes, strict=True):
        image = each.image
        if suffix == '.npy':
            image = np.repeat(image.mean(2, keepdims=True).astype(np.float32), 25, axis=2)
        for key in ('img_path', 'img_path2'):
            if key in prefix:
                _save(root / prefix[key] / f'{stem}{suffix}', image)
        if 'seg_map_path' in prefix:
            values = each.mask % count + zero
            if 'LEVIRCDDataset' in cls.__name__:
                values = (each.mask > 0) * 255
            _save(root / prefix['seg_map_path'] / f'{stem}{map_suffix}', values.astype(np.uint8))
        if 'depth_map_path' in prefix:
            depth = (1000 + 500 * each.mask).astype(np.uint16)
            _save(root / prefix['depth_map_path'] / f'{stem}.png', depth)
    if leaf.get('ann_file'):
        path = root / leaf['ann_file']
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('\n'.join(stems) + '\n')


def _images(folder: Path, scenes: list[Scene]) -> list[dict[str, Any]]:
    """Writes images; their entries in COCO's form."""
    entries = []
    for number, each in enumerate(scenes):
        name = f'{number:012d}.jpg'
        _save(folder / name, each.image)
        height, width = each.mask.shape
        known = {'id': number, 'file_name': name, 'height': height, 'width': width, 'text': 'a scene'}
        known['coco_url'] = f'http://images.cocodataset.org/{name}'
        entries.append({**known, 'frame_id': number, 'video_id': 1, 'neg_category_ids': []})
    return entries


def _objects(scenes: list[Scene], count: int) -> Iterator[dict[str, Any]]:
    """COCO's annotations; categories are counted from 1."""
    ids = 0
    for number, each in enumerate(scenes):
        for label, (left, top, right, bottom) in zip(each.labels.tolist(), each.boxes.tolist(), strict=True):
            ids += 1
            yield {
                'id': ids,
                'image_id': number,
                'category_id': (label - 1) % count + 1,
                'bbox': [left, top, right - left, bottom - top],
                'area': (right - left) * (bottom - top),
                'segmentation': [[left, top, right, top, right, bottom, left, bottom]],
                'iscrowd': 0,
                'instance_id': ids,
                'video_id': 1,
                'visibility': 1.0,
                'ignore': False,
                'mot_conf': 1.0,
            }


def _coco(leaf: Any, root: Path, cls: Any, scenes: list[Scene]) -> None:
    prefix = leaf.get('data_prefix') or {}
    folder = root / (prefix.get('img') or prefix.get('img_path') or '')
    names = _classes(leaf, cls)
    if 'V3Det' in cls.__name__:
        names = ['circle', 'square', 'triangle']
        _text(root / _default(cls, 'label_file', ''), '\n'.join(names))
    record = {
        'images': _images(folder, scenes),
        'annotations': list(_objects(scenes, len(names))),
        'categories': [{'id': place, 'name': name} for place, name in enumerate(names, 1)],
        'videos': [{'id': 1, 'name': 'video'}],
    }
    if prefix.get('seg'):
        for number, each in enumerate(scenes):
            _save(root / prefix['seg'] / f'{number:012d}.png', each.mask.astype(np.uint8))
    _text(root / leaf['ann_file'], json.dumps(record))


def _panoptic(leaf: Any, root: Path, cls: Any, scenes: list[Scene]) -> None:
    prefix = leaf['data_prefix']
    meta = cls.METAINFO
    things = list(meta['thing_classes'])
    categories = [{'id': k, 'name': name, 'isthing': name in things} for k, name in enumerate(meta['classes'], 1)]
    thing, stuff = ([each['id'] for each in categories if each['isthing'] == which] for which in (True, False))
    images, annotations = _images(root / prefix['img'], scenes), []
    for number, each in enumerate(scenes):
        ids = np.full(each.mask.shape, 1, np.int64)
        segments = [
            {'id': 1, 'category_id': stuff[0], 'iscrowd': 0, 'area': ids.size, 'bbox': [0, 0, *ids.shape[::-1]]}
        ]
        for place, (box, label) in enumerate(
            zip(each.boxes.astype(int).tolist(), each.labels.tolist(), strict=True), 2
        ):
            left, top, right, bottom = box
            part = ids[top:bottom, left:right]
            part[each.mask[top:bottom, left:right] > 0] = place
            known = {'id': place, 'category_id': thing[label], 'iscrowd': 0, 'area': int((part == place).sum())}
            segments.append({**known, 'bbox': [left, top, right - left, bottom - top]})
        colors = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8)
        _save(root / prefix['seg'] / f'{number:012d}.png', colors)
        annotations.append({'image_id': number, 'file_name': f'{number:012d}.png', 'segments_info': segments})
    record = {'images': images, 'annotations': annotations, 'categories': categories}
    _text(root / leaf['ann_file'], json.dumps(record))


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _voc(leaf: Any, root: Path, cls: Any, scenes: list[Scene]) -> None:
    names = _classes(leaf, cls)
    wider = 'WIDERFace' in cls.__name__
    prefix = leaf['data_prefix']
    base = root / (prefix['img'] if wider else prefix['sub_data_root'])
    stems = [f'{number:06d}' for number in range(len(scenes))]
    for stem, each in zip(stems, scenes, strict=True):
        _save(base / ('scenes' if wider else 'JPEGImages') / f'{stem}.jpg', each.image)
        height, width = each.mask.shape
        objects = ''.join(
            f'<object><name>{names[label % len(names)]}</name><difficult>0</difficult><bndbox><xmin>{left:.0f}</xmin>'
            f'<ymin>{top:.0f}</ymin><xmax>{right:.0f}</xmax><ymax>{bottom:.0f}</ymax></bndbox></object>'
            for label, (left, top, right, bottom) in zip(each.labels.tolist(), each.boxes.tolist(), strict=True)
        )
        size = f'<size><width>{width}</width><height>{height}</height><depth>3</depth></size>'
        record = f'<annotation><folder>scenes</folder>{size}{objects}</annotation>'
        _text(base / 'Annotations' / f'{stem}.xml', record)
    _text(root / leaf['ann_file'], '\n'.join(stems) + '\n')


def _references(leaf: Any, root: Path, cls: Any, scenes: list[Scene]) -> None:
    annotations = list(_objects(scenes, 3))
    record = {'images': _images(root / leaf['data_prefix']['img_path'], scenes), 'annotations': annotations}
    _text(root / leaf['ann_file'], json.dumps(record))
    refs = [
        {'ref_id': n, 'ann_id': each['id'], 'split': leaf['split'], 'sentences': [{'raw': 'the shape'}]}
        for n, each in enumerate(annotations)
    ]
    (root / leaf['split_file']).write_bytes(pickle.dumps(refs))


def _captions(leaf: Any, root: Path, cls: Any, scenes: list[Scene]) -> None:
    images = _images(root, scenes)
    record = [{'image': each['file_name'], 'caption': ['shapes on noise']} for each in images]
    _text(root / leaf['ann_file'], json.dumps(record))


def _identities(leaf: Any, root: Path, cls: Any, scenes: list[Scene]) -> None:
    images = _images(root / leaf['data_prefix']['img_path'], scenes)
    sampler = leaf.get('triplet_sampler') or {}
    people = max(sampler.get('num_ids', 1), 1)
    lines = [f'{images[k % len(images)]["file_name"]} {person}' for person in range(people) for k in range(4)]
    _text(root / leaf['ann_file'], '\n'.join(lines) + '\n')


def _open_images(leaf: Any, root: Path, cls: Any, scenes: list[Scene]) -> None:
    images = _images(root / leaf['data_prefix']['img'], scenes)
    names = ['circle', 'square', 'triangle']
    rows = [['ImageID', 'Source', 'LabelName', 'Confidence', 'XMin', 'XMax', 'YMin', 'YMax', *'abcde']]
    for entry, each in zip(images, scenes, strict=True):
        for label, (left, top, right, bottom) in zip(each.labels.tolist(), each.boxes.tolist(), strict=True):
            width, height = entry['width'], entry['height']
            edges = [left / width, right / width, top / height, bottom / height]
            rows.append([Path(entry['file_name']).stem, 'x', f'/m/{label}', 1, *edges, 0, 0, 0, 0, 0])
    tables: Mapping[str, list[list[Any]]] = {
        leaf['ann_file']: rows,
        leaf['label_file']: [[f'/m/{label}', name] for label, name in enumerate(names, 1)],
        **({leaf['image_level_ann_file']: rows[:1]} if leaf.get('image_level_ann_file') else {}),
    }
    for name, lines in tables.items():
        _text(root / name, '')
        with (root / name).open('w', newline='') as file:
            csv.writer(file).writerows(lines)
    children = [{'LabelName': f'/m/{label}'} for label in (1, 2, 3)]
    _text(root / leaf['hierarchy_file'], json.dumps({'LabelName': '/m/0', 'Subcategory': children}))
    metas = [{'filename': each['file_name'], 'ori_shape': (each['height'], each['width'], 3)} for each in images]
    (root / leaf['meta_file']).write_bytes(pickle.dumps(metas))
    for key in ('label_file', 'hierarchy_file', 'meta_file', 'image_level_ann_file'):
        if leaf.get(key):
            leaf[key] = str(root / leaf[key])


_WRITERS: Mapping[str, Callable[[Any, Path, Any, list[Scene]], None]] = {
    'OpenImagesDataset': _open_images,
    'BaseSegDataset': _segmentation,
    'BaseCDDataset': _segmentation,
    'CocoPanopticDataset': _panoptic,
    'XMLDataset': _voc,
    'RefCocoDataset': _references,
    'CocoCaptionDataset': _captions,
    'ReIDDataset': _identities,
    'CocoDataset': _coco,
    'BaseVideoDataset': _coco,
}
"""By the class that reads the files, the most special first."""


if __name__ == '__main__':
    sys.exit(main())
