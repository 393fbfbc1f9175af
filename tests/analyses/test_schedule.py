"""What surrounds the replay: groups, batches, hooks, the dataset, and what is refused."""

import copy
import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config
from runner_oracle import config_of

from vistool.analyses.schedule import Schedule
from vistool.analyses.schedule.curves import warmup_length
from vistool.analyses.schedule.hooks import _HARMLESS, _TOUCHES
from vistool.analyses.schedule.optimizers import without_weights
from vistool.errors import InputError
from vistool.models.configs import Source

STEP = {'type': 'StepLR', 'step_size': 2, 'gamma': 0.5}


def schedule(config, **more):
    given = {'dataset_size': 40, **more}
    return Schedule(**given)(Source(config, 'toy'))


def only(result, parameter='lr'):
    (curve,) = [curve for curve in result.curves if curve.parameter == parameter]
    return curve.values


def test_groups_with_equal_curves_are_one_and_tell_how_many_parameters_they_cover():
    paramwise = {'norm_decay_mult': 0.0, 'bias_lr_mult': 2.0}
    result = schedule(config_of(STEP, paramwise=paramwise), parameters=['all'])
    rates = {curve.group: curve.label for curve in result.curves if curve.parameter == 'lr'}
    # cls_token 2, conv 4 + 4, norm 2 + 2, predictor 4 + 2: the biases of conv and predictor have their own rate
    assert rates == {'lr 0.1': 'lr 0.1 (14 parameters)', 'lr 0.2': 'lr 0.2 (6 parameters)'}
    decays = {curve.group: curve.label for curve in result.curves if curve.parameter == 'weight_decay'}
    assert decays == {'wd 0.01': 'wd 0.01 (16 parameters)', 'wd 0': 'wd 0 (4 parameters)'}


def test_the_model_is_not_built_where_groups_do_not_depend_on_it():
    config = config_of(STEP)
    config.model = {'type': 'NoSuchModel'}
    assert only(schedule(config))[0] == 0.1


def test_no_weights_are_made(monkeypatch):
    with without_weights():
        layer = torch.nn.Linear(10**6, 10**6)
        rates = [float(x) for x in torch.linspace(0, 0.1, 3)]
    assert layer.weight.is_meta and rates == pytest.approx([0, 0.05, 0.1])
    assert torch.zeros(1).device.type == 'cpu'


def test_auto_scale_lr_is_linear_in_the_batch(caplog):
    config = config_of(STEP, auto_scale_lr={'base_batch_size': 16})
    assert only(schedule(config, auto_scale_lr=True, ngpus=2))[0] == pytest.approx(0.1 * 8 / 16, rel=1e-15)
    config.auto_scale_lr = {'base_batch_size': 16, 'enable': True}
    assert only(schedule(config, ngpus=8))[0] == pytest.approx(0.2, rel=1e-15)
    with pytest.raises(InputError, match='base_batch_size'):
        schedule(config_of(STEP), auto_scale_lr=True)


def test_several_optimizers(tmp_path):
    from mmengine.optim import OptimWrapper, OptimWrapperDict
    from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS

    @OPTIM_WRAPPER_CONSTRUCTORS.register_module(force=True)
    class TwoOptimizers:
        def __init__(self, optim_wrapper_cfg, paramwise_cfg=None):
            pass

        def __call__(self, model):
            first = torch.optim.SGD(model.conv.parameters(), lr=0.1, momentum=0.9)
            second = torch.optim.AdamW(model.predictor.parameters(), lr=0.002)
            return OptimWrapperDict(body=OptimWrapper(first), head=OptimWrapper(second))

    config = config_of({'body': STEP, 'head': {'type': 'ExponentialLR', 'gamma': 0.9}})
    config.optim_wrapper = {'constructor': 'TwoOptimizers'}
    result = schedule(config)
    assert [curve.group for curve in result.curves] == ['body: all', 'head: all']
    assert [curve.values[0] for curve in result.curves] == [0.1, 0.002]
    np.testing.assert_allclose(result.curves[1].values[::10], 0.002 * 0.9 ** np.arange(8), rtol=1e-12)
    from runner_oracle import assert_same

    assert_same(config, tmp_path)


def test_a_users_hook_is_followed_or_refused():
    from mmengine.hooks import Hook
    from mmengine.registry import HOOKS

    @HOOKS.register_module(force=True)
    class Halver(Hook):
        def before_train_epoch(self, runner):
            if runner.epoch == 3:
                for group in runner.optim_wrapper.param_groups:
                    group['lr'] *= 0.5

    @HOOKS.register_module(force=True)
    class Asker(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            runner.optim_wrapper.param_groups[0]['lr'] = float(runner.model.temperature)

    followed = schedule(config_of(None, custom_hooks=[{'type': 'Halver'}]))
    np.testing.assert_array_equal(only(followed), np.repeat([0.1, 0.05], [30, 50]))
    with pytest.raises(InputError, match=r'Asker.*runner\.model'):
        schedule(config_of(STEP, custom_hooks=[{'type': 'Asker'}]))


def test_no_hook_of_the_packages_changes_a_rate_but_the_one_that_is_followed():
    import inspect

    import mmpretrain.engine.hooks  # noqa: F401
    from mmengine.registry import HOOKS as root
    from mmpretrain.registry import HOOKS

    changing = set()
    for name, cls in {**root.module_dict, **HOOKS.module_dict}.items():
        if cls.__module__.split('.')[0] not in ('mmengine', 'mmpretrain'):
            continue
        source = inspect.getsource(cls)
        if _TOUCHES.search(source) and 'param_group' in source and name != 'ParamSchedulerHook':
            changing.add(name)
    assert changing - {'RuntimeInfoHook'} == {'SimSiamHook'}
    assert 'SimSiamHook' not in _HARMLESS


def test_no_package_gives_a_plain_name_another_meaning():
    import mmengine.registry as root
    import mmpretrain.engine  # noqa: F401
    import mmpretrain.registry as child

    for registry in ('OPTIMIZERS', 'PARAM_SCHEDULERS', 'OPTIM_WRAPPERS', 'OPTIM_WRAPPER_CONSTRUCTORS'):
        own = {
            name
            for name, cls in getattr(child, registry).module_dict.items()
            if cls.__module__.startswith('mmpretrain')
        }
        plain = {
            name
            for name, cls in getattr(root, registry).module_dict.items()
            if not cls.__module__.startswith('mmpretrain')
        }
        assert not own & plain


def test_a_plateau_is_drawn_as_if_it_always_improved(caplog):
    assert set(only(schedule(config_of({'type': 'ReduceOnPlateauLR', 'monitor': 'accuracy'})))) == {0.1}


@pytest.mark.parametrize(
    ('values', 'length'),
    [([1, 2, 3, 3, 2], 3), ([3, 2, 1], 0), ([1, 1, 1], 0), ([1, 3, 2, 4], 0), ([1, 2, 3 - 1e-12, 3], 3)],
)
def test_a_warm_up_is_a_rise_to_the_peak(values, length):
    assert warmup_length(np.array(values, float)) == length


@pytest.mark.parametrize(
    ('size', 'ngpus', 'drop', 'expected'),
    [(10, 1, False, 3), (10, 1, True, 2), (17, 2, False, 3), (17, 2, True, 2), (16, 2, False, 2), (5, 2, False, 1)],
)
def test_epochs_are_as_long_as_the_dataloader(size, ngpus, drop, expected):
    config = config_of(STEP)
    config.train_dataloader.drop_last = drop
    assert schedule(config, dataset_size=size, ngpus=ngpus).epoch_length == {'toy': expected}


def test_a_given_number_of_batches_per_epoch_goes_before_the_dataset():
    config = config_of(STEP)
    config.train_dataloader.num_batch_per_epoch = 7
    assert schedule(config, ngpus=3).epoch_length == {'toy': 7}


def test_the_config_is_left_as_it_was():
    config = config_of([STEP], paramwise={'bias_lr_mult': 2.0})
    before = copy.deepcopy(config._cfg_dict.to_dict())
    schedule(config, parameters=['all'])
    assert config._cfg_dict.to_dict() == before


def test_a_plain_config_object_and_several_will_do():
    config = Config(config_of(STEP)._cfg_dict.to_dict())
    result = Schedule(dataset_size=40)([config, config])
    assert [curve.config for curve in result.curves] == ['config', 'config #2']
    assert 'vistool.analyses.schedule' in sys.modules


SAMPLERS = """
import math
import torch.distributed
from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS

@DATA_SAMPLERS.register_module(force=True)
class Thrice:
    '''Each image three times, over all processes.'''

    def __init__(self, dataset, seed=None):
        self.length = 3 * len(dataset) // get_dist_info()[1]

    def __len__(self):
        return self.length

@DATA_SAMPLERS.register_module(force=True)
class OfTorch(torch.utils.data.DistributedSampler):
    '''Asks torch, not mmengine, how many processes there are.'''

    def __init__(self, dataset, seed=None):
        super().__init__(dataset)

@DATA_SAMPLERS.register_module(force=True)
class Annotated:
    '''Needs the annotations.'''

    def __init__(self, dataset, seed=None):
        self.length = len(dataset.get_cat_ids(0))

    def __len__(self):
        return self.length

@DATA_SAMPLERS.register_module(force=True)
class Pairs:
    '''Batches that overlap by half.'''

    def __init__(self, sampler, batch_size):
        self.length = math.ceil(2 * len(sampler) / batch_size)

    def __len__(self):
        return self.length
"""


@pytest.fixture(scope='module')
def own_samplers():
    exec(compile(SAMPLERS, 'samplers', 'exec'), {})


@pytest.mark.parametrize(
    ('loader', 'size', 'ngpus', 'length'),
    [
        ({'sampler': {'type': 'Thrice'}}, 12, 1, 9),
        ({'sampler': {'type': 'Thrice'}}, 12, 3, 3),
        ({'sampler': {'type': 'Thrice'}, 'drop_last': True}, 14, 4, 2),  # 10 samples: two batches of 4
        ({'sampler': {'type': 'OfTorch'}}, 40, 5, 2),
        ({'sampler': {'type': 'DefaultSampler'}, 'batch_sampler': {'type': 'Pairs'}}, 40, 1, 20),
        ({'sampler': {'type': 'Thrice'}, 'batch_sampler': {'type': 'Pairs'}}, 40, 1, 60),
        ({'sampler': {'type': 'DefaultSampler'}, 'batch_sampler': {'type': 'AspectRatioBatchSampler'}}, 41, 1, 11),
    ],
)
def test_an_epoch_is_as_long_as_the_sampler_says(own_samplers, loader, size, ngpus, length):
    config = config_of(STEP)
    config.train_dataloader = {**config.train_dataloader, 'batch_size': 4, **loader}
    assert schedule(config, dataset_size=size, ngpus=ngpus).epoch_length == {'toy': length}
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ('loader', 'message'),
    [
        ({'sampler': {'type': 'NoSuchSampler'}}, r'\(NoSuchSampler\) cannot be built.*sampler.type=DefaultSampler'),
        ({'sampler': {'type': 'Annotated'}}, r'\(Annotated\) cannot be built.*leave dataset_size out'),
        ({'batch_sampler': {'type': 'Unheard'}}, r'DefaultSampler, Unheard\) cannot be built.*dataset_size'),
    ],
)
def test_a_sampler_that_cannot_be_counted_is_an_error(own_samplers, loader, message):
    config = config_of(STEP)
    config.train_dataloader = {**config.train_dataloader, 'sampler': {'type': 'DefaultSampler'}, **loader}
    with pytest.raises(InputError, match=message):
        schedule(config)


@pytest.mark.parametrize(
    ('scheduler', 'said'),
    [
        ({'type': 'PolyLR', 'end': 20000}, 'end=20,000 epochs, but the run has 8'),
        ({'type': 'CosineAnnealingLR', 'begin': 2, 'T_max': 9}, 'T_max=11 epochs, but the run has 8'),
        ({'type': 'MultiStepLR', 'milestones': [2, 9]}, 'milestone=9 epochs, but the run has 8'),
        ({'type': 'LinearLR', 'by_epoch': False, 'end': 900}, 'end=900 iterations, but the run has 80'),
        ({'type': 'StepLR', 'step_size': 1, 'begin': 8, 'end': 12}, 'begin=8 epochs, but the run has 8'),
    ],
)
def test_what_a_scheduler_plans_beyond_the_run_is_said(caplog, scheduler, said):
    schedule(config_of(scheduler))
    assert said in caplog.text


def test_a_scheduler_within_the_run_or_without_an_end_is_not_remarked(caplog):
    schedule(config_of([{'type': 'CosineAnnealingLR', 'T_max': 6, 'begin': 2}, {**STEP, 'end': 10**9}]))
    assert 'the run has' not in caplog.text


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'optim_wrapper.optimizer.lr': '1e-2'}, r"optim_wrapper.optimizer.lr is the text '1e-2'.*0.01 or 1.0e-2"),
        ({'optim_wrapper.optimizer.weight_decay': '5E4'}, r"weight_decay is the text '5E4'.*50000 or 5.0e\+4"),
        ({'param_scheduler.gamma': '1e-1'}, r"param_scheduler\[0\].gamma is the text '1e-1'.*0.1 or 1.0e-1"),
        ({'param_scheduler.gamma': '.5'}, r"gamma is the text '.5', not a number$"),
    ],
)
def test_a_number_that_is_text_is_named_with_its_key(change, said):
    config = config_of(dict(STEP))
    config.merge_from_dict(change)
    with pytest.raises(InputError, match=said):
        schedule(config)


def test_several_dataloaders_of_training_are_refused():
    """Also in a config that no one resolved, such as that of a Runner."""
    config = config_of(STEP)
    config.train_dataloader = [config.train_dataloader, config.train_dataloader]
    with pytest.raises(InputError, match='several train_dataloaders'):
        schedule(config)


@pytest.mark.parametrize(
    ('off', 'said'),
    [(0.00314, 'at most 0.31 %'), (0.5, 'at most 50 %'), (0.994, 'at most 99 %'), (12.4, 'most 1,240 %')],
)
def test_how_far_a_log_is_off_the_plan_is_a_plain_number(tmp_path, caplog, off, said):
    caplog.set_level('INFO', 'vistool')
    log = tmp_path / 'scalars.json'
    log.write_text(f'{{"lr": {0.1 * (1 + off)}, "step": 1}}\n')
    Schedule(dataset_size=40)(Source(config_of(STEP), 'toy'), [log])
    assert said in caplog.text


def test_a_long_run_is_counted_without_an_exponent():
    config = config_of({**STEP, 'by_epoch': False}, train_cfg={'type': 'IterBasedTrainLoop', 'max_iters': 123_450})
    assert '(12,345 epochs)' in schedule(config).facts
