"""Every config in configs/ parses, builds, and prepares a picture; the layers that documentation names exist."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

from vistool.models.configs import require_model, resolve

ROOT = Path(__file__).resolve().parents[2]
COFFEE = ROOT / 'demo' / 'coffee.png'

SHIPPED = {
    'convnext/convnext-tiny_32xb128_in1k.py': (224, 1000),
    'deit/deit-tiny_4xb256_in1k.py': (224, 1000),
    **{
        f'dino/vit-{size}-p{patch}_dino-pre_headless.py': (480, None)
        for size in ('tiny', 'small', 'base')
        for patch in (8, 16)
    },
    'dinov2/vit-small-p14_dinov2-pre_headless.py': (518, None),
    'efficientnet_lite/efficientnet-lite0_demo.py': (224, 1000),
    'efficientnet_lite/efficientnet-lite0_in1k.py': (224, 1000),
    'mobilenet_v2/mobilenet-v2_8xb32_in1k.py': (224, 1000),
    'mobilenet_v3/mobilenet-v3-large_8xb32_in1k.py': (224, 1000),
    'repvgg/repvgg-B3g4_4xb64-autoaug-lbs-mixup-coslr-200e_in1k.py': (224, 1000),
    'resnet/resnet50_8xb32_in1k.py': (224, 1000),
    'resnet/resnet50_b16x8_cifar100.py': (None, 100),
    'swin_transformer/swin-small_16xb64_in1k.py': (224, 1000),
    'swin_transformer/swin-tiny_16xb64_in1k.py': (224, 1000),
    't2t_vit/t2t-vit-t-14_8xb64_in1k.py': (224, 1000),
    'timm/vit_tiny_patch16_224.py': (224, 1000),
    'vision_transformer/vit-base-p16_ft-64xb64_in1k-384.py': (384, 1000),
}
"""Config → (side of the network's input, or None where the pipeline keeps the picture's size; number of classes)."""

OTHERS = {
    'multi_input/three-branches.py',  # several inputs: tests/inputs/test_multiple.py
    *(
        f'demo_dataset/{name}.py' for name in ('plain', 'mixup', 'multi_view', 'repeat')
    ),  # tests/tools/test_browse_dataset.py
    *(f'scenes/{name}.py' for name in ('detector', 'segmenter')),  # tests/commands/test_vis_cam_scenes.py
    *(f'scenes/{name}.py' for name in ('dataset', 'leak', 'wrong_flip')),  # tests/commands/test_browse_dataset.py
}
"""Configs that other tests build and run."""

LAYERS = {
    'resnet/resnet50_8xb32_in1k.py': 'backbone.layer4.2.conv1',
    'mobilenet_v3/mobilenet-v3-large_8xb32_in1k.py': 'backbone.layer16',
    'swin_transformer/swin-tiny_16xb64_in1k.py': 'backbone.norm3',
    'vision_transformer/vit-base-p16_ft-64xb64_in1k-384.py': 'backbone.layers.11.ln1',
    't2t_vit/t2t-vit-t-14_8xb64_in1k.py': 'backbone.encoder.13.ln1',
}
"""The layers that the documented examples name, ``[-1]`` written out."""


def test_the_table_is_complete():
    found = {path.relative_to(ROOT / 'configs').as_posix() for path in (ROOT / 'configs').rglob('*.py')}
    assert found == set(SHIPPED) | OTHERS


def build(name):
    source = resolve(ROOT / 'configs' / name)
    with DefaultScope.overwrite_default_scope(source.config.default_scope):
        return MODELS.build({'data_preprocessor': source.config.data_preprocessor, **require_model(source)})


@pytest.mark.parametrize('name', SHIPPED)
def test_builds(name):
    model = build(name)
    layers = dict(model.named_modules())
    assert LAYERS.get(name, '') in layers
    classes = SHIPPED[name][1]
    if classes is not None:
        last = [layer for layer in layers.values() if isinstance(layer, torch.nn.Linear)][-1]
        assert last.out_features == classes


def prepare(name, seed=0):
    config = resolve(ROOT / 'configs' / name).config
    steps = config.test_dataloader.dataset.pipeline if 'test_dataloader' in config else config.test_pipeline
    if steps[0]['type'] != 'LoadImageFromFile':  # CIFAR's pictures come out of their archive decoded
        steps = [{'type': 'LoadImageFromFile'}, *steps]
    np.random.seed(seed)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        return Compose(steps)({'img_path': str(COFFEE)})['inputs']


@pytest.mark.parametrize('name', SHIPPED)
def test_prepares_a_picture(name):
    side = SHIPPED[name][0]
    assert prepare(name).shape == ((3, side, side) if side else (3, 400, 600))


def test_efficientnet_lite_sees_the_center_in_its_aspect_ratio():
    photo = Image.open(COFFEE).convert('RGB').resize((384, 256), Image.Resampling.BICUBIC)
    expected = np.asarray(photo.crop((80, 16, 304, 240)))
    bgr = prepare('efficientnet_lite/efficientnet-lite0_in1k.py')
    np.testing.assert_array_equal(bgr.numpy()[::-1].transpose(1, 2, 0), expected)


def test_random_pipeline_is_repeatable():
    name = 'timm/vit_tiny_patch16_224.py'
    assert torch.equal(prepare(name, 298), prepare(name, 298))
    assert not torch.equal(prepare(name, 298), prepare(name, 299))
    assert not prepare(name)[:, 0].any()  # 400 rows are padded to 480 with black


def test_repvgg_is_what_its_name_says():
    config = resolve(ROOT / 'configs/repvgg/repvgg-B3g4_4xb64-autoaug-lbs-mixup-coslr-200e_in1k.py').config
    assert config.model.backbone.arch == 'B3g4'
    assert config.train_dataloader.batch_size == 64
    assert 'AutoAugment' in [step['type'] for step in config.train_dataloader.dataset.pipeline]
    assert config.model.head.loss.type == 'LabelSmoothLoss'
    assert config.model.train_cfg.augments.type == 'Mixup'
    assert config.train_cfg.max_epochs == 200
    assert [step['type'] for step in config.param_scheduler] == ['LinearLR', 'CosineAnnealingLR']


def test_demo_weights_are_the_default():
    lite = resolve(ROOT / 'configs/efficientnet_lite/efficientnet-lite0_in1k.py')
    dino = resolve(ROOT / 'configs/dinov2/vit-small-p14_dinov2-pre_headless.py')
    assert (lite.checkpoint, dino.checkpoint) == ('demo://efficientnet-lite0', 'demo://dinov2-vit-small-p14')


@pytest.mark.parametrize(('phase', 'count'), [('train', 9), ('val', 6), ('test', 6)])
def test_demo_dataset_loads_from_any_folder(phase, count, tmp_path, monkeypatch):
    from mmengine.registry import DATASETS

    monkeypatch.chdir(tmp_path)
    config = resolve(ROOT / 'configs/efficientnet_lite/efficientnet-lite0_demo.py').config
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build(config[f'{phase}_dataloader'].dataset)
    labels = [dataset.get_data_info(index)['gt_label'] for index in range(len(dataset))]
    assert len(labels) == count
    assert [dataset.metainfo['classes'][label].split(',')[0] for label in sorted(set(labels))] == [
        'tabby', 'missile', 'espresso'
    ]  # fmt: skip
    assert all(dataset[index]['inputs'].shape == (3, 224, 224) for index in range(count))


def test_demo_dataset_is_what_its_script_makes(tmp_path):
    spec = importlib.util.spec_from_file_location('make_dataset', ROOT / 'demo' / 'make_dataset.py')
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(tmp_path)
    shipped = ROOT / 'demo'
    files = sorted(
        path.relative_to(shipped)
        for name in ('dataset', 'masks')
        for path in (shipped / name).rglob('*')
        if path.is_file()
    )
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob('*') if path.is_file())
    for file in files:
        if file.suffix == '.txt':
            assert (tmp_path / file).read_text() == (shipped / file).read_text()
        else:  # JPEG encoders differ a little between versions
            ours, theirs = (np.asarray(Image.open(root / file), dtype=float) for root in (tmp_path, shipped))
            assert np.abs(ours - theirs).mean() < 2
