"""vis_lr as a user runs it: in-process for the many cases, as a subprocess for what only a process shows."""

import csv
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from command_line import files, runner
from PIL import Image

from vistool.commands.vis_lr import main

run = runner(main)
CIFAR = 'configs/resnet/resnet50_b16x8_cifar100.py'
REPVGG = 'configs/repvgg/repvgg-B3g4_4xb64-autoaug-lbs-mixup-coslr-200e_in1k.py'
MAE = 'mmpretrain::mae/benchmarks/vit-base-p16_8xb128-coslr-100e_in1k.py'
SMALL = ['-d', '640', '-n', '2']


def table(path):
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def test_the_documented_example_with_the_dataset_absent(capsys, tmp_path):
    code, out, err = run(capsys, CIFAR, '-o', tmp_path / 'x.png')
    assert code == 0 and out == f'{tmp_path}/x.png\n'
    assert 'CIFAR100 not found under data/cifar100; taking its published 50000 images' in err
    assert '200 epochs × 3,125 = 625,000 iterations' in err and 'set for a total batch of 128' in err


def test_the_documented_example_of_repvgg(capsys, tmp_path):
    target = tmp_path / 'repvgg-B3g4_4xb64-lr.jpg'
    code, out, err = run(capsys, REPVGG, '--dataset-size', '1281167', '--ngpus', '4', '--save-path', target)
    assert code == 0 and out == f'{target}\n'
    assert (
        '200 epochs × 5,005 = 1,001,000 iterations · batch 4 × 64 = 256 · warm-up 25,025 iterations = 5 epochs' in err
    )
    with Image.open(target) as image:
        assert image.format == 'JPEG' and image.width == 960


def test_the_table_holds_every_step(capsys, tmp_path):
    code, out, _ = run(capsys, CIFAR, *SMALL, '-p', 'all', '-o', tmp_path / 'x.png', '--save-raw')
    assert code == 0 and out.split() == [f'{tmp_path}/x.png', f'{tmp_path}/x.csv']
    rows = table(tmp_path / 'x.csv')
    assert list(rows[0]) == ['step', 'epoch', 'config', 'group', 'parameter', 'value']
    assert {row['parameter'] for row in rows} == {'lr', 'momentum', 'weight_decay'} and len(rows) == 3 * 4000
    rates = [row for row in rows if row['parameter'] == 'lr']
    epochs = np.array([int(row['epoch']) for row in rates])
    assert [int(row['step']) for row in rates] == list(range(4000)) and epochs.tolist() == [
        step // 20 for step in range(4000)
    ]
    expected = 0.1 * 0.2 ** np.searchsorted([60, 120, 160], epochs, side='right')
    np.testing.assert_allclose([float(row['value']) for row in rates], expected, rtol=1e-12)


def test_layer_decay_is_one_curve_a_layer_and_no_legend(capsys, tmp_path):
    code, _, _ = run(capsys, MAE, '-d', '12800', '-n', '8', '-o', tmp_path / 'mae.svg', '--save-raw')
    assert code == 0
    rows = table(tmp_path / 'mae.csv')
    groups = list(dict.fromkeys(row['group'] for row in rows))
    assert groups == [f'layer {index}' for index in range(14)]
    peaks = [max(float(row['value']) for row in rows if row['group'] == group) for group in groups]
    np.testing.assert_allclose(peaks, [2e-3 * 0.65 ** (13 - layer) for layer in range(14)], rtol=1e-9)
    drawn = (tmp_path / 'mae.svg').read_text()
    assert 'layer 13' in drawn and 'layer 7' not in drawn


def test_auto_scale_lr_multiplies_the_rate(capsys, tmp_path):
    code, _, err = run(capsys, CIFAR, *SMALL, '--auto-scale-lr', '-o', tmp_path / 'x.png', '--save-raw')
    assert code == 0 and 'learning rate × 0.25' in err and 'set for a total batch of 128' not in err
    assert float(table(tmp_path / 'x.csv')[0]['value']) == 0.1 * 0.25


def test_a_real_log_over_the_plan(capsys, tmp_path):
    log = tmp_path / 'scalars.json'
    entries = [
        {'lr': 0.1, 'loss': 1.5, 'iter': 10, 'step': 10},
        {'accuracy': 9.0, 'step': 1},
        {'lr': 0.02, 'step': 1201},
    ]
    log.write_text('\n'.join(map(json.dumps, entries)))
    code, _, err = run(capsys, CIFAR, *SMALL, '--log', log, '-o', tmp_path / 'x.png', '--save-raw')
    assert code == 0 and '2 values logged, off the plan by at most' in err
    logged = [row for row in table(tmp_path / 'x.csv') if row['group'] == 'logged']
    assert [(row['step'], row['epoch'], row['value']) for row in logged] == [('9', '0', '0.1'), ('1200', '60', '0.02')]


def test_several_configs_have_curves_of_their_own(capsys, tmp_path):
    code, _, _ = run(capsys, CIFAR, REPVGG, CIFAR, '-d', '2000', '-o', tmp_path, '--save-raw')
    (raw,) = tmp_path.glob('*.csv')
    assert code == 0
    configs = list(dict.fromkeys(row['config'] for row in table(raw)))
    assert configs == ['resnet50_b16x8_cifar100', REPVGG.split('/')[-1][:-3], 'resnet50_b16x8_cifar100 #2']


def test_the_real_annotations_are_counted(capsys, tmp_path):
    config = tmp_path / 'demo.py'
    config.write_text(
        f"_base_ = '{os.path.abspath(CIFAR)}'\n"
        "train_dataloader = dict(dataset=dict(_delete_=True, type='CustomDataset', data_root='demo/dataset', "
        "ann_file='train.txt', pipeline=[dict(type='LoadImageFromFile')]), batch_size=4)\n"
    )
    code, _, err = run(capsys, config, '-o', tmp_path / 'x.png')
    assert code == 0 and '200 epochs × 3 = 600 iterations' in err


@pytest.mark.parametrize(
    'options',
    [
        ['--style', 'darkgrid', '--window-size', '12*7', '--title', 'ours $x_1'],
        ['--style', 'ticks', '--width', 'column', '--dpi', '150'],
        ['--style', 'white', '--parameter', 'momentum', '--not-show'],
        ['--style', 'dark', '-p', 'wd', '--log-level', 'WARNING'],
        ['--cfg-options', 'optim_wrapper.optimizer.lr=0.5', 'train_cfg.max_epochs=3'],
    ],
)
def test_options(capsys, tmp_path, options):
    code, out, _ = run(capsys, CIFAR, *SMALL, *options, '-s', tmp_path / 'x.png')
    assert code == 0
    with Image.open(out.strip()) as image:
        assert image.size == ((1152, 672) if '--window-size' in options else image.size)


def test_by_default_another_choice_never_overwrites_the_last(capsys, tmp_path, monkeypatch):
    config = os.path.abspath(CIFAR)
    monkeypatch.chdir(tmp_path)
    for options in ([], ['-p', 'wd'], ['--auto-scale-lr']):
        assert run(capsys, config, *SMALL, *options)[0] == 0
    assert len(files(tmp_path / 'work_dirs/resnet50_b16x8_cifar100/vis_lr')) == 3


@pytest.fixture(scope='module')
def broken(tmp_path_factory):
    folder = tmp_path_factory.mktemp('broken')
    loop = "train_cfg = dict(by_epoch=True, max_epochs=3)\noptim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))\n"
    loader = "train_dataloader = dict(batch_size=4, dataset=dict(type='CustomDataset', data_root='nowhere'))\n"
    schedule = "param_scheduler = dict(type='StepLR', step_size=1)\n"
    old = "lr_config = dict(policy='step', step=[8])\nrunner = dict(type='EpochBasedRunner', max_epochs=9)\n"
    (folder / 'old.py').write_text(old + "optimizer = dict(type='SGD', lr=0.1)\n")
    (folder / 'model_only.py').write_text("model = dict(type='ImageClassifier')\n")
    (folder / 'constant.py').write_text(loop + loader)
    (folder / 'no_loader.py').write_text(loop + schedule)
    (folder / 'no_data.py').write_text(loop + loader + schedule)
    (folder / 'unknown.py').write_text(loop + loader + "param_scheduler = dict(type='NoSuchLR')\n")
    (folder / 'argument.py').write_text(loop + loader + "param_scheduler = dict(type='StepLR', steps=3)\n")
    (folder / 'zero.py').write_text(loop + loader + "param_scheduler = dict(type='LinearLR', start_factor=0.0)\n")
    (folder / 'loop.py').write_text(loop.replace('by_epoch=True', "type='MyLoop'") + loader + schedule)
    (folder / 'optimizer.py').write_text(loop.replace('SGD', 'NoSuchOptimizer') + loader + schedule)
    (folder / 'hook.py').write_text(loop + loader + schedule + "custom_hooks = [dict(type='NoSuchHook')]\n")
    (folder / 'off.py').write_text(loop + loader + schedule + 'default_hooks = dict(param_scheduler=None)\n')
    (folder / 'empty.json').write_text('{"loss": 1}\n')
    (folder / 'text.json').write_text('hello\nworld\n')
    return folder


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['{}/old.py'], r'before MMEngine.*lr_config → param_scheduler, runner → train_cfg'),
        (['{}/model_only.py'], 'trains nothing'),
        (['{}/constant.py', '-d', '9'], 'no param_scheduler'),
        (['{}/no_loader.py', '-d', '9'], r'train_dataloader\.batch_size'),
        (['{}/no_data.py'], '--dataset-size'),
        (['{}/unknown.py', '-d', '9'], 'NoSuchLR'),
        (['{}/argument.py', '-d', '9'], r'param_scheduler\[0\].*steps'),
        (['{}/zero.py', '-d', '9'], 'training would stop after 1|ZeroDivisionError'),
        (['{}/loop.py', '-d', '9'], 'EpochBasedTrainLoop'),
        (['{}/optimizer.py', '-d', '9'], 'NoSuchOptimizer'),
        (['{}/hook.py', '-d', '9'], 'custom_hooks'),
        (['{}/off.py', '-d', '9'], 'ParamSchedulerHook'),
        (
            [CIFAR, '-d', '9', '--cfg-options', 'train_dataloader.drop_last=True'],
            '9 images does not fill one batch of 16 on 1 GPU, and train_dataloader.drop_last leaves it out',
        ),
        ([CIFAR, '-d', '0'], '--dataset-size'),
        ([CIFAR, '-d', '640', '-n', '0'], '--ngpus: 0 GPUs'),
        ([CIFAR, '-d', '640', '-n', 'two'], 'two'),
        ([CIFAR, '--window-size', '12x7'], r'W\*H'),
        ([CIFAR, '--window-size', '0*7'], r'W\*H'),
        ([CIFAR, '--style', 'whitegird'], 'darkgrid, whitegrid, dark, white, ticks.*did you mean whitegrid'),
        ([CIFAR, *SMALL, '-p', 'lrr'], 'lr, momentum, wd, betas, all'),
        ([CIFAR, *SMALL, '-p', 'betas'], 'SGD has no betas'),
        ([CIFAR, *SMALL, '--log', '{}/nowhere.json'], 'nowhere.json'),
        ([CIFAR, *SMALL, '--log', '{}/empty.json'], 'no learning rate'),
        ([CIFAR, *SMALL, '--log', '{}/text.json'], 'line 1'),
        ([CIFAR, *SMALL, '--log', 'a', '--log', 'b'], '2 logs for 1 config'),
        (['configs/resnet'], r'resnet50_8xb32_in1k\.py'),
        ([CIFAR, '-o', 'x.tiff'], 'png'),
        ([], 'config'),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(capsys, tmp_path, broken, argv, message):
    words = [word.format(broken) for word in argv]
    if '-o' not in words:
        words += ['-o', str(tmp_path / 'out.png')]
    code, out, err = run(capsys, *words)
    assert code == 2 and out == ''
    last = err.strip().splitlines()[-1]
    assert last.startswith('error: ') and re.search(message, last), last
    assert 'Traceback' not in err and 'usage:' not in err
    assert not files(tmp_path)


def test_as_a_subprocess_a_plain_schedule_imports_no_network_code(tmp_path):
    script, config = os.path.abspath('tools/vis_lr.py'), os.path.abspath(CIFAR)
    code = (
        'import sys, runpy\n'
        f'sys.argv = ["vis_lr.py", {config!r}, "-d", "640"]\n'
        f'try: runpy.run_path({script!r}, run_name="__main__")\n'
        'except SystemExit as done: assert done.code == 0\n'
        'heavy = {"mmpretrain", "seaborn", "vistool.analyses.cam"} & set(sys.modules)\n'
        'assert not heavy, heavy'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == 'work_dirs/resnet50_b16x8_cifar100/vis_lr/resnet50_b16x8_cifar100_lr.png\n'
    assert files(tmp_path) == [done.stdout.strip()]
