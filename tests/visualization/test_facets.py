"""Coordinates to rows, columns and words."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from sample_results import heatmaps, models

from vistool.results import Coordinates, GridImage, Heatmap, Heatmaps, Layer, Mass, Target, Top
from vistool.visualization.facets import facets, grid_footer, grid_title, score_text, value_text
from vistool.visualization.style import Style
from vistool.visualization.views import map_colors, scaled_alone

MAP = np.ones((2, 2), np.float32)
PHOTO = np.zeros((8, 8, 3), np.uint8)


def attention(*places, layers=(), **more):
    maps = tuple(Heatmap(MAP, place, Layer(str(place.get('layer', '')), 9)) for place in places)
    return Heatmaps('attention', PHOTO, maps, model='vit', layers=layers, **more)


def test_what_is_constant_is_said_once():
    mass = (Mass('l', 'CLS', 0.6, (0.4,), 0.0),)
    one = attention({'layer': 'blocks.9.attn', 'query': 'CLS', 'head': 'mean'}, mass=mass)
    assert facets(one).caption == 'vit · blocks.9.attn · CLS · attention to the class token 40% (mean over heads)'
    assert facets(one).rows == ('',) and facets(one).columns == ('mean',)
    two = attention({'layer': 'a', 'query': 'CLS', 'head': 3}, {'layer': 'b', 'query': 'CLS', 'head': 3})
    assert facets(two).caption == 'vit · CLS' and facets(two).columns == ('head 3',)


def test_layers_and_queries_that_vary_label_rows():
    places = [{'layer': layer, 'query': query, 'head': 'mean'} for layer in 'ab' for query in ('CLS', '(30, 40)')]
    result = attention(*places, queries={'(30, 40)': (30.5, 40.5)})
    assert facets(result).rows == ('layer 9 · CLS', 'layer 9 · (30, 40)')
    assert facets(result).points == {'layer 9 · (30, 40)': (30.5, 40.5)}
    assert facets(result).tiles[1].name == '(30, 40)/mean' and facets(result).tiles[1].group == 'a'


def test_highlighted_tokens_have_a_row_of_their_own():
    place = {'layer': 'a', 'query': 'CLS', 'head': 0}
    shown = facets(attention(place, {**place, 'share': 0.6}))
    assert shown.rows == ('', '60% of the attention') and shown.tiles[1].name == 'head 0/60%'


def test_highlighted_tokens_leave_the_caption_that_maps_are_scaled_alone():
    places = [{'layer': 'a', 'query': 'CLS', 'head': head} for head in (0, 1)]
    masks = [{**place, 'share': 0.6} for place in places]
    assert scaled_alone(attention(*places), Style()) and scaled_alone(attention(*places, *masks), Style())
    assert not scaled_alone(attention(places[0], masks[0]), Style())


def test_maps_through_all_layers_are_titled_by_method_and_class():
    maps = (Heatmap(MAP, {'method': 'legrad', 'target': 'cup'}, score=0.25),)
    result = Heatmaps('attention', PHOTO, maps, model='vit', titles={'legrad': 'legrad'}, layers=('a', 'b'))
    assert facets(result).caption == 'vit · legrad · 2 layers'
    (tile,) = facets(result).tiles
    assert (tile.row, tile.column, tile.name, tile.group) == ('cup 0.25', 'legrad', 'legrad/cup 0.25', 'legrad')


def test_stages_have_numbers_and_sizes():
    maps = (Heatmap(MAP, {'layer': 'stages.2', 'reduction': 'mean'}, Layer('stages.2', 3, (320, 14, 7))),)
    result = Heatmaps('feature', PHOTO, maps, model='net')
    assert facets(result).columns == ('stage 3 · 14×7×320',) and facets(result).caption == 'net · mean over channels'


def test_channels_stand_in_columns_and_how_they_were_chosen_in_the_caption():
    layer = Layer('act', None, (8, 4, 4))
    maps = tuple(Heatmap(MAP, {'layer': 'act', 'channel': channel}, layer) for channel in (7, 2))
    result = Heatmaps('feature', PHOTO, maps, model='net', top=Top(2, 'norm'))
    assert facets(result).columns == ('channel 7', 'channel 2')
    assert facets(result).caption == 'net · act · 4×4×8 · top 2 channels by norm'
    strongest = Heatmap(MAP, {'layer': 'act', 'channel': 7, 'reduction': 'select_max'}, layer)
    assert facets(replace(result, maps=(strongest,))).tiles[0].footer == 'channel 7'


def test_differences_name_both_models_where_there_are_three():
    maps = (Heatmap(MAP, {'layer': 'act', 'reduction': 'mean'}),)
    result = models(Heatmaps('feature', PHOTO, maps), ('a', 'b', 'c'), difference=True)
    assert facets(result).rows == ('a', 'b', 'c', 'c − a')
    assert facets(result).tiles[3].group == 'c − a: act' and facets(result).tiles[3].name == 'c − a/act/mean'


@pytest.mark.parametrize(('prediction', 'said'), [(1, ''), (2, 'cup'), (None, '')])
def test_the_ground_truth_is_said_where_the_prediction_is_wrong(prediction, said):
    guess = None if prediction is None else Target('x', prediction)
    assert facets(heatmaps(label=Target('cup', 1), prediction=guess)).ground_truth == said


def test_scores_are_numbers_until_they_are_written():
    result = models(heatmaps(('cat 0.9',)), ('base', 'ours'))
    scored = [replace(item, score=score) for item, score in zip(result, (0.9, -0.125), strict=True)]
    shown = facets(replace(result, maps=tuple(scored)))
    assert [tile.footer for tile in shown.tiles] == ['0.90', '−0.12'] and shown.rows == ('cat',)


@pytest.mark.parametrize(
    ('score', 'written'),
    [
        (0.95, 'cup 0.95'), (0.005, 'cup 0.01'), (0.0049, 'cup <0.01'), (1e-12, 'cup <0.01'), (0.0, 'cup 0.00'),
        (-0.125, 'cup −0.12'), (-0.0031, 'cup −0.0031'), (12.3456, 'cup 12.35'), (None, 'cup'),
    ],
)  # fmt: skip
def test_the_score_of_a_class_is_zero_only_where_it_is_zero(score, written):
    assert score_text('cup', score) == written


@pytest.mark.parametrize(
    ('value', 'written'),
    [
        (57.24, '57.2'), (0.0032, '0.0032'), (12300.0, '12,300'), (1234567.8, '1,234,568'), (-0.5, '−0.5'),
        (0.99951, '1'), (9.996, '10'), (3.2e-7, '3.2e-07'), (4.567e12, '4.57e+12'), (0.0, '0'), (float('nan'), 'nan'),
    ],
)  # fmt: skip
def test_a_value_has_three_digits(value, written):
    assert value_text(value) == written


def test_only_targets_without_an_id_are_values():
    maps = tuple(Heatmap(MAP, {'method': 'gradcam', 'target': name}, score=0.0032) for name in ('age', 'cup'))
    targets = Target('age', None, 0.0032), Target('cup', 7, 0.0032)
    shown = facets(Heatmaps('cam', PHOTO, maps, targets=targets, titles={'gradcam': 'GradCAM'}))
    assert shown.rows == ('age 0.0032', 'cup <0.01')
    known = replace(targets[0], truth=0.5), targets[1]
    assert facets(Heatmaps('cam', PHOTO, maps, targets=known)).rows[0] == 'age 0.0032, truth 0.5'
    through = tuple(replace(item, coordinates=Coordinates(method='legrad', target='cup')) for item in maps[1:])
    (tile,) = facets(Heatmaps('attention', PHOTO, through, targets=targets)).tiles
    assert (tile.row, tile.name) == ('cup <0.01', 'legrad/cup under 0.01')  # names of files take no "<"


@pytest.mark.parametrize(
    ('against', 'signed', 'note'),
    [
        (False, -1.0, 'no positive evidence'),
        (True, -1.0, 'no evidence against it'),
        (True, 0.0, 'no evidence above rounding'),
    ],
)
def test_an_empty_map_says_what_is_missing(against, signed, note):
    name = 'against cup' if against else 'cup'
    empty = Heatmap(0 * MAP, {'method': 'gradcam', 'target': name}, signed=np.full((2, 2), signed, np.float32))
    result = Heatmaps('cam', PHOTO, (empty,), targets=(Target(name, 7, 0.5, against),), titles={'gradcam': 'GradCAM'})
    assert facets(result).tiles[0].note == note


def grid_image(*parameters, **place):
    return GridImage(np.zeros((20, 30, 3), np.uint8), coordinates=Coordinates(place), parameters=parameters)


def test_pictures_of_grids_are_titled_by_their_coordinates():
    assert grid_title(grid_image('p=0.5', step='Flip', draw=0)) == ('Flip', '30×20', 'p=0.5')
    assert grid_title(grid_image(step='original', draw=1, view=0)) == ('original · draw 2 · view 1', '30×20')
    assert grid_title(grid_image(step='Rotate', within='RandAugment', choice=0)) == ('RandAugment', '› Rotate', '30×20')
    assert grid_title(grid_image(step='transformed')) == ('transformed', '30×20')
    assert grid_title(grid_image(step='transformed', view=1)) == ('view 2', '30×20')
    assert grid_title(grid_image('p=0.5', step='Flip', draw=1), below=True) == ('30×20', 'p=0.5')
    assert grid_title(grid_image(step='original', draw=1), below=True) == ('draw 2', '30×20')
    assert grid_title(grid_image(step='nothing', within='RandAugment'), below=True) == ('› nothing', '30×20')
    assert grid_title(grid_image(draw=2)) == ('draw 3',) and grid_title(grid_image(sample=7)) == ()
    labeled = replace(grid_image(sample=7), label=('tabby',), refetched=9)
    assert grid_footer(labeled, 'original') == ('tabby', '#7 · 30×20 · replaced by #9')
    assert grid_footer(grid_image(sample=7), 'transformed') == ('#7',)


def test_a_thousand_maps_take_no_time():
    places = [{'layer': f'l{layer}', 'query': 'CLS', 'head': head} for layer in range(40) for head in range(40)]
    result = attention(*places)
    start = time.perf_counter()
    facets(result)
    map_colors(result, Style())
    assert time.perf_counter() - start < 2


def test_parameters_of_a_step_have_a_true_minus_and_names_keep_their_hyphen():
    drawn = ('hue -0.031', 'shift (-3, 4)', 'policy auto-2', 'range 3-5')
    image = GridImage(np.zeros((2, 3, 3), np.uint8), coordinates=Coordinates(step='ColorJitter'), parameters=drawn)
    title = ('ColorJitter', '3×2', 'hue −0.031', 'shift (−3, 4)', 'policy auto-2', 'range 3-5')
    assert grid_title(image) == title
