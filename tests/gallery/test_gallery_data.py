"""Runs read back, matched, and put into the page."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib import resources
from urllib.parse import unquote

import pytest
from gallery_runs import failed, known, line, small_lines, write_run

from vistool.errors import InputError
from vistool.gallery.build import build_gallery
from vistool.gallery.data import as_script, finite, page_data, tile_url
from vistool.gallery.runs import matched, read_run, run_names


def data_of(folder):
    text = (folder / 'gallery' / 'data.js').read_text('ascii')
    assert text.startswith('window.VISTOOL_GALLERY=') and text.endswith(';\n')
    return json.loads(text.removeprefix('window.VISTOOL_GALLERY=')[:-2])


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_the_page_and_its_data_are_written_and_nothing_else(tmp_path):
    folder = write_run(tmp_path / 'run', small_lines())
    before = contents(folder)
    paths = build_gallery(folder)
    assert paths == [folder / 'gallery' / 'index.html', folder / 'gallery' / 'data.js']
    after = contents(folder)
    assert {path: after[path] for path in before} == before
    assert set(after) - set(before) == {path.relative_to(folder) for path in paths}


def test_equal_runs_give_equal_files_whatever_the_order_of_lines(tmp_path):
    one = write_run(tmp_path / '1' / 'run', small_lines())
    two = write_run(tmp_path / '2' / 'run', small_lines()[::-1])
    for each in (one, two):
        build_gallery(each)
    assert contents(one / 'gallery') == contents(two / 'gallery')
    build_gallery(one)
    assert contents(one / 'gallery') == contents(two / 'gallery')


def test_counts_follow_from_labels_and_predictions(tmp_path):
    data = page_data([read_run(write_run(tmp_path, small_lines()))], [''])
    (facts,) = data['runs']
    assert (facts['images'], facts['judged'], facts['right'], facts['errors']) == (7, 5, 3, 1)
    assert facts['mean_score'] == pytest.approx((0.9 + 0.6 + 0.3 + 0.8 + 0.99 + 0.1) / 6, abs=1e-4)
    assert [image['name'] for image in data['images']] == [each['name'] for each in small_lines()]
    assert data['maps'] == [
        ['GradCAM', 'backbone.norm', 'GradCAM'],
        ['LayerCAM', 'backbone.norm', 'LayerCAM'],
        ['GradCAM', 'backbone.norm', 'GradCAM · backbone.norm'],
        ['GradCAM', 'backbone.stage3', 'GradCAM · backbone.stage3'],
    ]
    assert data['ratio'] == 1.333
    assert data['images'][6]['runs'] == [{'error': 'image file is truncated'}]


@pytest.mark.parametrize(
    ('sizes', 'ratio'),
    [([(384, 96)] * 3, 4.0), ([(96, 384)], 0.5), ([(384, 2)], 4.0), ([(384, 288)] * 2 + [(384, 2)], 1.333)],
)
def test_cards_have_the_shape_of_most_photos(tmp_path, sizes, ratio):
    tiles = [
        {'kind': 'photo', 'name': 'photo', 'file': f'gallery/tiles/{n}.jpg', 'width': w, 'height': h}
        for n, (w, h) in enumerate(sizes)
    ]
    lines = [{**line(n, str(n), known(281, 0.5)), 'tiles': [tile]} for n, tile in enumerate(tiles)]
    assert page_data([read_run(write_run(tmp_path, lines))], [''])['ratio'] == ratio


def test_the_last_of_several_lines_for_an_image_counts(tmp_path):
    lines = [failed(0, 'a', 'disk full'), line(1, 'b', known(281, 0.5)), line(0, 'a', known(281, 0.5))]
    run = read_run(write_run(tmp_path, lines))
    assert [(each['name'], each['error']) for each in run.images] == [('a', None), ('b', None)]


def test_metrics_are_written_once_and_their_values_with_each_map(tmp_path):
    lines = [line(n, str(n), known(281, 0.5)) for n in range(3)]
    for each, value in zip(lines, (0.25, None, None), strict=True):
        each['tiles'][1]['metrics'] = [{'name': 'deletion', 'short': 'del', 'better': 'lower', 'value': value}]
    lines[2]['tiles'][1]['metrics'] = [{'name': 'own'}]
    data = page_data([read_run(write_run(tmp_path, lines))], [''])
    assert data['metrics'] == [['deletion', 'del', 'lower'], ['own', 'own', 'higher']]
    assert [image['runs'][0]['maps'][0][5] for image in data['images']] == [[[0, 0.25]], [[0, None]], [[1, None]]]
    assert 'metrics' not in page_data([read_run(write_run(tmp_path / 'x', small_lines()))], [''])


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (
            lambda f: (f / 'manifest.jsonl').unlink(),
            r'not hold a finished run: manifest.jsonl is missing.*finish the run',
        ),
        (lambda f: (f / 'run.json').unlink(), r'not hold a finished run: run.json is missing'),
        (lambda f: (f / 'run.json').write_text('{'), r'run.json is not valid JSON'),
        (lambda f: (f / 'run.json').write_text('[]'), r'run.json is not a JSON object'),
        (
            lambda f: (f / 'manifest.jsonl').open('a').write('{"index": 7, "na'),
            r'line 8 is not valid JSON',
        ),
        (lambda f: (f / 'manifest.jsonl').open('a').write('7\n'), r'line 8 is not a JSON object'),
        (lambda f: (f / 'manifest.jsonl').write_bytes(b'\xff\xfe'), r'not UTF-8'),
        (lambda f: (f / 'manifest.jsonl').write_text(''), r'has no tiles to show; .*gallery=True and resume=True'),
    ],
)
def test_what_is_not_a_finished_run_is_refused(tmp_path, spoil, message):
    folder = write_run(tmp_path / 'run', small_lines())
    spoil(folder)
    with pytest.raises(InputError, match=f'(?s)^gallery: .*{message}'):
        build_gallery(folder)
    assert not (folder / 'gallery' / 'index.html').exists()


@pytest.mark.parametrize(
    'change',
    [
        {'name': None},
        {'name': 3},
        {'index': 'x'},
        {'label': 'tabby'},
        {'tiles': {}},
        {'tiles': ['0.jpg']},
        {'tiles': [{'kind': 'photo'}]},
        {'tiles': [{'kind': 'photo', 'file': '/etc/passwd'}]},
        {'tiles': [{'kind': 'photo', 'file': 'gallery/../../x.jpg'}]},
        {'tiles': [{'kind': 'map', 'file': 'a.jpg', 'photo': '../b.jpg'}]},
        {'files': [{'name': '../../x.png'}]},
    ],
)
def test_lines_of_another_shape_are_refused(tmp_path, change):
    folder = write_run(tmp_path, [*small_lines(), {**small_lines()[0], 'index': 9, **change}], pictures=False)
    with pytest.raises(InputError, match=r'^gallery: .*line 8: .*; run it again'):
        build_gallery(folder)


def test_a_run_without_tiles_says_how_to_get_them(tmp_path):
    lines = [{key: value for key, value in each.items() if key != 'tiles'} for each in small_lines()]
    with pytest.raises(InputError, match='has no tiles to show; run it again with gallery=True and resume=True'):
        build_gallery(write_run(tmp_path, lines, pictures=False))
    with pytest.raises(InputError, match='not hold a finished run'):
        build_gallery(tmp_path / 'nowhere')


def test_runs_are_matched_by_input_then_by_name_then_by_order(tmp_path):
    def at(index, name, path):
        return line(index, name, known(281, 0.5), input=path)

    base = [
        at(0, 'x', 'p/1.jpg'),
        at(1, 'same', 'q/2.jpg'),
        at(2, 'd0', 'd.jpg'),
        at(3, 'd1', 'd.jpg'),
        at(4, 'z', 'z'),
    ]
    ours = [at(0, 'same', None), at(1, 'y', 'p/1.jpg'), at(2, 'e0', 'd.jpg'), at(3, 'e1', 'd.jpg'), at(4, 'w', 'w')]
    runs = [read_run(write_run(tmp_path / name, lines, pictures=False)) for name, lines in (('b', base), ('o', ours))]
    pairs = [tuple(each and each['name'] for each in row) for row in matched(runs)]
    assert pairs == [('same', 'same'), ('x', 'y'), ('d0', 'e0'), ('d1', 'e1'), (None, 'w'), ('z', None)]


def test_each_of_several_runs_is_matched_with_the_last(tmp_path):
    inputs = {
        'a': {'x': 'elsewhere/1.jpg', 'y': 'p/2.jpg'},
        'b': {'q': 'p/1.jpg', 'y': None},
        'c': {'x': 'p/1.jpg', 'y': 'p/2.jpg'},
    }
    runs = [
        read_run(
            write_run(tmp_path / run, [line(i, n, input=p) for i, (n, p) in enumerate(of.items())], pictures=False)
        )
        for run, of in inputs.items()
    ]
    assert [[each and each['name'] for each in row] for row in matched(runs)] == [['x', 'q', 'x'], ['y', 'y', 'y']]


def test_runs_without_a_common_image_are_refused(tmp_path):
    one = write_run(tmp_path / 'one', [line(0, 'a', known(281, 0.5))])
    two = write_run(tmp_path / 'two', [line(0, 'b', known(281, 0.5))])
    with pytest.raises(InputError, match='have no image in common; run both over the same images'):
        build_gallery(one, [two])
    with pytest.raises(InputError, match='cannot stand beside itself'):
        build_gallery(one, [tmp_path / 'two' / '..' / 'one'])


def test_another_run_is_copied_and_forgotten_again(tmp_path):
    ours = write_run(tmp_path / 'ours', small_lines())
    base = write_run(tmp_path / 'base', small_lines(), config='small-net')
    before = contents(base)
    build_gallery(ours, [base])
    assert contents(base) == before
    data = data_of(ours)
    assert [run['name'] for run in data['runs']] == ['base', 'ours']
    for image in data['images']:
        for run in image['runs']:
            for url in [run.get('photo'), *(each[2] for each in run.get('maps', ()))]:
                assert url is None or (ours / 'gallery' / unquote(url)).is_file()
    theirs, own = data['images'][0]['runs']
    assert theirs['photo'] == 'compared/1/tiles/a_tabby/0.jpg' and own['photo'] == 'tiles/a_tabby/0.jpg'
    assert 'files' not in theirs and own['files'] == [['a_tabby.png', '../a_tabby.png']]
    build_gallery(ours)
    assert not (ours / 'gallery' / 'compared').exists()


def test_a_tile_of_another_run_that_is_gone_is_named(tmp_path):
    ours = write_run(tmp_path / 'ours', small_lines())
    base = write_run(tmp_path / 'base', small_lines())
    (base / 'gallery/tiles/c_cup/1.jpg').unlink()
    with pytest.raises(InputError, match=r'a tile of .*base.* is gone: gallery/tiles/c_cup/1.jpg'):
        build_gallery(ours, [base])


def test_runs_are_told_apart_by_config_else_by_folder(tmp_path):
    def run(folder, config):
        return read_run(write_run(tmp_path / folder, small_lines(), pictures=False, config=config))

    assert run_names([run('a', 'swin'), run('b', 'resnet')]) == ['swin', 'resnet']
    assert run_names([run('a', 'swin'), run('b', 'swin')]) == ['a', 'b']
    assert run_names([run('p/x', 'swin'), run('q/x', 'swin')]) == ['x (1)', 'x (2)']


@pytest.mark.parametrize(
    'path', ['a b/0.jpg', '#1%20?.jpg', 'käse/日本"\'<&>.jpg', 'javascript:alert(1)', 'x\udcff.jpg']
)
def test_addresses_lead_back_to_the_file(path):
    url = tile_url(f'gallery/tiles/{path}', '')
    assert re.fullmatch(r'[\w./~%-]+', url, re.ASCII)
    assert unquote(url, errors='surrogateescape') == f'tiles/{path}'
    assert unquote(tile_url(path, 'compared/1/'), errors='surrogateescape') == f'compared/1/{path}'
    assert unquote(tile_url(path, ''), errors='surrogateescape') == f'../{path}'


def test_the_script_holds_nothing_that_could_end_it():
    evil = '</script><!-- & \u2028 \' " \\ 日本 \udcff'
    data = {'runs': [], 'images': [{'index': 0, 'name': evil}, {'index': 1, 'name': '},{"index'}]}
    script = as_script(data)
    assert script.isascii() and not set('<>&') & set(script)
    assert json.loads(script.removeprefix('window.VISTOOL_GALLERY=')[:-2]) == data


def test_numbers_that_json_does_not_know_are_left_out():
    assert [finite(value) for value in (float('nan'), float('inf'), None, True, 'x', 1, 0.123456789)] == [
        *[None] * 5,
        1.0,
        0.12346,
    ]


def test_the_policy_allows_exactly_the_style_and_script_inside(tmp_path):
    folder = write_run(tmp_path, small_lines(), config='<b>"&')
    page = build_gallery(folder)[0].read_text('utf-8')
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    for tag in ('style', 'script'):
        (inside,) = re.findall(f'<{tag}>(.*?)</{tag}>', page, re.S)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ") and 'unsafe' not in policy and 'http' not in policy
    assert '<title>&lt;b&gt;&quot;&amp; · vis_cam</title>' in page
    addresses = set(re.findall(r'https?://[^\s\'"<)]+', page))
    assert addresses == {'http://www.w3.org/2000/svg'}  # the name of SVG, which is never loaded
    assert not re.search(r'innerHTML|insertAdjacentHTML|document\.write|\beval\(|@import|url\(', page)
    assert '{{' not in re.sub(r'(?s)<(style|script)>.*?</\1>', '', page)


def test_the_parts_of_the_page_are_package_data():
    folder = resources.files('vistool.gallery')
    found = {each.name for each in folder.iterdir()}
    assert {'page.html', 'page.css', 'page.js', 'model.js', 'cards.js', 'bar.js', 'detail.js'} <= found
    assert {'base.css', 'elements.js'} <= {each.name for each in folder.joinpath('shared').iterdir()}


def test_images_of_one_name_are_two_images_each_with_its_own_tiles(tmp_path):
    """a/x.png and b/x.png, in one run and in two."""
    lines = [line(0, 'x', known(281, 0.9), input='a/x.png', home='zero'), line(1, 'x', input='b/x.png', home='one')]
    own = write_run(tmp_path / 'own', lines)
    other = write_run(tmp_path / 'other', list(reversed(lines)))
    build_gallery(own, [other])
    found = data_of(own)['images']
    assert [(each['name'], each['input'], each['index']) for each in found] == [
        ('x', 'a/x.png', 0),
        ('x', 'b/x.png', 1),
    ]
    for each, place in zip(found, ('zero', 'one'), strict=True):
        assert all(f'/{place}/' in run['photo'] for run in each['runs'])
