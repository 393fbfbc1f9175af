"""Command lines drawn at random from the commands' own parsers, and a folder of good, bad and odd things to name."""

from __future__ import annotations

import argparse
import json
import os
import random

import numpy as np
import torch
from PIL import Image

from vistool.commands import (
    browse_dataset,
    vis_attention,
    vis_cam,
    vis_check,
    vis_diff,
    vis_featmap,
    vis_lr,
    vis_patches,
    vis_tsne,
)

COMMANDS = {
    'vis_cam': vis_cam,
    'vis_attention': vis_attention,
    'vis_featmap': vis_featmap,
    'vis_patches': vis_patches,
    'browse_dataset': browse_dataset,
    'vis_lr': vis_lr,
    'vis_check': vis_check,
    'vis_diff': vis_diff,
    'vis_tsne': vis_tsne,
}

COMMON = """
custom_imports = dict(imports=['mmpretrain.datasets'], allow_failed_imports=False)
default_scope = 'mmpretrain'
train_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32)),
                  dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
dataset = dict(type='CustomDataset', data_root='{{ fileDirname }}', data_prefix='classes')
train_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
                        dataset=dict(pipeline=train_pipeline, **dataset))
val_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
                      dataset=dict(pipeline=test_pipeline, **dataset))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9))
param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=True, end=2),
                   dict(type='CosineAnnealingLR', by_epoch=True, begin=2, T_max=8)]
train_cfg = dict(by_epoch=True, max_epochs=10)
auto_scale_lr = dict(base_batch_size=2)
data_preprocessor = dict(mean=[127.0] * 3, std=[64.0] * 3, to_rgb=True)
"""
NETWORKS = {
    'vit': "dict(type='VisionTransformer', img_size=32, patch_size=8, out_type='cls_token', arch=dict("
    'embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32))',
    'cnn': "dict(type='ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[8, 8, 16, 16]))",
}

NUMBERS = ['0', '1', '2', '3', '-1', '-0', '²', '٣', '1e3', '0.5', '99999', '99999999999', '9' * 20, '9' * 5000, 'nan',
           'inf', '-inf', '1_000', '0x10', ' 7 ', '+2', '1.', '']  # fmt: skip
TEXTS = ['', ' ', '-', 'x', 'X', '²', 'a\nb', 'ü', '/', '..', '*', 'none', 'all', 'nan', 'a' * 300, '\udcff', '{}',
         '[', '0,0', ',', '1,2', '-1,-2', '1,2,3', '0-99999999999', '7-', '-5', '5:2', '0:4', '%s', '%(x)s', '\x00',
         '\t', '$HOME', '~nouser', 'a=b', '=', 'a=', '--', '0', '99999999999999999999', 'True', "'", '"']  # fmt: skip

PLAUSIBLE = {
    'checks': ['maps', 'classes', 'direction', 'gridpg', 'nope', 'all'],
    'methods': ['GradCAM', 'LayerCAM', 'eigencam', 'GradCAM++', 'FinerCAM', 'all', 'ScoreCAM'],
    'method': ['raw', 'rollout', 'grad-rollout', 'legrad'],
    'targets': ['0', '1', 'cat', 'dog', 'top2', 'label', '2'],
    'contrast': ['0', 'dog', '1'],
    'layers': ['backbone', 'head', '-1', '0:2', 'all', 'backbone.layers[-1]', 'backbone.stages[0]', 'stages.0',
               'backbone.layers.1.ln1', 'backbone.downsample_layers[0]#2', 'backbone.layers[0].ln1'],
    'layer_fusion': ['mean', 'max', 'none'],
    'heads': ['all', 'mean', 'max', '0', '1', '7'],
    'queries': ['cls', 'mean', '3', '10,10', '99,99'],
    'heads_': [],
    'reduction': ['mean', 'sum', 'max', 'norm', 'select_max', 'pca', 'none'],
    'criterion': ['mean', 'max', 'norm', 'std'],
    'channels': ['0', '3', '0-3', '2:5', '-1', '0-99999999999'],
    'similar_to': ['3,3', '10,20', '1e9,2', 'nan,1'],
    'img_size': ['32', '64', '48,64', '0.5x', '2x', '99999', '0x'],
    'fit': ['crop', 'pad', 'resize'],
    'score_sign': ['+', '-'],
    'output': ['0', 'logits', '1'],
    'activation': ['auto', 'softmax', 'sigmoid', 'none'],
    'layout': ['grid', 'overlay'],
    'width': ['column', 'text', 'screen', '400', '64', '2000', '16384'],
    'display_range': ['auto', '0,255', '2%,98%', '255,0'],
    'bands': ['1,2,3', '1', '4,3,2'],
    'axes': ['HWC', 'CHW'],
    'colormap': ['viridis', 'jet', 'gray'],
    'alpha': ['0.5', 'heat', '0', '1', '2'],
    'backends': ['local', 'nope'],
    'device': ['cpu', 'meta', 'cuda:7', 'mps', 'cuda'],
    'options': ['model.head.num_classes=2', 'model.backbone.patch_size=4', 'test_dataloader=1', 'train_dataloader=5',
                'optim_wrapper=5', 'param_scheduler=5', 'auto_scale_lr=5', 'model.model_name=nope', 'a=b', 'model=5',
                'model.head.in_channels=7', 'train_cfg.max_epochs=1000000', 'train_cfg=3', 'val_dataloader=None',
                'test_pipeline=7', 'model.backbone=x', 'data_preprocessor=3', 'default_scope=nope',
                'train_dataloader.batch_size=0', 'train_dataloader.batch_size=-1', 'train_dataloader.dataset=3',
                'train_dataloader.sampler=3', 'optim_wrapper.optimizer.lr=x', 'param_scheduler.0.end=-1',
                'test_dataloader.dataset.pipeline="[1,2]"', 'custom_imports=4', 'visualizer=3', 'resume=5'],
    'mode': ['original', 'transformed', 'concat', 'pipeline', 'batch'],
    'phase': ['train', 'val', 'test'],
    'channel_order': ['BGR', 'RGB', 'rgb'],
    'show_number': ['all', '1', '2', '0', '-1'],
    'indices': ['0', '-1', '0-1', '1,0', '99', '0-99999999999'],
    'classes': ['0', 'cat', 'dog', '9'],
    'only': ['wrong', 'right', 'uncertain'],
    'parameters': ['lr', 'momentum', 'wd', 'betas', 'all', 'lr,momentum'],
    'theme': ['darkgrid', 'whitegrid', 'dark'],
    'size': ['5*4', '12*7', '1*1', '999*1'],
    'patch_size': ['8', '8,16', '0', '-3'],
    'stride': ['8', '4', '0'],
    'pad': ['0', '2', 'inf', '-1'],
    'pad_value': ['0', '255', '1,2,3', '999'],
    'mask': ['random', 'block', 'grid'],
    'highlight': ['0', '3', '99'],
    'launcher': ['none', 'nope', 'slurm'],
    'interpolation': ['nearest', 'bilinear', 'bicubic'],
    'scale': ['each', 'shared', 'percentile'],
    'view': ['original', 'network'],
    'align': ['center', 'corner', 'centre'],
    'log_level': ['debug', 'info', 'warning', 'error'],
    'title': ['a title', '$x^2$', '$', 'ü', ''],
    'draw_on': ['inputs', 'x'],
    'files': ['depth=good.png', 'x=nowhere'],
    'fail_if': ['iou<0.8', 'score>0.02', 'flips>0.5%', 'mean rank<.9', 'missing>0', 'nope', 'iou='],
    'junit': ['report.xml', 'report.txt', 'folder', 'good.png/x.xml'],
    'reducer': ['tsne', 'pca', 'umap'],
    'layer': ['backbone', 'head', 'neck', 'backbone.layers[0].ln1'],
    'stage': ['backbone', 'neck', 'pre_logits'],
    'init': ['pca', 'random'],
    'perplexity': ['2', '0.5', '1', '1000'],
    'data': ['vit.py', 'nothing.py', 'broken.py'],
    'checkpoint_option': ['none', 'vit.pth', 'nowhere.pth'],
}  # fmt: skip
LEFT_OUT = {'help', 'debug', argparse.SUPPRESS}  # the last is --version
IMAGES = ['good.png', 'good.png', 'good.png', 'folder', 'folder', 'folder', 'mixed', 'list.txt', 'classes/*/*.png',
          'grey.png', 'rgba.png', 'deep.png', 'dot.png', 'thin.png', 'broken.png', 'empty.png', 'empty', 'dead.png',
          'nowhere.png', '', '@val', '@train', '@nope', '@', 'vit.py', 'array.npy', 'loop', '[', '*.nope',
          'list-of-nothing.txt', 'a' * 300, '~nouser/x.png', 'a\nb', '\x00', 'http://[::1', 'unreadable']  # fmt: skip
CONFIGS = ['vit.py', 'vit.py', 'vit.py', 'cnn.py', 'cnn.py', 'cnn.py', 'broken.py', 'exits.py', 'nothing.py',
           'data.yaml', 'nowhere.py', '', 'folder', 'good.png', 'nope::x', 'timm::', 'timm::nope',
           'mmpretrain::nope.py', 'hf::', 'dead.png', 'a' * 300, '\x00', 'empty', 'torchvision::nope',
           'resnet-nope']  # fmt: skip
CHECKPOINTS = ['none', 'none', 'none', None, 'vit.pth', 'cnn.pth', 'broken.pth', 'nowhere.pth', '', 'folder',
               'demo://nope', 'http://[::1', 'good.png', '\x00']  # fmt: skip
RUNS = ['run_a', 'run_b', 'run_a', 'run_b', 'run_a', 'run_b', 'folder', 'good.png', 'nowhere', '', 'dead.png', 'empty',
        'a' * 300, '~nouser/x', 'a\nb', '\x00', 'run_damaged']  # fmt: skip
OUTPUTS = ['out', 'out', 'out.png', 'new/deep', 'new/x.pdf', 'x.svg', 'x.webp', 'x.tif', 'good.png/x', 'dead/x',
           'a' * 300, 'a\nb', '\x00', '', '.', 'run.v2', 'x.npz']  # fmt: skip
READ = ['good.png', 'broken.png', 'nowhere', 'folder', 'basis.npz', 'log.json', 'empty', '', 'out', '\x00']


def furnish(folder):
    """Writes the images, configs and checkpoints that command lines name into ``folder``."""
    rng = np.random.default_rng(0)

    def picture(path, shape=(40, 48, 3), kind=np.uint8):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, np.iinfo(kind).max, shape).astype(kind)).save(path)

    for name in ('good.png', 'folder/a.png', 'folder/b.png', 'folder/sub/c.png', 'mixed/b.png', 'mixed/c.png'):
        picture(folder / name)
    for name in ('cat/0.png', 'cat/1.png', 'dog/2.png', 'dog/3.png'):
        picture(folder / 'classes' / name)
    picture(folder / 'grey.png', (40, 48))
    picture(folder / 'rgba.png', (40, 48, 4))
    picture(folder / 'deep.png', (40, 48), np.uint16)
    picture(folder / 'dot.png', (1, 1, 3))
    picture(folder / 'thin.png', (300, 1, 3))
    np.save(folder / 'array.npy', rng.random((5, 40, 48)).astype(np.float32))
    (folder / 'empty').mkdir()
    for name in ('broken.png', 'mixed/a.png', 'broken.pth'):
        (folder / name).write_bytes(b'\x89PNG\r\n\x1a\n damaged')
    (folder / 'empty.png').touch()
    (folder / 'dead.png').symlink_to('gone.png')
    (folder / 'loop').symlink_to('loop')
    (folder / 'list.txt').write_text('folder/a.png\nfolder/b.png\n')
    (folder / 'list-of-nothing.txt').write_text('\n')
    (folder / 'log.json').write_text('{"lr": 0.1, "step": 1}\n{"lr": 0.05, "step": 2}\n')
    for name, network in NETWORKS.items():
        head = "dict(type='LinearClsHead', num_classes=2, in_channels=16)"
        text = f"{COMMON}\nmodel = dict(type='ImageClassifier', backbone={network}, head={head})\n"
        (folder / f'{name}.py').write_text(text)
    torch.save({'state_dict': {'nothing': torch.zeros(2)}}, folder / 'vit.pth')
    torch.save({}, folder / 'cnn.pth')
    (folder / 'broken.py').write_text('model = dict(\n')
    (folder / 'exits.py').write_text('raise SystemExit(0)\n')
    (folder / 'nothing.py').write_text('x = 1\n')
    (folder / 'data.yaml').write_text('model: 3\n')
    for run, score in (('run_a', 0.7), ('run_b', 0.6), ('run_damaged', 0.5)):
        line = {'name': 'good', 'index': 0, 'input': 'good.png', 'prediction': {'id': 0, 'name': 'cat', 'score': score}}
        (folder / run).mkdir()
        (folder / run / 'run.json').write_text('{}')
        (folder / run / 'manifest.jsonl').write_text(json.dumps(line) + ('\n{' if 'damaged' in run else '') + '\n')


def command_line(rng: random.Random, name: str) -> list[str]:
    """A command line for the command ``name``: every option of its parser, with plausible and hostile values."""
    parser = COMMANDS[name].build_parser()
    known = [action for action in parser._actions if action.option_strings and action.dest not in LEFT_OUT]
    options = [_option(rng, action) for action in rng.sample(known, min(len(known), rng.choice([0, 1, 1, 2, 2, 3, 5])))]
    if rng.random() < 0.6 and '-o' not in [option[0] for option in options]:
        options.append(['-o', rng.choice(OUTPUTS[:5])])
    rng.shuffle(options)
    names = [action.dest for action in parser._actions if not action.option_strings]
    words = _positionals(rng, names)
    rest = [word for option in options for word in option]
    return words + rest if rng.random() < 0.9 else rest + words


def _positionals(rng: random.Random, names: list[str]) -> list[str]:
    pools = {'images': IMAGES, 'config': CONFIGS, 'checkpoint': CHECKPOINTS, 'before': RUNS, 'after': RUNS}
    good = rng.random() < 0.7  # so that most lines come past the reading of their files
    words = []
    for name in names:
        pool = pools[name]
        word = rng.choice(pool[:6] if good and name != 'checkpoint' else pool[:3] if good else pool)
        if word is None or (name != 'images' and rng.random() < 0.04):
            break
        words.append(word)
    return words


def _option(rng: random.Random, action: argparse.Action) -> list[str]:
    option = rng.choice(action.option_strings)
    if option.startswith('--') and rng.random() < 0.1:
        option = option.replace('-', '_').replace('__', '--', 1)
    if action.nargs == 0:
        return [option]
    count = action.nargs if isinstance(action.nargs, int) else rng.choice([1, 1, 2, 3]) if action.nargs else 1
    values = [_value(rng, action) for _ in range(count)]
    if rng.random() < 0.04:
        values = values[:-1] if rng.random() < 0.5 else [*values, _value(rng, action)]
    if option.startswith('--') and len(values) == 1 and rng.random() < 0.3:
        return [f'{option}={values[0]}']
    return [option, *values]


def _value(rng: random.Random, action: argparse.Action) -> str:
    if rng.random() < 0.3:
        return rng.choice(NUMBERS if action.type is not None or rng.random() < 0.3 else TEXTS)
    dest = action.dest
    if dest in PLAUSIBLE:
        return rng.choice(PLAUSIBLE[dest])
    if dest == 'images':
        return rng.choice(IMAGES)
    if dest in ('out', 'panels', 'sheet', 'all_channels', 'save_basis'):
        return rng.choice(OUTPUTS)
    if dest in ('basis', 'logs', 'gallery', 'reference'):
        return rng.choice(READ)
    if dest == 'compare':
        return rng.choice([*CONFIGS, 'none'])
    return rng.choice(NUMBERS[:5])


def names_of(parser: argparse.ArgumentParser) -> set[str]:
    """Everything that an error may name: the options of a command, and its positional arguments."""
    options = {name for action in parser._actions for name in action.option_strings}
    return options | {action.metavar or action.dest for action in parser._actions if not action.option_strings}


def snapshot(folder) -> dict[str, int]:
    """All files below ``folder`` with their sizes."""
    found = {}
    for place, _, files in os.walk(folder):
        for name in files:
            path = os.path.join(place, name)
            found[os.path.relpath(path, folder)] = os.lstat(path).st_size
    return found
