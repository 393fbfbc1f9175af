"""Tiles: aligned, of one size, named as the maps are, the same from any thread."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import PurePosixPath

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vistool.data.geometry import Geometry
from vistool.errors import InputError
from vistool.gallery.tiles import write_tiles
from vistool.results import Heatmap, Heatmaps, Measure, NetworkView
from vistool.visualization.raster import colorize
from vistool.visualization.style import Style, lookup_table


def photo(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 20 + 2, width // 20 + 2, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def heatmap(seed=0, size=(7, 7), more=None, **place):
    return Heatmap(np.random.default_rng(seed).random(size, np.float32), place, **(more or {}))


def cam(height=375, width=500, maps=None, **more):
    maps = maps or (
        heatmap(0, more={'score': 0.83}, method='gradcam', target='tabby', layer='backbone.norm'),
        heatmap(1, more={'score': 0.83}, method='layercam', target='tabby', layer='backbone.norm'),
    )
    titles = {'gradcam': 'GradCAM', 'layercam': 'LayerCAM'}
    return Heatmaps('cam', photo(height, width), maps, titles=titles, **more)


def read(folder, entry):
    data = cv2.imread(str(folder / entry['file']), cv2.IMREAD_COLOR)
    return cv2.cvtColor(data, cv2.COLOR_BGR2RGB)


def test_photo_then_maps_as_the_figure_names_them(tmp_path):
    tiles = write_tiles(cam(), tmp_path, Style(), 'a/b')
    assert [tile['kind'] for tile in tiles] == ['photo', 'map', 'map']
    assert tiles[1] == {
        'kind': 'map',
        'name': 'gradcam/tabby',
        'row': 'tabby 0.83',
        'column': 'GradCAM',
        'layer': 'backbone.norm',
        'method': 'GradCAM',
        'width': 384,
        'height': 288,
        'file': 'gallery/tiles/a/b/1.jpg',
    }
    assert {read(tmp_path, tile).shape for tile in tiles} == {(288, 384, 3)}
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob('*') if path.is_file()}
    assert files == {tile['file'] for tile in tiles}


@given(st.integers(8, 900), st.integers(8, 900))
@settings(max_examples=25, deadline=None)
def test_tiles_fit_and_are_never_enlarged(tmp_path_factory, height, width):
    folder = tmp_path_factory.mktemp('tiles')
    tiles = write_tiles(cam(height, width), folder, Style(), 'x')
    assert len({(tile['height'], tile['width']) for tile in tiles}) == 1
    tall, wide = tiles[0]['height'], tiles[0]['width']
    assert (tall, wide) == (height, width) if max(height, width) <= 384 else max(tall, wide) == 384
    assert abs(tall - max(1, height * wide / width)) <= 1 or abs(wide - max(1, width * tall / height)) <= 1
    assert read(folder, tiles[1]).shape == (tall, wide, 3)


def test_a_map_without_weight_is_the_photo_to_the_byte(tmp_path):
    tiles = write_tiles(cam(), tmp_path, Style(alpha=0.0), 'x')
    contents = {(tmp_path / tile['file']).read_bytes() for tile in tiles}
    assert len(contents) == 1


def test_a_hot_spot_lies_where_it_lies_in_the_photo(tmp_path):
    """The crop's geometry is kept: heat in the crop's upper left quarter is not in the photo's."""
    original = np.full((200, 400, 3), 128, np.uint8)
    geometry = Geometry(np.array([[1, 0, 200], [0, 1, 0], [0, 0, 1]], np.float64), (200, 200), (200, 400))
    values = np.zeros((200, 200), np.float32)
    values[:100, :100] = 1
    result = cam(maps=(Heatmap(values, {'method': 'gradcam'}),), original=original, geometry=geometry)
    result = replace(result, image=np.ascontiguousarray(original[:, 200:]))
    tiles = write_tiles(result, tmp_path, Style(), 'x')
    before, after = (read(tmp_path, tile).astype(int) for tile in tiles)
    red = (after - before)[..., 0] - (after - before)[..., 2]
    rows, columns = np.nonzero(red > 30)
    scale = 384 / 400
    assert abs(columns.min() - 200 * scale) <= 3 and abs(columns.max() - 300 * scale) <= 3
    assert rows.min() <= 3 and abs(rows.max() - 100 * scale) <= 3
    assert np.abs(after - before)[:, : int(190 * scale)].max() <= 3  # beyond the crop: the photo


def test_attention_cells_are_exact(tmp_path):
    heads = tuple(heatmap(i, (4, 4), layer='layers.11', head=i) for i in range(12))
    result = Heatmaps('attention', photo(64, 64), heads)
    tiles = write_tiles(result, tmp_path, Style(), 'x')
    assert len(tiles) == 13 and all(PurePosixPath(tile['file']).suffix == '.png' for tile in tiles[1:])
    assert [tile['method'] for tile in tiles[1:]] == [f'head {i}' for i in range(12)]
    assert {tile['layer'] for tile in tiles[1:]} == {'layers.11'}
    values = heads[3].values / heads[3].values.max()
    expected = colorize(values, lookup_table('inferno')).repeat(16, 0).repeat(16, 1)
    assert np.array_equal(read(tmp_path, tiles[4]), expected)


def test_features_are_named_by_reduction_and_layer(tmp_path):
    maps = (
        heatmap(0, (8, 8), layer='stages.0', reduction='mean', model='base'),
        heatmap(1, (8, 8), layer='stages.0', reduction='mean', model='ours'),
        heatmap(2, (8, 8), {'metrics': {'cka': 0.9}}, layer='stages.0', reduction='mean', model='ours', minus='base'),
    )
    tiles = write_tiles(Heatmaps('feature', photo(64, 64), maps), tmp_path, Style(), 'x')
    assert [(tile['method'], tile['layer']) for tile in tiles[1:]] == [
        ('mean', 'stages.0'),
        ('mean', 'ours: stages.0'),
        ('mean', 'ours − base: stages.0'),
    ]
    assert 'footer' not in tiles[1] and tiles[3]['footer'] == 'CKA 0.90'


def test_metrics_stand_with_the_tile_of_their_map(tmp_path):
    maps = (
        heatmap(0, more={'metrics': {'deletion': 0.25, 'energy': math.nan}}, method='gradcam'),
        heatmap(1, method='layercam'),
    )
    measures = {'deletion': Measure('del', 'lower'), 'energy': Measure('energy', 'higher')}
    tiles = write_tiles(cam(maps=maps, measures=measures), tmp_path, Style(), 'a')
    assert tiles[1]['metrics'] == [
        {'name': 'deletion', 'short': 'del', 'better': 'lower', 'value': 0.25},
        {'name': 'energy', 'short': 'energy', 'better': 'higher', 'value': None},
    ]
    assert 'metrics' not in tiles[0] and 'metrics' not in tiles[2]


def test_layers_in_columns_are_no_part_of_the_method(tmp_path):
    maps = tuple(
        Heatmap(np.zeros((7, 7), np.float32), {'method': 'gradcam', 'layer': layer}) for layer in ('layer3', 'layer4')
    )
    tiles = write_tiles(cam(maps=maps, layers=('layer3', 'layer4')), tmp_path, Style(), 'x')
    assert [(tile['method'], tile['layer']) for tile in tiles[1:]] == [('GradCAM', 'layer3'), ('GradCAM', 'layer4')]
    assert tiles[1]['note'] == 'no positive evidence'


def test_another_network_brings_its_own_photo_once(tmp_path):
    mine, theirs = photo(64, 64), photo(64, 64, seed=5)
    other = NetworkView(theirs, None)
    maps = (
        heatmap(0, (4, 4), model='base', head='mean'),
        heatmap(1, (4, 4), {'view': other}, model='ours', head='mean'),
        heatmap(2, (4, 4), {'view': NetworkView(theirs.copy(), None)}, model='ours', head=1),
        heatmap(3, (4, 4), {'view': NetworkView(mine.copy(), None)}, model='same', head='mean'),
    )
    tiles = write_tiles(Heatmaps('attention', mine, maps), tmp_path, Style(), 'x')
    photos = [tile for tile in tiles if tile['kind'] == 'photo']
    named = {tile['name']: tile.get('photo') for tile in tiles if tile['kind'] == 'map'}
    assert len(photos) == 2 and tiles[0] is photos[0]
    assert named == {
        'base/mean': None,
        'ours/mean': photos[1]['file'],
        'ours/head 1': photos[1]['file'],
        'same/mean': None,
    }
    assert np.abs(read(tmp_path, photos[1]).astype(int) - theirs).mean() < 4
    assert len({tile['file'] for tile in tiles}) == len(tiles)


def test_threads_write_what_one_thread_writes(tmp_path):
    results = [cam(100 + 7 * i, 160) for i in range(8)]
    alone = [write_tiles(each, tmp_path / 'one', Style(), f'n/{i}') for i, each in enumerate(results)]
    with ThreadPoolExecutor(8) as pool:
        many = list(
            pool.map(lambda i: write_tiles(results[i % 8], tmp_path / 'many', Style(), f'n/{i % 8}'), range(40))
        )
    assert many == alone * 5
    for tile in (tile for tiles in alone for tile in tiles):
        assert (tmp_path / 'one' / tile['file']).read_bytes() == (tmp_path / 'many' / tile['file']).read_bytes()
    assert not list(tmp_path.rglob('*.tmp'))


@pytest.mark.parametrize('name', ['a b#c%20', '../../x', 'C:\\x?', 'käse/日本', '...', 'con'])
def test_names_stay_inside_the_folder(tmp_path, name):
    folder = tmp_path / 'run'
    for tile in write_tiles(cam(40, 40), folder, Style(), name):
        path = PurePosixPath(tile['file'])
        assert not path.is_absolute() and '..' not in path.parts and path.parts[:2] == ('gallery', 'tiles')
        assert (folder / tile['file']).resolve().is_relative_to(folder.resolve())
        assert (folder / tile['file']).is_file()


def test_a_folder_that_cannot_be_written_names_the_option(tmp_path):
    (tmp_path / 'gallery').write_text('in the way')
    with pytest.raises(InputError, match=r'^gallery: cannot write'):
        write_tiles(cam(40, 40), tmp_path, Style(), 'x')
