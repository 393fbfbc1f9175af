"""Transforms that no table knows: their geometry is found by replaying them, or they are said to be unknown."""

from __future__ import annotations

import logging

import cv2
import numpy as np
import pytest
import torchvision.transforms as T

from vistool.data.pipelines import Pipeline

SIZE = (60, 80)
IMAGE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8), (0, 0), 2)


class OnResults:
    """A user's transform: works on the image in the results dict."""

    def __init__(self, change):
        self.change = change

    def __call__(self, results):
        results['img'] = self.change(results['img'])
        return results


def read(change, image=IMAGE, seed=0, before=()):
    pack = OnResults(lambda img: img)
    return Pipeline([*before, OnResults(change), pack]).read(image, seed=seed)


def drawn_warp(image, border=0):
    h, w = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((30.0, 20.0), np.random.uniform(-30, 30), np.random.uniform(0.8, 1.3))
    return cv2.warpAffine(image, matrix, (w + 10, h - 6), borderValue=(border,) * 3)


def test_drawn_affine_warp_is_found():
    geometry = read(drawn_warp, seed=5).geometry
    from vistool.data.transforms import seeded

    with seeded(5, 0):
        matrix = cv2.getRotationMatrix2D((30.0, 20.0), np.random.uniform(-30, 30), np.random.uniform(0.8, 1.3))
    points = np.random.default_rng(1).uniform(5, 55, (20, 2))
    expected = (points - 0.5) @ matrix[:, :2].T + matrix[:, 2] + 0.5
    assert geometry.exact
    assert geometry.field is None
    np.testing.assert_allclose(geometry.to_network(points), expected, atol=0.1)


@pytest.mark.parametrize('border', [0, 128, 255])
def test_constant_borders_of_any_color_are_invalid(border):
    sample = read(lambda image: cv2.copyMakeBorder(image, 5, 6, 7, 8, cv2.BORDER_CONSTANT, value=(border,) * 3))
    expected = np.ones((71, 95), bool)
    expected[5:65, 7:87] = False
    np.testing.assert_array_equal(sample.geometry.invalid, expected)
    np.testing.assert_allclose(sample.geometry.matrix[:2, 2], [-7, -5], atol=0.05)


def test_transforms_that_take_only_bytes_are_replayed_in_bytes():
    def resized(image):
        assert image.dtype == np.uint8
        from PIL import Image

        return np.array(Image.fromarray(image).resize((31, 90), box=(10, 5, 70, 55)))

    geometry = read(resized).geometry
    assert geometry.exact
    np.testing.assert_allclose(geometry.crop(), [[10, 5], [70, 5], [70, 55], [10, 55]], atol=0.5)


def bulge(image):
    h, w = image.shape[:2]
    y, x = np.indices((h, w), np.float32)
    dx, dy = (x - w / 2) / w, (y - h / 2) / h
    scale = 1 - 0.4 * (dx * dx + dy * dy)
    return cv2.remap(image, dx * scale * w + w / 2, dy * scale * h + h / 2, cv2.INTER_LINEAR)


def test_what_no_affine_map_fits_keeps_its_field():
    sample = read(bulge)
    geometry = sample.geometry
    assert geometry.exact
    assert geometry.field is not None
    j, i = 70, 51
    dx, dy = (j - 40) / 80, (i - 30) / 60
    scale = 1 - 0.4 * (dx * dx + dy * dy)
    expected = [dx * scale * 80 + 40.5, dy * scale * 60 + 30.5]
    np.testing.assert_allclose(geometry.to_original([[j + 0.5, i + 0.5]])[0], expected, atol=0.1)
    back, covered = geometry.warp(sample.image.astype(np.float32))
    inner = covered[6:-6, 6:-6]
    assert inner.mean() > 0.98
    assert np.abs(back - IMAGE)[6:-6, 6:-6][inner].mean() < 3


@pytest.mark.parametrize('make', [
    lambda: T.RandomPerspective(0.4, p=1.0), lambda: T.ElasticTransform(20.0, 4.0),
])  # fmt: skip
@pytest.mark.parametrize('on_tensor', [False, True])
def test_perspective_and_elastic_through_markers(make, on_tensor):
    steps = [T.PILToTensor(), make()] if on_tensor else [make(), T.PILToTensor()]
    pipeline, seen = Pipeline(steps, takes_images=True), 0
    for point in np.random.default_rng(0).uniform([20, 18], [60, 42], (4, 2)):
        y, x = np.indices(SIZE) + 0.5
        gray = np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / 8) * 255
        sample = pipeline.read(np.repeat(np.rint(gray).astype(np.uint8)[..., None], 3, 2), seed=2)
        found = sample.image[..., 0].astype(float)
        h, w = found.shape
        y, x = np.indices((h, w)) + 0.5
        center = np.array([(found * x).sum(), (found * y).sum()]) / found.sum()
        if sample.geometry.exact:
            seen += 1
            np.testing.assert_allclose(center, sample.geometry.to_network([point])[0], atol=0.5)
    assert seen == 4


@pytest.mark.parametrize('change', [
    lambda image: image[..., ::-1].copy(),
    lambda image: cv2.GaussianBlur(image, (0, 0), 1.0),
    lambda image: np.repeat(image.mean(axis=2, keepdims=True).astype(image.dtype), 3, axis=2),
    lambda image: image,
    lambda image: np.clip(image * 1.3, 0, 255).astype(image.dtype),
    lambda image: (image * 0.6).astype(image.dtype),
], ids=['swap', 'blur', 'gray', 'nothing', 'brighter', 'darker'])  # fmt: skip
def test_transforms_of_color_that_keep_codes_are_identities(change, caplog):
    geometry = read(change).geometry
    np.testing.assert_array_equal(geometry.matrix, np.eye(3))
    assert geometry.exact
    assert geometry.invalid is None
    assert not caplog.records


@pytest.mark.parametrize('change', [
    lambda image: np.clip((image - image.mean()) * 1.4 + image.mean(), 0, 255).astype(image.dtype),
    lambda image: ((image / 255.0) ** 1.7 * 255).astype(image.dtype),
    lambda image: image // 64 * 64,
], ids=['contrast', 'gamma', 'posterise'])  # fmt: skip
def test_other_transforms_of_color_are_not_mistaken_for_warps(change, caplog):
    with caplog.at_level(logging.WARNING, 'vistool'):
        geometry = read(change).geometry
    assert geometry.exact is False
    np.testing.assert_array_equal(geometry.matrix, np.eye(3))
    assert [record.levelname for record in caplog.records] == ['WARNING']
    assert 'OnResults' in caplog.records[0].getMessage()


def test_what_cannot_be_repeated_is_unknown(caplog):
    generator = iter(range(1, 100))

    def shifted(image):
        return np.roll(image, 3 * next(generator), axis=1)

    with caplog.at_level(logging.WARNING, 'vistool'):
        assert read(shifted).geometry.exact is False
    assert len(caplog.records) == 1


def test_a_transform_is_warned_about_once_a_run(caplog):
    pipeline = Pipeline([OnResults(lambda image: (image // 64) * 64)])
    with caplog.at_level(logging.WARNING, 'vistool'):
        for index in range(3):
            pipeline.read(IMAGE, index=index)
    assert len(caplog.records) == 1


def test_the_image_is_untouched_by_the_replay():
    one = read(drawn_warp, seed=7)
    two = read(drawn_warp, seed=7)
    np.testing.assert_array_equal(one.image, two.image)
    assert not np.array_equal(one.image, read(drawn_warp, seed=8).image)
