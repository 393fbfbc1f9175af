"""Coordinates and selection, tables, companions, kinds of one's own, and how results show themselves."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_results import heatmaps, models

import vistool as vt
from vistool import display
from vistool.errors import InputError, counted
from vistool.results import (
    ChannelStack,
    ChannelStatistics,
    Coordinates,
    Curve,
    Curves,
    DatasetSummary,
    HeadStatistics,
    Heatmap,
    LayerChannels,
    LayerStatistics,
    Result,
    distinct,
)
from vistool.visualization import kinds
from vistool.visualization.facets import facets
from vistool.visualization.style import Style
from vistool.visualization.visualizer import Visualizer

PNG = b'\x89PNG\r\n'


def cam():
    result = heatmaps(('espresso 0.95', 'cup 0.02'), ('gradcam', 'layercam'))
    maps = tuple(item.at(layer='backbone.layer4') for item in result)
    titles = {'gradcam': 'GradCAM', 'layercam': 'LayerCAM'}
    return replace(result, maps=maps, titles=titles, layers=('backbone.layer4',))


def test_coordinates_are_an_immutable_mapping_in_a_fixed_order():
    place = Coordinates(target='cup', method='gradcam', own=3)
    assert list(place) == ['method', 'target', 'own'] and place['own'] == 3 and len(place) == 3
    assert place == Coordinates({'own': 3, 'method': 'gradcam', 'target': 'cup'}) == dict(place)
    assert hash(place) == hash(Coordinates({'own': 3, 'method': 'gradcam', 'target': 'cup'}))
    assert repr(place) == "method='gradcam', target='cup', own=3"
    assert pickle.loads(pickle.dumps(place)) == copy.deepcopy(place) == place
    with pytest.raises(TypeError):
        place['method'] = 'layercam'


@pytest.mark.parametrize('key', [('gradcam', 'cup'), ('cup', 'gradcam'), ('layer4', 'cup', 'GradCAM')])
def test_a_map_is_found_by_coordinate_values_in_any_order(key):
    result = cam()
    assert result[key] is result.maps[2] and result[key].score == 0.02


def test_what_is_not_there_or_not_unique_is_listed():
    result = cam()
    with pytest.raises(InputError, match=r"2 maps have 'gradcam': .*target='espresso'.*target='cup'"):
        result['gradcam']
    with pytest.raises(InputError, match=r"no map has 'cupp'; accepted: .*target: espresso, cup; did you mean cup\?"):
        result['cupp', 'gradcam']
    with pytest.raises(InputError, match="no coordinate 'methods'; accepted: method, layer, target"):
        result.sel(methods='gradcam')
    with pytest.raises(InputError, match='target: no target at position 2; accepted: 0 to 1'):
        result.isel(target=2)


def test_selection_gives_results_with_what_belongs_to_them():
    result = cam()
    cup = result.sel(layer='layer4', target='cup')
    assert [item.coordinates['method'] for item in cup] == ['gradcam', 'layercam']
    assert [target.name for target in cup.targets] == ['cup'] and cup.methods == ('GradCAM', 'LayerCAM')
    first = result.isel(target=0, method=-1)
    assert first.methods == ('LayerCAM',) and first.to_array().shape == (1, 8, 8)
    assert facets(first).rows == ('espresso 0.95',)
    both = result.sel(method=['gradcam', 'layercam'])
    assert both.maps == result.maps
    assert vt.render(cup).startswith(PNG)


def test_maps_without_a_coordinate_are_selected_with_none():
    result = models(cam(), ('base', 'ours'), difference=True)
    assert len(result.sel(model='ours').maps) == 8
    plain = result.sel(model='ours', minus=None)
    assert len(plain.maps) == 4 and plain.coordinates.get('minus') is None


@given(st.permutations(['gradcam', 'cup', 'backbone.layer4']))
def test_the_order_of_a_key_does_not_matter(key):
    result = cam()
    assert result[tuple(key)] is result.maps[2]


def test_numbers_and_names_are_told_apart():
    result = heatmaps(('CLS',), ('mean', 0, 11), 'attention')
    assert result[11].coordinates['head'] == 11 and result['mean'].coordinates['head'] == 'mean'
    with pytest.raises(InputError, match="no map has '11'"):
        result['11']


def test_a_frame_has_a_row_per_map():
    result = cam()
    maps = [replace(item, range=(-1.0, 2.0), metrics={'cka': 0.5}) for item in result]
    frame = replace(result, maps=tuple(maps)).to_frame()
    assert list(frame.columns) == ['method', 'layer', 'target', 'score', 'low', 'high', 'cka', 'height', 'width']
    assert frame.loc[frame.target == 'cup', 'score'].tolist() == [0.02, 0.02] and set(frame.high) == {2.0}


def test_arrays_need_one_size():
    result = cam()
    assert np.array_equal(result.to_array()[3], result['layercam', 'cup'].values)
    odd = replace(result, maps=(*result.maps, Heatmap(np.zeros((2, 3), np.float32))))
    with pytest.raises(InputError, match='several sizes: 2×3, 8×8'):
        odd.to_array()


def test_curves_as_a_frame():
    curve = Curve(np.arange(6), np.linspace(1, 0, 6), 'ours', 'all', 'lr')
    frame = Curves((curve,), {'ours': 3.0}).to_frame()
    assert frame.epoch.tolist() == [0, 0, 0, 1, 1, 1] and frame.value.iloc[-1] == 0
    assert Curves((curve,)).to_frame().epoch.isna().all()


def test_representations_are_short():
    results = [cam(), *ordinary().values()]
    for result in results:
        assert len(repr(result)) < 300 and '\n' not in repr(result)
    assert repr(cam().maps[0]) == "Heatmap 8×8 (method='gradcam', layer='backbone.layer4', target='espresso')"


def ordinary() -> dict[str, Result]:
    rows = tuple(
        {'layer': layer, 'name': f'blocks.{layer}', 'head': head, 'entropy': 1.0, 'distance': 20.0 + head, 'cls': 0.1,
         'prefix': 0.0, 'padding': 0.0}
        for layer in range(2) for head in range(3)
    )  # fmt: skip
    numbers = np.array([1.0, 2.0])
    layer = LayerStatistics('net', 'layer', numbers, numbers, numbers * 0, numbers, numbers, numbers < 0)
    return {
        'heads': HeadStatistics(rows=rows),
        'channels': ChannelStatistics(layers=(layer,)),
        'stack': ChannelStack(layers=(LayerChannels('layer', np.eye(4, dtype=np.float32)[None]),), size=(16, 16)),
        'dataset': DatasetSummary(
            counts={'cat': 2, 'dog': 1},
            sizes=np.array([[10, 20], [30, 20], [15, 15]]),
            found=np.full((3, 2), 100.0),
            expected=None,
            verdict='the config does not normalize',
            rows=({'index': 0, 'height': 10},),
        ),
    }


@pytest.mark.parametrize('kind', ordinary())
def test_statistics_and_summaries_are_ordinary_results(kind, tmp_path):
    result = ordinary()[kind]
    assert vt.render(result, width=400).startswith(PNG)
    assert vt.render(result, 'pdf').startswith(b'%PDF')
    assert vt.show(result).get_size_inches()[0] > 1
    written = vt.save(result, tmp_path / 'a.svg', save_raw=True)
    assert {path.suffix for path in written} in ({'.svg', '.csv'}, {'.svg', '.npz'})


def test_companions_are_written_beside_the_picture(tmp_path):
    stats, stack = ordinary()['heads'], replace(ordinary()['stack'], name='photo')
    result = replace(cam(), companions={'stats': stats, 'channels': stack})
    visualizer = Visualizer(tmp_path / 'out', Style(), companions={'channels': tmp_path / 'channels'})
    written = [str(path.relative_to(tmp_path)) for path in visualizer.write(result, 'photo')]
    assert written == [
        'out/photo.png',
        'out/photo_stats.png',
        *(f'channels/photo/layer/{n}.png' for n in ('channel_0', 'sum')),
    ]
    assert cv2.imread(str(tmp_path / 'channels/photo/layer/sum.png')).shape == (16, 16, 3)
    one = Visualizer(tmp_path / 'x.jpg', Style(), save_raw=True).write(
        replace(result, companions={'stats': stats}), 'x'
    )
    assert [path.name for path in one] == ['x.jpg', 'x.npz', 'x_stats.jpg', 'x_stats.csv']
    always = Visualizer(tmp_path / 'y.png', Style()).write(ordinary()['channels'], 'y')
    assert [path.name for path in always] == ['y.csv', 'y.png']


def test_several_results_at_once(tmp_path):
    results = [cam(), cam()]
    assert [data[:6] for data in vt.render(results)] == [PNG, PNG] and len(vt.show(results)) == 2
    assert [len(each) for each in vt.overlay(results)] == [4, 4]
    assert [path.name for path in vt.save(results, tmp_path)] == ['0.png', '1.png']
    assert vt.save(results, tmp_path / 'sheet.pdf') == [tmp_path / 'sheet.pdf']


def test_a_misspelled_style_lists_near_names():
    with pytest.raises(InputError, match=r"unknown style 'widht'; accepted: .*did you mean width"):
        vt.show(cam(), widht='column')
    with pytest.raises(InputError, match=r"format: unknown format 'gif'; accepted: png, jpg"):
        vt.render(cam(), 'gif')
    with pytest.raises(InputError, match=r'path: BytesIO is not a path; render\(result, format=…\) gives'):
        vt.save(cam(), io.BytesIO())


@dataclass(frozen=True, kw_only=True)
class Histogram(Result):
    values: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Unknown(Result):
    pass


def test_a_kind_of_ones_own_is_shown_saved_and_rendered(tmp_path):
    @kinds.draw_figure.register(Histogram)
    def _(result, figure, style, page):
        figure.set_size_inches(4, 3)
        figure.subplots().hist(result.values)

    @kinds.to_raw.register(Histogram)
    def _(result):
        return kinds.Raw('.csv', b'value\n1\n')

    result = Histogram(values=np.arange(10))
    assert vt.render(result).startswith(PNG) and vt.show(result).axes
    written = Visualizer(tmp_path, Style(), save_raw=True).write(result, 'h')
    assert [path.name for path in written] == ['h.png', 'h.csv']
    assert vt.save(replace(cam(), companions={'more': result}), tmp_path / 'a.png')[1].name == 'a_more.png'


def test_an_unknown_kind_says_what_to_register():
    with pytest.raises(InputError, match=r'kind Unknown cannot be drawn; register to_scene or draw_figure'):
        vt.render(Unknown())
    with pytest.raises(InputError, match='panels'):
        kinds.to_panels(Unknown(), Style())


def test_results_show_themselves_in_notebooks(monkeypatch):
    assert cam()._repr_png_() == vt.render(cam())
    monkeypatch.setattr(display, 'renderer', None)
    assert cam()._repr_png_() is None


def test_importing_the_package_imports_nothing_heavy():
    code = 'import sys, vistool; print([m for m in ("numpy", "torch", "matplotlib", "mmengine") if m in sys.modules])'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'


def test_equal_names_are_numbered():
    assert distinct(['a', 'b', 'a', 'a']) == ['a', 'b', 'a (2)', 'a (3)']


def test_drawing_reads_no_provenance():
    result = cam()
    assert vt.render(result) == vt.render(result.with_provenance(compare=[{}], methods=['x'], targets=[]))


@pytest.mark.parametrize('kind', ['png', 'pdf', 'svg'])
def test_names_that_are_not_text_are_drawn(kind):
    name = 'a\udcff\ud800'  # a byte that is not UTF-8; half a character, as JSON may hold
    summary = ordinary()['dataset']
    failed = ((3, InputError(f'{name}: cannot be read')),)
    summary = replace(summary, counts={name: 2, 'dog': 1}, title=name, failed=failed)
    curve = Curve(np.arange(3), np.ones(3), name, name, 'lr', label=name)
    for result in (summary, Curves((curve, replace(curve, label='other')))):
        assert vt.render(result, kind)
        assert kinds.to_raw(result).data


def test_the_text_of_a_result_is_short_whatever_it_holds():
    @dataclass(frozen=True, eq=False)
    class Histogram(Result):
        """A kind of the user's own, with the ``repr`` that dataclasses get."""

        values: np.ndarray
        names: tuple[str, ...] = ()
        note: str = ''

    result = Histogram(np.zeros((500, 40)), tuple(f'class {index}' for index in range(1000)))
    assert repr(result) == 'Histogram(values: float64 500×40, names: 1,000 entries)'
    assert repr(Histogram(np.zeros(3), ('cat',), 'x' * 500)).count('x') == 59

    @dataclass(frozen=True, eq=False)
    class Named(Histogram):
        def __repr__(self) -> str:
            return 'mine'

    assert repr(Named(np.zeros(3))) == 'mine'


def test_a_count_is_written_with_its_noun():
    found = [counted(count, 'image') for count in (0, 1, 2, 12345)]
    assert found == ['0 images', '1 image', '2 images', '12,345 images']
    assert [counted(count, 'entry', 'entries') for count in (1, 3)] == ['1 entry', '3 entries']
