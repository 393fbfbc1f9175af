"""Every step of every group against mmengine's own Runner."""

import copy
import functools

import mmpretrain.engine  # noqa: F401  (registers mmpretrain's schedulers and constructors)
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS as ROOT
from mmpretrain.registry import PARAM_SCHEDULERS
from runner_oracle import assert_same, config_of

from vistool.models.configs import package_folder

MILESTONES = {'milestones': [2, 3, 3, 6], 'gamma': 0.3}
RESTARTS = {'periods': [3, 4, 5], 'restart_weights': [1, 0.5, 0.25], 'eta_min': 1e-4}
KINDS = {
    'Constant': {'factor': 0.25, 'begin': 1, 'end': 5},
    'CosineAnnealing': {'T_max': 3, 'eta_min_ratio': 0.01},
    'CosineRestart': RESTARTS,
    'Exponential': {'gamma': 0.9, 'begin': 2},
    'Linear': {'start_factor': 0.1, 'end_factor': 0.8, 'end': 5},
    'MultiStep': MILESTONES,
    'Poly': {'power': 0.9, 'eta_min': 1e-5, 'begin': 1},
    'Step': {'step_size': 2, 'gamma': 0.5},
}
CASES = {f'{kind}{suffix}': settings for kind, settings in KINDS.items() for suffix in ('LR', 'Momentum')}
CASES |= {f'{kind}ParamScheduler': {**settings, 'param_name': 'weight_decay'} for kind, settings in KINDS.items()}
CASES |= {
    'OneCycleLR': {'eta_max': 0.3, 'pct_start': 0.4, 'three_phase': True},
    'OneCycleParamScheduler': {'param_name': 'lr', 'eta_max': 0.2, 'anneal_strategy': 'linear'},
    'CosineAnnealingWeightDecay': {'T_max': 3, 'eta_min': 0.1},
    'ReduceOnPlateauLR': {'monitor': 'accuracy'},
    'ReduceOnPlateauMomentum': {'monitor': 'accuracy'},
    'ReduceOnPlateauParamScheduler': {'monitor': 'accuracy', 'param_name': 'lr'},
}
PARAMWISE = {
    'norm_decay_mult': 0.0,
    'bias_lr_mult': 2.0,
    'bias_decay_mult': 0.5,
    'custom_keys': {'cls_token': {'lr_mult': 0.1, 'decay_mult': 0.0}},
}
ADAM = {'type': 'AdamW', 'lr': 0.002, 'betas': (0.9, 0.95), 'weight_decay': 0.05}
COUNTS = {
    'epoch': {'by_epoch': True},
    'iteration': {'by_epoch': False},
    'converted': {'by_epoch': True, 'convert_to_iter_based': True},
}


def test_every_registered_scheduler_has_a_case():
    assert set(CASES) == set(ROOT.module_dict) | set(PARAM_SCHEDULERS.module_dict)


@pytest.mark.parametrize('counts', COUNTS)
@pytest.mark.parametrize('kind', CASES)
def test_alone(tmp_path, kind, counts):
    plateau = kind.startswith('ReduceOnPlateau')
    settings = {'type': kind, **CASES[kind], **({} if plateau else COUNTS[counts])}  # a plateau goes by epoch only
    optimizer = ADAM if counts == 'iteration' else None
    assert_same(config_of(settings, paramwise=PARAMWISE, optimizer=optimizer), tmp_path)


@pytest.mark.parametrize('counts', COUNTS)
@pytest.mark.parametrize('kind', [kind for kind in CASES if kind.endswith('LR') and 'Plateau' not in kind])
def test_chained_behind_a_warm_up(tmp_path, kind, counts):
    warm_up = {'type': 'LinearLR', 'start_factor': 1e-3, 'end': 2, 'convert_to_iter_based': True}
    main = {'type': kind, **CASES[kind], 'begin': 2, 'end': 7, **COUNTS[counts]}
    if counts == 'iteration':
        main |= {'begin': 8, 'end': 33}
    decay = {'type': 'CosineAnnealingWeightDecay', 'eta_min': 0.2, 'convert_to_iter_based': True}
    momentum = {'type': 'LinearMomentum', 'start_factor': 0.5, 'by_epoch': False, 'end': 17}
    assert_same(config_of([warm_up, main, decay, momentum], paramwise=PARAMWISE, optimizer=ADAM), tmp_path)


@pytest.mark.parametrize('drop_last', [False, True])
@pytest.mark.parametrize('size', [16, 17, 19])
def test_iterations_per_epoch(tmp_path, size, drop_last):
    config = config_of({'type': 'LinearLR', 'end': 3, 'convert_to_iter_based': True}, size=size)
    config.train_dataloader.drop_last = drop_last
    rows = assert_same(config, tmp_path)
    assert len(rows['']) == 8 * (size // 4 if drop_last or size == 16 else size // 4 + 1)


@pytest.mark.parametrize('size', [1, 3])
def test_a_dataset_smaller_than_a_batch(tmp_path, caplog, size):
    assert len(assert_same(config_of({'type': 'ExponentialLR', 'gamma': 0.9}, size=size), tmp_path)['']) == 8
    assert 'does not fill one batch of 4 on 1 GPU; an epoch has 1 iteration' in caplog.text


def test_a_loop_of_iterations(tmp_path):
    schedulers = [
        {'type': 'LinearLR', 'by_epoch': False, 'end': 7},
        {'type': 'PolyLR', 'by_epoch': False, 'begin': 7},
        {'type': 'StepLR', 'step_size': 1},
    ]
    for sampler in ('InfiniteSampler', 'DefaultSampler'):
        config = config_of(
            [*schedulers, {'type': 'ConstantMomentum', 'end': 1, 'convert_to_iter_based': True}],
            {'by_epoch': False, 'max_iters': 41},
            size=168,
        )
        config.train_dataloader.sampler = {'type': sampler, 'shuffle': False}
        assert_same(config, tmp_path)


def test_gradient_accumulation_changes_no_step(tmp_path):
    config = config_of({'type': 'ExponentialLR', 'gamma': 0.9, 'by_epoch': False})
    config.optim_wrapper.accumulative_counts = 4
    assert_same(config, tmp_path)


def test_one_value_a_group(tmp_path):
    # four groups, and the one that mmengine keeps for its base settings
    config = config_of(
        {'type': 'OneCycleLR', 'eta_max': [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], 'by_epoch': False},
        paramwise=PARAMWISE,
    )
    assert_same(config, tmp_path)


@pytest.mark.parametrize('by_epoch', [True, False])
def test_simsiam_holds_its_predictor(tmp_path, by_epoch):
    hook = {'type': 'SimSiamHook', 'fix_pred_lr': True, 'lr': 0.05, 'adjust_by_epoch': by_epoch}
    config = config_of(
        {'type': 'CosineAnnealingLR', 'by_epoch': False},
        paramwise={'custom_keys': {'predictor': {'fix_lr': True}}},
        custom_hooks=[hook],
    )
    rows = assert_same(config, tmp_path)['']
    assert {row[-1]['lr'] for row in rows[:: 5 if by_epoch else 1]} == {0.05}


@functools.cache
def schedules():
    """The distinct schedules of mmpretrain's configs, by the name of the first file that has each."""
    found = {}
    for path in sorted((package_folder('mmpretrain') / 'configs/_base_/schedules').glob('*.py')):
        config = Config.fromfile(str(path))
        key = repr([config.get(name) for name in ('optim_wrapper', 'param_scheduler', 'train_cfg')])
        found.setdefault(key, path)
    return {path.stem: path for path in found.values()}


LONG = 'imagenet_bs1024_linearlr_bn_nowd'  # counts iterations, so that it needs thousands of them


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=pytest.mark.slow if name == LONG else ()) for name in schedules()]
)
def test_base_schedules_of_mmpretrain(tmp_path, name):
    given = Config.fromfile(str(schedules()[name]))
    counts_iterations = any(not each.get('by_epoch', True) for each in np.atleast_1d(given.param_scheduler))
    config = config_of(given.param_scheduler, given.train_cfg, size=96 if counts_iterations else 10)
    config.optim_wrapper = given.optim_wrapper
    config.optim_wrapper.type = 'OptimWrapper'  # mixed precision asserts a GPU
    config.optim_wrapper.pop('loss_scale', None)
    assert_same(config, tmp_path)


DECAYED = {
    'mae': 'mae/benchmarks/vit-base-p16_8xb128-coslr-100e_in1k.py',
    'beit': 'beit/benchmarks/beit-base-p16_8xb128-coslr-100e_in1k.py',
    'swin': 'simmim/benchmarks/swin-base-w6_8xb256-coslr-100e_in1k-192px.py',
    'convnext': 'spark/benchmarks/convnextv2-tiny_8xb256-coslr-300e_in1k.py',
}


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=() if name == 'mae' else pytest.mark.slow) for name in DECAYED]
)
def test_layer_decay_of_fine_tuning_configs(tmp_path, name):
    from mmengine.registry import MODELS, DefaultScope

    given = Config.fromfile(str(package_folder('mmpretrain') / 'configs' / DECAYED[name]))
    if name == 'mae':
        given.merge_from_dict({'model.backbone.arch': 'deit-tiny', 'model.head.in_channels': 192})
    config = config_of(given.param_scheduler, given.train_cfg, size=12)
    config.train_cfg.pop('val_interval', None)
    config.optim_wrapper = copy.deepcopy(given.optim_wrapper)
    config.optim_wrapper.type = 'OptimWrapper'
    config.model = copy.deepcopy(given.model)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(copy.deepcopy(given.model))
    model.init_weights = lambda: None
    model.train_step = lambda data, optim_wrapper: {}
    rows = assert_same(config, tmp_path, model)['']
    assert len({group['lr'] for group in rows[-1]}) > 5


def test_the_figures_that_were_read_off_a_runner(tmp_path):
    config = config_of(
        {'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'end': 5}, {'by_epoch': False, 'max_iters': 6}
    )
    rows = assert_same(config, tmp_path)['']
    np.testing.assert_allclose([row[0]['lr'] for row in rows], [0.01, 0.0325, 0.055, 0.0775, 0.1, 0.1], rtol=1e-12)
