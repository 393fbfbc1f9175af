import json

import numpy as np
import pytest
from vistool.tools.vis_cam import main

import vistool as vt
from vistool.jobs.comparison import labels, side_by_side
from vistool.models import Model
from vistool.results import Heatmap, Heatmaps

CONFIG = 'configs/efficientnet_lite/efficientnet-lite0_in1k.py'


def result(score, size=8, columns=('GradCAM',)):
    maps = tuple(
        Heatmap(np.full((size, size), score, np.float32), f'{column}/{row}', 'layer', f'{row} {score:.2f}', column)
        for row in ('cat', 'cup')
        for column in columns
    )
    return Heatmaps('cam', np.zeros((size, size, 3), np.uint8), maps, recipe={'model': score})


def test_models_stand_beside_each_other_with_their_own_scores():
    both = side_by_side([result(0.9), result(0.2)], ['base', 'ours'])
    assert both.rows == ('cat', 'cup') and both.columns == ('base', 'ours')
    assert [item.footer for item in both.maps] == ['cat 0.90', 'cat 0.20', 'cup 0.90', 'cup 0.20']
    assert both.maps[0].view is None and both.maps[1].view is not None
    assert both.recipe['compare'] == [{'model': 0.2}]


def test_several_methods_keep_their_models_together():
    both = side_by_side([result(0.9, columns=('A', 'B')), result(0.2, columns=('A', 'B'))], ['base', 'ours'])
    assert both.columns == ('A · base', 'A · ours', 'B · base', 'B · ours')


def test_maps_of_another_size_have_a_group_of_their_own():
    both = side_by_side([result(0.9, 8), result(0.2, 4)], ['base', 'ours'])
    groups = {item.group for item in both.maps}
    assert len(groups) == 2


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
    again = cam.follow(first, model)(model, model.read('demo/chelsea.png'))
    assert again.recipe['targets'][0]['id'] == 967
