"""Fitting weights to models: what is loaded, what is told, what is refused."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict

import pytest
import torch
from mmpretrain.models import SwinTransformer, TimmClassifier, VisionTransformer
from torch import nn
from torchvision.models import mobilenet_v3_small, resnet18, resnet34, resnet50, resnet101

from vistool.errors import InputError
from vistool.models.checkpoints.reading import Checkpoint
from vistool.models.checkpoints.weights import LoadReport, Mismatch, load_weights, resize_bias_tables, summarize


class Classifier(nn.Module):
    """``backbone`` and ``head``, like mmpretrain's ImageClassifier."""

    def __init__(self, classes: int = 10, depth: int = 2, head_name: str = 'fc') -> None:
        super().__init__()
        blocks = [nn.Sequential(nn.Conv2d(3 if not i else 8, 8, 3), nn.BatchNorm2d(8)) for i in range(depth)]
        self.backbone = nn.Sequential(OrderedDict((f'layer{i + 1}', block) for i, block in enumerate(blocks)))
        self.head = nn.ModuleDict({head_name: nn.Linear(8, classes)})


def filled(model: nn.Module, value: float = 7.0) -> dict[str, torch.Tensor]:
    return {name: torch.full_like(tensor, value) for name, tensor in model.state_dict().items()}


def checkpoint(weights, **more) -> Checkpoint:
    return Checkpoint(state_dict=dict(weights), source='some.pth', **more)


def on_meta(build, **options) -> nn.Module:
    with torch.device('meta'):
        return build(**options)


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_everything_fits(caplog):
    model = Classifier()
    report = load_weights(model, checkpoint(filled(model)))
    assert report == LoadReport(loaded=report.loaded)
    assert set(report.loaded) == model.state_dict().keys()
    assert all((tensor == 7).all() for tensor in model.state_dict().values())
    assert not caplog.records


@pytest.mark.parametrize('seed', range(3))
def test_it_loads_what_pytorch_loads(seed):
    torch.manual_seed(seed)
    source, ours, theirs = resnet18(), resnet18(), resnet18()
    weights = source.state_dict()
    for name in sorted(weights)[seed::7]:
        if name.startswith('fc'):
            del weights[name]
    theirs.load_state_dict(weights, strict=False)
    if any(name not in weights for name in ('fc.weight', 'fc.bias')):
        ours.fc.load_state_dict(theirs.fc.state_dict())
    load_weights(ours, checkpoint(weights))
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))


def test_a_checkpoint_without_its_head(caplog):
    model = Classifier()
    before = model.head['fc'].weight.clone()
    weights = {name: tensor for name, tensor in filled(model).items() if name.startswith('backbone.')}
    report = load_weights(model, checkpoint(weights))
    assert report.missing == ('head.fc.weight', 'head.fc.bias')
    assert torch.equal(model.head['fc'].weight, before)
    (message,) = warnings(caplog)
    assert 'some.pth' in message and 'head.fc.weight, head.fc.bias' in message and '\n' not in message


def test_another_number_of_classes_is_reported_not_loaded(caplog):
    model = Classifier(classes=10)
    report = load_weights(model, checkpoint(filled(Classifier(classes=5))))
    assert report.mismatched == (
        Mismatch('head.fc.weight', (5, 8), (10, 8)),
        Mismatch('head.fc.bias', (5,), (10,)),
    )
    assert not report.missing and not report.unexpected
    assert (model.backbone.layer1[0].weight == 7).all()
    assert not (model.head['fc'].weight == 7).any()
    assert 'head.fc.weight (5x8, not 10x8)' in warnings(caplog)[0]


def test_another_head_and_a_surplus_part(caplog):
    model = Classifier()
    weights = filled(Classifier(head_name='linear')) | {'neck.weight': torch.zeros(2)}
    report = load_weights(model, checkpoint(weights))
    assert report.missing == ('head.fc.weight', 'head.fc.bias')
    assert set(report.unexpected) == {'head.linear.weight', 'head.linear.bias', 'neck.weight'}
    assert len(warnings(caplog)) == 1


def test_tied_weights_that_are_saved_once_are_not_missing(caplog):
    """As transformers writes safetensors: the tensor of two names under one of them."""
    model = Classifier()
    model.decoder = nn.ModuleDict({'head': model.head})
    kept = {name: value for name, value in filled(model).items() if not name.startswith('head.')}
    report = load_weights(model, checkpoint(kept))
    assert report.missing == () and not caplog.records
    assert torch.equal(model.head['fc'].weight, torch.full((10, 8), 7.0))


def test_batch_counters_are_not_worth_a_message(caplog):
    model = Classifier()
    weights = {name: tensor for name, tensor in filled(model).items() if 'num_batches_tracked' not in name}
    report = load_weights(model, checkpoint(weights, metadata={'backbone.layer1.1': {'version': 2}}))
    assert not report.missing and not caplog.records


@pytest.mark.parametrize('prefix', ['backbone.', 'encoder.', 'module.', 'model.'])
def test_prefixes_that_are_too_many_or_too_few(prefix, caplog):
    caplog.set_level(logging.INFO, 'vistool')
    bare = Classifier().backbone
    wrapped = nn.Module()
    wrapped.add_module(prefix[:-1], Classifier().backbone)
    report = load_weights(bare, checkpoint(filled(wrapped)))
    assert not report.missing and not report.unexpected and report.renamed == f'removing the prefix {prefix!r}'
    report = load_weights(wrapped, checkpoint(filled(bare)))
    assert not report.missing and not report.unexpected and report.renamed == f'adding the prefix {prefix!r}'
    assert len(caplog.records) == 2 and not warnings(caplog)


def test_a_prefix_can_be_exchanged():
    model = Classifier()
    weights = {name.replace('backbone.', 'encoder.'): tensor for name, tensor in filled(model).items()}
    weights = {name: tensor for name, tensor in weights.items() if name.startswith('encoder.')}
    report = load_weights(model, checkpoint(weights))
    assert report.renamed == "removing the prefix 'encoder.' and adding the prefix 'backbone.'"
    assert (model.backbone.layer2[0].weight == 7).all()


def test_a_full_checkpoint_into_a_bare_backbone_leaves_the_head_unused():
    bare = Classifier().backbone
    report = load_weights(bare, checkpoint(filled(Classifier())))
    assert set(report.unexpected) == {'head.fc.weight', 'head.fc.bias'}
    assert not report.missing


MISFITS = [
    (resnet50, resnet18),
    (resnet18, resnet50),
    (resnet101, resnet50),
    (resnet50, resnet101),
    (resnet18, resnet34),
    (resnet34, resnet18),
    (mobilenet_v3_small, resnet18),
]


@pytest.mark.parametrize(('build', 'other'), MISFITS)
@pytest.mark.parametrize('wrapped', [False, True])
def test_another_architecture_is_an_error(build, other, wrapped):
    """Also where hundreds of names and shapes agree, as within the ResNet family."""
    model, weights = on_meta(build), on_meta(other).state_dict()
    if wrapped:
        model = nn.ModuleDict({'backbone': model})
        weights = {f'backbone.{name}': tensor for name, tensor in weights.items()}
    with pytest.raises(InputError, match='of another architecture') as caught:
        load_weights(model, checkpoint(weights))
    assert '\n' not in str(caught.value) and 'belong together' in str(caught.value)


def test_a_few_shared_names_are_no_fit():
    model = resnet18()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights = {f'stages.{i}.weight': torch.zeros(3) for i in range(30)} | {'fc.bias': torch.full((1000,), 7.0)}
    with pytest.raises(InputError, match=r'only 1 of the.*stages\.0\.weight.*conv1\.weight'):
        load_weights(model, checkpoint(weights))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_head_alone_is_no_fit():
    with pytest.raises(InputError, match='another architecture'):
        load_weights(resnet18(), checkpoint({'fc.bias': torch.zeros(1000), 'fc.weight': torch.zeros(1000, 512)}))


def test_nothing_matches():
    with pytest.raises(InputError, match=r'none of the.*a\.b.*backbone\.layer1\.0\.weight'):
        load_weights(Classifier(), checkpoint({'a.b': torch.zeros(1)}))


def test_a_backbone_within_a_larger_model_fits(caplog):
    model = nn.ModuleDict({'backbone': resnet18(), 'neck': resnet34(), 'head': nn.Linear(2, 2)})
    report = load_weights(model, checkpoint(resnet18().state_dict()))
    assert report.renamed == "adding the prefix 'backbone.'"
    assert 'neck.' in warnings(caplog)[0]


@pytest.mark.parametrize('given', ['', 'model.', 'backbone.'])
def test_timm_models_of_mmpretrain_get_their_prefix_from_their_own_hook(given, caplog):
    model = TimmClassifier(model_name='test_resnet', pretrained=False)
    weights = {f'{given}{name}': tensor for name, tensor in filled(model.model).items()}
    report = load_weights(model, checkpoint(weights))
    assert not report.missing and not report.unexpected
    assert all((tensor == 7).all() for tensor in model.model.state_dict().values())
    assert not warnings(caplog)


def vit(size: int) -> VisionTransformer:
    arch = {'embed_dims': 8, 'num_layers': 1, 'num_heads': 2, 'feedforward_channels': 8}
    return VisionTransformer(arch=arch, img_size=size, patch_size=16)


def test_position_embeddings_are_resized_by_the_models_own_hook(caplog):
    small, large = vit(64), vit(96)
    report = load_weights(large, checkpoint(small.state_dict()))
    assert not report.mismatched and not report.missing
    assert torch.equal(large.pos_embed[:, 0], small.pos_embed[:, 0])
    expected = nn.functional.interpolate(
        small.pos_embed[:, 1:].reshape(1, 4, 4, 8).permute(0, 3, 1, 2), size=(6, 6), mode='bicubic', align_corners=False
    )
    torch.testing.assert_close(large.pos_embed[:, 1:], expected.flatten(2).transpose(1, 2))


def test_bias_tables_of_another_window_are_resized_by_the_models_own_hook():
    arch = {'embed_dims': 8, 'depths': [1], 'num_heads': [2]}
    small = SwinTransformer(arch=arch, img_size=32, window_size=4, out_indices=(0,))
    large = SwinTransformer(arch=arch, img_size=32, window_size=8, out_indices=(0,))
    report = load_weights(large, checkpoint(small.state_dict()))
    assert not report.missing and not report.mismatched and not report.unexpected
    table = 'stages.0.blocks.0.attn.w_msa.relative_position_bias_table'
    assert table in report.loaded
    assert large.state_dict()[table].shape[0] == 15 * 15


def test_versions_steer_the_loading():
    """A norm that renamed its tensor in version 3 sees which version the checkpoint has."""

    class Norm(nn.Module):
        _version = 3

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(2))

        def _load_from_state_dict(self, state_dict, prefix, local_metadata, *rest):
            if local_metadata.get('version', 3) < 3:
                state_dict[f'{prefix}scale'] = state_dict.pop(f'{prefix}weight')
            super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    model = nn.ModuleDict({'backbone': Norm()})
    old = checkpoint({'weight': torch.ones(2)}, metadata={'': {'version': 2}})
    with pytest.raises(InputError):
        load_weights(model, checkpoint({'weight': torch.ones(2)}))
    report = load_weights(nn.Sequential(OrderedDict(backbone=model['backbone'])), old)
    assert report.loaded == ('backbone.scale',)
    assert (model['backbone'].scale == 1).all()


def test_scalars_of_the_first_pytorch_and_half_precision():
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(0.0))
            self.weight = nn.Parameter(torch.zeros(3))

    model = Scale()
    load_weights(model, checkpoint({'factor': torch.tensor([2.0]), 'weight': torch.ones(3, dtype=torch.float16)}))
    assert model.factor == 2 and model.weight.dtype == torch.float32 and (model.weight == 1).all()


def test_no_hook_is_left_behind_even_after_an_error():
    model = Classifier()
    count = sum(len(part._load_state_dict_pre_hooks) for part in model.modules())
    load_weights(model, checkpoint(filled(model)))
    with pytest.raises(InputError):
        load_weights(model, checkpoint({'x': torch.zeros(1)}))
    assert sum(len(part._load_state_dict_pre_hooks) for part in model.modules()) == count


def test_a_hook_that_fails_gives_one_line():
    model = Classifier()

    def fail(*_args) -> None:
        raise AssertionError('window sizes\ndiffer')

    model.register_load_state_dict_pre_hook(fail)
    with pytest.raises(InputError, match='window sizes differ'):
        load_weights(model, checkpoint(filled(model)))


def test_names_in_groups():
    names = [f'backbone.layer4.{i}.weight' for i in range(12)] + ['head.fc.bias']
    assert summarize(names) == 'backbone.layer4.* (12), head.fc.bias'
    assert summarize(['a.b', 'a.c']) == 'a.b, a.c'
    assert summarize(f'part{i}.weight' for i in range(9)).endswith('… 3 more')


def cubic_weights(old: int, new: int) -> torch.Tensor:
    """(new, old): what each new sample takes of each old one, by Keys' kernel with a = -0.75 and clamped borders."""

    def kernel(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.25 * x**3 - 2.25 * x**2 + 1
        return -0.75 * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    weights = torch.zeros(new, old)
    for i in range(new):
        place = (i + 0.5) * old / new - 0.5
        for j in range(math.floor(place) - 1, math.floor(place) + 3):
            weights[i, min(max(j, 0), old - 1)] += kernel(place - j)
    return weights


@pytest.mark.parametrize('extra', [0, 3])
@pytest.mark.parametrize(('old', 'new'), [(13, 23), (15, 7)])
def test_bias_tables_are_interpolated_as_images(extra, old, new):
    torch.manual_seed(0)
    table = torch.randn(old * old + extra, 2)
    name = 'blocks.0.relative_position_bias_table'
    weights = {name: table, 'blocks.0.relative_position_index': torch.zeros(49, 49)}
    resized = resize_bias_tables(weights, {name: torch.empty(new * new + extra, 2)})
    assert resized.keys() == {name}
    along = cubic_weights(old, new)
    for head in range(2):
        expected = along @ table[: old * old, head].view(old, old) @ along.T
        torch.testing.assert_close(resized[name][: new * new, head].view(new, new), expected)
    assert torch.equal(resized[name][new * new :], table[old * old :])


def test_bias_tables_that_fit_or_have_other_heads_stay():
    name = 'relative_position_bias_table'
    weights = {name: torch.zeros(49, 2)}
    assert resize_bias_tables(weights, {name: torch.empty(49, 2)})[name] is weights[name]
    assert resize_bias_tables(weights, {name: torch.empty(81, 4)})[name] is weights[name]
    assert resize_bias_tables(weights, {name: torch.empty(35, 2)})[name] is weights[name]
