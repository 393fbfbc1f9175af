"""Metrics over the images of a run: where the objects are, the tables, and what interruptions change (nothing)."""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from PIL import Image
from torch import nn
from torchvision import transforms as T

import vistool as vt
from vistool.commands.vis_cam import main as vis_cam
from vistool.metrics import Protocol

SMALL = ['mmpretrain::resnet/resnet18_8xb16_cifar10.py', 'none']
FAST = Protocol(block=4, steps=3, baseline='mean', percent=(50,), tolerance=2)
METHODS = ['gradcam', 'layercam', 'random', 'center']


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


@DATASETS.register_module(force=True)
class Boxes(BaseDataset):
    """Photos with the boxes that a JSON file beside them has."""

    METAINFO = {'classes': ('dog', 'cat', 'cup')}

    def load_data_list(self):
        return json.loads(Path(self.ann_file).read_text())


@pytest.fixture
def photos(tmp_path):
    """Five photos of 24×36 and a mask for each, the last of them empty."""
    generator = np.random.default_rng(0)
    (tmp_path / 'masks').mkdir()
    (tmp_path / 'photos').mkdir()
    for number in range(5):
        pixels = generator.integers(0, 256, (24, 36, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / 'photos' / f'{number}.png')
        mask = np.zeros((24, 36), np.uint8)
        mask[4:16, 8 : 20 if number < 4 else 8] = 255
        Image.fromarray(mask).save(tmp_path / 'masks' / f'{number}.png')
    return tmp_path


def model(classes=None):
    return vt.Model(Net().eval(), 'net', classes=classes, transform=T.Compose([T.Resize((16, 24)), T.ToTensor()]))


def table(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def cam(*metrics, **more):
    return vt.CAM(METHODS, layers='body', metrics=metrics, protocol=FAST, **more)


def test_every_number_stands_in_the_table_and_the_summary_follows_from_it(photos):
    analysis = cam('energy', 'pointing', 'iou', 'insertion', 'deletion', targets=[0, 2])
    out = photos / 'out'
    summary = vt.run(model(), photos / 'photos', analysis, masks=photos / 'masks', out=out)
    assert {'metrics.csv', 'metrics_summary.csv', 'metrics.png', 'metrics.pdf'} <= {path.name for path in summary.files}
    rows = table(out / 'metrics.csv')
    assert len(rows) == 5 * len(METHODS) * 2 * 5  # images, methods, targets, metrics
    assert {row['metric'] for row in rows} == set(analysis.measures)
    empty = [row for row in rows if row['image'] == '4' and row['metric'] in ('energy', 'pointing', 'iou')]
    assert all((row['value'], row['chance']) == ('', '') for row in empty)  # never a hit
    known = [row for row in rows if row['metric'] == 'energy' and row['image'] != '4']
    # columns 8 to 20 and rows 4 to 16, at two thirds of the size: 8 by 8 pixels have their centers inside
    assert {row['chance'] for row in known} == {f'{8 * 8 / (16 * 24):.9g}'}
    means = {(row['method'], row['metric']): row for row in table(out / 'metrics_summary.csv')}
    for title, name in (('GradCAM', 'gradcam'), ('Center', 'center')):
        of = {}
        for row in known:
            if row['method'] == name and row['value']:  # a map may be all zero
                of.setdefault(row['image'], []).append(float(row['value']))
        found = means[title, 'energy']
        assert float(found['mean']) == pytest.approx(np.mean([np.mean(each) for each in of.values()]), abs=1e-8)
        assert (found['images'], found['left out']) == (str(len(of)), str(5 - len(of))) and len(of) <= 4
    assert means['GradCAM', 'insertion']['difference'] == '' != means['Center', 'insertion']['difference']
    assert ('LayerCAM', 'insertion - deletion') in means
    assert summary.metrics.to_frame()['mean'].tolist() == pytest.approx([float(row['mean']) for row in means.values()])


def test_each_class_has_its_own_boxes_and_classes_are_matched_by_name(photos, monkeypatch):
    boxes = [[8, 4, 20, 16], [0, 0, 36, 24]]
    infos = [
        {
            'img_path': str(photos / 'photos' / f'{number}.png'),
            'instances': [{'bbox': box, 'bbox_label': label} for label, box in enumerate(boxes)] if number else [],
            'height': 24,
            'width': 36,
        }
        for number in range(3)
    ]
    (photos / 'boxes.json').write_text(json.dumps(infos))
    pipeline = [{'type': 'LoadImageFromFile'}, {'type': 'Resize', 'scale': (24, 16)}, {'type': 'PackInputs'}]
    dataset = {'type': 'Boxes', 'ann_file': str(photos / 'boxes.json'), 'pipeline': pipeline}
    config = Config({'default_scope': 'mmpretrain', 'val_dataloader': {'dataset': dataset}, 'test_pipeline': pipeline})
    own = vt.Model(Net().eval(), 'net', config, classes=('cup', 'dog', 'cat'))
    vt.run(own, '@val', cam('energy', targets=['dog', 'cat', 'cup']), out=photos / 'out')
    chance = {(row['target'], row['image'][:6]): row['chance'] for row in table(photos / 'out' / 'metrics.csv')}
    assert float(chance['dog', '000001']) == pytest.approx(1 / 6)
    assert chance['cat', '000001'] == '1'
    assert chance['cup', '000001'] == ''  # no cup in the photo
    assert chance['dog', '000000'] == ''  # nothing in the photo


BAD = [
    (['--metrics', 'energy'], '--metrics: energy compares a map with a mask of the object, and there is none'),
    (['--metrics', 'drop', '--masks', 'MASKS'], '--masks: no metric needs masks; accepted: energy'),
    (['--metrics', 'iou', '--masks', 'nowhere'], '--masks: .*nowhere. is not a folder'),
    (['--metrics', 'iou', '--masks', 'MASKS'], '--masks: .*masks.3.png has 36×12 pixels, its photo 36×24; accepted'),
    (
        ['--metrics', 'point', '--masks', 'MASKS', '--tolerance', '-1'],
        '--tolerance: -1; accepted: an integer',
    ),
    (['--metrics', 'iou', '--masks', 'MASKS', '--iou-threshold', '2'], '--iou-threshold: 2.0; accepted: above 0'),
    (['--metrics', 'ins', '--steps', '1'], '--steps: 1; accepted: an integer from 2 up'),
    (['--protocol', 'rise'], '--protocol: nothing is measured; name metrics with --metrics'),
    (['--tolerance', '3'], '--tolerance: nothing is measured'),
    (['--metrics', 'ins', '--tolerance', '3'], '--tolerance: no metric takes it; accepted: pointing among --metrics'),
    (['--metrics', 'road', '--steps', '9'], '--steps: no metric takes it; accepted: insertion or deletion among'),
    (['--metrics', 'bestiou', '--iou-threshold', '.3'], '--iou-threshold: no metric takes it; accepted: iou among'),
    (
        ['--metrics', 'ins', '--method', 'EigenCAM'],
        'insertion measures the evidence for a class, and EigenCAM is class-agnostic',
    ),
]


@pytest.mark.parametrize(('words', 'message'), BAD)
def test_bad_input_is_one_line_before_any_work(photos, words, message, capsys):
    import re

    Image.fromarray(np.zeros((12, 36), np.uint8)).save(photos / 'masks' / '3.png')
    given = [str(photos / 'masks') if word == 'MASKS' else word for word in words]
    assert vis_cam([str(photos / 'photos'), *SMALL, '-o', str(photos / 'out'), *given]) == 2
    out, err = capsys.readouterr()
    assert not out and re.search(message, err.splitlines()[-1]), err
    assert not (photos / 'out').exists()


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_a_run_that_was_canceled_and_resumed_gives_the_same_files(photos):
    options = {'masks': photos / 'masks', 'deterministic': True, 'batch_size': 2, 'gallery': True}
    analysis = cam('energy', 'deletion', 'insertion')
    vt.run(model(), photos / 'photos', analysis, out=photos / 'whole', **options)

    class Twice:
        asked = 0

        def is_set(self):
            self.asked += 1
            return self.asked > 2

    first = vt.run(model(), photos / 'photos', analysis, out=photos / 'out', cancel=Twice(), **options)
    assert first.canceled and not (photos / 'out' / 'metrics.csv').exists()
    vt.run(model(), photos / 'photos', analysis, out=photos / 'out', resume=True, **options)
    assert files(photos / 'out') == files(photos / 'whole')
    vt.run(model(), photos / 'photos', analysis, out=photos / 'out', resume=True, **options)  # nothing is left to do
    assert files(photos / 'out') == files(photos / 'whole')


def test_the_table_is_printed_at_the_end(photos, capsys):
    words = [str(photos / 'photos'), *SMALL, '-o', str(photos / 'out'), '--masks', str(photos / 'masks')]
    more = ['--method', 'gradcam', 'random', '--metrics', 'energy', 'point', '--tolerance', '3']
    assert vis_cam([*words, *more]) == 0
    _, err = capsys.readouterr()
    lines = err.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith('metrics over 5 images: means with 95 %'))
    head, first, second, chance = lines[start + 1 : start + 5]
    assert head.split() == ['energy', '↑', 'point', '↑'] and first.startswith('GradCAM  ')
    assert first.index('[') == second.index('[')  # aligned
    assert chance.startswith('chance') and 'left out, because it is not defined: energy, point' in err


@pytest.mark.slow
def test_a_run_that_was_killed_and_resumed_gives_the_same_files(photos):
    words = [sys.executable, str(Path('tools/vis_cam.py').resolve()), str(photos / 'photos'), *SMALL, '--deterministic']
    words += ['--batch-size', '1', '--masks', str(photos / 'masks'), '--metrics', 'energy', 'ins', 'del', 'road']
    words += ['--method', 'gradcam', 'random', '--gallery', '--save-raw']
    subprocess.run([*words, '-o', str(photos / 'whole')], check=True, stdout=subprocess.DEVNULL)
    for lines in (1, 3):
        process = subprocess.Popen([*words, '-o', str(photos / 'out'), '--resume'], stdout=subprocess.PIPE, text=True)
        for _ in range(lines):
            process.stdout.readline()  # a file that is written
        process.kill()
        process.wait()
        assert process.returncode == -signal.SIGKILL
    assert not (photos / 'out' / 'metrics.csv').exists()
    subprocess.run([*words, '-o', str(photos / 'out'), '--resume'], check=True, stdout=subprocess.DEVNULL)
    assert files(photos / 'out') == files(photos / 'whole')


@pytest.mark.slow
def test_two_processes_give_the_files_of_one(photos):
    tool = str(Path('tools/vis_cam.py').resolve())
    words = [str(photos / 'photos'), *SMALL, '--deterministic', '--batch-size', '2', '--log-level', 'warning']
    words += ['--masks', str(photos / 'masks'), '--metrics', 'energy', 'ins', 'del', '--method', 'gradcam', 'random']
    run = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', tool]
    subprocess.run([sys.executable, tool, *words, '-o', str(photos / 'one')], check=True, stdout=subprocess.DEVNULL)
    done = subprocess.run([*run, *words, '-o', str(photos / 'two'), '--launcher', 'pytorch'], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert files(photos / 'two') == files(photos / 'one')
