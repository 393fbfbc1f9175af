"""vis_cam on the demo's detector and segmenter, as the documentation shows it."""

import json
from pathlib import Path

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


def test_a_dataset_tells_hits_and_where_the_evidence_should_be(tmp_path):
    words = ['@val', DETECTOR, '--instances', 'all', '--metrics', 'energy', 'pointing', '--indices', '4', '5']
    assert main([*words, '--save-raw', '-o', str(tmp_path)]) == 0
    entry = json.loads((tmp_path / 'manifest.jsonl').read_text().splitlines()[-1])
    kinds = {each['number']: each['kind'] for each in entry['instances']}
    assert kinds == {0: 'true positive', 1: 'true positive', 2: 'false positive'}
    assert all(each['iou'] > 0.9 for each in entry['instances'][:2])
    (raw,) = tmp_path.glob('*scene_5*.npz')
    values = np.load(raw)['maps_0']
    record = json.loads(Path('demo/scenes/scenes.json').read_text())
    boxes = [each['bbox'] for each in record['annotations'] if each['image_id'] == 5]
    for number, measured in enumerate(entry['metrics'][:2]):
        left, top, width, height = map(
            int, min(boxes, key=lambda box: abs(box[0] - entry['instances'][number]['box'][0]))
        )
        inside = values[number, top : top + height, left : left + width]
        assert measured['energy'] == pytest.approx(inside.sum() / values[number].sum(), abs=1e-5)
    assert entry['metrics'][2]['energy'] is None  # a false positive is not an object


def test_the_score_of_a_prediction_and_of_a_region_is_measured(tmp_path):
    for config, words in ((DETECTOR, ['--instances', 'top1']), (SEGMENTER, ['--method', 'hirescam'])):
        out = tmp_path / f'{len(words)}{words[-1]}.png'
        words = ['demo/scenes/scene_3.jpg', config, *words, '--metrics', 'deletion', '--save-raw', '-o', str(out)]
        assert main(words) == 0
        recipe = json.loads(str(np.load(out.with_suffix('.npz'))['recipe']))
        assert recipe['protocol']['scored'] in ('IoU · score of the same object', 'mean probability over the region')


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
        ([DETECTOR, '--metrics', 'sensitivity'], '--metrics'),
        ([DETECTOR, '--aug-smooth'], '--aug-smooth'),
        ([DETECTOR, '--score-sign', '-'], '--score-sign'),
        ([DETECTOR, '--reference', 'demo/scenes/scene_1.jpg'], '--reference'),
        ([DETECTOR, '--point', '30,50'], '--point'),
        ([DETECTOR, '--compare', SEGMENTER], '--compare'),
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
