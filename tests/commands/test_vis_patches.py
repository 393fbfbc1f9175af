"""vis_patches as a user runs it."""

import json
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import einops
import numpy as np
import pytest
import torch
from command_line import files, runner
from PIL import Image
from torch.nn import functional

from vistool.commands.vis_patches import main
from vistool.data.images import read_image

run = runner(main)
ASTRONAUT = 'demo/astronaut.png'
VIT, SWIN, T2T = (
    'timm::vit_tiny_patch16_224',
    'timm::swin_tiny_patch4_window7_224',
    'configs/t2t_vit/t2t-vit-t-14_8xb64_in1k.py',
)


def seed_mosaic(img, p, pad):
    """The mosaic as the document that started the project makes it."""
    h, w, _ = img.shape
    img2 = cv2.resize(img, (w // p * p, h // p * p))
    patches = torch.tensor(einops.rearrange(img2, '(h h1) (w w1) c -> (h w) c h1 w1', h1=p, w1=p))
    padded = functional.pad(patches, [pad] * 4, mode='constant', value=255)
    side = p + pad * 2
    return einops.rearrange(padded, '(h w) c h1 w1 -> (h h1) (w w1) c', h1=side, w1=side, h=img2.shape[0] // p).numpy()


@pytest.mark.parametrize(
    ('image', 'patch', 'pad'), [(ASTRONAUT, 64, 2), ('demo/coffee.png', 48, 1), ('demo/chelsea.png', 16, 0)]
)
def test_the_first_example_comes_out_pixel_by_pixel(capsys, tmp_path, image, patch, pad):
    out = tmp_path / 'x.png'
    options = ['--patch-size', patch, '--pad', pad]
    assert run(capsys, image, *options, '--layout', 'overlay', '-o', out)[:2] == (0, f'{out}\n')
    wanted = seed_mosaic(read_image(image), patch, pad)
    assert np.array_equal(np.asarray(Image.open(out)), wanted)
    assert run(capsys, image, *options, '--panels', tmp_path / 'panels', '-o', out)[0] == 0
    (panel,) = (tmp_path / 'panels').rglob('*.png')
    assert np.array_equal(np.asarray(Image.open(panel)), wanted)


def test_on_the_screen_the_first_example_has_its_own_size_under_a_caption(capsys, tmp_path):
    run(capsys, ASTRONAUT, '--patch-size', '64', '--pad', '2', '-o', tmp_path / 'x.png')
    picture, wanted = np.asarray(Image.open(tmp_path / 'x.png')), seed_mosaic(read_image(ASTRONAUT), 64, 2)
    margin = 6
    assert np.array_equal(picture[-margin - len(wanted) : -margin, margin:-margin], wanted)


@pytest.mark.parametrize(
    'options',
    [
        ['--patch-size', '64', '--order'],
        ['--patch-size', '50,100', '--fit', 'crop', '--pad-value', '0,0,255'],
        ['--patch-size', '50', '--fit', 'pad', '--sequence', '--order'],
        ['--patch-size', '32', '--stride', '16', '--max-size', '128', '--not-show'],
        ['--patch-size', '16', '--mask-ratio', '0.75', '--mask', 'grid'],
        ['--patch_size=8', '--highlight', '17', '42', '--width', 'column'],
        ['--patch-size', '2', '--sequence', '--order'],
        ['--patch-size', '1'],
        ['--patch-size', '512'],
    ],
)
def test_without_a_config(capsys, tmp_path, options):
    code, out, err = run(capsys, ASTRONAUT, *options, '-o', tmp_path)
    assert code == 0 and len(out.splitlines()) == 1 and not re.search('error|Traceback', err)
    with Image.open(out.strip()) as image:
        image.load()
        assert max(image.size) < 2500


@pytest.mark.parametrize(
    ('config', 'options', 'grid'),
    [
        (VIT, ['--order', '--mask-ratio', '0.75'], [14, 14]),
        (VIT, ['--sequence'], [14, 14]),
        (SWIN, ['--windows', '--highlight', '17'], [56, 56]),
        (T2T, [], [14, 14]),
        ('timm::convnext_atto', ['--layout', 'overlay'], [56, 56]),
    ],
)
def test_with_a_config_no_checkpoint_is_needed(capsys, tmp_path, config, options, grid):
    code, out, _ = run(capsys, 'demo/coffee.png', config, *options, '-o', tmp_path / 'x.png', '--save-raw')
    assert code == 0 and out.splitlines() == [str(tmp_path / 'x.png'), str(tmp_path / 'x.npz')]
    recipe = json.loads(str(np.load(tmp_path / 'x.npz', allow_pickle=False)['recipe']))
    assert recipe['grid'] == grid and recipe['command'].startswith('vis_patches ') and recipe['checkpoint'] is None


@pytest.mark.parametrize('suffix', ['pdf', 'svg', 'jpg', 'webp'])
def test_other_formats(capsys, tmp_path, suffix):
    out = tmp_path / f'x.{suffix}'
    assert run(capsys, ASTRONAUT, '--patch-size', '64', '--order', '-o', out)[:2] == (0, f'{out}\n')
    if suffix == 'svg':
        text = out.read_text()
        assert all(f'>{number}</text>' in text for number in (0, 17, 63))
    if suffix == 'pdf':
        data = out.read_bytes()
        streams = [
            zlib.decompress(each) for each in re.findall(rb'FlateDecode.*?stream\r?\n(.*?)endstream', data, re.S)
        ]
        # one text object a number: characters, not outlines
        assert b'/FontFile2' in data and max(len(re.findall(rb'\bBT\b', each)) for each in streams) == 64


def test_numbers_that_could_not_be_read_are_left_out_and_that_is_said(capsys, tmp_path):
    code, _, err = run(capsys, ASTRONAUT, '--patch-size', '8', '--order', '--width', 'column', '-o', tmp_path / 'x.svg')
    assert code == 0 and 'could not be read' in err and '</text>' not in (tmp_path / 'x.svg').read_text()


def test_a_folder_in_which_one_picture_is_broken(capsys, tmp_path):
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in/text.jpg').write_text('no picture')
    for name in 'ab':
        Image.new('RGB', (40, 30), 'red').save(tmp_path / f'in/{name}.png')
    code, out, err = run(capsys, tmp_path / 'in', '--patch-size', '10', '-o', tmp_path / 'out')
    assert code == 1 and len(out.splitlines()) == 2 and 'text.jpg' in err
    assert files(tmp_path / 'out') == ['a_10.png', 'b_10.png']


def test_pictures_among_the_photos_are_not_cut_again(capsys, tmp_path):
    (tmp_path / 'a.png').write_bytes(Path(ASTRONAUT).read_bytes())
    for size in ('64', '32'):
        code, out, _ = run(capsys, tmp_path, '--patch-size', size, '-o', tmp_path)
        assert code == 0 and out == f'{tmp_path}/a_{size}.png\n'


def test_by_default_another_choice_never_overwrites_the_last(capsys, tmp_path, monkeypatch):
    image = os.path.abspath(ASTRONAUT)
    monkeypatch.chdir(tmp_path)
    choices = ([], ['--order'], ['--stride', '32'], ['--mask-ratio', '.5'], ['--highlight', '1'], ['--sequence'])
    more = (['--pad', '4'], ['--fit', 'crop'], ['--max-size', '256'], ['--pad-value', '0'])
    for options in (*choices, *more):
        assert run(capsys, image, '--patch-size', '64', *options)[0] == 0
    assert len(files(tmp_path / 'work_dirs/patches/vis_patches')) == len(choices) + len(more)


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        ([ASTRONAUT], '--patch-size: needed'),
        ([ASTRONAUT, '--patch-size', '513'], 'larger than the image'),
        ([ASTRONAUT, '--patch-size', '16,600'], 'larger than the image'),
        ([ASTRONAUT, '--patch-size', '0'], '--patch-size.*1 or more'),
        ([ASTRONAUT, '--patch-size', '-16'], '--patch-size.*1 or more'),
        ([ASTRONAUT, '--patch-size', '16,0'], '--patch-size'),
        ([ASTRONAUT, '--patch-size', '16.5'], '--patch-size.*whole number'),
        ([ASTRONAUT, '--patch-size', '1,2,3'], '--patch-size'),
        ([ASTRONAUT, '--patch-size', '16', '--stride', '17'], '--stride.*gaps'),
        ([ASTRONAUT, '--patch-size', '16', '--stride', '0'], '--stride'),
        ([ASTRONAUT, '--patch-size', '16', '--stride', '-3'], '--stride'),
        ([ASTRONAUT, '--patch-size', '16', '--pad', '-1'], '--pad'),
        ([ASTRONAUT, '--patch-size', '16', '--pad-value', '256'], '--pad-value.*0 to 255'),
        ([ASTRONAUT, '--patch-size', '16', '--pad-value', 'red'], '--pad-value'),
        ([ASTRONAUT, '--patch-size', '16', '--max-size', '0'], '--max-size'),
        ([ASTRONAUT, '--patch-size', '16', '--max-size', '8'], 'larger than the image'),
        ([ASTRONAUT, '--patch-size', '16', '--fit', 'stretch'], '--fit.*resize, crop, pad'),
        ([ASTRONAUT, '--patch-size', '16', '--mask-ratio', '1.01'], '--mask-ratio.*0 to 1'),
        ([ASTRONAUT, '--patch-size', '16', '--mask-ratio', '-0.5'], '--mask-ratio.*0 to 1'),
        ([ASTRONAUT, '--patch-size', '16', '--mask-ratio', 'nan'], '--mask-ratio.*0 to 1'),
        ([ASTRONAUT, '--patch-size', '16', '--mask', 'rnadom'], 'did you mean random'),
        ([ASTRONAUT, '--patch-size', '64', '--highlight', '64'], '--highlight.*0 to 63'),
        ([ASTRONAUT, '--patch-size', '64', '--highlight', '-65'], '--highlight.*0 to 63'),
        ([ASTRONAUT, '--patch-size', '64', '--highlight', 'x'], '--highlight'),
        (['--highlight', '1', ASTRONAUT], 'positional'),
        ([ASTRONAUT, '--patch-size', '16', '--windows'], '--windows'),
        ([ASTRONAUT, 'timm::resnet18'], 'config: .* cuts no patches.*leave out config and give --patch-size'),
        ([ASTRONAUT, 'configs/efficientnet_lite/efficientnet-lite0_in1k.py'], 'cuts no patches'),
        ([ASTRONAUT, 'timm::convnext_atto', '--sequence'], '--sequence'),
        ([ASTRONAUT, VIT, '--windows'], '--windows.*no windows'),
        ([ASTRONAUT, VIT, '--patch-size', '16'], 'read from the network'),
        ([ASTRONAUT, VIT, '--highlight', '196'], '0 to 195'),
        ([ASTRONAUT, 'timm::vit_tiny_patch16_225'], 'vit_tiny_patch16_224'),
        ([ASTRONAUT, VIT, '--device', 'toaster'], 'toaster'),
        (['nowhere.png', '--patch-size', '16'], r'nowhere\.png'),
        ([ASTRONAUT, '--patch-size', '16', '-o', 'x.tiff'], 'png'),
        ([ASTRONAUT, '--patch-size', '16', '--colormap', 'jet'], 'unrecognized'),
        ([], 'img'),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(capsys, tmp_path, argv, message):
    words = [*argv] if '-o' in argv else [*argv, '-o', tmp_path / 'out.png']
    code, out, err = run(capsys, *words)
    assert code == 2 and out == ''
    last = err.strip().splitlines()[-1]
    assert last.startswith('error: ') and re.search(message, last), last
    assert 'Traceback' not in err and 'usage:' not in err and not files(tmp_path)


def test_as_a_subprocess_from_another_folder(tmp_path):
    script, image = (os.path.abspath(path) for path in ('tools/vis_patches.py', ASTRONAUT))
    code = (
        'import runpy, sys\n'
        'def code_of(*words):\n'
        f'    sys.argv = [{script!r}, {image!r}, "--patch-size", *words]\n'
        '    try: runpy.run_path(sys.argv[0], run_name="__main__")\n'
        '    except SystemExit as done: return done.code\n'
        'assert [code_of("64", "--pad", "2"), code_of("1000")] == [0, 2]'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == 'work_dirs/patches/vis_patches/astronaut_64_pad-2.png'
    assert files(tmp_path) == [done.stdout.strip()]
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith('error: ')  # the second call's; the first none
