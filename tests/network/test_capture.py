import gc
import weakref
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from vistool.network.capture import activations, borrowed, remembered
from vistool.network.tensors import Grids, first_tensor, replace_tensor


class InPlaceTail(nn.Module):
    """A network whose activation after the target layer overwrites the layer's output."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.target = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.relu(self.target(self.stem(x))).mean((2, 3)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return InPlaceTail()


def state_of(net):
    return (
        [module.training for module in net.modules()],
        [parameter.requires_grad for parameter in net.parameters()],
        [None if parameter.grad is None else parameter.grad.clone() for parameter in net.parameters()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules()],
    )


def same(a, b):
    for x, y in zip(a, b, strict=True):
        for p, q in zip(x, y, strict=True):
            assert torch.equal(p, q) if isinstance(p, torch.Tensor) else p == q


@pytest.mark.parametrize('fails', [False, True])
@pytest.mark.parametrize('grad_mode', [True, False])
def test_everything_is_left_as_found(net, fails, grad_mode):
    net.train()
    net.stem.eval()
    net.fc.weight.requires_grad_(False)
    net(torch.randn(1, 3, 4, 4)).sum().backward()
    before = state_of(net)
    with torch.set_grad_enabled(grad_mode):
        try:
            with borrowed(net), activations(net, {'target': net.target}):
                net(torch.randn(1, 3, 4, 4))
                if fails:
                    raise KeyError
        except KeyError:
            assert fails
        assert torch.is_grad_enabled() == grad_mode
    same(before, state_of(net))


@pytest.fixture
def precision():
    """PyTorch's settings of TF32, which a test may change."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    places = [cudnn.conv, cudnn.rnn, matmul] if hasattr(matmul, 'fp32_precision') else []
    flags, words = (cudnn.allow_tf32, matmul.allow_tf32), [each.fp32_precision for each in places]
    yield places
    for each, word in zip(places, words, strict=True):
        each.fp32_precision = word
    cudnn.allow_tf32, matmul.allow_tf32 = flags


@pytest.mark.parametrize('products', ['highest', 'high'])  # the latter allows TF32 in products, as scripts do
def test_a_gpu_computes_in_float32_what_is_float32(net, precision, products):
    def settings():
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    torch.set_float32_matmul_precision(products)
    before = settings()
    assert before == (True, products == 'high')
    with borrowed(net):
        with borrowed(nn.Linear(2, 2)):
            assert settings() == (False, False)
        assert settings() == (False, False)
        assert torch.get_float32_matmul_precision() == 'highest'
        assert {each.fp32_precision for each in precision} <= {'ieee', 'none'}
    assert settings() == before
    assert torch.get_float32_matmul_precision() == products


def test_settings_of_tf32_by_word_are_changed_by_word(net, precision):
    for each in precision[1:]:  # convolutions keep the default, so the flag cannot be read any more
        each.fp32_precision = 'ieee'
    with borrowed(net):
        assert {each.fp32_precision for each in precision} <= {'ieee'}
    assert [each.fp32_precision for each in precision] == ['tf32', 'ieee', 'ieee'][: len(precision)]


@pytest.mark.parametrize('cut', [True, False])
def test_the_activation_is_what_the_layer_gave_despite_in_place_operations(net, cut):
    x = torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        expected = net.target(net.stem(x))
    with borrowed(net), activations(net, {'target': net.target}, cut=cut) as found:
        net(x)
    assert torch.equal(found['target'][0].value, expected)


@pytest.mark.parametrize('context', [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_gradients_are_right_in_every_grad_mode(net, context):
    x = torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        leaf = net.target(net.stem(x))
    expected = torch.autograd.grad(net.fc(leaf.requires_grad_().relu().mean((2, 3)))[:, 1].sum(), leaf)[0]
    with context(), borrowed(net), activations(net, {'target': net.target}) as found:
        score = net(x)[:, 1].sum()
        gradient = torch.autograd.grad(score, found['target'][0].value)[0]
    torch.testing.assert_close(gradient, expected)


def test_nothing_is_recorded_before_the_layer(net):
    with borrowed(net), activations(net, {'target': net.target, 'stem': net.stem}) as found:
        net(torch.randn(1, 3, 4, 4))
        assert found['stem'][0].value.grad_fn is None  # the cut
        assert found['target'][0].value.grad_fn is not None  # behind it
    with borrowed(net), activations(net, {'target': net.target}) as found:
        net(torch.randn(1, 3, 4, 4))
        assert found['target'][0].value.grad_fn is None


def test_a_no_grad_block_inside_the_model_does_not_stop_the_tail():
    class Frozen(InPlaceTail):
        def forward(self, x):
            with torch.no_grad():
                x = self.target(self.stem(x))
            return self.fc(x.mean((2, 3)))

    net = Frozen()
    with borrowed(net), activations(net, {'target': net.target}) as found:
        score = net(torch.randn(1, 3, 4, 4)).sum()
        assert torch.autograd.grad(score, found['target'][0].value)[0].abs().sum() > 0


Pair = namedtuple('Pair', 'a b')


@dataclass(frozen=True)
class Holder:
    a: int
    b: Any


@pytest.mark.parametrize(
    'wrap',
    [
        lambda t: t,
        lambda t: (t, 3),
        lambda t: [1, t],
        lambda t: {'x': t},
        lambda t: Pair(1, (t,)),
        lambda t: OrderedDict(x=t),
        lambda t: Holder(1, {'y': t}),
    ],
)
def test_tensors_are_found_and_replaced_in_containers(wrap):
    old, new = torch.zeros(2), torch.ones(2)
    output = wrap(old)
    assert first_tensor(output) is old
    swapped = replace_tensor(output, old, new)
    assert type(swapped) is type(output) and first_tensor(swapped) is new


def test_hugging_face_outputs_are_rebuilt():
    from transformers.modeling_outputs import BaseModelOutput

    old, new = torch.zeros(2), torch.ones(2)
    swapped = replace_tensor(BaseModelOutput(last_hidden_state=old), old, new)
    assert isinstance(swapped, BaseModelOutput) and swapped.last_hidden_state is new


def test_a_layer_that_runs_twice_gives_two_activations(net):
    net.forward = lambda x: net.fc(net.target(net.target(net.stem(x))).mean((2, 3)))
    with borrowed(net), activations(net, {'target': net.target}) as found:
        net(torch.randn(1, 3, 4, 4))
    assert len(found['target']) == 2


@pytest.mark.parametrize(
    ('output', 'args', 'module', 'sizes'),
    [
        (torch.zeros(1, 2, 3, 4), (), None, [(3, 4), (2, 3)]),
        (torch.zeros(1, 2, 3, 4), (), nn.Conv2d(1, 1, 1), [(3, 4)]),
        (torch.zeros(1, 2, 3, 4), (), nn.LayerNorm(4), [(2, 3)]),
        ((torch.zeros(1, 12, 8), (3, 4)), (), None, [(3, 4)]),
        ((torch.zeros(1, 12, 8), None, [3, 4]), (), None, [(3, 4)]),
        (torch.zeros(1, 12, 8), (torch.zeros(1, 12, 8), (3, 4)), None, [(3, 4)]),
        ({'x': torch.zeros(1, 2, 3, 4)}, (), nn.Conv2d(1, 1, 1), [(3, 4)]),
        (torch.zeros(1, 12, 8), (True, (True, False), (3.0, 4.0)), None, []),
    ],
)
def test_sizes_are_noted_from_maps_and_from_what_is_said_of_tokens(output, args, module, sizes):
    grids = Grids()
    grids.watch(output, args, module)
    assert grids.sizes == sizes


class Named(OrderedDict):
    """A mapping of a kind that torch's pytree does not know."""

    extra = 1


def test_containers_in_which_nothing_changes_are_not_rebuilt():
    kept, changed = [torch.zeros(1)], torch.ones(1)
    outer = {'a': kept, 'b': (changed, 'text')}
    found = replace_tensor(outer, changed, torch.zeros(1))
    assert found['a'] is kept and found is not outer and outer['b'][0] is changed
    assert replace_tensor(outer, torch.ones(1), changed) is outer


def test_every_kind_of_container_keeps_its_kind_and_its_places():
    from transformers.modeling_outputs import BaseModelOutput

    from vistool.network.tensors import copied, leaves, tensors

    old, new = torch.zeros(1), torch.ones(1)
    containers = [
        (old, 1),
        [old, None],
        Pair(1, old),
        Holder(3, old),
        {'a': old},
        OrderedDict(a=old),
        Named(a=old),
        BaseModelOutput(last_hidden_state=new * 2, attentions=(old,)),
        torch.max(torch.zeros(2, 3), 1),
    ]
    for value in containers:
        first = next(iter(tensors(value)))
        found = replace_tensor(value, first, new)
        assert type(found) is type(value) and next(iter(tensors(found))) is new
        assert next(iter(tensors(value))) is first
        assert all(
            a is not b and torch.equal(a, b) for a, b in zip(tensors(copied(value)), tensors(value), strict=True)
        )
    assert [place for place, _ in leaves({'a': [old, Pair(old, 2)], 'b': old})] == [
        '[a][0]', '[a][1][0]', '[a][1][1]', '[b]'
    ]  # fmt: skip


def test_what_was_found_out_is_remembered_until_the_network_changes(net):
    found = []

    def look_up(key, module=net):
        return remembered(module, 'stages', key, lambda: found.append(key) or len(found))

    assert [look_up((4, 4)), look_up((4, 4)), look_up((4, 4), nn.DataParallel(net))] == [1, 1, 1]
    assert [look_up((8, 8)), look_up((4, 4)), look_up((8, 8))] == [2, 1, 2]  # input sizes in turn
    with torch.no_grad():
        net.fc.weight.mul_(2)
    assert look_up((8, 8)) == 3
    net.relu = nn.GELU()
    assert look_up((8, 8)) == 4 and look_up((8, 8), InPlaceTail()) == 5


def test_a_network_and_what_was_remembered_of_it_go_together():
    net = InPlaceTail()
    kept = weakref.ref(net)
    remembered(net, 'stages', None, lambda: ['target'])
    del net
    gc.collect()
    assert kept() is None
