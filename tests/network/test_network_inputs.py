"""What the inputs of a network are: a row for each image or shared by all, images or not; and what it does not take."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

import vistool as vt
from vistool.network.inputs import varied, with_shared

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Prompted(nn.Module):
    """Scores images against prompts, each of them a row of tokens, as CLIP does."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.vision, self.text = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU()), nn.Embedding(50, 8)

    def forward(self, pixel_values, input_ids):
        text = self.text(input_ids).mean(1)
        logits = 5 * self.vision(pixel_values).mean((2, 3)) @ text.T
        return {'text_embeds': text, 'logits': logits, 'logits_per_text': logits.T}


class Described(nn.Module):
    """Takes a vector for each image: its age and sex, say; joined to the image's features or added to them."""

    def __init__(self, joined):
        super().__init__()
        torch.manual_seed(0)
        self.vision, self.vector = nn.Conv2d(3, 8, 4, 4), nn.Linear(4, 8)
        self.fc, self.joined = nn.Linear(16 if joined else 8, 5), joined

    def forward(self, image, vector):
        pair = self.vision(image).relu().mean((2, 3)), self.vector(vector)
        return self.fc(torch.cat(pair, 1) if self.joined else pair[0] + pair[1])


class FewShot(nn.Module):
    """Scores an image by its distance to a support set, one image a class."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.vision = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU())

    def forward(self, query, support):
        one, other = (self.vision(images).mean((2, 3)) for images in (query, support))
        return -10 * torch.cdist(one, other)


def prompts(count):
    return torch.randint(0, 50, (count, 7), generator=torch.Generator().manual_seed(count))


def explained(network, inputs, count, layer='vision', methods='gradcam', **options):
    found = vt.CAM(methods, layers=layer, targets=list(range(count)), **options)(network, inputs)
    scores = [[target.score for target in result.targets] for result in found]
    return np.array(scores), [[entry.values for entry in result.maps] for result in found]


@pytest.mark.parametrize('images', [1, 2])
@pytest.mark.parametrize('count', [1, 2, 4, 5])
def test_every_image_meets_every_prompt(images, count):
    network, inputs = Prompted(), {'pixel_values': IMAGES[:images], 'input_ids': prompts(count)}
    with torch.no_grad():
        logits = network(**inputs)['logits']
    expected = logits.softmax(1) if count > 1 else (-logits).sigmoid()  # one score stands for two classes
    methods = ['gradcam', 'ablationcam']
    scores, maps = explained(network, inputs, count, methods=methods)
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    for index in range(images):
        _, alone = explained(network, {**inputs, 'pixel_values': IMAGES[index : index + 1]}, count, methods=methods)
        np.testing.assert_allclose(maps[index], alone[0], atol=1e-5)


@pytest.mark.parametrize('joined', [True, False])
@pytest.mark.parametrize('form', [tuple, list, lambda pair: dict(zip(('image', 'vector'), pair, strict=True))])
def test_a_vector_for_each_image_goes_with_its_image(joined, form):
    network, vectors = Described(joined), torch.randn(2, 4)
    with torch.no_grad():
        expected = network(IMAGES, vectors).softmax(1)
    scores, _ = explained(network, form((IMAGES, vectors)), 5)
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_two_images_and_a_support_set_of_two():
    network, support = FewShot(), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = network(IMAGES, support).softmax(1)
    scores, maps = explained(network, {'query': IMAGES, 'support': support}, 2)
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert np.shape(maps) == (2, 2, 16, 16)


@pytest.mark.parametrize('network', [Prompted(), Described(True), Described(False)])
@pytest.mark.parametrize('images', [1, 2])
def test_augmentation_flips_images_and_repeats_what_goes_with_them(network, images):
    other = prompts(3) if isinstance(network, Prompted) else torch.randn(2, 4)[:images]
    names = ('pixel_values', 'input_ids') if isinstance(network, Prompted) else ('image', 'vector')
    inputs = dict(zip(names, (IMAGES[:images], other), strict=True))
    plain, _ = explained(network, inputs, 3)
    scores, maps = explained(network, inputs, 3, aug_smooth=True)
    np.testing.assert_allclose(scores, plain, atol=1e-6)
    mirrored = {**inputs, names[0]: IMAGES[:images].flip(-1)}
    _, flipped = explained(network, mirrored, 3, aug_smooth=True)
    np.testing.assert_allclose(np.flip(flipped, -1), maps, atol=1e-4)


def test_what_is_mirrored_among_several_inputs_is_said_once(caplog):
    network, batch = nn.Identity(), {'image': IMAGES, 'mask': torch.ones(2, 1, 16, 16), 'box': torch.randn(2, 4)}
    with caplog.at_level(logging.INFO, 'vistool'):
        for inputs in (batch, batch, IMAGES):
            varied(network, inputs, (1.0,))
    assert caplog.messages == ['test-time augmentation mirrors input image, mask; the others stay as they are']


def test_masks_of_the_images_size_are_mirrored_and_stay_masks():
    mask = torch.rand(2, 1, 16, 16) > 0.5
    batch = {
        'image': IMAGES,
        'mask': mask.float(),
        'labels': mask[:, 0].long(),
        'box': torch.randn(2, 4),
        'bias': torch.randn(2, 1, 9, 9),
        'small': torch.randn(2, 3, 8, 8),
    }
    found = varied(nn.Identity(), batch, (1.0, 0.9))
    assert torch.equal(found['image'], torch.cat([IMAGES, IMAGES * 0.9, IMAGES.flip(-1), IMAGES.flip(-1) * 0.9]))
    for name in ('mask', 'labels'):
        assert torch.equal(found[name], torch.cat([batch[name]] * 2 + [batch[name].flip(-1)] * 2))
    for name in ('box', 'bias'):
        assert torch.equal(found[name], torch.cat([batch[name]] * 4))
    small = batch['small']
    assert torch.equal(found['small'], torch.cat([small, small * 0.9, small.flip(-1), small.flip(-1) * 0.9]))


def test_what_is_shared_is_found_once_and_said(caplog):
    caplog.set_level(logging.INFO, 'vistool')
    network, runs = Prompted(), []
    network.register_forward_hook(lambda *args: runs.append(None))
    for _ in range(3):
        known = with_shared(network, {'pixel_values': IMAGES, 'input_ids': prompts(2)}, 2)
        assert known.shared == {'input_ids'}
    assert len(runs) == 3  # the batch, the first image with its row, the first image with all rows
    assert [r.getMessage() for r in caplog.records] == [
        'input input_ids: given whole to every image (found by running the first image alone)'
    ]


class Mixed(nn.Module):
    """What it says of one image depends on the other images, so that no image can be run alone."""

    def __init__(self):
        super().__init__()
        self.vision = nn.Conv2d(3, 2, 4, 4)

    def forward(self, image, vector):
        return self.vision(image).mean((2, 3)).cumsum(0).flip(0) * vector.mean()


def test_what_cannot_be_found_out_is_asked_and_can_be_said():
    network, vectors = Mixed(), torch.randn(2, 4)
    with pytest.raises(vt.InputError, match=r'a row for each image or be shared.*NamedInputs\(…, shared=\[…\]\)'):
        vt.CAM(layers='vision')(network, {'image': IMAGES, 'vector': vectors})
    for shared in ([], ['vector']):
        said = vt.NamedInputs({'image': IMAGES, 'vector': vectors}, shared=shared)
        assert len(vt.CAM(layers='vision', targets=[0])(network, said)) == 2
    said = vt.PositionalInputs([IMAGES, vectors], shared=[1])
    assert len(vt.CAM(layers='vision', targets=[0])(network, said)) == 2


def test_one_image_without_a_batch_axis():
    scores, _ = explained(Prompted(), {'pixel_values': IMAGES[:1], 'input_ids': prompts(3)}, 3)
    cam = vt.CAM(layers='vision', targets=[0, 1, 2])
    found = cam(Prompted(), {'pixel_values': IMAGES[0], 'input_ids': prompts(3)})
    np.testing.assert_allclose([target.score for target in found.targets], scores[0], atol=1e-6)
    vectors = torch.randn(2, 4)
    scores, _ = explained(Described(True), (IMAGES, vectors), 3)
    found = cam(Described(True), (IMAGES[0], vectors[0]))
    np.testing.assert_allclose([target.score for target in found.targets], scores[0], atol=1e-6)


class Sized(nn.Module):
    """Takes float32 images (3, 16, 16)."""

    def __init__(self):
        super().__init__()
        self.a, self.fc = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)), nn.Linear(4 * 12 * 12, 3)

    def forward(self, x):
        return self.fc(self.a(x).flatten(1))


WRONG = {
    'size': (torch.randn(1, 3, 20, 20), 'Sized does not take 20×20 images .*use the size that it was built for'),
    'channels': (torch.randn(2, 1, 16, 16), 'takes images with 3 channels, and this one has 1'),
    'channels last': (torch.randn(1, 16, 16, 3), r'and this one has 16.*channels come first: \(B, C, H, W\)'),
    'double': (torch.randn(1, 3, 16, 16).double(), 'are float32 and the input is float64.*to.torch.float32'),
    'integers': (torch.zeros(1, 3, 16, 16, dtype=torch.long), 'are float32 and the input is int64'),
    'number': ((torch.randn(1, 3, 16, 16),) * 2, 'does not take 2 inputs .*takes 2 positional arguments but 3'),
    'list': ([torch.randn(3, 16, 16)] * 3, r'does not take 3 inputs .*give one tensor: torch.stack\(images\)'),
    'nothing': (torch.randn(0, 3, 16, 16), 'an empty batch'),
    'video': (torch.randn(1, 8, 3, 16, 16), 'video and volumes are not supported'),
    'signal': (torch.randn(4, 100), 'signals and other inputs without rows and columns are not supported'),
}


def test_a_network_of_single_images_says_so_of_a_batch():
    class Single(Sized):
        def forward(self, x):
            assert len(x) == 1, f'expected batch size 1, got {len(x)}'
            return super().forward(x)

    with pytest.raises(vt.InputError, match=r'Single does not take 2 images at a time .* one image at a time'):
        vt.CAM()(Single().eval(), torch.randn(2, 3, 16, 16))


@pytest.mark.parametrize('analysis', [vt.CAM(), vt.CAM(layers='a'), vt.FeatureMaps(), vt.Attention()], ids=repr)
@pytest.mark.parametrize('kind', WRONG)
def test_a_wrong_input_is_one_line_and_leaves_the_network_as_it_was(kind, analysis):
    network, (inputs, message) = Sized().train(), WRONG[kind]
    network.a[2].eval()
    network.fc.weight.requires_grad_(False)
    before = (
        [(p.requires_grad, p.grad, p.device) for p in network.parameters()],
        [m.training for m in network.modules()],
    )
    with pytest.raises(vt.InputError, match=message) as caught:
        analysis(network, inputs)
    assert '\n' not in str(caught.value)
    after = [(p.requires_grad, p.grad, p.device) for p in network.parameters()], [m.training for m in network.modules()]
    assert before == after and not any(module._forward_hooks for module in network.modules())


class Frames(nn.Module):
    """Takes the images of a batch for the frames of a video, as TSM does."""

    def __init__(self, n_segment=4):
        super().__init__()
        self.n_segment, self.vision, self.fc = n_segment, nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Linear(4, 3)

    def forward(self, x):
        x = self.vision(x).mean((2, 3)).unflatten(0, (-1, self.n_segment))
        return self.fc(x).mean(1)


class Recurrent(nn.Module):
    """An LSTM over the features of frames ``(B, T, C, H, W)``."""

    def __init__(self):
        super().__init__()
        self.vision, self.lstm, self.fc = nn.Conv2d(3, 4, 3), nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        b, t, c, h, w = x.shape
        features = self.vision(x.view(b * t, c, h, w)).mean((2, 3)).view(b, t, -1)
        return self.fc(self.lstm(features)[0][:, -1])


def volumes():
    return nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3))


def signals():
    return nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3))


@pytest.mark.parametrize(
    ('network', 'inputs', 'message'),
    [
        (Frames(), torch.randn(4, 3, 16, 16), 'video and volumes'),
        (Frames(), torch.randn(3, 3, 16, 16), 'video and volumes'),
        (Recurrent(), torch.randn(1, 4, 3, 16, 16), 'video and volumes'),
        (Recurrent(), torch.randn(1, 3, 16, 16), 'video and volumes'),
        (volumes(), torch.randn(1, 1, 8, 16, 16), 'video and volumes'),
        (volumes(), torch.randn(2, 8, 16, 16), 'video and volumes'),
        (volumes(), torch.randn(8, 16, 16), 'video and volumes'),
        (signals(), torch.randn(1, 2, 100), 'signals and text are not supported'),
        (signals(), torch.randn(100), 'signals and other inputs'),
    ],
)
def test_video_volumes_and_signals_are_named(network, inputs, message):
    for analysis in (vt.CAM(), vt.FeatureMaps(), vt.Attention()):
        with pytest.raises(vt.InputError, match=message) as caught:
            analysis(network, inputs)
        assert 'LSTM' not in str(caught.value) and 'lstm' not in str(caught.value)


def test_images_that_a_network_takes_for_frames_are_named_where_the_layer_is_given():
    with pytest.raises(vt.InputError, match=r'video and volumes.*gives 1 output for 4 images'):
        vt.CAM(layers='vision')(Frames(), torch.randn(4, 3, 16, 16))
