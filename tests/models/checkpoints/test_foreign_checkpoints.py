"""Checkpoints from elsewhere: wrapped in any name, of another number of classes, damaged, or out to run code."""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from vistool.errors import InputError
from vistool.models.checkpoints.reading import Checkpoint, read_checkpoint, shards
from vistool.models.checkpoints.weights import load_weights
from vistool.models.configs import find_checkpoint, resolve
from vistool.models.model import build_module, load


class Net(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
        self.fc = nn.Linear(4, classes)


def error_of(call, *args: object, **more: object) -> str:
    with pytest.raises(InputError) as caught:
        call(*args, **more)
    message = str(caught.value)
    assert '\n' not in message and len(message) < 900
    return message


# ---- a checkpoint whose names all start with another word

PREFIXES = ['net.', 'student.', 'base_model.model.', 'model.net.', 'anything.', 'a.b.c.d.', 'module.net.',
            '_orig_mod.x.', 'encoder.backbone.', 'model.model.', 'réseau.', '0.', 'fc.']  # fmt: skip


@pytest.mark.parametrize('prefix', PREFIXES)
def test_a_prefix_of_all_names_is_stripped(prefix, tmp_path):
    torch.manual_seed(1)
    theirs, ours = Net(), Net()
    torch.save({f'{prefix}{name}': value for name, value in theirs.state_dict().items()}, tmp_path / 'a.pth')
    report = load_weights(ours, read_checkpoint(tmp_path / 'a.pth'))
    assert not (report.missing or report.unexpected or report.mismatched)
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name])


@pytest.mark.parametrize('prefix', ['net.', 'model.net.', 'a.b.c.'])
def test_a_prefix_that_only_the_network_has_is_added(prefix, tmp_path):
    wrapped = nn.Module()
    inner = wrapped
    for name in prefix.split('.')[:-1]:
        inner.add_module(name, Net() if f'{name}.' == prefix[-len(name) - 1 :] else nn.Module())
        inner = getattr(inner, name)
    torch.save(Net().state_dict(), tmp_path / 'a.pth')
    report = load_weights(wrapped, read_checkpoint(tmp_path / 'a.pth'))
    assert not (report.missing or report.unexpected)


def test_what_else_a_training_saved_beside_the_network_stays_unused(tmp_path):
    weights = {f'model.net.{name}': value for name, value in Net().state_dict().items()}
    torch.save(weights | {'loss.weight': torch.ones(3)}, tmp_path / 'a.pth')
    report = load_weights(Net(), read_checkpoint(tmp_path / 'a.pth'))
    assert report.unexpected == ('loss.weight',) and not report.missing


@pytest.mark.parametrize('prefix', ['model.net.', 'module.', '_orig_mod.', 'module.student.'])
def test_names_are_quoted_as_the_file_has_them(prefix, tmp_path):
    torch.save({f'{prefix}stages.{i}.weight': torch.zeros(2, 2) for i in range(5)}, tmp_path / 'a.pth')
    message = error_of(load_weights, Net(), read_checkpoint(tmp_path / 'a.pth'))
    assert f'the checkpoint has {prefix}stages.0.weight, {prefix}stages.1.weight' in message


@pytest.mark.parametrize('prefix', ['model.net.', 'module.'])
def test_unused_names_are_quoted_as_the_file_has_them(prefix, tmp_path, caplog):
    weights = {**Net().state_dict(), 'neck.weight': torch.zeros(2)}
    torch.save({f'{prefix}{name}': value for name, value in weights.items()}, tmp_path / 'a.pth')
    report = load_weights(Net(), read_checkpoint(tmp_path / 'a.pth'))
    assert report.unexpected == (f'{prefix}neck.weight',) and f'{prefix}neck.weight' in caplog.text


# ---- a head of another width


@pytest.fixture(scope='module')
def ten_classes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ten')
    made = {}
    for spec in ('timm::test_resnet', 'torchvision::squeezenet1_1'):
        module = build_module(resolve(spec, {'model.num_classes': 10}))
        made[spec] = folder / f'{spec[:4]}.pth'
        torch.save(module.state_dict(), made[spec])
    return made


@pytest.mark.parametrize('spec', ['timm::test_resnet', 'torchvision::squeezenet1_1'])
def test_a_model_without_a_config_gets_the_head_of_its_checkpoint(spec, ten_classes, caplog):
    caplog.set_level(logging.INFO, 'vistool')
    model = load(spec, ten_classes[spec])
    assert 'the head has the 10 classes of the checkpoint' in caplog.text and 'different in shape' not in caplog.text
    saved = torch.load(ten_classes[spec])
    assert all(torch.equal(saved[name], value) for name, value in model.module.state_dict().items())


@pytest.mark.parametrize('spec', ['timm::test_resnet', 'torchvision::squeezenet1_1'])
def test_a_number_of_classes_that_the_user_gave_is_not_replaced(spec, ten_classes):
    message = error_of(load, spec, ten_classes[spec], options={'model.num_classes': 7})
    assert 'has 10 classes, the one of' in message and 'has 7' in message and "'model.num_classes=10'" in message


@pytest.mark.parametrize('suffix', ['.py', '.yaml'])
def test_a_config_gets_the_exact_option(suffix, tmp_path):
    backbone = {'type': 'ResNet', 'depth': 18, 'base_channels': 8, 'stem_channels': 8}
    head = {'type': 'LinearClsHead', 'num_classes': 20, 'in_channels': 64}
    model = {'type': 'ImageClassifier', 'backbone': backbone, 'head': head}
    text = json.dumps({'default_scope': 'mmpretrain', 'model': model})  # JSON is YAML too
    text = text if suffix == '.yaml' else f"default_scope = 'mmpretrain'\nmodel = {model!r}\n"
    config = tmp_path / f'a{suffix}'
    config.write_text(text)
    option = {'model.head.num_classes': 12}
    torch.save(build_module(resolve(config, option)).state_dict(), tmp_path / 'a.pth')
    message = error_of(load, config, tmp_path / 'a.pth')
    assert '12 classes' in message and 'model.head.num_classes=12' in message
    load(config, tmp_path / 'a.pth', options=option)


def test_a_backbone_without_a_head_still_loads(ten_classes, tmp_path):
    weights = {k: v for k, v in torch.load(ten_classes['timm::test_resnet']).items() if not k.startswith('fc.')}
    torch.save(weights, tmp_path / 'a.pth')
    assert load('timm::test_resnet', tmp_path / 'a.pth').classes is not None


# ---- files that a model loads itself


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    'options',
    [
        {'model.checkpoint_path': '{}'},
        {'model.pretrained': True, 'model.pretrained_cfg': {'file': '{}', 'num_classes': 1000}},
        {'model.pretrained': True, 'model.pretrained_cfg_overlay': {'file': '{}'}},
    ],
)
def test_timm_loads_no_pickle_that_runs_code(options, tmp_path):
    trace, evil = tmp_path / 'ran', tmp_path / 'evil.pth'
    torch.save({'state_dict': Touch(trace)}, evil)
    text = json.dumps(options).replace('{}', str(evil))
    message = error_of(lambda: build_module(resolve('timm::test_resnet', json.loads(text))))
    assert 'could run code when loaded' in message and 'trust_checkpoint' in message
    assert not trace.exists() and 'TORCH_FORCE_WEIGHTS_ONLY_LOAD' not in os.environ


def test_timm_loads_its_checkpoint(tmp_path):
    source = resolve('timm::test_resnet')
    torch.manual_seed(5)
    saved = {
        k: torch.randn(v.shape) if v.is_floating_point() else v for k, v in build_module(source).state_dict().items()
    }
    torch.save({'state_dict': saved, 'args': {'lr': 1}}, tmp_path / 'a.pth')
    module = build_module(resolve('timm::test_resnet', {'model.checkpoint_path': str(tmp_path / 'a.pth')}))
    assert all(torch.equal(saved[name], value) for name, value in module.state_dict().items())


# ---- damaged and lying files


def zipped(path: Path, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name.replace('__', '/').replace('_pkl', '.pkl'), data)
    return path


@pytest.mark.parametrize('megabytes', [8, 40])
def test_a_small_zip_that_unpacks_to_much(megabytes, tmp_path):
    bomb = zipped(tmp_path / 'a.pth', a__data_pkl=b'\0' * (megabytes << 20))
    assert bomb.stat().st_size < 1 << 20
    assert 'unpacks to' in error_of(read_checkpoint, bomb)


INDICES = [
    '{}', '[]', '3', 'null', '{"weight_map": {}}', '{"weight_map": []}', '{"weight_map": {"a": 3}}',
    '{"weight_map": {"a": "model.safetensors.index.json"}}', '{"weight_map": {"a": "../x.safetensors"}}',
    '{"weight_map": {"a": "/etc/passwd"}}', '{"weight_map": {"a": "x\\u0000y"}}', '{"weight_map": {"a": "\\ud800"}}',
    '{"weight_map": {"a": ""}}', '{"weight_map": {"a": "."}}', '{"weight_map": {"a": ".."}}',
    '{"weight_map": ' + '[' * 5000 + '}', '{"weight_map": {"a": ' + '9' * 5000 + '}}', '{"weight_map": {"a": NaN}}',
    '{"weight_map": {"a": "b"}}', '{"weight_map": {"a": "' + 'x' * 300 + '"}}',
]  # fmt: skip


@pytest.mark.parametrize('text', INDICES, ids=range(len(INDICES)))
def test_an_index_of_weights_that_is_none(text, tmp_path):
    index = tmp_path / 'model.safetensors.index.json'
    index.write_text(text)
    assert str(index) in error_of(read_checkpoint, index)
    error_of(shards, index)


LONG = 'x' * 300
PATHS = ['http://[::1', 'http://[::1/a.pth', 'https://', '~nouser_at_all/x.pth', LONG, f'{LONG}.pth', f'a/{LONG}/b.pth',
         'http://h/' + LONG, 'a\0b.pth', 'ftp://x', '/dev/null/x', '/dev/zero', '.', '', 'demo://', 'demo://nothing',
         'http://h/..', '/proc/self/mem', 'x' * 5000]  # fmt: skip


@pytest.mark.parametrize('path', PATHS, ids=range(len(PATHS)))
def test_a_path_of_a_checkpoint_that_is_none(path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'download_url_to_file', lambda *args, **kwargs: pytest.fail('the network was used'))
    error_of(read_checkpoint, path)


@pytest.mark.parametrize('name', ['model.safetensors', 'a.pth', 'a.bin.index.json'])
def test_a_pipe_is_not_waited_for(name, tmp_path):
    os.mkfifo(tmp_path / name)
    error_of(read_checkpoint, tmp_path / name)


@pytest.mark.parametrize('content', [b'\xff\xfe\0\0', b'a\0b', b'x' * 300, b'~nouser_at_all/x', b'x' * (1 << 17)])
def test_a_damaged_last_checkpoint(content, tmp_path):
    (tmp_path / 'last_checkpoint').write_bytes(content)
    error_of(find_checkpoint, tmp_path)


def test_links_that_lead_nowhere_are_no_checkpoints(tmp_path):
    for name in ('best_a.pth', 'epoch_9.pth', 'epoch_1.pth'):
        (tmp_path / name).symlink_to(tmp_path / 'gone')
    assert find_checkpoint(tmp_path) is None
    (tmp_path / 'epoch_2.pth').write_bytes(b'')
    assert find_checkpoint(tmp_path) == str(tmp_path / 'epoch_2.pth')


def test_a_pickle_is_refused_whatever_it_is_called(tmp_path):
    trace = tmp_path / 'ran'
    for name in ('a.pth', 'a.ckpt', 'a.bin', 'a.pt', 'a', 'a.safetensors'):
        buffer = io.BytesIO()
        pickle.dump(Touch(trace), buffer)
        (tmp_path / name).write_bytes(buffer.getvalue())
        error_of(read_checkpoint, tmp_path / name)
    assert not trace.exists()


def test_names_of_a_checkpoint_made_by_hand():
    assert Checkpoint({'a': torch.zeros(1)}).as_in_file('a') == 'a'
