"""Attention however it is written: saved on the way, by einsum, by exponentials, transposed; and what is none."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vistool import Attention, InputError
from vistool.network.attention import watch_attention
from vistool.visualization.facets import facets

SIZE = (24, 32)


class Form(nn.Module):
    """A user's own ViT of one block, 3 × 4 patches and a class token, with attention written in one of many ways."""

    def __init__(self, form, heads=2):
        super().__init__()
        torch.manual_seed(0)
        self.form, self.heads = form, heads
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 16))
        self.qkv = nn.Linear(16, 48)
        self.head = nn.Linear(16, 5)

    def tokens(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)

    def split(self, x):
        return self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)  # (B, H, N, d)

    def forward(self, x):
        x = self.tokens(x)
        q, k, v = self.split(x)
        y = self.form(self, q, k, v)  # (B, N, C)
        return self.head((x + y)[:, 0])

    def expected(self, x):
        q, k, _ = self.split(self.tokens(x))
        return (q @ k.mT).softmax(-1)


def merged(y):
    return y.transpose(1, 2).flatten(2)


def saved_detached(net, q, k, v):
    a = (q @ k.mT).softmax(-1)
    net.saved = a.detach()
    return merged(a @ v)


def saved_clone(net, q, k, v):
    a = F.softmax(q @ k.mT, dim=-1)
    net.saved = a.clone().cpu()
    return merged(torch.matmul(F.dropout(a, 0.5, net.training), v))


def saved_and_used(net, q, k, v):
    net.saved = (q @ k.mT).softmax(-1).clone()
    return merged(net.saved @ v)


def mean_logged(net, q, k, v):
    a = (q @ k.mT).softmax(-1)
    net.saved, net.top = a.mean(1), a.amax(-1)
    return merged(a @ v)


def einsum_output_axes(net, q, k, v):
    a = torch.einsum('bhqd,bhkd->bhqk', q, k).softmax(-1)
    return torch.einsum('bhqk,bkhd->bqhd', a, v.transpose(1, 2)).flatten(2)


def einsum_spaces(net, q, k, v):
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    y = torch.einsum('b i j, b j d -> b i d', (q @ k.mT).softmax(-1), v)
    return merged(y.unflatten(0, (-1, net.heads)))


def einsum_ellipsis(net, q, k, v):
    return merged(torch.einsum('...ij,...jd->...id', (q @ k.mT).softmax(-1), v))


def einsum_implicit(net, q, k, v):
    return merged(torch.einsum('...ij,...jz', (q @ k.mT).softmax(-1), v))


def einsum_values_first(net, q, k, v):
    return torch.einsum('bkhd,bhqk->bqhd', [v.transpose(1, 2), (q @ k.mT).softmax(-1)]).flatten(2)


def einsum_keys_before_queries(net, q, k, v):
    a = torch.einsum('bhqd,bhkd->bhkq', q, k).softmax(2)
    return torch.einsum('bhkq,bhkd->bqhd', a, v).flatten(2)


def exp_and_sum(net, q, k, v):
    e = torch.exp(q @ k.mT)
    return merged((e / e.sum(-1, keepdim=True)) @ v)


def exp_minus_maximum(net, q, k, v):
    s = q @ k.mT
    e = (s - s.max(-1, keepdim=True).values).exp()
    e = e / (e.sum(dim=-1, keepdim=True) + 1e-9)
    return merged(e @ v)


def exp_in_place(net, q, k, v):
    s = q @ k.mT
    s -= s.amax(-1, keepdim=True)
    s.exp_()
    s /= s.sum(-1, keepdim=True)
    return merged(s @ v)


def exp_times_reciprocal(net, q, k, v):
    e = (q @ k.mT).exp()
    return merged((e * e.sum(-1, keepdim=True).reciprocal()) @ v)


def exp_divided_after_the_product(net, q, k, v):
    e = (q @ k.mT).exp()
    return merged((e @ v) / (e.sum(-1, keepdim=True) + 1e-9))


def exp_divided_in_place(net, q, k, v):
    e = (q @ k.mT).exp()
    y = torch.einsum('bhqk,bhkd->bqhd', e, v)
    y /= e.sum(-1).transpose(1, 2)[..., None]
    return y.flatten(2)


def logsumexp(net, q, k, v):
    s = q @ k.mT
    return merged(torch.exp(s - torch.logsumexp(s, -1, keepdim=True)) @ v)


def log_softmax(net, q, k, v):
    return merged(F.log_softmax(q @ k.mT, -1).exp() @ v)


def l1_normalized(net, q, k, v):
    return merged(F.normalize((q @ k.mT).exp(), p=1, dim=-1) @ v)


def other_axis_transposed(net, q, k, v):
    a = (k @ q.mT).softmax(-2)  # (keys, queries)
    return merged(a.transpose(-2, -1) @ v)


def values_first(net, q, k, v):
    a = (k @ q.mT).softmax(2)
    return merged((v.mT @ a).mT)


def softmax_module_then_permuted(net, q, k, v):
    a = nn.Softmax(dim=1)(torch.einsum('bhqd,bhkd->bkqh', q, k))  # (B, keys, queries, H)
    return merged(a.permute(0, 3, 2, 1).contiguous() @ v)


FORMS = [
    saved_detached, saved_clone, saved_and_used, mean_logged, einsum_output_axes, einsum_spaces, einsum_ellipsis,
    einsum_implicit, einsum_values_first, einsum_keys_before_queries, exp_and_sum, exp_minus_maximum, exp_in_place,
    exp_times_reciprocal, exp_divided_after_the_product, exp_divided_in_place, logsumexp, log_softmax, l1_normalized,
    other_axis_transposed, values_first,
    softmax_module_then_permuted,
]  # fmt: skip


@pytest.mark.parametrize('form', FORMS)
def test_attention_is_captured_however_it_is_written(form):
    net, x = Form(form).eval(), torch.randn(2, 3, *SIZE)
    expected = net.expected(x)[:, :, 0, 1:].detach()
    for image, result in enumerate(Attention(heads=['all'])(net, x)):
        heads = torch.stack([torch.from_numpy(m.values) for m in result.maps[1:]])
        torch.testing.assert_close(heads, expected[image].reshape(2, 3, 4), atol=1e-6, rtol=1e-4)
        assert result.provenance['layers'][0]['residual'] < 1e-5


@pytest.mark.parametrize('form', FORMS)
def test_gradients_are_taken_with_respect_to_it(form):
    """∂y/∂A of gradient rollout, against autograd through a plainly written block."""
    net, x = Form(form).eval(), torch.randn(1, 3, *SIZE)
    (result,) = Attention(method='grad-rollout', targets=[3])(net, x)
    tokens = net.tokens(x).detach()
    q, k, v = net.split(tokens)
    a = (q @ k.mT).softmax(-1).detach().requires_grad_()
    score = net.head((tokens + merged(a @ v))[:, 0])[0, 3]
    (gradient,) = torch.autograd.grad(score, a)
    expected = (a * gradient).clamp_min(0).mean(1)[0, 0, 1:].reshape(3, 4).detach()
    low, high = result.maps[0].range
    shown = torch.from_numpy(result.maps[0].values) * (high - low) + low
    torch.testing.assert_close(shown, expected, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize(('size', 'said'), [((16, 24), 1), ((16, 16), 1), ((24, 32), 0)])
@pytest.mark.parametrize('form', [exp_and_sum, saved_detached])
def test_the_order_of_queries_that_are_too_few_to_show_it_is_said_to_be_assumed(size, said, form, caplog):
    net = Form(form).eval()
    for _ in range(2):
        Attention(queries=['5,5'])(net, torch.randn(1, 3, *size))
    assert caplog.text.count('queries are taken to be in the order of its keys') == said


@pytest.mark.parametrize('method', ['raw', 'rollout', 'grad-rollout'])
def test_what_could_not_be_checked_stands_in_the_caption(method):
    net = Form(saved_detached).eval()
    few, enough = (facets(Attention(method)(net, torch.randn(3, *size))).caption for size in ((16, 24), SIZE))
    assert 'token order not checked' in few and 'not checked' not in enough


def shared_values(net, q, k, v):
    a = (q @ k.mT).softmax(-1)
    shared = v.mean(1)
    return torch.einsum('bhqk,bkd->bqhd', a, shared).flatten(2)


def shared_values_broadcast(net, q, k, v):
    return merged((q @ k.mT).softmax(-1) @ v.mean(1, keepdim=True))


@pytest.mark.parametrize('form', [shared_values, shared_values_broadcast])
def test_heads_may_share_their_values(form):
    net, x = Form(form).eval(), torch.randn(2, 3, *SIZE)
    results = Attention(heads=['all'])(net, x)
    heads = torch.stack([torch.from_numpy(m.values) for m in results[1].maps[1:]])
    expected = net.expected(x)[1, :, 0, 1:].detach().reshape(2, 3, 4)
    torch.testing.assert_close(heads, expected, atol=1e-6, rtol=1e-4)


def test_two_softmaxes_may_be_subtracted():
    """Differential attention: weights of both signs, whose rows do not sum to 1."""

    def difference(net, q, k, v):
        (q1, q2), (k1, k2) = q.chunk(2, -1), k.chunk(2, -1)
        net.weights = (q1 @ k1.mT).softmax(-1) - net.share * (q2 @ k2.mT).softmax(-1)
        return merged(net.weights @ v)

    net = Form(difference).eval()
    net.share = nn.Parameter(torch.tensor(0.4))
    result = Attention(heads=['all'])(net, torch.randn(3, *SIZE))
    heads = torch.stack([torch.from_numpy(m.values) for m in result.maps[1:]])
    torch.testing.assert_close(heads, net.weights[0, :, 0, 1:].detach().reshape(2, 3, 4))
    assert 'softmaxes mixed' in facets(result).caption


class Pooling(nn.Module):
    """Attention pooling written as a weighted sum: one query, without a product of matrices."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.score, self.head = nn.Conv2d(3, 16, 8, 8), nn.Linear(16, 1), nn.Linear(16, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        self.weights = self.score(x).softmax(1)
        return self.head((self.weights * x).sum(1))


def test_a_weighted_sum_is_attention_of_one_query():
    net, x = Pooling().eval(), torch.randn(2, 3, *SIZE)
    for image, result in enumerate(Attention(heads=['mean'])(net, x)):
        shown = torch.from_numpy(result.maps[0].values)
        torch.testing.assert_close(shown, net.weights[image].detach().reshape(3, 4))


class Unnormalized(Form):
    """Softmax with one more in the sum: its rows do not sum to 1, and it is refused."""

    def __init__(self):
        def softmax1(net, q, k, v):
            e = (q @ k.mT).exp()
            return merged((e / (1 + e.sum(-1, keepdim=True))) @ v)

        super().__init__(softmax1)


def captured(net, x):
    found = []
    with torch.no_grad(), watch_attention(net, len(x), found.append):
        net(x)
    return found


def test_what_does_not_sum_to_one_is_not_attention():
    assert not captured(Unnormalized().eval(), torch.randn(2, 3, *SIZE))


def test_a_softmax_whose_rows_no_longer_sum_to_one_is_refused_with_that_reason():
    net = Form(lambda net, q, k, v: merged(0.5 * (q @ k.mT).softmax(-1) @ v)).eval()
    with pytest.raises(InputError, match='rows do not sum to 1 where they meet the values'):
        Attention()(net, torch.randn(3, *SIZE))


def test_nothing_of_the_forward_is_kept():
    net, x = Form(saved_detached).eval(), torch.randn(2, 3, *SIZE)
    with torch.no_grad(), watch_attention(net, 2, lambda op: None) as watch:
        net(x)
        assert not len(watch._softmaxes._known)


class Temperature(nn.Module):
    """Exponentials that are not weights: a learned temperature, and a log-variance."""

    def __init__(self):
        super().__init__()
        self.conv, self.scale = nn.Conv2d(3, 8, 8, 8), nn.Parameter(torch.zeros(8, 1, 1))

    def forward(self, x):
        x = self.conv(x) * self.scale.exp()
        return (x.flatten(2).exp() @ x.flatten(2).mT).mean((1, 2))


def test_other_exponentials_are_not_attention():
    assert not captured(Temperature().eval(), torch.randn(2, 3, *SIZE))
