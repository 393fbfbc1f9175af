"""YAML and JSON configs never run code; a Python config may, and whatever it raises is an error of that config."""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
from pathlib import Path

import pytest

from vistool.data.pipelines import build_pipeline
from vistool.errors import InputError
from vistool.models.configs import Source, read_config, resolve
from vistool.models.model import build_module
from vistool.registry import in_scope, is_registry_name, registered_only

TRACE = 'trace_of_code_that_ran'
RUN = f'__import__("pathlib").Path("{TRACE}").touch()'


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    """The working folder holds a module that leaves a trace when it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', [entry for entry in sys.path if entry])
    Path('planted.py').write_text(f'{RUN}\ndef call(*args, **kwargs): pass\n')
    yield
    assert not Path(TRACE).exists(), 'code ran'
    assert 'planted' not in sys.modules


def refused(name: str, text: str, **options: object) -> str:
    Path(name).write_text(text, encoding='utf-8', errors='surrogatepass')
    with pytest.raises(InputError) as caught:
        resolve(name, options)
    message = str(caught.value)
    assert '\n' not in message and name in message, message
    return message


TAGS = [
    f'a: !!python/object/apply:os.system ["touch {TRACE}"]',
    f'a: !!python/object/new:os.system ["touch {TRACE}"]',
    f'a: {{b: [1, !!python/object/apply:subprocess.check_call [[touch, {TRACE}]]]}}',
    'a: !!python/name:os.system',
    'a: !!python/module:planted',
    'a: !!python/object:planted.Thing {}',
    'a: !!python/tuple [1, 2]',
    f'%TAG !p! tag:yaml.org,2002:python/\n---\na: !p!object/apply:os.system ["touch {TRACE}"]',
    f'? !!python/object/apply:os.system ["touch {TRACE}"]\n: 1',
    f'a: !<tag:yaml.org,2002:python/object/apply:os.system> ["touch {TRACE}"]',
    'a: !own 3',
    f"a: '{{{{$UNSET_VARIABLE:x}}}}'\nb: !!python/object/apply:os.system [touch {TRACE}]",
]


@pytest.mark.parametrize('text', TAGS)
def test_a_tag_of_yaml_never_builds_an_object(text):
    message = refused('a.yaml', text)
    assert 'line' in message and 'tag' in message


def test_a_variable_of_the_environment_cannot_bring_a_tag(monkeypatch):
    monkeypatch.setenv('RATE', f'!!python/object/apply:os.system ["touch {TRACE}"]')
    assert 'tag' in refused('a.yaml', 'lr: {{$RATE:0.1}}')


TYPES = [
    'os.system', 'planted.call', 'planted.registry.X', 'subprocess.call', 'builtins.exec', 'mmengine.runner.runner.os',
    'mmengine.fileio.load', 'torch.load', 'a.b.c', '.x', 'x.', '..', 'planted.', 'os.path.join',
]  # fmt: skip
PLACES = [
    lambda kind: {'model': {'type': kind}},
    lambda kind: {'model': {'type': 'ImageClassifier', 'backbone': {'type': kind}}},
    lambda kind: {'train_pipeline': [{'type': 'LoadImageFromFile'}, {'type': kind}]},
    lambda kind: {'optim_wrapper': {'constructor': kind}},
    lambda kind: {'custom_hooks': [[{'type': kind}]]},
    lambda kind: {'runner_type': kind},
]


@pytest.mark.parametrize('kind', TYPES)
@pytest.mark.parametrize('place', range(len(PLACES)))
def test_a_type_is_a_name_of_a_registry(kind, place):
    message = refused('a.json', json.dumps(PLACES[place](kind)))
    assert repr(kind) in message


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('custom_imports: {imports: [planted]}', 'custom_imports'),
        ('custom_imports: planted', 'custom_imports'),
        ('default_scope: planted', 'default_scope'),
        ('model: {type: ResNet, _scope_: planted}', '_scope_'),
        ('model: {type: HuggingFaceClassifier, model_name: x, trust_remote_code: true}', 'trust_remote_code'),
        ('val_dataloader: {dataset: {type: CustomDataset, ann_file: a.pkl}}', 'ann_file'),
        ('val_dataloader: {dataset: {type: CustomDataset, ann_file: A.PICKLE}}', 'ann_file'),
        ('val_dataloader: {dataset: {type: CustomDataset, ann_file: labels.yaml}}', 'ann_file'),
        ('a: "\\0"', 'text'),
        ('a: "\\uD800"', ''),
        ('a: [1, 2', 'line'),
        ('- 1', 'mapping'),
        ('3', 'mapping'),
        ('', 'mapping'),
        ('a: &x [*x]', 'contains itself'),
        ('a: &x {b: *x}', 'contains itself'),
        ('a: *nothing', 'line'),
        ('a: ' + '[' * 500 + ']' * 500, 'deeply'),
        ('a: ' + '{b: ' * 500 + '1' + '}' * 500, 'deeply'),
        ('a: 2024-99-99', ''),
        ('a: "\\x01\x01"', ''),
    ],
)
def test_what_else_yaml_may_not_hold(text, words):
    assert words in refused('a.yml', text)


@pytest.mark.parametrize('depth', [8, 30])
def test_a_bomb_of_aliases_is_not_expanded(depth):
    lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]']
    lines += [f'a{n}: &a{n} [{", ".join([f"*a{n - 1}"] * 10)}]' for n in range(1, depth)]
    assert 'too many values' in refused('bomb.yaml', '\n'.join(lines))


def test_a_bomb_of_merge_keys_is_not_expanded():
    lines = ['a0: &a0 {k: 1}']
    lines += [f'a{n}: &a{n} {{x: *a{n - 1}, y: *a{n - 1}, z: {{<<: *a{n - 1}}}}}' for n in range(1, 40)]
    assert 'too many values' in refused('bomb.yaml', '\n'.join(lines))


@pytest.mark.parametrize('text', ['[' * 100_000, '{"a": ' * 100_000, '{"a": ' + '9' * 5000 + '}', '{"a": }', 'x', '[]'])
def test_damaged_json(text):
    refused('a.json', text)


BASES = ['base.py', './base.py', '../base.PY', 'base', 'planted::base.py', 'os::x.py', 'mmpretrain::../../x.py',
         'mmpretrain::/etc/x.py', 'absent.yaml', 'a.yaml', 'mmpretrain::_base_/nothing.py']  # fmt: skip


@pytest.mark.parametrize('base', BASES)
def test_a_base_is_data_or_of_an_installed_package(base):
    Path('base.py').write_text(RUN)
    assert '_base_' in refused('a.yaml', f"_base_: ['{base}']")


@pytest.mark.parametrize('base', ['3', '{a: 1}', '[[a.yaml]]', '[null]'])
def test_a_base_is_a_path(base):
    assert '_base_' in refused('a.yaml', f'_base_: {base}')


def test_bases_are_checked_as_deep_as_they_go():
    Path('deep').mkdir()
    Path('deep/c.yaml').write_text('x: 1\nmodel: {type: os.system}')
    Path('b.json').write_text('{"_base_": "deep/c.yaml"}')
    Path('a.yaml').write_text('_base_: b.json')
    with pytest.raises(InputError, match=r'c\.yaml.*os\.system'):
        resolve('a.yaml')


def test_bases_in_a_circle():
    Path('b.yaml').write_text('_base_: a.yaml')
    Path('a.yaml').write_text('_base_: b.yaml')
    with pytest.raises(InputError, match='its own _base_'):
        resolve('a.yaml')


@pytest.mark.parametrize('options', [{'model.type': 'os.system'}, {'custom_imports': {'imports': ['planted']}},
                                     {'x': [{'type': 'planted.call'}]}, {'default_scope': 'planted'}])  # fmt: skip
def test_options_on_top_of_data_are_data(options):
    Path('a.yaml').write_text('model: {type: ResNet, depth: 18}')
    with pytest.raises(InputError, match='options: '):
        resolve('a.yaml', options)


@pytest.mark.parametrize('kind', ['os', 'planted', 'antigravity', 'mmengine.load', 'mmengine.Config', 'torch', 'sys'])
@pytest.mark.parametrize('registry', ['MODELS', 'TRANSFORMS', 'DATASETS', 'HOOKS', 'OPTIMIZERS', 'FUNCTIONS'])
def test_registries_import_nothing_for_data(kind, registry, monkeypatch):
    """These names pass as text; only the registry knows that nothing of that name is registered."""
    import mmengine.registry

    sys.path.append(str(Path.cwd()))  # even if the working folder is importable
    config = read_config(_written('a.yaml', 'x: 1'))
    with in_scope(config), pytest.raises(KeyError, match='is not in the'):
        getattr(mmengine.registry, registry).build({'type': kind})
    assert 'antigravity' not in sys.modules


@pytest.mark.parametrize('kind', ['os', 'planted', 'mmengine.load'])
def test_models_and_pipelines_of_data_import_nothing(kind):
    sys.path.append(str(Path.cwd()))
    config = read_config(_written('a.yaml', f'model: {{type: {kind}}}\ntest_pipeline: [{{type: {kind}}}]'))
    with pytest.raises(InputError, match='which is not registered'):
        build_module(Source(config, 'a'))
    with pytest.raises(InputError, match='cannot be built'):
        build_pipeline(config)


def test_within_a_thread_only():
    with registered_only():
        pass
    from mmengine.registry import MODELS

    assert MODELS.get('torch.nn.Identity') is not None  # as mmengine has it


def _written(name: str, text: str) -> Path:
    Path(name).write_text(text)
    return Path(name)


# ---- what data may do


def test_data_is_read_as_before():
    _written('base.json', '{"x": {"lr": 0.1, "steps": [1, 2]}, "load_from": "a.pth"}')
    text = "_base_: ['base.json', 'mmpretrain::_base_/models/resnet50.py']\nx: {lr: 0.2}\ny: !!str 3\nz: &z [1]\nw: *z"
    config = resolve(_written('a.yaml', text)).config
    assert config.x == {'lr': 0.2, 'steps': [1, 2]} and config.y == '3' and config.w == [1]
    assert config.model.backbone.type == 'ResNet' and config.load_from == 'a.pth'


@pytest.mark.parametrize('kind', ['ResNet', 'mmpretrain.ResNet', 'mmdet.ResNet', 'vistool.TorchvisionClassifier',
                                  'torchvision/Resize', 'mmcv.Resize', 'mmcls.ResNet'])  # fmt: skip
def test_names_of_registries(kind):
    assert is_registry_name(kind)


# ---- a Python config


@pytest.mark.parametrize(
    'code',
    [
        'exit(5)', 'raise SystemExit', 'raise KeyboardInterrupt', 'raise GeneratorExit', 'raise BaseException("x")',
        'quit()', 'def f(): return f()\nf()', 'raise MemoryError', '1 / 0', 'import sys; sys.exit("no")',
        'raise KeyboardInterrupt()', 'raise StopIteration',
    ],
)  # fmt: skip
def test_whatever_a_python_config_raises_is_its_error(code):
    refused('a.py', code)


def test_an_interrupt_is_no_fault_of_the_config():
    import signal

    Path('a.py').write_text('import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)\n')
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start tests with it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            resolve('a.py')
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize('name', ['a.py', 'a.yaml'])
def test_a_full_disk_is_no_fault_of_the_config(code, name, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    _written(name, 'x = 1' if name == 'a.py' else 'x: 1')
    monkeypatch.setattr(tempfile, 'mkdtemp', full)
    with pytest.raises(InputError) as caught:
        resolve(name)
    assert 'temporary files cannot be written' in str(caught.value) and 'TMPDIR' in caught.value.hint


def test_the_working_folder_is_last_and_only_if_needed():
    before = list(sys.path)
    resolve(_written('a.py', 'x = 1'))
    resolve(_written('b.py', "import json\ncustom_imports = dict(imports=['json'])"))
    assert sys.path == before
    Path('my_own_trusted.py').write_text('loaded = True')
    resolve(_written('c.py', "custom_imports = dict(imports=['my_own_trusted'])"))
    assert sys.path == [*before, str(Path.cwd())] and sys.modules.pop('my_own_trusted').loaded


@pytest.mark.parametrize(
    'text',
    [
        'from my_parts import Net\nmodel = dict(type=Net)',
        "model = dict(type='my_parts.Net')",
        'import my_parts\nmodel = dict(type=my_parts.Net)',
        "custom_imports = dict(imports=['my_parts'])\nmodel = dict(type='my_parts.Net')",
        "custom_imports = dict(imports='my_parts', allow_failed_imports=True)\nmodel = dict(type='my_parts.Net')",
    ],
)
def test_every_way_to_name_an_own_module_finds_it(text, monkeypatch):
    Path('my_parts.py').write_text('import torch\nclass Net(torch.nn.Identity): pass\n')
    module = build_module(resolve(_written('a.py', text)))
    assert type(module).__name__ == 'Net'
    sys.modules.pop('my_parts')


@pytest.mark.parametrize('value', ['3', "'x'", '[1]', 'dict(imports=3)', "dict(names=['x'])"])
def test_malformed_custom_imports(value):
    if value == "'x'":
        value = "('x',)"
    assert 'custom_imports' in refused('a.py', f'custom_imports = {value}')
