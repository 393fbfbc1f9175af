"""What is made of a layer's values: reductions, channels, colors, similarities, statistics, comparisons."""

import csv
import io
import json

import numpy as np
import pytest
import torch
from torch import nn

from vistool import FeatureMaps, InputError
from vistool.analyses.featmap.pca import Positions, basis_bytes, otsu, principal, read_basis
from vistool.analyses.featmap.reductions import cosine, linear_cka
from vistool.analyses.featmap.statistics import BatchStatistics
from vistool.models.model import as_model, as_samples
from vistool.network.features import Feature
from vistool.results import ChannelStack, LayerChannels
from vistool.visualization.facets import facets
from vistool.visualization.heatmaps import channel_files
from vistool.visualization.kinds import to_raw
from vistool.visualization.plots import channel_curves
from vistool.visualization.style import Style
from vistool.visualization.views import map_colors
from vistool.visualization.visualizer import write_folder


class Net(nn.Module):
    def __init__(self, seed=0, width=6):
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Conv2d(3, width, 3, 2, 1)
        self.second = nn.Conv2d(width, 8, 3, 2, 1)

    def forward(self, x):
        return self.second(self.first(x).relu()).mean((2, 3))


@pytest.fixture
def inputs():
    torch.manual_seed(5)
    return torch.randn(2, 3, 16, 24)


@pytest.fixture
def raw(inputs):
    """``(B, C, h, w)`` of ``first``."""
    with torch.no_grad():
        return Net().first(inputs).numpy()


def values(network, inputs, image=0, **options):
    result = FeatureMaps(layers=['first'], **options)(network, inputs)[image]
    return np.stack([item.values for item in result.maps]), result


@pytest.mark.parametrize(
    ('name', 'reduce'),
    [
        ('mean', lambda x: x.mean(0)),
        ('sum', lambda x: x.sum(0)),
        ('max', lambda x: x.max(0)),
        ('norm', lambda x: np.sqrt((x**2).sum(0))),
        ('select_max', lambda x: x[x.mean((1, 2)).argmax()]),
    ],
)
def test_reductions(inputs, raw, name, reduce):
    found, result = values(Net(), inputs, reduction=name)
    np.testing.assert_allclose(found[0], reduce(raw[0]), rtol=1e-5, atol=1e-6)
    assert result.provenance['reduction'] == name and facets(result).columns == ('first · 8×12×6',)


@pytest.mark.parametrize(
    ('criterion', 'score'),
    [
        ('mean', lambda x: x.mean((1, 2))),
        ('max', lambda x: x.max((1, 2))),
        ('norm', lambda x: (x**2).sum((1, 2))),
        ('std', lambda x: x.std((1, 2))),
    ],
)
def test_top_channels(inputs, raw, criterion, score):
    for image in (0, 1):
        found, result = values(Net(), inputs, image, topk=3, criterion=criterion)
        best = np.argsort(-score(raw[image]))[:3]
        assert [item.coordinates['channel'] for item in result] == [int(channel) for channel in best]
        assert facets(result).columns == tuple(f'channel {channel}' for channel in best)
        assert np.array_equal(found, raw[image][best])


def test_chosen_channels_in_their_order_and_reduced(inputs, raw):
    for words in (['4', '0-2'], ['4', '0:3'], ['4,0,1', 2]):
        found, _ = values(Net(), inputs, channels=words)
        assert np.array_equal(found, raw[0][[4, 0, 1, 2]])
    found, _ = values(Net(), inputs, channels=[1, 3], reduction='sum')
    np.testing.assert_allclose(found[0], raw[0][[1, 3]].sum(0), rtol=1e-6)


def test_all_channels_of_a_layer_share_a_scale_and_layers_do_not(inputs):
    result = FeatureMaps(layers=['first', 'second'], reduction='none')(Net(), inputs)[0]
    looks = map_colors(result, Style())
    ends = {
        item.coordinates['layer']: (look.bar.low, look.bar.high) for item, look in zip(result.maps, looks, strict=True)
    }
    for layer, (low, high) in ends.items():
        every = np.stack([item.values for item in result.sel(layer=layer)])
        assert -low == high == pytest.approx(np.abs(every).max())  # signed: centerd at zero
    assert len({(look.bar.key, look.bar.low) for look in looks}) == 2
    assert len({look.bar.key for look in map_colors(result, Style(scale='shared'))}) == 1
    clipped = map_colors(result, Style(scale='percentile'))[0].bar
    every = np.stack([item.values for item in result.sel(layer='first')])
    assert clipped.high == pytest.approx(np.abs(np.percentile(every, (2, 98))).max())


@pytest.mark.parametrize('count', [300, 4])
def test_principal_directions_are_those_of_numpys_svd(count):
    vectors = np.random.default_rng(0).normal(size=(count, 8)) * np.arange(1, 9)
    expected = np.linalg.svd(vectors - vectors.mean(0))[2][:3]
    found = principal(vectors, 3)
    np.testing.assert_allclose(np.abs((found * expected).sum(1)), 1, atol=1e-9)
    assert (np.take_along_axis(found, np.abs(found).argmax(1)[:, None], 1) > 0).all()


def test_pca_has_one_basis_over_all_images_and_stays_in_its_stretch(inputs, raw):
    results = FeatureMaps(layers=['first'], reduction='pca')(Net(), inputs)
    pooled = raw.transpose(0, 2, 3, 1).reshape(-1, 6).astype(float)
    projected = (pooled - pooled.mean(0)) @ principal(pooled, 3).T
    low, high = np.percentile(projected, (2, 98), axis=0)
    expected = np.clip((projected - low) / (high - low), 0, 1).reshape(2, 8, 12, 3)
    found = np.stack([result.maps[0].values for result in results])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_basis_survives_its_file_and_gives_the_same_colors(inputs, tmp_path):
    plan = FeatureMaps(layers=['first'], reduction='pca')
    model, samples = as_model(Net()), as_samples(inputs)[0]
    fitted = plan.fit([model], [[samples]], 2)
    (tmp_path / 'b.npz').write_bytes(basis_bytes(fitted.basis))
    basis = read_basis(tmp_path / 'b.npz')
    both = FeatureMaps(layers=['first'], reduction='pca')(model, inputs)
    again = FeatureMaps(layers=['first'], reduction='pca', basis=basis)(model, inputs[1:])
    np.testing.assert_allclose(again[0].maps[0].values, both[1].maps[0].values, atol=1e-6)
    assert basis_bytes(basis) == basis_bytes(fitted.basis)


def test_a_basis_of_another_model_is_refused(inputs):
    plan = FeatureMaps(layers=['first'], reduction='pca')
    samples = as_samples(inputs)[0]
    basis = plan.fit([as_model(Net())], [[samples]], 2).basis
    with pytest.raises(InputError, match='learned from Net, .* has 6 channels, not 5'):
        FeatureMaps(layers=['first'], reduction='pca', basis=basis)(Net(width=5), inputs)
    with pytest.raises(InputError, match="has no layer 'second'; accepted: first"):
        FeatureMaps(layers=['second'], reduction='pca', basis=basis)(Net(), inputs)


@pytest.mark.parametrize('sign', [1, -1])
def test_the_foreground_is_what_does_not_fill_the_border(sign):
    rng = np.random.default_rng(0)
    maps = rng.normal(0, 0.1, (5, 12, 12))
    inside = np.zeros((12, 12), bool)
    inside[3:8, 4:9] = True
    maps[0][inside] += 5 * sign
    positions = Positions(1)
    positions.add(torch.from_numpy(maps))
    colors = positions.learn(foreground=True).colors(torch.from_numpy(maps))
    assert (colors[~inside] == 0).all() and (colors[inside].max(1) > 0).all()


def test_otsu_parts_two_heaps():
    values = np.concatenate([np.linspace(0, 1, 100), np.linspace(5, 6, 40)])
    assert 1 <= otsu(values) <= 5 and (values > otsu(values)).sum() == 40


def test_similarity_is_the_cosine_to_the_position_under_the_pixel(inputs, raw):
    result = FeatureMaps(layers=['first'], similar_to=[(5, 2), (23, 15)])(Net(), inputs)[0]
    vectors = raw[0] / np.linalg.norm(raw[0], axis=0)
    for item, (row, column) in zip(result.maps, [(1, 2), (7, 11)], strict=True):
        expected = np.einsum('chw,c->hw', vectors, vectors[:, row, column])
        np.testing.assert_allclose(item.values, expected, atol=1e-6)
        assert item.values[row, column] == pytest.approx(1, abs=1e-6)
    assert facets(result).rows == ('(5, 2)', '(23, 15)') and result.queries['(5, 2)'] == (5.5, 2.5)
    assert len({look.bar.key for look in map_colors(result, Style())}) == 1


def naive_cka(x, y):
    """With centerd Gram matrices over positions, as the definition by HSIC has it."""
    n = x.shape[1] * x.shape[2]
    center = np.eye(n) - np.ones((n, n)) / n
    grams = [center @ m.reshape(len(m), -1).T @ m.reshape(len(m), -1) @ center for m in (x, y)]
    return np.trace(grams[0] @ grams[1]) / np.sqrt(np.trace(grams[0] @ grams[0]) * np.trace(grams[1] @ grams[1]))


@pytest.mark.parametrize('channels', [(4, 7), (60, 50)])
def test_cka_and_cosine(channels):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(channels[0], 5, 6)), rng.normal(size=(channels[1], 5, 6))
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    assert linear_cka(a, b) == pytest.approx(naive_cka(x, y), abs=1e-12)
    assert linear_cka(a, 3 * a.flip(0) + 2) == pytest.approx(1)  # blind to rotations, scale and offset
    assert cosine(a, 2 * a) == pytest.approx(1) and cosine(a, -a) == pytest.approx(-1) and np.isnan(cosine(a, b))


def compared(*networks, inputs, **options):
    models = [as_model(network) for network in networks]
    samples = as_samples(inputs)[0]
    names = [f'm{number}' for number in range(len(models))]
    return FeatureMaps(**options).compare(models, [samples] * len(models), names)


def test_compared_maps_share_a_scale_and_the_difference_is_signed(inputs):
    result = compared(Net(0), Net(1), inputs=inputs, layers=['first', 'second'])[0]
    assert facets(result).rows == ('m0', 'm1', 'm1 − m0') and len(result.maps) == 6
    looks = map_colors(result, Style())
    for column in (0, 1):
        base, ours, difference = result.maps[column], result.maps[2 + column], result.maps[4 + column]
        assert np.array_equal(difference.values, ours.values - base.values)
        assert looks[column].bar == looks[2 + column].bar != looks[4 + column].bar
        assert -looks[4 + column].bar.low == looks[4 + column].bar.high == np.abs(difference.values).max()
    with torch.no_grad():
        features = [network.first(inputs)[0] for network in (Net(0), Net(1))]
    told = result.provenance['similarity'][0]
    assert told['cka'] == pytest.approx(linear_cka(*features), abs=1e-6)
    assert told['cosine'] == pytest.approx(cosine(*features), abs=1e-6)
    assert facets(result).tiles[4].footer == f'CKA {told["cka"]:.2f} · cos {told["cosine"]:.2f}'.replace('-', '−')
    json.dumps(result.provenance, allow_nan=False)


def test_a_model_compared_with_itself_differs_in_nothing(inputs):
    for options in ({}, {'reduction': 'pca'}, {'topk': 2}, {'similar_to': [(3, 3)]}):
        result = compared(Net(), Net(), inputs=inputs, layers=['first'], **options)[0]
        differences = result.sel(minus='m0').maps
        footers = [tile.footer for tile in facets(result).tiles if ' − m0' in tile.row]
        assert differences and all(not item.values.any() for item in differences)
        assert footers == ['CKA 1.00 · cos 1.00'] * len(differences)


def test_compared_channels_are_the_first_models(inputs):
    result = compared(Net(0), Net(1), inputs=inputs, layers=['first'], topk=2)[0]
    alone = FeatureMaps(layers=['first'], topk=2)(Net(0), inputs)[0]
    assert facets(result).columns == facets(alone).columns
    with torch.no_grad():
        other = Net(1).first(inputs)[0].numpy()
    channel = result.coordinates['channel'][0]
    assert np.array_equal(result.maps[2].values, other[channel])


def test_compared_colors_come_from_one_basis(inputs):
    result = compared(Net(0), Net(1), inputs=inputs, layers=['first'], reduction='pca')[0]
    assert result.maps[0].values.shape == result.maps[1].values.shape == (8, 12, 3)
    assert result.maps[2].values.ndim == 2  # the first component's difference, signed
    with pytest.raises(InputError, match='6 and 5 channels cannot share a PCA basis'):
        compared(Net(0), Net(1, width=5), inputs=inputs, layers=['first'], reduction='pca')


def test_layers_of_other_widths_have_their_own_scale_and_cka_but_no_difference(inputs):
    result = compared(Net(0), Net(1, width=5), inputs=inputs, layers=['first', 'second'])[0]
    assert facets(result).rows == ('m0', 'm1') and len(result.maps) == 4
    looks = map_colors(result, Style())
    with torch.no_grad():
        features = [network.first(inputs)[0] for network in (Net(0), Net(1, width=5))]
    assert looks[0].bar != looks[2].bar
    assert looks[2].bar.high == pytest.approx(
        result.maps[2].values.max() if looks[2].bar.low >= 0 else np.abs(result.maps[2].values).max()
    )
    told = result.provenance['similarity'][0]
    assert told['cka'] == pytest.approx(linear_cka(*features), abs=1e-6) and told['cosine'] is None
    tiles = facets(result).tiles
    assert tiles[2].footer == f'8×12×5 · CKA {told["cka"]:.2f}'
    assert tiles[2].column == tiles[0].column == 'first · 8×12×6'
    with pytest.raises(InputError, match='channel 5 of first has no counterpart in m1, whose first has 5 channels'):
        compared(Net(0), Net(1, width=5), inputs=inputs, layers=['first'], channels=[5])
    cosines = compared(Net(0), Net(1, width=5), inputs=inputs, layers=['first'], similar_to=[(3, 3)])[0]
    assert len(cosines.maps) == 3  # cosines can be subtracted whatever they are made of


def pyramid(stages, width):
    torch.manual_seed(stages)
    parts, channels = [nn.Conv2d(3, width, 3, 2, 1)], width
    for _ in range(stages):
        parts.append(nn.Sequential(nn.Sequential(nn.Conv2d(channels, 2 * channels, 3, 2, 1), nn.ReLU())))
        channels *= 2
    return nn.Sequential(*parts).eval()


@pytest.mark.parametrize(('first', 'second'), [((4, 4), (3, 6)), ((3, 6), (4, 4)), ((3, 4), (3, 4))])
def test_networks_of_other_depth_are_compared_from_their_ends(first, second):
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    result = compared(pyramid(*first), pyramid(*second), inputs=images)[1]
    count = min(first[0], second[0])
    names = [[str(k) for k in range(1, stages + 1)][-count:] for stages in (first[0], second[0])]
    assert result.provenance['layers'] == names[0] and result.provenance['compare'][0]['layers'] == names[1]
    tiles = facets(result).tiles
    titles = [tile.column.split(' · ')[0] for tile in tiles[:count]]
    assert titles == [f'stage {k}' for k in range(1, first[0] + 1)][-count:]
    assert all('CKA' in tile.footer for tile in tiles[-count:])


def test_statistics_over_batches_are_those_of_all_at_once():
    torch.manual_seed(0)
    maps = torch.randn(6, 3, 4, 5).relu() + torch.tensor([0.0, 1000.0, 0.0])[:, None, None]
    maps[:, 2] = 0
    first, *others = (BatchStatistics.of({'net': [Feature('layer', batch)]}) for batch in maps.split([1, 3, 2]))
    kept = sum(others, first)
    rows = list(csv.DictReader(io.StringIO(to_raw(kept).data.decode())))
    flat = maps.double().numpy().transpose(1, 0, 2, 3).reshape(3, -1)
    assert [int(row['channel']) for row in rows] == [0, 1, 2] and {row['layer'] for row in rows} == {'layer'}
    for name, expected in {
        'mean': flat.mean(1),
        'std': flat.std(1),
        'zeros': (flat == 0).mean(1),
        'min': flat.min(1),
        'max': flat.max(1),
        'dead': [0, 0, 1],
    }.items():
        np.testing.assert_allclose([float(row[name]) for row in rows], expected, rtol=1e-9, atol=1e-12)
    assert {curve.parameter for curve in channel_curves(kept).curves} == {'mean', 'std', 'share of zeros'}


def seed_bilinear(channel, rate, left):
    """The seed's loop in float: positions by the alignment, then four neighbors."""
    height, width = channel.shape
    out = np.zeros((height * rate, width * rate))
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            y, x = (i / rate, j / rate) if left else ((i + 0.5) / rate - 0.5, (j + 0.5) / rate - 0.5)
            y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            top = channel[y0, x0] * (1 - (x - x0)) + channel[y0, x1] * (x - x0)
            bottom = channel[y1, x0] * (1 - (x - x0)) + channel[y1, x1] * (x - x0)
            out[i, j] = top * (1 - (y - y0)) + bottom * (y - y0)
    return out


@pytest.mark.parametrize('align', ['center', 'corner'])
def test_enlarging_is_the_seeds(align):
    from vistool.visualization.raster import resize_map

    channel = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    found = resize_map(channel, (40, 56), 'bilinear', align)
    np.testing.assert_allclose(found, seed_bilinear(channel, 8, align == 'corner'), atol=1e-5)


def stack_of(maps, size):
    return ChannelStack(layers=(LayerChannels('layer', maps),), size=size, name='photo')


def channel_pictures(maps, size):
    """Each channel and the sum of all by the stem of its file."""
    return {path.rpartition('/')[2]: drawn() for path, drawn in channel_files(stack_of(maps, size), Style())}


def test_every_channel_is_written_and_the_sum(tmp_path):
    import cv2

    maps = np.random.default_rng(0).normal(size=(12, 4, 6)).astype(np.float32)
    paths = write_folder(stack_of(maps, (16, 24)), tmp_path, Style())
    assert {path.parent for path in paths} == {tmp_path / 'photo' / 'layer'}
    assert [path.name for path in paths] == [f'channel_{k:02}.png' for k in range(12)] + ['sum.png']
    pictures = channel_pictures(maps, (16, 24))
    for path in paths:
        assert np.array_equal(cv2.imread(str(path))[..., ::-1], pictures[path.stem])
    low, high = np.unravel_index(maps.argmin(), maps.shape), np.unravel_index(maps.argmax(), maps.shape)
    bound, equal = np.abs(maps).max(), channel_pictures(maps * 0 + maps[low], (16, 24))
    assert maps[low] < 0 < maps[high] and bound > 0 and equal['channel_00'].shape == (16, 24, 3)
    # the same value has the same color in whichever channel it stands
    twice = np.stack([maps[0], maps[1]])
    twice[1, 2, 3] = twice[0, 1, 1]
    drawn = channel_pictures(twice, (4, 6))
    assert np.array_equal(drawn['channel_1'][2, 3], drawn['channel_0'][1, 1])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'reduction': 'median'}, 'unknown value .median.; accepted: mean, sum'),
        ({'topk': 0}, 'topk: 0 of 6 channels; accepted: 1 to 6'),
        ({'topk': 7}, '1 to 6'),
        ({'topk': 2, 'criterion': 'size'}, 'criterion'),
        ({'topk': 2, 'channels': [1]}, 'choose one'),
        ({'channels': ['3-1']}, 'numbers and ranges'),
        ({'channels': ['x']}, 'numbers and ranges'),
        ({'channels': [6]}, "'first' has no channel 6; accepted: 0 to 5"),
        ({'channels': [1], 'reduction': 'pca'}, 'leave out channels'),
        ({'foreground': True}, 'add reduction=.pca.'),
        ({'similar_to': [(24, 3)]}, 'outside the image; accepted: x from 0 to 23, y from 0 to 15'),
        ({'similar_to': [(2, 3)], 'reduction': 'pca'}, 'leave out reduction'),
        ({'layers': ['third']}, "layers: no layer 'third'"),
        ({'layers': ['first@x']}, '#1, #2'),
    ],
)
def test_bad_options(inputs, options, message):
    with pytest.raises(InputError, match=message):
        FeatureMaps(**{'layers': ['first'], **options})(Net(), inputs)
