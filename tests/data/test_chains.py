"""Chains of known transforms against what pixels say of themselves, to half a pixel of the original.

The images that go through the real transforms are rulers: one channel grows with x (or y), one falls, one is constant.
So every pixel that comes out tells the place of the original that it shows, whatever happened in between, downscaling
included. Bytes are coarse, but rounding evens out, and libraries that cut off do so to both channels alike. An affine
map is fitted to what the pixels say (all known transforms are affine), and at corners of what is shown and at random
points of it that map must be ``Geometry.to_original``. Nothing of the rules is repeated here.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torchvision.transforms as T
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from known_transforms import CROPS, FLIPS, NESTED, RESIZES, SIZE, TORCHVISION, WARPS, label, mm, step

from vistool.data.pipelines import Pipeline, build_transforms
from vistool.errors import InputError

LOW, SPAN, FULL = 20.0, 215.0, 200  # room below and above for filters that overshoot; what is padded is black
REFUSED = ('larger than', 'high <= 0', 'only support uint8')  # chains that the libraries themselves cannot run
SIZES = st.tuples(st.integers(40, 90), st.integers(40, 90))
quick = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def smooth(transform):
    """Nearest warps move blocks by whole pixels of their own grid; a turn by less than a degree moves none of them.

    So angles that may be that small are drawn with linear interpolation here, and with nearest in the markers' test.
    """
    small = transform.get('magnitude_std') == 'inf' or 'degrees' in transform
    return {**transform, 'interpolation': 'bilinear'} if small else transform


KNOWN = [smooth(transform) for transform in [*RESIZES, *CROPS, *FLIPS, *WARPS, *NESTED]]


def ruler(size, axis):
    """RGB ``(h, w, 3)``: the pixel center's x (axis 0) or y (axis 1), the same falling, and a constant."""
    rows, columns = np.indices(size) + 0.5
    code = SPAN * (rows / size[0] if axis else columns / size[1])
    return np.rint(np.stack([LOW + code, LOW + SPAN - code, np.full(size, FULL)], axis=-1)).astype(np.uint8)


def read_off(images, size):
    """Centers ``(N, 2)`` of the pixels that show the rulers in full, not near their ends, and the places they name."""
    full = np.pad(np.abs(images[0][..., 2].astype(int) - FULL) < 1, 1).astype(np.uint8)
    rows, columns = np.nonzero(cv2.erode(full, np.ones((5, 5)), borderValue=0)[1:-1, 1:-1])
    codes = np.stack([image[rows, columns].astype(float) for image in images], axis=-1)
    share = (codes[:, 0] - codes[:, 1]) / (2 * SPAN) + 0.5
    return np.stack([columns, rows], axis=-1) + 0.5, share * size[::-1]


def fitted(where, shown):
    """The affine map ``(3, 2)`` nearest to a cloud of pairs; pairs that are far off (bent ends) count for little."""
    points, weight = np.column_stack([where, np.ones(len(where))]), np.ones((len(where), 1))
    for _ in range(12):
        solution = np.linalg.lstsq(points * weight, shown * weight, rcond=None)[0]
        distance = np.abs(points @ solution - shown).max(axis=1)
        weight = 1 / np.sqrt(np.maximum(distance, max(0.1, 2 * np.median(distance))))[:, None]
    return solution


def deviation(pipeline, size, seed):
    """By how many pixels of the original the geometry is off at worst; None where too little is shown to tell."""
    samples = [pipeline.read(ruler(size, axis), seed=seed) for axis in (0, 1)]
    geometry = samples[0].geometry
    assert geometry.exact
    assert samples[0].image.shape[:2] == geometry.network_size
    where, shown = read_off([sample.image for sample in samples], size)
    if len(where) < 60 or np.ptp(where, axis=0).min() < 6:
        return None
    corners = [np.argmax(where @ way) for way in ([1, 1], [1, -1], [-1, 1], [-1, -1])]
    points = where[[*corners, *np.random.default_rng(seed).integers(len(where), size=20)]]
    found = np.column_stack([points, np.ones(len(points))]) @ fitted(where, shown)
    return np.abs(found - geometry.to_original(points)).max()


def lands(pipeline, size, seed):
    """Holds a chain to half a pixel; a chain that cannot run, or shows nearly nothing, is drawn anew."""
    try:
        off = deviation(pipeline, size, seed)
    except InputError as error:
        assert any(part in str(error) for part in REFUSED)
        off = None
    assume(off is not None)
    assert off < 0.5


def test_the_ruler_measures_a_tenth_of_a_pixel():
    """A geometry that is wrong by this much is seen: the measurement itself is finer than what it is to decide."""
    for shift in (0.0, 0.3):
        matrix = np.array([[0.6, 0.1, shift], [-0.1, 0.7, 9.0]])
        moved = [cv2.warpAffine(ruler(SIZE, axis), matrix, (70, 60)) for axis in (0, 1)]
        solution = fitted(*read_off(moved, SIZE))
        found = np.array([[30.5, 25.5, 1.0]]) @ solution
        expected = np.linalg.solve([[0.6, 0.1], [-0.1, 0.7]], [30 - shift, 25 - 9.0]) + 0.5
        np.testing.assert_allclose(found[0], expected, atol=0.1)


@pytest.mark.parametrize('transform', [*RESIZES, *CROPS, *FLIPS, *WARPS, *NESTED], ids=label)
def test_alone(transform):
    assert deviation(mm(transform), SIZE, 1) < 0.5


@pytest.mark.parametrize('transform', TORCHVISION, ids=label)
def test_torchvision_alone(transform):
    pipeline = mm(step('NumpyToPIL', to_rgb=True), transform, step('PILToNumpy', to_bgr=True))
    assert deviation(pipeline, SIZE, 1) < 0.5


@quick
@given(
    chain=st.lists(st.sampled_from(KNOWN), min_size=2, max_size=4),
    size=SIZES,
    divisor=st.sampled_from([1, 1, 16, 32]),
    seed=st.integers(0, 10**6),
)
def test_chains_with_padding_of_the_data_preprocessor(chain, size, divisor, seed):
    transforms = build_transforms([*chain, step('PackInputs')], 'mmpretrain')
    lands(Pipeline(transforms, {'type': 'ClsDataPreprocessor', 'pad_size_divisor': divisor}), size, seed)


@quick
@given(
    chain=st.lists(st.sampled_from([smooth(transform) for transform in TORCHVISION]), min_size=2, max_size=4),
    size=SIZES,
    seed=st.integers(0, 10**6),
)
def test_torchvision_chains(chain, size, seed):
    transforms = [T.Compose([build_transforms([s], 'mmpretrain')[0].t for s in chain]), T.PILToTensor()]
    lands(Pipeline(transforms, takes_images=True), size, seed)


@pytest.mark.parametrize('magnitude', [0.13, 0.1, -0.07])
@pytest.mark.parametrize('size', [(47, 63), (50, 50)], ids=str)
def test_nearest_translations_move_whole_pixels(magnitude, size):
    """By 6.11 pixels they move 6; halves go either way, pixel by pixel."""
    transform = step('Translate', magnitude=magnitude, prob=1.0, pad_val=0, random_negative_prob=0.0)
    assert deviation(mm(transform), size, 0) < 0.1
