from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vistool.errors import InputError
from vistool.visualization.style import Style


@pytest.mark.parametrize(
    ('option', 'value', 'argument'),
    [
        ('layout', 'gird', 'layout'), ('width', 'colum', 'width'), ('width', 3, 'width'),
        ('width', True, 'width'), ('width', '5.5', 'width'), ('width', '3px', 'width'), ('width', '1mm', 'width'),
        ('width', '99999in', 'width'), ('width', 'in', 'width'), ('dpi', 0, 'dpi'), ('scale', 'all', 'scale'),
        ('colormap', 'jett', 'colormap'),
        ('alpha', 1.5, 'alpha'), ('alpha', 'cold', 'alpha'), ('interpolation', 'cubic', 'interpolation'),
        ('view', 'both', 'view'),
    ],
)  # fmt: skip
def test_bad_options_name_their_argument(option, value, argument):
    with pytest.raises(InputError, match=f'^{argument}:'):
        Style(**{option: value})


@pytest.mark.parametrize(('width', 'inches'), [
    ('column', 3.25), ('text', 6.875), ('5.5in', 5.5), ('14cm', 14 / 2.54), ('84 mm', 84 / 25.4),
    ('252.0pt', 252 / 72.27),
])  # fmt: skip
def test_paper_widths(width, inches):
    page = Style(width=width, dpi=300).page(vector=True)
    assert page.paper and page.width * page.points / 72 == pytest.approx(inches)
    assert page.density * page.width == pytest.approx(inches * 300)


def test_default_width_follows_the_file():
    assert Style().page(vector=True).paper
    assert not Style().page(vector=False).paper


def test_pixels_are_pictures_made_without_matplotlib(tmp_path):
    program = (
        'import sys; sys.path.insert(0, sys.argv[1])\n'
        'from sample_results import heatmaps\n'
        'from vistool.visualization.visualizer import save\n'
        'save(heatmaps(), sys.argv[2])\n'
        "assert 'matplotlib' not in sys.modules and 'torch' not in sys.modules\n"
    )
    helpers = str(Path(__file__).parents[1] / 'helpers')
    subprocess.run([sys.executable, '-c', program, helpers, str(tmp_path / 'a.png')], check=True)
    assert (tmp_path / 'a.png').is_file()
