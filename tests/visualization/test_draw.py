from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vistool.errors import InputError
from vistool.results import Coordinates, Heatmap, Heatmaps
from vistool.visualization.raster import (
    NOT_FINITE,
    blend,
    check_map,
    colorize,
    normalize,
    overlay,
    resize_image,
    resize_map,
    to_uint8,
)
from vistool.visualization.style import Style, lookup_table
from vistool.visualization.views import map_colors

SIZES = st.integers(1, 40)


@pytest.mark.parametrize(
    'name',
    ['jet', 'viridis', 'inferno', 'magma', 'plasma', 'RdBu_r', 'turbo', 'gray', 'hot', 'coolwarm', 'cividis', 'tab20'],
)
def test_tables_are_matplotlibs(name):
    expected = matplotlib.colormaps[name].resampled(256)(np.arange(256), bytes=True)[:, :3]
    np.testing.assert_array_equal(lookup_table(name), expected)


def test_unknown_colormap_lists_close_names():
    with pytest.raises(InputError, match='viridis'):
        lookup_table('virdis')


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50))
def test_colors_are_those_that_matplotlib_gives(values):
    array = np.array([values], np.float32)
    expected = matplotlib.colormaps['jet'](array, bytes=True)[..., :3]
    np.testing.assert_array_equal(colorize(array, lookup_table('jet')), expected)


def test_nan_has_a_color_of_its_own():
    table = lookup_table('viridis')
    np.testing.assert_array_equal(colorize(np.array([[np.nan, 0.0]], np.float32), table), [[NOT_FINITE, table[0]]])


def test_normalize_is_exact_at_the_ends_and_flat_maps_are_cold():
    values = np.array([[-3.0, 1.0, 5.0]], np.float32)
    np.testing.assert_array_equal(normalize(values, -3, 5), [[0, 0.5, 1]])
    np.testing.assert_array_equal(normalize(np.full((2, 2), 7, np.float32), 7, 7), np.zeros((2, 2)))


def test_no_difference_has_the_color_of_zero():
    values = np.array([[0, np.nan]], np.float32)
    np.testing.assert_array_equal(normalize(values, -0.0, 0.0, signed=True), [[0.5, np.nan]])
    same = Heatmap(np.zeros((4, 4), np.float32), Coordinates({'layer': 'a'}), diverging=True)
    result = Heatmaps(kind='feature', image=np.zeros((4, 4, 3), np.uint8), maps=(same,))
    (mapping,) = map_colors(result, Style())
    assert colorize(mapping.values, mapping.table).min() > 240  # the middle of red-blue is white


@given(st.integers(0, 20), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
def test_overlay_is_the_weighted_mean_and_keeps_the_photos_brightness(seed, alpha):
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (9, 7, 3), np.uint8)
    values = generator.random((9, 7), np.float32)
    table = lookup_table('jet')
    expected = np.rint((1 - alpha) * image + alpha * colorize(values, table).astype(float))
    np.testing.assert_array_equal(overlay(image, values, table, alpha), expected)


def test_heat_leaves_cold_pixels_alone_and_hot_ones_mostly_colored():
    image = np.full((1, 2, 3), 200, np.uint8)
    table = lookup_table('jet')
    drawn = overlay(image, np.array([[0.0, 1.0]], np.float32), table, 'heat')
    np.testing.assert_array_equal(drawn[0, 0], image[0, 0])
    np.testing.assert_array_equal(drawn[0, 1], np.rint(0.2 * image[0, 1] + 0.8 * table[255]))


def test_overlay_leaves_what_is_not_covered_and_marks_nan():
    image = np.full((2, 2, 3), 90, np.uint8)
    values = np.array([[1, np.nan], [1, 1]], np.float32)
    covered = np.array([[True, True], [False, True]])
    drawn = overlay(image, values, lookup_table('jet'), 1.0, covered)
    assert tuple(drawn[0, 1]) == NOT_FINITE and (drawn[1, 0] == 90).all()
    assert (drawn[0, 0] == lookup_table('jet')[255]).all()


def test_blend_does_not_change_its_input():
    image, colors = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    blend(image, colors, 0.5, np.array([[True, False], [True, True]]))
    assert not image.any()


@pytest.mark.parametrize(
    'image', [np.full((4, 4, 3), -0.1), np.linspace(0, 1.5, 48).reshape(4, 4, 3), np.full((4, 4, 3), np.nan)]
)
def test_normalized_images_are_refused_with_the_reason(image):
    with pytest.raises(InputError, match='before normalization'):
        to_uint8(image)
    with pytest.raises(InputError, match='before normalization'):
        overlay(image, np.zeros((4, 4), np.float32), lookup_table('jet'))


def test_float_and_gray_images_are_accepted():
    np.testing.assert_array_equal(to_uint8(np.array([[[0.0, 0.5, 1.0]]]))[0, 0], [0, 128, 255])
    assert to_uint8(np.zeros((5, 4), np.uint8)).shape == (5, 4, 3)


@pytest.mark.parametrize(
    ('shape', 'reason'), [((2, 4, 4, 3), 'batch axis'), ((3, 8, 8), 'channels come last'), ((4, 4, 2), r'\(H, W, 3\)')]
)
def test_images_of_other_shapes_are_refused(shape, reason):
    with pytest.raises(InputError, match=reason):
        to_uint8(np.zeros(shape, np.uint8))


@pytest.mark.parametrize('shape', [(1, 5, 4), (1, 5, 4, 3), (1, 1, 5, 4)])
def test_a_batch_axis_left_on_a_map_is_named(shape):
    with pytest.raises(InputError, match='batch axis'):
        check_map(np.zeros(shape))


def test_maps_of_one_row_and_colors_pass():
    assert check_map(np.zeros((1, 5))).shape == (1, 5)
    assert check_map(np.zeros((1, 5, 3))).shape == (1, 5, 3)


@settings(max_examples=40, deadline=None)
@given(SIZES, SIZES, SIZES, SIZES, st.sampled_from(['bilinear', 'bicubic']))
def test_center_alignment_is_torchs(h, w, height, width, interpolation):
    values = np.random.default_rng(h * w).random((h, w), np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None], (height, width), mode=interpolation, align_corners=False
    )[0, 0].numpy()
    np.testing.assert_allclose(resize_map(values, (height, width), interpolation), expected, atol=2e-5)


@settings(max_examples=40, deadline=None)
@given(SIZES, SIZES, SIZES, SIZES)
def test_corner_alignment_samples_at_dst_times_in_over_out(h, w, height, width):
    rows, columns = np.mgrid[:h, :w]
    ramp = (3 * rows + 5 * columns).astype(np.float32)
    y, x = np.arange(height) * h / height, np.arange(width) * w / width
    expected = 3 * np.minimum(y, h - 1)[:, None] + 5 * np.minimum(x, w - 1)[None]
    np.testing.assert_allclose(resize_map(ramp, (height, width), 'bilinear', 'corner'), expected, atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(SIZES, SIZES, SIZES, SIZES)
def test_nearest_takes_the_pixel_under_the_center(h, w, height, width):
    values = np.arange(h * w, dtype=np.float32).reshape(h, w)
    rows = [int((2 * i + 1) * h // (2 * height)) for i in range(height)]
    columns = [int((2 * j + 1) * w // (2 * width)) for j in range(width)]
    np.testing.assert_array_equal(resize_map(values, (height, width), 'nearest'), values[np.ix_(rows, columns)])


@pytest.mark.parametrize('align', ['center', 'corner'])
def test_whole_enlargement_by_nearest_repeats_pixels(align):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(resize_map(values, (8, 12), 'nearest', align), values.repeat(4, 0).repeat(4, 1))


def test_tiny_images_are_enlarged_pixel_by_pixel():
    image = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    np.testing.assert_array_equal(resize_image(image, (12, 12)), image.repeat(3, 0).repeat(3, 1))
