"""vis_attention as a user runs it, on real weights where a picture has to mean something."""

import csv
import json
import re

import numpy as np
import pytest
from command_line import files, runner
from PIL import Image

from vistool.commands.vis_attention import main

run = runner(main)
DINO = 'configs/dinov2/vit-small-p14_dinov2-pre_headless.py'
TINY = 'configs/deit/deit-tiny_4xb256_in1k.py'
SWIN = 'configs/swin_transformer/swin-tiny_16xb64_in1k.py'
ASTRONAUT = 'demo/astronaut.png'


def share(values, box):
    """The share of a map that lies in a box given in fractions (left, top, right, bottom)."""
    height, width = values.shape[-2:]
    left, top, right, bottom = box
    inside = values[..., round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
    return inside.sum((-1, -2)) / values.sum((-1, -2))


def test_the_person_is_on_most_heads(capsys, tmp_path):
    code, out, _ = run(capsys, ASTRONAUT, DINO, '--save-raw', '-o', tmp_path / 'x.png')
    assert code == 0 and out.split() == [str(tmp_path / 'x.png'), str(tmp_path / 'x.npz')]
    raw = np.load(tmp_path / 'x.npz', allow_pickle=False)
    assert raw['groups'].tolist() == ['backbone.layers.11.attn']
    assert raw['names_0'].tolist() == ['mean', *(f'head {n}' for n in range(6))]
    maps = raw['maps_0']
    assert maps.shape == (7, 37, 37) and maps.dtype == np.float32
    np.testing.assert_allclose(maps[0], maps[1:].mean(0), atol=1e-8)
    person = share(maps, (0.2, 0.03, 0.68, 0.7))  # head, collar and chest, a box drawn by hand: 32 % of the photo
    assert (person[1:] > 0.6).sum() >= 5
    recipe = json.loads(str(raw['recipe']))
    assert recipe['layers'][0]['residual'] < 1e-4 and recipe['queries'] == ['CLS']
    (mass,) = recipe['mass']
    assert mass['image'] + sum(mass['prefix']) == pytest.approx(1, abs=1e-5)


def test_queries_look_where_they_are(capsys, tmp_path):
    run(
        capsys,
        ASTRONAUT,
        DINO,
        '--query',
        '225,110',
        '30,200',
        '--img-size',
        '300,411',
        '--save-raw',
        '-o',
        tmp_path / 'x.png',
    )
    raw = np.load(tmp_path / 'x.npz', allow_pickle=False)
    assert raw['image'].shape == (294, 406, 3) and raw['maps_0'].shape == (14, 21, 29)
    face, flag = raw['maps_0'][0], raw['maps_0'][7]
    assert share(face, (0.3, 0.05, 0.6, 0.4)) > 0.6 > share(flag, (0.3, 0.05, 0.6, 0.4))


@pytest.mark.parametrize(('fit', 'size'), [('crop', (294, 392)), ('pad', (308, 406)), ('resize', (294, 406))])
def test_sizes_that_are_no_multiple(capsys, tmp_path, fit, size):
    options = ['--img-size', '300x400', '--fit', fit, '--save-raw']
    assert run(capsys, ASTRONAUT, DINO, *options, '-o', tmp_path / 'x.png')[0] == 0
    raw = np.load(tmp_path / 'x.npz', allow_pickle=False)
    assert raw['image'].shape[:2] == size and raw['maps_0'].shape[1:] == (size[0] // 14, size[1] // 14)


def test_threshold(capsys, tmp_path):
    run(capsys, ASTRONAUT, TINY, 'none', '--threshold', '0.6', '--save-raw', '-o', tmp_path / 'x.png')
    raw = np.load(tmp_path / 'x.npz', allow_pickle=False)
    maps, masks = raw['maps_0'][:4], raw['maps_0'][4:]
    assert raw['names_0'].tolist()[4:] == ['mean/60%', 'head 0/60%', 'head 1/60%', 'head 2/60%']
    for values, mask in zip(maps, masks, strict=True):
        inside = values[mask > 0]
        assert inside.sum() >= 0.6 * values.sum() > inside.sum() - inside.min() - 1e-6
        assert inside.min() >= values[mask == 0].max()


def test_statistics(capsys, tmp_path):
    code, out, _ = run(capsys, ASTRONAUT, TINY, 'none', '--stats', '--save-raw', '-o', tmp_path / 'x.png')
    assert code == 0 and [line.rpartition('/')[2] for line in out.split()] == [
        'x.png',
        'x.npz',
        'x_stats.png',
        'x_stats.csv',
    ]
    with open(tmp_path / 'x_stats.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 * 3
    for row in rows:
        assert 0 < float(row['entropy']) <= np.log(197) + 1e-6 and 0 < float(row['distance']) < 224 * 2**0.5
        assert 0 < float(row['cls']) < 1 and float(row['prefix']) == float(row['padding']) == 0


@pytest.mark.parametrize(
    'options',
    [
        ['--layers', '-2', '0:2', 'backbone.layers[5]', '--heads', 'mean', '1', 'max'],
        ['--query', 'cls', 'mean', '7', '--overlay'],
        ['--method', 'rollout', '--query', '200,200'],
        ['--method', 'grad-rollout', '--target-category', 'top2'],
        ['--method', 'legrad', '--target_category', '3', '--threshold', '0.5'],
        ['--layout', 'overlay', '--heads', 'mean'],
        ['--compare', TINY, 'none', '--width', 'column'],
    ],
)
def test_options(capsys, tmp_path, options):
    code, out, err = run(capsys, ASTRONAUT, TINY, 'none', '-o', tmp_path, *options)
    assert code == 0, err
    for path in out.splitlines():
        with Image.open(path) as image:
            image.load()


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['configs/efficientnet_lite/efficientnet-lite0_in1k.py'], 'vis_cam'),
        ([TINY, 'none', '--layers', '12'], '0 to 11'),
        ([TINY, 'none', '--layers', '-13'], '-12 to -1'),
        ([TINY, 'none', '--layers', 'backbone.ln1'], 'runs no attention'),
        ([TINY, 'none', '--layers', 'backbone.layerz'], 'did you mean'),
        ([TINY, 'none', '--heads', '3'], '0 to 2'),
        ([TINY, 'none', '--heads', 'some'], 'mean, max'),
        ([TINY, 'none', '--query', '512,3'], 'outside the photo.*0 to 511'),
        ([TINY, 'none', '--query', '-5,3'], 'outside the photo'),
        ([TINY, 'none', '--query', '5,3'], 'crops it away'),
        ([TINY, 'none', '--query', '197'], '197 queries'),
        ([TINY, 'none', '--query', 'face'], 'cls, mean'),
        ([SWIN, 'none', '--query', 'cls'], 'no class token'),
        ([SWIN, 'none', '--method', 'rollout'], 'accepted: raw'),
        ([DINO, '--method', 'legrad'], 'no classification head'),
        ([DINO, '--method', 'grad-rollout'], 'no classification head'),
        ([TINY, 'none', '--method', 'rolout'], 'did you mean rollout'),
        ([TINY, 'none', '--target-category', '3'], 'legrad'),
        ([TINY, 'none', '--threshold', '1.5'], 'above 0'),
        ([TINY, 'none', '--img-size', '8'], 'smaller than a patch'),
        ([TINY, 'none', '--img-size', 'big'], '0.5x'),
        ([TINY, 'none', '--fit', 'squeeze'], 'crop, pad, resize'),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(capsys, tmp_path, argv, message):
    code, out, err = run(capsys, ASTRONAUT, *argv, '-o', tmp_path / 'out.png')
    last = err.strip().splitlines()[-1]
    assert code == 2 and out == '' and last.startswith('error: ') and re.search(message, last), last
    assert 'Traceback' not in err and not files(tmp_path)


def test_metrics_of_a_class_stand_in_the_raw_file_and_the_manifest(capsys, tmp_path):
    words = [TINY, 'none', '--method', 'legrad', '--metrics', 'drop', 'sparse', '--protocol', 'torchcam']
    code, _, _ = run(capsys, 'demo/c*.png', *words, '--save-raw', '-o', tmp_path / 'x')
    raw = np.load(next((tmp_path / 'x').glob('coffee*.npz')), allow_pickle=False)
    assert code == 0 and raw['metric_names'].tolist() == ['drop', 'sparseness'] and raw['metrics_0'].shape == (1, 2)
    entries = [json.loads(line) for line in (tmp_path / 'x' / 'manifest.jsonl').read_text().splitlines()]
    assert sum('metrics' in entry for entry in entries) == 2 and (tmp_path / 'x' / 'metrics.csv').exists()
    code, _, err = run(capsys, ASTRONAUT, TINY, 'none', '--metrics', 'drop', '-o', tmp_path / 'y.png')
    assert code == 2 and err.startswith('error: --metrics: metrics are measured of maps of a class, and raw is')
    code, _, err = run(capsys, ASTRONAUT, *words, '--iou-threshold', '0', '-o', tmp_path / 'y.png')
    assert code == 2 and err.startswith('error: --iou-threshold: no metric takes it; accepted: iou among --metrics')
