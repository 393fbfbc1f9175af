"""The notebook is valid, and its cells run without a browser."""

import io
import json

from PIL import Image

NOTEBOOK = 'demo/attention.ipynb'


def test_the_cells_run_and_an_upload_is_drawn(monkeypatch, capsys):
    import ipywidgets

    with open(NOTEBOOK) as file:
        notebook = json.load(file)
    assert (notebook['nbformat'], notebook['nbformat_minor']) == (4, 5)
    cells = [cell for cell in notebook['cells'] if cell['cell_type'] == 'code']
    assert all(cell['outputs'] == [] and cell['execution_count'] is None and cell['id'] for cell in cells)
    names: dict = {}
    for cell in cells:
        exec(compile(''.join(cell['source']), NOTEBOOK, 'exec'), names)
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
