"""vis_check as a user runs it."""

import re

import numpy as np
import pytest
from command_line import files, runner

from vistool.commands.vis_check import main

check = runner(main)


VIT = ['things/vit.py', 'none']


def test_a_page_a_table_and_an_exit_code(capsys, here):
    words = ['--method', 'GradCAM', 'sobel', '--checks', 'randomization', 'classes', 'maps']
    code, out, err = check(capsys, 'things/folder', *VIT, '-o', 'report.pdf', '--save-raw', *words)
    assert code == 1 and out.splitlines() == ['report.pdf', 'report.npz']
    rows = [line.split() for line in err.splitlines()]
    assert ['random', 'weights', 'other', 'classes', 'map'] in rows
    assert next(row for row in rows if row[:1] == ['Sobel'])[1:5] == ['FAIL', '1.00', 'FAIL', '1.00']
    assert 'Sobel fails at random weights: the maps survive random weights' in err
    assert re.search(r'^error: [12] of 2 methods failed: .*Sobel$', err, re.MULTILINE)
    raw = np.load('report.npz', allow_pickle=False)
    assert raw['methods'].tolist() == ['gradcam', 'sobel'] and '"command": "vis_check things/folder' in str(
        raw['recipe']
    )


def test_all_methods_pass(capsys, here):
    code, out, err = check(capsys, 'things/good.png', *VIT, '--checks', 'maps', 'stability', '-o', 'out')
    assert code == 0 and out == 'out/good_gradcam.png\n' and 'fails' not in err


def test_a_dataset_of_the_config(capsys, here):
    code, out, _ = check(capsys, '@val', *VIT, '--indices', '0', '1', '--checks', 'maps', '-o', 'out.png')
    assert code in (0, 1) and out == 'out.png\n'


def test_an_image_that_cannot_be_read_is_named(capsys, here):
    code, out, err = check(capsys, 'things/mixed', *VIT, '--checks', 'maps', '-o', 'out.png')
    assert code == 1 and out == 'out.png\n' and 'mixed/a.png' in err and '1 of 3 images failed' in err


def test_the_table_is_not_printed_where_only_errors_are_wanted(capsys, here):
    _, _, err = check(capsys, 'things/good.png', *VIT, '--checks', 'maps', '-o', 'x.png', '--log-level', 'error')
    assert err == ''


@pytest.mark.parametrize(
    ('words', 'told'),
    [
        (['--checks', 'sanity'], "--checks: unknown check 'sanity'; accepted: all, randomization"),
        (['--method', 'NoCAM'], "--method: unknown method 'NoCAM'"),
        (['--target-layers', 'nowhere'], '--target-layers: '),
        (['--target-category', 'no such class'], '--target-category: '),
        (['--indices', '7'], '--indices: '),
        (['--max-samples', '0'], '--max-samples: '),
        (['--classes', 'cat'], '--classes: files have no labels'),
        (['--seed', 'x'], '--seed: '),
        (['-o', 'report.tif'], '--out: '),
        (['-o', 'things/good.png/x.png'], '--out: '),
        (['--device', 'nope'], '--device: '),
    ],
)
def test_bad_input_is_one_line(capsys, here, words, told):
    code, out, err = check(capsys, 'things/folder', *VIT, '-o', 'out', *words)
    errors = [line for line in err.splitlines() if line.startswith('error: ')]
    assert code == 2 and out == '' and len(errors) == 1 and errors[0].startswith(f'error: {told}'), err
    assert files(here) == []
