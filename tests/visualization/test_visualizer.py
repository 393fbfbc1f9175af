from __future__ import annotations

import csv
import io
import json
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image
from sample_results import heatmaps, photo

import vistool as vt
from vistool.errors import InputError
from vistool.results import Curve, Curves, GridImage, Heatmap, ImageGrid, Target
from vistool.visualization import files
from vistool.visualization import text as fonts
from vistool.visualization.files import safe_name, table
from vistool.visualization.kinds import figure, overlay, picture_pixels, to_panels
from vistool.visualization.style import Style
from vistool.visualization.visualizer import Visualizer, save, sheet

SUFFIXES = ['.png', '.jpg', '.jpeg', '.webp', '.pdf', '.svg']
TWO = ('GradCAM', 'LayerCAM')


def curves() -> Curves:
    steps = np.arange(100)
    rate = Curve(steps, 0.1 / (1 + steps), 'swin_$x$', 'decay', 'lr', label='$ours_1')
    momentum = Curve(steps, 0.9 + 0 * steps, 'swin_$x$', 'decay', 'momentum')
    return Curves((rate, momentum), {'swin_$x$': 20.0}, 'swin $x_1', '5 epochs')


def grid() -> ImageGrid:
    return ImageGrid(((GridImage(photo(20, 30), ('a $x_$ b',), ('cat',)), GridImage(photo(30, 20))),))


TECHNICAL = {'jfif', 'jfif_version', 'jfif_unit', 'jfif_density', 'loop', 'background'}
RESULTS = {'heatmaps': heatmaps(columns=TWO), 'grid': grid(), 'curves': curves()}


@pytest.mark.parametrize('suffix', SUFFIXES)
@pytest.mark.parametrize('kind', RESULTS)
def test_rewriting_gives_the_same_bytes_without_private_metadata(tmp_path, suffix, kind, monkeypatch):
    path = tmp_path / f'secret{suffix}'
    assert save(RESULTS[kind], path) == [path]
    first = path.read_bytes()
    monkeypatch.setenv('SOURCE_DATE_EPOCH', '86400')
    save(RESULTS[kind], path)
    assert path.read_bytes() == first
    assert os.listdir(tmp_path) == [path.name]
    for private in (
        b'Matplotlib',
        b'secret',
        b'Creator',
        b'Producer',
        b'CreationDate',
        b'<dc:date>',
        b'Exif',
        bytes(tmp_path),
    ):
        assert private not in first
    if suffix in ('.png', '.jpg', '.jpeg', '.webp'):
        with Image.open(path) as image:
            assert image.format == {'.png': 'PNG', '.webp': 'WEBP'}.get(suffix, 'JPEG')
            told = {'Software': 'vistool'} if suffix == '.png' else {}
            assert {name: image.info[name] for name in set(image.info) - TECHNICAL} == told


def test_png_holds_the_painted_pixels(tmp_path):
    save(RESULTS['heatmaps'], tmp_path / 'a.png')
    written = cv2.imread(str(tmp_path / 'a.png'))[..., ::-1]
    np.testing.assert_array_equal(written, picture_pixels(RESULTS['heatmaps'], Style()))


@pytest.mark.parametrize('shape', [(1, 1), (3, 700), (300, 41)])
def test_a_png_is_encoded_in_strips(monkeypatch, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    monkeypatch.setattr('vistool.data.display._STRIP', 5 * shape[1])
    with Image.open(io.BytesIO(files.encode_pixels(pixels, '.png'))) as image:
        assert image.mode == 'RGB'
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_jpeg_keeps_color_at_full_resolution(tmp_path):
    save(RESULTS['heatmaps'], tmp_path / 'a.jpg')
    with Image.open(tmp_path / 'a.jpg') as image:
        assert {component[1:3] for component in image.layer} == {(1, 1)}


@pytest.mark.parametrize('kind', RESULTS)
def test_pdf_has_type_42_fonts_and_the_right_size(tmp_path, kind):
    save(RESULTS[kind], tmp_path / 'a.pdf', width='text')
    data = (tmp_path / 'a.pdf').read_bytes()
    assert b'/FontFile2' in data and b'/Type3' not in data
    box = [float(number) for number in re.search(rb'/MediaBox \[([^\]]*)\]', data)[1].split()]
    assert box[2] == pytest.approx(6.875 * 72, abs=0.01)


def test_svg_text_is_text_and_dollars_are_no_formulas(tmp_path):
    result = heatmaps(('$\\frac cat$ 0.95',), TWO)
    save(replace(result, label=Target('a_$1$', 1), prediction=Target('b', 2)), tmp_path / 'a.svg', width=700)
    text = (tmp_path / 'a.svg').read_text()
    for line in ('GradCAM', 'LayerCAM', 'GT: a_$1$', 'predicted: b', '$\\frac cat$ 0.95 · each map scaled'):
        assert f'>{line}' in text


def test_column_pdf_is_small(tmp_path):
    save(heatmaps(columns=('a', 'b', 'c'), size=(400, 600), crop=224), tmp_path / 'a.pdf')
    assert (tmp_path / 'a.pdf').stat().st_size < 1_000_000


def test_a_folder_gets_pngs_with_sub_folders_kept(tmp_path):
    writer = Visualizer(tmp_path / 'run.v2', Style())
    assert writer.write(RESULTS['heatmaps'], 'a/b/cat.v1') == [tmp_path / 'run.v2/a/b/cat.v1.png']
    assert writer.write(RESULTS['heatmaps'], 'a/b/cat.v2') == [tmp_path / 'run.v2/a/b/cat.v2.png']


@pytest.mark.parametrize('name', ['x.tiff', 'x.gif', 'x.TIF', 'x.npz'])
def test_other_picture_formats_are_refused(tmp_path, name):
    with pytest.raises(InputError, match=r'out.*png, jpg, jpeg, webp, pdf, svg'):
        Visualizer(tmp_path / name, Style()).check()


def test_one_file_holds_one_result(tmp_path):
    writer = Visualizer(tmp_path / 'a.png', Style())
    with pytest.raises(InputError, match='folder'):
        writer.check(2)
    writer.write(RESULTS['heatmaps'], 'one')
    writer.write(RESULTS['heatmaps'], 'one')
    with pytest.raises(InputError, match="'one' and 'two'"):
        writer.write(RESULTS['heatmaps'], 'two')


def test_a_path_through_a_file_is_refused_early_and_late(tmp_path):
    (tmp_path / 'file').write_text('')
    for out in (tmp_path / 'file' / 'sub', tmp_path / 'file', tmp_path / 'file' / 'a.png'):
        with pytest.raises(InputError, match=r'^out: cannot write'):
            Visualizer(out, Style()).check()
        with pytest.raises(InputError, match=r'^out: cannot write'):
            Visualizer(out, Style()).write(RESULTS['heatmaps'], 'a')
    with pytest.raises(InputError, match=r'^panels: cannot write'):
        Visualizer(None, Style(), panels=tmp_path / 'file').check()
    assert os.listdir(tmp_path) == ['file']


def test_an_unwritable_folder_is_refused(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(files.tempfile, 'TemporaryFile', refuse)
    with pytest.raises(InputError, match='Permission denied'):
        Visualizer(tmp_path / 'new' / 'folder', Style()).check()


def test_checking_leaves_nothing_behind(tmp_path):
    Visualizer(tmp_path / 'new' / 'folder', Style()).check(5)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize('error', [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize('moment', ['write_bytes', 'replace'])
def test_failures_leave_the_old_file_and_nothing_else(tmp_path, monkeypatch, error, moment):
    path = tmp_path / 'a.png'
    path.write_bytes(b'old')

    def fail(*_):
        raise error

    monkeypatch.setattr(*((files.Path, moment, fail) if moment == 'write_bytes' else (files.os, moment, fail)))
    with pytest.raises(error):
        save(RESULTS['heatmaps'], path)
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['a.png']


def test_a_result_that_cannot_be_drawn_leaves_nothing(tmp_path):
    bad = heatmaps(maps=(Heatmap(np.zeros((1, 7, 7), np.float32)),))
    with pytest.raises(InputError):
        Visualizer(tmp_path / 'out', Style(), save_raw=True, panels=tmp_path / 'p').write(bad, 'a')
    assert not os.listdir(tmp_path)


def test_raw_round_trip(tmp_path):
    first = np.random.default_rng(0).random((5, 4), np.float32)
    maps = (
        Heatmap(first, {'method': 'gradcam', 'target': '猫', 'layer': 'g1'}, range=(0.0, 2.0)),
        Heatmap(np.ones((5, 4), np.float32), {'method': 'gradcam', 'target': 'cup', 'layer': 'g1'}),
        Heatmap(np.full((2, 2), -3, np.float32), {'method': 'x', 'layer': 'g2'}),
    )
    result = heatmaps(maps=maps, provenance={'seed': 1, 'scores': (0.5,), 'name': '猫', 'score': np.float32(0.5)})
    writer = Visualizer(tmp_path / 'a.jpg', Style(), save_raw=True)
    assert writer.write(result, 'a') == [tmp_path / 'a.jpg', tmp_path / 'a.npz']
    first = (tmp_path / 'a.npz').read_bytes()
    with np.load(tmp_path / 'a.npz', allow_pickle=False) as raw:
        apart = {f'{name}_{group}' for name in ('maps', 'names', 'coordinates') for group in (0, 1)}
        assert set(raw) == {*apart, 'groups', 'range_0', 'image', 'geometry', 'original_size', 'recipe'}
        assert json.loads(raw['coordinates_0'][0]) == {'method': 'gradcam', 'layer': 'g1', 'target': '猫'}
        assert raw['groups'].tolist() == ['g1', 'g2'] and raw['names_0'].tolist() == ['gradcam/猫', 'gradcam/cup']
        assert raw['maps_0'].dtype == raw['range_0'].dtype == np.float32 and raw['maps_0'].shape == (2, 5, 4)
        np.testing.assert_array_equal(raw['maps_0'][0], maps[0].values)
        np.testing.assert_array_equal(raw['range_0'], [[0, 2], [np.nan, np.nan]])
        np.testing.assert_array_equal(raw['image'], result.image)
        assert json.loads(str(raw['recipe'])) == {'seed': 1, 'scores': [0.5], 'name': '猫', 'score': 0.5}
    writer.write(result, 'a')
    assert (tmp_path / 'a.npz').read_bytes() == first


def test_curves_are_written_as_a_table(tmp_path):
    save(curves(), tmp_path / 'lr.png', save_raw=True)
    with open(tmp_path / 'lr.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ['step', 'epoch', 'config', 'group', 'parameter', 'value']
    assert len(rows) == 200 and rows[45]['epoch'] == '2' and rows[45]['config'] == 'swin_$x$'
    assert [float(row['value']) for row in rows[:100]] == curves().curves[0].values.tolist()


def test_overlay_layout_writes_each_map(tmp_path):
    writer = Visualizer(tmp_path, Style(layout='overlay'))
    names = [path.name for path in writer.write(RESULTS['heatmaps'], 'cat')]
    assert names == ['cat_GradCAM-espresso.png', 'cat_LayerCAM-espresso.png']
    assert cv2.imread(str(tmp_path / 'cat_GradCAM-espresso.png')).shape == (96, 96, 3)
    assert Visualizer(tmp_path / 'one.png', Style(layout='overlay')).write(heatmaps(), 'x') == [tmp_path / 'one.png']
    with pytest.raises(InputError, match='layout'):
        save(heatmaps(), tmp_path / 'x.pdf', layout='overlay')


def test_panels_are_of_one_size(tmp_path):
    written = Visualizer(None, Style(), panels=tmp_path).write(RESULTS['heatmaps'], 'a/cat')
    names = ['input.png', 'GradCAM-espresso.png', 'LayerCAM-espresso.png', 'figure.tex']
    assert [path.name for path in written] == names
    assert {cv2.imread(str(path)).shape for path in written[:-1]} == {(160, 240, 3)}


def test_sheets_have_pages(tmp_path):
    results = [heatmaps(columns=TWO)] * 20
    assert sheet(results, tmp_path / 's.pdf', Style()) == [tmp_path / 's.pdf']
    assert (tmp_path / 's.pdf').read_bytes().count(b'/Type /Page ') == 2
    assert [p.name for p in sheet(results, tmp_path / 's.png', Style())] == ['s-1.png', 's-2.png']
    assert sheet(results[:2], tmp_path / 't.png', Style()) == [tmp_path / 't.png']


@pytest.mark.parametrize('name', ['a/b/cat', 'photo (1)', '猫', 'v1.5'])
def test_good_names_stay(name):
    assert safe_name(name) == name


def test_names_stay_inside_the_folder_and_apart():
    names = ['../../etc/x', '/etc/x', 'a:b', 'a?b', 'a_b', 'con', 'x' * 500, '猫' * 300, 'tail. ', '..', '']
    names += ['a/n', r'a\n', r'..\n']  # the second is a file whose name has a line break, or a backslash
    made = [safe_name(name) for name in names]
    for part in '/'.join(made).split('/'):
        assert part not in ('', '.', '..') and len(part.encode()) <= 220 and not re.search(r'[<>:"|?*\\]', part)
    assert len(set(made)) == len(made) - 1  # the first two name the same file below the folder


def test_threads_write_what_one_thread_writes(tmp_path):
    results = [heatmaps((f'class {i} 0.{i}',), TWO) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        many = Visualizer(tmp_path / 'many', Style())
        list(pool.map(many.write, results, map(str, range(8))))
    for index, result in enumerate(results):
        (path,) = Visualizer(tmp_path / 'one', Style()).write(result, str(index))
        assert path.read_bytes() == (tmp_path / 'many' / path.name).read_bytes()
    assert threading.active_count() < 50


def test_figures_come_without_pyplot_state_and_leave_parameters_alone():
    import matplotlib
    from matplotlib import pyplot

    before = dict(matplotlib.rcParams)
    made = figure(RESULTS['heatmaps'], Style(width='column'))
    assert made.get_size_inches()[0] == pytest.approx(3.25)
    assert not pyplot.get_fignums() and dict(matplotlib.rcParams) == before
    assert {text.get_text() for text in made.axes[0].texts} == set(TWO)


def test_a_figure_looks_like_the_painted_pixels():
    from vistool.visualization.vector import rasterize

    drawn, painted = rasterize(figure(RESULTS['heatmaps'])), picture_pixels(RESULTS['heatmaps'], Style())
    assert drawn.shape == painted.shape
    assert np.abs(drawn.astype(int) - painted).mean() < 3


def test_overlay_for_python():
    made = overlay(heatmaps(columns=TWO))
    assert [image.shape for image in made] == [(96, 96, 3)] * 2 and made[0].dtype == np.uint8
    with pytest.raises(InputError, match='have no maps to overlay'):
        overlay(RESULTS['curves'])


def test_no_window_where_there_is_no_screen(monkeypatch):
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, 'get_backend', lambda: 'agg')
    with pytest.raises(InputError, match='show'):
        Visualizer(None, Style(), show=True).check()


@pytest.mark.parametrize('suffix', ['.png', '.pdf', '.svg'])
def test_characters_without_any_font_never_fail(tmp_path, suffix, monkeypatch, recwarn):
    monkeypatch.setattr(fonts, 'fallback_faces', lambda: ())
    fonts._face_of.cache_clear()
    fonts._width.cache_clear()
    save(heatmaps(('浓缩咖啡 0.95',), ('类激活图', 'GradCAM')), tmp_path / f'a{suffix}', width=600)
    assert (tmp_path / f'a{suffix}').stat().st_size > 1000
    assert not [warning for warning in recwarn if 'missing' in str(warning.message)]
    fonts._face_of.cache_clear()


def test_maps_are_drawn_into_subplots_of_ones_own():
    from matplotlib.figure import Figure

    result = heatmaps(('espresso 0.95', 'cup 0.02'), ('GradCAM', 'LayerCAM'))
    made = Figure()
    axes = made.subplots(2, 2)
    axes[0, 0].set_title('mine')
    assert vt.show(result, ax=axes) is made
    assert all(len(each.images) == 1 and not each.axison for each in axes.ravel())
    assert axes[0, 0].get_title() == 'mine'
    tiles = dict(to_panels(result, Style()))
    assert np.array_equal(axes[1, 1].images[0].get_array(), [*tiles.values()][-1])
    with_photo = Figure().subplots(1, 5)
    vt.show(result, ax=with_photo)
    assert np.array_equal(with_photo[0].images[0].get_array(), tiles['input'])
    vt.show(result.isel(target=0, method=0), ax=made.subplots())
    with pytest.raises(InputError, match='ax: 3 axes; accepted: 4, or 5 with the photo'):
        vt.show(result, ax=Figure().subplots(1, 3))
    with pytest.raises(InputError, match='ax: 2 results; accepted: one result'):
        vt.show([result, result], ax=axes)


def test_tables_name_no_folder_of_this_machine(monkeypatch, tmp_path):
    """Photos below the current folder, in the home folder and elsewhere; text of other columns stays."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HOME', '/home/me')
    paths = str(tmp_path / 'a/1.jpg'), '/home/me/data/2.jpg', '/data/me/of mine/3.jpg', '', 'b/4.jpg'
    rows = [{'index': place, 'path': path, 'label': '/x/y/z'} for place, path in enumerate(paths)]
    read = list(csv.DictReader(io.StringIO(table(rows).decode())))
    assert [row['path'] for row in read] == ['a/1.jpg', '~/data/2.jpg', 'of mine/3.jpg', '', 'b/4.jpg']
    assert {row['label'] for row in read} == {'/x/y/z'}


def test_a_picture_is_never_put_in_the_place_of_its_photo(tmp_path):
    photos, link = tmp_path / 'photos', tmp_path / 'link'
    photos.mkdir()
    (photos / 'a.png').write_bytes(b'photo')
    link.symlink_to(photos)
    visualizer = Visualizer(link)
    visualizer.keep([photos / 'a.png', None])
    with pytest.raises(InputError, match='is an image of this run, which would be overwritten'):
        visualizer.write(RESULTS['heatmaps'], 'a')
    assert (photos / 'a.png').read_bytes() == b'photo'
    assert visualizer.write(RESULTS['heatmaps'], 'b') == [link / 'b.png']
