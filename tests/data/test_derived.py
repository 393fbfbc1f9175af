import numpy as np
import pytest

from vistool.data.derived import FFTMagnitude, LocalBinaryPattern, gray


def image(seed, size=(7, 9)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)


def naive_lbp(values):
    height, width = values.shape
    around = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]
    out = np.zeros((height, width), int)
    for y in range(height):
        for x in range(width):
            for bit, (dy, dx) in enumerate(around):
                neighbor = values[min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)]
                out[y, x] += (neighbor >= values[y, x]) << bit
    return out


@pytest.mark.parametrize('seed', range(3))
def test_local_binary_pattern_is_the_papers(seed):
    out = LocalBinaryPattern()({'img': image(seed)})['img']
    assert out.dtype == np.uint8 and out.shape == (7, 9, 3)
    np.testing.assert_array_equal(out[..., 0], naive_lbp(gray(image(seed))))


def test_a_flat_image_has_only_its_mean_in_the_spectrum():
    out = FFTMagnitude()({'img': np.full((8, 10, 3), 90, np.uint8)})['img']
    assert out[4, 5, 0] == 255
    out[4, 5] = 0
    assert out.max() == 0


def test_a_grating_has_two_peaks_at_its_frequency():
    x = np.arange(32)
    grating = np.repeat((100 + 50 * np.cos(2 * np.pi * 4 * x / 32))[None, :, None], 16, 0).repeat(3, 2)
    spectrum = FFTMagnitude()({'img': grating})['img'][8, :, 0].astype(int)
    assert set(np.argsort(spectrum)[-3:]) == {16 - 4, 16, 16 + 4}


@pytest.mark.parametrize('transform', [FFTMagnitude(), LocalBinaryPattern()])
def test_channel_order_does_not_matter(transform):
    np.testing.assert_array_equal(transform({'img': image(0)})['img'], transform({'img': image(0)[..., ::-1]})['img'])
