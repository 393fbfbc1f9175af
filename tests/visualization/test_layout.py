from __future__ import annotations

import dataclasses
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_results import center_crop, heatmaps, models, photo
from torch import nn

from vistool.analyses.cam import CAM
from vistool.data.geometry import Geometry
from vistool.errors import InputError
from vistool.results import Coordinates, GridImage, Heatmap, Heatmaps, ImageGrid, Layer, Target
from vistool.results.heatmaps import side_by_side
from vistool.visualization import raster
from vistool.visualization import text as fonts
from vistool.visualization.facets import SCALED_ALONE, short_number
from vistool.visualization.grids import grid_scene
from vistool.visualization.heatmaps import heatmaps_scene, overlays, panel_scenes, sheet_scenes
from vistool.visualization.kinds import to_panels
from vistool.visualization.scene import RED, Box, PathItem, Scene, TextItem
from vistool.visualization.style import Style, lookup_table
from vistool.visualization.table import Ring, mark_items
from vistool.visualization.vector import figure

METHODS = ('GradCAM', 'GradCAM++', 'EigenGradCAM', 'LayerCAM', 'HiResCAM', 'XGradCAM', 'ElementWise')
SIDES = st.integers(1, 60)
CLASSES = ('espresso 0.95', 'a class whose name nobody would call short 0.04', 'cup 0.01')


def text_box(item: TextItem) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a line; the height is that of capitals, and of descenders where there are any."""
    drop = 0.0 if set(item.text) <= set('0123456789.−e') else 0.22 * item.size
    width, rise = fonts.text_width(item.text, item.size), 0.76 * item.size
    shift = {'left': 0.0, 'center': width / 2, 'right': width}[item.anchor]
    if item.vertical:
        return item.x - rise, item.y - width + shift, item.x + drop, item.y + shift
    return item.x - shift, item.y - rise, item.x - shift + width, item.y + drop


def check_scene(scene: Scene) -> None:
    """What is true of every picture: nothing outside, no text over text, no text over a tile but notes."""
    slack = 0.6
    boxes = [(i.box.x, i.box.y, i.box.right, i.box.bottom) for i in scene.images]
    texts = [text_box(item) for item in scene.texts]
    for left, top, right, bottom in boxes + texts:
        assert left >= -slack and top >= -slack and right <= scene.width + slack and bottom <= scene.height + slack
    for first, second in itertools.combinations(boxes, 2):
        assert not overlap(first, second)
    for first, second in itertools.combinations(texts, 2):
        assert not overlap(first, second)
    for item, box in zip(scene.texts, texts, strict=True):
        assert item.ground is not None or not any(overlap(box, tile) for tile in boxes)
    assert scene.width > 0 and scene.height > 0


def overlap(a, b, slack: float = 0.3) -> bool:
    return min(a[2], b[2]) - max(a[0], b[0]) > slack and min(a[3], b[3]) - max(a[1], b[1]) > slack


def scene_of(result, style: Style | None = None, vector: bool = False) -> Scene:
    style = style or Style()
    page = style.page(vector)
    return grid_scene(result, page) if isinstance(result, ImageGrid) else heatmaps_scene(result, style, page)


def tiles(scene: Scene):
    """Images that are no bars."""
    return [item for item in scene.images if item.box.width > 8]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 7), st.sampled_from(['cam', 'attention', 'feature']),
    st.sampled_from([None, 'column', 'text', 'screen', 700, 2400]), st.sampled_from([None, 'each', 'shared']),
    st.sampled_from([None, True]), st.sampled_from([(160, 240), (240, 100), (100, 400), (128, 128)]), st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_every_figure_is_well_laid_out(rows, columns, kind, width, scale, colorbar, size, vector, compared):
    wrong = {'label': Target('tea', 1), 'prediction': Target('espresso', 2)}
    result = heatmaps(CLASSES[:rows], METHODS[:columns], kind, size, model='resnet50', **wrong)
    result = models(result, ('base', 'ours'), difference=kind == 'feature') if compared else result
    style = Style(width=width, scale=scale, colorbar=colorbar)
    scene = scene_of(result, style, vector)
    check_scene(scene)
    heights = [item.box.height for item in tiles(scene)]
    assert heights == pytest.approx([heights[0]] * len(heights))
    assert len(tiles(scene)) >= len(result.maps) + 1
    total = style.page(vector).width
    assert total is None or scene.width == pytest.approx(total)


def test_one_map_is_titled_by_its_class_with_the_score():
    texts = [item.text for item in scene_of(heatmaps()).texts]
    assert texts == ['GradCAM', 'espresso 0.95']  # the method is constant: caption; the tile has the class


def test_one_class_titles_methods_and_says_the_class_once():
    scene = scene_of(heatmaps(columns=METHODS[:3], model='resnet50'))
    assert [item.text for item in scene.texts] == [f'resnet50 · espresso 0.95 · {SCALED_ALONE}', *METHODS[:3]]


def test_paper_has_no_constants():
    texts = [item.text for item in scene_of(heatmaps(columns=METHODS[:2], model='resnet50'), vector=True).texts]
    assert texts == list(METHODS[:2])


def test_classes_by_methods_titles_once_and_labels_rows():
    texts = scene_of(heatmaps(CLASSES[::2], METHODS[:2])).texts
    assert [item.text for item in texts if item.vertical] == list(CLASSES[::2])
    assert [item.text for item in texts if not item.vertical] == [SCALED_ALONE, *METHODS[:2]]


def lines_of_tiles(scene: Scene):
    """Tiles line by line; one that stands beside several lines belongs to the first of them."""
    lines = [list(line) for _, line in itertools.groupby(tiles(scene), key=lambda item: item.box.y)]
    for place in range(len(lines) - 1, 0, -1):
        if lines[place][0].box.y < lines[place - 1][0].box.y:
            lines[place - 1 : place + 1] = [lines[place - 1] + lines[place]]
    return lines


def without(result: Heatmaps, column: str) -> Heatmaps:
    """The result where a method shows no class: it stands in the first row alone."""
    shown = [
        m for m in result if m.coordinates['method'] != column or m.coordinates['target'] == result.targets[0].name
    ]
    free = [{name: value for name, value in m.coordinates.items() if name != 'target'} for m in shown]
    maps = [
        dataclasses.replace(m, coordinates=place) if place['method'] == column else m
        for m, place in zip(shown, free, strict=True)
    ]
    return dataclasses.replace(result, maps=tuple(maps))


def test_a_method_that_shows_no_class_leaves_a_gap_so_that_columns_mean_one_thing():
    result = without(heatmaps(CLASSES[::2], METHODS[:3]), METHODS[1])
    scene = scene_of(result)
    first, second = ([item.box.x for item in line] for line in lines_of_tiles(scene))
    assert len(first) == 4 and second == [first[1], first[3]]
    assert [item.text for item in scene.texts if not item.vertical] == [SCALED_ALONE, *METHODS[:3]]


def test_rows_that_become_columns_keep_their_labels_beside_a_gap():
    scene = scene_of(without(heatmaps(CLASSES[:2], METHODS[:4]), METHODS[0]), Style(width='column'))
    told = ' '.join(item.text for item in scene.texts)
    assert all(name.split()[0] in told for name in CLASSES[:2])


def test_rows_that_wrap_wrap_alike():
    result = without(heatmaps(CLASSES, METHODS), METHODS[5])
    scene = scene_of(result, Style(width=400))
    check_scene(scene)
    lines = lines_of_tiles(scene)
    each = len(lines) // 3
    assert len(lines) == 3 * each > 3
    for one, other in zip(lines[:each], lines[each : 2 * each], strict=True):
        assert {item.box.x for item in other} <= {item.box.x for item in one}
    assert sum(map(len, lines)) == 1 + 3 * len(METHODS) - 2  # the photo once


@pytest.mark.parametrize('size', [(30, 900), (900, 30), (12, 12), (1, 400)], ids=str)
@pytest.mark.parametrize('width', [None, 'column', 400])
def test_photos_of_odd_shapes_keep_their_labels_and_their_shape(size, width):
    result = heatmaps(CLASSES[::2], METHODS[:2], size=size, crop=min(size))
    scene = scene_of(result, Style(width=width))
    check_scene(scene)
    texts = ' '.join(item.text for item in scene.texts)
    assert all(word in texts for word in ('espresso', '0.95', 'cup', '0.01'))
    assert all(part in texts.replace(' ', '') for part in METHODS[:2])
    for item in scene.images:
        shown = item.box.width / item.box.height
        # a line of pixels is drawn thick enough to be seen
        assert shown == pytest.approx(size[1] / size[0], rel=0.15) or item.box.height == (2 if width == 'column' else 4)


def test_a_page_of_a_sheet_titles_each_column_once_wherever_it_starts():
    results = [without(heatmaps(CLASSES[::2], METHODS[:3]), METHODS[1]) for _ in range(5)]
    style = Style(width='column')
    pages = sheet_scenes(results, style, style.page(True), tallest=150.0)
    assert len(pages) > 2
    for page in pages:
        check_scene(page)
        titles = {}
        for item in page.texts:
            if not item.vertical:
                titles[item.x] = titles.get(item.x, '') + item.text  # a title may stand on two lines
        full = any(len(line) == 4 for line in lines_of_tiles(page))
        assert sorted(titles.values()) == sorted(METHODS[:3] if full else METHODS[:3:2])


def test_ground_truth_is_red():
    (truth,) = [
        item
        for item in scene_of(heatmaps(label=Target('cup', 1), prediction=Target('espresso', 2))).texts
        if item.text.startswith('GT')
    ]
    assert truth.text == 'GT: cup' and truth.color == RED


def test_the_prediction_stands_beside_the_ground_truth():
    wrong = heatmaps(label=Target('cup', 1), prediction=Target('espresso', 2, score=0.951))
    assert [item.text for item in scene_of(wrong).texts if item.color == RED] == ['GT: cup', 'predicted: espresso 0.95']
    both = models(wrong, ('base', 'ours'))  # each of which has a prediction of its own
    assert [item.text for item in scene_of(both).texts if item.color == RED] == ['GT: cup']


def test_methods_of_several_models_stay_a_matrix_where_they_wrap():
    result = models(heatmaps(columns=METHODS[:3]), ('base', 'ours'))
    scene = scene_of(result, Style(width='column'))
    lines = lines_of_tiles(scene)
    assert [len(line) for line in lines] == [3, 2, 2]  # the photo, and below each other base and ours
    assert [item.box.x for item in lines[1]] == [item.box.x for item in lines[0]][1:]
    labels = ''.join(item.text for item in scene.texts if item.vertical)  # a long one stands on two lines
    assert sorted(labels) == sorted(''.join(METHODS[:3]))
    upright = [item.text for item in scene.texts if not item.vertical]
    assert upright.count('espresso') == 1  # under the photo
    assert upright.count('base') == upright.count('ours') == 1
    assert not any('·' in text for text in upright)
    assert [len(line) for line in lines_of_tiles(scene_of(result, Style(width=1400)))] == [7]


def test_a_matrix_of_several_classes_names_each_once_a_row():
    result = models(heatmaps(CLASSES[:2], METHODS[:2]), ('base', 'ours'))
    scene = scene_of(result, Style(width='column'))
    assert [len(line) for line in lines_of_tiles(scene)] == [3, 2, 2, 2]
    labels = ''.join(item.text for item in scene.texts if item.vertical)
    assert all(labels.count(name) == 2 for name in ('espresso', '++'))


@pytest.mark.parametrize(('value', 'text'), [(-0.001, '>−.01'), (0.001, '<.01'), (0.0, '.00'), (-0.25, '−.25')])
def test_a_small_number_is_never_written_as_zero(value, text):
    assert short_number(value) == text


SHAPES = ((60, 90), (90, 60), (90, 12), (9, 90))


def test_a_sheet_leaves_little_white_around_photos_of_other_shapes():
    across, upright, tall, wide = (heatmaps(columns=METHODS[:2], size=size) for size in SHAPES)
    (page,) = sheet_scenes([across, upright, tall], Style(), Style().page(vector=False))
    first, second, third = (line[0].box for line in lines_of_tiles(page))
    assert first.height * 1.3 < second.height <= first.height * 4 / 3 + 1 and third.height == second.height
    (page,) = sheet_scenes([across, wide, upright], Style(), Style().page(vector=False))
    first, second, third = (line[0].box for line in lines_of_tiles(page))
    assert second.height < 0.5 * first.height
    assert second.y - first.bottom < 40 and third.y - second.bottom < 40  # no empty place above or below it


def test_bars_are_titled_once_a_line():
    stages = [f'stage {i}' for i in range(1, 4)]
    result = heatmaps(('a',), stages, 'feature')
    assert [item.text for item in scene_of(result).texts if item.vertical] == ['cosine similarity']
    cam = scene_of(heatmaps(columns=METHODS[:2]), Style(colorbar=True))
    assert [item.text for item in cam.texts if item.vertical] == ['evidence']


def test_a_ring_at_the_edge_is_whole():
    (points, _) = (
        item.points
        for item in mark_items((Ring(0.0, 1.0),), Box(10.0, 20.0, 100.0, 80.0), Style().page(vector=False))
        if isinstance(item, PathItem)
    )
    xs, ys = zip(*points, strict=True)
    assert min(xs) > 10 and max(ys) < 100 and max(xs) < 25


def test_notes_are_drawn_on_their_tile():
    maps = (Heatmap(np.zeros((4, 4), np.float32)),)
    scene = scene_of(heatmaps(maps=maps))
    note = [item for item in scene.texts if item.ground is not None]
    assert ' '.join(item.text for item in note) == 'no positive evidence'
    tile = tiles(scene)[1].box
    assert all(tile.x < item.x < tile.right and tile.y < item.y < tile.bottom for item in note)


def test_attention_stands_in_rows_of_six_after_input_and_mean():
    heads = ('mean', *range(12))
    for width, beside in (('text', True), ('column', False)):
        scene = scene_of(heatmaps(columns=heads, kind='attention', size=(96, 96)), Style(width=width))
        lines = [len(line) for line in lines_of_tiles(scene)]
        assert lines == ([8, 6] if beside else [2, 6, 6])


def stages_of_models():
    stages = [f'stage {i}' for i in range(1, 6)]
    maps = tuple(
        Heatmap(m.values, {'reduction': 'mean', 'layer': m.coordinates['layer']})
        for m in heatmaps(('a',), stages, 'feature')
    )
    return models(heatmaps(kind='feature', maps=maps, size=(96, 96)), ('base', 'ours'), difference=True)


def compared_stages(width):
    scene = scene_of(stages_of_models(), Style(width=width))
    lines = [len(line) for line in lines_of_tiles(scene)]
    told = [item for item in scene.texts if item.text != 'mean activation']  # beside the bars
    labels = [item.text for item in sorted(told, key=lambda item: item.y) if item.vertical]
    titles = [item.text for item in sorted(told, key=lambda item: (item.y, item.x)) if not item.vertical]
    return lines, labels, [text for text in titles if text[0] in 'sbo']


def test_compared_stages_are_lines_where_they_do_not_fit_beside_each_other_on_paper():
    rows, stages = ['base', 'ours', 'ours − base'], [f'stage {i}' for i in range(1, 6)]
    assert compared_stages('column') == ([1, 3, 3, 3, 3, 3], stages, rows)
    assert compared_stages('text') == ([6, 5, 5], rows, stages)


def test_compared_rows_are_broken_at_the_same_columns():
    lines, labels, titles = compared_stages(330)
    assert labels == ['base', 'ours', 'ours − base'] * (len(lines) // 3) and len(lines) > 3
    assert sum(lines) == 1 + 15  # the photo once
    assert titles == [f'stage {i}' for i in range(1, 6)]  # each once, above its column
    both = models(heatmaps(('CLS',), ('mean', *range(6)), 'attention'), ('base', 'ours'))
    few = tuple(m for m in both if (m.coordinates['model'], m.coordinates['head']) != ('ours', 5))
    scene = scene_of(heatmaps(kind='attention', maps=few), Style(width='column'))
    lines = [len(line) for line in lines_of_tiles(scene)]
    assert sum(lines) == 1 + 13 and len(lines) == 4


def test_layers_without_heads_have_no_lead():
    layers = [f'layer{i}' for i in range(12)]
    scene = scene_of(heatmaps(layers, ('mean',), 'attention', size=(96, 96)), Style(width='text'))
    lines = [len(line) for line in lines_of_tiles(scene)]
    assert lines == [7, 6]


def test_the_input_stands_once_where_all_rows_have_the_same():
    scene = scene_of(heatmaps(('token1', 'token2'), ('mean', 0), 'attention', size=(96, 96)))
    lines = [len(line) for line in lines_of_tiles(scene)]
    assert lines == [3, 2]


@pytest.mark.parametrize('kind', ['cam', 'feature', 'attention'])
def test_labels_stand_between_maps_and_an_input_that_all_rows_share(kind):
    result = heatmaps(('a', 'b'), ('mean', 0), kind, size=(96, 96))
    scene = scene_of(result if kind != 'feature' else stages_of_models())
    left, *others = sorted({(item.box.x, item.box.x + item.box.width) for item in tiles(scene)})
    labels = [text_box(item) for item in scene.texts if item.vertical and item.text != 'mean activation']
    assert len(labels) >= 2
    assert all(left[1] <= label[0] and label[2] <= others[0][0] for label in labels)


def test_the_query_is_ringed_in_the_input_only():
    result = heatmaps(('a', 'b'), ('mean', 0), 'attention', queries={'a': (80.0, 50.0), 'b': (100.0, 60.0)})
    scene = scene_of(result)
    rings = {path.clip for path in scene.paths}
    inputs = [tiles(scene)[0].box, tiles(scene)[3].box]
    assert rings == set(inputs)
    for path in scene.paths[:1]:  # original pixels to the network's: the crop starts at (72, 32)
        middle = np.mean(path.points, axis=0)
        expected = inputs[0].x + (80 - 72) / 96 * inputs[0].width, inputs[0].y + (50 - 32) / 96 * inputs[0].height
        np.testing.assert_allclose(middle, expected, atol=1e-6)


def bars(scene: Scene):
    return [item for item in scene.images if item.box.width <= 8]


def test_bars_only_where_scales_are_compared():
    assert not bars(scene_of(heatmaps(columns=METHODS[:2])))
    assert len(bars(scene_of(heatmaps(columns=METHODS[:2]), Style(scale='shared')))) == 1
    assert len(bars(scene_of(heatmaps(columns=METHODS[:2]), Style(colorbar=True)))) == 1
    assert not bars(scene_of(heatmaps(columns=METHODS[:2]), Style(scale='shared', colorbar=False)))


def test_rows_of_one_group_share_a_bar():
    scene = scene_of(heatmaps(('a', 'b'), ('stage 1',), 'feature', queries={'a': (0, 0), 'b': (9, 9)}))
    (bar,) = bars(scene)
    boxes = [item.box for item in tiles(scene)]
    assert bar.box.y == pytest.approx(min(box.y for box in boxes))
    assert bar.box.bottom == pytest.approx(max(box.bottom for box in boxes))


def test_signed_features_are_white_at_zero_and_share_one_scale_per_group():
    values = [np.array([[-1, 0], [0, 0.5]], np.float32), np.array([[2, 0], [0, 0]], np.float32)]
    result = heatmaps(
        kind='feature', maps=tuple(Heatmap(v, {'layer': 'g', 'channel': i}) for i, v in enumerate(values))
    )
    first, second = (np.unique(item.tile((2, 2)).reshape(-1, 3), axis=0) for item in tiles(scene_of(result))[1:])
    table = lookup_table('RdBu_r')
    assert (first == table[128]).all(1).any() and (second == table[128]).all(1).any()
    assert (second == table[255]).all(1).any() and (first == table[64]).all(1).any()
    assert {'2', '−2', '0'} <= {item.text for item in scene_of(result).texts}


def test_equal_values_have_equal_colors_on_a_shared_scale():
    flat = [np.full((2, 2), v, np.float32) for v in (1.0, 0.5)]
    spans = [(0, 2), (0, 4)]
    maps = tuple(Heatmap(v, {'method': n}, range=span) for v, n, span in zip(flat, 'ab', spans, strict=True))
    result = heatmaps(maps=maps)
    shared, alone = Style(scale='shared', alpha=1.0, view='network'), Style(alpha=1.0, view='network')
    one, two = (item.tile((4, 4)) for item in tiles(scene_of(result, shared))[1:])
    np.testing.assert_array_equal(one, two)
    one, two = (item.tile((4, 4)) for item in tiles(scene_of(result, alone))[1:])
    assert (one != two).any()


def test_the_original_is_untinted_outside_the_crop_and_half_photo_half_jet_inside():
    result = heatmaps()
    original = result.original
    tile = tiles(scene_of(result))[1].tile(original.shape[:2])
    top, left, side = 32, 72, 96
    inside = np.zeros(original.shape[:2], bool)
    inside[top : top + side, left : left + side] = True
    np.testing.assert_array_equal(tile[~inside], original[~inside])
    colors = 2 * tile[inside].astype(int) - original[inside]
    assert (np.abs(colors[:, None] - lookup_table('jet').astype(int)[None]).max(2).min(1) <= 1).all()


def test_the_crop_is_outlined_unless_it_covers_everything():
    assert len({path.points for path in scene_of(heatmaps()).paths}) == 1
    whole = photo(96, 96)
    assert not scene_of(heatmaps(image=whole, original=whole, geometry=Geometry.identity((96, 96)))).paths
    assert not scene_of(heatmaps(), Style(view='network')).paths


@pytest.mark.parametrize('change', [{'geometry': None}, {'original': None}])
def test_without_a_way_back_the_networks_view_is_drawn(change):
    result = heatmaps(**change)
    np.testing.assert_array_equal(tiles(scene_of(result))[0].tile(result.image.shape[:2]), result.image)


def test_an_inexact_geometry_means_the_networks_view():
    original = photo(160, 240)
    image, geometry = center_crop(original, 96)
    geometry = Geometry(geometry.matrix, (96, 96), (160, 240), exact=False)
    np.testing.assert_array_equal(tiles(scene_of(heatmaps(geometry=geometry)))[0].tile((96, 96)), image)


def test_overlays_have_the_networks_size_and_exact_arithmetic():
    result = heatmaps(maps=(Heatmap(np.ones((96, 96), np.float32)),))
    (drawn,) = [image for _, image in overlays(result, Style())]
    np.testing.assert_array_equal(drawn, np.rint(0.5 * result.image + 0.5 * lookup_table('jet')[255]))


def test_color_maps_are_drawn_as_they_are():
    colors = np.random.default_rng(0).random((3, 3, 3), np.float32)
    result = heatmaps(kind='feature', maps=(Heatmap(colors, {'layer': 'a', 'reduction': 'pca'}),))
    np.testing.assert_array_equal(tiles(scene_of(result))[1].tile((3, 3)), np.rint(colors * 255))


def test_a_batch_axis_left_on_is_explained():
    with pytest.raises(InputError, match=r'batch axis.*maps\[0\]'):
        scene_of(heatmaps(maps=(Heatmap(np.zeros((1, 7, 7), np.float32)),)))


def test_panels_have_the_photos_size_and_no_text():
    scenes = panel_scenes(heatmaps(columns=METHODS[:2]), Style())
    assert [name for name, _ in scenes] == ['input', 'GradCAM/espresso', 'GradCAM++/espresso']
    assert all((s.width, s.height) == (240, 160) and not s.texts for _, s in scenes)


@pytest.mark.parametrize('turned', [0.0, 0.3], ids=['upright', 'rotated'])
@pytest.mark.parametrize('missing', [False, True])
def test_a_large_panel_drawn_in_strips_is_the_panel_drawn_at_once(monkeypatch, turned, missing):
    size = 331, 470
    c, s = np.cos(turned), np.sin(turned)
    geometry = Geometry(np.array([[c, -s, 90], [s, c, 20], [0, 0, 1.0]]), (224, 224), size)
    values = np.random.default_rng(0).random((7, 7), np.float32)
    if missing:
        values[2, 3] = np.nan
    item = Heatmap(values, {'method': 'gradcam'})
    result = Heatmaps('cam', photo(224, 224), (item,), original=photo(*size), geometry=geometry)
    whole = [pixels for _, pixels in to_panels(result, Style())]
    monkeypatch.setattr('vistool.visualization.heatmaps._LARGE', 0)
    monkeypatch.setattr('vistool.data.display._STRIP', 7 * size[1])
    for expected, (_, pixels) in zip(whole, to_panels(result, Style()), strict=True):
        np.testing.assert_array_equal(pixels, expected)


def test_panels_leave_the_photo_alone():
    result = heatmaps(columns=METHODS[:1])
    before = result.image.copy()
    for _, pixels in to_panels(result, Style(view='network')):
        pixels[:] = 0
    np.testing.assert_array_equal(result.image, before)


def test_sheets_break_into_pages_with_titles_on_each():
    results = [heatmaps(columns=METHODS[:2], size=size) for size in [(160, 240), (240, 160), (100, 300)] * 4]
    style = Style(width='column')
    pages = sheet_scenes(results, style, style.page(True), tallest=200.0)
    assert len(pages) > 1 and sum(len(tiles(page)) for page in pages) == 36
    for page in pages:
        check_scene(page)
        assert page.height <= 200 and [t.text for t in page.texts if not t.vertical] == list(METHODS[:2])


def across(*results, **style):
    style = Style(sheet_images='columns', **style)
    return sheet_scenes(results, style, style.page(style.width not in (None, 'screen')))


def words(scene, vertical=False):
    return [item.text for item in scene.texts if item.vertical == vertical]


def test_images_may_be_the_columns_of_a_sheet():
    """Photos of several shapes: one height, the classes above them, a line for each method."""
    names = ('cat 0.9', 'dog 0.8', 'cup 0.7')
    results = [heatmaps((name,), METHODS[:2], size=size) for name, size in zip(names, SHAPES, strict=False)]
    (page,) = across(*results, width='text')
    check_scene(page)
    lines = lines_of_tiles(page)
    assert [len(line) for line in lines] == [3, 3, 3]
    assert len({round(item.box.height) for line in lines for item in line[:2]}) == 1
    assert words(page) == ['cat 0.90', 'dog 0.80', 'cup 0.70'] and words(page, vertical=True) == list(METHODS[:2])


def test_images_as_columns_break_into_blocks_that_name_their_rows():
    results = [heatmaps((f'class{number} 0.5',), METHODS[:2]) for number in range(10)]
    (page,) = across(*results, width='column')
    check_scene(page)
    blocks = len(lines_of_tiles(page)) // 3
    assert blocks > 1 and words(page, vertical=True) == list(METHODS[:2]) * blocks
    assert [text.split()[0] for text in words(page) if text.startswith('class')] == [f'class{n}' for n in range(10)]


def test_models_as_rows_and_images_with_a_wrong_prediction_as_columns():
    wrong = heatmaps(label=Target('cup', 1), prediction=Target('espresso', 2, score=0.951))
    (page,) = across(models(wrong, ('base', 'ours')), models(heatmaps(), ('base', 'ours')), width='text')
    assert words(page, vertical=True) == ['base', 'ours']
    assert [item.text for item in page.texts if item.color == RED] == ['GT: cup']
    assert words(page).count('espresso') == 1  # above the photo that is right


def test_a_sheet_of_columns_has_a_column_for_each_class_and_empty_places_for_missing_maps():
    both = heatmaps(CLASSES[:2], METHODS[:2])
    (page,) = across(both, heatmaps(columns=METHODS[:1]), width='text')
    assert [len(line) for line in lines_of_tiles(page)] == [3, 3, 2]


@pytest.mark.parametrize('images', ['rows', 'columns'])
def test_titles_of_the_user_are_those_of_the_sheet(images):
    results = [heatmaps((name,), METHODS[:2]) for name in ('cat 0.9', 'dog 0.8')]
    style = Style(width='text', sheet_images=images, row_titles=('first', 'second'), column_titles=('left', 'right'))
    (page,) = sheet_scenes(results, style, style.page(True))
    assert words(page, vertical=True) == ['first', 'second'] and words(page) == ['left', 'right']
    own = style.beside_sheet()
    assert own.column_titles == (('left', 'right') if images == 'rows' else ('first', 'second')) and not own.row_titles


def test_titles_of_the_user_are_those_of_a_figure():
    style = Style(width='text', row_titles=('A', 'B'), column_titles=('left', 'right'))
    scene = scene_of(heatmaps(CLASSES[:2], METHODS[:2]), style)
    assert words(scene, vertical=True) == ['A', 'B'] and words(scene) == ['left', 'right']
    alone = scene_of(heatmaps(columns=METHODS[:2]), Style(width='text', row_titles=('only',)))
    assert words(alone, vertical=True) == ['only']
    points = heatmaps(('10,10', '50,60'), (0, 1), kind='attention')
    points = replace(points, queries={'10,10': (10.0, 10.0), '50,60': (50.0, 60.0)})
    scene = scene_of(points, Style(width='text', row_titles=('eye', 'ear')))
    assert words(scene, vertical=True) == ['eye', 'ear'] and len(tiles(scene)) == 6  # a photo with a ring each


def test_titles_of_the_user_go_before_the_names_of_models():
    result = models(heatmaps(columns=METHODS[:2]), ('base', 'ours'))
    titles = tuple('abcd')
    said = words(scene_of(result, Style(width='text', column_titles=titles)))
    assert [word for word in said if word in titles] == list(titles)


@pytest.mark.parametrize(
    ('titles', 'said'),
    [
        ({'row_titles': ('a', 'b', 'c')}, r'3 titles for 2 rows: espresso 0.95, '),
        ({'column_titles': ('a',)}, r'1 title for 2 columns: GradCAM, '),
    ],
)
def test_titles_that_do_not_fit_are_refused_with_what_there_is(titles, said):
    with pytest.raises(InputError, match=said):
        scene_of(heatmaps(CLASSES[:2], METHODS[:2]), Style(**titles))


def test_titles_of_a_sheet_that_do_not_fit_are_refused():
    style = Style(sheet_images='columns', column_titles=('a', 'b', 'c'))
    with pytest.raises(InputError, match='3 titles for 2 columns: espresso 0.95, espresso 0.95'):
        sheet_scenes([heatmaps(), heatmaps()], style, style.page(False))


@pytest.mark.parametrize(
    ('size', 'canvas', 'inside'),
    [(80, (120, 80), (120, 80)), ((300, 100), (300, 100), (150, 100)), ((120, 200), (120, 200), (120, 80))],
)
def test_panels_of_a_given_size_keep_the_photos_shape(size, canvas, inside):
    """A height alone, a wide panel with white at its sides, a tall one with white above and below."""
    for name, panel in to_panels(heatmaps(), Style(panel_size=size)):
        assert panel.shape[1::-1] == canvas, name
        rows, columns = (np.flatnonzero((panel != 255).any((axis, 2))) for axis in (1, 0))
        assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == pytest.approx(inside, abs=2)


def test_gray_that_stands_in_for_a_photo_is_said():
    """A tensor alone has no photo; a photo that happens to be dark, or a file that is gray, has."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ).eval()
    result = CAM(['gradcam'], layers=['1'])(network, torch.rand(3, 32, 32))
    said = 'no photo given with the tensor, gray stands in for it'
    assert any(said in text for text in words(scene_of(result)))
    assert not any(said in text for text in words(scene_of(heatmaps())))
    known = replace(result, original=np.full((32, 32, 3), 128, np.uint8))
    assert not any(said in text for text in words(scene_of(known)))
    flat = replace(heatmaps(), image=np.full((96, 96, 3), 128, np.uint8), original=None, geometry=None)
    assert not any(said in text for text in words(scene_of(flat)))  # a photo that is exactly this gray


def test_pictures_of_a_dataset_take_the_size_of_panels_too():
    grid = ImageGrid(((GridImage(photo(20, 40)), GridImage(photo(30, 30))),), mode='original', provenance={})
    assert [panel.shape for _, panel in to_panels(grid, Style(panel_size=(64, 48)))] == [(48, 64, 3)] * 2
    assert [panel.shape for _, panel in to_panels(grid, Style())] == [(20, 40, 3), (30, 30, 3)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=5), min_size=1, max_size=4))
def test_grids_are_well_laid_out(shapes):
    texts = ('Resize', 'scale=(256, 256)'), ('tabby, tabby cat', '#7')
    rows = tuple(tuple(GridImage(photo(h, w), *texts) for h, w in row) for row in shapes)
    for width in ('column', 'screen', 500):
        scene = scene_of(ImageGrid(rows, 'train'), Style(width=width))
        check_scene(scene)
        wide = [w > 8 * h for row in shapes for h, w in row]  # those lie across their place
        heights = [item.box.height for item, thin in zip(scene.images, wide, strict=True) if not thin]
        assert heights == pytest.approx(heights[:1] * len(heights))


def test_wrong_labels_are_red_and_indices_too_small_to_read_are_left_out():
    rows = ((GridImage(photo(8, 8), footer=('cat',), wrong=True), GridImage(photo(8, 8), footer=('dog',))),)
    colors = {item.text: item.color for item in scene_of(ImageGrid(rows)).texts}
    assert colors['cat'] == RED != colors['dog']
    many = ImageGrid(tuple(tuple(GridImage(photo(8, 8), footer=('123',)) for _ in range(60)) for _ in range(2)))
    assert not scene_of(many, Style(width='column')).texts


@pytest.mark.parametrize('density', [1.0, 300 / 72, 0.7])
def test_painted_tiles_are_where_the_scene_says(density):
    scene = scene_of(heatmaps(columns=METHODS[:3]))
    canvas = raster.paint(scene, density)
    assert canvas.shape == (round(scene.height * density), round(scene.width * density), 3)
    box = tiles(scene)[0].box
    left, top = round(box.x * density), round(box.y * density)
    size = round(box.height * density), round(box.width * density)
    np.testing.assert_array_equal(canvas[top : top + size[0], left : left + size[1]], tiles(scene)[0].tile(size))
    assert (canvas[:, : max(1, round(5 * density))] == 255).all()


def test_a_result_is_not_changed_by_drawing():
    result = heatmaps(columns=METHODS[:2])
    before = result.image.copy(), result.original.copy(), result.maps[0].values.copy()
    raster.paint(scene_of(result), 1.0)
    for array, copy in zip((result.image, result.original, result.maps[0].values), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_many_channels_stand_in_a_square():
    maps = tuple(Heatmap(np.full((2, 2), i, np.float32), {'layer': 'g', 'channel': i}) for i in range(100))
    scene = scene_of(Heatmaps('feature', photo(32, 32), maps))
    check_scene(scene)
    lines = [len(line) for line in lines_of_tiles(scene)]
    assert lines == [11, *[10] * 9]


@pytest.mark.parametrize('size', [(500, 1), (1, 500), (1, 1), (2, 3000), (3000, 2)], ids=str)
@pytest.mark.parametrize('kind, count', [('cam', 1), ('cam', 12), ('feature', 40), ('attention', 5)])
def test_thin_photos_are_drawn_in_bounded_pictures(size, kind, count):
    drawn = heatmaps(columns=tuple(map(str, range(count))), kind=kind, size=size, crop=1)
    for width in (None, 'column', 300):
        scene = scene_of(drawn, Style(width=width))
        assert 0 < scene.width <= 2000 and 0 < scene.height <= 12000
        assert all(min(item.box.width, item.box.height) >= 1 for item in scene.images)
        assert raster.paint(scene, 1.0).size


def test_a_thin_photo_leaves_its_neighbors_in_a_sheet_their_size():
    usual = [heatmaps(columns=METHODS[:2], size=(160, 200)) for _ in range(3)]
    for thin in ((2, 3000), (3000, 2)):
        odd = heatmaps(columns=METHODS[:2], size=thin, crop=2)
        style = Style()
        (alone,), (mixed,) = (
            sheet_scenes(results, style, style.page(False)) for results in (usual, [*usual[:2], odd, usual[2]])
        )
        before, after = (max(item.box.height for item in scene.images) for scene in (alone, mixed))
        assert after >= 0.6 * before


@pytest.mark.parametrize('style', [Style(width=16384), Style(width='text', dpi=2400), Style(width=4000, dpi=600)])
def test_a_picture_too_large_for_memory_is_refused_before_it_is_painted(style):
    vector = style.width != 16384
    scene = Scene(6.0 * style.page(vector).width, 9.0 * style.page(vector).width, ())
    with pytest.raises(InputError, match='accepted: at most 65,500 a side and 178 million in all; .*width.*dpi'):
        raster.paint(scene, style.page(vector).density)
    with pytest.raises(InputError, match='178 million'):
        figure(scene, style.page(vector))


@pytest.mark.parametrize('shape', [(5, 7), (5, 7, 3)])
def test_nearest_enlargement_takes_the_pixel_below_each_center(shape):
    values = np.random.default_rng(0).random(shape).astype(np.float32)
    found = raster.resize_map(values, (23, 31), 'nearest')
    rows, columns = (np.arange(23) + 0.5) * 5 // 23, (np.arange(31) + 0.5) * 7 // 31
    np.testing.assert_array_equal(found, values[rows.astype(int)][:, columns.astype(int)])
    assert found.flags.c_contiguous


def test_the_photo_that_images_are_compared_with_stands_beside_the_input():
    result = replace(heatmaps(), reference=np.zeros((20, 60, 3), np.uint8))
    scene = scene_of(result, Style(width='text'))
    assert 'reference' in [item.text for item in scene.texts]
    assert len(list(tiles(scene))) == len(list(tiles(scene_of(heatmaps(), Style(width='text'))))) + 1


def test_steps_of_a_pipeline_are_named_once():
    def row(*steps):
        return tuple(GridImage(photo(20, 20), coordinates=Coordinates(step=step)) for step in steps)

    same = ImageGrid((row('original', 'Flip'), row('original', 'Flip')), mode='pipeline', provenance={})
    texts = [item.text for item in scene_of(same).texts]
    assert texts.count('Flip') == texts.count('original') == 1 and texts.count('20×20') == 4
    other = ImageGrid((row('original', 'Flip'), row('original', 'Crop')), mode='pipeline', provenance={})
    assert [item.text for item in scene_of(other).texts].count('original') == 2


def maps_and_input(scene: Scene):
    """The lines of maps, each as the middles of its tiles across, and the box of the input."""
    photo, *maps = (item.box for item in tiles(scene))
    lines = {}
    for box in maps:
        lines.setdefault(round(box.y + box.height / 2, 1), []).append(round(box.x + box.width / 2, 1))
    return lines, photo


def check_no_blank(scene: Scene) -> None:
    """Maps fill a rectangle, or one with the input; else that stands in the middle, beside or above all of them."""
    lines, photo = maps_and_input(scene)
    middle = round(photo.y + photo.height / 2, 1), round(photo.x + photo.width / 2, 1)
    within = {row: sorted([*columns, *([middle[1]] if row == middle[0] else [])]) for row, columns in lines.items()}
    if len({tuple(columns) for columns in within.values()}) == 1:
        return  # one flow, the input among the maps
    assert len({tuple(columns) for columns in lines.values()}) == 1
    columns, rows = next(iter(lines.values())), sorted(lines)
    beside = photo.right < columns[0] and middle[0] == pytest.approx((rows[0] + rows[-1]) / 2, abs=1)
    assert beside or (photo.bottom < rows[0] and columns[0] < middle[1] < columns[-1])


@pytest.mark.parametrize(
    ('size', 'width'), [((160, 240), 'column'), ((240, 160), 'column'), ((200, 200), '5.5in')], ids=str
)
def test_no_place_of_a_comparison_is_blank(size, width):
    """One to five models, one to four methods or stages, one to three classes, with and without differences."""
    names, stages = ('base', 'ours', 'ours-large', 'random', 'fifth'), [f'stage {i}' for i in range(1, 5)]
    for count, each in itertools.product(range(2, 6), range(1, 5)):
        for classes in range(1, 4):
            result = models(heatmaps(CLASSES[:classes], METHODS[:each], size=size), names[:count])
            check_no_blank(scene := scene_of(result, Style(width=width)))
            assert min(item.box.width for item in tiles(scene)) >= 40 - 1e-6
        for difference in (False, True):
            feature = heatmaps(('a',), stages[:each], 'feature')
            check_no_blank(scene_of(models(feature, names[:count], difference), Style(width=width)))
        check_no_blank(
            scene_of(models(heatmaps(columns=range(each), kind='attention'), names[:count]), Style(width=width))
        )


def test_a_size_too_long_for_its_tile_is_broken_and_not_left_out():
    maps = tuple(
        Heatmap(np.eye(4, dtype=np.float32), {'layer': name, 'reduction': 'mean'}, Layer(name, number, (16, 112, 112)))
        for number, name in enumerate(('a', 'b', 'c', 'd', 'e'), 1)
    )
    scene = scene_of(heatmaps(kind='feature', maps=maps), Style(width='column'))
    check_scene(scene)
    assert ''.join(words(scene)).count('112×112×16') == 5 and [len(line) for line in lines_of_tiles(scene)] == [3, 3]


def test_input_and_mean_stand_in_the_middle_above_heads_that_need_the_whole_width():
    heads = heatmaps(columns=('mean', *range(12)), kind='attention', size=(96, 96))
    first, second, _ = lines_of_tiles(scene_of(heads, Style(width='column')))
    assert first[0].box.x - second[0].box.x == pytest.approx(second[-1].box.right - first[-1].box.right)


def test_an_input_with_words_above_it_stands_in_the_middle_of_its_lines():
    """A wrong prediction in red above the photo; where the lines are too low for the words, above the first of them."""
    wrong = {'label': Target('tea', 1), 'prediction': Target('espresso', 2, score=0.9)}
    scene = scene_of(models(heatmaps(CLASSES[:2], **wrong), ('base', 'ours')), Style(width='column'))
    check_scene(scene)
    photo, first, second = (lines_of_tiles(scene)[place][at].box for place, at in ((0, 0), (0, 1), (1, 0)))
    assert photo.y + photo.bottom == pytest.approx(first.y + second.bottom)
    low = scene_of(models(heatmaps(CLASSES[:2], size=(20, 400), **wrong), ('base', 'ours')), Style(width='column'))
    check_scene(low)
    assert [item.text for item in low.texts if item.color == RED] == ['GT: tea']


def test_rows_with_rings_of_their_own_keep_their_inputs_beside_their_lines():
    result = heatmaps(('a', 'b'), (0, 1), 'attention', queries={'a': (80.0, 50.0), 'b': (100.0, 60.0)})
    scene = scene_of(side_by_side([result, result], ('base', 'ours')), Style(width='column'))
    check_scene(scene)
    lines = lines_of_tiles(scene)
    assert [len(line) for line in lines] == [3, 2, 3, 2]
    for above, below in (lines[:2], lines[2:]):
        assert above[0].box.y + above[0].box.bottom == pytest.approx(above[1].box.y + below[0].box.bottom)


def test_tiles_of_a_broken_row_that_do_not_fill_the_last_line_stand_in_its_middle():
    scene = scene_of(heatmaps(columns=tuple(f'M{number}' for number in range(13))), Style(width='column'))
    check_scene(scene)
    *_, above, last = lines_of_tiles(scene)
    assert len(last) < len(above)
    assert last[0].box.x - above[0].box.x == pytest.approx(above[-1].box.right - last[-1].box.right)
