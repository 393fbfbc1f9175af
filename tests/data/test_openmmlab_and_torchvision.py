"""Every known transform's geometry against markers drawn into the image and found again in the output.

A marker is a smooth blob whose centroid can be measured to a small part of a pixel; it goes through the real transform,
and its centroid must be where ``Geometry.to_network`` says. Nothing of the rules is repeated here. Chains, and finer
measurements, are in ``test_chains.py``.
"""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
import torchvision.transforms as T
from known_transforms import CROPS, FLIPS, NESTED, RESIZES, SIZE, TORCHVISION, WARPS, label, mm, step
from torchvision.transforms import v2

from vistool.data.pipelines import Pipeline


def blob(size, point, sigma=2.5):
    y, x = np.indices(size) + 0.5
    gray = np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * sigma**2))
    return np.repeat(np.rint(255 * gray).astype(np.uint8)[:, :, None], 3, axis=2)


def box(size, left, top, side=9):
    image = np.zeros((*size, 3), np.uint8)
    image[top : top + side, left : left + side] = 255
    return image, (left + side / 2, top + side / 2)


def centroid(image):
    gray = image[..., 0].astype(float)
    y, x = np.indices(gray.shape) + 0.5
    return np.array([(gray * x).sum(), (gray * y).sum()]) / max(gray.sum(), 1e-9)


def well_inside(geometry, image, point, reach):
    """Whether all of a marker's surroundings are shown, so that nothing is missing from its centroid."""
    angles = np.linspace(0, 2 * np.pi, 16)
    ring = geometry.to_network(point + reach * np.stack([np.cos(angles), np.sin(angles)], axis=-1))
    h, w = geometry.network_size
    if (ring < 0.5).any() or (ring > [w - 0.5, h - 0.5]).any():
        return False
    columns, rows = ring.astype(int).T
    return geometry.invalid is None or not geometry.invalid[rows, columns].any()


def check(pipeline, size=SIZE, seed=0, tolerance=0.5):
    """Corner boxes and blobs land where the geometry says; white stays white exactly where the mask is valid."""
    rng = np.random.default_rng(seed)
    h, w = size
    markers = [(*box(size, left, top), 7.0) for left in (0, w - 9) for top in (0, h - 9)]
    points = [(w / 2 + 0.3, h / 2 - 0.2), *rng.uniform([10, 10], [w - 10, h - 10], (6, 2))]
    markers += [(blob(size, p, 2.5), p, 8.0) for p in points]
    seen = 0
    for image, point, reach in markers:
        sample = pipeline.read(image, seed=seed)
        assert sample.geometry.exact
        if well_inside(sample.geometry, sample.image, point, reach):
            seen += 1
            expected = sample.geometry.to_network([point])[0]
            assert np.abs(centroid(sample.image) - expected).max() <= tolerance
    check_mask(pipeline, size, seed)
    return seen


def check_mask(pipeline, size, seed):
    sample = pipeline.read(np.full((*size, 3), 255, np.uint8), seed=seed)
    valid = np.ones(sample.image.shape[:2], bool) if sample.geometry.invalid is None else ~sample.geometry.invalid
    white = sample.image[..., 0] > 127
    wrong = valid != white
    # rounding to 1/32 pixel and cubic overshoot may decide pixels that a border runs through
    border = np.zeros_like(valid)
    for axis in (0, 1):
        step = np.diff(valid.astype(int), axis=axis) != 0
        border |= np.insert(step, 0, False, axis=axis) | np.insert(step, step.shape[axis], False, axis=axis)
    assert not (wrong & ~border).any()


@pytest.mark.parametrize('transform', [*RESIZES, *CROPS, *FLIPS, *WARPS, *NESTED], ids=label)
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_openmmlab_transform(transform, seed):
    assert check(mm(transform), seed=seed) >= 1


@pytest.mark.parametrize('transform', TORCHVISION, ids=label)
@pytest.mark.parametrize('seed', [0, 1])
def test_wrapped_torchvision_transform(transform, seed):
    assert check(mm(step('NumpyToPIL', to_rgb=True), transform, step('PILToNumpy', to_bgr=True)), seed=seed) >= 1


def v2_of(transform):
    kwargs = {k: v for k, v in transform.items() if k != 'type'}
    if isinstance(kwargs.get('interpolation'), str):
        kwargs['interpolation'] = T.InterpolationMode(kwargs['interpolation'])
    return getattr(v2, transform['type'].split('/')[1])(**kwargs)


@pytest.mark.parametrize('on', ['pil', 'tensor'])
@pytest.mark.parametrize('transform', TORCHVISION, ids=label)
def test_second_generation_of_torchvision(transform, on):
    transforms = [v2_of(transform), v2.ToImage()]
    pipeline = Pipeline(transforms if on == 'pil' else transforms[::-1], takes_images=True)
    assert check(pipeline, seed=3) >= 1


@pytest.mark.parametrize('make', [
    lambda: T.RandomApply(torch.nn.ModuleList([T.RandomHorizontalFlip(1.0), T.CenterCrop(40)]), p=0.5),
    lambda: T.RandomChoice([T.RandomVerticalFlip(1.0), T.Resize(40), T.Pad(7)]),
    lambda: T.RandomOrder([T.Resize(50), T.RandomHorizontalFlip(0.5), T.CenterCrop(60)]),
    lambda: v2.RandomApply([v2.RandomHorizontalFlip(1.0), v2.CenterCrop(40)], p=0.5),
    lambda: v2.RandomChoice([v2.RandomVerticalFlip(1.0), v2.Resize(40), v2.Pad(7)]),
    lambda: v2.RandomOrder([v2.Resize(50), v2.RandomHorizontalFlip(0.5), v2.CenterCrop(60)]),
    lambda: v2.RandomZoomOut(p=1.0, side_range=(1.0, 2.0)),
    lambda: v2.RandomResize(40, 90),
    lambda: v2.RandomShortestSize([40, 70], max_size=80),
    lambda: v2.ScaleJitter((80, 80)),
])  # fmt: skip
@pytest.mark.parametrize('seed', [0, 1])
def test_torchvision_containers_and_others(make, seed):
    transform = make()
    assert check(Pipeline([T.Compose([transform, T.PILToTensor()])], takes_images=True), seed=seed) >= 1
    assert not getattr(transform, 'transforms', None) or 'function' not in repr(transform.transforms)  # put back


@pytest.mark.parametrize('name,kwargs', [
    ('ResizeKeepRatio', {'size': 60, 'longest': 0.3}),
    ('CenterCropOrPad', {'size': (50, 101)}),
    ('RandomCropOrPad', {'size': (50, 101)}),
    ('RandomResizedCropAndInterpolation', {'size': 50, 'scale': (0.5, 1.0)}),
])  # fmt: skip
def test_timm_transform(name, kwargs):
    from timm.data import transforms

    pipeline = Pipeline([getattr(transforms, name)(**kwargs), transforms.MaybeToTensor()], takes_images=True)
    assert check(pipeline, seed=1) >= 1


@pytest.mark.parametrize('transform', [
    step('RandomErasing', erase_prob=1.0, fill_color=(7, 7, 7)),
    step('RandomErasing', erase_prob=0.5, fill_color=(7, 7, 7)),
    step('Cutout', shape=21, prob=1.0, pad_val=7),
    step('Cutout', shape=(21, 9), prob=0.5, pad_val=7),
    step('Cutout', magnitude_range=(5, 40), magnitude_level=4, magnitude_std=1.0, prob=1.0, pad_val=7),
], ids=label)  # fmt: skip
@pytest.mark.parametrize('seed', [0, 1, 2, 3])
def test_what_is_painted_over_is_invalid(transform, seed):
    sample = mm(transform).read(np.full((*SIZE, 3), 255, np.uint8), seed=seed)
    painted = sample.image[..., 0] == 7
    invalid = np.zeros(SIZE, bool) if sample.geometry.invalid is None else sample.geometry.invalid
    np.testing.assert_array_equal(invalid, painted)
    np.testing.assert_array_equal(sample.geometry.matrix, np.eye(3))


@pytest.mark.parametrize('make', [T.RandomErasing, v2.RandomErasing])
@pytest.mark.parametrize('seed', range(4))
def test_torchvision_erasing(make, seed):
    pipeline = Pipeline([T.ToTensor(), make(p=0.7)], takes_images=True)
    sample = pipeline.read(np.full((*SIZE, 3), 255, np.uint8), seed=seed)
    invalid = np.zeros(SIZE, bool) if sample.geometry.invalid is None else sample.geometry.invalid
    np.testing.assert_array_equal(invalid, sample.image[..., 0] == 0)


@pytest.mark.parametrize('preset', [
    step('AutoAugment', policies='imagenet'),
    step('RandAugment', policies='timm_increasing', num_policies=3, magnitude_level=9, magnitude_std=0.5),
], ids=label)  # fmt: skip
def test_preset_policies_are_known_throughout(preset, caplog):
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    lighting = step('Lighting', eigval=[1.0] * 3, eigvec=[[1.0] * 3] * 3)
    pipeline = mm(preset, step('ColorJitter', brightness=0.3), lighting)
    with caplog.at_level(logging.WARNING, 'vistool'):
        assert all(pipeline.read(image, seed=seed).geometry.exact for seed in range(12))
    assert not caplog.records


def test_descendants_that_work_in_their_own_way_are_not_taken_for_their_parents(caplog):
    class Odd(T.CenterCrop):
        def forward(self, image):
            return T.functional.crop(image, 0, 0, 20, 30)

    pipeline = Pipeline([Odd(20), T.PILToTensor()], takes_images=True)
    geometry = pipeline.read(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)).geometry
    np.testing.assert_allclose(geometry.crop(), [[0, 0], [30, 0], [30, 20], [0, 20]], atol=0.5)
