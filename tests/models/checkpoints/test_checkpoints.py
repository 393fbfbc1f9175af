"""Finding, reading and unwrapping checkpoints, mmengine's own included."""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections import OrderedDict
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import EMAHook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from vistool.errors import InputError
from vistool.models.checkpoints.reading import Checkpoint, read_checkpoint
from vistool.models.checkpoints.weights import load_weights


class Toy(BaseModel):
    """A linear layer and a norm, trainable by mmengine's Runner."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 2)

    def forward(self, inputs, labels, mode='tensor'):
        scores = self.head(self.backbone(inputs))
        return {'loss': nn.functional.cross_entropy(scores, labels)} if mode == 'loss' else scores


SCHEDULERS = [
    {'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'begin': 0, 'end': 2},
    {'type': 'CosineAnnealingLR', 'T_max': 2, 'by_epoch': True},
    {'type': 'OneCycleLR', 'eta_max': 0.1, 'total_steps': 20, 'by_epoch': False},
    {'type': 'MultiStepMomentum', 'milestones': [1], 'by_epoch': True},
    {'type': 'PolyLR', 'power': 0.9, 'begin': 0, 'end': 2, 'by_epoch': True},
    {'type': 'CosineRestartLR', 'periods': [1, 1], 'restart_weights': [1, 1], 'eta_min': 0.0, 'by_epoch': True},
]


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Toy]:
    """A real training run of two epochs: its folder, and the model as it was at the end."""
    folder = tmp_path_factory.mktemp('run')
    torch.manual_seed(0)
    data = [(torch.randn(3), torch.tensor(index % 2)) for index in range(8)]
    runner = Runner(
        Toy(),
        work_dir=str(folder),
        train_dataloader={
            'collate_fn': {'type': 'default_collate'},
            'dataset': data,
            'batch_size': 4,
            'sampler': {'type': 'DefaultSampler', 'shuffle': True},
            'num_workers': 0,
        },
        train_cfg={'by_epoch': True, 'max_epochs': 2},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.01, 'momentum': 0.9}},
        param_scheduler=SCHEDULERS,
        custom_hooks=[EMAHook()],
        default_hooks={
            'checkpoint': {'type': 'CheckpointHook', 'interval': 1},
            'logger': {'type': 'LoggerHook', 'interval': 1},
        },
        experiment_name='toy_run',
        log_level='ERROR',
    )
    runner.message_hub.update_info('palette', torch.zeros(2).numpy())
    runner.train()
    return folder, runner.model


def saved(tmp_path: Path, content: object, name: str = 'file.pth', **options) -> str:
    path = tmp_path / name
    torch.save(content, path, **options)
    return str(path)


def test_a_checkpoint_of_mmengine_loads_without_trust(run, caplog):
    folder, model = run
    checkpoint = read_checkpoint(str(folder / 'epoch_2.pth'))
    raw = torch.load(folder / 'epoch_2.pth', weights_only=False)
    assert {'message_hub', 'optimizer', 'param_schedulers', 'ema_state_dict'} <= raw.keys()
    assert len(raw['param_schedulers']) == len(SCHEDULERS)
    with zipfile.ZipFile(folder / 'epoch_2.pth') as archive:
        program = archive.read(next(name for name in archive.namelist() if name.endswith('data.pkl')))
    for name in (b'getattr', b'HistoryBuffer', b'OneCycleParamScheduler', b'_reconstruct'):
        assert name in program
    assert checkpoint.state_dict.keys() == model.state_dict().keys()
    for name, tensor in checkpoint.state_dict.items():
        assert torch.equal(tensor, raw['state_dict'][name])
    assert checkpoint.meta['epoch'] == 2
    assert checkpoint.meta['experiment_name'].startswith('toy_run')
    report = load_weights(Toy(), checkpoint)
    assert not report.missing and not report.unexpected and not report.mismatched
    assert not caplog.records


def test_the_older_file_format_and_another_checkpoint_of_the_run_load_too(run, tmp_path):
    folder, _ = run
    raw = torch.load(folder / 'epoch_1.pth', weights_only=False)
    path = saved(tmp_path, raw, _use_new_zipfile_serialization=False)
    old, new = read_checkpoint(path), read_checkpoint(str(folder / 'epoch_1.pth'))
    assert old.meta == new.meta
    assert all(torch.equal(old.state_dict[name], new.state_dict[name]) for name in new.state_dict)


def test_versions_of_modules_reach_the_model(run):
    folder, _ = run
    checkpoint = read_checkpoint(str(folder / 'epoch_2.pth'))
    assert checkpoint.metadata['backbone.1']['version'] == 2


def test_no_message_hub_and_no_allow_list_is_changed(run):
    folder, _ = run
    before, hubs = set(torch.serialization.get_safe_globals()), dict(MessageHub._instance_dict)
    torch.serialization.add_safe_globals([Toy])
    try:
        read_checkpoint(str(folder / 'epoch_2.pth'))
        assert set(torch.serialization.get_safe_globals()) == before | {Toy}
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(list(before))
    assert dict(MessageHub._instance_dict) == hubs


WEIGHTS = OrderedDict(weight=torch.arange(6.0).reshape(2, 3), bias=torch.tensor([1.0, 2.0]))


def prefixed(prefix: str, **more: torch.Tensor) -> OrderedDict:
    return OrderedDict({f'{prefix}{name}': tensor for name, tensor in WEIGHTS.items()} | more)


OTHER = OrderedDict(weight=torch.zeros(2, 3), bias=torch.zeros(2))


@pytest.mark.parametrize(
    'content',
    [
        WEIGHTS,
        dict(WEIGHTS),
        {'state_dict': WEIGHTS, 'epoch': 3},
        {'model': WEIGHTS, 'optimizer': {'state': {}, 'param_groups': []}},
        {'module': WEIGHTS},
        {'model_state': WEIGHTS},
        {'state_dict': {'model': WEIGHTS}},
        {'model': {'state_dict': {'module': WEIGHTS}}},
        {'state_dict': WEIGHTS, 'state_dict_ema': OTHER},
        {'ema_state_dict': OTHER, 'state_dict': WEIGHTS},
        {'state_dict_ema': WEIGHTS, 'epoch': torch.tensor(1)},
        {'model_ema': WEIGHTS},
        {'ema': WEIGHTS},
        {'ema_state_dict': prefixed('module.', steps=torch.tensor(3))},
        {'student': OTHER, 'teacher': WEIGHTS},
        {'student': {'module.' + name: value for name, value in WEIGHTS.items()}, 'epoch': 1},
        prefixed('module.'),
        prefixed('_orig_mod.'),
        prefixed('module._orig_mod.'),
        prefixed('_orig_mod.module.'),
        {'model': prefixed('module.module.')},
        {'state_dict': OrderedDict((name, nn.Parameter(value)) for name, value in WEIGHTS.items())},
        {'state_dict': {name: value.numpy() for name, value in WEIGHTS.items()}},
    ],
)
def test_wrapped_weights_are_unwrapped(tmp_path, content):
    found = read_checkpoint(saved(tmp_path, content)).state_dict
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], tensor) and not found[name].requires_grad for name, tensor in WEIGHTS.items())


def test_a_module_prefix_that_only_some_names_have_stays(tmp_path):
    content = {'module.weight': torch.zeros(2), 'head.weight': torch.zeros(2)}
    assert read_checkpoint(saved(tmp_path, content)).state_dict.keys() == content.keys()


def test_it_says_which_weights_were_taken(tmp_path, caplog):
    caplog.set_level(logging.INFO, 'vistool')
    read_checkpoint(saved(tmp_path, {'model_ema': WEIGHTS}))
    assert "'model_ema'" in caplog.text


def test_safetensors(tmp_path):
    from safetensors.torch import save_file

    save_file(dict(WEIGHTS), tmp_path / 'model.safetensors')
    found = read_checkpoint(str(tmp_path / 'model.safetensors')).state_dict
    assert all(torch.equal(found[name], tensor) for name, tensor in WEIGHTS.items())
    (tmp_path / 'bad.safetensors').write_bytes((tmp_path / 'model.safetensors').read_bytes()[:50])
    with pytest.raises(InputError, match='not a safetensors file'):
        read_checkpoint(str(tmp_path / 'bad.safetensors'))


@pytest.mark.parametrize(
    'meta',
    [
        {'dataset_meta': {'classes': ('cat', 'dog')}},
        {'dataset_meta': ConfigDict(classes=['cat', 'dog'])},
        {'dataset_meta': {'CLASSES': ['cat', 'dog']}},
        {'CLASSES': ('cat', 'dog')},
    ],
)
def test_class_names(tmp_path, meta):
    assert read_checkpoint(saved(tmp_path, {'state_dict': WEIGHTS, 'meta': meta})).classes == ('cat', 'dog')


def test_no_class_names(tmp_path):
    assert read_checkpoint(saved(tmp_path, {'state_dict': WEIGHTS, 'meta': {'epoch': 1}})).classes is None
    assert Checkpoint(state_dict={}).classes is None


def test_digest(tmp_path):
    path = saved(tmp_path, WEIGHTS)
    assert read_checkpoint(path).sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert Checkpoint(state_dict={}).sha256 == ''


def error(source: str | Path) -> str:
    with pytest.raises(InputError) as caught:
        read_checkpoint(str(source))
    assert '\n' not in str(caught.value)
    assert caught.value.parameter == 'checkpoint'
    return str(caught.value)


def test_missing_files_get_the_close_matches(tmp_path):
    saved(tmp_path, WEIGHTS, 'epoch_12.pth')
    assert 'did you mean epoch_12.pth?' in error(tmp_path / 'epoch_21.pth')
    assert 'it holds epoch_12.pth' in error(tmp_path)
    assert 'and its folder do not exist' in error(tmp_path / 'nowhere' / 'epoch_12.pth')
    (tmp_path / 'empty').mkdir()
    assert 'it holds no checkpoint' in error(tmp_path / 'empty')


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('share', [0.01, 0.2, 0.5, 0.9, 0.99])
def test_truncated_files(tmp_path, zipped, share):
    path = Path(
        saved(tmp_path, {'state_dict': WEIGHTS, 'more': torch.zeros(1000)}, _use_new_zipfile_serialization=zipped)
    )
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert 'truncated' in error(path)


@pytest.mark.parametrize(
    ('content', 'expected'),
    [
        (b'', 'is empty'),
        (b'<!DOCTYPE html>\n<html><body>404</body></html>', 'is a web page'),
        (b'hello there\n', 'is a text file'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n', 'git lfs pull'),
        (b'\xff\xd8\xff\xe0' + bytes(100), 'is not a PyTorch checkpoint'),
        (b'PK\x03\x04' + bytes(100), 'truncated'),
        (b'\x80\x02' + bytes(100), 'is damaged'),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path, content, expected):
    path = tmp_path / 'file.pth'
    path.write_bytes(content)
    assert expected in error(path)


@pytest.mark.parametrize('content', [{'epoch': 3, 'optimizer': {}}, {}, 5, [WEIGHTS], None, {'state_dict': {}}])
def test_files_without_weights(tmp_path, content):
    assert 'holds no weights' in error(saved(tmp_path, content))


def test_a_wrapper_around_itself_ends(tmp_path):
    content: dict = {}
    content['model'] = content
    assert 'holds no weights' in error(saved(tmp_path, content))


def test_unknown_schemes():
    assert 'demo://' in error('s3://bucket/file.pth')
    assert 'demo://efficientnet-lite0' in error('demo://efficientnet')


def test_downloads_go_to_the_cache_once_and_are_read_safely(tmp_path, monkeypatch):
    fetched = []

    def fetch(url, destination, **_options):
        fetched.append(url)
        torch.save({'state_dict': WEIGHTS}, destination)

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', fetch)
    for _ in range(2):
        checkpoint = read_checkpoint('https://example.org/some%20where/net-1234.pth?download=1')
        assert checkpoint.state_dict.keys() == WEIGHTS.keys()
    assert fetched == ['https://example.org/some%20where/net-1234.pth?download=1']
    assert (tmp_path / 'checkpoints' / 'net-1234.pth').is_file()


def test_a_broken_download_says_which_file_to_delete(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(
        torch.hub, 'download_url_to_file', lambda _url, file, **_options: Path(file).write_text('<html>')
    )
    message = error('https://example.org/net.pth')
    assert 'is a web page' in message and f'delete {tmp_path / "checkpoints" / "net.pth"}' in message


class Tampered:
    """Pickles as an OrderedDict whose attributes hide its methods."""

    def __reduce__(self):
        tensor = torch.ones(2)
        tensor.detach = tensor.copy_ = OrderedDict
        return OrderedDict, ([('weight', tensor)],), dict.fromkeys(('items', 'get', 'values', 'keys'), OrderedDict)


def test_attributes_that_hide_methods_change_nothing(tmp_path):
    path = saved(tmp_path, Tampered())
    assert torch.load(path, weights_only=True).items is OrderedDict
    found = read_checkpoint(path).state_dict
    assert torch.equal(found['weight'], torch.ones(2)) and not vars(found['weight'])


def test_unreachable_addresses(tmp_path, monkeypatch):
    def fail(*_args, **_options):
        raise URLError('no route to host')

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', fail)
    message = error('https://example.org/net.pth')
    assert 'no route to host' in message
    assert str(tmp_path / 'checkpoints' / 'net.pth') in message
    assert 'does not name a file' in error('https://example.org/')


def test_the_only_weights_of_a_file_are_taken_whatever_they_are_called(tmp_path, caplog):
    caplog.set_level(logging.INFO, 'vistool')
    weights = nn.Linear(2, 3).state_dict()
    torch.save({'shadow': weights, 'optimizer': {'state': {}, 'param_groups': []}, 'epoch': 3}, tmp_path / 'one.pth')
    assert read_checkpoint(tmp_path / 'one.pth').state_dict.keys() == weights.keys()
    assert "took the weights under 'shadow'" in caplog.text
    torch.save({'generator': weights, 'critic': weights}, tmp_path / 'two.pth')
    with pytest.raises(InputError, match=r"several sets of weights: generator, critic; .*\['generator'\]"):
        read_checkpoint(tmp_path / 'two.pth')
    torch.save({'epoch': 3}, tmp_path / 'none.pth')
    with pytest.raises(InputError, match='holds no weights, only epoch'):
        read_checkpoint(tmp_path / 'none.pth')


def test_averaged_weights_that_are_not_taken_are_named(tmp_path, caplog):
    caplog.set_level(logging.INFO, 'vistool')
    weights = nn.Linear(2, 3).state_dict()
    torch.save({'state_dict': weights, 'state_dict_ema': weights}, tmp_path / 'timm.pth')
    read_checkpoint(tmp_path / 'timm.pth')
    assert "under 'state_dict' and not 'state_dict_ema'; to explain those of one, save them apart" in caplog.text
    caplog.clear()
    torch.save(
        {'state_dict': weights, 'ema_state_dict': weights}, tmp_path / 'mmengine.pth'
    )  # here the first is the average
    read_checkpoint(tmp_path / 'mmengine.pth')
    assert caplog.text == ''
