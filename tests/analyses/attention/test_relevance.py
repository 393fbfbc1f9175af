"""Rollout, gradient rollout and LeGrad against versions that hold every matrix."""

import copy

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from known_networks import vit_of_uneven_attention

from vistool import Attention
from vistool.network import attention as calls
from vistool.visualization.facets import facets

SIZE = (48, 64)


@pytest.fixture(scope='module')
def vit():
    return vit_of_uneven_attention(SIZE).double()


@pytest.fixture(scope='module')
def image():
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def naive(model, image, detached=False):
    """The model by hand, every attention matrix a node of the graph: tokens of each block, matrices, scores."""
    x = model.pos_drop(model._pos_embed(model.patch_embed(image)))
    blocks, matrices = [], []
    for block in model.blocks:
        x = x.detach() if detached else x
        attention = block.attn
        batch, count, width = x.shape
        qkv = attention.qkv(block.norm1(x)).view(batch, count, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
        matrix = (qkv[0] @ qkv[1].mT * attention.scale).softmax(-1)
        matrix.retain_grad() if matrix.requires_grad else None
        matrices.append(matrix)
        x = x + attention.proj((matrix @ qkv[2]).transpose(1, 2).reshape(batch, count, width))
        x = x + block.mlp(block.norm2(x))
        blocks.append(x)
    return blocks, matrices, model.head(model.norm(x)[:, 0])


@pytest.fixture(params=[calls.CHUNK_BYTES, 200], ids=['one chunk', 'many chunks'])
def chunks(request, monkeypatch):
    monkeypatch.setattr(calls, 'CHUNK_BYTES', request.param)
    monkeypatch.setattr(calls, 'TILE_BYTES', request.param)


@pytest.mark.parametrize('query', ['cls', 'mean', (40, 20)])
def test_rollout(vit, image, chunks, query):
    results = Attention(method='rollout', queries=[query])(vit, image)
    with torch.no_grad():
        _, matrices, _ = naive(vit, image)
    rows = torch.eye(13, dtype=torch.float64).expand(2, 13, 13)
    for matrix in matrices:
        mixed = (matrix.mean(1) + torch.eye(13)) / 2
        rows = mixed / mixed.sum(-1, keepdim=True) @ rows
    token = {'cls': 0, 'mean': slice(1, None)}.get(query, 1 + 1 * 4 + 2)
    expected = rows[:, token].reshape(2, -1, 13).mean(1)
    for result, row in zip(results, expected, strict=True):
        assert result.provenance['residual'] < 1e-12
        values = result.maps[0].values
        np.testing.assert_allclose(values, row[1:].reshape(3, 4), atol=1e-5)
        assert values.sum(dtype=np.float64) + result.provenance['prefix'][0] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize('classes', [[2], [0, 5]])
def test_gradient_rollout(vit, image, chunks, classes):
    results = Attention(method='grad-rollout', targets=classes)(vit, image)
    for number, target in enumerate(classes):
        _, matrices, scores = naive(vit, image)
        gradients = torch.autograd.grad(scores[:, target].sum(), matrices)
        rows = torch.eye(13, dtype=torch.float64).expand(2, 13, 13)
        for matrix, gradient in zip(matrices, gradients, strict=True):
            rows = rows + (matrix * gradient).clamp_min(0).mean(1) @ rows
        for result, expected in zip(results, rows[:, 0, 1:].detach(), strict=True):
            assert_map(result.maps[number], expected)


@pytest.mark.parametrize('layers', [['all'], [0, 2]])
def test_legrad(vit, image, chunks, layers):
    results = Attention(method='legrad', targets=[4], layers=layers)(vit, image)
    blocks, matrices, _ = naive(vit, image, detached=True)
    score = sum(vit.head(vit.norm(tokens.mean(1)))[:, 4].sum() for tokens in blocks)
    gradients = torch.autograd.grad(score, matrices)
    chosen = range(3) if layers == ['all'] else layers
    maps = torch.stack([gradients[index].clamp_min(0).mean((1, 2)) for index in chosen]).mean(0)
    for result, expected in zip(results, maps[:, 1:], strict=True):
        assert_map(result.maps[0], expected)


def assert_map(item, expected):
    low, high = item.range
    np.testing.assert_allclose(
        item.values * (high - low) + low, expected.reshape(3, 4), atol=1e-6 * float(expected.max())
    )
    assert item.values.min() == 0 and item.values.max() == pytest.approx(1)


def test_nothing_stays_in_the_model(vit, image):
    for method in ('rollout', 'grad-rollout', 'legrad'):
        Attention(method=method)(vit, image)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in vit.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in vit.modules())
    assert F.softmax(torch.zeros(2), 0).tolist() == [0.5, 0.5]


@pytest.mark.parametrize('room', [1, 300, 3000, 1 << 20])
@pytest.mark.parametrize('bias', [None, (1, 1, 1, 9), (1, 3, 7, 9), (2, 1, 7, 9), bool])
def test_tiles_are_the_whole_matrix(room, bias, monkeypatch):
    monkeypatch.setattr(calls, 'TILE_BYTES', room)
    generator = torch.Generator().manual_seed(1)
    query, key = torch.randn(2, 3, 7, 4, generator=generator), torch.randn(2, 3, 9, 4, generator=generator)
    scores = query @ key.mT * 0.7
    mask = None
    if bias is bool:
        mask = torch.rand(1, 1, 7, 9, generator=generator) > 0.3
        scores = scores.masked_fill(~mask, -torch.inf)
    elif bias is not None:
        mask = torch.randn(bias, generator=generator)
        scores = scores + mask
    call = calls.AttentionOp(0, 'x', (2, 3, 7, 9), query=query, key=key, bias=mask, scale=0.7)
    found, seen, memory = torch.zeros(2, 3, 7, 9), torch.zeros(3, 7), call.room()
    for heads, part in call.tiles():
        found[:, heads, part] = call.part(part, heads, memory)
        seen[heads, part] += 1
    assert (seen == 1).all()
    torch.testing.assert_close(found, scores.softmax(-1))


def test_rollout_in_single_precision(vit, image, chunks):
    rows = Attention(method='rollout')(copy.deepcopy(vit).float(), image.float())
    for result, exact in zip(rows, Attention(method='rollout')(vit, image), strict=True):
        values = result.maps[0].values
        assert values.sum(dtype=np.float64) + result.provenance['prefix'][0] == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(values, exact.maps[0].values, atol=1e-6)


@pytest.mark.parametrize('method', ['rollout', 'grad-rollout', 'legrad'])
@pytest.mark.parametrize(('layers', 'names'), [([0, 1], (0, 1)), (['blocks.1'], (1,)), ([], (0, 1, 2)), ([-1], (2,))])
def test_layers_mean_what_they_say_in_the_caption_too(vit, image, method, layers, names):
    (result, _) = Attention(method=method, layers=layers, targets=[] if method == 'rollout' else [1])(vit, image)
    assert [layer['index'] for layer in result.provenance['layers']] == list(names)
    assert result.layers == tuple(f'blocks.{index}.attn' for index in names)
    count = f'{len(names)} layer' + ('s' if len(names) > 1 else '')
    assert facets(result).caption.split(' · ')[2] == count


@pytest.fixture(scope='module')
def siglip():
    """A ViT whose head pools the patch tokens by attention from one learned query."""
    torch.manual_seed(0)
    model = timm.create_model(
        'vit_base_patch16_siglip_224', img_size=SIZE, embed_dim=32, depth=2, num_heads=2, num_classes=7
    )
    for name, parameter in model.named_parameters():
        if 'q' in name or 'kv' in name:
            torch.nn.init.normal_(parameter, std=0.4)
    return model.double().eval()


def pooled(model, image):
    """The model by hand: matrices of the blocks, that of the pooling, and the scores."""
    x = model.pos_drop(model._pos_embed(model.patch_embed(image)))
    matrices = []
    for block in model.blocks:
        attention, (batch, count, width) = block.attn, x.shape
        qkv = attention.qkv(block.norm1(x)).view(batch, count, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
        matrices.append((qkv[0] @ qkv[1].mT * attention.scale).softmax(-1))
        x = x + attention.proj((matrices[-1] @ qkv[2]).transpose(1, 2).reshape(batch, count, width))
        x = x + block.mlp(block.norm2(x))
    x, pool = model.norm(x), model.attn_pool
    q = pool.q(pool.latent.expand(len(x), -1, -1)).unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)
    k, v = pool.kv(x).unflatten(-1, (2, pool.num_heads, -1)).permute(2, 0, 3, 1, 4)
    matrices.append((q @ k.mT * pool.scale).softmax(-1))
    y = pool.proj((matrices[-1] @ v).transpose(1, 2).flatten(2))
    y = (y + pool.mlp(pool.norm(y)))[:, 0]
    return matrices, model.head(model.fc_norm(y))


def test_rollout_starts_from_a_pooling_layer(siglip, image):
    with torch.no_grad():
        matrices, _ = pooled(siglip, image)
    rows = torch.eye(12, dtype=torch.float64).expand(2, 12, 12)
    for matrix in matrices[:-1]:
        rows = (matrix.mean(1) + torch.eye(12)) / 2 @ rows
    expected = matrices[-1].mean(1) @ rows
    for result, row in zip(Attention(method='rollout')(siglip, image), expected, strict=True):
        np.testing.assert_allclose(result.maps[0].values, row.reshape(3, 4), atol=1e-6)
        assert result.layers[-1] == 'attn_pool'


def test_gradient_rollout_starts_from_a_pooling_layer(siglip, image):
    matrices, scores = pooled(siglip, image)
    gradients = torch.autograd.grad(scores[:, 3].sum(), matrices)
    changed = [(m * g).clamp_min(0).mean(1).detach() for m, g in zip(matrices, gradients, strict=True)]
    rows = torch.eye(12, dtype=torch.float64).expand(2, 12, 12)
    for matrix in changed[:-1]:
        rows = rows + matrix @ rows
    for result, row in zip(
        Attention(method='grad-rollout', targets=[3])(siglip, image), changed[-1] @ rows, strict=True
    ):
        assert_map(result.maps[0], row[0])


@pytest.mark.parametrize('layers', [[2], ['attn_pool'], [-1]])
def test_legrad_of_a_pooling_layer_alone(siglip, image, layers):
    matrices, scores = pooled(siglip, image)
    (gradient,) = torch.autograd.grad(scores[:, 3].sum(), matrices[-1])
    results = Attention(method='legrad', targets=[3], layers=layers)(siglip, image)
    for result, own in zip(results, gradient.clamp_min(0).mean((1, 2)).detach(), strict=True):
        assert_map(result.maps[0], own)
        assert result.layers == ('attn_pool',)


@pytest.mark.parametrize(('layers', 'names'), [([0], (0,)), ([0, 1], (0, 1)), ([], (0, 1)), ([1, 2], (1, 2))])
def test_legrad_of_chosen_layers_before_a_pooling_layer(siglip, image, layers, names):
    (result, _) = Attention(method='legrad', targets=[3], layers=layers)(siglip, image)
    assert [layer['index'] for layer in result.provenance['layers']] == list(names)
