"""Datasets through wrappers, with labels of every kind, and what is said of those that are not there."""

import json

import numpy as np
import pytest
from fake_dataset import write_photos
from mmengine import Config
from PIL import Image

from vistool.data.datasets import base_of, choose, dataset_items, label_text, open_dataset
from vistool.data.pipelines import build_pipeline
from vistool.data.recording import Samples
from vistool.errors import InputError
from vistool.models.configs import resolve

STEPS = [{'type': 'LoadImageFromFile'}, {'type': 'PackInputs'}]
DEMO = 'configs/demo_dataset/plain.py'


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photos')
    return folder, write_photos(folder, 5, (20, 30))


def config_of(dataset, phase='train'):
    return Config({'default_scope': 'mmpretrain', f'{phase}_dataloader': {'dataset': dataset}})


def fake(folder, **more):
    return {'type': 'FakeDataset', 'folder': str(folder), 'pipeline': STEPS, **more}


WRAPPERS = {
    'plain': (lambda f: fake(f), [0, 1, 2, 3, 4]),
    'concat': (
        lambda f: {'type': 'ConcatDataset', 'datasets': [fake(f, indices=2), fake(f, serialize_data=True)]},
        [0, 1, 0, 1, 2, 3, 4],
    ),
    'repeat': (lambda f: {'type': 'RepeatDataset', 'times': 2, 'dataset': fake(f)}, [0, 1, 2, 3, 4] * 2),
    'balanced': (
        lambda f: {'type': 'ClassBalancedDataset', 'oversample_thr': 0.4, 'dataset': fake(f)},
        [0, 1, 2, 2, 3, 4],
    ),
    'fold': (lambda f: {'type': 'KFoldDataset', 'fold': 1, 'num_splits': 5, 'dataset': fake(f)}, [0, 2, 3, 4]),
    'nested': (
        lambda f: {
            'type': 'RepeatDataset',
            'times': 2,
            'dataset': {'type': 'KFoldDataset', 'fold': 0, 'num_splits': 5, 'dataset': fake(f)},
        },
        [1, 2, 3, 4] * 2,
    ),
}


@pytest.mark.parametrize('name', WRAPPERS)
def test_wrappers(photos, name):
    folder, paths = photos
    described, order = WRAPPERS[name][0](folder), WRAPPERS[name][1]
    items = dataset_items(config_of(described), 'train')
    assert [paths.index(item.path) for item in items] == order
    assert [item.label for item in items] == [k % 3 for k in order]
    assert len({item.name for item in items}) == len(items)
    samples = Samples.of(config_of(described), 'train')
    for index, place in enumerate(order):
        record = samples.read(index)
        assert record.path == paths[place] and record.label == place % 3
        np.testing.assert_array_equal(record.original, np.asarray(Image.open(paths[place])))
        assert base_of(samples.dataset, index)[1] in range(5)


def test_multi_task_labels(photos, tmp_path):
    _, paths = photos
    tasks = {'color': 1, 'shape': [1, 0]}
    data = [{'img_path': str(path), 'gt_label': tasks} for path in paths]
    (tmp_path / 'tasks.json').write_text(json.dumps({'metainfo': {'tasks': ['color', 'shape']}, 'data_list': data}))
    pack = {'type': 'PackMultiTaskInputs', 'multi_task_fields': ['gt_label'], 'task_handlers': {}}
    pack['task_handlers'] = {task: {'type': 'PackInputs'} for task in tasks}
    dataset = {'type': 'MultiTaskDataset', 'ann_file': str(tmp_path / 'tasks.json'), 'pipeline': [STEPS[0], pack]}
    items = dataset_items(config_of(dataset), 'train')
    assert items[2].label == tasks and label_text(items[2].label, None) == 'color 1 · shape 1,0'
    assert Samples.of(config_of(dataset), 'train').read(2).path == paths[2]


@pytest.mark.parametrize(
    'label, text',
    [
        (1, 'dog'),
        (7, 'class 7'),
        ((0, 2), 'cat · cup'),
        (np.array([0.0, 0.3, 0.7]), '0.70 cup + 0.30 dog'),
        (np.array([0.0, 1.0, 0.0]), 'dog'),
        (None, ''),
        ((), ''),
    ],
)
def test_labels_in_words(label, text):
    assert label_text(label, ('cat, kitty', 'dog', 'cup')) == text


def test_items_are_read_by_any_pipeline():
    config = resolve('configs/efficientnet_lite/efficientnet-lite0_demo.py').config
    items = dataset_items(config, 'val')
    assert len(items) == 6 and len(items[1:3]) == 2 and items[-1].index == 5
    item = items[2]
    sample = build_pipeline(config).read(item.source, index=item.index, name=item.name, info=item.info)
    assert (sample.label, sample.name, sample.image.shape) == (657, '000002_missile_val_0', (224, 224, 3))
    assert items.classes[sample.label].startswith('missile')
    with pytest.raises(IndexError):
        items[6]


def test_items_need_no_pipeline(photos):
    broken = fake(photos[0], pipeline=[{'type': 'NoSuchTransform'}])
    assert len(dataset_items(config_of(broken), 'train')) == 5
    with pytest.raises(InputError, match='NoSuchTransform'):
        open_dataset(config_of(broken), 'train')


def test_a_phase_that_is_not_there(photos):
    with pytest.raises(InputError, match='no val dataset.*accepted: train'):
        open_dataset(config_of(fake(photos[0])), 'val')
    with pytest.raises(InputError, match='accepted: train, val, test'):
        open_dataset(config_of(fake(photos[0])), 'training')
    with pytest.raises(InputError, match='no train dataset'):
        open_dataset(Config({}), 'train')


@pytest.mark.parametrize(
    'config, message',
    [
        ('configs/resnet/resnet50_8xb32_in1k.py', "ImageNet needs 'data/imagenet.*data_root=FOLDER"),
        ('configs/resnet/resnet50_b16x8_cifar100.py', "CIFAR100 needs 'data/cifar100.*data_root=FOLDER"),
    ],
)
def test_missing_data_is_named_and_nothing_is_downloaded(config, message, tmp_path, monkeypatch):
    resolved = resolve(config).config
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        open_dataset(resolved, 'train')
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_not_there():
    with pytest.raises(InputError, match='mmnothing, which is not installed'):
        open_dataset(Config({'default_scope': 'mmnothing', 'train_dataloader': {'dataset': {'type': 'X'}}}), 'train')


@pytest.fixture(scope='module')
def demo():
    return Samples.of(resolve(DEMO).config, 'train', seed=3)


@pytest.mark.parametrize(
    'options, expected',
    [
        ({}, list(range(9))),
        ({'number': 4}, [0, 1, 2, 3]),
        ({'indices': ['2', '-1', '4-6', '1,0']}, [2, 8, 4, 5, 6, 1, 0]),
        ({'classes': ['espresso']}, [6, 7, 8]),
        ({'classes': ['Tabby Cat', '657'], 'per_class': 1}, [0, 3]),
        ({'per_class': 2}, [0, 1, 3, 4, 6, 7]),
        ({'per_class': 2, 'number': 3}, [0, 1, 3]),
    ],
)
def test_selection(demo, options, expected):
    assert choose(demo, **options) == expected


def test_shuffling_is_a_permutation_that_the_seed_decides(demo):
    order = choose(demo, shuffle=True)
    assert sorted(order) == list(range(9)) and order != list(range(9)) and order == choose(demo, shuffle=True)


@pytest.mark.parametrize(
    'options, message',
    [
        ({'indices': ['9']}, '0 to 8'),
        ({'indices': ['3-12']}, '0 to 8'),
        ({'indices': ['x']}, 'not an index'),
        ({'classes': ['tabbby']}, 'did you mean tabby'),
        ({'classes': ['1000']}, '0 to 999'),
        ({'classes': ['-1']}, '0 to 999'),
        ({'classes': ['crane']}, 'ambiguous.*134.*517'),
        ({'classes': ['goldfish']}, 'no sample'),
        ({'number': 0}, '1 or more'),
        ({'per_class': 0}, '1 or more'),
    ],
)
def test_bad_selections(demo, options, message):
    with pytest.raises(InputError, match=message):
        choose(demo, **options)


class Unlabeled:
    """Samples of which nothing is known, or whose one known label says that they are in no class."""

    classes = ('cat', 'dog')
    seed = 0

    def __init__(self, *labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def label(self, index):
        return self.labels[index]


@pytest.mark.parametrize(
    ('options', 'named'),
    [({'classes': ['cat']}, 'classes'), ({'classes': ['1']}, 'classes'), ({'per_class': 1}, 'per_class'),
     ({'per_class': 1, 'number': 1}, 'per_class'), ({'classes': ['cat'], 'per_class': 2}, 'classes')],
)  # fmt: skip
def test_what_asks_for_labels_is_refused_where_there_are_none(options, named):
    with pytest.raises(InputError, match=f'^{named}: the dataset has no labels'):
        choose(Unlabeled(None, None, None), **options)


def test_labels_of_some_samples_are_enough_and_nothing_else_needs_any():
    assert choose(Unlabeled(None, 1, None), classes=['dog']) == [1]
    assert choose(Unlabeled(None, None, None), number=2) == [0, 1]
    with pytest.raises(InputError, match='^classes: no sample of'):
        choose(Unlabeled((), ()), classes=['dog'])
