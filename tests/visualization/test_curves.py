"""Curves to figures: what is marked, named and enlarged."""

import math

import matplotlib
import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

import vistool as vt
from vistool.errors import InputError
from vistool.results import Curve, Curves
from vistool.visualization.curves import _look, draw_curves
from vistool.visualization.style import Style
from vistool.visualization.visualizer import save

STEPS = np.arange(10_000)
RISE = np.minimum(STEPS / 100, 1.0) * (1 - STEPS / 10_000)


def curve(scale=1.0, config='ours', **more):
    given = {'group': 'all', 'parameter': 'lr', **more}
    return Curve(STEPS, RISE * scale, config, **given)


def texts(figure):
    found = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
    return [text for text in found if text.strip()]


def drawn(result, **style):
    chosen = Style(**style)
    page = chosen.page(vector=False)
    figure = Figure(dpi=72 * page.density / page.points)
    draw_curves(result, page, figure, chosen.theme)
    return figure


def test_peak_and_end_are_marked_and_said():
    figure = drawn(Curves((curve(),), {'ours': 100.0}, 'a title', 'some facts'))
    said = texts(figure)
    assert {'peak 0.99', 'end 0.0001', 'epoch', 'iteration', 'learning rate', 'a title', 'some facts'} <= set(said)
    (axes,) = [axes for axes in figure.axes if axes.lines]
    marks = next(line for line in axes.lines if line.get_marker() == 'o')
    np.testing.assert_allclose(marks.get_xydata(), [[100, RISE.max()], [9999, RISE[-1]]])


FALL = {
    'cosine': 0.5 * (1 + np.cos(np.pi * STEPS / 10_000)) + 1e-6,
    'steps': 0.1 ** (STEPS // 3000).astype(float),
    'rise': 1e-4 + STEPS / 10_000,
    'warm-up': np.maximum(RISE, 1e-6),
}


@pytest.mark.parametrize('log_scale', [False, True])
@pytest.mark.parametrize('shape', FALL)
def test_on_paper_the_end_is_said_beside_the_curve(shape, log_scale):
    """The words of the peak and the end lie within the axes, and no part of the curve lies under those of the end."""
    line = Curve(STEPS, FALL[shape], 'ours', 'all', 'lr')
    result = Curves((line,), {'ours': 100.0}, warmup={'ours': 100} if shape == 'warm-up' else {})
    figure = matplotlib.figure.Figure(dpi=300)
    FigureCanvasAgg(figure)
    draw_curves(result, Style(width='column').page(vector=False), figure, log_scale=log_scale)
    axes = figure.axes[0]
    frame = axes.get_window_extent()
    boxes = {text.get_text().split()[0]: text.get_window_extent() for text in axes.texts}
    assert boxes.keys() == ({'peak'} if shape == 'rise' else {'peak', 'end'})  # an end that is the peak is said once
    for box in boxes.values():
        assert frame.y0 <= box.y0 and box.y1 <= frame.y1
    points = axes.transData.transform(np.column_stack([STEPS, FALL[shape]]))
    assert shape == 'rise' or not boxes['end'].count_contains(points)


def test_epochs_below_and_iterations_above_tell_the_same_places(tmp_path):
    result = Curves((curve(),), {'ours': 250.0})
    axes = drawn(result).axes[0]
    below = {label.get_text(): place for label, place in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)}
    assert all(place == pytest.approx(float(text) * 250) for text, place in below.items()) and '40' in below
    save(result, tmp_path / 'x.svg')
    assert '>10,000<' in (tmp_path / 'x.svg').read_text()  # the axis above has its labels only when drawn


@pytest.mark.parametrize(('warmup', 'panels'), [(101, 2), (199, 2), (200, 1), (5000, 1), (0, 1)])
def test_a_warm_up_under_two_percent_is_enlarged(warmup, panels):
    figure = drawn(Curves((curve(),), {'ours': 100.0}, warmup={'ours': warmup} if warmup else {}))
    assert len(figure.axes) == panels
    if panels == 2:
        low, high = figure.axes[1].get_xlim()
        assert warmup < high < 2 * warmup and low <= 0


def test_layers_are_one_ramp_with_a_bar_and_no_legend():
    layers = tuple(curve(0.7 ** (9 - i), group=f'layer {i}', order=i / 9) for i in range(10))
    figure = drawn(Curves(layers, {'ours': 100.0}, ramp=('layer 0', 'layer 9')))
    assert {'layer 0', 'layer 9'} <= set(texts(figure)) and 'layer 5' not in texts(figure)
    assert figure.axes[0].get_legend() is None
    colors = [line.get_color() for line in figure.axes[0].lines[:10]]
    lightness = [0.3 * c[0] + 0.59 * c[1] + 0.11 * c[2] for c in colors]
    assert lightness == sorted(lightness, reverse=True)


def test_a_long_legend_is_cut_and_long_names_elided():
    many = tuple(curve(1 + i, group=str(i), label=f'group {i}') for i in range(20))
    legend = drawn(Curves(many, {'ours': 100.0})).axes[0].get_legend()
    assert len(legend.get_texts()) == 8 and legend.get_texts()[-1].get_text() == '… 13 more'
    long = curve(label='a' * 90)
    assert len(drawn(Curves((long,), {})).axes[0].get_legend().get_texts()[0].get_text()) < 60


def test_configs_of_different_epochs_share_an_axis_of_epochs():
    figure = drawn(Curves((curve(label='a'), curve(config='b', label='b')), {'ours': 100.0, 'b': 50.0}))
    axes = figure.axes[0]
    assert axes.get_xlabel() == 'epoch' and not axes.child_axes
    assert axes.get_xlim()[1] == pytest.approx(200, rel=0.02)
    assert any('peak' in text and 'end' in text for text in texts(figure))


def test_what_was_logged_is_dots():
    logged = Curve(STEPS[::500], RISE[::500], 'ours', 'logged', 'lr', label='logged', measured=True)
    axes = drawn(Curves((curve(), logged), {'ours': 100.0})).axes[0]
    dots = axes.lines[1]
    assert dots.get_linestyle() == 'None' and len(dots.get_xdata()) == 20


def test_what_never_changes_gets_little_room():
    flat = Curve(STEPS, 0.9 + 0 * RISE, 'ours', 'all', 'momentum')
    axes = drawn(Curves((curve(), flat), {'ours': 100.0})).axes
    assert axes[1].get_position().height < 0.6 * axes[0].get_position().height


@pytest.mark.parametrize('theme', ['darkgrid', 'whitegrid', 'dark', 'white', 'ticks'])
def test_themes_are_seaborns(theme):
    import seaborn

    page = Style(theme=theme).page(vector=False)
    ours = {**matplotlib.rcParamsDefault, **_look(page, theme)}
    # our own measures and fonts; tick marks that seaborn switches off have no length here
    own = {
        'font.family',
        'font.sans-serif',
        'patch.edgecolor',
        'patch.force_edgecolor',
        'image.cmap',
        'xtick.bottom',
        'ytick.left',
    }
    for key, value in seaborn.axes_style(theme).items():
        if key not in own:
            assert ours[key] == value, key
    assert (ours['xtick.major.size'] > 0) == seaborn.axes_style(theme)['xtick.bottom']


@pytest.mark.parametrize('theme', ['darkgrid', 'whitegrid', 'dark', 'white', 'ticks'])
def test_drawing_leaves_the_settings_alone(theme, tmp_path):
    before = dict(rcParams)
    save(Curves((curve(),), {'ours': 100.0}), tmp_path / 'x.png', theme=theme)
    assert dict(rcParams) == before


@pytest.mark.parametrize('size', [(12, 7), (6, 4.5)])
def test_a_window_size_is_in_inches(tmp_path, size):
    save(Curves((curve(),), {}), tmp_path / 'x.png', size=size)
    with Image.open(tmp_path / 'x.png') as image:
        assert image.size == (round(size[0] * 96), round(size[1] * 96))


@pytest.mark.parametrize('given', [{'size': (0, 7)}, {'size': (12, 1000)}, {'theme': 'xkcd'}])
def test_sizes_and_themes_are_checked(given):
    with pytest.raises(InputError):
        Style(**given)


def test_on_paper_no_heading_repeats_the_config(tmp_path):
    given = Curves((curve(),), {'ours': 100.0}, 'ours', 'facts')
    assert not {'ours', 'facts'} & set(texts(drawn(given, width='column')))
    named = Curves((curve(),), {'ours': 100.0}, 'My title', 'facts')
    assert 'My title' in texts(drawn(named, width='column'))


@pytest.mark.parametrize(('depth', 'said'), [(0.04, True), (0.002, True), (0.06, False), (1.0, False), (0.0, False)])
def test_a_small_change_that_fills_the_height_is_called_one(depth, said):
    values = 0.02 * (1 - depth * STEPS / STEPS[-1])
    figure = drawn(Curves((Curve(STEPS, values, 'ours', 'all', 'lr'),), {'ours': 100.0}))
    assert ('axis does not start at 0' in ' '.join(texts(figure))) == said


def test_a_logarithmic_axis_has_a_gap_at_zero_and_says_whole_values():
    steps = np.arange(100)
    values = np.maximum(0.1 * np.cos(np.pi * steps / 198) ** 8, 0.0)
    values[-1] = 0
    curves = Curves((Curve(steps, values, 'config', 'all', 'lr', label='lr'),), {'config': 10})
    made = vt.show(curves, log_scale=True)
    axes = made.axes[0]
    assert axes.get_yscale() == 'log' and np.isnan(axes.lines[0].get_ydata()[-1])
    ticks = [text.get_text() for text in axes.get_yticklabels() if text.get_text()]
    assert len(ticks) > 2 and not any('$' in text for text in ticks)
    assert all(math.log10(float(text)).is_integer() for text in ticks)
    said = [text.get_text() for text in axes.texts]
    assert 'peak 0.1' in said and not any(text.startswith('end') for text in said)
    assert vt.show(curves).axes[0].get_yscale() == 'linear'
    flat = Curves((Curve(steps, np.zeros(100), 'config', 'all', 'wd'),))
    assert vt.show(flat, log_scale=True).axes[0].get_yscale() == 'linear'  # nothing to draw on it


def groups(count, parameters=('lr', 'weight_decay'), configs=('ours',)):
    """Curves of parameter groups; the weight decay is constant, so that its panel is low."""
    return tuple(
        curve(
            1 / (1 + number), config, group=str(number), parameter=name,
            label=' · '.join([*(configs[1:] and [config]), f'group {number} of the parameters']),
        )
        if name != 'weight_decay'
        else Curve(STEPS, np.full(len(STEPS), 0.05 * (number == 0)), config, str(number), name, label=f'group {number}')
        for config in configs
        for name in parameters
        for number in range(count)
    )  # fmt: skip


@pytest.mark.parametrize(('width', 'logged'), [('column', False), ('column', True), ('text', False), ('2.5in', False)])
@pytest.mark.parametrize(
    'curves',
    [groups(2), groups(3, ('lr', 'momentum', 'weight_decay')), groups(12), groups(2, configs=('base', 'a_long_name'))],
    ids=['two groups', 'momentum too', 'twelve groups', 'two configs'],
)
def test_no_legend_covers_a_curve_or_leaves_the_figure(curves, width, logged):
    style = Style(width=width)
    figure = Figure()
    lengths = {each.config: 100.0 for each in curves}
    draw_curves(Curves(curves, lengths), style.page(vector=False), figure, log_scale=logged)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    boxes = [legend.get_window_extent(canvas.get_renderer()) for legend in legends]
    for box in boxes:
        assert not any(box.overlaps(axes.bbox) for axes in figure.axes)
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 + 1 and figure.bbox.y0 - 1 <= box.y0
    assert legends


def test_panels_of_the_same_groups_have_one_legend():
    same = [curve(1 + number, parameter=name, label=f'group {number}') for name in ('lr', 'x') for number in (0, 1)]
    first, second, *_ = drawn(Curves(tuple(same), {'ours': 100.0})).axes
    assert first.get_legend() is None and len(second.get_legend().get_texts()) == 2
    other = [*same[:2], curve(parameter='x', label='all')]
    assert all(axes.get_legend() for axes in drawn(Curves(tuple(other), {'ours': 100.0})).axes[:2])
