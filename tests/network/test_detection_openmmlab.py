"""mmdet's dense heads: a prediction without a graph is traced back to the raw output that it equals."""

import sys
from types import SimpleNamespace

import pytest
import torch

from vistool.errors import InputError
from vistool.network.detection.openmmlab import _Dense, require_ops

STRIDES, CLASSES = (4, 8), 3


def priors_of(size, level, dtype=torch.float32, device='cpu'):
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing='ij')
    return torch.stack([columns.flatten(), rows.flatten()], 1).to(dtype) * STRIDES[level]


def decoded(priors, moves, max_shape=None):
    low, high = priors - moves[:, :2], priors + moves[:, 2:]
    return torch.cat([low, high], 1).clamp(0, max(max_shape))


def head():
    """What is asked of a dense head of mmdet."""
    coder = SimpleNamespace(decode=decoded, encode_size=4)
    priors = SimpleNamespace(single_level_grid_priors=priors_of)
    return SimpleNamespace(bbox_coder=coder, prior_generator=priors, cls_out_channels=CLASSES, use_sigmoid_cls=True)


@pytest.fixture
def raw():
    """Logits, moves and centerness of two images on two levels, with a graph."""
    rng = torch.Generator().manual_seed(0)
    sizes = ((4, 6), (2, 3))
    logits = [torch.randn(2, CLASSES, *size, generator=rng).requires_grad_() for size in sizes]
    moves = [(torch.rand(2, 4, *size, generator=rng) * 3).requires_grad_() for size in sizes]
    centers = [torch.randn(2, 1, *size, generator=rng).requires_grad_() for size in sizes]
    return logits, moves, centers


def found_of(raw, image, level, label, row, column, change=0.0):
    """The prediction that a head would make of one raw output, without a graph."""
    logits, moves, centers = ([each.detach() for each in part] for part in raw)
    score = logits[level][image, label, row, column].sigmoid() * centers[level][image, 0, row, column].sigmoid()
    prior = torch.tensor([[column, row]]) * float(STRIDES[level])
    box = decoded(prior, moves[level][image, :, row, column][None], (16, 24)) + change
    samples = [SimpleNamespace(metainfo={'img_shape': (16, 24)})] * 2
    empty = (torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    own = (score[None], torch.tensor([label]), box)
    parts = zip(*((own if number == image else empty) for number in range(2)), strict=True)
    return _Dense(SimpleNamespace(bbox_head=head()), raw, samples, *parts)


@pytest.mark.parametrize('place', [(0, 0, 1, 2, 3), (1, 1, 2, 1, 2), (1, 0, 0, 3, 5)])
def test_the_gradient_is_that_of_the_one_raw_output(place, raw):
    image, level, label, row, column = place
    found = found_of(raw, *place)
    ((value, one),) = found.pullbacks([(image, 0)], 'class')[0]
    gradients = torch.autograd.grad(value, [*raw[0], *raw[2]], one, allow_unused=True)
    logit, center = raw[0][level][image, label, row, column].detach(), raw[2][level][image, 0, row, column].detach()
    expected = torch.zeros_like(raw[0][level])
    expected[image, label, row, column] = logit.sigmoid() * (1 - logit.sigmoid()) * center.sigmoid()
    torch.testing.assert_close(gradients[level], expected)
    assert gradients[1 - level] is None
    ((edge, one),) = found.pullbacks([(image, 0)], 'right')[0]
    (moved,) = torch.autograd.grad(edge, raw[1][level], one)
    assert moved[image, 2, row, column] == 1 and moved.count_nonzero() == 1


def test_a_prediction_that_no_raw_output_equals_is_an_error(raw):
    with pytest.raises(InputError, match='no raw output of the head equals it'):
        found_of(raw, 0, 0, 1, 2, 3, change=1.0).pullbacks([(0, 0)], 'class')


def test_missing_ops_of_mmcv_are_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmcv._ext', None)
    with pytest.raises(InputError) as caught:
        require_ops()
    assert str(caught.value).startswith("model: mmcv has no compiled ops (mmcv._ext), which mmdet's detectors need")
    assert 'mim install mmcv' in caught.value.hint
