"""Many images at once: what one image gives alone, with broken ones reported and skipped."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vistool as vt
from vistool.commands.vis_cam import main
from vistool.data.samples import Sample
from vistool.errors import InputError
from vistool.runs.batches import Batches, throughput

CONFIG = 'configs/efficientnet_lite/efficientnet-lite0_in1k.py'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """20 images of different sizes, in sub-folders, with equal names; three of them broken."""
    root = tmp_path_factory.mktemp('many')
    photos = [Image.open(f'demo/{name}').convert('RGB') for name in ('coffee.png', 'chelsea.png', 'rocket.jpg')]
    rng = np.random.default_rng(0)
    for number in range(20):
        path = root / ('ab'[number % 2]) / f'{number // 2:02d}.jpg'
        path.parent.mkdir(exist_ok=True)
        height, width = (int(side) for side in rng.integers(60, 300, 2))
        photos[number % 3].resize((width, height)).save(path)
        if number in (3, 13, 18):
            path.write_bytes(path.read_bytes()[: 200 if number == 3 else 0] or b'not an image')
    return root


def test_a_batch_gives_what_single_images_give(folder, tmp_path, capsys):
    options = [CONFIG, '--save-raw', '--layout', 'overlay', '--method', 'gradcam', 'eigencam']
    assert main([str(folder), *options, '-o', str(tmp_path), '--batch-size', '7']) == 1
    captured = capsys.readouterr()
    assert len([line for line in captured.out.splitlines() if line.endswith('.npz')]) == 17
    broken = [line for line in captured.err.splitlines() if line.startswith('error: ')]
    assert len(broken) == 4 and '3 of 20 images failed' in broken[-1]
    for name in ('b/01', 'b/06', 'a/09'):
        assert any(f'{name}.jpg' in line for line in broken)
    model = vt.load(CONFIG)
    for name in ('a/00', 'b/05', 'a/07'):
        alone = vt.CAM(['gradcam', 'eigencam'])(model, model.read(folder / f'{name}.jpg'))
        with np.load(tmp_path / f'{name}_gradcam-eigencam.npz') as together:
            np.testing.assert_allclose(together['maps_0'], [each.values for each in alone.maps], atol=1e-5)


def sample(size, number):
    return Sample(data=None, image=np.zeros((*size, 3), np.uint8), name=str(number), index=number)


def batches(explain=list, write=lambda result, each, seconds: Path(result.name), read=None, **options):
    def read_views(index, item):
        return (sample(item, index) if read is None else read(index, item),)

    return Batches(read_views, lambda views: explain(views[0]), write, **options)


def unexpected(index, item, error):
    raise AssertionError(f'{item}: {error}')


def test_consecutive_images_of_one_size_go_together():
    sizes = [(2, 2)] * 3 + [(2, 4)] * 2 + [(2, 2)] * 2
    groups, written = [], []

    def explain(samples):
        groups.append([each.index for each in samples])
        return samples

    batches(explain, batch_size=2).run(sizes, written.append, unexpected)
    assert groups == [[0, 1], [2], [3, 4], [5, 6]]
    assert written == [Path(str(number)) for number in range(7)]


def test_no_batch_reaches_over_a_group_and_the_unwanted_is_explained_but_not_written():
    groups, written = [], []

    def explain(samples):
        groups.append([each.index for each in samples])
        return samples

    batches(explain, batch_size=3).run(
        [(2, 2)] * 10, written.append, unexpected, groups=[[0, 1, 2, 3], [6, 7], [9]], unwanted={1, 6}
    )
    assert groups == [[0, 1, 2], [3], [6, 7], [9]]
    assert [path for path in written if path] == [Path(name) for name in '02379']


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
    batches(explain, read=read, batch_size=4).run(range(200), lambda path: None, unexpected)
    assert len(done) == 200 and max(ahead) <= 2 * 4 + 2 + 4


def test_a_single_broken_item_is_an_error():
    def read(index, item):
        raise InputError('broken')

    with pytest.raises(InputError, match='broken'):
        batches(read=read).run(['x'], print, unexpected)


def test_a_failing_writer_stops_the_run():
    def write(result, each, seconds):
        raise InputError('disk full')

    with pytest.raises(InputError, match='disk full'):
        batches(write=write, batch_size=2).run([(2, 2)] * 50, print, unexpected)


def test_what_cannot_be_explained_is_reported_and_the_others_beside_it_are_written():
    def explain(samples):
        if any(each.index in (1, 5) for each in samples):
            raise InputError('no such pixel')
        return samples

    written, failed = [], []
    run = batches(explain, batch_size=3)
    run.run([(2, 2)] * 7, written.append, lambda index, item, error: failed.append((index, str(error))))
    assert [path.name for path in written] == list('02346')
    assert failed == [(1, 'no such pixel'), (5, 'no such pixel')]
    assert run.clock.images == 5


@pytest.mark.parametrize('size', [1, 4])
def test_what_no_image_of_the_first_batch_allows_is_an_error(size):
    tried = []

    def explain(samples):
        tried.extend(samples)
        raise InputError('no such layer')

    with pytest.raises(InputError, match='no such layer'):
        batches(explain, batch_size=size).run([(2, 2)] * 40, print, unexpected)
    assert len(tried) <= 2 * size


def test_out_of_memory_halves_the_batch_and_goes_on(caplog):
    sizes, written = [], []

    def explain(samples):
        if len(samples) > 3:
            raise torch.OutOfMemoryError('CUDA out of memory')
        sizes.append(len(samples))
        return samples

    with caplog.at_level('WARNING', 'vistool'):
        batches(explain, batch_size=12).run([(2, 2)] * 20, written.append, unexpected)
    assert [path.name for path in written] == [str(number) for number in range(20)]
    assert max(sizes) == 3 and 'batches of 6' in caplog.text and 'batches of 3' in caplog.text


def test_no_memory_for_one_image_is_an_error_that_says_so():
    def explain(samples):
        raise torch.OutOfMemoryError('CUDA out of memory')

    with pytest.raises(InputError, match='not enough memory'):
        batches(explain, batch_size=4).run([(2, 2)] * 9, print, unexpected)


def test_the_clock_counts_what_is_waited_for():
    def read(index, size):
        time.sleep(0.02)
        return sample(size, index)

    run = batches(read=read, workers=1)
    run.run([(2, 2)] * 20, lambda path: None, unexpected)
    assert run.clock.seconds['decode'] > 5 * (run.clock.seconds['forward'] + run.clock.seconds['write'])
    assert throughput([run.clock, run.clock]).startswith('40 images in ')


def test_a_canceled_pass_writes_what_it_has_explained_and_no_more():
    written, read_ahead = [], []

    def read(index, item):
        read_ahead.append(index)
        return sample((2, 2), index)

    run = batches(read=read, batch_size=2, canceled=lambda: run.clock.images >= 6)
    run.run(range(100), written.append, unexpected)
    assert [path.name for path in written] == list('012345')
    assert len(read_ahead) < 20
