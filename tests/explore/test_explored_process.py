"""vis_explore as a user starts it: one line with an address, and nothing left when it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from explorer import CLASSIFIER, png

from vistool.commands.vis_explore import main
from vistool.explore.answers import decode_maps

MAIN = Path(__file__).parents[2] / 'tools' / 'vis_explore.py'


def start(folder, *words):
    """A server of its own, with what it prints: the process and the address."""
    (folder / 'tiny.py').write_text(CLASSIFIER)
    command = [sys.executable, str(MAIN), str(folder / 'tiny.py'), 'none', '--no-browser', *words]
    environment = {**os.environ, 'TMPDIR': str(folder), 'PYTHONPATH': str(MAIN.parents[1])}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    address = process.stdout.readline().strip()
    assert address.startswith('http://127.0.0.1:'), process.stderr.read()
    return process, address


def get(address, data=None, method=None):
    with urllib.request.urlopen(urllib.request.Request(address, data, method=method), timeout=60) as answer:
        return answer.read()


def memory(process):
    """Resident megabytes."""
    lines = Path(f'/proc/{process.pid}/status').read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith('VmRSS'))


def stopped(process, number):
    """How long a process takes to end by a signal, its exit code, and what it said."""
    begun = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    return time.monotonic() - begun, process.returncode, out, err


def left(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith('vis_explore-')]


@pytest.mark.slow
def test_it_serves_until_ctrl_c_and_leaves_nothing(tmp_path):
    process, address = start(tmp_path)
    told = json.loads(get(f'{address}state'))
    assert told['models'][0]['name'] == 'tiny' and told['photos'] == []
    photo = json.loads(get(f'{address}photos?name=a.png', png()))['id']
    header, (values,) = decode_maps(get(f'{address}map?view=attention&photo={photo}&x=40&y=30'))
    assert values.shape == (8, 8) and header['command'].startswith('vis_attention a.png ')
    with pytest.raises(urllib.error.HTTPError, match='403'):
        get(address.rpartition('/')[0][:-1] + '/state')
    assert len(left(tmp_path)) == 1
    seconds, code, out, err = stopped(process, signal.SIGINT)
    assert (code, out) == (0, '') and 'Traceback' not in err and left(tmp_path) == []
    assert seconds < 5  # a second on an idle machine


@pytest.mark.slow
def test_sigterm_leaves_nothing_either(tmp_path):
    process, address = start(tmp_path)
    get(f'{address}photos?name=a.png', png())
    _, code, _, _ = stopped(process, signal.SIGTERM)
    assert code == 0 and left(tmp_path) == []


@pytest.mark.slow
def test_two_thousand_clicks_and_killed_clients_leave_the_memory_flat(tmp_path):
    process, address = start(tmp_path)
    try:
        photo = json.loads(get(f'{address}photos?name=a.png', png()))['id']
        host, port = address.split('/')[2].split(':')
        path = f'/{address.split("/")[3]}/map?photo={photo}&tab=one'

        def click(count):
            for n in range(count):
                view = ('attention', 'similarity', 'features', 'cam')[n % 4]
                point = f'x={20 + n % 60}&y={10 + n % 50}' if view != 'cam' else f'target={n % 7}'
                get(f'http://{host}:{port}{path}&view={view}&{point}')
                if n % 10 == 0:  # a tab that is closed before its answer
                    with socket.create_connection((host, int(port))) as killed:
                        request = f'GET {path}&view=attention&x=30&y=30 HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n'
                        killed.sendall(request.encode())

        click(200)
        before = memory(process)
        click(2000)
        assert abs(memory(process) - before) < 20
        for seed in range(20):
            last = json.loads(get(f'{address}photos?name=b.png', png((300, 400), seed)))['id']
            get(f'{address}photos/{last}/describe')
        assert json.loads(get(f'{address}busy')) is None
        assert len(list((tmp_path / left(tmp_path)[0]).iterdir())) == 21
        assert process.poll() is None
    finally:
        _, code, _, err = stopped(process, signal.SIGINT)
    assert code == 0 and 'Traceback' not in err and 'error' not in err


def test_a_port_that_is_taken_is_one_line(tmp_path, capsys):
    (tmp_path / 'tiny.py').write_text(CLASSIFIER)
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        assert main([str(tmp_path / 'tiny.py'), 'none', '--port', str(port)]) == 2
    out, err = capsys.readouterr()
    assert out == '' and err.startswith(f'error: --port: port {port} cannot be used')
    assert main([str(tmp_path / 'tiny.py'), 'none', '--port', '99999']) == 2
    assert '--port' in capsys.readouterr().err


def test_a_missing_package_is_one_line_that_installs_it(tmp_path, capsys, monkeypatch):
    (tmp_path / 'tiny.py').write_text(CLASSIFIER)
    monkeypatch.setitem(sys.modules, 'uvicorn', None)
    assert main([str(tmp_path / 'tiny.py'), 'none']) == 2
    assert capsys.readouterr().err == "error: uvicorn is not installed; pip install 'mmvistool[explore]'\n"


@pytest.mark.parametrize(
    ('words', 'names'),
    [(['nowhere.py', 'none'], 'nowhere.py'), (['{tiny}', 'none', '--img', 'nowhere.png'], 'nowhere.png')],
)
def test_bad_words_end_before_anything_is_served(tmp_path, capsys, words, names):
    (tmp_path / 'tiny.py').write_text(CLASSIFIER)
    assert main([word.format(tiny=tmp_path / 'tiny.py') for word in words]) == 2
    out, err = capsys.readouterr()
    assert out == '' and err.startswith('error: ') and names in err
