import pytest
import torch
from torch import nn

from vistool.network.tensors import NoSpatialMap, TokenHints, find_layout


def grids(*sizes):
    return list(sizes)


@pytest.mark.parametrize(
    ('shape', 'size', 'seen', 'axes', 'grid', 'prefix'),
    [
        ((2, 197, 192), (224, 224), [(14, 14)], 'BLC', (14, 14), 1),  # ViT with a class token
        ((2, 198, 192), (224, 224), [(14, 14)], 'BLC', (14, 14), 2),  # DeiT with a distillation token
        ((2, 201, 192), (224, 224), [(14, 14)], 'BLC', (14, 14), 5),  # class token and four registers
        ((2, 49, 768), (224, 224), [(56, 56), (28, 28), (14, 14), (7, 7)], 'BLC', (7, 7), 0),  # last stage of Swin
        ((1, 24 * 10 + 1, 8), (384, 160), [(24, 10)], 'BLC', (24, 10), 1),  # not square
        ((1, 24 * 10, 8), (384, 160), [], 'BLC', (24, 10), 0),  # nothing seen: the image's aspect
        ((1, 8, 196), (224, 224), [(14, 14)], 'BCL', (14, 14), 0),  # channels before tokens
        ((1, 64, 256), (256, 256), [(16, 16)], 'BLC', (8, 8), 0),  # as many channels as an earlier map had positions
        ((1, 25, 24), (64, 96), [(4, 6)], 'BLC', (4, 6), 1),  # as many channels as the grid has
        ((1, 15, 128), (96, 160), [(9, 9)], 'BLC', (3, 5), 0),  # windows of attention went by
        ((1, 768, 7, 7), (224, 224), [], 'BCHW', (7, 7), 0),
        ((1, 7, 7, 768), (224, 224), [], 'BHWC', (7, 7), 0),
        ((1, 12, 5, 768), (384, 160), [], 'BHWC', (12, 5), 0),
    ],
)
def test_layouts_are_found_by_looking(shape, size, seen, axes, grid, prefix):
    layout = find_layout(torch.zeros(shape), size, seen)
    assert (layout.axes, layout.grid, layout.prefix) == (axes, grid, prefix)


@pytest.mark.parametrize('layer', [nn.LayerNorm(7), nn.Linear(7, 7)])
def test_a_layer_that_works_on_the_last_axis_settles_a_cube(layer):
    assert find_layout(torch.zeros(1, 7, 7, 7), (224, 224), layer=layer).axes == 'BHWC'
    assert find_layout(torch.zeros(1, 7, 7, 7), (224, 224), layer=nn.BatchNorm2d(7)).axes == 'BCHW'


@pytest.mark.parametrize(
    ('layer', 'axes'), [(nn.LayerNorm(16), 'BLC'), (nn.Linear(3, 16), 'BLC'), (nn.Conv1d(1, 1, 1), 'BCL')]
)
def test_a_layer_settles_where_the_channels_of_tokens_are(layer, axes):
    assert find_layout(torch.zeros(1, 16, 16), (64, 64), [(4, 4)], layer=layer).axes == axes


@pytest.mark.parametrize(('layer', 'side'), [(None, 25), (nn.Dropout(), 25), (nn.Softmax(-1), 24)])
def test_attention_between_tokens_is_no_map(layer, side):
    with pytest.raises(NoSpatialMap, match=f'weighs {side} tokens'):
        find_layout(torch.randn(1, 2, side, side).softmax(-1), (64, 96), [(4, 6)], layer=layer)


@pytest.mark.parametrize(('side', 'grids'), [(7, [(28, 28), (1, 1)]), (56, [(56, 56), (7, 7)]), (25, [(4, 6)])])
def test_a_square_map_is_no_attention_whatever_sizes_went_by(side, grids):
    maps = torch.randn(2, 32, side, side)  # behind squeeze-and-excitation, or windows
    assert find_layout(maps, (224, 224), grids).grid == (side, side)


def test_the_users_number_of_extra_tokens_is_taken_also_when_it_is_zero():
    tokens = torch.zeros(1, 196, 8)
    assert find_layout(tokens, (224, 224), [(14, 14), (13, 15)], hints=TokenHints(0)).grid == (14, 14)
    with pytest.raises(NoSpatialMap, match='leaves 195 tokens after 1 extra'):
        find_layout(tokens, (224, 224), [(14, 14)], hints=TokenHints(1))


@pytest.mark.parametrize(
    ('shape', 'batch', 'why'),
    [((4, 49, 8), 1, '4 entries for 1'), ((1, 1000), 1, 'two spatial axes'), ((1, 512, 1, 1), 1, 'single position')],
)
def test_what_has_no_spatial_map_says_why(shape, batch, why):
    with pytest.raises(NoSpatialMap, match=why):
        find_layout(torch.zeros(shape), (224, 224), batch=batch)


@pytest.mark.parametrize(
    ('shape', 'seen'), [((2, 8, 3, 4), []), ((2, 3, 4, 8), []), ((2, 14, 8), [(3, 4)]), ((2, 8, 12), [(3, 4)])]
)
def test_to_map_and_from_map_are_inverse(shape, seen):
    tensor = torch.randn(shape)
    layout = find_layout(tensor, (96, 128), seen)
    maps = layout.to_map(tensor)
    assert maps.shape == (2, 8, 3, 4)
    assert torch.equal(layout.from_map(maps, tensor), tensor)


def test_map_positions_are_row_major():
    tokens = torch.arange(1 + 12).float().view(1, 13, 1)
    maps = find_layout(tokens, (96, 128), [(3, 4)]).to_map(tokens)
    assert maps[0, 0, 1, 2] == 1 + 1 * 4 + 2
