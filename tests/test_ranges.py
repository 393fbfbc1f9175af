"""Numbers and ranges have one form everywhere: samples, layers, heads, channels, predictions, patches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vistool import ranges
from vistool.analyses.attention.selection import LayerChoice, find_heads
from vistool.analyses.cam.instances import Instances
from vistool.analyses.patches import Patches
from vistool.data.datasets import at_indices
from vistool.errors import InputError

COUNT = 12
SAME = {
    '7': [7],
    '-1': [11],
    '4-8': [4, 5, 6, 7, 8],
    '4:8': [4, 5, 6, 7],
    '-4--2': [8, 9, 10],
    '9--1': [9, 10, 11],
    '-3:': [9, 10, 11],
    ':2': [0, 1],
    '3:99': [3, 4, 5, 6, 7, 8, 9, 10, 11],
    '0,2-3, 5:6': [0, 2, 3, 5],
}


@pytest.mark.parametrize(('word', 'meant'), SAME.items())
def test_samples_layers_and_heads_take_the_same_words(word, meant):
    names = [f'blocks.{index}' for index in range(COUNT)]
    assert at_indices([word], COUNT) == meant
    assert find_heads([word], COUNT) == meant
    assert [*LayerChoice.parse([word], nn.Identity()).resolve(names)] == meant


@pytest.mark.parametrize('word', ['12', '-13', '4-12', '5-x', '1.5', '8-4', '5:5', '4-'])
def test_what_is_not_there_or_no_number_is_refused_by_each(word):
    for pick in (lambda: at_indices([word], COUNT), lambda: find_heads([word], COUNT)):
        with pytest.raises(InputError):
            pick()


@pytest.mark.parametrize(('word', 'meant'), [(word, meant) for word, meant in SAME.items() if word[0] in '7405'])
def test_channels_predictions_and_patches_take_those_without_an_end(word, meant):
    assert ranges.positive([word], 'a channel', 'channels') == tuple(meant)
    assert Instances([word]).numbers == meant


@pytest.mark.parametrize('word', ['-1', '3:', ':3', '8-4', '4:4', 'x', '0-99999999'])
def test_they_refuse_negative_numbers_and_open_ends(word):
    with pytest.raises(InputError, match='is not a channel; accepted: numbers and ranges'):
        ranges.positive([word], 'a channel', 'channels')


@given(st.integers(1, 40), st.integers(-50, 50), st.integers(-50, 50))
def test_a_slice_is_that_of_python(count, first, last):
    found = ranges.places(f'{first}:{last}', count, lambda index: InputError('absent'))
    assert [*found] == [*range(count)][first:last]


def test_patches_take_negative_numbers_too():
    assert Patches(patch_size=8, highlight=('-1', '2-4', '0:2'))._highlighted(9) == (8, 2, 3, 4, 0, 1)
    with pytest.raises(InputError, match='no patch 9; accepted: 0 to 8'):
        Patches(patch_size=8, highlight=(9,))._highlighted(9)
