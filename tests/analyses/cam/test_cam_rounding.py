"""Maps that are nothing but rounding errors are zero, and say so; true maps are kept, however small."""

import copy
import logging

import numpy as np
import pytest
import timm
import torch
from torch import nn

from vistool.analyses.cam import CAM, METHODS, Method, Needs
from vistool.analyses.cam.maps import CANCELED, above_rounding
from vistool.visualization.facets import facets


class Normed(nn.Module):
    """Convolutions, whose last map reaches the scores only through a norm of each position."""

    def __init__(self, norm=True, scale=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 32, 4, 4), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1))
        self.norm = nn.LayerNorm(64) if norm else nn.Identity()
        self.head = nn.Linear(64, 4)
        self.head.weight.data *= scale

    def forward(self, x):
        return self.head(self.norm(self.features(x).permute(0, 2, 3, 1)).mean((1, 2)))


IMAGE = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))


def test_terms_that_cancel_at_every_position_are_no_evidence(caplog):
    with caplog.at_level(logging.WARNING, 'vistool'):
        results = CAM(['hirescam', 'gradcam', 'layercam'], layers='features')(Normed(), IMAGE)
    assert 'HiResCAM at features: no evidence above rounding for 2 of 2 images' in caplog.text
    assert 'GradCAM has some at this layer' in caplog.text
    for result in results:
        empty, *others = result.maps
        assert not empty.values.any() and not empty.signed.any()
        assert all(item.values.max() == pytest.approx(1, abs=1e-4) for item in others)


@pytest.mark.parametrize('method', ['hirescam', 'gradcam', 'xgradcam', 'layercam', 'gradcam++', 'eigengradcam'])
@pytest.mark.parametrize('scale', [1.0, 1e-6, 1e-12])
def test_true_maps_are_kept_however_small(method, scale, caplog):
    with caplog.at_level(logging.WARNING, 'vistool'):
        small = CAM(method, targets=1, layers='features')(Normed(norm=False, scale=scale), IMAGE[0])
    assert small.maps[0].signed.any() and small.maps[0].values.max() > 0.99
    assert 'rounding' not in caplog.text


def _cait():
    from timm.models.cait import Cait

    return Cait(48, 8, num_classes=4, embed_dim=48, depth=2, num_heads=2, init_values=0.5), 'blocks.1'


def _xcit():
    from timm.models.xcit import Xcit

    return Xcit(48, 8, num_classes=4, embed_dim=48, depth=2, num_heads=2, eta=0.5), 'blocks.1'


@pytest.mark.parametrize('make', [_cait, _xcit])
def test_hirescam_before_the_class_attention_of_timm_is_no_evidence(make, caplog):
    torch.manual_seed(0)
    module, layer = make()
    with caplog.at_level(logging.WARNING, 'vistool'):
        result = CAM(['hirescam', 'gradcam'], targets=1, layers=layer)(module.eval(), IMAGE[0])
    assert not result.maps[0].signed.any() and result.maps[1].signed.any()
    assert 'no evidence above rounding' in caplog.text


def test_each_image_of_a_batch_is_judged_by_its_own_terms():
    terms = torch.randn(3, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    terms[1] -= terms[1].mean(0, keepdim=True)  # sums to rounding errors
    terms[2] *= 1e-20
    kept = above_rounding(terms.sum(1), terms, torch.float32)
    assert torch.equal(kept[0], terms[0].sum(0)) and torch.equal(kept[2], terms[2].sum(0))
    assert not kept[1].any()


@pytest.mark.parametrize('value', [0.5, -0.5])
def test_flat_maps_are_not_stretched(value):
    noise = 1e-8 * torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    terms = value / 4 + noise
    assert not above_rounding(terms.sum(1), terms, torch.float32).any()
    varied = terms + 1e-3 * torch.rand(1, 1, 6, 6)
    assert torch.equal(above_rounding(varied.sum(1), varied, torch.float32), varied.sum(1))


def test_a_map_without_positive_evidence_keeps_its_negative_values():
    terms = -torch.rand(1, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(above_rounding(terms.sum(1), terms, torch.float32), terms.sum(1))


def test_rounding_errors_beside_negative_values_are_no_positive_evidence():
    terms = torch.randn(1, 64, 6, 6, generator=torch.Generator().manual_seed(0))
    terms -= terms.mean(1, keepdim=True)  # sums to rounding errors
    terms[:, :, 1:] -= 0.5
    kept = above_rounding(terms.sum(1), terms, torch.float32)
    assert torch.equal(kept[:, 1:], terms.sum(1)[:, 1:]) and kept.max() == 0


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_coarse_numbers_have_a_coarse_limit_but_keep_true_maps(dtype):
    terms = torch.randn(1, 256, 6, 6, generator=torch.Generator().manual_seed(0)) + 0.3
    assert above_rounding(terms.sum(1), terms, dtype).any()
    noise = terms - terms.mean(1, keepdim=True) + 1e-4 * torch.randn(1, 1, 6, 6)
    assert not above_rounding(noise.to(dtype).float().sum(1) * 1e-2, noise, dtype).any()


class Shifted(nn.Module):
    """Maps at which a constant added to a channel changes no score, however the rest of the network uses them."""

    def __init__(self, after):
        super().__init__()
        torch.manual_seed(0)
        self.features, self.after = nn.Conv2d(3, 32, 4, 4), after
        self.rest, self.head = nn.Conv2d(32, 16, 3, 2, 1), nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.rest(self.after(self.features(x))).relu().mean((2, 3)))


class PoolMinusIdentity(nn.AvgPool2d):
    def forward(self, x):
        return super().forward(x) - x


class SelfAttention(nn.Module):
    """Attention whose keys are a layer of their own, with a class token or without."""

    def __init__(self, classes=0):
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.classes = nn.Conv2d(3, 32, 8, 8), classes
        self.token = nn.Parameter(torch.randn(1, classes, 32))
        self.query, self.key, self.value = (nn.Linear(32, 32) for _ in range(3))
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        tokens = torch.cat([self.token.expand(len(x), -1, -1), self.patches(x).flatten(2).mT], 1)
        heads = (each(tokens).unflatten(2, (2, 16)).transpose(1, 2) for each in (self.query, self.key, self.value))
        mixed = nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        return self.head((tokens + mixed).relu().mean(1))


@pytest.mark.parametrize(
    ('make', 'layer'),
    [
        (lambda: Shifted(nn.InstanceNorm2d(32)), 'features'),
        (lambda: Shifted(PoolMinusIdentity(3, 1, 1, count_include_pad=False)), 'features'),
        (SelfAttention, 'key'),
    ],
    ids=['before a norm over positions', 'before pooling minus identity', 'keys of attention'],
)
@pytest.mark.parametrize('options', [{}, {'eigen_smooth': True}], ids=['sum', 'eigen'])
def test_weights_that_cancel_over_the_positions_are_no_evidence(make, layer, options, caplog):
    with caplog.at_level(logging.WARNING, 'vistool'):
        results = CAM(['gradcam', 'layercam'], layers=layer, **options)(make(), IMAGE)
    assert 'GradCAM at ' in caplog.text and 'for 2 of 2 images' in caplog.text
    assert 'weights of its channels are sums over the positions that cancel; LayerCAM has some' in caplog.text
    for result in results:
        empty, other = result.maps
        assert not empty.values.any() and other.values.max() > 0.99


@pytest.mark.parametrize('layer', ['query', 'value', 'key'])
def test_weights_that_do_not_cancel_are_kept(layer, caplog):
    """With a class token the gradients at the keys of the patches need not sum to zero."""
    with caplog.at_level(logging.WARNING, 'vistool'):
        result = CAM(['gradcam', 'xgradcam', 'gradcam++'], layers=layer)(SelfAttention(1), IMAGE[0])
    assert all(item.signed.any() for item in result.maps) and 'rounding' not in caplog.text


def test_a_sum_of_activations_that_a_norm_made_zero_is_not_a_divisor():
    """XGradCAM divides by it."""
    norm = nn.InstanceNorm2d(32)
    result = CAM(['xgradcam', 'gradcam'], layers='after')(Shifted(norm), IMAGE[0])
    assert not result.maps[0].signed.any() and result.maps[1].signed.any()


@pytest.mark.parametrize('scale', [1.0, 1e-12])
def test_methods_of_ones_own_are_judged_by_the_same_rule(scale):
    """A method's weights are judged by what rounding errors make of them, whatever its formula."""

    def root(a, g):
        return g.sum((2, 3), keepdim=True).abs().sqrt() * a

    method = Method('RootCAM', 'nobody', Needs.GRADIENTS, root)
    generator = torch.Generator().manual_seed(0)
    a, g = (torch.randn(2, 16, 7, 7, generator=generator) for _ in range(2))
    g[1] = (g[1].double() - g[1].double().mean((1, 2), keepdim=True)).float()
    kept = method(a, g * scale)
    assert kept[0].any() and not kept[1].any()


def test_the_tile_says_that_there_is_no_evidence():
    result = CAM(['hirescam'], targets=1, layers='features')(Normed(), IMAGE[0])
    assert 'no evidence above rounding' in str(facets(result))
    assert np.isfinite(result.maps[0].values).all()


@pytest.mark.parametrize('after', [nn.InstanceNorm2d(32), nn.Identity()], ids=['norm', 'identity'])
def test_weights_of_second_derivatives_that_cancel_are_no_evidence(after):
    result = CAM(['shapleycam', 'gradcam'], layers='features')(Shifted(after), IMAGE[0])
    cancels = isinstance(after, nn.InstanceNorm2d)
    assert [bool(item.signed.any()) for item in result.maps] == [not cancels] * 2
    assert ('no evidence above rounding' in str(facets(result))) == cancels


def values_of(network, images):
    """Activations and gradients, ``(B, K, h, w)``, of some layers that return maps, from one backward."""
    found = {}

    def keep(module, args, output):
        if isinstance(output, torch.Tensor) and output.ndim == 4 and output[0, 0].numel() > 3:
            output.retain_grad()
            found[module] = output

    parts = [part for part in network.modules() if not list(part.children()) and not isinstance(part, nn.Identity)]
    handles = [part.register_forward_hook(keep) for part in parts[:: 1 + len(parts) // 16]]
    network(images)[:, 1].sum().backward()
    for handle in handles:
        handle.remove()
    return [(output.detach(), output.grad) for output in found.values() if output.grad is not None]


def smooth(name):
    """A small network of timm without ReLU: the gradient of one may jump by a rounding error."""
    network = timm.create_model(name, num_classes=4).eval()
    for path, part in list(network.named_modules()):
        if isinstance(part, (nn.ReLU, nn.ReLU6, nn.Hardswish)):
            network.set_submodule(path, nn.SiLU())
        elif getattr(part, 'inplace', False):
            part.inplace = False
    return network


ORACLES = {
    'residual blocks': lambda: smooth('test_resnet'),
    'depthwise convolutions': lambda: smooth('test_efficientnet'),
    'before a norm over positions': lambda: Shifted(nn.InstanceNorm2d(32)),
    'before pooling minus identity': lambda: Shifted(PoolMinusIdentity(3, 1, 1, count_include_pad=False)),
}


@pytest.mark.parametrize('make', ORACLES.values(), ids=ORACLES)
def test_the_bound_covers_what_float32_loses_and_little_more(make):
    torch.manual_seed(0)
    network = make()
    exact = values_of(copy.deepcopy(network).double(), IMAGE[:1].double())
    judged = {True: 0, False: 0}
    for (a, g), (exact_a, exact_g) in zip(values_of(network, IMAGE[:1]), exact, strict=True):
        for name in ('gradcam', 'gradcam++', 'xgradcam', 'layercam', 'hirescam', 'gradcamelementwise'):
            method = METHODS[name]
            terms, truth = method.weigh(a, g), method.weigh(exact_a, exact_g).sum(1)
            lost = float((terms.sum(1) - truth).abs().max())
            error = method.error(a, g, torch.float32)
            bound = CANCELED * 6e-8 * len(a[0]) ** 0.5 * terms.norm(dim=1)
            if error is not None:
                bound = bound.maximum((error[:, :, None, None] * a).norm(dim=1))
            assert lost <= float(bound.max()), name
            top = float(truth.max())
            if top > 1e3 * lost and name != 'hirescam':  # which the epsilon of a norm may keep from canceling
                assert method(a, g).max() > 0, name
                judged[True] += 1
            if float(truth.abs().max()) <= lost:
                assert not method(a, g).any(), name
                judged[False] += 1
    assert judged[True] > 3 and (judged[False] or not isinstance(network, Shifted))


def test_weights_near_a_pole_of_gradcam_plus_plus_are_kept():
    """Where activations of a channel sum to less than zero, α has poles; a sum close to one is large, not noise."""
    generator = torch.Generator().manual_seed(0)
    a, g = (torch.randn(1, 8, 4, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    a -= a.mean((2, 3), keepdim=True) + 0.05  # each sums to -1
    g[0, 3, 2, 2] = 2.001
    method = METHODS['gradcam++']
    drawn, truth = method(a.float(), g.float()), method.weigh(a, g).sum(1)
    assert truth.abs().max() > 1e3 and drawn.max() > 0
    assert (drawn - truth).abs().max() < 1e-3 * truth.abs().max()
    g[0, 3, 2, 2] = 2 + 1e-7  # a rounding error decides on which side of the pole it is
    assert not method(a.float(), g.float()).any()
