"""browse_dataset as a user runs it."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import image_hash
import numpy as np
import pytest
from annotated_dataset import write_scenes
from PIL import Image, features

from vistool.commands.browse_dataset import main
from vistool.data.samples import find_inputs
from vistool.visualization.annotations import class_color

DEMO = 'configs/demo_dataset/plain.py'
CONFIGS = ['plain', 'mixup', 'multi_view', 'repeat']


def run(capsys, *argv):
    code = main([str(word) for word in argv])
    captured = capsys.readouterr()
    return code, captured.out.split(), captured.err


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob('*') if path.is_file())


def table(path):
    return list(csv.DictReader(Path(path).read_text().splitlines()))


def size(path):
    with Image.open(path) as image:
        image.load()
        return image.size


@pytest.mark.parametrize('words', [[], ['-m', 'concat'], ['-m', 'pipeline', '-n', '2'], ['--repeats', '2', '-n', '3']])
def test_several_samples_for_one_file_are_answered_with_a_sheet_that_holds_them(capsys, tmp_path, words):
    code, _, err = run(capsys, DEMO, *words, '-o', tmp_path / 'x.png')
    suggested = re.search(r'give a folder instead, or --sheet (\d+) (\d+) for all together', err)
    assert code == 2 and suggested and not list(tmp_path.iterdir())
    code, out, _ = run(capsys, DEMO, *words, '-o', tmp_path / 'x.png', '--sheet', *suggested.groups())
    assert code == 0 and out == [str(tmp_path / 'x.png')]


@pytest.mark.parametrize('name', CONFIGS)
@pytest.mark.parametrize('mode', ['original', 'transformed', 'concat', 'pipeline', 'batch'])
def test_every_mode_of_every_demo_config(capsys, tmp_path, name, mode):
    config = f'configs/demo_dataset/{name}.py'
    code, out, _ = run(capsys, config, '--mode', mode, '-o', tmp_path, '-n', 2, '--workers', 0)
    assert code == 0 and len(out) == (1 if mode == 'batch' else 2)
    assert all(min(size(path)) > 100 for path in out)


def test_names_carry_index_and_class_and_are_unique(capsys, tmp_path):
    code, out, _ = run(capsys, 'configs/demo_dataset/repeat.py', '-o', tmp_path, '-m', 'original', '--workers', 2)
    names = [Path(path).name for path in out]
    assert code == 0 and len(set(names)) == 27 and names[10] == '000010_tabby_train_1_train_original.png'
    assert names == sorted(names)


def test_the_number_of_workers_changes_nothing(capsys, tmp_path):
    pictures = []
    for workers in (0, 2):
        _, out, _ = run(capsys, DEMO, '-o', tmp_path / str(workers), '-m', 'pipeline', '--workers', workers, '-n', 5)
        pictures.append([Path(path).read_bytes() for path in out])
    assert pictures[0] == pictures[1]


def test_the_seed_repeats_a_run_and_draws_are_seeds(capsys, tmp_path):
    tables = {}
    for name, options in {'a': ['--repeats', 3], 'b': ['--seed', 1], 'c': ['--seed', 2]}.items():
        options = [*options, '--save-raw', '-m', 'pipeline', '-n', 1, '-o', tmp_path / name]
        _, out, _ = run(capsys, DEMO, *options)
        tables[name] = table(out[-1])
    drawn = [row['parameters'] for row in tables['a']]
    assert len(set(drawn)) == 3
    assert drawn[1:] == [tables['b'][0]['parameters'], tables['c'][0]['parameters']]


def test_the_table(capsys, tmp_path):
    _, out, _ = run(capsys, DEMO, '--save-raw', '-m', 'pipeline', '-o', tmp_path, '--classes', 'espresso')
    rows = table(out[-1])
    assert [row['index'] for row in rows] == ['6', '7', '8'] and {row['label'] for row in rows} == {'espresso'}
    first = rows[0]
    assert first['path'].endswith('espresso/train_0.jpg') and (first['width'], first['height']) == ('224', '224')
    assert (first['original_width'], first['original_height']) == ('224', '158')
    assert 'RandomFlip: ' in first['parameters'] and 'ColorJitter: brightness' in first['parameters']


def test_sheets(capsys, tmp_path):
    code, out, _ = run(capsys, DEMO, '-o', tmp_path, '--sheet', 2, 3)
    assert code == 0 and [Path(path).stem for path in out] == [f'sheet-000{k}_train_transformed' for k in (1, 2)]
    code, out, _ = run(capsys, DEMO, '-o', tmp_path / 'one.pdf', '--sheet', 3, 3)
    assert code == 0 and out == [str(tmp_path / 'one.pdf')]


def test_rescaling_gives_pixels_that_size(capsys, tmp_path):
    _, out, _ = run(capsys, DEMO, '-o', tmp_path, '-m', 'original', '-n', 1, '-r', 2)
    picture = np.asarray(Image.open(out[0]))
    photo = Image.open('demo/dataset/tabby/train_0.jpg')
    assert picture.shape[1] == 2 * photo.width + 12  # the margins
    _, out, _ = run(capsys, DEMO, '-o', tmp_path, '-m', 'transformed', '-n', 1, '--rescale-factor', '0.5')
    assert size(out[0])[0] == 112 + 12


def test_the_channel_order_can_be_said(capsys, tmp_path):
    shown = {}
    for name, options in {'own': [], 'bgr2rgb': ['--bgr2rgb'], 'RGB': ['-c', 'RGB']}.items():
        _, out, _ = run(capsys, DEMO, '-o', tmp_path / name, '-m', 'original', '-n', 1, '--indices', 6, *options)
        shown[name] = np.asarray(Image.open(out[0]))[6:200]
    assert (shown['own'] == shown['bgr2rgb']).all() and (shown['own'] == shown['RGB'][..., ::-1]).all()


def test_64_by_default_and_all_where_an_output_is_named(capsys, tmp_path, monkeypatch):
    config = Path(DEMO).resolve()
    options = ['--cfg-options', 'train_dataloader.dataset.times=12', '-m', 'original', '-r', '0.3', '--workers', 0]
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, config.parent / 'repeat.py', *options)
    assert code == 0 and len(out) == 64 and '64 of 108; -n all' in err
    assert out[0].startswith('work_dirs/repeat/browse_dataset/000000_tabby')
    assert len(run(capsys, config.parent / 'repeat.py', *options, '-o', 'x')[1]) == 108
    assert len(run(capsys, config.parent / 'repeat.py', *options, '-n', 'all')[1]) == 108


@pytest.fixture
def broken(tmp_path):
    """The demo dataset with one file that is no image, one cut off and one missing."""
    folder = tmp_path / 'data'
    shutil.copytree('demo/dataset', folder)
    (folder / 'tabby/train_1.jpg').write_text('no image')
    whole = (folder / 'missile/train_0.jpg').read_bytes()
    (folder / 'missile/train_0.jpg').write_bytes(whole[:40])
    (folder / 'espresso/train_2.jpg').unlink()
    return ['--cfg-options', f'train_dataloader.dataset.data_root={folder}']


@pytest.mark.parametrize('options', [[], ['--workers', '2'], ['--sheet', '3', '3'], ['-m', 'batch'], ['--report']])
def test_unreadable_images_are_listed_and_skipped(capsys, tmp_path, broken, options):
    code, out, err = run(capsys, DEMO, *broken, '-o', tmp_path / 'out', *options)
    assert code == 1 and len(out) == (6 if options in ([], ['--workers', '2']) else 1)
    for name in ('tabby/train_1.jpg', 'missile/train_0.jpg', 'espresso/train_2.jpg'):
        assert name in err
    assert '3 of 9' in err and 'Traceback' not in err
    assert all(size(path) for path in out)


def test_one_sample_that_cannot_be_read_is_bad_input(capsys, tmp_path, broken):
    code, out, err = run(capsys, DEMO, *broken, '-o', tmp_path / 'out', '--indices', 1)
    assert code == 2 and not out and err.startswith('error: ') and 'train_1.jpg' in err
    assert not (tmp_path / 'out').exists()


def test_report(capsys, tmp_path):
    for target in (tmp_path / 'folder', tmp_path / 'page.pdf'):
        code, out, err = run(capsys, DEMO, '--report', '-o', target, '--save-raw')
        assert code == 0 and len(out) == 2 and 'fit the normalization' in err
        assert [row['classes'] for row in table(out[1])] == ['281'] * 3 + ['657'] * 3 + ['967'] * 3
    options = ['data_preprocessor.mean=[20,20,20]', 'data_preprocessor.std=[255,255,255]']
    _, _, err = run(capsys, DEMO, '--report', '-o', tmp_path, '--cfg-options', *options)
    assert 'mismatch: the mean of red is 0.43 standard deviations above' in err


@pytest.mark.parametrize(
    'argv, message',
    [
        (['configs/dinov2/vit-small-p14_dinov2-pre_headless.py'], '--phase.*no train dataset'),
        ([DEMO, '--phase', 'training'], 'train, val, test'),
        ([DEMO, '--mode', 'transfromed'], 'did you mean transformed'),
        ([DEMO, '--classes', 'tabbby'], '--classes.*did you mean tabby'),
        ([DEMO, '--indices', '9'], '--indices.*0 to 8'),
        ([DEMO, '--repeats', '0'], '--repeats.*1 or more'),
        ([DEMO, '--repeats', '2', '-m', 'original'], '--repeats'),
        ([DEMO, '--sheet', '0', '3'], '--sheet'),
        ([DEMO, '-n', '0'], '--show-number'),
        ([DEMO, '-n', 'few'], 'or all'),
        ([DEMO, '--per-class', '0'], '--per-class'),
        ([DEMO, '-r', '0'], '--rescale-factor'),
        ([DEMO, '-i', '-1'], '--show-interval'),
        ([DEMO, '-c', 'GBR'], 'BGR, RGB'),
        ([DEMO, '--workers', '-2'], '--workers'),
        ([DEMO, '-o', '{}/x.png'], 'folder'),
        (
            [DEMO, '--cfg-options', 'train_dataloader.dataset.ann_file=trian.txt'],
            r'trian\.txt.*did you mean train\.txt',
        ),
        ([DEMO, '--cfg-options', 'train_dataloader.dataset.data_root=/nowhere'], "needs '/nowhere"),
        (['configs/resnet/'], 'resnet50_8xb32_in1k'),
        (['configs/demo_dataset/plian.py'], r'plain\.py'),
        ([], 'config'),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(capsys, tmp_path, argv, message):
    import re

    argv = [word.format(tmp_path) for word in argv]
    code, out, err = run(capsys, *argv, *([] if '-o' in argv else ['-o', tmp_path / 'out']))
    last = err.strip().splitlines()[-1]
    assert code == 2 and not out and last.startswith('error: ') and re.search(message, last), last
    assert 'Traceback' not in err and not files(tmp_path)


def test_documented_options_parse(capsys, tmp_path):
    options = ['--phase', 'val', '--output-dir', tmp_path, '--mode', 'original', '--show-number', 100]
    options += ['--rescale-factor', 10, '--bgr2rgb', '--not-show', '--show_interval', 1]
    assert len(run(capsys, DEMO, *options)[1]) == 6


def test_ctrl_c_leaves_whole_files(tmp_path):
    options = [
        '--cfg-options',
        'train_dataloader.dataset.times=300',
        '-o',
        str(tmp_path),
        '-m',
        'pipeline',
        '--workers',
        '2',
    ]
    command = [sys.executable, 'tools/browse_dataset.py', 'configs/demo_dataset/repeat.py', *options]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # what runs in the background ignores it
    )
    deadline = time.monotonic() + 60
    while len(files(tmp_path)) < 10 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and 'Traceback' not in err and err.strip().endswith('interrupted'), err
    assert 10 <= len(files(tmp_path)) < 2700
    assert all(name.endswith('.png') and size(tmp_path / name) for name in files(tmp_path))


@pytest.mark.parametrize(
    'command',
    [
        'configs/resnet/resnet50_8xb32_in1k.py --phase val --mode original -n 100 -r 10 --bgr2rgb',
        'configs/resnet/resnet50_8xb32_in1k.py --show-number 100 --rescale-factor 2',
        'configs/swin_transformer/swin-small_16xb64_in1k.py --show-number 10 --mode concat',
        'configs/swin_transformer/swin-small_16xb64_in1k.py --mode pipeline',
    ],
)
def test_the_documented_commands_run_where_their_data_is(capsys, tmp_path, command):
    phase = 'val' if 'val' in command else 'train'
    data = {'data_root': 'demo/dataset', 'split': '', 'ann_file': f'{phase}.txt', 'serialize_data': False}
    options = [f'{phase}_dataloader.dataset.{key}={value}' for key, value in data.items()]
    code, out, _ = run(capsys, *command.split(), '--output-dir', tmp_path, '--cfg-options', *options)
    assert code == 0 and len(out) == (6 if phase == 'val' else 9) and all(size(path) for path in out)


def memory(process):
    """Resident MiB of a process and its children."""
    children = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
    pages = [int(Path(f'/proc/{pid}/statm').read_text().split()[1]) for pid in (process.pid, *children)]
    return sum(pages) * os.sysconf('SC_PAGE_SIZE') / 2**20


@pytest.mark.slow
def test_ten_thousand_images_do_not_grow_memory(tmp_path):
    options = [
        '--cfg-options',
        'train_dataloader.dataset.times=1112',
        '-o',
        str(tmp_path),
        '-r',
        '0.2',
        '--workers',
        '1',
    ]
    command = [sys.executable, 'tools/browse_dataset.py', 'configs/demo_dataset/repeat.py', *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    seen = {}
    for number, _ in enumerate(process.stdout, 1):
        if number in (1000, 9900):
            seen[number] = memory(process)
    assert process.wait() == 0 and number == 10008
    assert seen[9900] - seen[1000] < 20, seen  # MiB


def test_a_pipe_among_the_images_is_not_waited_for(capsys, tmp_path):
    import os
    import shutil

    shutil.copy('demo/coffee.png', tmp_path / 'a.png')
    os.mkfifo(tmp_path / 'b.png')
    (tmp_path / 'c.png').symlink_to('/dev/zero')
    (tmp_path / 'ann.txt').write_text('a.png 0\nb.png 0\nc.png 0\n')
    config = tmp_path / 'c.py'
    config.write_text(
        f"default_scope = 'mmpretrain'\ntrain_dataloader = dict(batch_size=1, dataset=dict(type='CustomDataset', "
        f"data_root={str(tmp_path)!r}, ann_file='ann.txt', pipeline=[dict(type='LoadImageFromFile'), "
        "dict(type='PackInputs')]), sampler=dict(type='DefaultSampler', shuffle=False))\n"
    )
    code, out, err = run(capsys, config, '-o', tmp_path / 'out')
    assert code == 1 and len(out) == 1 and err.count('is not a regular file') == 2


SCENES = 'configs/scenes/dataset.py'


@pytest.mark.parametrize('mode', ['original', 'transformed', 'concat', 'pipeline', 'batch'])
def test_boxes_of_a_plain_torch_dataset_are_drawn_in_every_mode(mode, tmp_path, capfd):
    assert main([SCENES, '--mode', mode, '--indices', '1', '3', '-o', str(tmp_path)]) == 0
    assert 'fault' not in capfd.readouterr().err
    pictures = [np.asarray(Image.open(path).convert('RGB')) for path in sorted(tmp_path.iterdir())]
    assert len(pictures) == (1 if mode == 'batch' else 2)
    for label in (1, 2, 3):  # the color of a class is on one of the pictures
        assert any((picture == class_color(label)).all(2).sum() > 20 for picture in pictures)


def test_faults_are_listed_with_index_and_file(tmp_path, capfd):
    write_scenes(tmp_path / 'data', 3, seed=5)
    config = tmp_path / 'faulty.py'
    changes = {1: {0: {'bbox': [60, 20, 30, 50]}}, 2: {0: {'bbox_label': 9}}}
    config.write_text(
        f"default_scope = 'mmpretrain'\ntrain_dataloader = dict(dataset=dict(type='WrittenScenes', "
        f"folder={str(tmp_path / 'data')!r}, changes={changes!r}, pipeline=[dict(type='LoadImageFromFile'), "
        f"dict(type='mmcv.LoadAnnotations', with_bbox=True), dict(type='mmcv.RandomFlip', prob=1.0)]))\n"
    )
    assert main([str(config), '--mode', 'pipeline', '-o', str(tmp_path / 'out')]) == 0
    lines = capfd.readouterr().err.splitlines()
    assert (
        f'warning: sample 1 ({tmp_path}/data/scene_1.png): object 0: the box (60, 20, 30, 50) ends before' in lines[0]
    )
    assert 'sample 2' in lines[1] and 'the label is 9, the classes are 0 to 3' in lines[1]
    assert any('2 faults in the annotations of 2 of 3 samples' in line for line in lines)


def test_a_flip_that_forgets_the_boxes_is_said(tmp_path, capfd):
    assert main(['configs/scenes/wrong_flip.py', '-o', str(tmp_path)]) == 0
    said = capfd.readouterr().err
    assert said.count('after FlipImageOnly: ') == 6 and 'not follow the image' in said


@pytest.fixture
def hashing(monkeypatch):
    """The package imagehash, else the same algorithm."""
    try:
        import imagehash  # noqa: F401
    except ModuleNotFoundError:
        monkeypatch.setitem(sys.modules, 'imagehash', image_hash)


def test_a_report_counts_objects_and_lists_faults(tmp_path, capsys, hashing):
    write_scenes(tmp_path / 'data', 4, seed=5)
    config = tmp_path / 'faulty.py'
    changes = {1: {0: {'bbox': [60, 20, 30, 50]}}}
    config.write_text(
        f"default_scope = 'mmpretrain'\ntrain_dataloader = dict(dataset=dict(type='WrittenScenes', "
        f"folder={str(tmp_path / 'data')!r}, changes={changes!r}, pipeline=[dict(type='LoadImageFromFile'), "
        f"dict(type='mmcv.LoadAnnotations', with_bbox=True, with_seg=True), dict(type='PackInputs')]))\n"
    )
    code, out, err = run(capsys, config, '--report', '--save-raw', '-o', tmp_path / 'r.png')
    assert code == 0 and {Path(path).name for path in out} == {'r.png', 'r.csv', 'r_faults.csv'}
    known = json.loads((tmp_path / 'data/scenes.json').read_text())
    assert [int(row['objects']) for row in table(tmp_path / 'r.csv')] == [len(each['boxes']) for each in known]
    (fault,) = table(tmp_path / 'r_faults.csv')
    assert fault['index'] == '1' and fault['path'].endswith('scene_1.png') and 'ends before it begins' in fault['fault']
    assert 'sample 1' in err and '1 fault in the annotations of 1 of 4 samples' in err


def test_a_report_finds_a_leak_between_phases(tmp_path, capsys, hashing):
    code, out, err = run(capsys, 'configs/scenes/leak.py', '--report', '-o', tmp_path / 'r.png')
    assert code == 0 and 'leak: train #3 and val #0' in err and err.count('leak: ') == 1
    assert {Path(path).name for path in out} == {'r.png', 'r_duplicates.png', 'r_duplicates.csv'}
    (pair,) = table(tmp_path / 'r_duplicates.csv')
    assert (pair['phase'], pair['index'], pair['other_phase'], pair['other_index']) == ('train', '3', 'val', '0')
    code, out, err = run(capsys, 'configs/scenes/leak.py', '--report', '--duplicates', 'off', '-o', tmp_path / 'o.png')
    assert code == 0 and 'leak' not in err and len(out) == 1


def test_without_imagehash_a_report_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'imagehash', None)
    code, out, err = run(capsys, 'configs/scenes/leak.py', '--report', '-o', tmp_path / 'r.png')
    assert code == 0 and len(out) == 1 and 'pip install imagehash' in err


@pytest.mark.parametrize('value', ['65', '-1', 'many', ''])
def test_a_distance_that_is_not_one_is_refused(tmp_path, capsys, value):
    code, _, err = run(capsys, 'configs/scenes/leak.py', '--report', f'--duplicates={value}', '-o', tmp_path / 'r.png')
    assert code == 2 and '--duplicates' in err


@pytest.fixture
def odd_names(tmp_path):
    """Classes and files whose names hold a line break or are not UTF-8; one file is damaged."""
    for folder in ('a\nb', 'c\udcff'):
        place = tmp_path / 'data' / folder
        place.mkdir(parents=True)
        shutil.copy('demo/coffee.png', place / 'x\n\udcfe.png')
    (tmp_path / 'data/a\nb/bad\nname.png').write_bytes(b'\x89PNG\r\n\x1a\n damaged')
    pipeline = [{'type': 'LoadImageFromFile'}, {'type': 'Resize', 'scale': 32}, {'type': 'PackInputs'}]
    config = tmp_path / 'c.py'
    config.write_text(
        f"default_scope = 'mmpretrain'\ntrain_dataloader = dict(batch_size=2, dataset=dict(type='CustomDataset', "
        f'data_root={str(tmp_path / "data")!r}, pipeline={pipeline}), '
        "sampler=dict(type='DefaultSampler', shuffle=False))\n"
    )
    return config


@pytest.mark.parametrize(
    'options',
    [
        ['--save-raw'],
        ['-m', 'batch', '--save-raw'],
        ['--report', '--save-raw', '--duplicates', 'off'],
        ['-m', 'pipeline'],
    ],
)
def test_names_with_line_breaks_or_that_are_not_text(capsys, tmp_path, odd_names, options):
    code, _, err = run(capsys, odd_names, '-o', tmp_path / 'out', *options)
    (failed,) = (line for line in err.splitlines() if 'failed to load image' in line)
    assert code == 1 and failed.count('name.png') == 1 and r'a\nb/bad\nname.png: ' in failed  # named once, escaped
    if '--report' not in options and '--save-raw' in options:
        data = next((tmp_path / 'out').glob('*.csv')).read_bytes()
        assert data.count(b'x\n\xfe.png') == 2 and b'"c\xff/x\n' in data


def test_a_table_of_no_sample_has_its_header(capsys, tmp_path, odd_names):
    shutil.rmtree(tmp_path / 'data/c\udcff')
    for path in (tmp_path / 'data').rglob('*.png'):
        path.write_bytes(b'')
        path.rename(path.with_name(path.name.replace('\udcfe', '')))
    code, out, _ = run(capsys, odd_names, '-o', tmp_path / 'out', '--save-raw')
    assert code == 1 and [Path(path).read_text() for path in out] == ['index\n']


def test_the_current_folder_takes_pictures_and_table(capsys, tmp_path, monkeypatch):
    config = Path(DEMO).absolute()
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, config, '-o', '.', '--save-raw', '-n', 1)
    assert code == 0 and {Path(path).suffix for path in out} == {'.png', '.csv'} and all(map(os.path.exists, out))


def test_a_folder_of_images_is_browsed_without_a_config(tmp_path, capsys):
    assert main(['demo/photos', '-n', '2', '-o', str(tmp_path / 'flat'), '--save-raw']) == 0
    assert {path.stem for path in (tmp_path / 'flat').glob('*.png')} == {
        '000000_camera_train_transformed',
        '000001_clock_train_transformed',
    }
    assert main(['demo/dataset', '--classes', 'tabby', '-o', str(tmp_path / 'sorted'), '--save-raw']) == 0
    assert len(list((tmp_path / 'sorted').glob('*.png'))) == 5
    assert main(['demo/photos', '--report', '-o', str(tmp_path / 'report.png')]) == 0
    assert 'duplicate' not in capsys.readouterr().err  # there is no other phase to leak into


def test_files_that_opencv_does_not_know_are_browsed_too(tmp_path, capsys):
    """TGA and AVIF look as PNG does; one that is no image is named with the reason."""
    folder, colors = tmp_path / 'photos', np.zeros((16, 20, 3), np.uint8)
    folder.mkdir()
    colors[:, :10] = (200, 30, 90)
    for suffix in ('png', 'tga', *(['avif'] if features.check('avif') else [])):
        Image.fromarray(colors).save(folder / f'{suffix}.{suffix}', quality=100)
    (folder / 'x.tga').write_text('not an image')
    code, out, err = run(capsys, folder, '-o', tmp_path / 'out', '--mode', 'original')
    assert code == 1 and 'x.tga: it is a text file, not an image' in err
    pictures = [np.asarray(Image.open(path).convert('RGB'), np.int16) for path in out if path.endswith('.png')]
    assert len(pictures) >= 2
    assert all(np.abs(each.mean((0, 1)) - pictures[0].mean((0, 1))).max() < 24 for each in pictures)


def test_a_folder_is_browsed_by_the_rule_of_all_inputs(tmp_path, capsys):
    """Suffixes of any kind of image, and nothing hidden: caches of editors, archives and version control."""
    places = ['cat/a.jpe', 'cat/b.WebP', 'dog/deep/er/c.jfif', 'dog/d.dib']
    hidden = ['.git/e.png', 'cat/.ipynb_checkpoints/f.png', '__MACOSX/cat/._a.png', '__MACOSX/g.png', 'dog/.h.png']
    kinds = {'.jpe': 'JPEG', '.webp': 'WEBP', '.jfif': 'JPEG', '.dib': 'BMP', '.png': 'PNG'}
    folder = tmp_path / 'photos of mine'
    for number, name in enumerate(places + hidden):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (20, 16), (20 * number, 90, 30)).save(path, kinds[path.suffix.lower()])
    (folder / 'notes').mkdir()
    assert sorted(item.path for item in find_inputs(folder)) == sorted(folder / name for name in places)
    code, out, err = run(capsys, folder, '-o', tmp_path / 'out', '--save-raw')
    assert code == 0, err
    drawn = sorted(Path(path).stem.split('_') for path in out if path.endswith('.png'))
    assert [(name[1], name[-3]) for name in drawn] == [('cat', 'a'), ('cat', 'b'), ('dog', 'd'), ('dog', 'c')]


def test_an_empty_image_is_said_to_be_empty(tmp_path, capsys):
    shutil.copytree('demo/photos', tmp_path / 'photos')
    (tmp_path / 'photos/camera.png').write_bytes(b'')
    code, _, err = run(capsys, tmp_path / 'photos', '-n', 2, '-o', tmp_path / 'out')
    assert code == 1 and 'camera.png is empty (0 bytes); copy or download it again' in err and 'OpenCV' not in err


def test_a_misspelt_transform_is_answered_with_near_names(tmp_path, capsys):
    config = tmp_path / 'misspelt.py'
    steps = "[dict(type='LoadImageFromFile'), dict(type='RandomFilp', prob=0.5), dict(type='PackInputs')]"
    base = Path('configs/demo_dataset/plain.py').resolve()
    config.write_text(f"_base_ = '{base}'\ntrain_dataloader = dict(dataset=dict(pipeline={steps}))\n")
    assert main([str(config), '-o', str(tmp_path / 'out')]) == 2
    assert 'did you mean RandomFlip' in capsys.readouterr().err
