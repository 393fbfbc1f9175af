"""Files and paths from elsewhere end in one line that names the file and the field, or load; never in a traceback."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vistool import records
from vistool.analyses.featmap.pca import Basis, LayerBasis, basis_bytes, read_basis
from vistool.analyses.schedule.curves import read_log
from vistool.data.images import read_image
from vistool.data.samples import find_inputs
from vistool.errors import InputError
from vistool.models.configs import resolve
from vistool.models.generated_configs import huggingface_config
from vistool.records import find_path, read_bytes

LONG = 'x' * 300


def error_of(call, *args: object, words: str = '') -> str:
    with pytest.raises(InputError) as caught:
        call(*args)
    message = str(caught.value)
    assert '\n' not in message and words in message and len(message) < 1200, message
    return message


# ---- paths that people type

UNUSABLE = [LONG, f'a/{LONG}/b', '~nouser_at_all/x', 'a\0b', 'x' * 5000, '\udcff/x']
NOWHERE = [*UNUSABLE, 'nowhere', 'a/b/c', '/nowhere', '/dev/null/x', 'x\udcff']


@pytest.mark.parametrize('path', NOWHERE, ids=range(len(NOWHERE)))
@pytest.mark.parametrize('spec', ['{}', '{}.py', 'hf::{}', 'mmpretrain::{}', 'mmpretrain::{}.py'])
def test_a_path_of_a_config_that_is_none(path, spec):
    error_of(resolve, spec.format(path))


@pytest.mark.parametrize('path', NOWHERE, ids=range(len(NOWHERE)))
@pytest.mark.parametrize('suffix', ['', '.jpg', '.txt', '/*.jpg'])
def test_a_path_of_images_that_is_none(path, suffix):
    error_of(find_inputs, path + suffix)


@pytest.mark.parametrize('name', [LONG, '~nouser_at_all/x.jpg', 'a\0b.jpg', 'gone.jpg', '/dev/zero', 'x\udcff.jpg'])
def test_one_unusable_path_of_a_list_is_that_image_alone(name, tmp_path):
    (tmp_path / 'good.jpg').write_bytes(Path('demo/readme.jpg').read_bytes())
    listed = tmp_path / 'list.txt'
    listed.write_bytes(os.fsencode(f'good.jpg\n{name}\n'))
    if name.endswith('\udcff.jpg'):
        error_of(find_inputs, listed)
        return
    good, other = find_inputs(listed)
    assert read_image(good.path).shape
    error_of(read_image, other.path)


def test_a_name_that_is_not_utf8_is_an_image_like_others(tmp_path):
    path = os.fsencode(tmp_path) + b'/caf\xe9.png'
    Path(os.fsdecode(path)).write_bytes(Path('demo/coffee.png').read_bytes())
    (item,) = find_inputs(tmp_path)
    assert read_image(item.path).shape[2] == 3


@pytest.mark.parametrize('kind', ['fifo', 'folder', 'dangling', 'loop', 'device'])
@pytest.mark.parametrize(
    'reader', [read_image, read_basis, read_log, resolve, find_path], ids=lambda each: each.__name__
)
def test_what_is_no_regular_file_is_not_waited_for(kind, reader, tmp_path):
    path = tmp_path / 'x.yaml'
    if kind == 'fifo':
        os.mkfifo(path)
    elif kind == 'folder':
        path.mkdir()
    elif kind != 'device':
        path.symlink_to(path if kind == 'loop' else tmp_path / 'gone')
    else:
        path.symlink_to('/dev/zero')
    if reader is find_path:
        assert find_path(path, 'x') == path
        error_of(read_bytes, path, 'x')
    else:
        error_of(reader, path)


# ---- folders of Hugging Face

CONFIG = {'model_type': 'vit', 'architectures': ['ViTForImageClassification'], 'image_size': 32, 'hidden_size': 8,
          'num_hidden_layers': 1, 'num_attention_heads': 2, 'intermediate_size': 8, 'patch_size': 16,
          'id2label': {'0': 'a', '1': 'b'}}  # fmt: skip
PROCESSOR = {'size': {'height': 32, 'width': 32}, 'image_mean': [0.5] * 3, 'image_std': [0.5] * 3, 'resample': 2}

CONFIGS = [
    {'model_type': 3}, {'model_type': None}, {'model_type': 'mine'}, {'model_type': ['vit']}, {'architectures': 'ViT'},
    {'architectures': [3]}, {'architectures': {}}, {'id2label': ['a']}, {'id2label': {'x': 'a'}},
    {'id2label': {'0': 3}},
    {'id2label': {'9' * 5000: 'a'}}, {'id2label': {'²': 'a'}}, {'id2label': {'-1': 'a'}}, {'id2label': 'a'},
    {'hidden_size': 10**12}, {'hidden_size': -8}, {'num_hidden_layers': 10**6}, {'num_hidden_layers': 5000},
    {'num_attention_heads': -2}, {'patch_size': -1}, {'depths': [1, 10**9]}, {'vocab_size': 10**15},
    {'initializer_range': 1e300}, {'num_channels': -3},
]  # fmt: skip
NO_PREPROCESSOR = [
    {'image_size': 0},
    {'image_size': -3},
    {'image_size': 10**9},
    {'image_size': '32'},
    {'image_size': []},
    {'image_size': [32, 0]},
    {'image_size': [1, 2, 3]},
    {'image_size': 1.5},
]
PROCESSORS = [
    {'size': 0}, {'size': -5}, {'size': 10**9}, {'size': '224'}, {'size': {'height': 0, 'width': 3}}, {'size': [0, 1]},
    {'size': {'shortest_edge': 'x'}}, {'size': {'height': 32}}, {'size': {'height': None, 'width': 3}},
    {'size': {'longest_edge': 32}}, {'size': True}, {'crop_size': 0}, {'crop_size': 'x'}, {'crop_size': {'height': -1}},
    {'crop_pct': 0}, {'crop_pct': -1}, {'crop_pct': 'x'}, {'crop_pct': 1e-300}, {'crop_pct': float('nan')},
    {'image_mean': 0.5}, {'image_mean': []}, {'image_mean': ['a']}, {'image_mean': [float('inf')] * 3},
    {'image_std': [0, 0, 0]}, {'image_std': [-1, 1, 1]}, {'image_std': {}}, {'image_mean': [0.5] * 400},
    {'resample': 'bicubic'}, {'resample': 2.5}, {'rescale_factor': 0}, {'rescale_factor': 'x'}, {'do_resize': 'yes'},
    {'do_normalize': 3}, {'image_processor': 3}, {'image_processor': {'size': 'x'}}, {'image_processor': []},
]  # fmt: skip
JSON = ['', '{', '[]', '3', 'null', '"x"', '[' * 100_000, '{"a": ' * 5000, '{"model_type": ' + '9' * 5000 + '}',
        '{"model_type": "\\ud800"}', '\ufeff{', '{"a": "\\ud800"}']  # fmt: skip


def hub(tmp_path: Path, config: dict, processor: dict | None = None) -> Path:
    (tmp_path / 'config.json').write_text(json.dumps({**CONFIG, **config}))
    if processor is not None:
        (tmp_path / 'preprocessor_config.json').write_text(json.dumps({**PROCESSOR, **processor}))
    return tmp_path


def test_the_sound_folder_is_read(tmp_path):
    assert huggingface_config(hub(tmp_path, {}, {}))[0].model.type == 'vistool.HuggingFaceClassifier'


@pytest.mark.parametrize('change', CONFIGS, ids=range(len(CONFIGS)))
def test_a_model_of_hugging_face(change, tmp_path):
    field = next(iter(change))
    error_of(huggingface_config, hub(tmp_path, change, {}), words='model_type' if field == 'model_type' else field)


@pytest.mark.parametrize('change', NO_PREPROCESSOR, ids=range(len(NO_PREPROCESSOR)))
def test_a_model_of_hugging_face_without_preprocessing(change, tmp_path):
    error_of(huggingface_config, hub(tmp_path, change), words="config.json: the field 'image_size")


@pytest.mark.parametrize('change', PROCESSORS, ids=range(len(PROCESSORS)))
def test_preprocessing_of_hugging_face(change, tmp_path):
    field = next(iter(change))
    error_of(huggingface_config, hub(tmp_path, {}, change), words=field)


@pytest.mark.parametrize('text', JSON, ids=range(len(JSON)))
@pytest.mark.parametrize('name', ['config.json', 'preprocessor_config.json'])
def test_json_of_hugging_face(text, name, tmp_path):
    hub(tmp_path, {}, {})
    (tmp_path / name).write_text(text)
    error_of(huggingface_config, tmp_path, words=name)


# ---- logs

SOUND = '{"lr": 0.1, "iter": 1}\n'
LOGS = [
    '{"lr": "x", "iter": 1}', '{"lr": NaN, "iter": 1}', '{"lr": Infinity, "iter": 1}', '{"lr": true, "iter": 1}',
    '{"lr": 0.1, "iter": "1"}', '{"lr": 0.1, "iter": 1.5}', '{"lr": 0.1, "iter": -1}', '{"lr": 0.1, "step": 1e300}',
    '{"lr": 0.1, "step": ' + '9' * 400 + '}', '{"lr": 0.1, "step": ' + '9' * 5000 + '}', '{"lr": ' + '9' * 400 + '}',
    '{"lr": ' + '9' * 5000 + '}', '{"lr": 1e999, "iter": 1}', '{"a": ' + '[' * 100_000 + '}', '[1]', '3', 'null',
    'text', '{"a": ' + '{"b": ' * 500 + '1' + '}' * 501, '{"lr": 0.1, "iter": 1} x', '{"a": "\\ud800"}',
    '{"lr": [NaN], "iter": 1}',
]  # fmt: skip


@pytest.mark.parametrize('line', LOGS, ids=range(len(LOGS)))
def test_a_line_of_a_log_that_is_none(line, tmp_path):
    (tmp_path / 'a.json').write_text(f'{SOUND}{line}\n{SOUND}')
    error_of(read_log, tmp_path / 'a.json', words='a.json, line 2')


@pytest.mark.parametrize(
    'line', ['', '{"mode": "val"}', '{"lr": [0.1, 0.2], "iter": 1}', '{"lr": {"g": 1}}', '{"lr": null}']
)
def test_lines_of_a_log_that_say_no_rate(line, tmp_path):
    (tmp_path / 'a.json').write_text(f'{SOUND}{line}\n{SOUND}')
    assert read_log(tmp_path / 'a.json')[1].tolist() == [0.1]


@pytest.mark.parametrize('content', [b'', b'\xff\xfe', b'\0' * 100, b'\n\n'])
def test_a_log_that_is_none(content, tmp_path):
    (tmp_path / 'a.json').write_bytes(content)
    error_of(read_log, tmp_path / 'a.json')


# ---- bases


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def basis(**changes: object) -> bytes:
    """The bytes of a sound basis, with some arrays replaced (None: left out)."""
    layer = LayerBasis(np.zeros(4), np.eye(4)[:3], np.zeros(3), np.ones(3), np.zeros((2, 4)), 0.5)
    with zipfile.ZipFile(io.BytesIO(basis_bytes(Basis({'layer1': layer}, 'net', 'abc')))) as sound:
        entries = {name.removesuffix('.npy'): sound.read(name) for name in sound.namelist()}
    for name, value in changes.items():
        entries[name] = value if isinstance(value, bytes) else b'' if value is None else npy(np.asarray(value))
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            if changes.get(name, 0) is not None:
                archive.writestr(f'{name}.npy', data)
    return file.getvalue()


def lying(shape: tuple[int, ...]) -> bytes:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + '\n'
    return b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little') + header.encode() + b'\0' * 64


def encrypted() -> bytes:
    data = bytearray(basis())
    for mark, place in ((b'PK\3\4', 6), (b'PK\1\2', 8)):
        at = data.find(mark)
        while at >= 0:
            data[at + place] |= 1
            at = data.find(mark, at + 4)
    return bytes(data)


BASES = {
    'empty': b'',
    'text': b'hello',
    'zip': b'PK\3\4' + b'\0' * 50,
    'cut': basis()[:-40],
    'encrypted': encrypted(),
    'claims': basis(mean_0=lying((10**12,))),
    'claims little': basis(mean_0=lying((2,))),
    'negative': basis(mean_0=lying((-8,))),
    'two': basis(mean_0=lying((10**6, 10**6))),
    'overflow': basis(mean_0=lying((2**62, 4))),
    'objects': basis(mean_0=np.array([{}, 3], object)),
    'pickle': basis(layers=np.array([print], object)),
    'short': basis(mean_0=np.zeros(5)),
    'deep': basis(mean_0=np.zeros((2, 4))),
    'three': basis(components_0=np.zeros((2, 4))),
    'wide': basis(components_0=np.zeros((3, 5))),
    'low': basis(low_0=np.zeros(2)),
    'high': basis(high_0=np.zeros((3, 1))),
    'nan': basis(mean_0=np.full(4, np.nan)),
    'inf': basis(high_0=np.full(3, np.inf)),
    'words': basis(mean_0=np.array(['a'] * 4)),
    'complex': basis(mean_0=np.zeros(4, complex)),
    'first': basis(first_0=np.zeros(4)),
    'threshold': basis(threshold_0=np.zeros(2)),
    'no threshold': basis(threshold_0=None),
    'no mean': basis(mean_0=None),
    'no layers': basis(layers=None),
    'numbers': basis(layers=np.arange(3)),
    'no names': basis(layers=np.array([], np.str_)),
    'more layers': basis(layers=np.array(['a', 'b'])),
    'model': basis(model=np.arange(2)),
    'header': basis(mean_0=b'\x93NUMPY'),
    'version': basis(mean_0=b'\x93NUMPY\x09\x00' + b'\0' * 90),
    'no sha': basis(sha256=None),
    'bare': npy(np.zeros(3)),
}


@pytest.mark.parametrize('name', BASES)
def test_a_basis_that_is_none(name, tmp_path):
    (tmp_path / 'a.npz').write_bytes(BASES[name])
    error_of(read_basis, tmp_path / 'a.npz', words='a.npz')


def test_a_basis_that_unpacks_to_much_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(records, 'LARGEST_ARRAYS', 1 << 20)
    (tmp_path / 'a.npz').write_bytes(basis(mean_0=b'\0' * (4 << 20)))
    error_of(read_basis, tmp_path / 'a.npz', words='unpacks to 4,194,304 bytes')


def test_a_sound_basis_is_read(tmp_path):
    (tmp_path / 'a.npz').write_bytes(basis())
    found = read_basis(tmp_path / 'a.npz')
    assert found.model == 'net' and found.layers['layer1'].threshold == 0.5 and len(found.layers['layer1'].mean) == 4


def test_the_corpus_is_large():
    tables = (NOWHERE, CONFIGS, NO_PREPROCESSOR, PROCESSORS, JSON, LOGS, BASES)
    assert sum(map(len, tables)) > 130
