"""Metrics of class activation maps: what is measured, where it is found, and what is refused."""

import dataclasses
import io
import json
import math

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from torch import nn

import vistool as vt
from vistool.analyses.cam import CAM
from vistool.data.geometry import Geometry
from vistool.data.samples import Sample
from vistool.data.truth import Region, Truth
from vistool.errors import InputError
from vistool.metrics import Protocol
from vistool.visualization import kinds
from vistool.visualization.facets import facets
from vistool.visualization.style import Style

FAST = Protocol(block=1, steps=3, baseline='mean', percent=(50,), samples=3)


class Net(nn.Module):
    """Two layers and a head of three classes."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 5, 3, 2, 1)
        self.two = nn.Conv2d(5, 6, 3, 1, 1)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.two(self.one(x).relu()).relu().mean((2, 3)))


@pytest.fixture
def net():
    torch.manual_seed(1)
    model = Net().eval()
    with torch.no_grad():
        model.head.weight *= 20
    return model, torch.randn(2, 3, 12, 16)


def test_every_map_of_every_image_is_measured_by_its_own_class(net):
    model, inputs = net
    cam = CAM(['gradcam', 'layercam'], targets=[0, 2], layers='two', metrics=['deletion', 'drop'], protocol=FAST)
    for image, result in zip(inputs, cam(model, inputs), strict=True):
        assert result.measures['deletion'].better == 'lower' and len(result.maps) == 4
        for item in result:
            target = {'class 0': 0, 'class 2': 2}[item.coordinates['target']]
            curve = item.curves['deletion']
            probability = model(image[None]).softmax(1)[0, target].item()
            assert curve.scores[0] == pytest.approx(probability, abs=1e-6) == pytest.approx(item.score, abs=1e-6)
            values = torch.from_numpy(item.values)
            masked = image * values + image.mean((1, 2), keepdim=True) * (1 - values)
            expected = model(masked[None]).softmax(1)[0, target].item()
            assert item.metrics['drop'] == pytest.approx(max(0, 1 - expected / probability), abs=1e-5)
            assert item.metrics['deletion'] == pytest.approx(trapezoid(curve.scores, curve.fractions))
    single = cam(model, inputs[1])
    assert [each.metrics for each in single] == [pytest.approx(dict(each.metrics), abs=1e-5) for each in result]


def test_the_evidence_against_a_class_is_measured_by_how_unlikely_it_is(net):
    model, inputs = net
    plain, against = (
        CAM('gradcam', targets=[1], layers='two', metrics='deletion', protocol=FAST, score_sign=sign)(model, inputs[0])
        for sign in '+-'
    )
    scores = [result.maps[0].curves['deletion'].scores[0] for result in (plain, against)]
    assert sum(scores) == pytest.approx(1)


def test_logits_can_be_scored(net):
    model, inputs = net
    protocol = Protocol(block=1, steps=2, score='logit')
    result = CAM('gradcam', targets=[1], layers='two', metrics='deletion', protocol=protocol)(model, inputs[0])
    assert result.maps[0].curves['deletion'].scores[0] == pytest.approx(model(inputs[:1])[0, 1].item(), abs=1e-5)
    assert result.provenance['protocol']['scored'] == 'logit'


@pytest.mark.parametrize('more', [{}, {'aug_smooth': True}, {'methods': ['gradcam', 'ablationcam', 'random']}])
def test_sensitivity_is_the_largest_change_of_the_map_under_noise(net, more):
    model, inputs = net
    options = {'methods': ['gradcam'], 'targets': [1], 'layers': 'two', **more}
    protocol = Protocol(space='network', radius=0.3, samples=4, seed=5)
    results = CAM(**options, metrics='sensitivity', protocol=protocol)(model, inputs)
    assert results[0].maps[0].metrics['sensitivity'] > 0.01
    for image, result in zip(inputs, results, strict=True):
        changes = []
        for copy in range(4):
            noise = np.random.default_rng((5, copy)).uniform(-1, 1, image.shape)
            noisy = CAM(**options)(model, image + 0.3 * torch.from_numpy(noise).float())
            # captum's sensitivity_max: the norm of the difference, divided by that of the attribution
            pairs = zip(noisy, result, strict=True)
            changes.append([np.linalg.norm(a.values - b.values) / np.linalg.norm(b.values) for a, b in pairs])
        found = [each.metrics['sensitivity'] for each in result]
        np.testing.assert_allclose(found, np.max(changes, 0), atol=1e-4)


def test_maps_to_compare_with_stand_beside_the_others_in_every_row(net):
    model, inputs = net
    cam = CAM(['gradcam', 'random', 'sobel', 'center'], targets=[0, 1], layers='two', metrics='ins', protocol=FAST)
    result = cam(model, inputs[0])
    assert len(facets(result).rows) == 2 and len(result.maps) == 8
    for name in ('random', 'sobel', 'center'):
        first, second = (item for item in result if item.coordinates['method'] == name)
        np.testing.assert_array_equal(first.values, second.values)
        assert first.metrics['insertion'] != second.metrics['insertion']
    bell = result['center', 'class 0'].values
    assert bell.argmax() in (5 * 16 + 7, 5 * 16 + 8, 6 * 16 + 7, 6 * 16 + 8)
    np.testing.assert_allclose(bell, bell[::-1, ::-1], atol=1e-6)
    edge = torch.zeros(3, 12, 16)
    edge[:, :, 8:] = 1
    drawn = CAM('sobel', targets=[0])(model, edge).maps[0].values
    assert (drawn[:, 7:9] > 0.99).all() and drawn[:, :7].max() == drawn[:, 9:].max() == 0
    other = CAM('random', targets=[0], seed=1)(model, inputs[0]).maps[0].values
    assert np.abs(other - result['random', 'class 0'].values).max() > 0.1


def test_numbers_stand_under_the_tiles_in_the_frame_and_in_the_file(net):
    model, inputs = net
    cam = CAM(['gradcam', 'layercam'], targets=[0], layers='two', metrics=['deletion', 'sparseness'], protocol=FAST)
    result = cam(model, inputs[0])
    frame = result.to_frame()
    assert frame['deletion'].tolist() == [item.metrics['deletion'] for item in result]
    short, spread = facets(result).tiles[0].metrics
    assert short == f'del {frame["deletion"][0]:.2f} ↓'.replace('0.', '.') and spread.startswith('sparse .')
    texts = [item.text for item in kinds.to_scene(result, Style(), Style().page(vector=False)).texts]
    assert f'{short} {spread}' in texts
    narrow = Style(width='column')
    texts = [item.text for item in kinds.to_scene(result.sel(method='gradcam'), narrow, narrow.page(vector=True)).texts]
    assert not any('…' in text for text in texts)
    raw = np.load(io.BytesIO(kinds.to_raw(result).data), allow_pickle=False)
    assert raw['metric_names'].tolist() == ['deletion', 'sparseness']
    np.testing.assert_array_equal(raw['metrics_0'], frame[['deletion', 'sparseness']].to_numpy())
    np.testing.assert_array_equal(raw['curve_0_1_deletion'][1], result.maps[1].curves['deletion'].scores)
    recipe = json.loads(str(raw['recipe']))
    assert recipe['protocol']['steps'] == 3 and recipe['protocol']['scored'] == 'probability'
    assert list(recipe['metrics']) == ['deletion', 'sparseness']


def test_masks_of_a_batch(net):
    model, inputs = net
    truth = np.zeros((12, 16), np.uint8)
    truth[:, :8] = 255
    cam = CAM('gradcam', targets=[0], layers='two', metrics=['energy', 'pointing'], truth=[truth, None])
    first, second = cam(model, inputs)
    values = first.maps[0].values
    assert first.maps[0].metrics['energy'] == pytest.approx(values[:, :8].sum() / values.sum(), abs=1e-6)
    assert second.maps[0].metrics == {}
    same = CAM('gradcam', targets=[0], layers='two', metrics='energy', truth=torch.from_numpy(truth))(model, inputs[0])
    assert same.maps[0].metrics['energy'] == pytest.approx(first.maps[0].metrics['energy'])


def test_each_class_is_compared_with_its_own_objects_and_their_outline_is_drawn(net):
    model, inputs = net
    left, right = np.zeros((2, 12, 16), bool)
    left[:, :5], right[3:9, 8:] = True, True
    truth = Truth((12, 16), (Region(lambda size: left, 0), Region(lambda size: right, 2)), 'masks')
    samples = [
        Sample(image, np.zeros((12, 16, 3), np.uint8), geometry=Geometry.identity((12, 16)), truth=known)
        for image, known in zip(inputs, (truth, Truth((12, 16))), strict=True)
    ]
    cam = CAM(['gradcam', 'eigencam'], targets=[0, 1, 2], layers='two', metrics=['energy', 'iou'], protocol=FAST)
    first, second = cam(vt.Model(model, 'net'), samples)
    for item in first:
        of_class = {'class 0': left, 'class 1': left & right, 'class 2': right}
        mask = of_class.get(item.coordinates.get('target'), left | right)  # EigenCAM is of no class
        np.testing.assert_array_equal(item.truth, mask)
        expected = mask.mean() if mask.any() else math.nan
        assert item.chance['energy'] == pytest.approx(expected, nan_ok=True)
        assert math.isnan(item.metrics['energy']) == (not mask.any() or not item.values.any())
    assert all(math.isnan(value) for item in second for value in item.metrics.values())  # an empty mask
    frame = first.to_frame()
    assert list(frame)[-6:-2] == ['energy', 'energy chance', 'iou', 'iou chance']
    with_outline, without = (
        kinds.to_scene(result, Style(), Style().page(vector=False)).paths for result in (first, second)
    )
    assert len(with_outline) > len(without)
    raw = np.load(io.BytesIO(kinds.to_raw(first).data), allow_pickle=False)
    np.testing.assert_array_equal(
        raw['chance_0'], [[item.chance[name] for name in ('energy', 'iou')] for item in first]
    )
    with pytest.raises(InputError, match='energy, iou compares a map with a mask of the object, and there is none'):
        cam(vt.Model(model, 'net'), [dataclasses.replace(sample, truth=None) for sample in samples])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'metrics': 'insert'}, "metrics: unknown metric 'insert'; accepted: insertion, deletion, .*; did you mean"),
        ({'metrics': 'ins', 'protocol': 'quantos'}, "protocol: unknown protocol 'quantos'; accepted: vistool, rise"),
        ({'metrics': 'ins', 'protocol': 'gradcam'}, 'the protocol gradcam does not define insertion; accepted: road'),
        ({'metrics': ['energy', 'iou']}, 'energy, iou compares a map with a mask of the object, and there is none'),
        (
            {'metrics': 'energy', 'truth': np.ones((7, 7))},
            'truth: a mask of 7×7 for an image of 12×16; accepted: a mask',
        ),
        ({'metrics': 'energy', 'truth': [np.ones((12, 16))]}, 'truth: 1 mask for 2 images'),
        (
            {'metrics': 'ins', 'methods': ['gradcam', 'eigencam']},
            'EigenCAM is class-agnostic; accepted: sparseness, sensi',
        ),
        ({'metrics': 'ins', 'copies': 0}, 'copies: 0; accepted: an integer from 1 up'),
        ({'metrics': 'ins', 'protocol': Protocol(baseline='black')}, 'the network value of black is not known'),
    ],
)
def test_bad_input_is_one_line(net, options, message):
    model, inputs = net
    with pytest.raises(InputError, match=message) as caught:
        CAM(**{'methods': 'gradcam', 'layers': 'two', 'targets': [0], **options})(model, inputs)
    assert '\n' not in str(caught.value)


def test_a_network_without_a_head_has_no_score_to_measure(net):
    backbone = nn.Sequential(net[0].one, nn.ReLU(), net[0].two)
    with pytest.raises(InputError, match='insertion measures a score, and Sequential gives none; accepted: sparseness'):
        CAM('center', metrics='insertion')(backbone, net[1])
    assert CAM('center', metrics='sparseness')(backbone, net[1][0]).maps[0].metrics['sparseness'] > 0
    like = CAM('gradcam', layers='2', metrics='insertion', reference=net[1][1], protocol=FAST)(backbone, net[1][0])
    curve = like.maps[0].curves['insertion']
    assert curve.scores[-1] == pytest.approx(like.maps[0].score, abs=1e-6)  # the similarity of the whole image


def test_class_agnostic_maps_have_metrics_of_the_map_alone(net):
    model, inputs = net
    result = CAM(['eigencam'], layers='two', metrics='sparseness')(model, inputs[0])
    assert 0 < result.maps[0].metrics['sparseness'] < 1
