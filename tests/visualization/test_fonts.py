from __future__ import annotations

import logging
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text
from sample_results import heatmaps

import vistool as vt
from vistool.errors import InputError
from vistool.visualization import text as fitting
from vistool.visualization import text as fonts
from vistool.visualization.style import Style

TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0xFF, exclude_categories=['Cc', 'Cf']), max_size=60)


@settings(max_examples=60, deadline=None)
@given(TEXT, st.floats(1, 300))
def test_elided_text_fits(text, width):
    assert fonts.text_width(fitting.elide(text, 7.0, width), 7.0) <= width


@settings(max_examples=60, deadline=None)
@given(TEXT, st.floats(1, 300), st.integers(1, 4))
def test_wrapped_text_fits_and_keeps_its_words_where_there_is_room(text, width, lines):
    wrapped = fitting.wrap(text, 7.0, width, lines)
    assert len(wrapped) <= lines
    assert all(fonts.text_width(line, 7.0) <= width for line in wrapped)
    if not any('…' in line or not line for line in wrapped) and '·' not in text:
        assert ' '.join(wrapped).replace(' ', '') == fitting.clean(text).replace(' ', '')


def test_elision_leaves_both_ends_and_the_score():
    text = 'a very long class name, that nobody reads 0.95'
    short = fitting.elide(text, 10.0, 120.0)
    assert short.startswith('a very') and short.endswith('… 0.95')
    short = fitting.elide('stochastic_depth_rate', 10.0, 70.0)
    assert short.startswith('sto') and short.endswith('te') and '…' in short


@pytest.mark.parametrize('size', [7.0, 12.0, 29.2])
def test_drawn_text_is_no_wider_than_measured(size):
    for text in ('EigenGradCAM', 'espresso 0.95', 'iiiiiiiiii', 'WWWWWWWW'):
        mask, baseline, advance = fonts.text_mask(text, size)
        assert mask.any() and 0 < baseline < mask.shape[0]
        assert advance <= fonts.text_width(text, size) * 1.06 + 1


def test_characters_without_any_font_are_drawn_as_boxes_and_told_once(monkeypatch, caplog):
    monkeypatch.setattr(fonts, 'fallback_faces', lambda: ())
    fonts._face_of.cache_clear()
    fonts._width.cache_clear()
    fonts._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING, 'vistool'):
        assert fonts.text_width('猫狗', 12.0) > 0
        assert fonts.text_mask('猫狗 cat', 11.25)[0].any()
    assert len(caplog.records) == 1 and '\n' not in caplog.records[0].getMessage()
    fonts._face_of.cache_clear()


def test_runs_cover_the_text():
    text = 'cat 猫 ünïcode →'
    assert ''.join(piece for _, piece in fonts.runs(text)) == text


def test_control_characters_are_left_out():
    assert fitting.clean('a\nb\x00\tc') == 'a b c'


@pytest.mark.parametrize(
    ('name', 'parts'),
    [
        ('GradCAMElementWise', ['GradCAM', 'ElementWise']),
        ('EigenGradCAM', ['Eigen', 'GradCAM']),
        ('RefineCAM', ['Refine', 'CAM']),
        ('EigenGradCAM · layer4', ['EigenGrad', 'CAM · layer4']),
    ],
)
def test_names_of_methods_are_broken_between_their_parts_before_they_are_shortened(name, parts):
    width = 1.02 * max(fonts.text_width(part, 7.0) for part in parts)
    assert fitting.wrap(name, 7.0, width, 2) == parts
    assert fitting.wrap(name, 7.0, 2 * fonts.text_width(name, 7.0), 2) == [name]
    assert '…' in fitting.wrap('unbreakablename', 7.0, 30.0, 2)[0]


@pytest.mark.parametrize(
    'text', ['saturation 0.721 hue -0.1234', 'layer4.1234.conv 56789', '1234567890', 'a12345b67890c 1.5e−5']
)
def test_no_number_is_cut(text):
    whole = set(re.findall(r'[-−]?\d+(?:[.,]\d+)*(?:e[-−+]?\d+)?%?', text))
    for width in range(5, 200, 3):
        shown = fitting.elide(text, 10, width)
        assert fonts.text_width(shown, 10) <= width or shown == text
        assert set(re.findall(r'[-−]?\d+(?:[.,]\d+)*(?:e[-−+]?\d+)?%?', shown)) <= whole, shown


def test_a_font_is_chosen_for_one_picture_and_measured_in_it():
    result = heatmaps(('espresso 0.95',), ('GradCAM', 'LayerCAM'))
    usual = fonts.text_width('espresso', 7.0)
    plain = vt.render(result, width='column')
    chosen = vt.render(result, width='column', font='CM')
    assert chosen != plain == vt.render(result, width='column')
    with fonts.using('CM'):
        assert fonts.text_width('espresso', 7.0) < usual and fonts.first_face().path.endswith('cmr10.ttf')
        assert fonts.runs('espresso 猫')[0][0] == fonts.first_face()
    assert fonts.text_width('espresso', 7.0) == usual
    pdf = vt.render(result, 'pdf', width='column', font='STIXGeneral')
    assert b'STIXGeneral' in pdf and b'DejaVu' not in pdf


def test_curves_are_written_in_the_font():
    steps = np.arange(5)
    curves = vt.Curves((vt.Curve(steps, steps / 10, 'config', 'all', 'lr'),))
    pdf = vt.render(curves, 'pdf', width='column', font='CM')
    assert b'Cmr10' in pdf or b'CMR10' in pdf or b'cmr10' in pdf


def test_plots_take_characters_from_the_fonts_that_have_them(monkeypatch):
    other = fonts.find_face('CM')  # in place of a font for the script
    monkeypatch.setattr(fonts, 'fallback_faces', lambda: (other,))
    summary = vt.DatasetSummary(
        counts={'红色 圆': 2, 'dog': 1},
        sizes=np.array([[10, 20], [30, 20]]),
        found=np.full((3, 2), 99.0),
        expected=None,
        verdict='',
        rows=(),
    )
    steps = np.arange(5)
    curves = vt.Curves((vt.Curve(steps, steps / 10, '对比', 'all', 'lr', label='学习率'),))
    for result, name in ((summary, '红色 圆'), (curves, '学习率')):
        texts = [each for each in vt.show(result).findobj(Text) if each.get_text() == name]
        assert texts and all(each.get_fontfamily() == ['DejaVu Sans', 'cmr10'] for each in texts)


def test_titles_have_the_size_that_is_asked_for_on_paper_and_on_the_screen():
    paper, screen = Style(font_size=9, width='column').page(False), Style(font_size=9).page(False)
    assert (paper.font * paper.points, screen.font * screen.points) == (9, 9)
    assert paper.small_font == pytest.approx(6 * 9 / 7) and paper.least_font == 4.5
    assert Style().page(False).font == 12 and Style(width='column').page(False).font == 7


@pytest.mark.parametrize(
    ('style', 'said'),
    [
        ({'font': 'DejaVu Sanz'}, "no font 'DejaVu Sanz' on this machine.*did you mean DejaVu Sans"),
        ({'font': 'nowhere.ttf'}, 'accepted: the name of a font family'),
        ({'font_size': 2}, '4 to 24 points'),
    ],
)
def test_unknown_fonts_and_sizes_are_one_line(style, said):
    with pytest.raises(InputError, match=said):
        Style(**style)
