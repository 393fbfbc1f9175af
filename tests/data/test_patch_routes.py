"""Patches: the three routes against each other and against loops, and the way back."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vistool.data.patches import (
    PatchGrid,
    filling,
    fitting,
    join,
    pair,
    split,
    split_convolution,
    split_einops,
    split_unfold,
)
from vistool.errors import InputError

ROUTES = (split_einops, split_unfold, split_convolution)
DTYPES = (torch.uint8, torch.float16, torch.float32, torch.float64)
OTHER_DTYPES = (torch.int8, torch.uint16, torch.int32, torch.int64, torch.bfloat16, torch.bool)
SIDE = st.integers(1, 24)


@st.composite
def grids(draw):
    image, patch = (draw(SIDE), draw(SIDE)), (draw(st.integers(1, 8)), draw(st.integers(1, 8)))
    padding = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    assume(all(patch[i] <= image[i] + 2 * padding[i] for i in range(2)))
    stride = draw(st.sampled_from([patch, (draw(st.integers(1, patch[0])), draw(st.integers(1, patch[1])))]))
    return PatchGrid.over(image, patch, stride, padding)


def random_bits(dtype, shape, seed):
    """Finite values of every size and sign, subnormals and negative zero included."""
    generator = np.random.default_rng(seed)
    if dtype is torch.bool:
        return torch.from_numpy(generator.integers(0, 2, shape).astype(bool))
    width = torch.empty(0, dtype=dtype).element_size()
    raw = generator.integers(0, 256, (*shape, width), np.uint8)
    values = torch.from_numpy(raw).view(dtype)[..., 0].clone()
    if dtype.is_floating_point:
        values[~torch.isfinite(values)] = -0.0
    return values


def bits(tensor):
    tensor = tensor.clone(memory_format=torch.contiguous_format)
    return tensor.view(torch.uint8) if tensor.dtype != torch.bool else tensor


def signed(tensor):
    """PyTorch 2.6 cannot index unsigned integers of 16 bits."""
    return tensor.view(torch.int16) if tensor.dtype == torch.uint16 else tensor


def naive(image, grid, value):
    """Patch by patch and pixel by pixel, as the definition says."""
    patches = []
    for index in range(grid.count):
        left, top, right, bottom = grid.box(index)
        patch = torch.full((image.shape[0], bottom - top, right - left), value).to(image.dtype)
        for y in range(top, bottom):
            for x in range(left, right):
                if 0 <= y < image.shape[1] and 0 <= x < image.shape[2]:
                    patch[:, y - top, x - left] = image[:, y, x]
        patches.append(patch)
    return torch.stack(patches)


@settings(max_examples=60, deadline=None)
@given(
    grids(), st.sampled_from(DTYPES + OTHER_DTYPES), st.integers(0, 2**32), st.sampled_from([0, 1]), st.integers(1, 3)
)
def test_the_three_routes_agree_bit_for_bit_and_the_inverse_is_exact(grid, dtype, seed, value, channels):
    image = random_bits(dtype, (channels, *grid.image), seed)
    wanted = naive(image, grid, value)
    covered = torch.from_numpy(grid.covered())
    for route in ROUTES:
        patches = route(image, grid, value)
        assert patches.dtype == dtype and patches.shape == (grid.count, channels, *grid.patch)
        assert torch.equal(bits(patches), bits(wanted))
        back = join(patches, grid)
        assert torch.equal(bits(signed(back)[:, covered]), bits(signed(image)[:, covered]))
        assert not signed(back)[:, ~covered].any()


@settings(max_examples=20, deadline=None)
@given(grids(), st.sampled_from(DTYPES), st.integers(0, 2**32))
def test_a_batch_is_its_images_and_numpy_is_torch(grid, dtype, seed):
    images = random_bits(dtype, (2, 3, *grid.image), seed)
    for route in ROUTES:
        both = route(images, grid)
        assert torch.equal(both, torch.stack([route(image, grid) for image in images]))
    array = split(images.numpy(), grid)
    assert np.array_equal(array, split(images, grid).numpy())
    assert np.array_equal(join(array, grid), join(split(images, grid), grid).numpy())


def test_infinity_and_nan_pass_through_every_route():
    image = torch.tensor([[[torch.inf, -torch.inf], [torch.nan, -0.0]]])
    for grid in (PatchGrid.over((2, 2), 1), PatchGrid.over((2, 2), 2), PatchGrid.over((2, 2), 2, 1, 1)):
        wanted = naive(image, grid, 0.0)
        for route in ROUTES:
            assert torch.equal(bits(route(image, grid)), bits(wanted))


def test_overlapping_patches_that_differ():
    patches = torch.arange(1.0, 3).reshape(2, 1, 1, 1).expand(2, 1, 1, 2)
    assert join(patches, PatchGrid.over((1, 3), (1, 2), 1)).tolist() == [[[1, 2, 2]]]


@settings(max_examples=60, deadline=None)
@given(grids())
def test_counts_are_those_of_a_convolution(grid):
    padding = -grid.start[0], -grid.start[1]
    made = torch.nn.functional.conv2d(
        torch.zeros(1, 1, *grid.image), torch.zeros(1, 1, *grid.patch), None, grid.stride, padding
    )
    assert tuple(made.shape[2:]) == grid.shape


@settings(max_examples=40, deadline=None)
@given(grids(), st.integers(1, 3), st.integers(1, 3), st.integers(0, 1))
def test_receptive_fields_of_two_steps(grid, kernel, stride, padding):
    """The box of a token of the second step is the hull of the boxes of the tokens it takes in."""
    assume(stride <= kernel and padding < kernel and min(grid.shape) + 2 * padding >= kernel)
    tokens = PatchGrid.over(grid.shape, kernel, stride, padding)
    both = grid.then((kernel,) * 2, (stride,) * 2, (padding,) * 2, tokens.shape)
    for index in range(both.count):
        left, top, right, bottom = tokens.box(index)
        first, last = (
            [(grid.start[i] + grid.stride[i] * at) for i, at in ((0, top), (1, left))],
            (bottom - 1, right - 1),
        )
        end = [grid.start[i] + grid.stride[i] * last[i] + grid.patch[i] for i in range(2)]
        assert both.box(index) == (first[1], first[0], end[1], end[0])


@given(SIDE, SIDE, st.integers(1, 8), st.integers(1, 8))
def test_sizes_without_rest(height, width, patch, stride):
    assume(stride <= patch <= min(height, width))
    for size in (
        fitting((height, width), (patch,) * 2, (stride,) * 2),
        filling((height, width), (patch,) * 2, (stride,) * 2),
    ):
        assert PatchGrid.over(size, patch, stride).covered().all()
        assert all(abs(a - b) < stride for a, b in zip(size, (height, width), strict=True))
    assert fitting((height, width), (patch,) * 2, (stride,) * 2) <= (height, width)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (((8, 8), 9), 'larger than the image'),
        (((8, 8), 0), 'patch size'),
        (((8, 8), -4), 'patch size'),
        (((8, 8), (4, 4, 4)), 'patch size'),
        (((8, 8), 4, 5), 'gaps'),
        (((8, 8), 4, 0), 'stride'),
        (((8, 8), 4, 4, -1), 'padding'),
    ],
)
def test_impossible_grids(arguments, message):
    with pytest.raises(InputError, match=message):
        PatchGrid.over(*arguments)


def test_other_misuse():
    with pytest.raises(InputError, match='does not fit'):
        split(torch.zeros(3, 9, 9), PatchGrid.over((8, 8), 4))
    with pytest.raises(InputError, match='two'):
        pair(2.5, 'patch size')


def test_gradients_flow_through_the_routes_that_move_floats():
    grid = PatchGrid.over((8, 8), 4, 2)
    for route in (split_einops, split_unfold):
        image = torch.randn(1, 8, 8, requires_grad=True)
        route(image, grid).sum().backward()
        assert image.grad.min() == 1 and image.grad.max() == 4
