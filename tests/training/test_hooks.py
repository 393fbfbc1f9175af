"""Maps while training: no trace in the training, strips and numbers, resumed runs, errors before the first epoch."""

import copy
import random

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from PIL import Image
from small_training import config_of, train, write_shapes

import vistool as vt
from vistool.analyses.schedule.used import UsedRates
from vistool.errors import InputError
from vistool.training import ExplainHook, LearningRateHook, hooks

ACCUMULATED = {'optim_wrapper': {'optimizer': {'type': 'SGD', 'lr': 0.05, 'momentum': 0.9}, 'accumulative_counts': 3}}
EMA = {'type': 'EMAHook', 'momentum': 0.1}


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp('shapes'))


def explain(images, **more):
    return {'type': 'vistool.ExplainHook', 'images': str(images), 'analysis': {'type': 'vistool.CAM'}, **more}


class Noted(Hook):
    """Keeps the gradients that are in flight between two epochs: eight iterations, a step after every third."""

    def before_train_epoch(self, runner):
        if runner.epoch == 2:
            named = runner.model.named_parameters()
            self.gradients = {name: each.grad.clone() for name, each in named if each.grad is not None}


def state_of(runner):
    """Everything that a training carries on: weights, buffers, the optimizer, averages, modes, generators."""
    ema = next(each.ema_model.state_dict() for each in runner.hooks if type(each).__name__ == 'EMAHook')
    tensors = {**runner.model.state_dict(), **{f'ema {name}': each for name, each in ema.items()}}
    for place, each in runner.optim_wrapper.optimizer.state_dict()['state'].items():
        tensors |= {f'state {place} {name}': value for name, value in each.items() if isinstance(value, torch.Tensor)}
    noted = next(each for each in runner.hooks if isinstance(each, Noted))
    tensors |= {f'grad {name}': each for name, each in noted.gradients.items()}
    modules = [(each.training, len(each._forward_hooks)) for each in runner.model.modules()]
    frozen = [each.requires_grad for each in runner.model.parameters()]
    return tensors, (modules, frozen, torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate())


@pytest.fixture(scope='module')
def runs(photos, tmp_path_factory):
    """The same training twice: with the hooks and without."""
    folder = tmp_path_factory.mktemp('runs')
    added = [explain(photos, max_images=3, interval=2), {'type': 'vistool.LearningRateHook'}]
    return [
        train(config_of(photos, folder / name, [EMA, *own], **copy.deepcopy(ACCUMULATED)), Noted())
        for name, own in (('plain', []), ('explained', added))
    ]


def test_a_training_is_the_same_to_the_last_bit(runs):
    (plain, rest), (explained, other) = map(state_of, runs)
    assert plain.keys() == explained.keys() and any(name.startswith('grad') for name in plain)
    assert [name for name in plain if not torch.equal(plain[name], explained[name])] == []
    assert rest == other


def test_strips_numbers_and_backends(runs, photos):
    runner = runs[1]
    out = next(each for each in runner.hooks if isinstance(each, ExplainHook)).strips.out
    assert sorted(path.name for path in out.glob('*.npz')) == ['epoch_0.npz', 'epoch_2.npz', 'epoch_3.npz']
    pictures = sorted(str(path.relative_to(out)) for path in out.rglob('*.png'))
    assert len(pictures) == 3 and all(name.split('/')[0] in ('circle', 'cross') for name in pictures)
    logged = {path.stem for path in (out.parent).rglob('vis_image/explain_*.png')}
    assert {name.rpartition('_')[2] for name in logged} == {'0', '2', '3'} and len(logged) == 9
    # The numbers of the last moment are those of the finished network.
    arrays = np.load(out / 'epoch_3.npz')
    model = vt.load(runner.model.eval())
    model.config = runner.cfg
    for place, name in enumerate(arrays['names']):
        found = vt.CAM(layers='backbone.layer3')(model, model.read(photos / f'{name}.png'))
        np.testing.assert_allclose(arrays[f'maps_{place}_0'], found.maps[0].values, atol=1e-5)
        np.testing.assert_allclose(arrays[f'scores_{place}'], [found.maps[0].score], atol=1e-6)


def test_a_resumed_training_goes_on_with_its_strips(photos, tmp_path):
    hook = explain(photos, max_images=2)
    kept = {'checkpoint': {'type': 'CheckpointHook', 'interval': 1}}
    train(config_of(photos, tmp_path, [hook], epochs=2, default_hooks=kept))
    before = {path.name: path.read_bytes() for path in (tmp_path / 'explain').glob('*.npz')}
    assert set(before) == {'epoch_0.npz', 'epoch_1.npz', 'epoch_2.npz'}
    config = config_of(photos, tmp_path, [copy.deepcopy(hook)], epochs=3, resume=True)
    config.load_from = str(tmp_path / 'epoch_1.pth')  # the second epoch is trained once more
    config.randomness.seed = 4
    runner = train(config)
    strips = next(each for each in runner.hooks if isinstance(each, ExplainHook)).strips
    after = {path.name: path.read_bytes() for path in (tmp_path / 'explain').glob('*.npz')}
    assert list(strips.moments) == [0, 1, 2, 3] and set(after) == {*before, 'epoch_3.npz'}
    assert {name for name in before if before[name] == after[name]} == {'epoch_0.npz', 'epoch_1.npz'}
    strip = strips.strip(0)
    values = [value for item in strip.maps for value in item.extent]
    assert strip.maps[0].limits == pytest.approx((min(values), max(values)))
    width = Image.open(next((tmp_path / 'explain').rglob('*.png'))).width
    assert width > 4 * 150  # the photo and four moments


def test_iterations_are_counted_where_a_run_counts_them(photos, tmp_path):
    config = config_of(photos, tmp_path, [explain(photos, max_images=1, by_epoch=False, interval=2)])
    config.train_cfg = {'type': 'IterBasedTrainLoop', 'max_iters': 3, 'val_interval': 3}
    config.param_scheduler = None
    train(config)
    assert sorted(path.stem for path in (tmp_path / 'explain').glob('*.npz')) == [
        'iteration_0', 'iteration_2', 'iteration_3',
    ]  # fmt: skip
    config.custom_hooks = [explain(photos)]
    with pytest.raises(InputError, match=r'by_epoch: this run counts iterations, not epochs; give by_epoch=False'):
        train(config)


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'images': 'nowhere'}, 'images: no such file or folder: nowhere'),
        ({'images': '@test'}, 'images: .*test'),
        ({'analysis': {'type': 'vistool.CMA'}}, "analysis: unknown analysis 'vistool.CMA'.*did you mean CAM"),
        (
            {'analysis': {'type': 'vistool.Schedule'}},
            'analysis: Schedule gives no maps of images; accepted: vistool.CAM',
        ),
        ({'analysis': {'type': 'vistool.CAM', 'method': 'x'}}, "analysis: CAM has no parameter 'method'.*methods"),
        ({'analysis': 'CAM'}, "analysis: 'CAM' is not an analysis; accepted: dict"),
        ({'analysis': {'type': 'vistool.CAM', 'methods': 'gradcamm'}}, 'gradcamm'),
        ({'analysis': {'type': 'vistool.CAM', 'layers': 'backbone.layer9'}}, 'backbone.layer9'),
        ({'analysis': {'type': 'vistool.CAM', 'targets': 'dog'}}, 'dog'),
        ({'interval': 0}, 'interval: must be at least 1, not 0'),
        ({'max_images': 0}, 'max_images: must be at least 1, not 0'),
        ({'style': {'colour': 'jet'}}, 'style: .*colour'),
        ({'out': '/dev/null/explain'}, 'out: cannot write in'),
    ],
)
def test_what_is_wrong_is_an_error_before_the_first_epoch(photos, tmp_path, changes, said):
    seen = []

    class Seen(Hook):
        def before_train_epoch(self, runner):
            seen.append(runner.epoch)

    config = config_of(photos, tmp_path, [{**explain(photos), **changes}])
    with pytest.raises(InputError, match=said):
        train(config, Seen())
    assert not seen


def test_a_fault_while_training_is_a_warning(photos, tmp_path, monkeypatch, caplog):
    record = hooks.Strips.add
    monkeypatch.setattr(
        hooks.Strips, 'add', lambda self, when, results: record(self, when, results) if not when else 1 / 0
    )
    runner = train(config_of(photos, tmp_path, [explain(photos, max_images=1)], epochs=1))
    assert 'epoch 1 is not drawn: ZeroDivisionError: division by zero' in caplog.text and runner.epoch == 1


def test_only_the_first_process_draws(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(hooks, 'is_main_process', lambda: False)
    train(config_of(photos, tmp_path, [explain(photos), {'type': 'vistool.LearningRateHook'}], epochs=1))
    assert not (tmp_path / 'explain').exists() and not (tmp_path / 'learning_rate.png').exists()


def test_hooks_are_found_by_their_dotted_type():
    assert HOOKS.get('vistool.ExplainHook') is ExplainHook is vt.ExplainHook
    assert HOOKS.get('vistool.LearningRateHook') is LearningRateHook is vt.LearningRateHook


class Intruder(Hook):
    """Changes a rate behind the schedule's back."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 7:
            runner.optim_wrapper.optimizer.param_groups[0]['lr'] *= 0.5


def test_the_rate_of_the_run_is_drawn_over_the_plan(runs):
    folder = next(each for each in runs[1].hooks if isinstance(each, LearningRateHook))._folder(runs[1])
    rows = [line.split(',') for line in (folder / 'learning_rate.csv').read_text().splitlines()[1:]]
    planned = [float(row[-1]) for row in rows if row[3] == 'all']
    used = [float(row[-1]) for row in rows if row[3] == 'all (run)']
    assert len(planned) == 12 and used == planned
    assert (folder / 'learning_rate.png').exists() and list(folder.rglob('vis_image/learning_rate_12.png'))


def test_where_a_run_parts_from_the_plan_is_said(photos, tmp_path):
    runner = train(config_of(photos, tmp_path, [{'type': 'vistool.LearningRateHook'}]), Intruder())
    hook = next(each for each in runner.hooks if isinstance(each, LearningRateHook))
    curves = hook._plan(runner, hook.rates)
    assert curves.facts.endswith('12 iterations run, off the plan from iteration 7 on, by at most 50 %')
    two = UsedRates()
    two.note([0.1, 0.2])
    with pytest.raises(InputError, match='the run has 2 parameter groups, and the config 1'):
        hook._plan(runner, {'': two})


def test_groups_that_stay_equal_share_their_numbers():
    generator = np.random.default_rng(0)
    rows = np.repeat(generator.random((50, 1)), 5, axis=1)
    rows[20:, 3] *= 2
    rows[30:, [0, 3]] = rows[30:, [3, 0]]
    rows[40:, 4] = 7
    used = UsedRates()
    for row in rows:
        used.note(row.tolist())
    assert len(used) == 50 and used.groups == 5
    np.testing.assert_array_equal(np.stack([used.column(group) for group in range(5)], axis=1), rows)
    assert len(used.distinct([1, 2])) == 1 and len(used.distinct(range(5))) == 4
    with pytest.raises(InputError, match='4 parameter groups, and had 5 before'):
        used.note([0.0] * 4)
