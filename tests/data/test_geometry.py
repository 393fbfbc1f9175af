"""Geometry's algebra: round trips, composition against plain matrices, and maps laid over the original."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistool.data.geometry import GeometricStep, Geometry, affine, crop, erase, flip, resize, window

sizes = st.tuples(st.integers(8, 60), st.integers(8, 60))
points = st.lists(st.tuples(st.floats(-30, 90), st.floats(-30, 90)), min_size=1, max_size=5)


@st.composite
def steps(draw, before):
    after, kind = draw(sizes), draw(st.sampled_from(['resize', 'crop', 'flip', 'turn']))
    if kind == 'resize':
        return resize(before, after)
    if kind == 'crop':
        return crop(before, after, draw(st.integers(-9, 9)), draw(st.integers(-9, 9)))
    if kind == 'flip':
        return flip(before, draw(st.booleans()), draw(st.booleans()))
    angle, zoom = draw(st.floats(-3, 3)), draw(st.floats(0.5, 2))
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    return affine(before, after, [[cos, -sin, 3.0], [sin, cos, -2.0]])


@st.composite
def geometries(draw):
    size = draw(sizes)
    geometry, chain = Geometry.identity(size), []
    for _ in range(draw(st.integers(0, 4))):
        chain.append(draw(steps(geometry.network_size)))
        geometry = geometry.then(chain[-1])
    return geometry, chain


@settings(max_examples=80, deadline=None, derandomize=True)
@given(geometries(), points)
def test_there_and_back(made, where):
    geometry, _ = made
    np.testing.assert_allclose(geometry.to_original(geometry.to_network(where)), where, atol=1e-6)
    np.testing.assert_allclose(geometry.to_network(geometry.to_original(where)), where, atol=1e-6)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(geometries(), points)
def test_composition_goes_back_step_by_step(made, where):
    geometry, chain = made
    moved = np.column_stack([where, np.ones(len(where))])
    for step in reversed(chain):
        moved = moved @ step.matrix.T
    np.testing.assert_allclose(geometry.to_original(where), moved[:, :2], atol=1e-6)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(geometries())
def test_invalid_is_what_left_the_image_at_any_step(made):
    """Naively, pixel by pixel: a pixel is lost where its center lies outside the image at one of the steps.

    Between steps the mask lives on pixels, so pixels next to its border may differ after a resampling.
    """
    geometry, chain = made
    h, w = geometry.network_size
    naive = np.zeros((h, w), bool)
    for i in range(h):
        for j in range(w):
            point = np.array([j + 0.5, i + 0.5, 1])
            for step in reversed(chain):
                point = step.matrix @ point
                bh, bw = step.before
                naive[i, j] |= not (-1e-9 <= point[0] < bw + 1e-9 and -1e-9 <= point[1] < bh + 1e-9)
    mask = np.zeros((h, w), bool) if geometry.invalid is None else geometry.invalid
    assert (mask != naive).mean() <= (0.0 if len(chain) <= 1 else 0.12)


def test_resizes_map_edges_to_edges():
    geometry = Geometry.identity((30, 50)).then(resize((30, 50), (7, 11)))
    np.testing.assert_allclose(geometry.crop(), [[0, 0], [50, 0], [50, 30], [0, 30]])
    np.testing.assert_allclose(geometry.to_original([[0.5, 0.5]]), [[50 / 22, 30 / 14]])


def test_padding_and_painted_pixels_are_invalid():
    geometry = Geometry.identity((4, 6)).then(crop((4, 6), (8, 8), -1, -2))
    expected = np.ones((8, 8), bool)
    expected[2:6, 1:7] = False
    np.testing.assert_array_equal(geometry.invalid, expected)
    expected[3:5, 2:4] = True
    np.testing.assert_array_equal(geometry.then(erase((8, 8), [(3, 2, 2, 2)])).invalid, expected)
    inner = Geometry.identity((4, 6)).then(crop((4, 6), (2, 2), 1, 1))
    assert inner.invalid is None
    back = geometry.then(crop((8, 8), (4, 6), 1, 2))
    assert back.invalid is None
    np.testing.assert_allclose(back.matrix, np.eye(3))


def test_a_step_must_start_where_the_last_one_ended():
    with pytest.raises(ValueError, match='starts from'):
        Geometry.identity((4, 6)).then(resize((6, 4), (3, 3)))


def ramp(geometry, shape):
    """Original coordinates of the centers of an (h, w) map of the network input."""
    (h, w), (nh, nw) = shape, geometry.network_size
    x, y = np.meshgrid((np.arange(w) + 0.5) * nw / w, (np.arange(h) + 0.5) * nh / h)
    return geometry.to_original(np.stack([x, y], -1).reshape(-1, 2)).reshape(h, w, 2)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(made=geometries(), shape=st.tuples(st.integers(5, 30), st.integers(5, 30)))
def test_a_ramp_of_coordinates_comes_back_as_that_ramp(made, shape):
    geometry, _ = made
    oh, ow = geometry.original_size
    out, covered = geometry.warp(ramp(geometry, shape).astype(np.float32), size=(oh, ow))
    x, y = np.meshgrid(np.arange(ow) + 0.5, np.arange(oh) + 0.5)
    truth = np.stack([x, y], axis=-1)
    network = geometry.to_network(truth.reshape(-1, 2)).reshape(oh, ow, 2)
    border = np.array(geometry.network_size[::-1]) / shape[::-1]  # half a cell goes flat at the border, area means too
    shrinking = np.abs(np.linalg.inv(geometry.matrix)[:2, :2]).max(axis=1) / border
    if shrinking.max() >= 2:
        return  # cells are averaged first: not a ramp near its ends
    inner = ((network > border / 2) & (network < np.array(geometry.network_size[::-1]) - border / 2)).all(-1)
    scale = max(1.0, float(np.abs(geometry.matrix[:2, 2]).max()), oh, ow)
    np.testing.assert_allclose(out[inner & covered], truth[inner & covered], atol=3e-6 * scale)
    assert (out[~covered] == 0).all()


def test_covered_is_the_networks_view_without_padding():
    geometry = Geometry.identity((20, 30)).then(crop((20, 30), (10, 40), 5, 5))
    _, covered = geometry.warp(np.ones((3, 4), np.float32))
    expected = np.zeros((20, 30), bool)
    expected[5:15, 5:] = True
    np.testing.assert_array_equal(covered, expected)
    painted = geometry.then(erase((10, 40), [(0, 0, 2, 3)]))
    expected[5:7, 5:8] = False
    np.testing.assert_array_equal(painted.warp(np.ones((3, 4), np.float32))[1], expected)


def test_nearest_repeats_cells_and_size_is_free():
    geometry = Geometry.identity((6, 9)).then(resize((6, 9), (4, 4))).then(flip((4, 4), horizontal=True))
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    out, covered = geometry.warp(values, interpolation='nearest')
    np.testing.assert_array_equal(out, np.kron(values[:, ::-1], np.ones((3, 3))))
    assert covered.all()
    twice, _ = geometry.warp(values, size=(12, 18), interpolation='nearest')
    np.testing.assert_array_equal(twice, np.kron(values[:, ::-1], np.ones((6, 6))))


def test_shrinking_averages_so_that_no_peak_is_lost():
    values = np.zeros((64, 64), np.float32)
    values[13, 37] = 64.0
    out, _ = Geometry.identity((64, 64)).warp(values, size=(8, 8))
    assert out.shape == (8, 8)
    assert out.sum() == pytest.approx(1.0)
    assert np.unravel_index(out.argmax(), out.shape) == (1, 4)


def test_channels_are_kept():
    values = np.random.default_rng(0).random((5, 6, 3), dtype=np.float32)
    geometry = Geometry.identity((20, 31)).then(crop((20, 31), (15, 16), 2, 3))
    out, _ = geometry.warp(values)
    for channel in range(3):
        np.testing.assert_array_equal(out[..., channel], geometry.warp(values[..., channel])[0])


def waved(size, depth=3.0):
    """A field that no affine map fits."""
    h, w = size
    x, y = np.meshgrid(np.arange(w) + 0.5, np.arange(h) + 0.5)
    field = np.stack([x + depth * np.sin(y / 7), y + depth * np.sin(x / 9)], axis=-1)
    return GeometricStep(np.eye(3), size, size, field=field), field


def test_field_round_trip_and_ramp():
    step, _ = waved((48, 64))
    geometry = Geometry.identity((48, 64)).then(step).then(resize((48, 64), (72, 96)))
    where = np.random.default_rng(0).uniform([12, 12], [84, 60], (20, 2))
    original = geometry.to_original(where)
    exact = np.stack([
        where[:, 0] / 1.5 + 3 * np.sin(where[:, 1] / 10.5), where[:, 1] / 1.5 + 3 * np.sin(where[:, 0] / 13.5),
    ], axis=-1)  # fmt: skip
    np.testing.assert_allclose(original, exact, atol=0.05)
    np.testing.assert_allclose(geometry.to_network(original), where, atol=0.05)
    out, covered = geometry.warp(ramp(geometry, (72, 96)).astype(np.float32))
    x, y = np.meshgrid(np.arange(64) + 0.5, np.arange(48) + 0.5)
    inner = covered & (x > 6) & (x < 58) & (y > 6) & (y < 42)
    assert inner.sum() > 0.98 * 51 * 35
    np.testing.assert_allclose(out[inner], np.stack([x, y], -1)[inner], atol=0.5)


def test_a_large_photo_behind_a_field_has_no_holes_and_can_be_drawn_in_strips():
    step, _ = waved((48, 64))
    geometry = Geometry.identity((1200, 1600)).then(resize((1200, 1600), (48, 64))).then(step)
    values = ramp(geometry, (48, 64)).astype(np.float32)
    out, covered = geometry.warp(values)
    assert covered[200:1000, 200:1400].all()
    x, y = np.meshgrid(np.arange(250, 1350, 97) + 0.5, np.arange(250, 950, 89) + 0.5)
    points = np.stack([x, y], axis=-1)
    np.testing.assert_allclose(out[250:950:89, 250:1350:97], points, atol=0.5 * 25)  # half a pixel of the network
    rows = slice(350, 381)
    np.testing.assert_array_equal(geometry.warp(values, rows=rows)[0], out[rows])


def test_field_marks_what_it_does_not_show():
    _, field = waved((20, 20))
    field[3:6, 4:8] = np.nan
    geometry = Geometry.identity((20, 20)).then(GeometricStep(np.eye(3), (20, 20), (20, 20), field=field))
    assert geometry.invalid[3:6, 4:8].all()
    assert np.isnan(geometry.field[3:6, 4:8]).all()
    assert np.isfinite(geometry.to_original([[5.0, 5.0]])).all()


def test_windows_are_crops_that_are_resized():
    both = Geometry.identity((40, 50)).then(crop((40, 50), (20, 30), 7, -4)).then(resize((20, 30), (9, 8)))
    one = Geometry.identity((40, 50)).then(window((40, 50), (9, 8), 7, -4, 30, 20))
    np.testing.assert_allclose(both.matrix, one.matrix)
    np.testing.assert_array_equal(both.invalid, one.invalid)


def test_description_is_plain_json():
    import json

    text = json.dumps(Geometry.identity((4, 6)).then(resize((4, 6), (2, 2))).describe())
    assert json.loads(text)['original_size'] == [4, 6]


def test_importing_geometry_needs_neither_torch_nor_opencv():
    code = 'import sys, vistool.data.geometry; assert not {"torch", "cv2", "matplotlib"} & set(sys.modules)'
    subprocess.run([sys.executable, '-c', code], check=True)
