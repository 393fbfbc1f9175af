"""Many images at once: what one image gives alone, with broken ones told and skipped."""

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from vistool.tools.vis_cam import main

from vistool.errors import InputError
from vistool.inputs import Sample
from vistool.jobs.batches import Batches, report

CONFIG = 'configs/efficientnet_lite/efficientnet-lite0_in1k.py'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """40 images of different sizes, in sub-folders, with equal names; three of them broken."""
    root = tmp_path_factory.mktemp('many')
    photos = [Image.open(f'demo/{name}').convert('RGB') for name in ('coffee.png', 'chelsea.png', 'rocket.jpg')]
    rng = np.random.default_rng(0)
    for number in range(40):
        path = root / ('ab'[number % 2]) / f'{number // 2:02d}.jpg'
        path.parent.mkdir(exist_ok=True)
        height, width = (int(side) for side in rng.integers(60, 300, 2))
        photos[number % 3].resize((width, height)).save(path)
        if number in (3, 17, 38):
            path.write_bytes(path.read_bytes()[: 200 if number == 3 else 0] or b'not an image')
    return root


def raw(path):
    with np.load(path) as data:
        return data['maps_0']


def test_a_batch_gives_what_single_runs_give(folder, tmp_path, capsys):
    options = [CONFIG, '--save-raw', '--layout', 'overlay', '--method', 'gradcam', 'eigencam']
    assert main([str(folder), *options, '-o', str(tmp_path / 'batch'), '--batch-size', '7']) == 1
    captured = capsys.readouterr()
    assert len([line for line in captured.out.splitlines() if line.endswith('.npz')]) == 37
    broken = [line for line in captured.err.splitlines() if line.startswith('error: ')]
    assert len(broken) == 4 and '3 of 40 images failed' in broken[-1]
    for name in ('b/01', 'b/08', 'a/19'):
        assert any(f'{name}.jpg' in line for line in broken)
    for name in ('a/00', 'b/05', 'a/12'):
        single = tmp_path / 'single.png'
        assert main([str(folder / f'{name}.jpg'), *options, '-o', str(single)]) == 0
        together = raw(tmp_path / 'batch' / f'{name}_gradcam-eigencam.npz')
        np.testing.assert_allclose(together, raw(single.with_suffix('.npz')), atol=1e-5)


def sample(size, number):
    return Sample(data=None, image=np.zeros((*size, 3), np.uint8), name=str(number), index=number)


def test_consecutive_images_of_one_size_go_together():
    sizes = [(2, 2)] * 3 + [(2, 4)] * 2 + [(2, 2)] * 2
    groups, written = [], []

    def explain(samples):
        groups.append([each.index for each in samples])
        return samples

    batches = Batches(lambda index, size: sample(size, index), explain, lambda result, _: [Path(result.name)], 2)
    assert batches.run(sizes, written.extend) == []
    assert groups == [[0, 1], [2], [3, 4], [5, 6]]
    assert written == [Path(str(number)) for number in range(7)]


def test_reading_runs_ahead_but_not_far():
    ahead, done = [], []

    def explain(samples):
        done.extend(samples)
        ahead.append(read.count - len(done))
        return samples

    def read(index, item):
        with lock:
            read.count += 1
        return sample((2, 2), index)

    lock, read.count = threading.Lock(), 0
    Batches(read, explain, lambda result, _: [], 4, 2).run(range(200), lambda paths: None)
    assert len(done) == 200 and max(ahead) <= 2 * 4 + 2 + 4


def test_a_single_broken_item_is_an_error():
    def read(index, item):
        raise InputError('broken')

    with pytest.raises(InputError, match='broken'):
        Batches(read, list, lambda result, _: []).run(['x'], print)


def test_a_failing_writer_stops_the_run():
    def write(result, each):
        raise InputError('disk full')

    batches = Batches(lambda index, item: sample((2, 2), index), list, write, 2)
    with pytest.raises(InputError, match='disk full'):
        batches.run(range(50), lambda paths: None)


def test_report_counts(caplog):
    assert report([], 3) == 0
