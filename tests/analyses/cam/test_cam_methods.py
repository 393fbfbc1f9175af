import naive_cam
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vistool.analyses.cam import maps
from vistool.analyses.cam.methods import METHODS, find_methods, principal_component
from vistool.errors import InputError
from vistool.network.inputs import varied


def tensors(seed, shape=(2, 5, 3, 4)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64), torch.randn(
        shape, generator=generator, dtype=torch.float64
    )


@pytest.mark.parametrize('name', naive_cam.METHODS)
@pytest.mark.parametrize('shape', [(2, 5, 3, 4), (1, 3, 6, 5), (2, 1, 2, 2)])
def test_equals_the_paper(name, shape):
    a, g = tensors(0, shape)
    a = a.abs() if name == 'xgradcam' else a
    ours = METHODS[name](a, g if METHODS[name].gradients else None).numpy()
    for image in range(shape[0]):
        np.testing.assert_allclose(ours[image], naive_cam.METHODS[name](a[image].numpy(), g[image].numpy()), atol=1e-9)


@pytest.mark.parametrize('scale', [1e13, 1e-13])
def test_gradients_whose_cube_has_no_float32_are_weighted_as_others_are(scale):
    a, g = tensors(2)
    for image in range(2):
        expected = naive_cam.METHODS['gradcam++'](a[image].numpy(), scale * g[image].numpy())
        ours = METHODS['gradcam++'](a.float(), (scale * g).float())[image].double().numpy()
        np.testing.assert_allclose(ours, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize('name', ['gradcam', 'xgradcam', 'layercam'])
def test_eigen_smooth_is_the_first_component_of_the_weighted_activations(name):
    a, g = tensors(1)
    weighted = METHODS[name].weigh(a, g)
    ours = METHODS[name](a, g, eigen_smooth=True).numpy()
    for image in range(2):
        np.testing.assert_allclose(ours[image], naive_cam.first_component(weighted[image].numpy()), atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 8), h=st.integers(1, 6), w=st.integers(2, 6))
def test_both_gram_matrices_give_the_svd(seed, k, h, w):
    x, _ = tensors(seed, (1, k, h, w))
    expected = naive_cam.first_component(x[0].numpy())
    ours = principal_component(x)[0].numpy()
    assert min(np.abs(ours - expected).max(), np.abs(ours + expected).max()) < 1e-7


def test_principal_component_survives_nan_and_keeps_the_dtype():
    x = torch.randn(1, 4, 3, 3)
    x[0, 0, 0, 0] = float('nan')
    out = principal_component(x)
    assert out.dtype == torch.float32 and out.isfinite().all()


@pytest.mark.parametrize('count', [1, 3])
def test_finish_equals_the_naive_pipeline(count):
    generator = torch.Generator().manual_seed(2)
    signed = [torch.randn(2, 3 + i, 4, generator=generator, dtype=torch.float64) for i in range(count)]
    ours, ranges = maps.finish(signed, (9, 13))
    for image in range(2):
        expected = naive_cam.finish([layer[image].numpy() for layer in signed], (9, 13))
        np.testing.assert_allclose(ours[image], expected, atol=1e-9)
    assert (ranges is None) == (count > 1)


@pytest.mark.parametrize('at_once', [1, 1 << 20], ids=['one by one', 'together'])
def test_maps_finished_together_are_those_finished_alone(monkeypatch, at_once):
    monkeypatch.setattr(maps, 'AT_ONCE', at_once)
    generator = torch.Generator().manual_seed(3)
    shapes = [[(2, 3, 4)], [(2, 5, 5)], [(2, 3, 4)], [(2, 3, 4), (2, 5, 5)], [(2, 3, 4)]]
    columns = [[torch.randn(shape, generator=generator) for shape in layers] for layers in shapes]
    columns[2][0][1, 0, 0] = torch.inf
    for layers, (unit, ranges) in zip(columns, maps.finish_all(columns, (9, 13)), strict=True):
        alone, own = maps.finish(layers, (9, 13))
        torch.testing.assert_close(unit, alone, rtol=0, atol=0, equal_nan=True)
        assert (ranges is None) == (own is None) == (len(layers) > 1)
        if own is not None:
            torch.testing.assert_close(ranges, own, rtol=0, atol=0)


def test_range_tells_the_layer_values_that_0_and_1_stood_for():
    signed = torch.tensor([[[-2.0, 0.5], [1.0, 4.0]]], dtype=torch.float64)
    unit, ranges = maps.finish([signed], (2, 2))
    low, high = ranges[0]
    np.testing.assert_allclose(low + unit[0] * (high - low), signed[0].relu(), atol=1e-6)


def test_a_map_without_positive_evidence_is_zero():
    unit, _ = maps.finish([-torch.rand(1, 3, 3)], (6, 6))
    assert unit.max() == 0


def test_augmentation_of_an_equivariant_map_changes_nothing():
    x = torch.rand(3, 1, 4, 6)
    views = varied(nn.Identity(), x, maps.BRIGHTNESS)
    assert torch.equal(views[:3], x)
    shares = views[:, 0] / views[:, 0].sum((1, 2), keepdim=True)
    expected = x[:, 0] / x[:, 0].sum((1, 2), keepdim=True)
    torch.testing.assert_close(maps.merge(shares), expected)


def test_names_are_case_insensitive_and_unknown_ones_get_suggestions():
    assert list(find_methods(['GradCAM', 'gradcam++', 'GRADCAMPLUSPLUS', 'Grad-CAM'])) == ['gradcam', 'gradcam++']
    with pytest.raises(InputError, match=r"unknown method 'GradCM'.*did you mean GradCAM"):
        find_methods(['GradCM'])
