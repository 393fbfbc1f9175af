"""Metrics of the attention methods that explain a class, against one copy of the image at a time."""

import json
import math

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from scipy.integrate import trapezoid

from vistool import Attention
from vistool.errors import InputError
from vistool.metrics import Protocol
from vistool.visualization.facets import facets, metrics_text
from vistool.visualization.heatmaps import heatmaps_scene
from vistool.visualization.style import Style

SIZE = (48, 64)
COARSE = Protocol(block=16, steps=12, baseline='mean', ties='position')


@pytest.fixture(scope='module')
def vit():
    torch.manual_seed(0)
    model = timm.create_model('vit_tiny_patch16_224', img_size=SIZE, embed_dim=32, depth=3, num_heads=2, num_classes=7)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, std=0.4 if 'qkv' in name or 'head' in name else 0.1)
    return model.eval()


@pytest.fixture(scope='module')
def images():
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(3))


def naive_curves(model, image, values, target, against=False):
    """Insertion and deletion over the 12 patches, which are the protocol's blocks."""
    drawn = F.interpolate(torch.as_tensor(values)[None, None], SIZE, mode='bilinear')[0, 0]
    blocks = drawn.unfold(0, 16, 16).unfold(1, 16, 16).mean((2, 3)).flatten()
    order = blocks.argsort(descending=True)
    scores = {'insertion': [], 'deletion': []}
    for count in range(13):
        gone = torch.zeros(12, dtype=torch.bool)
        gone[order[:count]] = True
        pixels = gone.view(3, 4).repeat_interleave(16, 0).repeat_interleave(16, 1)
        for name, mask in (('deletion', pixels), ('insertion', ~pixels)):
            copy = torch.where(mask, image.mean((1, 2), keepdim=True), image)
            with torch.no_grad():
                probability = float(model(copy[None]).softmax(1)[0, target])
            scores[name].append(1 - probability if against else probability)
    return scores


@pytest.mark.parametrize('method', ['legrad', 'grad-rollout'])
def test_insertion_and_deletion_of_several_classes_and_images(vit, images, method):
    attention = Attention(method, targets=[3, 5], metrics=['insertion', 'del'], protocol=COARSE, copies=5)
    for image, result in zip(images, attention(vit, images), strict=True):
        assert [target.id for target in result.targets] == [3, 5] and len(result.maps) == 2
        for item, target in zip(result.maps, (3, 5), strict=True):
            expected = naive_curves(vit, image, item.values, target)
            for name, scores in expected.items():
                np.testing.assert_allclose(item.curves[name].scores, scores, atol=1e-5)
                assert item.metrics[name] == pytest.approx(trapezoid(scores, np.linspace(0, 1, 13)), abs=1e-5)
        assert len(metrics_text(result, result.maps[0])) == 2
        drawn = facets(result)
        assert [tile.metrics for tile in drawn.tiles] == [metrics_text(result, item) for item in result.maps]
        caption = next(
            item.text
            for item in heatmaps_scene(result, Style(), Style().page(vector=False)).items
            if 'layers' in getattr(item, 'text', '')
        )
        assert caption.count(method) == 1  # the only method, named once
        assert {'insertion', 'deletion', 'target'} <= set(result.to_frame())
        protocol = result.provenance['protocol']
        assert protocol['block'] == 16 and protocol['scored'] == 'probability'
        json.dumps(result.provenance['metrics'])


def test_the_evidence_against_a_class(vit, images):
    (item,) = Attention('legrad', targets=[3], score_sign='-', metrics='insertion', protocol=COARSE)(vit, images[0])
    np.testing.assert_allclose(
        item.curves['insertion'].scores, naive_curves(vit, images[0], item.values, 3, True)['insertion'], atol=1e-5
    )


def test_sensitivity_explains_the_same_class_of_noisy_copies(vit, images):
    noisy = Protocol(samples=3, radius=0.5)
    result = Attention('legrad', metrics='sensitivity', protocol=noisy)(vit, images[0])
    again = Attention('legrad', targets=[result.targets[0].id])

    def drawn(values):
        return F.interpolate(torch.as_tensor(values)[None, None], SIZE, mode='bilinear')[0, 0]

    plain, changes = drawn(result.maps[0].values), []
    for number in range(3):
        noise = np.random.default_rng((0, number)).uniform(-1, 1, images[0].shape) * 0.5 * float(images[0].std())
        other = again(vit, images[0] + torch.from_numpy(noise).float()).maps[0]
        changes.append(float((drawn(other.values) - plain).norm() / plain.norm()))
    assert result.maps[0].metrics['sensitivity'] == pytest.approx(max(changes), rel=1e-2)
    assert max(changes) > 0.01


def test_localization_knows_its_chance_level(vit, images):
    truth = np.zeros(SIZE, bool)
    truth[:24] = True
    result = Attention('legrad', metrics=['energy', 'pointing'], truth=truth)(vit, images[0])
    (item,) = result.maps
    assert item.chance['energy'] == 0.5 and 0 < item.metrics['energy'] < 1 and item.metrics['pointing'] in (0, 1)


def test_tokens_that_cover_more_than_the_image():
    torch.manual_seed(0)
    padding = {'dynamic_img_size': True, 'dynamic_img_pad': True}
    model = timm.create_model('vit_tiny_patch16_224', img_size=48, embed_dim=32, depth=2, num_heads=2, **padding).eval()
    result = Attention('legrad', metrics=['sparseness', 'drop'])(model, torch.randn(3, 50, 50))
    assert all(math.isfinite(value) for value in result.maps[0].metrics.values())


def test_masks_of_a_share_of_the_mass_are_not_measured(vit, images):
    result = Attention('legrad', metrics='sparseness', threshold=0.5)(vit, images[0])
    assert [bool(item.metrics) for item in result.maps] == [True, False]


@pytest.mark.parametrize('method', ['raw', 'rollout'])
def test_class_agnostic_methods_have_no_metrics(vit, images, method):
    message = f'metrics are measured of maps of a class, and {method} is class-agnostic; accepted: .*legrad'
    with pytest.raises(InputError, match=message):
        Attention(method, metrics='insertion')(vit, images[0])


def test_metrics_of_localization_need_truth(vit, images):
    with pytest.raises(InputError, match='there is none'):
        Attention('legrad', metrics='energy')(vit, images[0])
