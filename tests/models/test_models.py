"""Models however they come: config-free, from the user's own folder, with any container for an output."""

import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from vistool.analyses.cam import CAM
from vistool.analyses.patches import Patches
from vistool.environment import warn_of_environment
from vistool.errors import InputError
from vistool.models.configs import Source, resolve
from vistool.models.model import build_module, load, preview_model
from vistool.network.outputs import Hints, default_scores, find_readout, has_classes
from vistool.runs.spec import Models, ModelSpec, opened_models

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Output:
    features: torch.Tensor
    scores: torch.Tensor


SCORES, FEATURES = torch.randn(2, 5), torch.randn(2, 3, 4, 4)


def hugging_face(**values):
    from transformers.modeling_outputs import ImageClassifierOutput

    return ImageClassifierOutput(**values)


@pytest.mark.parametrize(
    'wrap',
    [
        lambda scores: scores,
        lambda scores: (scores, FEATURES),
        lambda scores: (FEATURES, scores),
        lambda scores: [FEATURES, [scores]],
        lambda scores: {'features': FEATURES, 'logits': scores},
        lambda scores: {'anything': scores},
        lambda scores: {'pooler_output': torch.randn(2, 7), 'anything': scores},
        lambda scores: Output(FEATURES, scores),
        lambda scores: hugging_face(logits=scores, hidden_states=(FEATURES,)),
    ],
)
def test_class_scores_are_found_in_every_container(wrap):
    assert default_scores(wrap(SCORES), 2) is SCORES


@pytest.mark.parametrize('output', [FEATURES, (FEATURES,), {'x': FEATURES}, None, 3, torch.zeros(2, 0)])
def test_where_there_are_no_scores_none_are_made_up(output):
    assert default_scores(output, 2) is None


def test_hugging_face_backbones_give_no_scores():
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    output = BaseModelOutputWithPooling(last_hidden_state=torch.randn(2, 5, 7), pooler_output=torch.randn(2, 7))
    assert default_scores(output, 2) is None


def headless(kind):
    if kind == 'timm':
        import timm

        return timm.create_model('resnet18', num_classes=0)
    if kind == 'torchvision':
        from torchvision.models import VisionTransformer

        return VisionTransformer(32, 16, 1, 1, 8, 8, num_classes=0)
    if kind == 'mmpretrain backbone':
        from mmpretrain.models import LeNet5

        return LeNet5()
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(
        ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, num_labels=0)
    )


@pytest.mark.parametrize('kind', ['timm', 'torchvision', 'mmpretrain backbone', 'transformers'])
def test_networks_without_a_head_say_so(kind):
    module = headless(kind)
    wrapped = nn.Module()
    wrapped.model = module
    assert not has_classes(module)
    assert kind == 'mmpretrain backbone' or not has_classes(wrapped)
    assert has_classes(nn.Linear(3, 2))


def test_multi_label_models_of_hugging_face_get_independent_probabilities():
    module = headless('transformers')
    module.config.problem_type = 'multi_label_classification'
    wrapped = nn.Module()
    wrapped.model = module
    readout = find_readout(wrapped, SCORES, 2, Hints(output=''))
    torch.testing.assert_close(readout.numbers(readout.scores(SCORES, 2)), SCORES.sigmoid())


def config(model, **entries):
    from mmengine.config import Config

    return Source(Config(dict(model=model, **entries)), 'mine')


def test_a_plain_module_gets_the_configs_data_preprocessor():
    from mmengine.registry import MODELS

    @MODELS.register_module(force=True)
    class PlainNet(nn.Module):
        def __init__(self, width=2):
            super().__init__()
            self.conv = nn.Conv2d(3, width, 3)

        def forward(self, x):
            return self.conv(x).mean((2, 3))

    preprocessor = {'mean': [0, 0, 0], 'std': [255, 255, 255], 'to_rgb': True}
    steps = [{'type': 'mmpretrain.LoadImageFromFile'}, {'type': 'mmpretrain.PackInputs'}]
    entries = {'data_preprocessor': preprocessor, 'test_pipeline': steps}
    model = load(config({'type': 'PlainNet'}, **entries), 'none')
    batch = model.batch([model.read(ROOT / 'demo/chelsea.png')])
    assert 0.5 < batch.max() <= 1
    assert model.module(batch).shape == (1, 2)


@pytest.mark.parametrize('pretrained', [None, {'type': 'Pretrained', 'checkpoint': 'https://example.invalid/a.pth'}])
def test_parameters_that_only_training_sets_are_not_leftovers_of_memory(pretrained):
    from mmengine.model import BaseModel
    from mmengine.registry import MODELS

    @MODELS.register_module(force=True)
    class LevelEmbed(BaseModel):
        def __init__(self, sets):
            super().__init__(init_cfg=pretrained)
            self.conv = nn.Conv2d(3, 2, 3)
            self.level_embed = nn.Parameter(torch.Tensor(4, 16))
            self.sets = sets

        def init_weights(self):
            super().init_weights()
            if self.sets:
                nn.init.constant_(self.level_embed, 3.0)

        def forward(self, inputs, data_samples=None, mode='tensor'):
            return self.conv(inputs).mean((2, 3))

    leftovers = [torch.full((4, 16), float('inf')) for _ in range(50)]
    del leftovers
    assert load(config({'type': 'LevelEmbed', 'sets': True}), 'none').module.level_embed.eq(3).all()
    first, second = (load(config({'type': 'LevelEmbed', 'sets': False}), 'none').module for _ in range(2))
    assert first.level_embed.std() < 0.05
    assert torch.equal(first.level_embed, second.level_embed)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ('installed', 'told'),
    [
        ({'onedl-mmengine', 'onedl-mmcv'}, ''),
        ({'mmengine', 'onedl-mmengine', 'onedl-mmcv'}, 'mmengine and onedl-mmengine are both'),
        ({'mmcv', 'mmengine', 'onedl-mmengine', 'onedl-mmcv'}, 'mmengine and onedl-mmengine, mmcv and onedl-mmcv are'),
    ],
)
def test_packages_that_overwrite_each_other_are_told_once(installed, told, monkeypatch, caplog):
    monkeypatch.setattr('vistool.environment.installed_version', lambda name: '1.0' if name in installed else None)
    warn_of_environment.cache_clear()
    with caplog.at_level(logging.WARNING, 'vistool'):
        load(nn.Linear(1, 1))
        load(nn.Linear(1, 1))
    warn_of_environment.cache_clear()
    assert caplog.text.count('both installed') == bool(told) and told in caplog.text


@pytest.mark.parametrize(
    ('spec', 'option'),
    [
        ('timm::resnet18', 'model.num_classes'),
        ('torchvision::squeezenet1_1', 'model.num_classes'),
        ('configs/mobilenet_v3/mobilenet-v3-large_8xb32_in1k.py', 'model.head.num_classes'),
        ('configs/efficientnet_lite/efficientnet-lite0_in1k.py', 'model.num_classes'),
    ],
)
def test_class_names_of_another_number_of_outputs_are_dropped_and_that_is_said(spec, option, caplog):
    changed = load(spec, 'none', options={option: 10})
    assert changed.classes is None and changed.class_name(7) == 'class 7'
    assert '1,000 class names for 10 outputs; classes are shown by their number' in caplog.text
    caplog.clear()
    assert len(load(spec, 'none').classes) == 1000 and 'names' not in caplog.text


def test_a_checkpoints_own_class_names_are_taken_where_they_fit(tmp_path, caplog):
    names = [f'kind {index}' for index in range(10)]
    options = {'model.num_classes': 10}
    module = load('timm::resnet18', 'none', options=options).module
    path = tmp_path / 'own.pth'
    torch.save({'state_dict': module.state_dict(), 'meta': {'dataset_meta': {'classes': names}}}, path)
    caplog.clear()
    assert load('timm::resnet18', str(path), options=options).classes == tuple(names) and 'names' not in caplog.text
    fitted = load('timm::resnet18', str(path))  # built for 1000 classes, then again for the checkpoint's
    assert fitted.classes == tuple(names) and 'names' not in caplog.text


@pytest.mark.parametrize(
    ('transformers', 'summary', 'told'),
    [
        ('4.57.6', 'Shows what a vision model and its data pipeline do', ''),
        ('5.0.0', 'Shows what a vision model and its data pipeline do', "pip install 'transformers>=4.56,<5'"),
        ('12.1', 'Shows what a vision model', 'transformers 12.1 is installed'),
        (None, 'Clean your data with ease', 'pip uninstall vistool'),
        (None, '', 'another project called vistool'),
    ],
)
def test_an_environment_that_breaks_gets_one_line(transformers, summary, told, monkeypatch, caplog):
    from vistool import environment

    versions = {'transformers': transformers}
    monkeypatch.setattr(environment, 'installed_version', versions.get)
    monkeypatch.setattr('importlib.metadata.metadata', lambda name: {'Summary': summary})
    environment.warn_of_environment.cache_clear()
    with caplog.at_level(logging.WARNING, 'vistool'):
        load(nn.Linear(1, 1))
        load(nn.Linear(1, 1))
    environment.warn_of_environment.cache_clear()
    assert len(caplog.records) == bool(told) and told in caplog.text


@pytest.mark.parametrize('count', [2, 7])
def test_class_names_that_the_caller_gives_are_one_for_each_output(count, tmp_path):
    """A network that tells nothing of its outputs, one that does, and a file for a model that was loaded before."""
    import vistool as vt

    module = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    names = [f'kind {number}' for number in range(count)]
    with pytest.raises(
        vt.InputError, match=f'^classes: {count} class names for 6 outputs of Sequential; accepted: one'
    ):
        vt.CAM(targets=[4], layers=['0'])(load(module, classes=names), torch.randn(3, 8, 8))
    with pytest.raises(vt.InputError, match=f'^classes: {count} class names for 1,000 outputs of resnet18'):
        load('timm::resnet18', 'none', classes=names)
    (tmp_path / 'names.txt').write_text('\n'.join(names))
    model = load(module)
    models = Models(ModelSpec(model), classes_file=str(tmp_path / 'names.txt'))
    with (
        opened_models(models, model, 0) as (named,),
        pytest.raises(vt.InputError, match=f'^classes_file: {count} class'),
    ):
        vt.CAM(layers=['0'])(named, torch.randn(3, 8, 8))
    assert model.classes is None


class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x).mean((2, 3))


def test_photos_in_any_form_are_read_by_the_models_pipeline(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a.png')

    def transform(image):
        return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float()

    model, cam = load(Mean(), transform=transform), CAM(layers='conv')
    expected = cam(model, model.read(pixels))
    for photo in (tmp_path / 'a.png', str(tmp_path / 'a.png'), Image.fromarray(pixels), pixels):
        assert np.array_equal(cam(model, photo).maps[0].values, expected.maps[0].values)
        (listed,) = cam(model, [photo])
        assert np.array_equal(listed.maps[0].values, expected.maps[0].values)
    for photo in (pixels, [pixels], Image.fromarray(pixels)):
        with pytest.raises(InputError, match=r'no preprocessing.*transform='):
            cam(Mean(), photo)


def test_a_preview_lists_the_names_that_layers_take():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Sequential(nn.Conv2d(4, 2, 1))).train()
    assert '(2): Sequential' in preview_model(network) and 'Conv2d(4, 2' in preview_model(network)
    lines = preview_model(network, torch.zeros(3, 8, 10)).splitlines()
    assert any('2.0: Conv2d' in line and '2×8×10' in line for line in lines)
    assert network.training and not any(module._forward_hooks for module in network.modules())


def test_notices_about_optional_packages_are_hidden_and_nothing_else(capsys, recwarn):
    import warnings

    from vistool.environment import without_import_notices

    with without_import_notices():
        print('before')
        print('Could not import OneDL')
        print('after')
        warnings.warn('Fail to import ``MultiScaleDeformableAttention`` from mmcv', stacklevel=1)
        warnings.warn('another', stacklevel=1)
    assert capsys.readouterr().out == 'before\nafter\n'
    assert [str(each.message) for each in recwarn] == ['another']


def test_threads_that_read_the_first_images_build_one_pipeline():
    model = load('configs/efficientnet_lite/efficientnet-lite0_in1k.py', 'none')
    together = threading.Barrier(8)

    def build(_number):
        together.wait()
        return model.pipeline

    with ThreadPoolExecutor(8) as pool:
        assert len({id(each) for each in pool.map(build, range(8))}) == 1
    other = model.pipeline
    model.pipeline = other
    assert model.pipeline is other


def test_a_scope_that_a_thread_overwrites_is_its_own():
    from mmengine.registry import DefaultScope

    import vistool.registry  # noqa: F401  overwrites scopes for each thread

    names = ('mmpretrain', 'mmcv')
    steps = [threading.Barrier(2) for _ in range(3)]

    def scope():
        found = DefaultScope.get_current_instance()
        return found and found.scope_name

    def overwrite(place):
        before = scope()
        with DefaultScope.overwrite_default_scope(names[place]):
            steps[0].wait()  # both are inside
            inside = scope()
            with DefaultScope.overwrite_default_scope(None), DefaultScope.overwrite_default_scope('mmengine'):
                deeper = scope()
            steps[1].wait()
            if place:
                steps[2].wait()  # the other has left
            still = scope()
        if not place:
            steps[2].wait()
        return before, inside, deeper, still, scope()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(overwrite, (0, 1))) == [(None, name, 'mmengine', name, None) for name in names]


def test_threads_that_hide_notices_leave_the_streams_as_they_were():
    import sys

    from vistool.environment import without_import_notices

    stream, left = sys.stdout, threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with without_import_notices():
            hidden = sys.stdout

            def inside():
                with without_import_notices():
                    left.wait(10)
                    return sys.stdout

            other = pool.submit(inside)
            while not other.running():
                pass
        left.set()
        other.result()
    assert hidden is not stream
    assert sys.stdout is stream


def test_a_model_is_built_and_reads_whatever_the_default_device_is():
    photo = np.random.default_rng(0).integers(0, 256, (90, 110, 3), np.uint8)
    model = load('timm::test_vit', 'none')
    usual, patches = CAM()(model, photo), Patches()(model, model.read(photo))
    try:
        torch.set_default_device('meta')
        other = load('timm::test_vit', 'none')
        found, cut = CAM()(other, photo), Patches()(other, other.read(photo))
    finally:
        torch.set_default_device(None)
    np.testing.assert_array_equal(found.maps[0].values, usual.maps[0].values)
    assert cut.caption == patches.caption


def test_a_model_loads_and_reads_where_the_default_type_is_bfloat16():
    photo = np.random.default_rng(0).integers(0, 256, (90, 110, 3), np.uint8)
    try:
        torch.set_default_dtype(torch.bfloat16)
        model = load('timm::test_vit', 'none')
        sample = model.read(photo)
        assert np.isfinite(CAM()(model, sample).maps[0].values).all()
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(sample.image, load('timm::test_vit', 'none').read(photo).image)


def test_a_network_without_values_is_named_as_such():
    with torch.device('meta'):
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    for given in (network, load(network)):
        with pytest.raises(InputError, match='weights of Sequential are on the meta device'):
            CAM()(given, torch.zeros(3, 16, 16))


@pytest.mark.parametrize('nothing', [[], (), {}, torch.zeros(0, 3, 16, 16)], ids=repr)
def test_nothing_to_analyze_is_an_empty_batch(nothing):
    with pytest.raises(InputError, match='an empty batch'):
        CAM()(nn.Sequential(nn.Conv2d(3, 4, 3)), nothing)


def test_bytes_that_go_into_a_network_as_they_are_are_told(caplog):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    image = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    CAM(layers='0')(network, image.float())
    assert 'uint8' not in caplog.text
    CAM(layers='0')(network, image)
    assert 'a uint8 tensor goes into the network as the floats 0 to 255' in caplog.text


@pytest.mark.parametrize('kind', [torch.float64, torch.bfloat16], ids=str)
def test_photos_come_in_the_type_of_the_weights(kind):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    model = load(
        Mean().to(kind), transform=lambda image: torch.from_numpy(np.asarray(image) / np.float32(255)).movedim(2, 0)
    )
    assert model.batch([model.read(pixels)]).dtype == kind
    assert np.isfinite(CAM(layers='conv')(model, pixels).maps[0].values).all()


@pytest.mark.parametrize(
    ('config', 'said'),
    [
        ("custom_imports = dict(imports=['own_parts'])\nmodel = dict(type='Net')", "registered.*type='own_parts.Net'"),
        ("model = dict(type='own_parts.Nett')", r'needs own_parts.Nett, and own_parts has no Nett; did you mean Net\?'),
        ("model = dict(type='no_such_parts.Net')", 'no module no_such_parts is in this folder or on PYTHONPATH'),
        ("model = dict(type='broken_parts.Net')", "broken_parts cannot be imported: No module named 'no_such_package'"),
        ("model = dict(type='ImageClassifier')", r"not registered; the config needs default_scope = 'mmpretrain'$"),
        (
            "default_scope = 'mmpretrain'\nmodel = dict(type='ImageClassifier', backbone=dict(type='ResNett'))",
            'needs the class ResNett, which is not registered.*did you mean ResNet',
        ),
    ],
)
def test_a_class_that_is_not_found_says_where_it_was_looked_for(tmp_path, monkeypatch, config, said):
    (tmp_path / 'own_parts.py').write_text('from torch import nn\n\n\nclass Net(nn.Identity):\n    pass\n')
    (tmp_path / 'broken_parts.py').write_text('import no_such_package\n')
    (tmp_path / 'named.py').write_text(f'{config}\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', [*sys.path])
    monkeypatch.delitem(sys.modules, 'own_parts', raising=False)
    with pytest.raises(InputError, match=said) as caught:
        build_module(resolve('named.py'))
    assert 'KeyError' not in str(caught.value)


def test_no_targets_mean_the_predicted_class_and_other_things_are_refused():
    network, image = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), torch.randn(3, 16, 16)
    usual, found = (CAM(layers='0', targets=targets)(network, image) for targets in ((), None))
    assert found.maps[0].coordinates == usual.maps[0].coordinates
    with pytest.raises(InputError, match='targets: 1.5 does not name classes; accepted: ids, names'):
        CAM(layers='0', targets=1.5)(network, image)
