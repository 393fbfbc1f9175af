"""timm::NAME, torchvision::NAME and hf::FOLDER: prepared as the libraries do, classes named, heads known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vistool as vt
from vistool.commands.vis_cam import main
from vistool.errors import InputError
from vistool.models.configs import require_model, resolve
from vistool.models.model import load
from vistool.network.outputs import has_classes

COFFEE = Path(__file__).parents[2] / 'demo' / 'coffee.png'
VIT = {'hidden_size': 32, 'num_hidden_layers': 2, 'num_attention_heads': 2, 'intermediate_size': 64, 'patch_size': 8}
NAMES = {0: 'cat', 1: 'espresso', 2: 'rocket'}
PREPARATION = {
    'image_processor_type': 'ViTImageProcessor',
    'size': {'height': 48, 'width': 32},
    'image_mean': [0.5, 0.4, 0.3],
    'image_std': [0.2, 0.3, 0.4],
    'resample': 3,
    'rescale_factor': 1 / 255,
    'do_resize': True,
    'do_rescale': True,
    'do_normalize': True,
}


def error_of(spec):
    with pytest.raises(InputError) as error:
        resolve(str(spec))
    return str(error.value)


# ---- timm


def test_timm_names_its_classes():
    from timm.data import ImageNetInfo

    thousand = resolve('timm::resnet18').config.test_dataloader.dataset.metainfo.classes
    assert list(thousand) == ImageNetInfo('imagenet-1k').label_descriptions() and thousand[967] == 'espresso'
    many = resolve('timm::vit_tiny_patch16_224.augreg_in21k').config.test_dataloader.dataset.metainfo.classes
    assert len(many) == 21843
    assert 'test_dataloader' not in resolve('timm::vit_small_patch14_dinov2').config


@pytest.mark.parametrize('spec', ['timm::resnet18', 'torchvision::resnet18'])
def test_a_model_asked_for_without_a_head_is_headless(spec):
    model = load(resolve(spec, {'model.num_classes': 0}), 'none')
    assert not has_classes(model.module)


# ---- torchvision


@pytest.mark.parametrize('name', ['resnet50', 'efficientnet_b1', 'swin_t', 'resnet50.IMAGENET1K_V1'])
def test_torchvision_prepares_a_picture_as_its_weights_do(name):
    from torchvision.models import get_model_weights

    name, _, tag = name.partition('.')
    weights = get_model_weights(name)[tag or 'DEFAULT']
    source = resolve(f'torchvision::{name}' + (f'.{tag}' if tag else ''))
    assert require_model(source).model_name == name and source.checkpoint is None
    assert list(source.config.test_dataloader.dataset.metainfo.classes) == weights.meta['categories']
    source.config.model = {'type': 'vistool.TorchvisionClassifier', 'model_name': 'squeezenet1_1'}  # quick to build
    model = load(source, 'none')
    ours = model.batch([model.read(COFFEE)])[0]
    theirs = weights.transforms()(Image.open(COFFEE).convert('RGB'))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_torchvision_checkpoints_load_and_save_under_torchvisions_names(tmp_path):
    from torchvision.models import resnet18

    torch.manual_seed(3)
    plain = resnet18().eval()
    torch.save(plain.state_dict(), tmp_path / 'weights.pth')
    model = load('torchvision::resnet18', str(tmp_path / 'weights.pth'))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.module(x), plain(x))
    assert model.module.state_dict().keys() == plain.state_dict().keys()


def test_the_torchvision_wrapper_trains_and_predicts_as_mmpretrains_classifiers_do():
    from mmpretrain.structures import DataSample

    module = load(resolve('torchvision::squeezenet1_1', {'model.num_classes': 3}), 'none').module
    x = torch.randn(2, 3, 64, 64)
    samples = [DataSample().set_gt_label(label) for label in (0, 2)]
    scores = module(x)
    expected = torch.nn.functional.cross_entropy(scores, torch.tensor([0, 2]))
    torch.testing.assert_close(module(x, samples, mode='loss')['loss'], expected)
    predicted = module(x, mode='predict')
    assert [int(sample.pred_label) for sample in predicted] == scores.argmax(1).tolist()
    torch.testing.assert_close(torch.stack([sample.pred_score for sample in predicted]), scores.softmax(1))
    assert module.extract_feat(x).shape == (2, 512, 3, 3)


def test_torchvision_unknown():
    assert 'did you mean resnet18' in error_of('torchvision::resnet1')
    assert 'IMAGENET1K_V1, IMAGENET1K_V2' in error_of('torchvision::resnet50.V9')


# ---- Hugging Face


@pytest.fixture
def folder(tmp_path):
    """A tiny ViT as its authors would have published it, pictures not square."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    settings = ViTConfig(**VIT, image_size=(48, 32), id2label=NAMES, label2id={v: k for k, v in NAMES.items()})
    ViTForImageClassification(settings).save_pretrained(tmp_path / 'vit')
    (tmp_path / 'vit' / 'preprocessor_config.json').write_text(json.dumps(PREPARATION))
    return tmp_path / 'vit'


def rewrite(path, **entries):
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_hugging_face_folder_is_read_whole(folder):
    from transformers import AutoModelForImageClassification

    source = resolve(f'hf::{folder}')
    assert (source.name, source.checkpoint) == ('vit', str(folder / 'model.safetensors'))
    model = load(source)
    assert model.classes == ('cat', 'espresso', 'rocket')
    batch = model.batch([model.read(COFFEE)])
    resized = Image.open(COFFEE).convert('RGB').resize((32, 48), Image.Resampling.BICUBIC)
    expected = (np.asarray(resized) / 255 - PREPARATION['image_mean']) / PREPARATION['image_std']
    np.testing.assert_allclose(batch[0].permute(1, 2, 0), expected, atol=1e-5)
    theirs = AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        assert torch.equal(model.module(batch), theirs(batch).logits)


def test_hugging_face_weights_may_be_a_pickle_and_have_the_names_of_an_older_version(folder, caplog):
    from safetensors.torch import load_file

    weights = load_file(folder / 'model.safetensors')
    plain = load(f'hf::{folder}').module
    renamed = {
        name.replace('vit.layers.', 'vit.encoder.layer.').replace('mlp.fc1', 'intermediate.dense'): value
        for name, value in weights.items()
    }
    (folder / 'model.safetensors').unlink()
    torch.save(renamed, folder / 'pytorch_model.bin')
    caplog.clear()
    old = load(f'hf::{folder}').module
    x = torch.randn(1, 3, 48, 32)
    with torch.no_grad():
        assert torch.equal(old(x), plain(x)) and not caplog.text


def cut_up(folder, count=3):
    """The folder's weights in several files with an index, as transformers saves models above ``max_shard_size``."""
    from transformers import AutoModelForImageClassification

    model = AutoModelForImageClassification.from_pretrained(folder)
    (folder / 'model.safetensors').unlink()
    model.save_pretrained(folder, max_shard_size=f'{sum(p.nbytes for p in model.parameters()) // (1000 * count)}KB')
    assert len(list(folder.glob('model-*.safetensors'))) > 1 and not (folder / 'model.safetensors').exists()


def as_pickles(folder):
    """The same as older versions saved them: ``pytorch_model-00001-of-0000N.bin``."""
    from safetensors.torch import load_file

    index = json.loads((folder / 'model.safetensors.index.json').read_text())
    renamed = {
        name: name.replace('model-', 'pytorch_model-').replace('.safetensors', '.bin')
        for name in set(index['weight_map'].values())
    }
    for old, new in renamed.items():
        torch.save(load_file(folder / old), folder / new)
        (folder / old).unlink()
    index['weight_map'] = {key: renamed[name] for key, name in index['weight_map'].items()}
    (folder / 'model.safetensors.index.json').unlink()
    (folder / 'pytorch_model.bin.index.json').write_text(json.dumps(index))


@pytest.mark.parametrize('pickled', [False, True])
def test_hugging_face_weights_in_several_files_load_in_full(folder, pickled, caplog):
    plain = load(f'hf::{folder}')
    cut_up(folder)
    if pickled:
        as_pickles(folder)
    caplog.clear()
    model = load(f'hf::{folder}')
    assert not caplog.text
    x = torch.randn(1, 3, 48, 32)
    with torch.no_grad():
        assert torch.equal(model.module(x), plain.module(x))
    assert model.checkpoint.source.endswith('.index.json') and len(model.checkpoint.sha256) == 64
    shard = sorted(folder.glob('*-00002-of-*'))[0]
    before = model.checkpoint.sha256
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    if not pickled:
        assert load(f'hf::{folder}').checkpoint.sha256 != before  # every file counts


def test_hugging_face_pickles_in_several_files_run_no_code(folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / 'ran',))

    cut_up(folder)
    as_pickles(folder)
    torch.save({'vit.embeddings.cls_token': Evil()}, sorted(folder.glob('*.bin'))[-1])
    with pytest.raises(InputError, match='trust_checkpoint'):
        load(f'hf::{folder}')
    assert not (tmp_path / 'ran').exists()


def test_hugging_face_weights_in_several_files_that_are_not_all_there(folder):
    cut_up(folder)
    index = folder / 'model.safetensors.index.json'
    last = sorted(folder.glob('model-*.safetensors'))[-1]
    kept = last.read_bytes()

    def problem():
        with pytest.raises(InputError) as caught:
            load(f'hf::{folder}')
        return str(caught.value)

    last.write_bytes(kept[: len(kept) // 2])
    assert 'truncated' in problem()
    last.unlink()
    assert '1 of' in problem() and last.name in problem()
    last.write_bytes(kept)
    whole = json.loads(index.read_text())
    index.write_text(json.dumps({'weight_map': {**whole['weight_map'], 'more.weight': last.name}}))
    assert 'hold no more.weight' in problem()
    index.write_text(json.dumps({'weight_map': {'x': '../secret.bin'}}))
    assert 'another folder' in problem()
    for text in ('{', '[]', '{"weight_map": {}}'):
        index.write_text(text)
        assert index.name in problem()


def test_hugging_face_backbones_are_headless_and_find_their_weights(folder, caplog):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / 'model.safetensors')
    bare = {name.removeprefix('vit.'): value for name, value in weights.items() if name.startswith('vit.')}
    save_file(bare, folder / 'model.safetensors')
    rewrite(folder / 'config.json', architectures=['ViTModel'])
    model = load(f'hf::{folder}')
    assert not has_classes(model.module) and model.classes is None and not caplog.text
    assert torch.equal(model.module.model.vit.embeddings.cls_token, bare['embeddings.cls_token'])


@pytest.mark.parametrize(
    ('said', 'size', 'first'),
    [
        ({}, (48, 32), 'Resize'),
        ({'size': 40}, (40, 40), 'Resize'),
        ({'size': {'shortest_edge': 48}, 'do_center_crop': True, 'crop_size': 32}, (32, 32), 'ResizeEdge'),
        ({'size': 48, 'do_center_crop': True, 'crop_size': {'height': 40, 'width': 32}}, (40, 32), 'Resize'),
        ({'size': {'shortest_edge': 224}, 'crop_pct': 0.875}, (224, 224), 'ResizeEdge'),
        ({'size': {'shortest_edge': 384}, 'crop_pct': 0.875}, (384, 384), 'Resize'),
        ({'do_resize': False, 'do_center_crop': True, 'crop_size': 64}, (64, 64), 'CenterCrop'),
    ],
)
def test_hugging_face_sizes_however_they_are_written(folder, said, size, first):
    rewrite(folder / 'preprocessor_config.json', **said)
    source = resolve(f'hf::{folder}')
    assert source.config.test_pipeline[1].type == first
    assert load(source, 'none').read(COFFEE).image.shape[:2] == size


@pytest.mark.parametrize(
    ('said', 'low', 'high'),
    [
        ({'do_normalize': False}, 0, 1),
        ({'do_normalize': False, 'do_rescale': False}, 0, 255),
        ({'image_mean': [1] * 3, 'image_std': [1] * 3, 'rescale_factor': 1 / 127.5}, -1, 1),
    ],
)
def test_hugging_face_scales_however_they_are_written(folder, said, low, high):
    rewrite(folder / 'preprocessor_config.json', **said)
    model = load(f'hf::{folder}', 'none')
    black_and_white = np.zeros((64, 64, 3), np.uint8)
    black_and_white[32:] = 255
    batch = model.batch([model.read(black_and_white)])
    assert batch.min() == pytest.approx(low, abs=1e-4) and batch.max() == pytest.approx(high, abs=1e-4)


def test_hugging_face_folder_without_a_preparation_says_what_is_assumed(folder, caplog):
    (folder / 'preprocessor_config.json').unlink()
    assert load(f'hf::{folder}', 'none').read(COFFEE).image.shape == (48, 32, 3)
    assert 'no preprocessor_config.json' in caplog.text


def test_hugging_face_errors(folder, tmp_path):
    assert 'is not a folder' in error_of('hf::google/vit-base-patch16-224') and 'hf download' in error_of('hf::nowhere')
    assert 'no config.json' in error_of(f'hf::{tmp_path}')
    rewrite(folder / 'config.json', model_type='mine', auto_map={'AutoConfig': 'code.Mine'})
    assert 'its own code' in error_of(f'hf::{folder}')
    (folder / 'config.json').write_text('{')
    assert 'config.json is not valid JSON' in error_of(f'hf::{folder}')


def test_vis_cam_as_typed(folder, capsys, tmp_path):
    for spec in ('timm::resnet18', 'torchvision::resnet18', f'hf::{folder}'):
        target = str(tmp_path / 'x.png')
        assert main([str(COFFEE.with_name('chelsea.png')), spec, 'none', '-o', target]) == 0
        captured = capsys.readouterr()
        assert captured.out.split() == [target] and 'target layer' in captured.err


@pytest.mark.parametrize('kind', ['DINOv3ViT', 'DINOv3ConvNext', 'SiglipVision'])
def test_hugging_face_backbones_without_a_classifier_load_as_headless_networks(kind, tmp_path):
    import transformers

    sizes = {'hidden_size': 16, 'intermediate_size': 16, 'num_hidden_layers': 1, 'num_attention_heads': 2}
    sizes = {'hidden_sizes': [4, 8, 8, 16], 'depths': [1] * 4} if 'ConvNext' in kind else sizes | {'patch_size': 16}
    own = getattr(transformers, f'{kind}Model')(getattr(transformers, f'{kind}Config')(image_size=32, **sizes)).eval()
    own.save_pretrained(tmp_path)
    model = load(f'hf::{tmp_path}')
    sample = model.read(COFFEE)
    with torch.no_grad():
        given = model.batch([sample])
        assert torch.equal(model.module(given).last_hidden_state, own(given).last_hidden_state)
    assert not has_classes(model.module) and model.classes is None
    assert vt.CAM('eigencam')(model, sample).targets == ()
    assert vt.CAM('eigencam', reference=sample)(model, sample).targets[0].score == pytest.approx(1, abs=1e-4)


def test_hugging_face_models_for_other_tasks_are_refused(tmp_path):
    from transformers import BertConfig, DetrConfig, VideoMAEConfig

    for config, named in ((BertConfig(), 'BertModel'), (DetrConfig(use_timm_backbone=False), 'DetrForSegmentation')):
        config.architectures = [named]
        config.save_pretrained(tmp_path)
        assert 'is not an image classifier or backbone' in error_of(f'hf::{tmp_path}')
    VideoMAEConfig(architectures=['VideoMAEModel']).save_pretrained(tmp_path)
    assert 'is not an image classifier or backbone' in error_of(f'hf::{tmp_path}')
