"""What changed between two runs: the measures against naive ones, rules, files, and what is noise and what is not."""

import json
import shutil
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from command_line import runner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from PIL import Image
from scipy.stats import spearmanr

import vistool as vt
from vistool.commands.vis_diff import main
from vistool.data.geometry import Geometry, crop, resize
from vistool.errors import InputError
from vistool.results import Heatmap, Heatmaps, Layer, NetworkView
from vistool.runs.difference_files import counts, worst, write_difference
from vistool.runs.differences import (
    ImageDifference,
    MapPair,
    RunDifference,
    _score_change,
    compare_runs,
    measure,
)
from vistool.runs.verdicts import Rule, default_rules, judge
from vistool.visualization.files import heatmaps_npz
from vistool.visualization.style import Style, lookup_table

diff = runner(main)
SMALL = ('mmpretrain::resnet/resnet18_8xb16_cifar10.py', 'none')
UNIT = arrays_of.arrays(np.float32, (5, 5), elements=st.sampled_from(np.linspace(0, 1, 21, dtype=np.float32).tolist()))


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photos')
    rng = np.random.default_rng(0)
    for number in range(4):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
        coarse.resize((48, 40)).save(folder / f'{number}.png')
    return folder


def run(photos, out, model=None, **options):
    model = model or vt.load(*SMALL)
    vt.run(model, photos, vt.CAM(['gradcam'], targets=[3]), out=out, save_raw=True, **options)
    return out


@pytest.fixture(scope='module')
def before(photos, tmp_path_factory):
    return run(photos, tmp_path_factory.mktemp('runs') / 'before')


def perturbed(number, size=0.01):
    """The network with one layer's weights moved by normal noise of this size, relative to each weight."""
    model = vt.load(*SMALL)
    layers = [parameter for parameter in model.module.parameters() if parameter.ndim > 1]
    generator = torch.Generator().manual_seed(number)
    with torch.no_grad():
        weight = layers[number % len(layers)]
        weight.mul_(1 + size * torch.randn(weight.shape, generator=generator))
    return model


def fails(before, after):
    found = compare_runs(before, after)
    return any(verdict.failed for verdict in judge(found, default_rules(found)))


def naive(one, other):
    """The measures as the docs state them, position by position."""
    order_one, order_other = sorted(one.ravel()), sorted(other.ravel())
    threshold_one, threshold_other = order_one[int(0.8 * (one.size - 1))], order_other[int(0.8 * (other.size - 1))]
    inside = outside = 0
    for y in range(one.shape[0]):
        for x in range(one.shape[1]):
            both = one[y, x] > threshold_one, other[y, x] > threshold_other
            inside, outside = inside + all(both), outside + (any(both) and not all(both))
    total_one, total_other = sum(one.ravel().tolist()), sum(other.ravel().tolist())
    moved = sum(
        abs(a / total_one - b / total_other) for a, b in zip(one.ravel().tolist(), other.ravel().tolist(), strict=True)
    )
    return inside / (inside + outside) if inside + outside else 1.0, moved / 2


@settings(max_examples=60, deadline=None)
@given(UNIT, UNIT)
def test_measures_equal_naive_ones(one, other):
    found = measure(one, other)
    if one.any() and other.any():
        iou, mass = naive(one, other)
        assert found['iou'] == pytest.approx(iou) and found['mass'] == pytest.approx(mass, abs=1e-6)
    if np.ptp(one) == 1 and np.ptp(other) == 1 and not np.array_equal(one, other):
        assert found['rank'] == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic, abs=1e-9)
    back = measure(other, one)
    assert all(np.isclose(found[name], back[name], equal_nan=True) for name in found)


def test_measures_at_their_ends():
    ramp = np.arange(25, dtype=np.float32).reshape(5, 5)
    assert measure(ramp, ramp) == {'rank': 1.0, 'iou': 1.0, 'mass': 0.0}
    upside_down = measure(ramp, ramp[::-1, ::-1].copy())
    assert upside_down['rank'] == pytest.approx(-1) and upside_down['iou'] == 0
    left, right = np.zeros((5, 5), np.float32), np.zeros((5, 5), np.float32)
    left[0, 0] = right[4, 4] = 1
    apart = measure(left, right)
    assert (apart['iou'], apart['mass']) == (0.0, 1.0)
    nothing = measure(np.zeros((5, 5), np.float32), left)
    assert nothing['mass'] == 1.0 and np.isnan(nothing['rank'])
    assert measure(ramp, ramp * 7 + 3)['rank'] == pytest.approx(1)  # ranks do not see a change of scale


def test_rounding_does_not_reorder_a_flat_background():
    rng = np.random.default_rng(0)
    blob = np.zeros((50, 50), np.float32)
    blob[20:24, 20:24] = 1
    noisy = [np.clip(blob + rng.normal(0, 1e-7, blob.shape), 0, 1).astype(np.float32) for _ in range(2)]
    found = measure(*noisy)
    assert found['rank'] > 0.999 and found['iou'] == 1 and found['mass'] < 1e-4


def test_maps_of_other_sizes_and_crops_are_laid_over_the_photo():
    y, x = np.mgrid[:60, :80].astype(np.float32)
    photo = np.exp(-((y - 37) ** 2 + (x - 50) ** 2) / 300)
    whole = Geometry.identity((60, 80))
    part = whole.then(crop((60, 80), (40, 50), 25, 15))
    half = whole.then(resize((60, 80), (30, 40)))
    cropped, small = photo[15:55, 25:75], photo.reshape(30, 2, 40, 2).mean((1, 3))
    assert measure(photo, cropped, whole, part)['mass'] < 1e-3
    assert measure(photo, cropped)['mass'] > 0.1  # what would be said without the geometry
    assert measure(photo, small, whole, half)['mass'] < 0.02
    unknown = Geometry(part.matrix, part.network_size, part.original_size, exact=False)
    assert np.isnan(measure(photo, cropped, whole, unknown)['iou'])


def test_another_part_of_the_photo_is_compared_where_both_networks_saw_it(before, photos, tmp_path):
    """The second run sees the photos cropped: nothing but its geometry says so."""
    after = tmp_path / 'after'
    shutil.copytree(before, after)
    blind = {}
    for path in sorted(after.glob('*.npz')):
        arrays = dict(np.load(path))
        part = arrays['maps_0'][:, 4:36, 6:42]
        blind[path.name.partition('_')[0]] = measure(arrays['maps_0'][0], part[0])['mass']
        moved = arrays['geometry'] @ np.array([[1, 0, 6], [0, 1, 4], [0, 0, 1.0]])
        np.savez(path, **{**arrays, 'maps_0': part, 'image': arrays['image'][4:36, 6:42], 'geometry': moved})
    found = {image.name: image.mass for image in compare_runs(before, after).images}
    assert max(found.values()) < 0.01 < 0.1 < max(blind.values())
    for path in after.glob('*.npz'):
        arrays = dict(np.load(path))
        np.savez(path, **{key: value for key, value in arrays.items() if key != 'geometry'})
    assert all(np.isnan(item.mass) for item in compare_runs(before, after).maps)


def test_maps_of_models_compared_in_one_run_have_their_own_views(before, tmp_path):
    """Each run compares two models; in the second run, the second one crops. Only its maps are laid over the photo."""
    runs = [tmp_path / name for name in ('one', 'two')]
    for run, cropped in zip(runs, (False, True), strict=True):
        shutil.copytree(before, run)
        for path in run.glob('*.npz'):
            arrays = dict(np.load(path))
            item = Heatmap(arrays['maps_0'][0], {'method': 'gradcam', 'model': 'a'}, Layer('x'))
            size, matrix = tuple(arrays['original_size'].tolist()), arrays['geometry']
            own, values = NetworkView(arrays['image'], Geometry(matrix, arrays['image'].shape[:2], size)), item.values
            if cropped:
                moved = matrix @ np.array([[1, 0, 6], [0, 1, 4], [0, 0, 1.0]])
                own, values = NetworkView(own.image[4:36, 6:42], Geometry(moved, (32, 36), size)), values[4:36, 6:42]
            other = replace(item.at(model='b'), values=values, view=own)
            first = Geometry(matrix, arrays['image'].shape[:2], size)
            result = Heatmaps('cam', arrays['image'], (item, other), geometry=first, titles={'gradcam': 'GradCAM'})
            path.write_bytes(heatmaps_npz(result))
            written = np.load(path)
            assert ('image_1' in written) == cropped == ('view_1' in written)
    found = compare_runs(*runs)
    masses = [{item.coordinates['model']: item.mass for item in image.maps} for image in found.images]
    assert masses and all(each['a'] == 0 and each['b'] < 0.01 for each in masses)
    assert not any(image.same_part for image in found.images)
    for path in runs[1].glob('*.npz'):  # a file of an earlier version says one view for all
        arrays = dict(np.load(path))
        np.savez(path, **{key: value for key, value in arrays.items() if not key.startswith(('view_', 'image_1'))})
    assert all(image.same_part for image in compare_runs(*runs).images)


def views_of(window, size=(40, 60)):
    """Two networks' views of a photo: the whole of it, and the window that ``window`` gives."""
    y, x = np.mgrid[: size[0], : size[1]]
    photo = np.stack([x * 4, y * 6, x + y], axis=2).astype(np.uint8)
    top, left, height, width = window
    whole = Geometry.identity(size)
    seen = whole.then(crop(size, (height, width), left, top))
    return NetworkView(photo, whole), NetworkView(photo[top : top + height, left : left + width], seen)


def compared(before, after, views):
    item = MapPair({'method': 'gradcam'}, before, after, views, mass=0.5, iou=0.5, rank=0.5)
    image = ImageDifference('photo', None, {'id': 0, 'name': 'cup'}, {'id': 0, 'name': 'cup'}, 0.1, (item,))
    return RunDifference(('a', 'b'), (image,))


def test_the_sheet_subtracts_maps_at_the_same_places_of_the_photo():
    """A network that sees a window of the photo, and explains it by the same places as one that sees all of it."""
    window = 8, 20, 24, 30
    views = views_of(window)
    y, x = np.mgrid[:40, :60].astype(np.float32)
    blob = np.exp(-((y - 20) ** 2 + (x - 35) ** 2) / 60)
    part = blob[8:32, 20:50]
    found = compared(blob, part.copy(), views)
    photo, _, cropped, difference = worst(found, 1).rows[0]
    inside = np.zeros((40, 60), bool)
    inside[8:32, 20:50] = True
    white = lookup_table('RdBu_r')[[127, 128]]
    assert all((white == color).all(1).any() for color in difference.pixels[inside])
    assert len(np.unique(difference.pixels[~inside].reshape(-1, 3), axis=0)) == 1
    assert 'the crops differ; gray: not in both' in difference.footer
    np.testing.assert_array_equal(photo.pixels, views[0].image)  # what only one of them saw is shown as well
    faded = cropped.pixels[~inside].astype(int)
    assert np.ptp(faded, axis=0).max() < np.ptp(photo.pixels[~inside].astype(int), axis=0).max() / 3
    assert '1 image cropped differently' in ' '.join(counts(found))
    moved = compared(blob, np.roll(part, 6, axis=1), views)
    assert (worst(moved, 1).rows[0][3].pixels[inside] != difference.pixels[inside]).any()
    assert not (worst(moved, 1).rows[0][3].pixels[~inside] != difference.pixels[~inside]).any()


def test_crops_that_share_nothing_or_lie_at_unknown_places_have_no_difference():
    blob = np.random.default_rng(0).random((16, 20), dtype=np.float32)
    one, other = views_of((0, 0, 16, 20))[1], views_of((20, 30, 16, 20))[1]
    sheet = worst(compared(blob, blob + 0.1, (one, other)), 1)
    assert sheet.rows[0][3].footer == ('not the same part of the photo',)
    assert sheet.rows[0][0].pixels.shape == (40, 60, 3)
    unknown = NetworkView(one.image, None), NetworkView(other.image, None)
    sheet = worst(compared(blob, blob + 0.1, unknown), 1)
    assert sheet.rows[0][3].footer == ('not the same part of the photo',)
    assert [cell.pixels.shape for cell in sheet.rows[0][1:3]] == [(16, 20, 3)] * 2


def test_one_view_at_two_sizes_is_one_part_of_the_photo():
    whole = views_of((0, 0, 4, 4))[0]
    small = NetworkView(whole.image[::2, ::2], whole.geometry.then(resize((40, 60), (20, 30))))
    ramp = np.linspace(0, 1, 60, dtype=np.float32)[None].repeat(40, 0)
    found = compared(ramp, ramp.reshape(40, 30, 2).mean(2)[::2], (whole, small))
    assert found.images[0].same_part and not any('cropped' in line for line in counts(found))
    assert all('crops' not in line for line in worst(found, 1).rows[0][3].footer)


@pytest.mark.parametrize('options', [{'batch_size': 1}, {'batch_size': 3}])
def test_equal_runs_raise_no_alarm(before, photos, tmp_path, options):
    assert not fails(before, run(photos, tmp_path / 'again', **options))


@pytest.mark.slow
def test_fifty_equal_runs_raise_no_alarm(before, photos, tmp_path):
    threads = torch.get_num_threads()
    try:
        for number in range(50):
            torch.set_num_threads(1 + number % 3)
            options = {'batch_size': 1 + number % 5}
            assert not fails(before, run(photos, tmp_path / str(number), overwrite=True, **options)), options
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize('number', (0, 10, 20))
def test_a_change_of_one_percent_in_one_layer_is_found(before, photos, tmp_path, number):
    assert fails(before, run(photos, tmp_path / 'after', perturbed(number)))


def test_flips_missing_images_and_the_order_of_the_table(before, photos, tmp_path):
    after = run(photos, tmp_path / 'after', perturbed(3, 2.0))
    lines = [json.loads(line) for line in (after / 'manifest.jsonl').read_text().splitlines()]
    lines[1]['prediction'] = {**lines[1]['prediction'], 'id': 9, 'name': 'truck'}
    shutil.copytree(before, tmp_path / 'before')
    kept = [json.loads(line) for line in (tmp_path / 'before/manifest.jsonl').read_text().splitlines()]
    kept[1]['prediction'] = {**kept[1]['prediction'], 'id': 2, 'name': 'bird'}
    (after / 'manifest.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines[:3]))
    (tmp_path / 'before/manifest.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in kept))
    found = compare_runs(tmp_path / 'before', after)
    assert len(found.images) == 3 and found.only_before == ('3',) and not found.only_after
    assert found.images[0].flipped
    frame = found.to_frame()
    assert set(frame.loc[frame['image'] == '1', 'flipped']) == {True}
    verdicts = {str(each.rule): each for each in judge(found, [Rule.of(text) for text in ('flips>0', 'missing>30%')])}
    assert verdicts['flips>0'].failed and '1' in verdicts['flips>0'].images
    assert not verdicts['missing>30%'].failed and verdicts['missing>30%'].value == 0.25


@pytest.mark.parametrize(
    ('text', 'rule'),
    [
        ('iou<0.8', Rule('iou', '<', 0.8)),
        (' Flips >= 0.5% ', Rule('flips', '>=', 0.005, share=True)),
        ('mean rank<=.9', Rule('rank', '<=', 0.9, over='mean')),
        ('median score>2%', Rule('score', '>', 0.02, over='median')),
        ('mass>1e-3', Rule('mass', '>', 1e-3)),
    ],
)
def test_rules_as_users_write_them(text, rule):
    assert Rule.of(text) == rule == Rule.of(str(rule))


@pytest.mark.parametrize(
    'text', ['', 'iou', 'iou=0.8', 'ssim<0.8', 'iou<', 'iou<--1', 'iou<nan', 'mean flips>1', '0.8>iou']
)
def test_what_is_not_a_rule(text):
    with pytest.raises(InputError, match='fail_if: .* accepted: '):
        Rule.of(text)


def test_files_and_exit_codes(capsys, before, photos, tmp_path):
    after = run(photos, tmp_path / 'after', perturbed(0, 1.0))
    out, report = tmp_path / 'out', tmp_path / 'report.xml'
    code, stdout, stderr = diff(capsys, before, after, '-o', out, '--junit', report, '--top', 2)
    assert code == 1 and 'error: mass>2e-05 holds: ' in stderr
    assert stdout.split() == [str(out / 'diff.csv'), str(out / 'summary.md'), str(report), str(out / 'worst.png')]
    suite = ElementTree.parse(report).getroot()
    assert int(suite.get('failures')) == len(suite.findall('testcase/failure')) > 0
    assert {case.get('name') for case in suite.findall("testcase[@classname='vis_diff.images']")} == {
        '0',
        '1',
        '2',
        '3',
    }
    assert (out / 'diff.csv').read_text().count('\n') == 5
    assert '✗' in (out / 'summary.md').read_text()
    code, stdout, stderr = diff(capsys, before, before, '-o', out)
    assert code == 0 and 'worst.png' not in stdout and not (out / 'worst.png').exists()
    code, _, _ = diff(capsys, before, after, '-o', out, '--fail-if', 'mean rank<-1', '--fail-if', 'flips>100%')
    assert code == 0


@pytest.mark.parametrize(('scores', 'change'), [((0.3, 0.5), 0.6), ((0.9, 0.5), 0.0), ((0.9, 0.1), 0.4)])
def test_each_object_of_a_class_has_its_own_score(scores, change):
    def line(found):
        return {'targets': [{'id': 5, 'name': f'#{place} dog', 'score': score} for place, score in enumerate(found)]}

    assert _score_change(line((0.9, 0.5)), line(scores)) == pytest.approx(change)


def test_runs_of_other_images_are_compared_where_both_have_them_and_it_is_said(capsys, before, tmp_path):
    shutil.copytree(before, tmp_path / 'fewer')
    lines = (tmp_path / 'fewer/manifest.jsonl').read_text().splitlines(keepends=True)
    (tmp_path / 'fewer/manifest.jsonl').write_text(''.join(lines[:2]))
    code, _, stderr = diff(capsys, before, tmp_path / 'fewer', '-o', tmp_path / 'out', '--fail-if', 'flips>0')
    assert code == 0 and f'2 only in {before.name}: 2, 3' in stderr and '2 images in both runs' in stderr
    code, _, stderr = diff(capsys, before, tmp_path / 'fewer', '-o', tmp_path / 'out')
    assert code == 1 and 'error: missing>0 holds: 2' in stderr


def test_runs_without_numbers_are_compared_by_their_predictions(capsys, before, photos, tmp_path):
    vt.run(vt.load(*SMALL), photos, vt.CAM(['gradcam'], targets=[3]), out=tmp_path / 'bare')
    code, _, stderr = diff(capsys, before, tmp_path / 'bare', '-o', tmp_path / 'out')
    assert code == 0 and 'no maps in common' in stderr
    code, _, stderr = diff(capsys, before, tmp_path / 'bare', '-o', tmp_path / 'out', '--fail-if', 'iou<0.8')
    assert code == 2 and stderr.startswith('warning') and '--save-raw' not in stderr.splitlines()[0]
    assert "--fail-if: 'iou<0.8': the runs have no maps in common" in stderr


def damage_manifest(run):
    (run / 'manifest.jsonl').write_text('{"name": 3}\n')


def damage_numbers(run):
    next(run.glob('*.npz')).write_bytes(b'PK nothing')


def empty(run):
    (run / 'manifest.jsonl').write_text('')


def rename(run):
    lines = [json.loads(line) for line in (run / 'manifest.jsonl').read_text().splitlines()]
    others = [{**line, 'name': f'other {line["name"]}', 'input': f'elsewhere/{line["name"]}'} for line in lines]
    (run / 'manifest.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in others))


def point_outside(run):
    text = (run / 'manifest.jsonl').read_text()
    (run / 'manifest.jsonl').write_text(text.replace('"name": "0', '"name": "../0'))


@pytest.mark.parametrize(
    ('harm', 'said'),
    [
        (damage_manifest, 'manifest.jsonl, line 1'),
        (damage_numbers, 'does not hold arrays'),
        (empty, 'has no images'),
        (rename, 'no image in common'),
        (point_outside, 'is not a file of the run'),
        (lambda run: (run / 'run.json').unlink(), 'run.json is missing'),
    ],
)
def test_damaged_and_foreign_runs(capsys, before, tmp_path, harm, said):
    shutil.copytree(before, tmp_path / 'run')
    harm(tmp_path / 'run')
    code, stdout, stderr = diff(capsys, before, tmp_path / 'run', '-o', tmp_path / 'out')
    assert (code, stdout) == (2, '') and stderr.startswith('error: RUN_B: ') and stderr.count('\n') == 1
    assert said in stderr and not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['--fail-if', 'iou=1'], "error: --fail-if: 'iou=1' is not a rule"),
        (['--junit', 'report.txt'], 'error: --junit: '),
        (['--top', '-1'], 'error: --top: '),
    ],
)
def test_bad_options_are_refused_before_the_work(capsys, before, tmp_path, words, said):
    code, _, stderr = diff(capsys, before, before, '-o', tmp_path / 'out', *words)
    assert code == 2 and stderr.startswith(said) and stderr.count('\n') == 1


def test_a_name_that_is_not_utf8_is_written_everywhere(before, tmp_path):
    shutil.copytree(before, tmp_path / 'run')
    lines = [json.loads(line) for line in (tmp_path / 'run/manifest.jsonl').read_text().splitlines()]
    lines[0] |= {'name': '0\udcff|x', 'prediction': {'id': 9, 'name': 'truck', 'score': 0.5}}
    lines[1] |= {'name': '1\udcff', 'input': 'elsewhere'}
    (tmp_path / 'run/manifest.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    found = compare_runs(before, tmp_path / 'run')
    write_difference(found, judge(found, default_rules(found)), tmp_path / 'out', Style(), 8, tmp_path / 'out/a.xml')
    assert b'0\xff|x' in (tmp_path / 'out/diff.csv').read_bytes()
    assert '1 only in run' in (tmp_path / 'out/summary.md').read_text()
    assert ElementTree.parse(tmp_path / 'out/a.xml').getroot().get('tests') and (tmp_path / 'out/worst.png').exists()
