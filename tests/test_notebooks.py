"""The notebooks are valid, run from the demo's folder and from the repository, and keep pictures that GitHub shows."""

import base64
import importlib.util
import io
from pathlib import Path

import nbformat
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / 'demo').glob('*.ipynb'))
LARGEST = 400_000


@pytest.fixture(scope='module')
def runner():
    """``tools/run_notebooks.py``."""
    spec = importlib.util.spec_from_file_location('run_notebooks', ROOT / 'tools' / 'run_notebooks.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pictures(cell: dict) -> list[Image.Image]:
    """The pictures among a cell's kept outputs."""
    data = [output.get('data', {}).get('image/jpeg') for output in cell['outputs']]
    return [Image.open(io.BytesIO(base64.b64decode(each))) for each in data if each]


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_small_and_shows_pictures(path, runner):
    notebook = runner.read(path)
    nbformat.validate(nbformat.from_dict(notebook))
    assert path.stat().st_size < LARGEST
    cells = runner.code_cells(notebook)
    assert [cell['execution_count'] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(300 < picture.width < 1700 for cell in cells for picture in pictures(cell))
    assert sum(len(pictures(cell)) for cell in cells) >= 1
    kept = path.read_text(encoding='utf-8')
    assert not [word for word in ('/home/', '/root/', '/tmp/', 'Could not import', 'Warning') if word in kept]


@pytest.mark.slow
@pytest.mark.parametrize('folder', ['.', 'demo'])
@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_is_kept(path, folder, runner):
    notebook = runner.read(path)
    kept = [[output['output_type'] for output in cell['outputs']] for cell in runner.code_cells(notebook)]
    runner.keep(notebook, runner.run(notebook, ROOT / folder))
    assert [[output['output_type'] for output in cell['outputs']] for cell in runner.code_cells(notebook)] == kept


def test_widgets_draw_an_upload_and_name_what_is_half_typed(monkeypatch, capsys, runner):
    import ipywidgets

    names: dict = {}
    for cell in runner.code_cells(runner.read(ROOT / 'demo/attention.ipynb')):
        exec(compile(''.join(cell['source']), 'attention.ipynb', 'exec'), names)
    assert isinstance(names['upload'], ipywidgets.FileUpload)
    shown = []
    monkeypatch.setitem(names, 'display', shown.append)
    buffer = io.BytesIO()
    Image.open('demo/coffee.png').save(buffer, 'png')
    names['maps']([{'content': buffer.getvalue()}], 11, 'mean', 'cls')
    names['maps']((), 3, 'all', '225,110')
    names['maps']((), 3, 'all', '225,')  # half-typed: a line, no traceback
    assert 'queries' in capsys.readouterr().out
    assert [type(figure).__name__ for figure in shown] == ['ShownFigure', 'ShownFigure']
    assert all(figure._repr_png_().startswith(b'\x89PNG') for figure in shown)  # without %matplotlib inline
