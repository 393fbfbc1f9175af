"""A run from elsewhere: records and folders may hold anything; nothing outside changes or leaks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from gallery_runs import line, small_lines, write_run

from vistool.errors import InputError
from vistool.gallery.build import build_gallery
from vistool.gallery.data import as_script, page_data
from vistool.gallery.runs import is_relative, own_path, read_run
from vistool.runs.distributed import DistInfo
from vistool.runs.manifest import FORMAT, Manifest, file_entry, intact, read_entries

RECORD = {'format': FORMAT, 'settings': {'methods': ['GradCAM']}}


@pytest.fixture
def outside(tmp_path):
    """A folder of the user's with a private file; nothing in it may change."""
    folder = tmp_path / 'home'
    (folder / 'deep').mkdir(parents=True)
    (folder / '.bashrc').write_text('private')
    (folder / 'deep' / '0.jpg').write_text('private')
    before = contents(folder)
    yield folder
    assert contents(folder) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def fails(call, *args: object, words: str = '') -> None:
    with pytest.raises(InputError) as caught:
        call(*args)
    message = str(caught.value)
    assert '\n' not in message and words in message and len(message) < 700, message


# ---- paths in records


@pytest.mark.parametrize('where', ['file', 'photo', 'name'])
@pytest.mark.parametrize(
    'path',
    [
        'gallery//{}/.bashrc', '{}/.bashrc', '../home/.bashrc', 'gallery/../../home/.bashrc', 'gallery/./x.jpg',
        '/dev/zero', '', '.', '..', 'gallery/', 'a\0b', 'gallery/tiles/..', '/', 'gallery//tiles/a.jpg', './x.jpg',
    ],
)  # fmt: skip
def test_a_path_of_a_record_stays_in_its_folder(path, where, outside, tmp_path):
    path = path.format(outside)
    assert not is_relative(path)
    first = line(0, 'a')
    if where == 'name':
        first['files'] = [{'name': path, 'bytes': 1, 'crc32': '0'}]
    else:
        first['tiles'][1][where] = path
    foreign = write_run(tmp_path / 'foreign', [first], pictures=False)
    own = write_run(tmp_path / 'own', [line(0, 'a')])
    fails(build_gallery, own, [foreign], words='not a file of the run')
    fails(build_gallery, foreign)


def test_names_that_are_unusual_but_lie_inside():
    for name in (
        'a',
        'a/b.jpg',
        'gallery/tiles/x y/0.jpg',
        '...',
        '..a/b',
        'C:x',
        'a\\b',
        '日本/x\udcff.jpg',
        '-',
        '~',
    ):
        assert is_relative(name), name


# ---- links


@pytest.mark.parametrize('place', ['gallery', 'gallery/compared', 'gallery/compared/1', 'gallery/compared/1/tiles'])
def test_a_link_in_the_own_gallery_is_not_followed(place, outside, tmp_path):
    own, other = write_run(tmp_path / 'own', [line(0, 'a')]), write_run(tmp_path / 'other', [line(0, 'a')])
    link = own / place
    if place == 'gallery':
        link.rename(own / 'before')
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside, target_is_directory=True)
    fails(build_gallery, own, [other], words='is a link')
    if place != 'gallery':
        build_gallery(own)  # nothing is compared any more; the link was not copied by vistool, so it stays
    assert link.is_symlink()


@pytest.mark.parametrize('kind', ['file', 'folder', 'dangling', 'loop', 'hard text', 'fifo', 'folder itself', 'device'])
def test_a_tile_of_another_run_is_a_regular_picture(kind, outside, tmp_path):
    own, other = write_run(tmp_path / 'own', [line(0, 'a')]), write_run(tmp_path / 'other', [line(0, 'a')])
    tile = other / 'gallery/tiles/a/1.jpg'
    tile.unlink()
    if kind == 'file':
        tile.symlink_to(outside / 'deep/0.jpg')
    elif kind == 'folder':
        (other / 'gallery/tiles/a').rename(other / 'moved')
        (other / 'gallery/tiles/a').symlink_to(outside / 'deep')
    elif kind == 'dangling':
        tile.symlink_to(tmp_path / 'nowhere')
    elif kind == 'loop':
        tile.symlink_to(tile)
    elif kind == 'hard text':
        os.link(outside / '.bashrc', tile)
    elif kind == 'fifo':
        os.mkfifo(tile)
    elif kind == 'folder itself':
        tile.mkdir()
    else:
        tile.symlink_to('/dev/zero')
    fails(build_gallery, own, [other])
    copied = own / 'gallery/compared'
    assert not any(path.is_file() and path.read_bytes() == b'private' for path in copied.rglob('*'))


@pytest.mark.parametrize('data', [b'', b'GIF89a', b'<svg/>', b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n', b'%PDF-1.4'])
def test_a_tile_that_does_not_decode(data, tmp_path):
    own, other = write_run(tmp_path / 'own', [line(0, 'a')]), write_run(tmp_path / 'other', [line(0, 'a')])
    (other / 'gallery/tiles/a/1.jpg').write_bytes(data)
    fails(build_gallery, own, [other], words='is not a picture')


# ---- removal


def test_only_what_was_copied_is_removed(tmp_path, outside):
    own, other = write_run(tmp_path / 'own', [line(0, 'a')]), write_run(tmp_path / 'other', [line(0, 'a')])
    build_gallery(own, [other])
    mine = own / 'gallery/compared/1/notes.txt'
    mine.write_text('mine')
    (own / 'gallery/compared/mine').symlink_to(outside)
    build_gallery(own)
    assert mine.read_text() == 'mine' and not (own / 'gallery/compared/1/tiles').exists()


@pytest.mark.parametrize('name', ['{}/.bashrc', '../home/.bashrc', 'gallery/compared/../../run.json', 'run.json',
                                  'gallery/compared/link/.bashrc', 'gallery/index.html'])  # fmt: skip
def test_a_forged_list_of_copies_removes_nothing_else(name, tmp_path, outside):
    own = write_run(tmp_path / 'own', [line(0, 'a')])
    copied = own / 'gallery/compared'
    copied.mkdir(parents=True)
    (copied / 'link').symlink_to(outside)
    (copied / 'files.txt').write_text(name.format(outside) + '\n')
    build_gallery(own)
    assert (own / 'run.json').is_file() and (own / 'gallery/index.html').is_file()


def test_equal_runs_still_give_equal_galleries(tmp_path):
    other = write_run(tmp_path / 'other', small_lines())
    one, two = (write_run(tmp_path / name, small_lines()) for name in ('one', 'two'))
    for folder in (one, two, two):
        build_gallery(folder, [other])
    found = [{k: v for k, v in contents(each / 'gallery').items() if k != 'data.js'} for each in (one, two)]
    assert found[0] == found[1]


# ---- the page


@pytest.mark.parametrize('title', ['{{style}}', '{{script}}{{policy}}', '{{title}}', '</title><script>', '\\1 \\g<0>'])
def test_a_value_that_looks_like_a_placeholder_is_text(title, tmp_path):
    page = build_gallery(write_run(tmp_path, [line(0, 'a')], config=title))[0].read_text()
    assert page.count('<style>') == 1 and page.count('<script>') == 1 and page.count('<title>') == 1


# ---- damaged records

DEEP = json.loads('[' * 90 + ']' * 90)
FACTS = [
    {'settings': 3}, {'settings': [1]}, {'versions': {'torch': 3}}, {'versions': 'x'}, {'config': 3}, {'config': ['a']},
    {'tool': {}}, {'format': '2'}, {'checkpoint': 1.5}, {'command': ['x']}, {'sha256': 7},
]  # fmt: skip


@pytest.mark.parametrize('change', FACTS, ids=str)
def test_a_field_of_run_json_of_another_type(change, tmp_path):
    field = next(iter(change))
    folder = write_run(tmp_path, [line(0, 'a')], **change)
    fails(build_gallery, folder, words=f"run.json: the field '{field}")
    if field != 'format':
        fails(resumed, folder, words=f"run.json: the field '{field}")


ENTRIES = [
    {'name': None}, {'name': 3}, {'name': ['a']}, {'index': 'x'}, {'index': 1.5}, {'index': True}, {'index': [0]},
    {'label': 'tabby'}, {'label': {'id': 'x'}}, {'label': {'name': 3}}, {'prediction': [1]},
    {'prediction': {'id': 1, 'score': 'high'}}, {'prediction': {'score': float('nan')}},
    {'prediction': {'score': float('inf')}}, {'targets': {}}, {'targets': [3]}, {'targets': [{'score': []}]},
    {'tiles': {}}, {'tiles': ['0.jpg']}, {'tiles': [{'kind': 'photo'}]}, {'tiles': [{'file': 3}]},
    {'tiles': [{'file': 'a.jpg', 'width': 0}]}, {'tiles': [{'file': 'a.jpg', 'width': -5}]},
    {'tiles': [{'file': 'a.jpg', 'height': 10**30}]}, {'tiles': [{'file': 'a.jpg', 'height': '60'}]},
    {'tiles': [{'file': 'a.jpg', 'photo': None}]}, {'tiles': [{'file': 'a.jpg', 'row': 3}]},
    {'files': 'x'}, {'files': [{}]}, {'files': [{'name': 'a', 'bytes': -1}]}, {'files': [{'name': 'a', 'bytes': '1'}]},
    {'seconds': 'x'}, {'seconds': float('nan')}, {'error': 3}, {'uncertainty': {}}, {'input': 3}, {'input': ['a']},
]  # fmt: skip


@pytest.mark.parametrize('change', ENTRIES, ids=str)
def test_a_field_of_an_entry_of_another_type(change, tmp_path):
    field = next(iter(change))
    folder = write_run(tmp_path, [line(0, 'a'), {**line(1, 'b'), **change}], pictures=False, **RECORD)
    fails(build_gallery, folder, words=f"manifest.jsonl, line 2: the field '{field}")
    fails(resumed, folder, words=f"manifest.jsonl, line 2: the field '{field}")


TEXTS = [
    '{"name": ' + '9' * 5000 + '}', '{"name": "a", "x": ' + '[' * 50_000 + ']' * 50_000 + '}', '[]', '3', 'null',
    '{"name": "\\ud800"}', '{"name": "a", "index": ' + '9' * 400 + '.5}', '{}', '{"name": "a\\u0000b", "tiles": 3}',
    '{"name": "a", "x": ' + '{"y": ' * 300 + '1' + '}' * 301,
]  # fmt: skip
FITTING_RUN_JSON = TEXTS[6:9]  # what it does not know it does not look at


@pytest.mark.parametrize('text', TEXTS, ids=range(len(TEXTS)))
@pytest.mark.parametrize('file', ['run.json', 'manifest.jsonl'])
def test_json_that_nobody_expects(text, file, tmp_path):
    folder = write_run(tmp_path, [line(0, 'a')], pictures=False, **RECORD)
    (folder / file).write_text(text + '\n')
    if file == 'run.json' and text in FITTING_RUN_JSON:
        build_gallery(folder)
    else:
        fails(build_gallery, folder, words=file)


@pytest.mark.parametrize('text', TEXTS, ids=range(len(TEXTS)))
def test_json_that_nobody_expects_where_a_run_continues(text, tmp_path):
    folder = write_run(tmp_path, [], pictures=False, **RECORD)
    (folder / 'manifest-0.jsonl').write_text(text + '\n')
    try:
        resumed(folder)
    except InputError as error:
        assert 'manifest-0.jsonl, line 1' in str(error) and 'overwrite' in str(error)
    Manifest.begin(folder, RECORD, DistInfo(), overwrite=True)


@pytest.mark.parametrize('file', ['run.json', 'manifest.jsonl', 'manifest-0.jsonl'])
@pytest.mark.parametrize('kind', ['fifo', 'folder', 'bytes'])
def test_a_record_that_is_no_text_file(file, kind, tmp_path):
    folder = write_run(tmp_path, [line(0, 'a')], pictures=False, **RECORD)
    (folder / file).unlink(missing_ok=True)
    if kind == 'fifo':
        os.mkfifo(folder / file)
    elif kind == 'folder':
        (folder / file).mkdir()
    else:
        (folder / file).write_bytes(b'\xff\xfe\x00')
    if file != 'manifest-0.jsonl':
        fails(build_gallery, folder)
    if kind != 'bytes' or file == 'run.json':
        fails(resumed, folder)


def resumed(folder: Path) -> Manifest:
    return Manifest.begin(folder, RECORD, DistInfo(), resume=True)


def test_settings_that_are_deep_are_shown_cut(tmp_path):
    folder = write_run(tmp_path, [line(0, 'a')], settings={'methods': DEEP, 'x': 'y' * 100_000}, format=FORMAT)
    fails(resumed, folder, words='had other settings')
    page_data([read_run(folder)], [''])


def test_a_manifest_is_not_written_through_a_link(tmp_path, outside):
    folder = write_run(tmp_path / 'run', [], pictures=False, **RECORD)
    (folder / 'manifest-0.jsonl').symlink_to(outside / '.bashrc')
    fails(Manifest(folder).add, {'name': 'a'}, words='cannot write')


def test_files_that_are_not_ours_stay(tmp_path):
    folder = write_run(tmp_path / 'run', [], pictures=False, **RECORD)
    (folder / 'manifest-of-mine.jsonl').write_text('mine')
    Manifest.begin(folder, RECORD, DistInfo(), overwrite=True)
    resumed(folder).finish()
    assert (folder / 'manifest-of-mine.jsonl').read_text() == 'mine'


@pytest.mark.parametrize('name', ['/dev/zero', '../x', '{}/.bashrc', 'link/.bashrc/..'])
def test_a_file_elsewhere_is_never_intact(name, tmp_path, outside):
    (tmp_path / 'run').mkdir()
    assert not intact(tmp_path / 'run', {'name': name.format(outside), 'bytes': 7, 'crc32': '0'})


# ---- panels outside the folder of the run


def test_panels_elsewhere_are_known_again_and_named_without_their_folder(tmp_path):
    run, panels = tmp_path / 'run', tmp_path / 'panels'
    for folder in (run, panels):
        (folder / 'a').mkdir(parents=True)
        (folder / 'a/x.png').write_bytes(b'x')
    entries = [file_entry(run, folder / 'a/x.png', {'panels': panels}) for folder in (run, panels)]
    assert [entry['name'] for entry in entries] == ['a/x.png'] * 2
    assert [entry.get('within') for entry in entries] == [None, 'panels'] and str(tmp_path) not in json.dumps(entries)
    assert all(intact(run, entry, {'panels': panels}) for entry in entries)
    (panels / 'a/x.png').write_bytes(b'y')
    assert [intact(run, entry, {'panels': panels}) for entry in entries] == [True, False]


def test_a_gallery_leaves_panels_elsewhere_out(tmp_path):
    first = line(0, 'a')
    first['files'].append({'name': 'a/0.png', 'bytes': 1, 'crc32': '0', 'within': 'panels'})
    folder = write_run(tmp_path, [line(1, 'b')])
    folder = write_run(tmp_path, [first], pictures=False)
    run = page_data([read_run(folder)], [''])['images'][0]['runs'][0]
    assert run['files'] == [['a.png', '../a.png']]


def test_a_name_that_is_not_utf8_survives_the_manifest(tmp_path):
    (tmp_path / 'run').mkdir()
    manifest = Manifest.begin(tmp_path / 'run', RECORD, DistInfo())
    manifest.add({'name': 'x\udcff', 'index': 0, 'input': 'p/x\udcff.jpg', 'files': [], 'error': None})
    manifest.add({'name': 'käse', 'index': 1, 'files': [], 'error': None})
    manifest.finish()
    assert [entry['name'] for entry in read_entries(tmp_path / 'run')] == ['x\udcff', 'käse']
    assert 'käse' in (tmp_path / 'run/manifest.jsonl').read_text()


def test_own_path_refuses_links_at_every_depth(tmp_path):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a/link').symlink_to(tmp_path)
    assert own_path(tmp_path, 'a/b/c') == tmp_path / 'a/b/c'
    for name in ('a/link', 'a/link/x', 'a/link/a/b'):
        fails(own_path, tmp_path, name, words='is a link')


def test_the_page_takes_what_the_schema_takes(tmp_path):
    odd = {'name': '\U0001f600\x01\u2028', 'prediction': {'score': 10**300}, 'label': {}, 'targets': [{}], 'seconds': 0}
    folder = write_run(tmp_path, [{**line(0, 'a'), **odd}, {**line(10**40, 'b'), 'tiles': None}], pictures=False)
    assert as_script(page_data([read_run(folder)], [''])).isascii()
