"""The table of panels for LaTeX: read again, its cells are the figure's, and it is as wide as the line."""

import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from sample_results import heatmaps

from vistool.visualization.facets import facets
from vistool.visualization.latex import escape, figure, plain_name
from vistool.visualization.style import Style
from vistool.visualization.visualizer import Visualizer


def write(folder, result, name='cat'):
    return Visualizer(None, Style(), panels=folder).write(result, name)


def read(text):
    """The lines of a table, each a list of its cells: the file of a panel, or the text of a title."""
    body = re.search(r'\\begin\{tabular\}\{@\{\}(c+)@\{\}\}\n(.*)\\end\{tabular\}', text, re.DOTALL)
    lines = re.split(r' \\\\\[[^\]]*\]\n', body[2])[:-1]
    cells = [re.split(r'(?<!\\)&', line) for line in lines]
    assert all(len(line) <= len(body[1]) for line in cells) and max(map(len, cells)) == len(body[1])
    found = r'\\includegraphics\[[^\]]*\]\{(.*?)\}|footnotesize (.*?)\}+\s*$'
    return [[next((a or b for a, b in re.findall(found, cell)), '') for cell in line] for line in cells]


def widths(text):
    return [float(each) for each in re.findall(r'includegraphics\[width=([\d.]+)\\linewidth', text)]


def balanced(text):
    bare = re.sub(r'\\[{}]', '', text)
    return bare.count('{') == bare.count('}')


def test_rows_and_columns_are_those_of_the_figure(tmp_path):
    *panels, file = write(tmp_path, heatmaps(('espresso 0.95', 'cup 0.02'), ('GradCAM', 'LayerCAM')))
    text = file.read_text()
    assert file.name == 'figure.tex' and balanced(text) and str(tmp_path) not in text
    assert read(text) == [
        ['', 'input', 'GradCAM', 'LayerCAM'],
        ['espresso 0.95', 'input.png', 'GradCAM-espresso.png', 'LayerCAM-espresso.png'],
        ['cup 0.02', '', 'GradCAM-cup.png', 'LayerCAM-cup.png'],
    ]
    assert {line for row in read(text) for line in row if line.endswith('.png')} == {path.name for path in panels}
    assert set(widths(text)) == {0.31}  # 3 × 0.31, 3 gaps of 0.01 and 0.04 for the titles of the rows
    assert r'\parbox{0.2067\linewidth}{\centering\footnotesize espresso 0.95}' in text  # panels are 160 × 240


@pytest.mark.parametrize('count', [1, 6, 7, 12, 23])
def test_many_columns_are_cut_into_blocks_that_fit_the_line(tmp_path, count):
    *panels, file = write(tmp_path, heatmaps(('CLS',), tuple(range(count)), kind='attention'))
    table = read(file.read_text())
    assert len(table) == 2 * -(-(count + 1) // 8) and max(map(len, table)) <= 8
    shown = [cell for line in table[1::2] for cell in line]
    assert shown == [path.name for path in panels]
    assert [cell for line in table[::2] for cell in line] == ['input', *(f'head {head}' for head in range(count))]
    (width,) = set(widths(file.read_text()))
    across = max(map(len, table))
    assert 0.99 < across * width + (across - 1) * 0.01 <= 1


def test_two_maps_in_one_place_have_a_line_each():
    result = heatmaps(('cat 0.5',), ('GradCAM',))
    arrangement = facets(replace(result, maps=result.maps * 2))
    table = read(figure(arrangement, ['input.png', 'a.png', 'b.png'], 1.0))
    assert table[1:] == [['cat 0.50', 'input.png', 'a.png'], ['cat 0.50', '', 'b.png']]


def test_maps_of_several_layers_have_panels_of_their_own(tmp_path):
    maps = heatmaps(('CLS',), (0, 1), kind='attention')
    several = replace(maps, maps=tuple(item.at(layer=name) for name in ('blocks.0', 'blocks.5') for item in maps))
    *panels, _ = write(tmp_path, several)
    assert [path.name for path in panels[1:]] == [f'blocks.{at}-head_{head}.png' for at in (0, 5) for head in (0, 1)]


def test_titles_and_names_hold_no_commands(tmp_path):
    *panels, file = write(tmp_path, heatmaps(('#0 50%_a\\b{ 0.95', '50_ab 0.10'), ('R&B ~$1^2', '<GradCAM>')))
    assert len({path.name for path in panels}) == 5 and all(path.is_file() for path in panels)
    text = file.read_text()
    names = [name for line in read(text) for name in line if name.endswith('.png')]
    assert set(names) == {path.name for path in panels} and not set('#%&{}~^$\\') & set(''.join(names))
    titles = re.sub(r'^%.*$', '', text, flags=re.MULTILINE)
    assert (
        r'\#0 50\%\_a\textbackslash{}b\{ 0.95' in titles and r'R\&B \textasciitilde{}\$1\textasciicircum{}2' in titles
    )
    assert balanced(text) and not re.search(r'(?<!\\)[#%~^$]', titles)


def test_a_table_with_long_titles_is_made_as_wide_as_the_line():
    text = figure(facets(heatmaps(('a', 'b'))), ['input.png', 'a.png', 'b.png'], 1.0)
    body = re.search(r'\\setbox0\\hbox\{(.*)\}\\relax\n(.*)\\endgroup\n$', text, re.DOTALL)
    assert body[1].startswith(r'\begin{tabular}') and body[1].endswith(r'\end{tabular}')
    assert body[2] == r'\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\box0}\else\box0\fi'


def test_titles_of_the_user_are_those_of_the_table(tmp_path):
    style = Style(row_titles=('R&D', 'b_2'), column_titles=('100%', 'Ours'))
    result = heatmaps(('espresso 0.95', 'cup 0.02'), ('GradCAM', 'LayerCAM'))
    *_, file = Visualizer(None, style, panels=tmp_path).write(result, 'cat')
    assert [line[0] for line in read(file.read_text())] == ['', r'R\&D', r'b\_2']
    assert read(file.read_text())[0][1:] == ['input', r'100\%', 'Ours']


def test_signs_that_latex_does_not_know():
    assert escape('ours − none · 14×14\nΔ <0.01 猫') == (
        r'ours \ensuremath{-} none \ensuremath{\cdot} 14\ensuremath{\times}14 \ensuremath{\Delta} \ensuremath{<}0.01 猫'
    )


def test_names_that_become_equal_are_numbered():
    assert [plain_name('a#b', taken) for taken in ([], ['ab'], ['ab', 'ab-2'])] == ['ab', 'ab-2', 'ab-3']
    assert plain_name('##') == 'panel'


@pytest.mark.parametrize('change', [lambda text: text.replace('0.', '0.1', 1), lambda text: 'mine', lambda text: ''])
def test_a_changed_file_is_kept(tmp_path, change, caplog):
    *_, file = write(tmp_path, heatmaps())
    first = file.read_text()
    assert write(tmp_path, heatmaps(columns=('LayerCAM',)))[-1] == file
    assert file.read_text() != first and not caplog.records
    file.write_text(kept := change(first))
    written = write(tmp_path, heatmaps())
    assert file.read_text() == kept and file not in written and len(written) == 2
    assert 'figure.tex was not written by vistool, or was changed since; it is kept' in caplog.text
    file.unlink()
    assert write(tmp_path, heatmaps())[-1] == file and file.read_text() == first


def test_each_of_several_points_has_a_photo_with_its_ring_alone(tmp_path):
    places = {'100,90': (100.5, 90.5), '150,60': (150.5, 60.5)}
    maps = heatmaps(('CLS', *places), (0, 1), kind='attention', queries=places)
    *panels, file = write(tmp_path, maps)
    assert [path.name for path in panels[-2:]] == ['100,90-input.png', '150,60-input.png']
    assert [line[:2] for line in read(file.read_text())[1:]] == [
        ['CLS', ''],
        ['100,90', '100,90-input.png'],
        ['150,60', '150,60-input.png'],
    ]
    whole, first, second = (cv2.imread(str(path)).astype(int) for path in (panels[0], *panels[-2:]))
    bare = cv2.cvtColor(maps.image, cv2.COLOR_RGB2BGR)  # attention is drawn over what the network saw
    rings = [np.abs(each - bare).max(2) > 8 for each in (whole, first, second)]
    assert rings[1].any() and rings[2].any() and not (rings[1] & rings[2]).any()
    assert (rings[0] == (rings[1] | rings[2])).all()
    for ring, (x, y) in zip(rings[1:], places.values(), strict=True):
        assert np.abs(np.argwhere(ring).mean(0) - maps.geometry.to_network(np.array([[x, y]]))[0, ::-1]).max() < 1


def test_one_point_needs_no_photo_of_its_own(tmp_path):
    maps = heatmaps(('100,90',), (0, 1), kind='attention', queries={'100,90': (100.5, 90.5)})
    *panels, file = write(tmp_path, maps)
    assert len(panels) == 3 and read(file.read_text())[1][0] == 'input.png'
