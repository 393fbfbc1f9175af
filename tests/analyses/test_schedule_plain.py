"""Schedulers without a config are drawn as torch itself steps them, and stay as they were."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as torch_schedulers

import vistool as vt

KINDS = {
    'StepLR': lambda o: torch_schedulers.StepLR(o, 3),
    'OneCycleLR': lambda o: torch_schedulers.OneCycleLR(o, [0.1, 0.01], total_steps=12),
    'LambdaLR': lambda o: torch_schedulers.LambdaLR(o, [lambda t: 0.9**t, lambda t: 1.0]),
    'SequentialLR': lambda o: torch_schedulers.SequentialLR(
        o, [torch_schedulers.LinearLR(o), torch_schedulers.CosineAnnealingLR(o, 6)], milestones=[4]
    ),
}


def started(kind):
    net = torch.nn.Linear(2, 2)
    groups = [{'params': [net.weight], 'lr': 0.1, 'name': 'weights'}, {'params': [net.bias], 'lr': 0.01}]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    scheduler = KINDS[kind](optimizer)
    net(torch.ones(1, 2)).sum().backward()
    for _ in range(2):  # somewhere in the middle of a run
        optimizer.step()
        scheduler.step()
    return optimizer, scheduler


@pytest.mark.parametrize('kind', KINDS)
def test_a_plain_scheduler_is_drawn_as_torch_steps_it(kind):
    optimizer, scheduler = started(kind)
    before = copy.deepcopy(scheduler.state_dict()), copy.deepcopy(optimizer.state_dict())
    drawn = vt.Schedule('all', steps=8)(scheduler)
    assert str((scheduler.state_dict(), optimizer.state_dict())) == str(before)
    truth = []
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for _ in range(8):
            truth.append([[group['lr'], group['momentum']] for group in optimizer.param_groups])
            optimizer.step()
            scheduler.step()
    found = {(curve.parameter, curve.group): curve.values for curve in drawn.curves}
    assert np.array_equal(found['lr', 'weights'], np.array(truth)[:, 0, 0])
    assert np.array_equal(found['lr', 'group 1'], np.array(truth)[:, 1, 0])
    momentum = found.get(('momentum', 'all'), found.get(('momentum', 'weights')))
    assert np.array_equal(momentum, np.array(truth)[:, 0, 1])


@pytest.mark.parametrize(
    ('options', 'problem'),
    [
        ({}, 'steps: needed'),
        ({'steps': 0}, 'steps: must be at least 1'),
        ({'steps': 3, 'parameters': 'lrr'}, "parameters: no 'lrr'"),
    ],
)
def test_what_a_plain_scheduler_cannot_say_is_one_line(options, problem):
    with pytest.raises(vt.InputError, match=f'^{problem}'):
        vt.Schedule(**options)(started('StepLR')[1])


def test_a_plateau_needs_a_metric():
    scheduler = torch_schedulers.ReduceLROnPlateau(started('StepLR')[0])
    with pytest.raises(vt.InputError, match='follows a metric'):
        vt.Schedule(steps=3)(scheduler)
