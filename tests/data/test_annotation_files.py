"""What is wrong with an annotation file is said with its line; configs of another age are recognized."""

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from vistool.data.datasets import annotation_fault, open_dataset
from vistool.data.recording import Samples
from vistool.errors import InputError
from vistool.models.configs import resolve
from vistool.models.model import build_module

GOOD = b'a.png 0\nb.png 1\n'


@pytest.fixture
def folder(tmp_path):
    for name in 'ab':
        Image.fromarray(np.full((8, 8, 3), 60, np.uint8)).save(tmp_path / f'{name}.png')
    return tmp_path


def config_of(folder, content, suffix='.txt', kind='CustomDataset', wrapped=False):
    (folder / f'list{suffix}').write_bytes(content)
    pipeline = [{'type': 'LoadImageFromFile'}, {'type': 'PackInputs'}]
    plain = {
        'type': kind,
        'data_root': str(folder),
        'ann_file': f'list{suffix}',
        'data_prefix': '',
        'pipeline': pipeline,
    }
    dataset = {'type': 'RepeatDataset', 'times': 2, 'dataset': plain} if wrapped else plain
    return Config({'default_scope': 'mmpretrain', 'train_dataloader': {'dataset': dataset}})


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        (GOOD + b'\n', 'list.txt, line 3 is empty'),
        (b'a.png 0\n\nb.png 1\n', 'list.txt, line 2 is empty'),
        (b'a.png 0\nb.png cat\n', "line 2 ('b.png cat') ends in 'cat'"),
        (b'a.png 0\nb.png\n', "line 2 ('b.png') has 1 field, the first line 2"),
        ('a.png 0\né.png 1\n'.encode('latin-1'), 'line 2 holds the byte 0xe9, which is not UTF-8'),
        (b'a.png\t0\nb.png\t1\n', r"line 1 is 'a.png\t0'"),
        (b'', 'list.txt is empty'),
    ],
)
@pytest.mark.parametrize('wrapped', [False, True])
def test_the_faulty_line_is_named(folder, content, said, wrapped):
    with pytest.raises(InputError, match='the train dataset .*cannot be opened') as caught:
        open_dataset(config_of(folder, content, wrapped=wrapped), 'train')
    assert said in str(caught.value)


def test_json_is_named_with_line_and_column(folder):
    with pytest.raises(InputError, match=r'list.json, line 2, column 15: Expecting value'):
        open_dataset(config_of(folder, b'{"metainfo": {},\n "data_list": ,}', '.json', 'MultiLabelDataset'), 'train')


def test_what_only_the_dataset_knows_is_said_with_its_file(folder):
    with pytest.raises(InputError, match=r'must have data_list.*its annotations are in .*list.json'):
        open_dataset(config_of(folder, b'{"metainfo": {}}', '.json', 'MultiLabelDataset'), 'train')


def test_a_byte_order_mark_is_said(folder, caplog):
    samples = Samples(open_dataset(config_of(folder, b'\xef\xbb\xbf' + GOOD), 'train'))
    assert 'list.txt begins with a byte order mark' in caplog.text
    with pytest.raises(InputError, match='No such file'):
        samples.read(0)
    assert samples.read(1).path == folder / 'b.png'


def test_windows_line_ends_are_no_fault(folder, caplog):
    dataset = open_dataset(config_of(folder, GOOD.replace(b'\n', b'\r\n')), 'train')
    assert len(dataset) == 2 and Samples(dataset).read(1).label == 1 and not caplog.text


@pytest.mark.parametrize(
    ('name', 'content'), [('x.txt', GOOD), ('x.json', b'{}'), ('x.pkl', b'\x80\x04.'), ('x.npy', b'\xff')]
)
def test_nothing_is_seen_in_a_good_file(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    fault = annotation_fault(tmp_path / name)
    assert fault == '' or fault.endswith("line 1 is 'a.png 0'")


@pytest.mark.parametrize(
    'old',
    [
        {'data': {'samples_per_gpu': 32, 'train': {'type': 'ImageNet'}}},
        {'data': {'train': {'type': 'CocoDataset'}}, 'img_norm_cfg': {'mean': [1]}},
        {'data': {'imgs_per_gpu': 2}},
    ],
)
def test_a_config_from_before_mmengine_is_called_one(old):
    with pytest.raises(InputError, match=r'the form used before MMEngine \(data.*rewrite data → train_dataloader'):
        open_dataset(Config(old), 'train')
    with pytest.raises(InputError, match='has no train dataset'):
        open_dataset(Config({'model': {'type': 'ImageClassifier'}}), 'train')


OLD = """
model = dict(type='{scope}ImageClassifier', backbone=dict(type='ResNet', depth=18), {more}
             neck=dict(type='GlobalAveragePooling'), head=dict(type='LinearClsHead', num_classes=2, in_channels=512))
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Collect', keys=['img'])]
data = dict(samples_per_gpu=32, test=dict(type='ImageNet', pipeline=test_pipeline))
"""


@pytest.mark.parametrize(('scope', 'more'), [('', ''), ('mmpretrain.', 'train_cfg_of_old=None,')])
def test_a_model_in_a_config_from_before_mmengine_is_called_one(tmp_path, scope, more):
    path = tmp_path / 'old.py'
    path.write_text(OLD.format(scope=scope, more=more))
    with pytest.raises(
        InputError, match=r'old has the form used before MMEngine \(data\).*rewrite data → train_dataloader'
    ):
        build_module(resolve(path))


def test_a_folder_without_subfolders_gets_the_option_that_reads_it(folder):
    dataset = {'type': 'CustomDataset', 'data_root': str(folder), 'pipeline': []}
    config = Config({'default_scope': 'mmpretrain', 'train_dataloader': {'batch_size': 1, 'dataset': dataset}})
    with pytest.raises(InputError, match=r'has no subfolders .* train_dataloader\.dataset\.with_label=False'):
        open_dataset(config, 'train')
    (folder / 'class').mkdir()
    with pytest.raises(InputError) as caught:
        open_dataset(config, 'train')
    assert 'with_label' not in str(caught.value)
