"""The attention of every query over every key, against the network computed by hand."""

import numpy as np
import pytest
import timm
import torch
from known_networks import vit_of_uneven_attention

from vistool import Attention
from vistool.analyses.attention import reading
from vistool.errors import InputError
from vistool.network import attention as calls

SIZE = (48, 64)


@pytest.fixture(scope='module')
def vit():
    return vit_of_uneven_attention(SIZE)


@pytest.fixture(scope='module')
def image():
    return torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(3))


def by_hand(model, image):
    """The matrices of all blocks, each (heads, queries, keys)."""
    found = []
    with torch.no_grad():
        x = model.pos_drop(model._pos_embed(model.patch_embed(image[None])))
        for block in model.blocks:
            own = block.attn
            qkv = own.qkv(block.norm1(x)).view(1, x.shape[1], 3, own.num_heads, -1).permute(2, 0, 3, 1, 4)
            found.append((qkv[0] @ qkv[1].mT * own.scale).softmax(-1)[0].numpy())
            x = block(x)
    return found


@pytest.mark.parametrize('most', [calls.CHUNK_BYTES, 300], ids=['one chunk', 'many chunks'])
def test_matrices_are_those_of_the_network(vit, image, most, monkeypatch):
    monkeypatch.setattr(calls, 'CHUNK_BYTES', most)
    found = Attention(layers='all', heads=['all', 'max']).matrices(vit, image)
    assert [matrix.layer.number for matrix in found] == [0, 1, 2]
    for matrix, expected in zip(found, by_hand(vit, image), strict=True):
        assert matrix.heads == ('mean', 0, 1, 'max') and matrix.values.dtype == np.float32
        np.testing.assert_allclose(matrix.values[1:3], expected, atol=1e-5)
        np.testing.assert_allclose(matrix['mean'], expected.mean(0), atol=1e-5)
        np.testing.assert_allclose(matrix['max'], expected.max(0), atol=1e-5)
        np.testing.assert_allclose(matrix[1].sum(-1), 1, atol=1e-5)


def test_a_row_is_the_map_of_its_query(vit, image):
    (matrix,) = Attention(heads=[1]).matrices(vit, image)
    assert (matrix.prefix, matrix.grid, matrix.query_prefix, matrix.query_grid) == (1, (3, 4), 1, (3, 4))
    point = Attention(heads=[1], queries=[(40, 20)])(vit, image)
    np.testing.assert_allclose(matrix.on_image()[0, 1 + 1 * 4 + 2], point.to_array()[0], atol=1e-6)
    assert '(3, 4)' in repr(matrix) and len(repr(matrix)) < 300
    with pytest.raises(InputError, match=r'^heads: no head 0; accepted: 1'):
        matrix[0]


def test_a_pooling_layer_has_a_query_of_its_own(image):
    model = timm.create_model(
        'vit_base_patch16_siglip_224', img_size=SIZE, embed_dim=32, depth=2, num_heads=2, num_classes=0
    ).eval()
    _, before, pooling = Attention(layers='all', heads='mean').matrices(model, image)
    assert before.values.shape == (1, 12, 12) and pooling.values.shape == (1, 1, 12)
    assert pooling.query_grid is None and before.query_grid == before.grid == (3, 4)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'queries': 'cls'}, '^queries: a matrix is the raw attention of all queries'),
        ({'queries': 'all'}, r"^queries: 'all' is not a query; .*matrices\("),
        ({'threshold': 0.6}, '^threshold: a matrix is'),
        ({'stats': True}, '^stats: a matrix is'),
        ({'method': 'rollout'}, '^method: a matrix is'),
        ({'targets': [1]}, '^targets: raw is class-agnostic'),
        ({'heads': [2]}, '^heads: no head 2'),
        ({'layers': [3]}, '^layers: no layer 3'),
    ],
)
def test_what_a_matrix_does_not_have_is_refused(vit, image, options, message):
    with pytest.raises(InputError, match=message):
        Attention(**options).matrices(vit, image)


def test_one_image_and_a_bound_of_memory(vit, image, monkeypatch):
    with pytest.raises(InputError, match=r'^subject: 2 images'):
        Attention().matrices(vit, torch.stack([image, image]))
    monkeypatch.setattr(reading, 'MOST_BYTES', 3 * 13 * 13 * 4 * 2)  # two layers of three maps
    assert len(Attention(layers=[0, 1]).matrices(vit, image)) == 2
    with pytest.raises(InputError, match='^heads: the matrices take'):
        Attention(layers='all').matrices(vit, image)
    assert len(Attention(layers='all', heads='mean').matrices(vit, image)) == 3


def test_windows_have_no_one_matrix():
    model = timm.create_model('swin_tiny_patch4_window7_224', img_size=56, embed_dim=8, depths=(2,), num_heads=(2,))
    with pytest.raises(InputError, match='attends within windows'):
        Attention(layers=[0]).matrices(model.eval(), torch.randn(3, 56, 56))
