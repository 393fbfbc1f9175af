"""Every dataset config that mmpretrain ships is browsed in every mode, over made-up photographs."""

from pathlib import Path

import mmpretrain
import pytest
from fake_dataset import write_photos
from mmengine import Config

from vistool.analyses.dataset import BrowseDataset
from vistool.data.batching import Batcher
from vistool.data.recording import Samples

FOLDER = Path(mmpretrain.__file__).parent / '.mim' / 'configs' / '_base_' / 'datasets'
FILES = sorted(path.stem for path in FOLDER.glob('*.py'))

EXCEPTIONS = {
    ('refcoco', 'train', 'all'): 'crops with mmdet.RandomCrop; mmdet is no dependency',
    ('nlvr2', 'train', 'batch'): "mmpretrain's own preprocessor fails on what pseudo_collate makes of pairs",
    ('nlvr2', 'val', 'batch'): 'as above',
    ('nlvr2', 'test', 'batch'): 'as above',
}
"""File, phase, mode → why it is not browsed."""

QUICK = {'cifar100_bs16', 'imagenet_bs32_mocov2', 'imagenet_bs256_beitv2', 'imagenet_bs64_autoaug', 'coco_vqa'}
"""One of each kind, for every run of the tests."""


def test_pairs_of_images_make_a_batch_with_the_collate_function_that_takes_them(photos):
    config = with_photos(Config.fromfile(FOLDER / 'nlvr2.py'), 'train', photos)
    config.train_dataloader.collate_fn = {'type': 'default_collate'}
    result = BrowseDataset('batch', batcher=Batcher(config, 'train'))(Samples.of(config, 'train'), [0, 1])
    assert sum(map(len, result.rows)) == 4  # two images of each sample


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photos')
    write_photos(folder, 3)
    return folder


def with_photos(config, phase, folder):
    """The config with its dataset replaced by photographs; the pipeline stays."""
    dataset = config[f'{phase}_dataloader'].dataset
    while 'pipeline' not in dataset:
        dataset = dataset.get('dataset') or dataset['datasets'][0]
    steps = dataset.pipeline
    kind = steps[0]['type']
    arrays = not any('Load' in str(step) for step in steps)
    loader = {
        'type': 'FakeDataset',
        'serialize_data': False,
        'folder': str(folder),
        'pipeline': steps,
        'arrays': arrays,
    }
    config[f'{phase}_dataloader'].dataset = {**loader, 'pairs': kind == 'ApplyToList'}
    config[f'{phase}_dataloader'].batch_size = 3
    config.default_scope = 'mmpretrain'
    return config


def test_there_are_files():
    assert len(FILES) > 50 and {name for name, _, _ in EXCEPTIONS} | QUICK <= set(FILES)


@pytest.mark.parametrize('name', [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in FILES])
def test_every_mode(name, photos):
    for phase in ('train', 'val', 'test'):
        if (name, phase, 'all') in EXCEPTIONS:
            continue
        config = Config.fromfile(FOLDER / f'{name}.py')
        if not (config.get(f'{phase}_dataloader') or {}).get('dataset'):
            continue
        config = with_photos(config, phase, photos)
        samples = Samples.of(config, phase)
        for mode in ('original', 'transformed', 'concat', 'pipeline', 'batch'):
            if (name, phase, mode) in EXCEPTIONS:
                continue
            batcher = Batcher(config, phase) if mode == 'batch' else None
            result = BrowseDataset(mode, batcher=batcher)(samples, [0, 1, 2])
            assert not result.failed, (phase, mode, result.failed)
            shown = sum(map(len, result.rows))
            assert shown >= 3
