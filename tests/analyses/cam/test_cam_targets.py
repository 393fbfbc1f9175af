"""What the maps explain besides a class: FinerCAM's difference, registered scores, similarity to a reference image."""

import logging

import naive_cam
import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import vistool as vt
from vistool import CAM
from vistool.analyses.cam.methods import finer_score, nearest
from vistool.analyses.cam.targets import ClassTarget, custom_target
from vistool.errors import InputError
from vistool.network.outputs import Readout, pooled_features
from vistool.registry import CAM_TARGETS
from vistool.visualization.facets import facets

SCORES = torch.tensor([[1.0, 3.0, 2.5, -1.0, 2.9], [0.0, 0.1, 5.0, 4.0, 4.9]], dtype=torch.float64)


def goal(classes, **options):
    return ClassTarget(torch.tensor(classes), SCORES, Readout('', 'softmax', 5, 5, True, True, ''), **options)


def test_contrasted_classes_have_the_nearest_scores():
    assert nearest(SCORES, torch.tensor([1, 2])).tolist() == [[4, 2, 0], [4, 3, 1]]
    assert nearest(SCORES[:, :2], torch.tensor([1, 0])).tolist() == [[0], [1]]
    with pytest.raises(InputError, match='second class'):
        nearest(SCORES[:, :1], torch.tensor([0, 0]))


@pytest.mark.parametrize('contrast', [None, [[0, 3], [1, 4]]])
def test_finer_score_is_the_papers(contrast):
    found = finer_score(
        goal([1, 2], contrast=None if contrast is None else torch.tensor(contrast)), SCORES, torch.arange(2)
    )
    for row, label in enumerate([1, 2]):
        others = contrast[row] if contrast else nearest(SCORES, torch.tensor([1, 2]))[row].tolist()
        assert found[row].item() == pytest.approx(naive_cam.finer_score(SCORES[row].numpy(), label, others))


class Backbone(nn.Module):
    """A headless network: features, in the shape asked for."""

    head = None

    def __init__(self, shape='pooled'):
        super().__init__()
        torch.manual_seed(4)
        self.layer, self.shape = nn.Conv2d(3, 7, 3, padding=1), shape
        self.double()

    def tail(self, a):
        maps = a.tanh()
        return {
            'pooled': lambda: maps.mean((2, 3)),
            'map': lambda: maps,
            'stages': lambda: (a, maps),
            'tokens': lambda: maps.flatten(2).transpose(1, 2),
            'class token': lambda: torch.cat([maps.mean((2, 3))[:, None], maps.flatten(2).transpose(1, 2) * 5], 1),
            'output object': lambda: {'last_hidden_state': a, 'pooler_output': maps.mean((2, 3))},
        }[self.shape]()

    def forward(self, x):
        return self.tail(self.layer(x))


@pytest.mark.parametrize('shape', ['pooled', 'map', 'stages', 'tokens', 'class token', 'output object'])
def test_similarity_to_a_reference_is_the_cosine_of_pooled_features(shape):
    model, pooled = Backbone(shape), Backbone('pooled')
    images, reference = torch.randn(2, 3, 8, 12).double(), torch.randn(3, 8, 12).double()
    results = CAM(['gradcam', 'eigencam'], layers=['layer'], reference=reference)(model, images)
    for result, image in zip(results, images, strict=True):
        a = pooled.layer(image[None]).detach().requires_grad_()
        score = F.cosine_similarity(pooled.tail(a), pooled(reference[None]))
        gradient = torch.autograd.grad(score.sum(), a)[0]
        signed = naive_cam.gradcam(a[0].detach().numpy(), gradient[0].numpy())
        np.testing.assert_allclose(result.maps[0].values, naive_cam.finish([signed], (8, 12)), atol=1e-6)
        assert result.provenance['targets'] == [{'name': 'similarity to 0', 'score': pytest.approx(score.item())}]
        assert [tile.name for tile in facets(result).tiles] == ['gradcam/similarity to 0', 'eigencam']
        assert facets(result).rows == (f'similarity to 0 {score.item():.3g}',)


@pytest.mark.parametrize(
    ('shape', 'said'),
    [
        ('stages', ['features to compare: [1] of the output']),
        ('output object', ['features to compare: pooler_output of the output']),
        ('map', []),
    ],
)
def test_which_of_several_features_are_compared_is_said(shape, said, caplog):
    with caplog.at_level(logging.INFO, 'vistool'):
        CAM(['eigencam'], layers=['layer'], reference=torch.randn(3, 8, 12).double())(
            Backbone(shape), torch.randn(2, 3, 8, 12).double()
        )
    assert [text for text in caplog.messages if 'features' in text] == said


def test_the_reference_is_read_and_run_once_for_all_batches_until_the_weights_change(tmp_path):
    transform = lambda image: torch.from_numpy(np.array(image) / 255.0).permute(2, 0, 1)  # noqa: E731
    model = vt.load(Backbone(), transform=transform)
    path = tmp_path / 'other.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)).save(path)
    cam, images, runs = CAM(layers=['layer'], reference=str(path)), torch.randn(2, 3, 8, 12).double(), []
    model.module.register_forward_pre_hook(lambda *args: runs.append(1))
    first, *_ = (cam(model, images)[0].maps[0].values for _ in range(3))
    assert len(runs) == 4
    with torch.no_grad():
        model.module.layer.weight.neg_()
    again = cam(model, images)[0]
    assert len(runs) == 6 and np.abs(again.maps[0].values - first).max() > 0.1
    fresh = CAM(layers=['layer'], reference=model.read(path))(model, images)[0]
    np.testing.assert_array_equal(again.maps[0].values, fresh.maps[0].values)


def test_similarity_on_a_vit_with_every_kind_of_method():
    torch.manual_seed(4)
    model = timm.models.VisionTransformer(
        img_size=(16, 24), patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=0
    )
    model.head = None
    model.forward_head = lambda x: x[:, 0]
    images, reference = torch.randn(2, 3, 16, 24), torch.randn(3, 16, 24)
    names = ['gradcam', 'ablationcam', 'scorecam', 'shapleycam']
    results = CAM(names, layers=['blocks.1.norm1'], reference=reference)(model, images)
    assert all(np.isfinite(entry.values).all() for result in results for entry in result.maps)
    assert CAM(reference=images[0])(model, images[0]).provenance['targets'][0]['score'] == pytest.approx(1)


def test_features_that_are_none():
    with pytest.raises(InputError, match='no features to compare'):
        pooled_features(torch.zeros(3), (4, 4))


def test_without_a_reference_a_headless_network_has_class_free_maps_only():
    with pytest.raises(InputError, match=r'LayerCAM needs class scores.*accepted: EigenCAM.*RandomCAM.*; .*reference'):
        CAM(['layercam'], layers=['layer'])(Backbone(), torch.randn(1, 3, 8, 8).double())
    with pytest.raises(InputError, match='cannot be combined with targets'):
        CAM(targets=[1], reference=torch.zeros(3, 8, 8))(Backbone(), torch.zeros(1, 3, 8, 8).double())


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(6)
        self.layer, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(self.layer(x).relu().mean((2, 3)))


def margin(output, samples):
    return output[:, 2] - output[:, 0]


@pytest.mark.parametrize('method', ['gradcam', 'ablationcam', 'scorecam'])
def test_a_score_of_ones_own_is_as_good_as_a_class(method):
    """A network whose class 1 is the score gives the same map."""
    model, images = Classifier(), torch.randn(2, 3, 9, 9)
    same = Classifier()
    same.fc.weight.data[1] = same.fc.weight.data[2] - same.fc.weight.data[0]
    same.fc.bias.data[1] = same.fc.bias.data[2] - same.fc.bias.data[0]
    ours = CAM([method], layers=['layer'], score=margin, aug_smooth=method == 'gradcam')(model, images)
    expected = CAM([method], layers=['layer'], targets=[1], aug_smooth=method == 'gradcam')(same, images)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a.maps[0].values, b.maps[0].values, atol=1e-5)
        assert a.maps[0].coordinates['method'] == method and a.maps[0].coordinates['target'] == 'margin'


def test_scores_know_their_images():
    seen = []

    def score(output, samples):
        seen.append([sample.name for sample in samples])
        return output[:, 0]

    CAM(['gradcam'], layers=['layer'], score=score, aug_smooth=True)(Classifier(), torch.randn(2, 3, 9, 9))
    assert seen[0] == ['0', '1'] * 6


def test_errors():
    run = lambda **options: CAM(layers=['layer'], **options)(Classifier(), torch.randn(1, 3, 9, 9))  # noqa: E731
    with pytest.raises(InputError, match=r"^score: no score 'Mine' is registered.*custom_imports"):
        run(score={'type': 'Mine'})
    with pytest.raises(InputError, match=r'^score: .* gave \(1, 4\) for 1 image'):
        run(score=lambda output, samples: output)
    with pytest.raises(InputError, match=r'FinerCAM compares classes, and margin is not a class; accepted: GradCAM'):
        run(score=margin, methods=['finercam'])


USER_FILE = """
from vistool.analyses.cam import register_cam
from vistool.registry import CAM_TARGETS

@register_cam('sum-cam', 'SumCAM', 'ours, 2026')
def sumcam(a, g):
    return a

@CAM_TARGETS.register_module()
class Difference:
    def __init__(self, first, second):
        self.first, self.second, self.name = first, second, f'{first} against {second}'

    def __call__(self, output, samples):
        return output[:, self.first] - output[:, self.second]

@CAM_TARGETS.register_module()
def largest(output, samples, times=1):
    return times * output.amax(1)
"""


def test_a_users_file_brings_methods_and_scores_by_custom_imports(tmp_path, monkeypatch, capsys):
    from vistool.analyses.cam.methods import METHODS
    from vistool.commands.vis_cam import main

    monkeypatch.setattr('sys.path', [str(tmp_path), *__import__('sys').path])
    (tmp_path / 'my_cams.py').write_text(USER_FILE)
    base = (vt.__path__[0] + '/../configs/timm/vit_tiny_patch16_224.py').replace('vistool/../', '')
    config = tmp_path / 'mine.py'
    config.write_text(
        f"_base_ = {base!r}\ncustom_imports = dict(imports=['my_cams'])\n"
        "cam_target = dict(type='Difference', first=3, second=5)\n"
    )
    try:
        arguments = ['demo/chelsea.png', config, 'none', '-o', tmp_path / 'x.png', '--save-raw', '--method', 'SumCAM']
        assert main([str(word) for word in arguments]) == 0, capsys.readouterr().err
        assert np.load(tmp_path / 'x.npz')['names_0'].tolist() == ['sumcam/3 against 5']
        assert main([*map(str, arguments), '--target-category', '3']) == 0
        assert 'against' not in np.load(tmp_path / 'x.npz')['names_0'][0]  # a class that is asked for comes first
        model, image = Classifier(), torch.randn(1, 3, 9, 9)
        result = CAM(score={'type': 'largest', 'times': 2}, layers=['layer'])(model, image)[0]
        assert result.provenance['targets'][0]['score'] == pytest.approx(2 * model(image).max().item(), rel=1e-5)
    finally:
        METHODS.pop('sumcam', None)
        for name in ('Difference', 'largest'):
            CAM_TARGETS.module_dict.pop(name, None)


@pytest.mark.slow
def test_dinov2_likens_a_photo_to_itself_mirrored_more_than_to_others():
    model = vt.load('configs/dinov2/vit-small-p14_dinov2-pre_headless.py')
    cat = model.read('demo/chelsea.png')
    photos = [cat.original[:, ::-1].copy(), 'demo/coffee.png', 'demo/astronaut.png', 'demo/rocket.jpg']
    mirrored, *others = (
        CAM(reference=model.read(photo))(model, cat).provenance['targets'][0]['score'] for photo in photos
    )
    assert mirrored > max(others) + 0.1
    itself = CAM(reference=cat)(model, cat)
    assert itself.provenance['targets'][0]['score'] == pytest.approx(1, abs=1e-4)

    norm = {}
    handle = model.module.backbone.ln1.register_forward_hook(lambda module, args, output: norm.update(out=output))
    inputs = model.batch([cat])
    with torch.no_grad():
        found = pooled_features(model.module(inputs), tuple(inputs.shape[2:]))
    handle.remove()
    assert torch.equal(found, norm['out'][:, 0])  # the class token after the final norm


@pytest.mark.parametrize('spec', ['os.system', 7, ['Difference'], True])
def test_what_is_no_score_of_the_users_own_is_bad_input(spec):
    with pytest.raises(InputError, match='cam_target: .* is not a score; accepted'):
        custom_target(spec, [])


@pytest.mark.parametrize('error', [TypeError('no'), IndexError('9'), RuntimeError('shapes'), KeyError('logits')])
def test_a_score_of_the_users_own_that_fails_is_named_with_what_it_says(error):
    def score(output, samples):
        raise error

    with pytest.raises(InputError, match=rf'cam_target: score failed \({type(error).__name__}: {error.args[0]}\)'):
        custom_target(score, [object()]).score(torch.zeros(1, 2), torch.arange(1))
