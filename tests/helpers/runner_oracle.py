"""The oracle of schedules: mmengine's own Runner, really run, with a hook that writes down what every group has."""

from __future__ import annotations

import copy

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import nn

from vistool.analyses.schedule.hooks import read_hooks
from vistool.analyses.schedule.optimizers import parameter_readers, read_optimizers
from vistool.analyses.schedule.replay import build_schedulers, may_merge, replay, scheduler_settings
from vistool.analyses.schedule.training import read_training
from vistool.models.configs import Source

KEYS = ('lr', 'momentum', 'weight_decay', 'betas')


@MODELS.register_module(force=True)
class ScheduleToy(BaseModel):
    """A network with every kind of parameter that paramwise options tell apart."""

    def __init__(self, **_):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 2))
        self.conv = nn.Conv2d(4, 4, 1, groups=4)
        self.norm = nn.LayerNorm(2)
        self.predictor = nn.Linear(2, 2)

    def forward(self, *args, **kwargs):
        return {}

    def train_step(self, data, optim_wrapper):
        return {}


class Recorder(Hook):
    """What is in force while an iteration runs, for each optimizer and group."""

    priority = 'VERY_LOW'  # after every hook that acts before the iteration

    def __init__(self):
        self.rows = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        wrapper = runner.optim_wrapper
        wrappers = dict(wrapper.items()) if hasattr(wrapper, 'optim_wrappers') else {'': wrapper}
        for name, each in wrappers.items():
            row = [{key: group.get(key) for key in KEYS} for group in each.optimizer.param_groups]
            self.rows.setdefault(name, []).append(row)


def config_of(param_scheduler, train_cfg=None, size=18, optimizer=None, paramwise=None, **more):
    """A config of the toy: 5 iterations an epoch unless ``size`` says otherwise."""
    wrapper = {
        'type': 'OptimWrapper',
        'optimizer': optimizer or {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9, 'weight_decay': 0.01},
    }
    if paramwise:
        wrapper['paramwise_cfg'] = paramwise
    return Config(
        {
            'default_scope': 'mmpretrain',
            'model': {'type': 'ScheduleToy'},
            'train_dataloader': {
                'batch_size': 4,
                'num_workers': 0,
                'sampler': {'type': 'DefaultSampler', 'shuffle': False},
            },
            'train_cfg': train_cfg or {'by_epoch': True, 'max_epochs': 8},
            'optim_wrapper': wrapper,
            'param_scheduler': param_scheduler,
            'size': size,
            **more,
        }
    )


def run_for_real(config, folder, model=None):
    """Each optimizer's rows, one a step, as mmengine's Runner went through them."""
    recorder = Recorder()
    loader = copy.deepcopy(config.train_dataloader.to_dict())
    loader['dataset'] = _Numbers(config.size)
    runner = Runner(
        model=model or MODELS.build(dict(config.model)),
        work_dir=str(folder),
        train_dataloader=loader,
        train_cfg=copy.deepcopy(config.train_cfg),
        optim_wrapper=copy.deepcopy(config.optim_wrapper),
        param_scheduler=copy.deepcopy(config.param_scheduler),
        auto_scale_lr=copy.deepcopy(config.get('auto_scale_lr')),
        default_hooks={'runtime_info': None, 'timer': None, 'logger': None, 'checkpoint': None, 'sampler_seed': None},
        custom_hooks=[*copy.deepcopy(config.get('custom_hooks') or []), recorder],
        default_scope=config.default_scope,
        experiment_name=f'oracle{id(recorder)}',
        log_level='ERROR',
        visualizer={'type': 'Visualizer', 'name': f'oracle{id(recorder)}'},
    )
    runner.train()
    return recorder.rows


def replayed(config, scale=1.0):
    """The same rows from the replay."""
    source = Source(config, 'toy')
    run = read_training(source, config.size, 1)
    found = {}
    for plan in read_optimizers(source):
        settings = scheduler_settings(source, plan.name)
        hooks = read_hooks(source)
        merge = may_merge(settings) and set(hooks.names) <= {'SimSiamHook'}
        recorded = replay(
            plan,
            lambda optimizer, own=settings: build_schedulers(source, own, run, optimizer),
            run,
            hooks,
            parameter_readers(['all'], plan),
            merge,
        )
        found[plan.name] = (plan, recorded)
    return found


def assert_same(config, folder, model=None):
    """Every step of every group of every parameter, to the last bit: the replay takes the same steps in the same order.

    (The promise is 1e-12 relative; equality is what holds.)
    """
    real, ours = run_for_real(config, folder, model), replayed(config)
    assert list(real) == list(ours)
    for name, rows in real.items():
        plan, recorded = ours[name]
        assert len(rows[0]) == len(plan.groups)
        for group in range(len(plan.groups)):
            for parameter, recording in recorded.items():
                expected = np.array([_value(row[group], parameter) for row in rows])
                np.testing.assert_array_equal(
                    recording.column(group), expected, err_msg=f'{name} group {group} {parameter}'
                )
    return real


def _value(group, parameter):
    if parameter in ('beta1', 'beta2'):
        return group['betas'][int(parameter[-1]) - 1]
    return group[parameter]


class _Numbers(torch.utils.data.Dataset):
    metainfo = None

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return {'inputs': index}
