"""What a checkpoint can make this process do: nothing. Each attack would leave a file behind if it ran."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import subprocess
import zipfile
from argparse import Namespace
from collections import OrderedDict, defaultdict
from pathlib import Path, PosixPath

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import Config, ConfigDict
from mmengine.logging import HistoryBuffer
from torch import nn

from vistool.errors import InputError
from vistool.models.checkpoints.unpickling import FAMILIES, STAND_INS, Inert, plain, read_pickle


class Call:
    """Pickles as a call of ``function`` with ``arguments``."""

    def __init__(self, function, *arguments, state=None) -> None:
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


def write(path: Path, content: object, form: str) -> Path:
    if form == 'pickle':
        path.write_bytes(pickle.dumps(content, protocol=4))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == 'zip')
    return path


def write_program(path: Path, program: bytes) -> Path:
    """A zip checkpoint whose pickle is ``program``, byte for byte."""
    buffer = io.BytesIO()
    torch.save({'weight': torch.zeros(2)}, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, 'w') as target:
        for entry in source.namelist():
            target.writestr(entry, program if entry.endswith('data.pkl') else source.read(entry))
    return path


def attacks(trace: str) -> dict[str, object]:
    touch = f'touch {trace}'
    code = f'open({trace!r}, "w").close()'
    objects = np.empty(1, dtype=object)
    objects[0] = Call(os.system, touch)
    return {
        'posix.system': Call(os.system, touch),
        'builtins.eval': Call(eval, code),
        'builtins.exec': {'state_dict': Call(exec, code)},
        'builtins.__import__': Call(__import__, 'os'),
        'subprocess.Popen': Call(subprocess.Popen, ['touch', trace]),
        'builtins.getattr': Call(getattr, HistoryBuffer, '__init__'),
        'builtins.getattr ': Call(getattr, HistoryBuffer, 'register_statistics'),
        'builtins.getattr  ': Call(getattr, ConfigDict, 'min'),
        'builtins.setattr': Call(setattr, HistoryBuffer, 'min', 1),
        'posix.system ': objects,
        'builtins.eval ': HistoryBuffer([1.0], [1]).__dict__ | {'log': Call(eval, code)},
        'builtins.compile': Call(compile, code, 'x', 'exec'),
        'io.open': Call(open, trace, 'w'),
        'torch.serialization.load': Call(torch.load, trace),
        'torch.hub.load_state_dict_from_url': Call(torch.hub.load_state_dict_from_url, 'file://' + trace),
        'numpy.load': Call(np.load, trace),
        'mmengine.config.config.Config.fromfile': Call(Config.fromfile, trace),
    }


@pytest.mark.parametrize('form', ['zip', 'legacy', 'pickle'])
@pytest.mark.parametrize('name', attacks(''))
def test_an_attack_is_refused_by_name_and_never_runs(tmp_path, name, form):
    trace = tmp_path / 'trace'
    path = write(tmp_path / 'bad.pth', attacks(str(trace))[name], form)
    before = set(torch.serialization.get_safe_globals())
    with pytest.raises(InputError) as caught:
        read_pickle(path)
    assert not trace.exists()
    assert set(torch.serialization.get_safe_globals()) == before
    message = str(caught.value)
    assert '\n' not in message
    assert 'trust_checkpoint' in message
    # a classmethod is pickled as a call of getattr on its class
    assert name.strip() in message or 'builtins.getattr' in message or ('getattr' in name and form == 'pickle')


def test_the_attacks_are_real(tmp_path):
    trace = tmp_path / 'trace'
    for name in ('posix.system', 'builtins.eval', 'builtins.exec', 'posix.system '):
        read_pickle(write(tmp_path / 'bad.pth', attacks(str(trace))[name], 'zip'), trust=True)
        assert trace.exists()
        trace.unlink()


PROGRAMS = {
    # builtins.getattr on a stand-in, to climb to object and its subclasses
    'climb': b'cbuiltins\ngetattr\ncmmengine.logging.history_buffer\nHistoryBuffer\nX\x09\x00\x00\x00__class__\x86R.',
    'subclasses': b'cbuiltins\ngetattr\ncnumpy\nndarray\nX\x0e\x00\x00\x00__subclasses__\x86R.',
    # setting attributes of a stand-in class, by BUILD on the class itself
    'build on class': b'cmmengine.logging.history_buffer\nHistoryBuffer\n}X\x03\x00\x00\x00minK\x01sb.',
    'slot state on class': b'cnumpy\ndtype\nN}X\x05\x00\x00\x00numpyK\x01s\x86b.',
    'build on function': b'cbuiltins\ngetattr\n}X\x08\x00\x00\x00__code__K\x01sb.',
    # items into something that is no dict, elements into something that is no list
    'items of a stand-in': b'cmmengine.logging.history_buffer\nHistoryBuffer\n)\x81K\x01K\x02s.',
    'elements of a stand-in': b'cmmengine.logging.history_buffer\nHistoryBuffer\n)\x81K\x01a.',
    # names by way of a dotted attribute
    'dotted': b'cnumpy.core.multiarray\n_reconstruct.__globals__\n.',
    'stand-in module': b'cvistool.stand_ins\nInert\n.',
    'own reader': b'cvistool.unpickling\nread_pickle\n.',
    'unknown scheduler path': b'cmmengine.optim.scheduler.lr_scheduler\nos.system\nX\x01\x00\x00\x00x\x85R.',
}


@pytest.mark.parametrize('name', PROGRAMS)
def test_programs_written_by_hand_are_refused(tmp_path, name):
    with pytest.raises(InputError):
        read_pickle(write_program(tmp_path / 'bad.pth', b'\x80\x02' + PROGRAMS[name]))
    assert not {'min', 'numpy', '__code__'} & vars(STAND_INS['mmengine.logging.history_buffer.HistoryBuffer']).keys()
    assert callable(STAND_INS['numpy.dtype'].numpy)


@pytest.mark.parametrize('class_name', ['CosineAnnealingLR', '_wrap', 'anything'])
def test_scheduler_classes_become_inert(tmp_path, class_name):
    program = (
        b'\x80\x02cmmengine.optim.scheduler.lr_scheduler\n' + class_name.encode() + b'\n(X\x02\x00\x00\x00lsK\x01tR.'
    )
    assert isinstance(read_pickle(write_program(tmp_path / 'file.pth', program)), Inert)


def test_no_stand_in_is_foreign():
    """What a file can reach is this module's own, and the one container that PyTorch's reader permits by itself."""
    for stand_in in (*STAND_INS.values(), *(stand_in for _, stand_in in FAMILIES)):
        assert stand_in is OrderedDict or stand_in.__module__ == 'vistool.models.checkpoints.unpickling'
    real = {id(value) for value in vars(builtins).values()}
    assert not [name for name, stand_in in STAND_INS.items() if id(stand_in) in real]


@pytest.mark.parametrize('core', [b'numpy.core.multiarray', b'numpy._core.multiarray'])
def test_arrays_of_numpy_1_and_2(tmp_path, core):
    array = np.arange(6, dtype='>i2').reshape(2, 3)
    program = pickle.dumps({'a': array, 's': np.float32(0.5)}, protocol=2)
    program = program.replace(b'numpy._core.multiarray', core).replace(b'numpy.core.multiarray', core)
    found = plain(read_pickle(write_program(tmp_path / 'file.pth', program)))
    assert found['s'] == 0.5
    assert found['a'].dtype == array.dtype
    np.testing.assert_array_equal(found['a'], array)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(['?', 'i1', 'u2', '<i4', '>i8', 'f2', 'f4', '>f8', 'c8', 'U3', 'S4']),
    st.lists(st.integers(0, 3), max_size=3),
    st.booleans(),
)
def test_arrays_come_back_as_they_were(tmp_path_factory, dtype, shape, fortran):
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    array = np.asfortranarray(values) if fortran else values
    path = write(tmp_path_factory.mktemp('arrays') / 'file.pth', {'array': array, 'scalar': array.dtype.type(1)}, 'zip')
    found = plain(read_pickle(path))
    assert found['array'].dtype == array.dtype
    np.testing.assert_array_equal(found['array'], array)
    assert array.dtype.kind == 'S' or found['scalar'] == array.dtype.type(1)


@pytest.mark.parametrize(
    'array',
    [
        np.array([{'a': 1}, 'text', None], dtype=object),
        np.zeros(2, dtype=[('a', 'i4'), ('b', 'O')]),
        np.zeros(2, dtype=('i4', (2,))).view([('x', 'i4', (2,))]),
        np.array(['2026-01-01'], dtype='M8[D]'),
    ],
)
def test_arrays_of_other_things_are_left_out(tmp_path, array):
    assert plain(read_pickle(write(tmp_path / 'file.pth', {'array': array, 'kept': 1}, 'zip'))) == {
        'array': None,
        'kept': 1,
    }


def numpy_state(dtype_state: bytes, raw: bytes) -> bytes:
    """A pickle of an array whose type and content are given as pickle code."""
    return (
        b'\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR'
        b'(K\x01K\x01\x85cnumpy\ndtype\nX\x02\x00\x00\x00' + dtype_state + raw + b'tb.'
    )


def test_a_type_that_lies_about_holding_objects_never_reaches_numpy(tmp_path):
    """A record type with an object field, claiming to hold none, would make NumPy follow addresses from the file."""
    lie = b'V8K\x00K\x01\x87R(K\x03X\x01\x00\x00\x00|N(X\x01\x00\x00\x00atK\x00K\x08K\x01K\x00tb\x89'
    program = numpy_state(lie, b'U\x08AAAAAAAA')
    assert plain(read_pickle(write_program(tmp_path / 'file.pth', program))) is None


def test_an_array_longer_than_its_bytes_is_refused(tmp_path):
    program = numpy_state(
        b'f8K\x00K\x01\x87R(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89', b'U\x04AAAA'
    )
    content = write_program(tmp_path / 'file.pth', program)
    try:
        assert plain(read_pickle(content)) is None
    except InputError as error:
        assert 'truncated' in str(error)


def test_a_bomb_of_references_stays_small(tmp_path):
    content: list = []
    for _ in range(60):
        content = [content, content]
    found = plain(read_pickle(write(tmp_path / 'file.pth', content, 'zip')))
    assert found[0] is found[1]


def test_deep_nesting_ends(tmp_path):
    program = b'\x80\x02' + b']' * 100_000 + b'a' * 99_999 + b'.'
    assert plain(read_pickle(write_program(tmp_path / 'file.pth', program))) is None


def test_what_training_scripts_leave_in_checkpoints_is_harmless(tmp_path):
    content = {
        'args': Namespace(lr=0.1, path=PosixPath('/x')),
        'config': ConfigDict(a=1, b={'c': 2}),
        'whole': Config({'a': 1}),
        'counts': defaultdict(list, a=[1]),
        'history': HistoryBuffer([1.0, 2.0], [1, 1]),
        'unused': HistoryBuffer(),
        'slice': slice(1, 2),
        'version': torch.torch_version.TorchVersion('2.0'),
        'dtype': np.dtype('float32'),
        'type': np.float32,
    }
    for form in ('zip', 'legacy'):
        found = read_pickle(write(tmp_path / 'file.pth', content, form))
        assert plain(found['config']) == {'a': 1, 'b': {'c': 2}}
        assert plain(found['counts']) == {'a': [1]}
        assert isinstance(found['args'], Inert) and isinstance(found['history'], Inert)


@pytest.mark.parametrize('module', ['pathlib', 'pathlib._local'])
@pytest.mark.parametrize('kind', ['PosixPath', 'WindowsPath', 'Path'])
def test_paths_are_harmless_whichever_python_wrote_them(tmp_path, module, kind):
    """Python 3.13 writes pathlib._local, the versions before and after it write pathlib."""
    program = b'\x80\x02c%b\n%b\nX\x02\x00\x00\x00/x\x85R.' % (module.encode(), kind.encode())
    assert isinstance(read_pickle(write_program(tmp_path / 'file.pth', program)), Inert)


def test_a_whole_pickled_model_is_refused_unless_trusted(tmp_path):
    path = write(tmp_path / 'model.pth', nn.Sequential(nn.Linear(2, 2)), 'zip')
    with pytest.raises(InputError, match=r'whole pickled model.*state_dict\(\).*trust_checkpoint'):
        read_pickle(path)
    assert isinstance(read_pickle(path, trust=True), nn.Sequential)


def test_a_torchscript_archive_is_told(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / 'script.pt'))
    with pytest.raises(InputError, match='TorchScript'):
        read_pickle(tmp_path / 'script.pt')


def test_a_trusted_class_that_is_not_there_is_named(tmp_path):
    program = b'\x80\x02cno_such_module\nThing\n)\x81.'
    path = write_program(tmp_path / 'file.pth', program)
    with pytest.raises(InputError, match='no_such_module'):
        read_pickle(path, trust=True)
    with pytest.raises(InputError, match=r'no_such_module\.Thing.*trust_checkpoint'):
        read_pickle(path)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 400))
def test_damage_anywhere_gives_one_kind_of_error(tmp_path_factory, noise, position):
    """Random bytes within the pickle either still read as something harmless or raise an InputError."""
    program = pickle.dumps({'a': np.arange(3), 'b': [HistoryBuffer([1.0], [1])], 'c': 'text'}, protocol=2)
    position %= len(program)
    path = tmp_path_factory.mktemp('damage') / 'file.pth'
    write_program(path, program[:position] + noise + program[position + len(noise) :])
    try:
        plain(read_pickle(path))
    except InputError as error:
        assert '\n' not in str(error)
