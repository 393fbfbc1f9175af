"""Where images lie on an embedding map, and how a run's command is given other images."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from gallery_runs import known, line, small_lines, write_run

from vistool.commands import boundary
from vistool.commands.vis_cam import build_parser
from vistool.errors import InputError
from vistool.gallery.build import build_gallery
from vistool.gallery.data import page_data
from vistool.gallery.points import read_points
from vistool.gallery.runs import read_run
from vistool.runs.manifest import again_of, label_entry


def data_of(folder):
    text = (folder / 'gallery' / 'data.js').read_text('ascii')
    return json.loads(text.removeprefix('window.VISTOOL_GALLERY=')[:-2])


def test_images_get_their_points_by_path_else_by_name(tmp_path):
    table = tmp_path / 'tsne' / 'tsne.csv'
    table.parent.mkdir()
    (table.parent / 'tsne_confusion.csv').write_text('label,cup\ncup,3\n')
    table.write_text(
        'index,name,path,x,y,x_2,y_2\n'
        '0,other,photos/a_tabby.jpg,1.5,-2,0,1e-3\n'
        '1,b_tabby,,3,4,5,6\n'
        '2,c_cup,elsewhere/c_cup.jpg,7,8,9,10\n'
    )
    folder = write_run(tmp_path / 'run', small_lines())
    for place in (table, table.parent):
        build_gallery(folder, embedding=place)
        data = data_of(folder)
        assert data['embeddings'] == [{'name': 'tsne', 'note': ''}, {'name': 'tsne 2', 'note': ''}]
        points = [image.get('points') for image in data['images']]
        assert points[:3] == [[[1.5, -2], [0, 0.001]], [[3, 4], [5, 6]], [[7, 8], [9, 10]]] and not any(points[3:])


def test_a_run_that_lays_its_samples_out_has_a_map_of_its_own(tmp_path):
    lines = small_lines()
    for number, each in enumerate(lines):
        each['points'] = [[number, 1 / 3]]
    folder = write_run(tmp_path, lines, embeddings=[{'name': 'net', 'note': 't-SNE'}])
    data = page_data([read_run(folder)], [''])
    assert data['embeddings'] == [{'name': 'net', 'note': 't-SNE'}]
    assert data['images'][2]['points'] == [[2, 0.33333]]


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        ('', 'has no row; accepted: vis_tsne'),
        ('name,x\na,1\n', 'has name, x; accepted'),
        ('image,x,y\na,1,2\n', 'has image, x, y; accepted'),
        ('name,x,y\na,1,two\n', 'line 2: x or y is not a number'),
        ('name,x,y\na,1\n', 'line 2: x or y is not a number'),
        ('name,x,y\na,1,2\nb,nan,2\n', 'line 3: x or y is not finite'),
        ('name,x,y\nnobody,1,2\n', 'no image of .* is in .*; run both over the same images'),
        ('name,x,y\n"' + 'a' * 200_000 + '",1,2\n', 'is not a table'),
    ],
)
def test_a_table_that_places_no_image_is_refused(tmp_path, content, said):
    folder, table = write_run(tmp_path / 'run', small_lines()), tmp_path / 'points.csv'
    table.write_text(content)
    with pytest.raises(InputError, match=f'(?s)^embedding: .*{said}'):
        build_gallery(folder, embedding=table)
    assert not (folder / 'gallery' / 'index.html').exists()


def test_a_folder_has_to_hold_one_table(tmp_path):
    with pytest.raises(InputError, match=r'holds 0 tables with x and y \(none\)'):
        read_points(tmp_path, 'embedding')
    for name in ('pca', 'tsne'):
        (tmp_path / f'{name}.csv').write_text('name,x,y\na,1,2\n')
    with pytest.raises(InputError, match=r'holds 2 tables .*\(pca.csv, tsne.csv\).*name the file'):
        read_points(tmp_path, 'embedding')
    with pytest.raises(InputError, match='cannot be read'):
        read_points(tmp_path / 'none.csv', 'embedding')


def test_classes_are_written_once_and_compared_models_are_runs_without_pictures(tmp_path):
    lines = [line(n, str(n), known(281, 0.5), known(285)) for n in range(3)]
    for each in lines:
        each['compared'] = [{'name': 'other', 'prediction': known(285, 0.6)}]
        each['instances'] = [{'kind': 'miss', 'id': 968, 'name': 'cup', 'score': None, 'iou': 0.25}]
    folder = write_run(tmp_path, lines)
    build_gallery(folder)
    data = data_of(folder)
    assert sorted(data['classes']) == [[281, 'tabby'], [285, 'Egyptian cat'], [968, 'cup']]
    number = {name: place for place, (_, name) in enumerate(data['classes'])}
    assert [(run['name'], run['right'], run.get('pictures')) for run in data['runs']] == [
        ('other', 3, False),
        ('small-net', 0, None),
    ]
    image = data['images'][0]
    assert image['label'] == number['Egyptian cat'] and image['objects'] == [['miss', number['cup'], None, 0.25]]
    assert [run['prediction'] for run in image['runs']] == [[number['Egyptian cat'], 0.6], [number['tabby'], 0.5]]


def test_labels_of_other_classes_than_the_models_keep_their_own_names():
    model, animals = ('tench', 'goldfish', 'shark'), ('cat', 'dog')
    assert label_entry(1, model, animals) == {'id': None, 'name': 'dog'}
    assert label_entry(1, model, ('a', 'b', 'c')) == {'id': 1, 'name': 'goldfish'}
    assert label_entry(1, None, animals) == {'id': 1, 'name': 'dog'}
    assert label_entry(1, model, None) == {'id': 1, 'name': 'goldfish'}
    assert label_entry(5, None, None) == {'id': 5, 'name': 'class 5'}
    assert label_entry(None, model, animals) is None


def test_a_prediction_is_neither_right_nor_wrong_where_the_classes_are_others(tmp_path):
    lines = [line(n, str(n), known(281, 0.5), {'id': None, 'name': 'weave'}) for n in range(2)]
    (facts,) = page_data([read_run(write_run(tmp_path, lines))], [''])['runs']
    assert (facts['judged'], facts['right']) == (0, 0)


@pytest.mark.parametrize(
    ('words', 'again'),
    [
        ('photos c.py w.pth --method GradCAM -o out --gallery', 'vis_cam NONE c.py w.pth --method GradCAM'),
        ('photos c.py --gallery base ours --indices 3 4-9', 'vis_cam NONE c.py'),
        ('--per-class=3 photos c.py --only wrong --max-samples 5 --amp', 'vis_cam NONE c.py --amp'),
        ('@val c.py --classes cat dog --resume --out=o', 'vis_cam NONE c.py'),
        ("'my photos' c.py --target-category 'hot dog'", "vis_cam NONE c.py --target-category 'hot dog'"),
    ],
)
def test_a_command_is_given_other_images(words, again):
    argv = shlex.split(words)
    parser = build_parser()
    args = parser.parse(argv)
    found = parser.again(argv, boundary._OF_ONE_RUN, str(args.images))
    assert list(found) == [None if word == 'NONE' else word for word in shlex.split(again)]


def test_where_a_run_was_started_is_told_only_inside_that_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'here').mkdir()
    words = ('vis_cam', None, 'c.py')
    assert again_of(words, '@val', Path('work_dirs/x'), False)['again'] == {
        'words': list(words),
        'images': '@val',
        'home': '../..',
    }
    monkeypatch.chdir(tmp_path / 'here')
    assert again_of(words, 'photos', tmp_path / 'out', False)['again']['home'] is None
    assert again_of(words, 'photos', Path('out'), True)['again']['home'] is None
    assert again_of((), 'photos', Path('out'), False) == {} == again_of(words, ['a.jpg'], Path('out'), False)
