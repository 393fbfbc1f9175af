"""vis_cam as a user runs it: in-process for the many cases, as a subprocess for what only a process shows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import files, runner
from PIL import Image

from vistool.commands.vis_cam import main

run = runner(main)
CONFIG = 'configs/efficientnet_lite/efficientnet-lite0_in1k.py'
COFFEE = 'demo/coffee.png'


def test_the_coffee_is_an_espresso_and_the_map_is_hot_on_it(capsys, tmp_path):
    code, out, err = run(capsys, COFFEE, CONFIG, '-o', tmp_path / 'coffee.png', '--save-raw')
    assert code == 0 and out.split() == [str(tmp_path / 'coffee.png'), str(tmp_path / 'coffee.npz')]
    assert 'target layer: model.bn2' in err
    raw = np.load(tmp_path / 'coffee.npz', allow_pickle=False)
    recipe = json.loads(str(raw['recipe']))
    target = recipe['targets'][0]
    assert (target['id'], target['name']) == (967, 'espresso') and target['score'] > 0.9
    heat = raw['maps_0'][0]
    assert heat.shape == (224, 224) and heat.min() >= 0 and heat.max() == pytest.approx(1, abs=1e-5)
    # where the coffee is: a box around the drink, drawn by hand on the 600×400 photo, in network pixels
    left, top, right, bottom = ((np.array([195, 70, 410, 270]) - [125, 25, 125, 25]) / 1.5625).astype(int)
    inside = np.zeros_like(heat, bool)
    inside[max(top, 0) : bottom, max(left, 0) : right] = True
    assert inside[np.unravel_index(heat.argmax(), heat.shape)]
    assert heat[inside].mean() > 2 * heat[~inside].mean()


def test_the_raw_file_is_what_the_contract_says(capsys, tmp_path):
    run(
        capsys,
        COFFEE,
        CONFIG,
        '-o',
        tmp_path / 'x.png',
        '--save-raw',
        '--method',
        'gradcam',
        'layercam',
        '--target-category',
        '967',
        'cup',
    )
    raw = np.load(tmp_path / 'x.npz', allow_pickle=False)
    assert raw['groups'].tolist() == ['model.bn2']
    assert raw['maps_0'].dtype == np.float32 and raw['maps_0'].shape == (4, 224, 224)
    assert raw['names_0'].tolist() == ['gradcam/espresso', 'layercam/espresso', 'gradcam/cup', 'layercam/cup']
    assert raw['range_0'].shape == (4, 2) and (raw['range_0'][:, 0] < raw['range_0'][:, 1]).all()
    assert raw['image'].dtype == np.uint8 and raw['image'].shape == (224, 224, 3)
    recipe = json.loads(str(raw['recipe']))
    assert recipe['checkpoint'] == 'demo://efficientnet-lite0' and len(recipe['sha256']) == 64
    assert recipe['layers'] == ['model.bn2'] and recipe['seed'] == 0
    assert np.array(recipe['geometry']['matrix']).shape == (3, 3)
    assert 'torch' in recipe['versions'] and recipe['command'].startswith('vis_cam ')


@pytest.mark.parametrize(
    'options',
    [
        ['--method', 'GradCAM++', '--eigen_smooth', '--aug_smooth'],
        ['--target-layers', 'model.blocks[-1]', 'model.bn2', '--not-show'],
        ['--target-category', 'Tabby Cat', 'top2', '--scale', 'shared', '--view', 'network'],
        ['--method', 'eigencam', '--layout', 'overlay'],
        ['--num-extra-tokens', '0', '--vit-like'],
        ['--width', 'column', '--alpha', 'heat', '--colormap', 'viridis', '--dpi', '150'],
        ['--cfg-options', 'model.model_name=tf_efficientnet_lite0'],
    ],
)
def test_options(capsys, tmp_path, options):
    code, out, _ = run(capsys, 'demo/chelsea.png', CONFIG, '-o', tmp_path, *options)
    assert code == 0
    for path in out.splitlines():
        with Image.open(path) as image:
            image.load()


@pytest.mark.parametrize(
    ('suffix', 'option'),
    [('png', '-o'), ('jpg', '--save-path'), ('webp', '--out-dir'), ('pdf', '--output_dir'), ('svg', '--out')],
)
def test_a_picture_suffix_makes_one_file(capsys, tmp_path, suffix, option):
    target = tmp_path / 'deep' / f'figure.{suffix}'
    assert run(capsys, COFFEE, CONFIG, option, target)[:2] == (0, f'{target}\n')
    assert files(tmp_path) == [f'deep/figure.{suffix}']


def test_by_default_another_choice_never_overwrites_the_last(capsys, tmp_path, monkeypatch):
    coffee, config = os.path.abspath(COFFEE), os.path.abspath(CONFIG)
    monkeypatch.chdir(tmp_path)
    for options in (
        [],
        ['--method', 'layercam'],
        ['--target-category', 'cup'],
        ['--target-layers', 'model.blocks[-1]'],
    ):
        assert run(capsys, coffee, config, *options)[0] == 0
    assert len(files(tmp_path / 'work_dirs/efficientnet-lite0_in1k/vis_cam')) == 4


def test_preview_model_needs_no_checkpoint_and_writes_nothing(capsys, tmp_path):
    code, out, _ = run(
        capsys, COFFEE, 'configs/timm/vit_tiny_patch16_224.py', '--preview-model', '-o', tmp_path / 'x.png'
    )
    assert code == 0 and 'blocks' in out and not files(tmp_path)


def test_positionals_may_come_after_options(capsys, tmp_path):
    assert run(capsys, '-o', tmp_path / 'x.png', COFFEE, '--seed', '3', CONFIG, 'demo://efficientnet-lite0')[0] == 0


@pytest.fixture(scope='module')
def broken(tmp_path_factory):
    folder = tmp_path_factory.mktemp('broken')
    (folder / 'text.jpg').write_text('this is no picture')
    (folder / 'empty.png').write_bytes(b'')
    Image.open(COFFEE).convert('RGB').save(folder / 'whole.jpg')
    data = (folder / 'whole.jpg').read_bytes()
    (folder / 'truncated.jpg').write_bytes(data[: len(data) // 3])
    (folder / 'syntax.py').write_text('model = dict(type=\n')
    (folder / 'no_model.py').write_text("default_scope = 'mmpretrain'\n")
    (folder / 'notes.txt.pth').write_text('hello')
    (folder / 'empty').mkdir()
    torch.save({'state_dict': {'layer.weight': torch.zeros(64, 64)}}, folder / 'half.pth')
    data = (folder / 'half.pth').read_bytes()
    (folder / 'half.pth').write_bytes(data[: len(data) // 2])
    torch.save({'state_dict': Malicious(folder / 'ran')}, folder / 'malicious.pth')
    torch.save(torch.nn.Sequential(torch.nn.Linear(9, 9), torch.nn.Linear(9, 7)).state_dict(), folder / 'other.pth')
    return folder


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['nowhere.png', CONFIG], r'nowhere\.png'),
        (['{}/text.jpg', CONFIG], r'text\.jpg'),
        (['{}/truncated.jpg', CONFIG], r'truncated\.jpg'),
        (['{}/empty.png', CONFIG], r'empty\.png'),
        ([COFFEE, 'configs/efficientnet_lite/efficientnet-lite9.py'], 'efficientnet-lite0_in1k'),
        ([COFFEE, '{}/empty'], 'empty'),
        ([COFFEE, 'configs/resnet'], r'resnet50_8xb32_in1k\.py'),
        ([COFFEE, '{}/syntax.py'], 'line 1'),
        ([COFFEE, '{}/no_model.py'], 'model'),
        ([COFFEE, CONFIG, '{}/missing.pth'], r'missing\.pth'),
        ([COFFEE, CONFIG, '{}/notes.txt.pth'], r'notes\.txt\.pth'),
        ([COFFEE, CONFIG, '{}/half.pth'], r'half\.pth.*truncated'),
        ([COFFEE, CONFIG, '{}/malicious.pth'], '--trust-checkpoint'),
        ([COFFEE, CONFIG, '{}/other.pth'], 'belong together'),
        ([COFFEE, CONFIG, 'demo://dinov2-vit-small-p14'], 'checkpoint'),
        ([COFFEE, CONFIG, 'demo://nothing'], 'efficientnet-lite0'),
        ([COFFEE, CONFIG, '--target-layers', 'model.bn3'], r'did you mean model\.bn'),
        ([COFFEE, CONFIG, '--target-layers', 'model.classifier'], 'no spatial map'),
        ([COFFEE, CONFIG, '--method', 'GradCMA'], 'did you mean GradCAM'),
        ([COFFEE, CONFIG, '--target-category', '1000'], '0 to 999'),
        ([COFFEE, CONFIG, '--target-category', '-1'], '0 to 999'),
        ([COFFEE, CONFIG, '--target-category', 'esspreso'], 'did you mean espresso'),
        ([COFFEE, CONFIG, '--target-category', 'crane'], r'134.*517'),
        (
            [
                COFFEE,
                'configs/vision_transformer/vit-base-p16_ft-64xb64_in1k-384.py',
                'none',
                '--num-extra-tokens',
                '7',
            ],
            '--num-extra-tokens',
        ),
        ([COFFEE, CONFIG, '--num-extra-tokens', '-1'], 'is not a number of tokens'),
        ([COFFEE, CONFIG, '--num-extra-tokens', '1,x'], 'is not a number of tokens'),
        ([COFFEE, CONFIG, '--device', 'cuda:99'], 'cpu'),
        ([COFFEE, CONFIG, '--device', 'toaster'], 'toaster'),
        ([COFFEE, CONFIG, '-o', '/proc/nowhere/x.png'], '--out'),
        ([COFFEE, CONFIG, '-o', 'x.tiff'], 'png'),
        ([COFFEE, CONFIG, '--layout', 'circle'], 'grid'),
        ([COFFEE, CONFIG, '--alpha', '2'], '0 to 1'),
        ([COFFEE, CONFIG, '--width', 'wide'], 'column'),
        ([COFFEE, CONFIG, '--colormap', 'jett'], 'jet'),
        ([COFFEE, CONFIG, '--meth', 'gradcam'], 'unrecognized|--method'),
        ([COFFEE, 'timm::resnet18', 'none', '--cfg-options', 'model.model_name=nope'], r'nope.*--cfg-options'),
        ([COFFEE, 'torchvision::resnet18', 'none', '--cfg-options', 'model.model_name=nope'], r'nope.*--cfg-options'),
        ([COFFEE], 'config'),
        (['--method', 'gradcam', COFFEE, CONFIG], 'positional'),
        ([COFFEE, CONFIG, '--cfg-options', 'model'], 'KEY=VALUE'),
        ([COFFEE, CONFIG, '--cfg-options', "a=[dict(b='c',d=2),dict(e=3)]"], 'holds a dict; accepted: numbers'),
        (['@val', 'timm::test_resnet', 'none'], r'has no val dataset \(val_dataloader.dataset\); accepted: @test$'),
        ([COFFEE, CONFIG, '--log-level', 'loud'], 'warning'),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(capsys, tmp_path, broken, argv, message):
    import re

    words = [word.format(broken) for word in argv]
    if '-o' not in words:
        words += ['-o', str(tmp_path / 'out.png')]
    code, out, err = run(capsys, *words)
    assert code == 2 and out == ''
    *before, last = err.strip().splitlines()
    assert last.startswith('error: ') and re.search(message, last), last
    assert not any('error' in line.lower() for line in before), err
    assert 'Traceback' not in err and 'usage:' not in err
    assert not files(tmp_path) and not (broken / 'ran').exists()


MY_MODEL = """
from mmengine.registry import MODELS
from torch import nn


@MODELS.register_module()
class MyNet(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 7, stride=8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.fc = nn.Linear(8, classes)

    def forward(self, x):
        x = self.body(self.stem(x))
        return {'features': x, 'logits': self.fc(x.mean((2, 3)))}
"""

MY_CONFIG = """
custom_imports = dict(imports=['my_model'])
model = dict(type='MyNet', classes=4)
data_preprocessor = dict(mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(96, 64)),
    dict(type='mmpretrain.PackInputs'),
]
"""


def test_as_a_subprocess_with_a_users_own_module_from_the_users_own_folder(tmp_path):
    (tmp_path / 'my_model.py').write_text(MY_MODEL)
    (tmp_path / 'mine.py').write_text(MY_CONFIG)
    words = [os.path.abspath('tools/vis_cam.py'), os.path.abspath(COFFEE), 'mine.py', 'none']
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == 'work_dirs/mine/vis_cam/coffee_gradcam_none.png\n' and 'target layer: body (' in done.stderr
    assert (tmp_path / done.stdout.strip()).stat().st_size > 1000
    written = [name for name in files(tmp_path) if '__pycache__' not in name]
    assert written == ['mine.py', 'my_model.py', done.stdout.strip()]


NETWORK = """
import torch
from mmengine.registry import MODELS
from torch import nn

@MODELS.register_module(force=True)
class TwoHeads(nn.Module):
    def __init__(self, age=False):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.fc, self.age = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 1), age

    def forward(self, x):
        features = self.layer(x).relu().mean((2, 3))
        y = self.fc(features)
        return {'features': features, 'age': 57.2 + y[:, 0]} if self.age else (features[:, :3], y, 2 * y)
"""


def written_config(folder, **entries):
    (folder / 'two_heads.py').write_text(NETWORK)
    path = folder / 'mine.py'
    steps = [{'type': 'LoadImageFromFile'}, {'type': 'Resize', 'scale': (32, 32)}, {'type': 'PackInputs'}]
    known = {'model': {'type': 'TwoHeads'}, 'test_pipeline': steps, 'default_scope': 'mmpretrain'}
    lines = [f'{key} = {value!r}' for key, value in (known | entries).items()]
    path.write_text('\n'.join(["custom_imports = dict(imports=['two_heads'])", *lines]))
    return path


@pytest.fixture
def importable(tmp_path, monkeypatch):
    monkeypatch.setattr('sys.path', [str(tmp_path), *__import__('sys').path])
    return tmp_path


def recipe_of(path):
    return json.loads(str(np.load(path)['recipe']))


def test_outputs_are_named_on_the_command_line_or_in_the_config(importable, capsys):
    arguments = [
        COFFEE,
        written_config(importable),
        'none',
        '-o',
        importable / 'x.png',
        '--save-raw',
        '--target-layers',
        'layer',
    ]
    code, _, err = run(capsys, *arguments)
    assert (
        code == 2
        and 'error: --output: 3 tensors of the output may hold the scores: [0] (1, 3), [1] (1, 1), [2] (1, 1)' in err
    )
    assert 'accepted: --output 0, --output 1, --output 2' in err and '--activation' in err and 'cam_target' in err
    assert run(capsys, *arguments, '--output', '2', '--activation', 'sigmoid', '--target-category', '0', '1')[0] == 0
    typed = recipe_of(importable / 'x.npz')
    assert [target['name'] for target in typed['targets']] == ['class 0', 'class 1']
    assert sum(target['score'] for target in typed['targets']) == pytest.approx(1)
    arguments[1] = written_config(importable, output='[2]', activation='sigmoid')
    assert run(capsys, *arguments, '--target-category', '0', '1')[0] == 0
    assert recipe_of(importable / 'x.npz')['targets'] == typed['targets']
    assert run(capsys, *arguments, '--activation', 'relu')[0] == 2


def test_a_value_and_the_evidence_against_it(importable, capsys):
    config = written_config(importable, model={'type': 'TwoHeads', 'age': True})
    arguments = [COFFEE, config, 'none', '-o', importable / 'x.png', '--save-raw', '--target-layers', 'layer']
    assert run(capsys, *arguments, '--target-category', 'value', '-value')[0] == 0
    names = [target['name'] for target in recipe_of(importable / 'x.npz')['targets']]
    assert names == ['age', 'against age'] and recipe_of(importable / 'x.npz')['prediction']['score'] > 30
    code, out, _ = run(capsys, COFFEE, config, '--preview-model')
    assert (
        code == 0
        and 'output features: 8' in out
        and 'output age: scalar  ← 1 value, not classes (assumed: it is called' in out
    )
    assert run(capsys, *arguments, '--score-sign', '-')[0] == 0
    assert [target['name'] for target in recipe_of(importable / 'x.npz')['targets']] == ['against age']


TORCH_DATASET = """
from mmengine.registry import DATASETS

@DATASETS.register_module(force=True)
class Photos:
    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        raise NotImplementedError
"""


@pytest.mark.parametrize('truth', [61.5, 61, {'gt_score': [61.5]}, {'gt_label': 61}])
def test_a_regression_shows_what_the_dataset_says_beside_its_value(importable, capsys, truth):
    (importable / 'photos.py').write_text(TORCH_DATASET)
    photo = os.path.abspath(COFFEE)
    if isinstance(truth, dict):
        listed = importable / 'ages.json'
        listed.write_text(json.dumps({'metainfo': {}, 'data_list': [{'img_path': photo, **truth}]}))
        dataset = {'type': 'mmpretrain.BaseDataset', 'ann_file': str(listed)}
    else:
        dataset = {'type': 'Photos', 'samples': [(photo, truth)]}
    __import__('sys').modules.pop('photos', None)
    config = written_config(importable, model={'type': 'TwoHeads', 'age': True}, val_dataloader={'dataset': dataset})
    config.write_text(config.read_text().replace("['two_heads']", "['two_heads', 'photos']"))
    arguments = ['@val', config, 'none', '-o', importable / 'out', '--target-layers', 'layer', '--save-raw']
    code, _, err = run(capsys, *arguments)
    assert code == 0, err
    (entry,) = map(json.loads, (importable / 'out' / 'manifest.jsonl').read_text().splitlines())
    assert entry['label'] is None
    assert entry['prediction']['truth'] == entry['targets'][0]['truth'] == pytest.approx(61, abs=0.5)
    code, _, err = run(capsys, *arguments, '--only', 'wrong')
    assert code == 2 and 'value, not classes' in err


def test_metrics_stand_in_the_raw_file_and_the_manifest(capsys, tmp_path):
    words = ['--metrics', 'drop', 'sparse', '--protocol', 'torchcam', '--method', 'gradcam', 'center']
    code, _, err = run(capsys, 'demo/c*.png', CONFIG, '-o', tmp_path / 'x', '--save-raw', '--batch-size', '2', *words)
    assert code == 0, err
    file = next((tmp_path / 'x').glob('coffee*.npz'))
    raw = np.load(file, allow_pickle=False)
    assert raw['metric_names'].tolist() == ['drop', 'sparseness'] and raw['metrics_0'].shape == (2, 2)
    assert json.loads(str(raw['recipe']))['protocol']['name'] == 'torchcam'
    entry = json.loads((tmp_path / 'x' / 'manifest.jsonl').read_text().splitlines()[-1])
    assert [each['method'] for each in entry['metrics']] == ['gradcam', 'center']
    assert entry['metrics'][0]['drop'] == raw['metrics_0'][0, 0]
    code, out, err = run(capsys, 'demo/coffee.png', CONFIG, '-o', tmp_path / 'y.png', '--metrics', 'pointing')
    assert (code, out) == (2, '') and err.count('\n') == 1
    assert err.startswith('error: --metrics: pointing compares a map with a mask of the object, and there is none')


def test_a_file_names_the_classes_of_a_model_without_a_config(capsys, tmp_path):
    names = tmp_path / 'names.txt'
    names.write_text('\ufeff' + '\n'.join(f'thing {index}' for index in range(1000)) + '\n\n')
    network = ('timm::tf_efficientnet_lite0', 'demo://efficientnet-lite0', '--classes-file', names)
    asked = ('--target-category', 'thing 967', '-o', tmp_path / 'x.png', '--save-raw')
    assert run(capsys, COFFEE, *network, *asked)[0] == 0
    recipe = json.loads(str(np.load(tmp_path / 'x.npz', allow_pickle=False)['recipe']))
    assert (recipe['targets'][0]['id'], recipe['targets'][0]['name']) == (967, 'thing 967')
    assert run(capsys, COFFEE, *network, '--preview-model')[0] == 0


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        (
            'cat\ndog\n',
            '2 class names for 1,000 outputs of tf_efficientnet_lite0; accepted: one for each',
        ),
        ('cat\n\ndog\n', 'line 2: no name'),
        ('\n', 'has no names; accepted: a class name on each line'),
    ],
)
def test_names_that_do_not_fit_are_one_line(text, said, capsys, tmp_path):
    names = tmp_path / 'names.txt'
    names.write_text(text)
    network = ('timm::tf_efficientnet_lite0', 'demo://efficientnet-lite0', '--classes-file', names)
    code, _, err = run(capsys, COFFEE, *network, '-o', tmp_path / 'x.png')
    assert code == 2 and '--classes-file: ' in err and said in err
    assert run(capsys, COFFEE, *network, '--preview-model')[0] == 2
