"""vis_featmap as a user runs it."""

import csv
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from command_line import files, runner
from PIL import Image

from vistool.commands.vis_featmap import main

run = runner(main)
CONFIG = 'configs/efficientnet_lite/efficientnet-lite0_in1k.py'
DINO = 'configs/dinov2/vit-small-p14_dinov2-pre_headless.py'
COFFEE = 'demo/coffee.png'


def raw_of(path):
    raw = np.load(path, allow_pickle=False)
    return raw, json.loads(str(raw['recipe']))


def test_all_stages_of_the_real_network(capsys, tmp_path):
    code, out, err = run(capsys, COFFEE, CONFIG, '-o', tmp_path / 'x.png', '--save-raw')
    assert code == 0 and out.split() == [str(tmp_path / 'x.png'), str(tmp_path / 'x.npz')]
    raw, recipe = raw_of(tmp_path / 'x.npz')
    stages = ['model.blocks.0', 'model.blocks.1', 'model.blocks.2', 'model.blocks.4', 'model.bn2']
    assert raw['groups'].tolist() == recipe['layers'] == stages
    assert ', '.join(stages) in err
    assert [raw[f'maps_{k}'].shape for k in range(5)] == [(1, n, n) for n in (112, 56, 28, 14, 7)]
    assert recipe['checkpoint'] == 'demo://efficientnet-lite0' and recipe['sizes'][-1] == [1280, 7, 7]


def test_raw_values_are_a_hand_written_hooks(capsys, tmp_path):
    import vistool as vt

    options = ('--target-layers', 'model.blocks[4]', '--channel-reduction', 'none', '--save-raw')
    assert run(capsys, COFFEE, CONFIG, '-o', tmp_path / 'x.png', *options)[0] == 0
    raw, _ = raw_of(tmp_path / 'x.npz')
    model = vt.load(CONFIG)
    kept = []
    model.module.model.blocks[4].register_forward_hook(lambda *call: kept.append(call[2].clone()))
    with torch.no_grad():
        model.module(model.batch([model.read(COFFEE)]))
    assert np.array_equal(raw['maps_0'], kept[0][0].numpy())
    assert raw['names_0'][17] == 'model.blocks.4/channel 17'


def test_real_against_random_weights(capsys, tmp_path):
    code, _, err = run(
        capsys, COFFEE, CONFIG, '--compare', CONFIG, 'none', '-o', tmp_path / 'x.png', '--save-raw', '--topk', '3',
        '--target-layers', 'model.blocks[4]',
    )  # fmt: skip
    assert code == 0 and 'random weights' in err
    raw, recipe = raw_of(tmp_path / 'x.npz')
    assert raw['groups'].tolist() == [
        'model.blocks.4',
        'random: model.blocks.4',
        'random − efficientnet-lite0: model.blocks.4',
    ]
    assert np.array_equal(raw['maps_2'], raw['maps_1'] - raw['maps_0'])
    assert len(recipe['similarity']) == 3 and all(0 <= each['cka'] <= 1 for each in recipe['similarity'])


def test_one_basis_over_all_images_saved_and_loaded(capsys, tmp_path):
    folder = tmp_path / 'in'
    folder.mkdir()
    for name in ('coffee.png', 'chelsea.png'):
        shutil.copy(f'demo/{name}', folder)
    (folder / 'broken.png').write_text('no picture')
    options = ('--target-layers', 'model.blocks[2]', '--channel-reduction', 'pca', '--save-raw')
    basis = tmp_path / 'basis.npz'
    code, _, err = run(capsys, folder, CONFIG, *options, '-o', tmp_path / 'a', '--save-basis', basis)
    assert code == 1 and 'broken.png' in err
    code, _, _ = run(capsys, COFFEE, CONFIG, *options, '-o', tmp_path / 'b', '--load-basis', basis)
    assert code == 0
    together, alone = (next((tmp_path / name).glob('coffee*.npz')) for name in 'ab')
    # batches of another size give other last digits, and one basis nearly the same colours
    np.testing.assert_allclose(np.load(together)['maps_0'], np.load(alone)['maps_0'], atol=1e-4)
    code, _, err = run(
        capsys, COFFEE, 'timm::resnet18', 'none', '--channel-reduction', 'pca', '--load-basis', basis, '-o', tmp_path
    )
    assert code == 2 and re.search('learned from efficientnet-lite0_in1k and has no layer', err)


def test_statistics_and_every_channel(capsys, tmp_path):
    options = ('--target-layers', 'model.bn2', '--stats', '--all-channels', tmp_path / 'channels')
    code, out, _ = run(capsys, COFFEE, CONFIG, '-o', tmp_path / 'out', *options)
    assert code == 0 and sorted(out.split()) == sorted(str(tmp_path / name) for name in files(tmp_path))
    written = list((tmp_path / 'channels/coffee/model.bn2').iterdir())
    assert len(written) == 1281 and cv2.imread(str(written[0])).shape == (224, 224, 3)
    rows = list(csv.DictReader((tmp_path / 'out/stats_model.bn2.csv').open()))
    assert len(rows) == 1280 and all(0 <= float(row['zeros']) <= 1 for row in rows)
    with Image.open(tmp_path / 'out/stats_model.bn2.png') as picture:
        assert min(picture.size) > 300


@pytest.mark.parametrize(
    'options',
    [
        ['--channels', '0', '5', '7-11', '--arrangement', '2', '4', '--scale', 'percentile'],
        ['--channel-reduction', 'select_max', '--overlay', '--interpolation', 'bicubic', '--align', 'corner'],
        ['--similar-to', '300,200', '250,120', '--width', 'column', '--view', 'original'],
        ['--similar_to', '300,200', '--compare', CONFIG, 'none'],
        ['--topk', '4', '--topk-by', 'std', '--panels', '{}/panels', '--sheet', '{}/sheet.pdf', '--not-show'],
        ['--channel-reduction', 'pca', '--foreground', '--layout', 'overlay', '--num-extra-tokens', '0'],
    ],
)
def test_options(capsys, tmp_path, options):
    words = [word.format(tmp_path) for word in options]
    code, out, err = run(capsys, COFFEE, CONFIG, '-o', tmp_path / 'out', '--target-layers', 'model.blocks[2]', *words)
    assert code == 0, err
    assert out.split() and all(Path(path).stat().st_size > 500 for path in out.split())


def test_the_preview_has_shapes_for_this_image_and_needs_no_checkpoint(capsys, tmp_path):
    code, out, _ = run(capsys, COFFEE, 'configs/resnet/resnet50_8xb32_in1k.py', '--preview-model', '-o', tmp_path / 'x')
    assert code == 0 and not files(tmp_path)
    (line,) = [line for line in out.splitlines() if re.match(r'\s+backbone\.layer4: ', line)]
    assert '2048×7×7' in line and '← stage 4' in line
    assert re.search(r'backbone\.layer1\.0\.relu: ReLU +64×56×56 +called 3 times', out)
    assert out.splitlines()[-1].startswith('output: 1000  ← 1,000 classes by softmax')


SIAMESE = """
import torch
from mmengine.registry import MODELS
from torch import nn


@MODELS.register_module()
class SiameseNet(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(inplace=True), nn.Conv2d(8, 16, 3, 2, 1))
        self.classifier = nn.Linear(16, classes)

    def forward(self, first, second=None):
        one = self.classifier(self.backbone(first).mean((2, 3)))
        return one if second is None else (one, self.classifier(self.backbone(second).mean((2, 3))))
"""
SIAMESE_CONFIG = """
custom_imports = dict(imports=['my_siamese'], allow_failed_imports=False)
model = dict(type='SiameseNet', classes=701)
test_pipeline = [dict(type='mmpretrain.LoadImageFromFile'),
                 dict(type='mmpretrain.Resize', scale=(48, 48)), dict(type='mmpretrain.PackInputs')]
"""


def test_a_users_own_siamese_network_with_another_head_in_its_checkpoint(capsys, tmp_path, monkeypatch):
    """The seed's case, from the user's own file: 701 classes now, 512 in the checkpoint, saved from DataParallel."""
    coffee = f'{tmp_path}/coffee.png'
    shutil.copy(COFFEE, coffee)
    (tmp_path / 'my_siamese.py').write_text(SIAMESE)
    (tmp_path / 'drone.py').write_text(SIAMESE_CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    from my_siamese import SiameseNet

    torch.manual_seed(3)
    trained = SiameseNet(512)
    torch.save({f'module.{name}': value for name, value in trained.state_dict().items()}, 'net_120.pth')
    code, _, err = run(
        capsys, coffee, 'drone.py', 'net_120.pth', '--target-layers', 'module.backbone[2]', '-o', 'x.png', '--save-raw',
        '--channel-reduction', 'none', '--all-channels', 'drone',
    )  # fmt: skip
    assert code == 0 and 'classifier' in err
    raw, recipe = raw_of(tmp_path / 'x.npz')
    image = torch.from_numpy(raw['image'][..., ::-1].copy()).permute(2, 0, 1)[None].float()
    kept = trained.backbone(image).detach().numpy()[0]
    assert recipe['layers'] == ['backbone.2'] and np.array_equal(raw['maps_0'], kept)
    assert len(files(tmp_path / 'drone')) == 17


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['nowhere.png', CONFIG], r'nowhere\.png'),
        ([COFFEE, 'configs/efficientnet_lite/efficientnet-lite9.py'], 'efficientnet-lite0_in1k'),
        ([COFFEE, CONFIG, '--target-layers', 'model.blocks[9]'], 'no layer'),
        ([COFFEE, CONFIG, '--target-layers', 'model.bn3'], r'did you mean model\.bn'),
        ([COFFEE, CONFIG, '--target-layers', 'model.classifier'], 'no spatial map'),
        ([COFFEE, CONFIG, '--channel-reduction', 'median'], 'select_max'),
        ([COFFEE, CONFIG, '--channel-reduction', 'pcaa'], 'did you mean pca'),
        ([COFFEE, CONFIG, '--topk', '999', '--target-layers', 'model.bn1'], '1 to 32'),
        ([COFFEE, CONFIG, '--topk', 'many'], '--topk'),
        ([COFFEE, CONFIG, '--channels', '40', '--target-layers', 'model.bn1'], '0 to 31'),
        ([COFFEE, CONFIG, '--channels', 'a-b'], 'numbers and ranges'),
        ([COFFEE, CONFIG, '--similar-to', '300'], 'X,Y'),
        ([COFFEE, CONFIG, '--similar-to', '-5,3'], 'x from 0 to 599'),
        ([COFFEE, CONFIG, '--similar-to', '2,3'], 'outside what the network saw'),
        ([COFFEE, CONFIG, '--scale', 'log'], 'percentile'),
        ([COFFEE, CONFIG, '--align', 'left'], 'corner'),
        ([COFFEE, CONFIG, '--interpolation', 'lanczos'], 'bicubic'),
        ([COFFEE, CONFIG, '--topk', '5', '--target-layers', 'model.bn1', '--arrangement', '2', '2'], 'at least 3 2'),
        ([COFFEE, CONFIG, '--arrangement', '0', '2'], 'at least 1 1'),
        ([COFFEE, CONFIG, '--load-basis', 'none.npz', '--channel-reduction', 'pca'], r'none\.npz'),
        ([COFFEE, CONFIG, '--load-basis', COFFEE, '--channel-reduction', 'pca'], 'does not hold a basis'),
        ([COFFEE, CONFIG, '--save-basis', 'b.npz'], 'add --channel-reduction pca'),
        ([COFFEE, CONFIG, '--all-channels', '/proc/nowhere'], '--all-channels'),
        ([COFFEE, CONFIG, '--compare', CONFIG, 'none', 'more'], 'CONFIG CHECKPOINT'),
        ([COFFEE, CONFIG, '--compare', 'configs/resnet/resnet50_8xb32_in1k.py', 'none', '--target-layers', 'model.bn1'],
         'resnet50_8xb32_in1k: no layer'),
        (['--channels', '3', COFFEE, CONFIG], 'positional'),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_leaves_no_file(capsys, tmp_path, argv, message):
    code, out, err = run(capsys, *argv, '-o', tmp_path / 'out.png')
    assert code == 2 and out == ''
    last = err.strip().splitlines()[-1]
    assert last.startswith('error: ') and re.search(message, last), last
    assert 'Traceback' not in err and 'usage:' not in err and not files(tmp_path)


def test_a_basis_of_another_model_is_one_line_and_leaves_no_file(capsys, tmp_path):
    pca = ('--channel-reduction', 'pca')
    own = ('--target-layers', 'model.bn1', '--save-basis', tmp_path / 'b.npz')
    assert run(capsys, COFFEE, CONFIG, *pca, *own, '-o', tmp_path / 'x.png')[0] == 0
    other = ('configs/resnet/resnet50_8xb32_in1k.py', 'none', '--target-layers', 'backbone.layer1')
    for argv, message in ((other, "no layer 'backbone.layer1'; accepted: model.bn1"), ((CONFIG,), 'has no layer')):
        code, out, err = run(capsys, COFFEE, *argv, *pca, '--load-basis', tmp_path / 'b.npz', '-o', tmp_path / 'y.png')
        last = err.strip().splitlines()[-1]
        assert code == 2 and out == '' and last.startswith('error: --load-basis') and message in last, last
    assert files(tmp_path) == ['b.npz', 'x.png']


@pytest.mark.slow
def test_the_astronauts_face_is_like_itself_and_unlike_the_wall(capsys, tmp_path):
    options = ('--target-layers', 'backbone.ln1', '--similar-to', '230,110', '--save-raw', '-o', tmp_path / 'x.png')
    assert run(capsys, 'demo/astronaut.png', DINO, *options)[0] == 0
    (cosines,) = raw_of(tmp_path / 'x.npz')[0]['maps_0']
    assert cosines.shape == (37, 37)
    assert cosines[5:10, 15:18].mean() > 0.8 and cosines[:10, 27:32].mean() < 0.1
