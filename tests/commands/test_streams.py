"""Standard output and error that cannot be written change nothing else: the work is done, the exit code stays."""

import os
import signal
import subprocess
import sys
import time

import pytest

from vistool.commands import boundary, vis_cam, vis_patches

COMMAND = """
import sys
from pathlib import Path
from vistool.commands import boundary, options
from vistool.errors import InputError

def work(args):
    for number in range(1500):
        boundary.announce([f'{number:060d}'])
        if number % 100 == 0:
            boundary.log.warning('at %d', number)
    Path(args.images).write_text(str(number))
    if args.images.endswith('wrong'):
        raise InputError('wrong')
    return 0

parser = options.Parser('tool', '', '')
options.add_images(parser)
options.add_logging(parser, parser)
sys.exit(boundary.run(work, parser))
"""


@pytest.mark.parametrize(
    'redirection',
    ['>/dev/full', '>&-', '2>/dev/full', '2>&-', '>&- 2>&-', '>/dev/full 2>&1', '<&- >&- 2>&-', '| head -1'],
)
@pytest.mark.parametrize(('name', 'code'), [('done', 0), ('wrong', 2)])
def test_the_exit_code_stays_and_the_work_is_done(redirection, name, code, tmp_path):
    script, file = tmp_path / 'tool.py', tmp_path / name
    script.write_text(COMMAND)
    line = f'{sys.executable} {script} {file} {redirection}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(['bash', '-c', line], capture_output=True, text=True)
    assert done.returncode == code and file.read_text() == '1499'
    assert 'Traceback' not in done.stderr and 'Exception ignored' not in done.stderr


@pytest.mark.parametrize('redirection', ['>/dev/full', '>&-', '2>&-'])
def test_help_that_nobody_reads(redirection, tmp_path):
    script = tmp_path / 'tool.py'
    script.write_text(COMMAND)
    assert subprocess.run(['bash', '-c', f'{sys.executable} {script} --help {redirection}']).returncode == 0


@pytest.mark.parametrize(('argument', 'code'), [('photo.png', 2), ('--help', 0)])
def test_a_folder_that_was_deleted_is_named(argument, code, tmp_path):
    (tmp_path / 'gone').mkdir()
    script = tmp_path / 'tool.py'
    script.write_text(COMMAND)
    line = f'cd gone && rmdir ../gone && {sys.executable} {script} {argument}'
    done = subprocess.run(['bash', '-c', line], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == code
    assert (
        code == 0 or done.stderr == 'error: the current folder does not exist any more; change to another one with cd\n'
    )


def test_a_path_that_is_not_text_keeps_its_bytes(tmp_path):
    script = tmp_path / 'tool.py'
    script.write_text(COMMAND.replace("f'{number:060d}'", 'args.images'))
    name = os.fsencode(tmp_path) + b'/\xff\xe9'
    done = subprocess.run([sys.executable, script, name], capture_output=True)
    assert done.returncode == 0 and done.stdout.splitlines()[0] == name


def test_code_that_ends_the_process_is_an_error(tmp_path):
    script = tmp_path / 'tool.py'
    script.write_text(COMMAND.replace('def work(args):', 'def work(args):\n    sys.exit(7)'))
    done = subprocess.run([sys.executable, script, 'x'], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith('error: ') and 'SystemExit: 7' in done.stderr


def test_what_is_logged_while_a_file_is_decoded_is_not_taken_for_the_decoders(tmp_path):
    script = tmp_path / 'tool.py'
    decodes = """
    import os
    from vistool.data.decoders import decoding
    with decoding('photo.tif'):
        boundary.log.warning('my own')
        print('of Python', file=sys.stderr)
        os.write(2, b'of C')
    return 0
"""
    script.write_text(COMMAND.replace('def work(args):', f'def work(args):{decodes}'))
    done = subprocess.run([sys.executable, script, 'x'], capture_output=True, text=True)
    said = ['warning: my own', 'of Python', 'warning: photo.tif is damaged, but could be decoded: of C']
    assert done.returncode == 0 and done.stderr.splitlines() == said


def test_an_early_interrupt_is_one_line(tmp_path):
    script = tmp_path / 'tool.py'
    # A shell may start tests with interrupts ignored
    ready = 'import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n'
    script.write_text(f'{ready}import vistool.commands, time\nprint(flush=True)\ntime.sleep(30)')
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert said == 'error: interrupted\n' and process.returncode == -signal.SIGINT


@pytest.mark.parametrize(
    ('tool', 'said'), [(vis_cam, '--resume continues a run over many images'), (vis_patches, 'interrupted')]
)
def test_an_interrupted_command_says_how_to_go_on_where_it_can(tool, said, capsys):
    def work(args):
        raise KeyboardInterrupt

    assert boundary.run(work, tool.build_parser(), ['photo.png', 'config.py']) == 130
    assert capsys.readouterr().err.strip().endswith(said)
