"""Deformable attention: points and weights against what the libraries return themselves, and rebuilt outputs."""

import huggingface_networks as networks
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vistool as vt
from vistool.analyses.attention.capture import observe
from vistool.analyses.attention.selection import LayerChoice
from vistool.errors import InputError

SIZE = (64, 96)
CLASSES = ('cat', 'dog', 'car', 'bus')


@pytest.fixture(scope='module')
def image():
    return torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope='module')
def deformable_detr():
    return networks.built(networks.deformable_detr)


def kept_of(network, image, kind):
    """What each module of a class was given and gave, in order."""
    kept = []

    def keep(module, args, kwargs, output):
        kept.append((module, args, kwargs, output))

    handles = [
        module.register_forward_hook(keep, with_kwargs=True)
        for module in network.modules()
        if type(module).__name__ == kind
    ]
    with torch.no_grad():
        output = network(pixel_values=image[None], output_attentions=True)
    for handle in handles:
        handle.remove()
    return output, kept


def naive_sum(maps, points, weights):
    """Deformable attention as the paper writes it, point by point, for one query of one head.

    Args:
        maps: ``(d, h, w)`` of each level.
        points: ``(n, 3)``: x and y in fractions, and the level.
        weights: ``(n,)``.
    """
    total = np.zeros(len(maps[0]))
    for (x, y, level), weight in zip(points, weights, strict=True):
        values = np.pad(maps[int(level)], ((0, 0), (1, 2), (1, 2)))
        height, width = maps[int(level)].shape[1:]
        column, row = np.clip(x * width - 0.5, -1, width), np.clip(y * height - 0.5, -1, height)
        left, top = int(np.floor(column)), int(np.floor(row))
        for down in (0, 1):
            for across in (0, 1):
                share = (1 - abs(column - left - across)) * (1 - abs(row - top - down))
                total += weight * share * values[:, top + down + 1, left + across + 1]
    return total


def test_points_and_weights_of_a_prediction_are_those_of_transformers(deformable_detr, image):
    result = vt.Attention(queries=['#0', '#2'])(vt.load(deformable_detr, classes=CLASSES), image)
    output, kept = kept_of(deformable_detr, image, 'MultiScaleDeformableAttention')
    _, _, sizes, _, locations, *_ = kept[-1][1]
    ranking = output.logits[0].sigmoid().flatten().argsort(descending=True)
    assert result.layers == ('model.decoder.layers.1.encoder_attn',)
    assert len(result.maps) == 2 * 3  # the mean and two heads
    for item in result:
        query = int(ranking[item.coordinates['instance']]) // len(CLASSES)
        own = item.sampled.of('mean') if item.coordinates['head'] == 'mean' else item.sampled
        heads = range(2) if item.coordinates['head'] == 'mean' else [item.coordinates['head']]
        places = np.concatenate([locations[0, query, head].reshape(-1, 2).numpy() for head in heads])
        np.testing.assert_allclose(own.points / [SIZE[1], SIZE[0]], places, atol=1e-5)
        shares = np.concatenate([output.cross_attentions[-1][0, query, head].flatten().numpy() for head in heads])
        np.testing.assert_allclose(item.sampled.weights, shares / len(heads), atol=1e-6)
        np.testing.assert_array_equal(own.levels, np.tile(np.repeat(range(3), 3), len(heads)))
        assert own.sizes == tuple(sizes)


def test_points_and_weights_give_the_output_of_the_module(deformable_detr, image):
    """Point by point, from the numbers of the result alone and the values that the module projects."""
    result = vt.Attention(queries=[3, 5], layers='model.decoder.layers[-1].encoder_attn')(
        vt.load(deformable_detr, classes=CLASSES), image
    )
    _, kept = kept_of(deformable_detr, image, 'MultiScaleDeformableAttention')
    value, _, sizes, _, *_ = kept[-1][1]
    own = kept[-1][3][0]  # (Nq, heads · d)
    for item in result:
        head = item.coordinates['head']
        if head == 'mean':
            continue
        values = value[0, :, head].T.numpy()
        starts = np.cumsum([0, *(height * width for height, width in sizes)])
        maps = [values[:, a:b].reshape(-1, *size) for a, b, size in zip(starts, starts[1:], sizes, strict=False)]
        points = np.column_stack([item.sampled.points / [SIZE[1], SIZE[0]], item.sampled.levels])
        query = int(item.coordinates['query'].split()[-1])
        width = len(values)
        expected = own[query, head * width : (head + 1) * width].numpy()
        np.testing.assert_allclose(naive_sum(maps, points, item.sampled.weights), expected, atol=1e-5)
    assert max(layer['residual'] for layer in result.provenance['layers']) < 1e-5


def test_a_map_is_what_the_weights_come_to_on_the_cells_of_all_levels(deformable_detr, image):
    """The weight of each cell of each level, spread over its area: grid sampling of maps with a single 1."""
    result = vt.Attention(queries='#1', heads=[1])(vt.load(deformable_detr, classes=CLASSES), image)
    (item,) = result.maps
    finest = item.sampled.sizes[0]
    total = np.zeros(finest)
    for level, (height, width) in enumerate(item.sampled.sizes):
        at = item.sampled.levels == level
        grid = torch.from_numpy(item.sampled.points[at] / [SIZE[1], SIZE[0]] * 2 - 1).float()
        ones = torch.eye(height * width).view(height * width, 1, height, width)
        read = F.grid_sample(ones, grid[None, None].expand(len(ones), -1, -1, -1), align_corners=False)[:, 0, 0]
        cells = (read @ torch.from_numpy(item.sampled.weights[at])).view(height, width).numpy()
        scale = finest[0] // height, finest[1] // width
        total += np.kron(cells, np.ones(scale)) / (scale[0] * scale[1])
    np.testing.assert_allclose(item.values, total, atol=1e-6)
    assert result.mass[0].image + result.mass[0].padding == pytest.approx(1, abs=1e-5)


def test_a_place_is_a_query_of_every_level_of_the_encoder(deformable_detr, image, caplog):
    result = vt.Attention(queries=[(50, 30)], heads='mean')(vt.load(deformable_detr, classes=CLASSES), image)
    assert result.layers == ('model.encoder.layers.0.self_attn',)
    assert 'drawn is layer 0 (model.encoder.layers.0.self_attn)' in caplog.text
    output, kept = kept_of(deformable_detr, image, 'MultiScaleDeformableAttention')
    locations = kept[0][1][4]
    first = 0
    for level, (item, (height, width)) in enumerate(zip(result, result.maps[0].sampled.sizes, strict=True)):
        token = first + int(30.5 / 64 * height) * width + int(50.5 / 96 * width)
        first += height * width
        assert item.coordinates['query'] == f'(50, 30) level {level}'
        own = locations[0, token].reshape(-1, 2).numpy()
        np.testing.assert_allclose(item.sampled.points / [SIZE[1], SIZE[0]], own, atol=1e-5)
        np.testing.assert_allclose(
            item.sampled.weights * 2, output.encoder_attentions[0][0, token].flatten().numpy(), atol=1e-6
        )
        reference = item.sampled.reference
        assert abs(reference[0] - 50.5) <= 96 / width / 2 and abs(reference[1] - 30.5) <= 64 / height / 2


@pytest.mark.parametrize('name', ['rt_detr', 'rt_detr_v2', 'd_fine', 'deformable_detr', 'mask2former'])
def test_the_mean_over_all_queries_is_that_of_their_points(name, image):
    """Whatever the class is called, and however many points a level has."""
    network = networks.built(getattr(networks, name))
    module, seen = vt.load(network, classes=CLASSES).module, []
    choice = LayerChoice.parse(['all'], module)
    with torch.no_grad():
        observe(module, image[None], choice, lambda op, layout: None, sampled=seen.append)
    assert seen and all(op.product is not None for op in seen)
    for op in seen:
        assert op.check(range(op.queries)) and op.residual[0] < 1e-5
        assert torch.allclose(op.own.weights.sum(-1), torch.ones(()), atol=1e-5)
        assert op.reference is not None and op.reference.shape[1] == op.queries


def test_images_of_a_batch_have_their_own_points(deformable_detr, image):
    model = vt.load(deformable_detr, classes=CLASSES)
    both = vt.Attention(queries=['mean', 2], heads=[0])(model, torch.stack([image, image.flip(2)]))
    for result, alone in zip(both, (image, image.flip(2)), strict=True):
        expected = vt.Attention(queries=['mean', 2], heads=[0])(model, alone)
        for item, other in zip(result, expected, strict=True):
            np.testing.assert_array_equal(item.values, other.values)
        np.testing.assert_array_equal(result.maps[1].sampled.points, expected.maps[1].sampled.points)
        assert result.maps[0].sampled is None


class Sampler(nn.Module):
    """Deformable attention of one level, whose sum a faulty line changes afterwards, or which hides its points."""

    def __init__(self, how):
        super().__init__()
        self.stem, self.how = nn.Conv2d(3, 8, 8, 8), how
        self.sampling_offsets, self.attention_weights = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, images):
        maps = self.stem(images)
        tokens = maps.flatten(2).transpose(1, 2)
        points = self.sampling_offsets(tokens).unflatten(2, (4, 2)).tanh()
        weights = self.attention_weights(tokens).softmax(-1)[:, None]
        if self.how == 'nearest':
            return (F.grid_sample(maps, points, 'nearest', align_corners=False) * weights).sum(-1)
        read = F.grid_sample(maps, points, align_corners=False)
        if self.how == 'shuffled':
            read = torch.stack([F.grid_sample(maps, each, align_corners=False) for each in points.split(2, 2)], 4)
            read = read.flatten(3)
        return (read * weights).sum(-1)


def test_a_network_of_ones_own_is_read_too(image):
    network = Sampler('plain').eval()
    result = vt.Attention(queries=[7], heads='mean')(network, image)
    assert len(result.maps[0].sampled.points) == 4
    with torch.no_grad():
        cells = result.maps[0].values.reshape(-1)
        rebuilt = network.stem(image[None])[0].flatten(1).numpy() @ cells
        np.testing.assert_allclose(rebuilt, network(image[None])[0, :, 7].numpy(), atol=1e-5)


def test_points_that_cannot_be_seen_or_do_not_give_the_output_are_refused(image):
    with pytest.raises(InputError, match='sampling points cannot be seen'):
        vt.Attention()(Sampler('nearest').eval(), image)
    with pytest.raises(InputError, match="differ from the module's own output"):
        vt.Attention(queries=[7])(Sampler('shuffled').eval(), image)


def test_queries_that_a_layer_does_not_have_are_said(deformable_detr, image):
    model = vt.load(deformable_detr, classes=CLASSES)
    with pytest.raises(InputError, match='the 126 queries of model.encoder.*are not object queries'):
        vt.Attention(queries='#0', layers='model.encoder')(model, image)
    with pytest.raises(InputError, match='has 6 queries whose places in the image are not known'):
        vt.Attention(queries=[(5, 5)], layers=-1)(model, image)
    with pytest.raises(InputError, match='no token 6'):
        vt.Attention(queries=6, layers=-1)(model, image)


def test_sampled_points_have_no_matrix(deformable_detr, image):
    model = vt.load(deformable_detr, classes=CLASSES)
    with pytest.raises(InputError, match=r'^layers: .* is deformable attention'):
        vt.Attention().matrices(model, image)


def test_object_queries_are_not_places_even_where_their_number_fills_a_grid(image):
    """Six object queries, and an encoder of 2×3 cells."""
    model = vt.load(networks.built(networks.rt_detr), classes=CLASSES)
    with pytest.raises(InputError, match='the 6 queries of its decoder are learned'):
        vt.Attention(layers='model.decoder.layers[0].self_attn')(model, image)
    result = vt.Attention(queries=[(30, 20)])(model, image)
    assert result.layers == ('model.encoder.encoder.0.layers.0.self_attn',)
    detr = vt.load(networks.built(networks.detr), classes=CLASSES)
    assert vt.Attention(queries=[(30, 20)])(detr, image).layers == ('model.encoder.layers.0.self_attn',)


def test_points_are_drawn_and_written(deformable_detr, image, tmp_path):
    result = vt.Attention(queries='#0')(vt.load(deformable_detr, classes=CLASSES), image)
    plain = vt.render(vt.Attention(queries='mean')(vt.load(deformable_detr, classes=CLASSES), image))
    assert vt.render(result) != plain
    vt.save(result, tmp_path / 'points.png', save_raw=True)
    with np.load(tmp_path / 'points.npz') as archive:
        for number, item in enumerate(result):
            rows = archive[f'sampled_0_{number}']
            np.testing.assert_allclose(rows[:, :2], item.sampled.points)
            np.testing.assert_allclose(rows[:, 2], item.sampled.weights)
            np.testing.assert_array_equal(rows[:, 3:], np.column_stack([item.sampled.levels, item.sampled.heads]))
