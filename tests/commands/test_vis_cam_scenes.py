"""vis_cam on the demo's detector and segmenter, as the documentation shows it."""

import json

import numpy as np
import pytest

import vistool as vt
from vistool.commands.vis_cam import main

DETECTOR, SEGMENTER = 'configs/scenes/detector.py', 'configs/scenes/segmenter.py'


def test_predictions_of_a_photo_are_drawn_and_their_numbers_written(tmp_path, capsys):
    words = [
        'demo/scenes/scene_3.jpg',
        DETECTOR,
        '--instances',
        'top2',
        '--attribute',
        'class',
        'left',
        '--scale',
        'box',
    ]
    assert main([*words, '-o', str(tmp_path / 'maps.png'), '--save-raw']) == 0
    assert (tmp_path / 'maps.png').stat().st_size > 10_000
    raw = np.load(tmp_path / 'maps.npz')
    recipe = json.loads(str(raw['recipe']))
    assert [each['name'] for each in recipe['predictions']][:2] == ['circle', 'circle']
    assert recipe['methods'] == ['HiResCAM']
    assert list(raw['names_0']) == [f'hirescam/#{n} circle{edge}' for n in (0, 1) for edge in ('', ', left edge')]


def test_a_box_and_a_class_choose_the_prediction(tmp_path):
    words = ['demo/scenes/scene_3.jpg', DETECTOR, '--target-category', 'square', '--box', '8,30,56,78']
    assert main([*words, '--verify', '-o', str(tmp_path / 'maps.png')]) == 0


def test_a_folder_of_scenes_and_its_gallery(tmp_path):
    assert main(['demo/scenes/scene_?.jpg', DETECTOR, '--instances', 'top1', '-o', str(tmp_path), '--gallery']) == 0
    entries = [json.loads(line) for line in (tmp_path / 'manifest.jsonl').read_text().splitlines()]
    assert len(entries) == 6 and all(not entry['error'] for entry in entries)
    assert (tmp_path / 'scene_0_hirescam.png').exists()


@pytest.mark.parametrize('words', [['--target-category', 'square'], ['--point', '30,50'], []])
def test_regions_of_a_segmentation(words, tmp_path):
    assert main(['demo/scenes/scene_3.jpg', SEGMENTER, *words, '-o', str(tmp_path / 'maps.png')]) == 0


def test_a_mask_file_is_a_region(tmp_path):
    words = ['demo/scenes/scene_3.jpg', SEGMENTER, '--region', 'demo/scenes/scene_3_mask.png']
    assert main([*words, '-o', str(tmp_path / 'maps.png')]) == 0


def test_the_energy_of_each_map_of_the_fitted_detector_lies_in_its_box():
    """Chance is the box's share of the image, 5 % on average."""
    model = vt.load(DETECTOR)
    shares, chances = [], []
    for number in range(6):
        result = vt.CAM(instances='all')(model, model.read(f'demo/scenes/scene_{number}.jpg'))
        for item in result:
            left, top, right, bottom = (round(edge) for edge in result.instance(item).seen)
            inside = item.values[max(top, 0) : bottom, max(left, 0) : right]
            shares.append(inside.sum() / item.values.sum())
            chances.append(inside.size / item.values.size)
    assert len(shares) >= 12
    assert np.mean(shares) > 6 * np.mean(chances)
    assert np.mean([share > 2 * chance for share, chance in zip(shares, chances, strict=True)]) > 0.9


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--score-thr', '0.999'], '--score-thr: detector predicts nothing with a score of at least 0.999 here'),
        (['--box', '1,2'], '--box: 1,2 is not a box'),
        (['--box', 'a,b'], '--box'),
        (['--attribute', 'width'], "--attribute: unknown attribute 'width'"),
        (['--instances', '77'], '--instances: no prediction 77'),
    ],
)
def test_bad_choices_are_one_line(words, message, tmp_path, capsys):
    assert main(['demo/scenes/scene_3.jpg', DETECTOR, *words, '-o', str(tmp_path / 'maps.png')]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ('words', 'option'),
    [
        ([DETECTOR, '--metrics', 'insertion'], '--metrics'),
        ([DETECTOR, '--aug-smooth'], '--aug-smooth'),
        ([DETECTOR, '--score-sign', '-'], '--score-sign'),
        ([DETECTOR, '--reference', 'demo/scenes/scene_1.jpg'], '--reference'),
        ([DETECTOR, '--point', '30,50'], '--point'),
        ([DETECTOR, '--compare', DETECTOR], '--compare'),
        ([SEGMENTER, '--verify'], '--verify'),
        ([SEGMENTER, '--instances', 'all'], '--instances'),
        ([SEGMENTER, '--box', '8,30,56,78'], '--box'),
        ([SEGMENTER, '--aug-smooth'], '--aug-smooth'),
    ],
)
def test_an_option_that_means_nothing_for_the_network_is_refused(words, option, tmp_path, capsys):
    config, *more = words
    assert main(['demo/scenes/scene_3.jpg', config, *more, '-o', str(tmp_path / 'maps.png')]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error')]
    assert len(lines) == 1 and lines[0].startswith(f'error: {option}: ')
    assert not list(tmp_path.iterdir())
