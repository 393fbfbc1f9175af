"""Every family: rows sum to 1, weights rebuild the output, maps equal an eager version, nothing is left behind."""

import copy
import logging
import math

import pytest
import timm
import torch
import torch.nn.functional as F
from families import CHANNELS, GLOBAL, WINDOWED
from huggingface_networks import detr
from torch import nn
from torch.overrides import _get_current_function_mode_stack

from vistool import Attention
from vistool.errors import InputError
from vistool.network.attention import watch_attention
from vistool.network.token_layout import covered_size, find_token_layout
from vistool.visualization.facets import facets

SLOW = ('mmpretrain HiViT', 'mmpretrain LeViT')


def cases(table):
    return [
        pytest.param(*entry, id=name, marks=pytest.mark.slow if name in SLOW else ()) for name, entry in table.items()
    ]


def build(make, size, batch=2):
    torch.manual_seed(0)
    module = make()
    module.eval()
    return module, torch.randn(batch, 3, *size)


def hooks(module):
    return [
        (name, len(child._forward_hooks), len(child._forward_pre_hooks), child.training)
        for name, child in module.named_modules()
    ]


class Eager:
    """Fused attention replaced by what it stands for; remembers every softmax that it or the model computes."""

    def __init__(self, monkeypatch):
        self.maps = []
        softmax = torch.softmax  # the built-in function, which calls none of the others
        monkeypatch.setattr(torch, 'softmax', lambda x, dim, **k: self.keep(softmax(x, dim, **k)))
        monkeypatch.setattr(torch.Tensor, 'softmax', lambda x, dim=None, **k: self.keep(softmax(x, dim, **k)))
        monkeypatch.setattr(F, 'softmax', lambda x, dim=None, *_, **k: self.keep(softmax(x, dim)))
        monkeypatch.setattr(F, 'scaled_dot_product_attention', self.fused)

    def keep(self, weights):
        self.maps.append(weights.detach())
        return weights

    def fused(self, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **_):
        scores = query @ key.transpose(-1, -2) * (scale or 1 / math.sqrt(query.shape[-1]))
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        return self.keep(torch.exp(scores - scores.logsumexp(-1, keepdim=True))) @ value


def eager_weights(make, module, inputs, monkeypatch):
    """The last attention map of a copy of the model that is built while fused attention is replaced."""
    with monkeypatch.context() as patch:
        eager = Eager(patch)
        from mmpretrain.models.utils import attention as mm_attention

        patch.setattr(torch.nn.modules.activation.torch.backends.mha, 'get_fastpath_enabled', lambda: False)
        patch.setattr(mm_attention, 'scaled_dot_product_attention', eager.fused)
        torch.manual_seed(0)
        again = make()
        again.eval()
        again.load_state_dict(module.state_dict())
        eager.maps.clear()
        with torch.no_grad():
            again(inputs)
    return [weights for weights in eager.maps if weights.ndim >= 3]


@pytest.mark.parametrize(('make', 'size', 'prefix'), cases(GLOBAL))
def test_global_attention(make, size, prefix, monkeypatch):
    module, inputs = build(make, size)
    before = hooks(module)
    results = Attention(heads=['all'])(module, inputs)
    assert hooks(module) == before and not _get_current_function_mode_stack()
    expected = eager_weights(make, module, inputs, monkeypatch)[-1]
    expected = expected.reshape(2, -1, *expected.shape[-2:])
    cls = prefix > 0 or expected.shape[2] == 1
    for image, result in enumerate(results):
        recipe = result.provenance
        assert recipe['queries'] == ['CLS' if cls else 'mean query']
        assert recipe['layers'][0]['residual'] < 1e-5
        (mass,) = recipe['mass']
        assert mass['image'] + sum(mass['prefix']) == pytest.approx(1, abs=1e-5) and len(mass['prefix']) == prefix
        heads = torch.stack([torch.from_numpy(m.values) for m in result.maps[1:]])
        rows = expected[image, :, 0] if cls else expected[image].mean(1)
        torch.testing.assert_close(heads, rows[:, prefix:].reshape(heads.shape), atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(torch.from_numpy(result.maps[0].values), heads.mean(0))


def windows_by_hand(grid, shift, window, batch, roll_first):
    """Swin's windows, cut by hand: the token at each position, -1 for padding. timm rolls before it pads."""
    height, width = (math.ceil(n / window) * window for n in grid)
    image = torch.full((batch, height, width), -1)
    tokens = torch.arange(batch * grid[0] * grid[1]).view(batch, *grid)
    image[:, : grid[0], : grid[1]] = tokens.roll((-shift, -shift), (1, 2)) if roll_first else tokens
    image = image if roll_first else image.roll((-shift, -shift), (1, 2))
    image = image.view(batch, height // window, window, width // window, window).transpose(2, 3)
    return image.reshape(-1, window * window)


@pytest.mark.parametrize(('make', 'size', 'grid', 'layer'), cases(WINDOWED))
def test_windows_are_stitched(make, size, grid, layer):
    module, inputs = build(make, size)
    before = hooks(module)
    point = (size[1] * 0.4, size[0] * 0.6)
    results = Attention(layers=[layer], queries=['mean', point])(module, inputs)
    assert hooks(module) == before
    for result in results:
        assert result.provenance['layers'][0]['residual'] < 1e-5
        assert result.maps[0].values.shape == grid and result.maps[0].coordinates['query'] == 'mean query'
        for mass in result.provenance['mass']:
            assert mass['image'] + mass['padding'] == pytest.approx(1, abs=1e-5)
        asked = result.isel(query=1)['mean'].values
        row, column = int(0.6 * size[0] * grid[0] / size[0]), int(0.4 * size[1] * grid[1] / size[1])
        assert asked[row, column] > 0  # a query is in its own window


@pytest.mark.parametrize(
    'name', ['mmpretrain Swin', 'mmpretrain SwinV2', 'timm Swin', 'torchvision Swin', 'Hugging Face Swin']
)
@pytest.mark.parametrize('layer', [0, 1])
def test_shifted_windows_are_where_they_are_cut_by_hand(name, layer):
    make, size, grid, _ = WINDOWED[name]
    module, inputs = build(make, size)
    found = []
    with (
        torch.no_grad(),
        watch_attention(module, 2, lambda call: found.append((call, find_token_layout(call, 2, size)))),
    ):
        module(inputs)
    call, where = found[layer]
    shift = 2 if layer else 0
    assert torch.equal(where.windows, windows_by_hand(grid, shift, 4, 2, name == 'timm Swin'))
    # all queries, scattered by hand, rebuild the operation's output in image order
    everything = call.part(slice(None)) @ call.value
    torch.testing.assert_close(everything, call.output, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('layer', [0, 1])
def test_maxvits_blocks_and_grids_are_where_they_are_cut_by_hand(layer):
    make, size, grid, _ = WINDOWED['timm MaxViT']
    module, inputs = build(make, size)
    found = []
    with (
        torch.no_grad(),
        watch_attention(module, 2, lambda call: found.append((call, find_token_layout(call, 2, size)))),
    ):
        module(inputs)
    call, where = found[layer]
    side = math.isqrt(call.shape[2])
    tokens, steps = torch.arange(2 * 16 * 16).view(2, 16, 16), 16 // side
    cut = []
    for image in tokens:
        for top in range(steps):
            for left in range(steps):
                block = image[top * side : (top + 1) * side, left * side : (left + 1) * side]
                cut.append((image[top::steps, left::steps] if layer else block).flatten())
    assert grid == (16, 16) and 1 < side < 16 and torch.equal(where.windows, torch.stack(cut))


@pytest.mark.parametrize('layer', [0, 1])
def test_the_recipe_tells_what_leaks_to_padding(layer):
    make, size, _, _ = WINDOWED['mmpretrain Swin']  # 15 × 21 tokens in windows of 4 × 4
    module, inputs = build(make, size)
    found = []
    with (
        torch.no_grad(),
        watch_attention(module, 2, lambda call: found.append((call, find_token_layout(call, 2, size)))),
    ):
        module(inputs)
    call, where = found[layer]
    image = where.windows.amax(1) // (15 * 21)
    leaks = (call.part(slice(None)) * (where.windows < 0)[:, None, None]).sum(-1).mean(1)  # (windows, queries)
    for number, result in enumerate(Attention(layers=[layer], queries=['mean'])(module, inputs)):
        own = leaks[image == number][where.windows[image == number] >= 0]
        (mass,) = result.provenance['mass']
        assert mass['padding'] == pytest.approx(float(own.mean()), rel=1e-4) and mass['padding'] > 0.01
        assert f'attention to padding {mass["padding"]:.0%}' in facets(result).caption
        assert result.mass[0].padding == mass['padding']
        assert result.provenance['layers'][0]['residual'] < 1e-5


def test_a_constant_image_has_windows_too():
    make, size, grid, layer = WINDOWED['timm Swin']
    module, _ = build(make, size)
    assert Attention(layers=[layer])(module, torch.zeros(3, *size)).maps[0].values.shape == grid


@pytest.mark.parametrize(('make', 'size', 'layer'), cases(CHANNELS))
def test_channel_attention_is_refused(make, size, layer):
    module, inputs = build(make, size, 1)
    with pytest.raises(InputError, match='over channels'):
        Attention(layers=[layer])(module, inputs)


def test_talking_heads_show_what_the_values_are_multiplied_with():
    torch.manual_seed(0)
    module = timm.create_model('cait_xxs24_224', img_size=64, embed_dim=32, depth=2, num_heads=4).double().eval()
    for name, parameter in module.named_parameters():
        if 'proj_w' in name or 'proj_l' in name or 'qkv' in name:
            torch.nn.init.normal_(parameter, std=0.5)
    image, inside = torch.randn(1, 3, 64, 64, dtype=torch.float64), []
    attention = module.blocks[0].attn
    handle = attention.register_forward_hook(lambda layer, args, output: inside.append(args[0]))
    results = {layers: Attention(layers=[layers], queries=['6'])(module, image)[0] for layers in (0, 1)}
    handle.remove()
    queries, keys, values = attention.qkv(inside[0]).view(1, 16, 3, 4, 8).permute(2, 0, 3, 1, 4).detach()
    before = attention.proj_l((queries @ keys.mT * 8**-0.5).permute(0, 2, 3, 1)).softmax(2)  # over the keys
    weights = attention.proj_w(before).permute(0, 3, 1, 2).detach()
    shown = torch.stack([torch.from_numpy(m.values) for m in results[0].maps[1:]])
    torch.testing.assert_close(shown.flatten(1), weights[0, :, 6].to(shown), atol=1e-6, rtol=1e-5)
    own = attention.proj((weights @ values).transpose(1, 2).reshape(1, 16, 32))
    torch.testing.assert_close(own, attention(inside[0]))  # these weights, not those before the mixing
    assert shown.min() < 0 and (shown.sum((1, 2)) - 1).abs().max() > 0.1
    assert all(m.diverging for m in results[0])
    (layer,) = results[0].provenance['layers']
    assert layer['mixed'] and layer['residual'] < 1e-9 and 'softmaxes mixed' in facets(results[0]).caption
    measured = Attention(layers=[0, -1], stats=True)(module, image)[0].companions['stats'].rows
    assert [math.isnan(row['entropy']) for row in measured] == [True] * 4 + [False] * 4
    with pytest.raises(InputError, match='mixed softmaxes'):
        Attention(method='rollout', layers=[0, 1])(module, image)


def test_hooks_and_modes_go_after_an_exception():
    make, size, _ = GLOBAL['mmpretrain ViT']
    module, inputs = build(make, size)
    module.train()
    before = hooks(module)
    original = copy.deepcopy(module.state_dict())

    def fail(*_):
        raise KeyError('mine')

    handle = module.layers[1].register_forward_hook(fail)
    with pytest.raises(InputError, match='mine'):
        Attention(layers=['all'])(module, inputs)
    handle.remove()
    assert hooks(module) == before and not _get_current_function_mode_stack()
    assert all(torch.equal(value, original[name]) for name, value in module.state_dict().items())


def test_a_wrong_product_is_refused(monkeypatch):
    make, size, _ = GLOBAL['mmpretrain ViT']
    module, inputs = build(make, size)
    from vistool.network import attention as watch

    fused = watch._FUSED
    monkeypatch.setattr(watch, '_FUSED', fused)
    monkeypatch.setattr(watch.AttentionWatch, '_leaf', lambda self, output: output * 1.00005)
    assert Attention()(module, inputs)[0].provenance['layers'][0]['residual'] == pytest.approx(5e-5, rel=0.05)
    monkeypatch.setattr(watch.AttentionWatch, '_leaf', lambda self, output: output * 1.01)
    with pytest.raises(InputError, match='differs from the module'):
        Attention()(module, inputs)


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, 1e-12), (torch.bfloat16, 0.05)])
def test_precisions(dtype, tolerance):
    make, size, _ = GLOBAL['torchvision ViT']
    module, inputs = build(make, size)
    module.to(dtype)
    result = Attention()(module, inputs.to(dtype))[0]
    assert result.provenance['layers'][0]['residual'] < tolerance


def test_learned_queries_that_are_as_many_as_the_maps_positions_have_no_place():
    network, images = detr().eval(), torch.randn(1, 3, 64, 96)  # 6 queries, and 2 × 3 positions
    with pytest.raises(InputError, match='6 queries whose places in the image are not known'):
        Attention(layers=['model.decoder.layers.0.encoder_attn'], queries=['40,20'])(network, images)
    with pytest.raises(InputError, match='its decoder are learned, and attend to each other'):
        Attention(layers=['model.decoder.layers.0.self_attn'], queries=['mean'])(network, images)
    (result,) = Attention(layers=['model.decoder.layers.0.encoder_attn'], queries=['mean'])(network, images)
    assert all(each.values.shape == (2, 3) for each in result)


@pytest.mark.parametrize(
    ('size', 'grid', 'stride', 'covered', 'said'),
    [
        ((64, 96), (4, 6), (16, 16), (64, 96), 0),
        ((70, 99), (4, 6), (16, 16), (64, 96), 0),
        ((64, 96), (5, 5), (16, 16), (64, 96), 1),
        ((64, 96), (4, 6), None, (64, 96), 1),
    ],
)
def test_that_tokens_are_taken_to_cover_the_whole_input_is_said_once(size, grid, stride, covered, said, caplog):
    network = nn.Identity()
    with caplog.at_level(logging.INFO, 'vistool'):
        for _ in range(2):
            assert covered_size(size, grid, stride, network) == covered
    assert len(caplog.messages) == said
