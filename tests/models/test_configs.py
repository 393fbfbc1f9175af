"""Whatever a user may call a config is found; whatever is wrong with it is told in one line."""

from __future__ import annotations

import inspect
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from vistool.data.dataloaders import lists_several
from vistool.data.datasets import dataset_config
from vistool.data.pipelines import find_pipeline
from vistool.errors import InputError
from vistool.models.classes import dataset_classes
from vistool.models.configs import (
    PACKAGES,
    SCHEMES,
    Source,
    find_checkpoint,
    find_packaged,
    find_run,
    model_index,
    packaged_configs,
    read_config,
    require_model,
    resolve,
)

TINY = "default_scope = 'mmpretrain'\nmodel = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=18))\n"
RESNET = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'


def write(path: Path, text: str = '') -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')
    return path


def error_of(spec, options=None, argument='config') -> str:
    with pytest.raises(InputError) as caught:
        resolve(spec, options)
    message = str(caught.value)
    assert '\n' not in message
    assert message.startswith(f'{argument}: ')
    return message


@pytest.fixture(autouse=True)
def own_import_path(monkeypatch):
    monkeypatch.setattr(sys, 'path', list(sys.path))


# ---- what is found


NETWORK = 'import torch\nfrom torch import nn\n\n\nclass {}({}):\n    pass\n\n\nclass Part:\n    pass\n'


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        (
            NETWORK.format('MyNet', 'nn.Module'),
            "code that defines MyNet, not a config.*model = dict\\(type='code.MyNet'\\)",
        ),
        (NETWORK.format('MyNet', 'torch.nn.Module'), "model = dict\\(type='code.MyNet'\\)"),
        (
            'from torchvision.models import resnet18\nmodel = resnet18()\n',
            'line 2: a config cannot call what it imports',
        ),
        ('import torchvision\n\nmodel = torchvision.models.resnet18()\n', r'line 3: .*model = dict\(type=NAME, …\)'),
    ],
)
def test_a_file_of_code_is_told_from_a_config(tmp_path, text, said):
    assert re.search(said, error_of(write(tmp_path / 'code.py', text)))


def test_a_bare_name_is_answered_with_the_packages_that_know_it():
    assert 'did you mean timm::resnet50 or torchvision::resnet50?' in error_of('resnet50')
    assert 'did you mean timm::vit_tiny_patch16_224?' in error_of('vit_tiny_patch16_224')
    assert 'did you mean torchvision::swin_t?' in error_of('swin_t')


@pytest.mark.parametrize(
    ('file', 'text'),
    [
        ('tiny.py', TINY),
        ('tiny.json', '{"model": {"type": "ImageClassifier", "backbone": {"depth": 18}}}'),
        ('tiny.yaml', 'model: {type: ImageClassifier, backbone: {depth: 18}}'),
        ('tiny.yml', 'model: {type: ImageClassifier, backbone: {depth: 18}}'),
    ],
)
def test_file(tmp_path, file, text):
    source = resolve(str(write(tmp_path / file, text)))
    assert (source.name, source.checkpoint, source.config.model.backbone.depth) == ('tiny', None, 18)
    assert require_model(source).type == 'ImageClassifier'


def test_file_names_its_checkpoint(tmp_path):
    assert resolve(write(tmp_path / 'a.py', TINY + "load_from = 'demo://x'\n")).checkpoint == 'demo://x'
    assert resolve(write(tmp_path / 'b.py', TINY + "load_from = ''\n")).checkpoint is None


def test_home_folder_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    write(tmp_path / 'tiny.py', TINY)
    assert resolve('~/tiny.py').name == 'tiny'


@pytest.mark.parametrize('spec', [RESNET, RESNET.removesuffix('.py')])
def test_packaged_file(spec):
    source = resolve(spec)
    assert source.name == 'resnet50_8xb32_in1k'
    assert source.config.model.backbone.depth == 50
    assert source.checkpoint.startswith('https://') and source.checkpoint.endswith('.pth')


def test_packaged_file_agrees_with_mmengine():
    from mmengine.hub import get_config

    for spec in (RESNET, 'mmpretrain::vision_transformer/vit-base-p32_64xb64_in1k-384px.py'):
        assert resolve(spec).config.to_dict() == get_config(spec).to_dict()


def test_every_packaged_config_is_listed_as_it_is_typed():
    listed = packaged_configs('mmpretrain')
    assert RESNET in listed and len(listed) > 300
    assert not [name for name in listed if '_base_' in name]


@pytest.mark.parametrize('name', ['mobilenet-v3-large_3rdparty_in1k', 'MobileNet-V3-Large_3rdparty_in1k'])
def test_model_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = resolve(name)
    assert source.name == 'mobilenet-v3-large_3rdparty_in1k'  # not the config's: its own run has other weights
    assert source.config.model.backbone.arch == 'large'
    assert source.checkpoint.endswith('mobilenet_v3_large-3ea3c186.pth')


def test_model_names_are_those_of_mmpretrain():
    from mmpretrain.apis.model import ModelHub, list_models

    assert sorted(model_index()) == list_models()
    for name, model in model_index().items():
        assert str(model.config) == ModelHub._models_dict[name].config
        assert model.weights == ModelHub._models_dict[name].weights


def test_a_model_is_found_where_only_the_metafiles_that_mention_it_are_read():
    every = model_index()
    for name in sorted(every)[::40]:
        model = every[name]
        assert model_index(mentioned=name)[name] == model_index(mentioned=model.config.name)[name] == model


def test_options(tmp_path):
    path = write(tmp_path / 'tiny.py', TINY + "steps = [dict(a=1), dict(a=2)]\nload_from = 'old.pth'\n")
    source = resolve(path, {'model.backbone.depth': 50, 'steps.1.a': 3, 'load_from': 'new.pth'})
    assert source.config.model.backbone.depth == 50
    assert source.config.steps[1].a == 3
    assert source.checkpoint == 'new.pth'


def test_default_scope_is_kept(tmp_path):
    assert resolve(write(tmp_path / 'a.py', "default_scope = 'mine'\n")).config.default_scope == 'mine'


def test_the_current_folder_is_importable(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', [entry for entry in sys.path if entry])
    write(tmp_path / 'my_own_parts.py', 'loaded = True\n')
    resolve(write(tmp_path / 'configs' / 'a.py', TINY + "custom_imports = dict(imports=['my_own_parts'])\n"))
    assert sys.modules.pop('my_own_parts').loaded
    assert sys.path.count(str(tmp_path)) == 1
    import tempfile

    assert not Path(tempfile.__file__).is_relative_to(tmp_path)
    assert sys.path.index(str(tmp_path)) > sys.path.index(os.path.dirname(os.__file__))


# ---- a run directory


def run_folder(folder, *weights, pointer=None, config='tiny.py'):
    if config:
        write(folder / config, TINY + "load_from = 'start.pth'\n")
    for age, name in enumerate(weights):
        write(folder / name)
        os.utime(folder / name, (1000 - age, 1000 - age))  # times against the order of names
    if pointer:
        write(folder / 'last_checkpoint', str(pointer))
    return folder


@pytest.mark.parametrize(
    ('weights', 'pointer', 'chosen'),
    [
        (
            ('epoch_9.pth', 'epoch_10.pth', 'best_accuracy_top1_epoch_9.pth'),
            'epoch_10.pth',
            'best_accuracy_top1_epoch_9.pth',
        ),
        (('best_acc_epoch_9.pth', 'best_acc_epoch_10.pth'), None, 'best_acc_epoch_10.pth'),
        (('epoch_9.pth', 'epoch_10.pth', 'epoch_8.pth'), 'epoch_9.pth', 'epoch_9.pth'),
        (('epoch_9.pth', 'epoch_10.pth', 'epoch_8.pth'), '/moved/away/epoch_8.pth', 'epoch_8.pth'),
        (('epoch_9.pth', 'epoch_10.pth', 'epoch_8.pth'), None, 'epoch_10.pth'),
        (('iter_1000.pth', 'iter_900.pth'), '/gone/iter_1.pth', 'iter_1000.pth'),
        (('weights.pth',), None, 'weights.pth'),
    ],
)
def test_run_folder(tmp_path, weights, pointer, chosen):
    folder = run_folder(tmp_path / 'exp', *weights, pointer=pointer)
    source = resolve(str(folder) + '/')
    assert source.name == 'exp'
    assert source.checkpoint == str(folder / chosen)
    assert source.config.model.backbone.depth == 18


def test_run_folder_without_any_checkpoint(tmp_path, caplog):
    folder = tmp_path / 'exp'
    write(folder / '20260101_000000' / 'vis_data' / 'config.py', TINY + "load_from = 'old.pth'\n")
    write(folder / '20260102_000000' / 'vis_data' / 'config.py', TINY + "load_from = 'start.pth'\n")
    assert find_checkpoint(folder) is None
    with caplog.at_level(logging.WARNING, logger='vistool'):
        assert resolve(folder).checkpoint == 'start.pth'
    assert 'no checkpoint yet' in caplog.text


def test_run_folder_with_the_dump_below_vis_data_only(tmp_path):
    folder = run_folder(tmp_path / 'exp', 'epoch_1.pth', config='20260101_000000/vis_data/config.py')
    assert (resolve(folder).name, resolve(folder).checkpoint) == ('exp', str(folder / 'epoch_1.pth'))


def test_run_folder_with_two_configs_says_which(tmp_path, caplog):
    folder = run_folder(tmp_path / 'exp', 'epoch_1.pth', config='exp.py')
    write(folder / 'other.py', TINY)
    with caplog.at_level(logging.WARNING, logger='vistool'):
        assert resolve(folder).config.get('load_from') == 'start.pth'
    assert 'using exp.py' in caplog.text


def test_scripts_beside_a_run_are_not_taken_for_its_config(tmp_path, caplog):
    folder = run_folder(tmp_path / 'exp', 'epoch_1.pth', config='ours.py')
    write(folder / 'train.py', "import os, sys\nname = 'x'\nraise SystemExit(5)\n")
    write(folder / 'network.py', 'class Net:\n    model = 3\n')
    assert resolve(folder).config.model.backbone.depth == 18
    assert 'contains' not in caplog.text


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ("import os\nif os.name == 'x':\n    model = dict(a=1)\nelse:\n    model = dict(a=2)\n", True),
        ('try:\n    import apex\nexcept ImportError:\n    optim_wrapper = {}\n', True),
        ('from base import *\n', True),
        ('from base import *\nmodel.update(depth=18)\n', True),
        ('from mmengine.config import read_base\nwith read_base():\n    from .base import *\n', True),
        ("_base_ = ['base.py']\nprint('read')\n", True),
        ('import base\nmodel = copy.deepcopy(base.model)\n', True),
        ('loader = dict()\nval_dataloader: dict = loader\n', True),
        ("import torch\nmodel = torch.load('x')\n", False),
        ("with open('x') as file:\n    lines = file.readlines()\n", False),
        ("import torch\nmodel = torch.load('x')\ninputs = [1]\nmodel(inputs)\n", False),
        ("output = 'x.png'\nresume = True\n", False),
        ("from lib import *\nif __name__ == '__main__':\n    main()\n", False),
        ('def main():\n    model = dict()\n', False),
    ],
)
def test_a_config_is_told_from_a_script_without_running_it(tmp_path, text, expected):
    folder = run_folder(tmp_path / 'exp', 'epoch_1.pth', config='ours.py')
    (folder / 'ours.py').unlink()
    path = write(folder / 'other.py', text)
    if expected:
        assert find_run(folder)[0] == path
    else:
        with pytest.raises(InputError, match='no config'):
            find_run(folder)


def test_option_goes_before_the_run_folders_checkpoint(tmp_path):
    folder = run_folder(tmp_path / 'exp', 'epoch_1.pth')
    assert resolve(folder, {'load_from': 'mine.pth'}).checkpoint == 'mine.pth'


def test_dump_of_mmengine_itself(tmp_path):
    config = read_config(write(tmp_path / 'tiny.py', TINY))
    folder = tmp_path / 'work_dirs' / 'tiny'
    folder.mkdir(parents=True)
    config.dump(folder / 'tiny.py')
    write(folder / 'epoch_1.pth')
    assert resolve(folder).config.to_dict() == config.to_dict()


# ---- config-free forms


def test_timm():
    import timm

    source = resolve('timm::resnet18')
    data = timm.data.resolve_data_config(pretrained_cfg=timm.models.get_pretrained_cfg('resnet18').to_dict())
    steps = {step['type']: step for step in source.config.test_pipeline}
    assert (source.name, source.checkpoint) == ('resnet18', None)
    assert require_model(source).model_name == 'resnet18'
    assert source.config.data_preprocessor.mean == [255 * value for value in data['mean']]
    assert steps['ResizeEdge'].scale == int(224 / data['crop_pct'])
    assert steps['ResizeEdge'].interpolation == data['interpolation']
    assert tuple(steps['CenterCrop'].crop_size) == data['input_size'][1:]


def test_timm_prepares_a_picture_as_timm_does():
    import numpy as np
    import timm
    from mmengine.dataset import Compose
    from mmengine.registry import DefaultScope
    from PIL import Image

    coffee = Path(__file__).parents[2] / 'demo' / 'coffee.png'
    for name in ('resnet18', 'eva02_base_patch14_448'):
        config = resolve(f'timm::{name}').config
        data = timm.data.resolve_data_config(pretrained_cfg=timm.models.get_pretrained_cfg(name).to_dict())
        expected = timm.data.create_transform(**data, normalize=False)(Image.open(coffee).convert('RGB'))
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            ours = Compose(config.test_pipeline)({'img_path': str(coffee)})['inputs'].flip(0)
        np.testing.assert_array_equal(ours.numpy(), expected.numpy())


def test_scheme_table_is_open(monkeypatch):
    monkeypatch.setitem(SCHEMES, 'mine', lambda name: Source(Config(), f'source of {name}'))
    assert resolve('mine::a::b').name == 'source of a::b'


# ---- what is wrong


def test_unknown_name_lists_close_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / 'configs' / 'resnet50_mine.py')
    assert 'configs/resnet50_mine.py' in error_of('configs/resnet50_min.py')
    assert 'resnet50_8xb32_in1k' in error_of('resnet50_8xb32_in2k')
    assert RESNET in error_of('configs/resnet/resnet50_8xb32_in1k.py')
    assert 'accepted: a config file' in error_of('zzzzzzzz')
    assert 'not found' in error_of('')


def test_packaged_file_unknown():
    assert RESNET in error_of('mmpretrain::resnet/resnet50_8xb32_in1.py')


def test_package_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmdet', None)  # find_spec raises or says None, installed or not
    assert 'pip install onedl-mmdetection' in error_of('mmdet::faster_rcnn/a.py')


@pytest.mark.parametrize(('spec', 'near'), [('tim::resnet18', 'timm'), ('mmpretrian::a.py', 'mmpretrain'), ('::a', '')])
def test_package_unknown(spec, near):
    message = error_of(spec)
    assert f'did you mean {near}' in message or not near
    assert all(f'{name}::' in message for name in (*PACKAGES, *SCHEMES))


def test_timm_unknown():
    assert 'resnet18' in error_of('timm::resnet1')
    assert 'resnet50' in error_of('timm::resnet50.no_such_weights')


def test_folder_of_configs_lists_them(tmp_path):
    for index in range(10):
        write(tmp_path / f'{index}.py', TINY)
    message = error_of(tmp_path)
    assert 'folder of configs' in message and str(tmp_path / '0.py') in message and '(10 in all)' in message


def test_folder_of_runs_lists_them(tmp_path):
    run_folder(tmp_path / 'work_dirs' / 'exp', 'epoch_1.pth')
    assert str(tmp_path / 'work_dirs' / 'exp') in error_of(tmp_path / 'work_dirs')


def test_folder_of_nothing(tmp_path):
    assert 'holds no run' in error_of(tmp_path)


def test_run_folder_without_config(tmp_path):
    assert 'no config' in error_of(run_folder(tmp_path / 'exp', 'epoch_1.pth', config=None))


@pytest.mark.parametrize('file', ['photo.png', 'weights.pth', 'README'])
def test_other_kinds_of_files(tmp_path, file):
    assert 'not a config file' in error_of(write(tmp_path / file, 'x'))


def test_syntax_error_names_file_and_line(tmp_path):
    path = write(tmp_path / 'bad.py', 'a = 1\nmodel = dict(\nb = 3\n')
    assert f'{path}, line 2' in error_of(path)
    child = write(tmp_path / 'child.py', "_base_ = ['./bad.py']\n")
    assert f'{path}, line 2' in error_of(child)


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ("_base_ = './absent.py'", 'absent.py does not exist'),
        ("_base_ = 'mmpretrain::resnet/absent.py'", 'absent.py does not exist'),
        ("_base_ = 'mmnone::resnet/absent.py'", 'mmnone'),
        ('a = 1\nb = undefined_name', 'line 2: NameError'),
        ("a = open('absent.txt').read()", 'line 1: FileNotFoundError'),
        ("custom_imports = dict(imports=['misspelt_module'])", 'misspelt_module.py, line 1'),
        ("raise RuntimeError('first\\nsecond')", 'first second'),
        ("_base_ = ['./one.py', './two.py']", 'Duplicate key'),
        ("_base_ = './one.py'\na = dict(b=1)", 'cannot inherit'),
        ("custom_imports = dict(imports=['no_such_module_here'])", "No module named 'no_such_module_here'"),
        ("custom_imports = dict(imports=['broken_module'])", 'ZeroDivisionError'),
        ('from mmengine.config import read_base\nwith read_base():\n    from .absent import *', 'absent.py not found'),
    ],
)
def test_broken_config(tmp_path, monkeypatch, text, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    write(tmp_path / 'one.py', 'a = 1')
    write(tmp_path / 'two.py', 'a = 2')
    write(tmp_path / 'broken_module.py', '1 / 0')
    write(tmp_path / 'misspelt_module.py', 'x = (')
    path = write(tmp_path / 'bad.py', text + '\n')
    message = error_of(path)
    assert expected in message
    assert 'bad.py' in message or '_module.py' in message


@pytest.mark.parametrize(('file', 'text'), [('a.json', '{"a": [}'), ('a.yaml', 'a: [1\nb: }'), ('a.json', '[1]')])
def test_broken_json_and_yaml(tmp_path, file, text):
    assert file in error_of(write(tmp_path / file, text))


def test_config_in_no_encoding(tmp_path):
    path = tmp_path / 'a.py'
    path.write_bytes(b'\xff\xfe\x00\x01')
    assert 'a.py' in error_of(path)


@pytest.mark.parametrize(
    'options', [{'model.backbone.depth.x': 1}, {'steps.9.a': 1}, {'steps.a.b': 1}, {'default_scope.x': 1}]
)
def test_option_that_does_not_fit(tmp_path, options):
    path = write(tmp_path / 'tiny.py', TINY + 'steps = [dict(a=1)]\n')
    assert next(iter(options)) in error_of(path, options, argument='options')


@pytest.mark.parametrize('key', ['num_classes', 'nonsense.a', 'modle.depth'])
def test_an_option_that_nothing_reads_is_refused(tmp_path, key):
    path = write(tmp_path / 'tiny.py', TINY)
    assert f'nothing reads {key.partition(".")[0]!r}' in error_of(path, {key: 3}, argument='options')


def test_fields_that_the_runner_reads_can_be_added(tmp_path):
    from mmengine.runner import Runner

    path = write(tmp_path / 'tiny.py', TINY)
    parameters = set(inspect.signature(Runner.__init__).parameters) - {'self', 'launcher', 'cfg'}
    assert len(parameters) > 20
    for name in parameters - {'model'}:
        resolve(path, {name: None})


def test_a_packages_own_config_without_a_scope_gets_that_of_its_package():
    path = 'mmpretrain::dinov2/vit-small-p14_dinov2-pre_headless.py'
    assert 'default_scope' not in Config.fromfile(str(find_packaged('mmpretrain', path.partition('::')[2])[0]))
    assert resolve(path).config.default_scope == 'mmpretrain'


@pytest.mark.parametrize('text', ['a = 1', 'model = None', "model = dict(type='A'),", 'model = dict(depth=3)'])
def test_config_without_model(tmp_path, text):
    path = write(tmp_path / 'a.py', text + '\n')
    with pytest.raises(InputError, match=r"^config: .*('model'|model of a)"):
        require_model(resolve(path))


def test_the_module_is_light():
    heavy = '("torch", "mmengine", "yaml")'
    code = f'import sys, vistool.models.configs; sys.exit(any(name in sys.modules for name in {heavy}))'
    subprocess.run([sys.executable, '-c', code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize(
    ('line', 'said'),
    [
        (
            'from .nearby2 import *',
            'line 4: its base .nearby2 does not exist .*nearby2.py not found.*did you mean nearby',
        ),
        ('from .deep.er import a', 'line 4: its base .deep.er does not exist'),
        ('from mmpretrain.configs._base_.models.resnet999 import *', 'resnet999 does not exist'),
        ('from .nearby import lr, wd', "line 4: its base .nearby has no 'wd'"),
    ],
)
def test_a_base_that_read_base_does_not_find_is_named_with_its_line(tmp_path, line, said):
    write(tmp_path / 'nearby.py', 'lr = 1\n')
    mine = write(tmp_path / 'mine.py', f'from mmengine.config import read_base\n\nwith read_base():\n    {line}\n')
    with pytest.raises(InputError, match=said):
        resolve(mine)


@pytest.mark.parametrize('value', ['C:\\data\\users', 'C:\\new', '\\\\server\\share', 'a\\1b'])
@pytest.mark.parametrize('text', ["root = '{{$DATA_ROOT:/x}}'\n", "root = '''{{'$DATA_ROOT:/x'}}'''\n"])
def test_a_windows_path_in_a_variable_is_refused_before_it_is_changed(tmp_path, monkeypatch, value, text):
    write(tmp_path / 'base.py', 'a = 1\n' + text)
    write(tmp_path / 'mine.py', "_base_ = 'base.py'\n")
    monkeypatch.setenv('DATA_ROOT', value)
    for name in ('base', 'mine'):
        with pytest.raises(InputError, match='base.py, line 2: the value .* of DATA_ROOT has backslashes') as caught:
            resolve(tmp_path / f'{name}.py')
        assert value.replace('\\', '/') in str(caught.value)
    monkeypatch.setenv('DATA_ROOT', value.replace('\\', '/'))
    assert '\\' not in str(resolve(tmp_path / 'mine.py').config.root)


def test_what_a_variable_breaks_is_shown_as_it_was_filled_in(tmp_path, monkeypatch):
    mine = write(tmp_path / 'mine.py', "a = 1\nclasses = {{'$CLASSES:80'}}\n")
    monkeypatch.setenv('CLASSES', 'eighty one')
    with pytest.raises(
        InputError, match=r'mine.py, line 2, with its .* filled in: invalid syntax.*: classes = eighty one'
    ):
        resolve(mine)


LOADER = "dict(batch_size={}, dataset=dict(type='CustomDataset', metainfo=dict(classes={}), pipeline=[]))"
TWO_LOADERS = f'[{LOADER.format(2, ["cat", "dog"])}, {LOADER.format(3, ["tree"])}]'


def test_of_several_dataloaders_the_first_is_taken(tmp_path):
    """As in the configs of ``MultiValLoop``; whatever reads a config finds one dataloader per phase."""
    text = TINY + f'val_dataloader = {TWO_LOADERS}\ntest_dataloader = val_dataloader\n'
    config = resolve(write(tmp_path / 'multi.py', text)).config
    assert config.val_dataloader.batch_size == config.test_dataloader.batch_size == 2
    assert lists_several(config, 'val_dataloader') and lists_several(config, 'test_dataloader')
    assert not lists_several(config, 'train_dataloader') and 'listed' not in config.pretty_text


def warnings_of(caplog):
    found = [record.getMessage() for record in caplog.records if 'dataloaders' in record.getMessage()]
    caplog.clear()
    return found


def test_that_the_first_of_several_dataloaders_is_used_is_said_where_it_is_read(tmp_path, caplog):
    """Once for each; and not as long as what is read is the same in all of them."""
    text = TINY + f'val_dataloader = {TWO_LOADERS}\ntest_dataloader = val_dataloader\n'
    config = resolve(write(tmp_path / 'multi.py', text)).config
    assert find_pipeline(config) is None and warnings_of(caplog) == []
    said = 'multi: the first of 2 dataloaders in {0} is used; choose another with options {0}=1'
    assert dataset_classes(config) == ('cat', 'dog')
    assert warnings_of(caplog) == [said.format('test_dataloader')]
    for _ in range(2):
        dataset_config(config.copy(), 'val')
        dataset_config(config, 'test')
    assert warnings_of(caplog) == [said.format('val_dataloader')]


@pytest.mark.parametrize(('size', 'count'), [(32, 0), (48, 1)])
def test_another_pipeline_in_a_list_of_dataloaders_is_told_of(tmp_path, caplog, size, count):
    loaders = [f"dict(dataset=dict(pipeline=[dict(type='Resize', scale={each})]))" for each in (32, size)]
    config = resolve(write(tmp_path / 'multi.py', TINY + f'test_dataloader = [{", ".join(loaders)}]\n')).config
    assert find_pipeline(config)[0].scale == 32 and len(warnings_of(caplog)) == count


def test_another_of_several_dataloaders_is_chosen(tmp_path, caplog):
    path = write(tmp_path / 'multi.py', TINY + f'val_dataloader = {TWO_LOADERS}\n')
    source = resolve(path, {'val_dataloader': 1, 'val_dataloader.1.batch_size': 7})
    assert source.config.val_dataloader.batch_size == 7 and 'dataloaders' not in caplog.text
    assert dataset_classes(source.config) == ('tree',)
    for place in (2, True):
        assert f'none at {place}; accepted: 0 to 1' in error_of(path, {'val_dataloader': place}, 'options')


@pytest.mark.parametrize(
    ('options', 'size', 'classes'),
    [
        ({'val_dataloader.batch_size': 9}, 9, ('cat', 'dog')),
        ({'val_dataloader.batch_size': 9, 'val_dataloader': 1}, 9, ('tree',)),
        ({'val_dataloader.1.batch_size': 9, 'val_dataloader': 1}, 9, ('tree',)),
        ({'val_dataloader.1.batch_size': 9}, 2, ('cat', 'dog')),
        ({'val_dataloader': {'batch_size': 9}}, 9, ('cat', 'dog')),
        ({'val_dataloader': [{'batch_size': 9}], 'val_dataloader.batch_size': 4}, 4, None),
    ],
)
def test_options_of_one_dataloader_change_the_one_that_is_used(tmp_path, options, size, classes):
    source = resolve(write(tmp_path / 'multi.py', TINY + f'val_dataloader = {TWO_LOADERS}\n'), options)
    assert source.config.val_dataloader.batch_size == size
    assert classes is None or dataset_classes(source.config) == classes


@pytest.mark.parametrize(('loaders', 'said'), [('[]', '0 entries'), ('[3]', 'train_dataloader[0] of multi is 3')])
def test_a_list_that_holds_no_dataloader_is_refused(tmp_path, loaders, said):
    assert said in error_of(write(tmp_path / 'multi.py', TINY + f'train_dataloader = {loaders}\n'))
