"""The manifest of a run: what is done stays done, what is not whole is done again."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vistool.data.datasets import DatasetItem
from vistool.data.samples import Item
from vistool.errors import InputError
from vistool.runs.distributed import DistInfo
from vistool.runs.manifest import (
    FORMAT,
    Manifest,
    file_entry,
    fingerprint,
    groups_of,
    merge,
    plain,
    read_entries,
    with_their_batches,
)

RECORD = {'format': FORMAT, 'settings': {'methods': ['GradCAM'], 'checkpoint contents': ['ab']}}


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / 'photo.jpg'
    path.write_bytes(b'a photo')
    return Item(path, 'photo')


def do(folder, item, index=0, rank=0, **more):
    """One image's work: its file, then its entry."""
    written = folder / f'{item.name}.png'
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_bytes(item.name.encode() * 20)
    entry = {**fingerprint(item, index), 'index': index, 'files': [file_entry(folder, written)], 'error': None, **more}
    Manifest(folder, DistInfo(rank, 1)).add(entry)
    return written


def resumed(folder, record=RECORD):
    return Manifest.begin(folder, record, DistInfo(), resume=True)


def test_what_is_done_and_intact_is_known_again(tmp_path, photo):
    out = tmp_path / 'out'
    Manifest.begin(out, RECORD, DistInfo())
    written = do(out, photo)
    assert resumed(out).has(fingerprint(photo, 0))
    written.write_bytes(written.read_bytes()[:-1])
    assert not resumed(out).has(fingerprint(photo, 0))
    written.write_bytes(b'other..' * 20)
    assert not resumed(out).has(fingerprint(photo, 0))
    written.unlink()
    assert not resumed(out).has(fingerprint(photo, 0))


def test_another_photo_under_the_same_name_is_not_done(tmp_path, photo):
    out = tmp_path / 'out'
    Manifest.begin(out, RECORD, DistInfo())
    do(out, photo)
    photo.path.write_bytes(b'another photo')
    assert not resumed(out).has(fingerprint(photo, 0))


def test_what_failed_is_tried_again(tmp_path, photo):
    out = tmp_path / 'out'
    Manifest.begin(out, RECORD, DistInfo())
    do(out, photo, error='broken')
    assert not resumed(out).has(fingerprint(photo, 0))


def test_files_are_known_by_their_path_and_samples_without_files_by_their_index(photo):
    assert 'index' not in fingerprint(photo, 3)
    array = DatasetItem(np.zeros((2, 2, 3), np.uint8), 'sample', 3, None, {})
    assert fingerprint(array, 3) == {'name': 'sample', 'input': None, 'index': 3}
    os.unlink(photo.path)
    assert fingerprint(photo, 3)['bytes'] is None


@pytest.mark.parametrize('cut', [1, 5, 40, 100])
def test_an_entry_that_was_not_finished_does_not_count(tmp_path, photo, cut):
    out = tmp_path / 'out'
    Manifest.begin(out, RECORD, DistInfo())
    do(out, photo)
    do(out, Item(photo.path, 'second'), 1)
    record = out / 'manifest-0.jsonl'
    record.write_bytes(record.read_bytes()[:-cut])
    again = resumed(out)
    assert again.has(fingerprint(photo, 0)) and not again.has(fingerprint(Item(photo.path, 'second'), 1))
    do(out, Item(photo.path, 'second'), 1)
    again.finish()
    assert [entry['name'] for entry in read_entries(out)] == ['photo', 'second']


def test_other_settings_are_refused_unless_the_run_is_to_start_again(tmp_path, photo):
    out = tmp_path / 'out'
    Manifest.begin(out, RECORD, DistInfo())
    do(out, photo)
    other = {**RECORD, 'settings': {**RECORD['settings'], 'methods': ['LayerCAM']}}
    with pytest.raises(InputError, match=r"resume: .*methods: \['GradCAM'\] → \['LayerCAM'\].*overwrite"):
        resumed(out, other)
    assert resumed(out).has(fingerprint(photo, 0))
    Manifest.begin(out, other, DistInfo(), overwrite=True)
    assert not resumed(out, other).has(fingerprint(photo, 0))


def test_an_unfinished_run_is_not_thrown_away_by_mistake(tmp_path, photo):
    out = tmp_path / 'out'
    Manifest.begin(out, RECORD, DistInfo())
    do(out, photo)
    with pytest.raises(InputError, match='unfinished run .1 image done.*resume'):
        Manifest.begin(out, RECORD, DistInfo())
    resumed(out).finish()
    Manifest.begin(out, RECORD, DistInfo())


@pytest.mark.parametrize('finished', [True, False])
def test_a_run_of_earlier_code_is_refused_in_one_line(tmp_path, photo, finished):
    out = tmp_path / 'out'
    Manifest.begin(out, {'settings': {'method': ['GradCAM']}}, DistInfo())
    do(out, photo)
    if finished:
        merge(out)
    with pytest.raises(InputError, match=r'another version of vistool.*overwrite'):
        resumed(out)
    assert len(list(read_entries(out))) == 1
    Manifest.begin(out, RECORD, DistInfo(), overwrite=True)
    assert json.loads((out / 'run.json').read_text()) == RECORD


def test_a_folder_without_a_run_starts_from_the_beginning(tmp_path):
    assert resumed(tmp_path / 'out').done == {}


def test_a_damaged_run_file_is_an_error(tmp_path):
    (tmp_path / 'run.json').write_text('{"settings"')
    with pytest.raises(InputError, match=r'run\.json.*overwrite'):
        resumed(tmp_path)


def test_merging_orders_the_entries_of_all_processes_and_keeps_the_last_of_each(tmp_path, photo):
    out = tmp_path / 'out'
    for index in (4, 2, 0):
        do(out, Item(photo.path, f'n{index}'), index, rank=0)
    for index in (3, 1):
        do(out, Item(photo.path, f'n{index}'), index, rank=1)
    merge(out)
    do(out, Item(photo.path, 'n2'), 2, rank=1, error='later')
    merge(out)
    entries = [json.loads(text) for text in (out / 'manifest.jsonl').read_text().splitlines()]
    assert [entry['index'] for entry in entries] == [0, 1, 2, 3, 4]
    assert [entry['error'] for entry in entries] == [None, None, 'later', None, None]
    assert not list(out.glob('manifest-*'))


def test_half_written_files_of_a_killed_run_go(tmp_path, photo):
    out = tmp_path / 'out'
    Manifest.begin(out, RECORD, DistInfo())
    do(out, photo)
    left = out / 'sub' / '.photo.png.4711.3.tmp'
    left.parent.mkdir()
    left.write_bytes(b'half')
    kept = out / '.mine.tmp'
    kept.write_bytes(b'')
    resumed(out)
    assert not left.exists() and kept.exists()


def test_settings_are_json_and_the_same_in_every_process():
    def score(output, samples):
        return output[:, 0]

    @dataclasses.dataclass(frozen=True)
    class Inner:
        values: np.ndarray
        path: Path

    found = plain({'score': score, 'inner': Inner(np.arange(6.0), Path('x')), 'many': (1, torch.ones(2))})
    assert found == json.loads(json.dumps(found))
    assert found['score'].endswith('score') and '0x' not in str(found)
    assert found['inner']['values'].startswith('float64 (6,) ') and found['inner']['path'] == 'x'
    assert plain(np.arange(6.0)) != plain(np.arange(6.0) + 1)


@given(st.integers(0, 60), st.integers(1, 9), st.integers(1, 4), st.data())
def test_every_pending_image_is_one_processes_work_and_fixed_batches_never_change(count, size, world, data):
    order = list(range(0, 3 * count, 3))
    pending = sorted(data.draw(st.sets(st.sampled_from(order)))) if order else []
    whole = [order[start : start + size] for start in range(0, count, size)]
    for fixed in (False, True):
        # a stand-in for mmengine's dealing out, which asks the process group
        class Fake(DistInfo):
            def share(self, values):
                return list(values)[self.rank :: self.world_size]

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
