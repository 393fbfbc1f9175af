"""Runs the notebooks of the demo from top to bottom, and keeps what they show in their files.

``python tools/run_notebooks.py demo/cam.ipynb`` runs a notebook in its own folder, with IPython and without Jupyter,
and writes the outputs into it. Pictures are kept as JPEG: GitHub shows them, and the file stays small.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

QUALITY = 80
_WIDGET = 'application/vnd.jupyter.widget-view+json'
"""What works in a running notebook only."""
_RUN = """
import base64, json, sys
from IPython.core.displayhook import DisplayHook
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display
from IPython.utils.capture import capture_output

class Shown(DisplayHook):
    def __call__(self, result=None):
        if result is not None and not self.quiet():
            display(result)

class Shell(InteractiveShell):
    displayhook_class = Shown

shell = Shell.instance()
shown = []
for cell in json.load(sys.stdin):
    with capture_output() as captured:
        done = shell.run_cell(cell, store_history=True)
    if not done.success:
        sys.exit(captured.stdout + captured.stderr)
    outputs = [
        {kind: base64.b64encode(data).decode() if isinstance(data, bytes) else data for kind, data in each.data.items()}
        for each in captured.outputs
    ]
    shown.append({'stdout': captured.stdout, 'outputs': outputs})
json.dump(shown, sys.__stdout__)
"""


def read(path: Path) -> dict[str, Any]:
    """A notebook."""
    notebook: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
    return notebook


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells that run."""
    return [cell for cell in notebook['cells'] if cell['cell_type'] == 'code']


def run(notebook: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """What each code cell prints and shows, run in a fresh process in a folder.

    Raises:
        RuntimeError: A cell fails; the message is its traceback.
    """
    sources = [''.join(cell['source']) for cell in code_cells(notebook)]
    done = subprocess.run(
        [sys.executable, '-c', _RUN], input=json.dumps(sources), cwd=folder, env={**os.environ, 'MPLBACKEND': 'agg'},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-5000:])
    shown: list[dict[str, Any]] = json.loads(done.stdout)
    return shown


def keep(notebook: dict[str, Any], shown: list[dict[str, Any]]) -> None:
    """Puts outputs into the cells of a notebook."""
    for number, (cell, seen) in enumerate(zip(code_cells(notebook), shown, strict=True), 1):
        outputs: list[dict[str, Any]] = []
        alive = any(_WIDGET in data for data in seen['outputs'])
        if seen['stdout'] and not alive:
            outputs.append({'name': 'stdout', 'output_type': 'stream', 'text': seen['stdout'].splitlines(True)})
        for data in [] if alive else seen['outputs']:
            outputs.append({'data': _small(data), 'metadata': {}, 'output_type': 'display_data'})
        cell['execution_count'], cell['outputs'] = number, outputs


def _small(data: dict[str, Any]) -> dict[str, Any]:
    """An output as it is kept: of a picture the picture, as JPEG; of a table the table."""
    if 'image/png' in data:
        return {'image/jpeg': _jpeg(data['image/png'])}
    return {kind: value.splitlines(True) for kind, value in data.items() if kind in ('text/plain', 'text/html')}


def _jpeg(png: str) -> str:
    from PIL import Image

    content = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    picture.convert('RGB').save(content, 'jpeg', quality=QUALITY, optimize=True)
    return base64.b64encode(content.getvalue()).decode()


def main() -> int:
    """Runs the notebooks that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('notebooks', nargs='+', type=Path)
    for path in parser.parse_args().notebooks:
        notebook = read(path)
        keep(notebook, run(notebook, path.parent))
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
        print(f'{path} {path.stat().st_size / 1000:.0f} kB')
    return 0


if __name__ == '__main__':
    sys.exit(main())
