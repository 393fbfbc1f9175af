import json
from dataclasses import replace

import numpy as np
import pytest

import vistool as vt
from vistool.commands.vis_cam import main
from vistool.models.model import Model
from vistool.results import Heatmap, Heatmaps, Layer, Target, side_by_side
from vistool.runs.comparison import labels
from vistool.visualization.color_mapping import map_colors
from vistool.visualization.facets import facets
from vistool.visualization.style import Style

CONFIG = 'configs/efficientnet_lite/efficientnet-lite0_in1k.py'


def result(score, size=8, columns=('GradCAM',)):
    maps = tuple(
        Heatmap(np.full((size, size), score, np.float32), {'method': column, 'layer': 'l', 'target': row}, score=score)
        for row in ('cat', 'cup')
        for column in columns
    )
    targets = tuple(Target(name, score=score) for name in ('cat', 'cup'))
    return Heatmaps('cam', np.zeros((size, size, 3), np.uint8), maps, targets=targets, provenance={'model': score})


def test_models_stand_beside_each_other_with_their_own_scores():
    both = side_by_side([result(0.9), result(0.2)], ['base', 'ours'])
    shown = facets(both)
    assert shown.rows == ('cat', 'cup') and shown.columns == ('base', 'ours')
    assert [tile.footer for tile in shown.tiles] == ['cat 0.90', 'cat 0.20', 'cup 0.90', 'cup 0.20']
    assert both['ours', 'cup'].score == 0.2 and both.coordinates['model'] == ('base', 'ours')
    assert both.maps[0].view is None and both.maps[1].view is not None
    assert both.provenance['compare'] == [{'model': 0.2}]


def test_several_methods_keep_their_models_together():
    both = side_by_side([result(0.9, columns=('A', 'B')), result(0.2, columns=('A', 'B'))], ['base', 'ours'])
    assert facets(both).columns == ('A · base', 'A · ours', 'B · base', 'B · ours')


def test_maps_of_another_size_have_a_group_of_their_own():
    both = side_by_side([result(0.9, 8), result(0.2, 4)], ['base', 'ours'])
    groups = {tile.group for tile in facets(both).tiles}
    assert len(groups) == 2


def heads(size, level, count=2, queries=None):
    maps = tuple(
        Heatmap(
            np.full((size, size), level, np.float32),
            {'layer': f'blocks.{number}', 'query': '(1, 2)', 'head': head},
            Layer(f'blocks.{number}', number),
        )
        for number in (3, 9)
        for head in ('mean', *range(count))
    )
    return Heatmaps('attention', np.zeros((8, 8, 3), np.uint8), maps, queries=queries or {})


def test_heads_stay_in_columns_and_models_stand_below_each_other():
    both = side_by_side([heads(4, 0.1, 2, {'(1, 2)': (1, 2)}), heads(4, 0.2, 3)], ['base', 'ours'])
    shown = facets(both)
    assert shown.rows == ('layer 3 · base', 'layer 3 · ours', 'layer 9 · base', 'layer 9 · ours')
    assert shown.columns == ('mean', 'head 0', 'head 1', 'head 2')  # of which base has none
    assert shown.points == dict.fromkeys(shown.rows, (1, 2))
    assert all(tile.footer == '' for tile in shown.tiles)
    names = [(tile.group, tile.name) for tile in shown.tiles]
    assert len(set(names)) == len(names) == 14


@pytest.mark.parametrize(('size', 'brightest'), [(4, [0.5, 1]), (2, [1, 1])])
def test_attention_of_two_models_shares_a_scale_where_the_grids_are_equal(size, brightest):
    both = side_by_side([heads(4, 0.1), heads(size, 0.2)], ['base', 'ours'])
    mappings = map_colors(both, Style())
    rows = [tile.row for tile in facets(both).tiles]
    shown = {row: mapping.values.max() for row, mapping in zip(rows, mappings, strict=True)}
    assert [shown['layer 9 · base'], shown['layer 9 · ours']] == pytest.approx(brightest)
    each = map_colors(both, Style(scale='each'))
    assert all(mapping.values.max() == 1 for mapping in each)


def test_layers_of_different_names_are_compared_by_position():
    other = heads(4, 0.2)
    moved = [replace(item.at(layer=f'layers.{item.layer.number}'), layer=Layer('layers.0', 0)) for item in other]
    both = side_by_side([heads(4, 0.1), replace(other, maps=tuple(moved))], ['base', 'ours'])
    assert both.coordinates['layer'] == ('blocks.3', 'blocks.9')
    assert both['ours', 'blocks.3', 'mean'].layer.name == 'layers.0'
    assert facets(both).rows[1] == 'layer 3 · ours'  # as the first model counts


def test_models_of_one_name_stay_apart():
    both = side_by_side([result(0.9), result(0.2)], ['none', 'none'])
    assert both.coordinates['model'] == ('none', 'none (2)')


def test_labels_tell_checkpoints_apart_where_names_do_not():
    first, second = Model(None, 'swin'), Model(None, 'vit')
    assert labels([first, second]) == ['swin', 'vit']
    assert labels([first, first]) == ['none', 'none']


@pytest.mark.parametrize('extra', [[], ['--method', 'gradcam', 'layercam', '--target-category', '281', 'espresso']])
def test_the_command_line(tmp_path, extra):
    argv = ['demo/coffee.png', CONFIG, '--compare', CONFIG, 'none', '--save-raw', *extra]
    assert main([*argv, '-o', str(tmp_path / 'x.png')]) == 0
    recipe = json.loads(str(np.load(tmp_path / 'x.npz')['recipe']))
    assert recipe['checkpoint'] == 'demo://efficientnet-lite0' and recipe['compare'][0]['checkpoint'] is None
    ids = [target['id'] for target in recipe['targets']]
    assert [target['id'] for target in recipe['compare'][0]['targets']] == ids  # the same classes, not the other's own


def test_three_words_after_compare_are_too_many(capsys):
    assert main(['demo/coffee.png', CONFIG, '--compare', CONFIG, 'none', 'more']) == 2
    assert '--compare' in capsys.readouterr().err


def test_a_dataset_of_the_config_tells_ground_truth(tmp_path, capsys):
    config = 'configs/efficientnet_lite/efficientnet-lite0_demo.py'
    assert main(['@val', config, '-o', str(tmp_path), '--save-raw']) == 0
    recipes = [json.loads(str(np.load(path)['recipe'])) for path in sorted(tmp_path.rglob('*.npz'))]
    assert [recipe['label'] for recipe in recipes] == [281, 281, 657, 657, 967, 967]
    assert main(['@vall', config]) == 2
    assert '@val' in capsys.readouterr().err


def test_from_python_the_same_classes_are_followed():
    model = vt.load(CONFIG)
    cam = vt.CAM(targets=['espresso'])
    first = cam(model, model.read('demo/coffee.png'))
    again = cam.follow([first], model)(model, model.read('demo/chelsea.png'))
    assert again.targets[0].id == 967
