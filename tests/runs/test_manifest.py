"""The record of a run: what is done stays done, what is not whole is done again."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vistool.errors import InputError
from vistool.runs.launch import Place
from vistool.runs.manifest import Manifest, file_entry, groups_of, merge, read_lines, stamp, with_their_batches


@dataclass
class File:
    path: Path | None
    name: str


SETTINGS = {'settings': {'method': ['GradCAM'], 'checkpoint contents': ['ab']}}


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / 'photo.jpg'
    path.write_bytes(b'a photo')
    return File(path, 'photo')


def do(folder, item, index=0, rank=0, **more):
    """One image's work: its file, then its line."""
    written = folder / f'{item.name}.png'
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_bytes(item.name.encode() * 20)
    line = {**stamp(item, index), 'index': index, 'files': [file_entry(folder, written)], 'error': None, **more}
    Manifest(folder, Place(rank, 1)).add(line)
    return written


def resumed(folder, settings=SETTINGS):
    return Manifest.begin(folder, settings, Place(), resume=True)


def test_what_is_done_and_intact_is_known_again(tmp_path, photo):
    out = tmp_path / 'out'
    Manifest.begin(out, SETTINGS, Place())
    written = do(out, photo)
    assert resumed(out).has(stamp(photo, 0))
    written.write_bytes(written.read_bytes()[:-1])
    assert not resumed(out).has(stamp(photo, 0))
    written.write_bytes(b'other..' * 20)
    assert not resumed(out).has(stamp(photo, 0))
    written.unlink()
    assert not resumed(out).has(stamp(photo, 0))


def test_another_photo_under_the_same_name_is_not_done(tmp_path, photo):
    out = tmp_path / 'out'
    Manifest.begin(out, SETTINGS, Place())
    do(out, photo)
    photo.path.write_bytes(b'another photo')
    assert not resumed(out).has(stamp(photo, 0))


def test_what_failed_is_tried_again(tmp_path, photo):
    out = tmp_path / 'out'
    Manifest.begin(out, SETTINGS, Place())
    do(out, photo, error='broken')
    assert not resumed(out).has(stamp(photo, 0))


def test_files_are_known_by_their_path_and_samples_without_files_by_their_index(photo):
    assert 'index' not in stamp(photo, 3)
    assert stamp(File(None, 'sample'), 3) == {'name': 'sample', 'input': None, 'index': 3}
    os.unlink(photo.path)
    assert stamp(photo, 3)['bytes'] is None


@pytest.mark.parametrize('cut', [1, 5, 40, 100])
def test_a_line_that_was_not_finished_does_not_count(tmp_path, photo, cut):
    out = tmp_path / 'out'
    Manifest.begin(out, SETTINGS, Place())
    do(out, photo)
    do(out, File(photo.path, 'second'), 1)
    record = out / 'manifest-0.jsonl'
    record.write_bytes(record.read_bytes()[:-cut])
    again = resumed(out)
    assert again.has(stamp(photo, 0)) and not again.has(stamp(File(photo.path, 'second'), 1))
    do(out, File(photo.path, 'second'), 1)
    again.finish()
    assert [line['name'] for line in read_lines(out)] == ['photo', 'second']


def test_other_settings_are_refused_unless_the_run_is_to_start_again(tmp_path, photo):
    out = tmp_path / 'out'
    Manifest.begin(out, SETTINGS, Place())
    do(out, photo)
    other = {'settings': {**SETTINGS['settings'], 'method': ['LayerCAM']}}
    with pytest.raises(InputError, match=r"resume: .*method: \['GradCAM'\] → \['LayerCAM'\].*overwrite"):
        resumed(out, other)
    assert resumed(out).has(stamp(photo, 0))
    Manifest.begin(out, other, Place(), overwrite=True)
    assert not resumed(out, other).has(stamp(photo, 0))


def test_an_unfinished_run_is_not_thrown_away_by_mistake(tmp_path, photo):
    out = tmp_path / 'out'
    Manifest.begin(out, SETTINGS, Place())
    do(out, photo)
    with pytest.raises(InputError, match='unfinished run .1 images done.*resume'):
        Manifest.begin(out, SETTINGS, Place())
    resumed(out).finish()
    Manifest.begin(out, SETTINGS, Place())


def test_a_folder_without_a_run_starts_from_the_beginning(tmp_path):
    assert resumed(tmp_path / 'out').done == {}


def test_a_damaged_run_file_is_an_error(tmp_path):
    (tmp_path / 'run.json').write_text('{"settings"')
    with pytest.raises(InputError, match=r'run\.json.*overwrite'):
        resumed(tmp_path)


def test_merging_orders_the_lines_of_all_processes_and_keeps_the_last_of_each(tmp_path, photo):
    out = tmp_path / 'out'
    for index in (4, 2, 0):
        do(out, File(photo.path, f'n{index}'), index, rank=0)
    for index in (3, 1):
        do(out, File(photo.path, f'n{index}'), index, rank=1)
    merge(out)
    do(out, File(photo.path, 'n2'), 2, rank=1, error='later')
    merge(out)
    lines = [json.loads(text) for text in (out / 'manifest.jsonl').read_text().splitlines()]
    assert [line['index'] for line in lines] == [0, 1, 2, 3, 4]
    assert [line['error'] for line in lines] == [None, None, 'later', None, None]
    assert not list(out.glob('manifest-*'))


def test_half_written_files_of_a_killed_run_go(tmp_path, photo):
    out = tmp_path / 'out'
    Manifest.begin(out, SETTINGS, Place())
    do(out, photo)
    left = out / 'sub' / '.photo.png.4711.3.tmp'
    left.parent.mkdir()
    left.write_bytes(b'half')
    kept = out / '.mine.tmp'
    kept.write_bytes(b'')
    resumed(out)
    assert not left.exists() and kept.exists()


@given(st.integers(0, 60), st.integers(1, 9), st.integers(1, 4), st.data())
def test_every_pending_image_is_one_processes_work_and_fixed_batches_never_change(count, size, world, data):
    order = list(range(0, 3 * count, 3))
    pending = sorted(data.draw(st.sets(st.sampled_from(order)))) if order else []
    whole = [order[start : start + size] for start in range(0, count, size)]
    for fixed in (False, True):
        # a stand-in for mmengine's dealing out, which asks the process group
        class Fake(Place):
            def share(self, values):
                return list(values)[self.rank :: self.world]

        groups = [groups_of(order, pending, Fake(rank, world), size, fixed) for rank in range(world)]
        taken = [index for rank in groups for group in rank for index in group]
        if fixed:
            assert all(group in whole for rank in groups for group in rank)
            assert len(taken) == len(set(taken)) and set(pending) <= set(taken)
            assert all(set(group) & set(pending) for rank in groups for group in rank)
        else:
            assert sorted(taken) == pending


def test_what_stood_beside_a_failed_image_is_done_again():
    order = [1, 3, 5, 7, 9, 11, 13]
    assert with_their_batches(order, [5, 13], [5], 3) == [1, 3, 5, 13]
    assert with_their_batches(order, [5, 13], [], 3) == [5, 13]
