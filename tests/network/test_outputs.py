"""Which output of a network holds the scores, and what they mean: classes, independent labels, two classes, a value."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn

import vistool as vt
from vistool.errors import InputError
from vistool.models.model import Model
from vistool.network.outputs import Hints, find_readout
from vistool.visualization.facets import facets

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))


class Net(nn.Module):
    """Features that any head can stand on; ``give`` makes the output of features and logits."""

    def __init__(self, classes=1, give=lambda features, logits: logits, **parts):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.fc, self.give = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, classes), give
        for name, part in parts.items():
            setattr(self, name, part)

    def logits(self, a):
        features = a.relu().mean((2, 3))
        return features, self.fc(features)

    def forward(self, x):
        return self.give(*self.logits(self.layer(x)))

    def with_bias(self, value):
        """The same with logits near ``value``."""
        with torch.no_grad():
            self.fc.bias += value - self.logits(self.layer(IMAGES))[1].mean(0)
        return self


def explain(module, *, subject=IMAGES, methods='gradcam', layers='layer', targets=(), score_sign='+', **load):
    model = module if isinstance(module, Model) else vt.load(module, **load)
    return vt.CAM(methods, targets=targets, layers=layers, score_sign=score_sign)(model, subject)


def evidence(net, sign=1, column=0):
    """The signed Grad-CAM maps ``(B, h, w)`` of a column of the logits, by the definition."""
    a = net.layer(IMAGES).detach().requires_grad_()
    gradient = torch.autograd.grad(sign * net.logits(a)[1][:, column].sum(), a)[0]
    return (gradient.mean((2, 3), keepdim=True) * a).sum(1).detach().numpy()


def told(result):
    return [(target.name, target.id, target.score) for target in result.targets]


# ---- one number for each image


@pytest.mark.parametrize('give', [lambda f, y: y, lambda f, y: y[:, 0], lambda f, y: y.squeeze(), lambda f, y: [y]])
def test_one_logit_and_two_class_names_are_two_classes(give, caplog):
    net = Net(give=give).with_bias(-0.63)
    results = explain(net, classes=['benign', 'malignant'])
    for result, y, expected in zip(results, net.logits(net.layer(IMAGES))[1], evidence(net, -1), strict=True):
        assert told(result) == [('benign', 0, pytest.approx(1 - y.sigmoid().item()))]
        assert result.prediction == result.targets[0]
        np.testing.assert_allclose(result.maps[0].signed, expected, atol=1e-6)
    assert facets(results[0]).rows[0].startswith('benign 0.6') and not caplog.text
    single = explain(net, subject=IMAGES[0], classes=['benign', 'malignant'])
    np.testing.assert_allclose(single.maps[0].values, results[0].maps[0].values, atol=1e-5)


def test_both_classes_of_one_logit_can_be_asked_for():
    net = Net().with_bias(-0.63)
    result = explain(net, targets=[0, 'malignant'], classes=['benign', 'malignant'])[0]
    assert [target.name for target in result.targets] == ['benign', 'malignant']
    assert sum(target.score for target in result.targets) == pytest.approx(1)
    np.testing.assert_allclose(result.maps[0].signed, -result.maps[1].signed, atol=1e-7)
    np.testing.assert_allclose(result.maps[1].signed, evidence(net)[0], atol=1e-6)
    with pytest.raises(InputError, match='no class 2; accepted: 0 to 1'):
        explain(net, targets=[2], classes=['benign', 'malignant'])


@pytest.mark.parametrize('method', ['finercam', 'ablationcam', 'scorecam', 'gradcam++', 'shapleycam'])
def test_every_method_explains_either_class_of_one_logit(method):
    """As a network with two logits −x and x is explained."""
    net = Net().with_bias(-0.2)
    pair = Net(give=lambda f, y: torch.cat([-y, y], 1)).with_bias(-0.2)
    for one, two in zip(
        explain(net, methods=method, targets=[0, 1], classes=['a', 'b']),
        explain(pair, methods=method, targets=[0, 1], classes=['a', 'b']),
        strict=True,
    ):
        for mine, theirs in zip(one.maps, two.maps, strict=True):
            np.testing.assert_allclose(mine.values, theirs.values, atol=1e-4)


def test_augmented_views_of_one_logit():
    net = Net(give=lambda f, y: y[:, 0]).with_bias(1)
    result = vt.CAM(aug_smooth=True, layers='layer')(vt.load(net, classes=['a', 'b']), IMAGES)[0]
    assert result.targets[0].name == 'b' and result.maps[0].values.max() > 0


def test_one_number_without_a_hint_is_two_classes_and_that_is_said_once(caplog):
    model = vt.load(Net().with_bias(-0.63))
    with caplog.at_level(logging.INFO, 'vistool'):
        results = [explain(model)[0] for _ in range(3)]
    assert told(results[0])[0][:2] == ('class 0', 0)
    assert caplog.text.count('two classes by sigmoid (assumed:') == 1 and 'activation' in caplog.text


def test_a_later_number_that_is_too_large_for_a_logit_is_reported(caplog):
    readout = find_readout(Net(), torch.zeros(2, 1), 2)
    readout.numbers(readout.scores(torch.tensor([[0.1], [-3.0]]), 2))
    assert 'too large' not in caplog.text
    readout.numbers(readout.scores(torch.tensor([[0.1], [40.0]]), 2))
    assert 'too large for a logit' in caplog.text and 'activation' in caplog.text


AGE = 57.2


@pytest.mark.parametrize(
    ('give', 'parts', 'load'),
    [
        (lambda f, y: y, {}, {}),
        (lambda f, y: y[:, 0], {}, {}),
        (lambda f, y: {'age': y}, {}, {}),
        (lambda f, y: SimpleNamespace(bone_age=y[:, 0]), {}, {}),
        (lambda f, y: {'embedding': f, 'age': y[:, 0]}, {}, {}),
        (lambda f, y: y, {'criterion': nn.SmoothL1Loss()}, {}),
        (lambda f, y: y, {}, {'activation': 'none'}),
        (lambda f, y: y, {}, {'classes': ['age']}),
    ],
)
def test_a_regression_shows_its_value_and_no_probability(give, parts, load):
    net = Net(give=give, **parts).with_bias(AGE)
    results = explain(net, **load)
    for result, y, expected in zip(results, net.logits(net.layer(IMAGES))[1], evidence(net), strict=True):
        ((name, index, score),) = told(result)
        assert index is None and score == pytest.approx(y.item()) and abs(score - AGE) < 2
        assert name in ('value', 'age', 'bone_age')
        np.testing.assert_allclose(result.maps[0].signed, expected, atol=1e-6)
        assert facets(result).rows[0] == f'{name} {score:.3g}'
        assert result.prediction == result.targets[0] and result.label is None


@pytest.mark.parametrize('value', [0.4, -3.0])
@pytest.mark.parametrize('reason', ['loss', 'head', 'problem_type', 'name'])
def test_small_values_of_a_known_regression_are_values_too(value, reason, caplog):
    parts = {
        'loss': {'loss_fn': nn.MSELoss()},
        'problem_type': {'config': SimpleNamespace(problem_type='regression')},
    }.get(reason, {})
    kind = type('AgeRegressor', (Net,), {}) if reason == 'head' else Net
    net = kind(give=(lambda f, y: {'pred_age': y}) if reason == 'name' else (lambda f, y: y), **parts).with_bias(value)
    assert told(explain(net)[0])[0][1:] == (None, pytest.approx(value, abs=0.5)) and not caplog.text


@pytest.mark.parametrize('ask', [{'targets': '-value'}, {'score_sign': '-'}, {'targets': 'value', 'score_sign': -1}])
def test_evidence_against_a_value(ask):
    net = Net().with_bias(3)
    results = explain(net, activation='none', **ask)
    np.testing.assert_allclose(results[1].maps[0].signed, evidence(net, -1)[1], atol=1e-6)
    assert told(results[1])[0][:2] == ('against value', None) and results[1].targets[0].score > 0


def test_asking_for_the_value_says_that_it_is_one():
    assert told(explain(Net().with_bias(0.5), targets='-value')[0])[0][0] == 'against value'


def test_several_values_are_all_shown_or_named():
    net = Net(3, criterion=nn.MSELoss())
    result = explain(net)[0]
    values = net(IMAGES)[0].tolist()
    assert told(result) == [(f'value {number}', None, pytest.approx(values[number])) for number in range(3)]
    assert result.prediction is None
    named = explain(net, targets=['z', '-x'], classes=['x', 'y', 'z'])[0]
    assert [name for name, *_ in told(named)] == ['z', 'against x']
    with pytest.raises(InputError, match='gives 9 values, and none is named'):
        explain(Net(9, criterion=nn.MSELoss()))


def test_finercam_does_not_compare_a_value():
    with pytest.raises(InputError, match='FinerCAM compares classes, and age is not a class'):
        explain(Net(give=lambda f, y: {'age': y}), methods='finercam')


# ---- several numbers: classes or independent labels


def logits(value):
    """A network whose logits are ``value`` for every image."""
    net = Net(len(value))
    nn.init.zeros_(net.fc.weight)
    net.fc.bias.data = torch.tensor(value)
    return net


def numbers(module, output, **hints):
    readout = find_readout(module, output, len(output), Hints(**hints))
    return readout.numbers(readout.scores(output, len(output)))[0].tolist()


@pytest.mark.parametrize(
    'said',
    [
        {'activation': 'sigmoid'},
        {'config': {'model': {'type': 'Net', 'head': {'type': 'MultiLabelLinearClsHead'}}}},
        {'config': {'model': {'type': 'Net', 'loss': {'type': 'BCEWithLogitsLoss'}}}},
        {'config': {'model': {'head': {'type': 'Mine', 'loss': {'type': 'CrossEntropyLoss', 'use_sigmoid': True}}}}},
        {'config': {'model': {'head': {'loss': {'type': 'AsymmetricLoss'}}}}},
        {'config': {'val_evaluator': [{'type': 'MultiLabelMetric'}, {'type': 'AveragePrecision'}]}},
        {'criterion': nn.BCEWithLogitsLoss()},
        {'config_of_hugging_face': SimpleNamespace(problem_type='multi_label_classification')},
    ],
    ids=lambda said: next(iter(said)),
)
def test_labels_that_do_not_exclude_each_other_get_a_sigmoid_each(said):
    parts = {key: said.pop(key) for key in ('criterion',) if key in said}
    if 'config_of_hugging_face' in said:
        parts['config'] = said.pop('config_of_hugging_face')
    output = torch.tensor([[5.5, 5.5, -1.0]])
    assert numbers(Net(3, **parts), output, **said) == pytest.approx([0.9959, 0.9959, 0.2689], abs=1e-4)


@pytest.mark.parametrize(
    'config',
    [
        {},
        {'model': {'head': {'type': 'LinearClsHead', 'loss': {'type': 'CrossEntropyLoss'}}}},
        {'model': {'head': {'loss': {'type': 'LabelSmoothLoss', 'use_sigmoid': True}}}},
        {
            'model': {'head': {'loss': {'type': 'CrossEntropyLoss', 'use_sigmoid': True}}},
            'val_evaluator': {'type': 'Accuracy', 'topk': (1, 5)},
        },
    ],
)
def test_classes_that_exclude_each_other_get_a_softmax(config):
    assert numbers(Net(2), torch.tensor([[5.5, 5.5]]), config=config) == [0.5, 0.5]


def test_a_multi_label_config_is_known_by_its_keys():
    for key, value in (('activation', 'sigmoid'), ('output', 'b')):
        config = Config({'activation': 'sigmoid', key: value, 'output': 'b'})
        model = Model(Net(2, give=lambda f, y: {'a': -y, 'b': y}), config=config)
        result = explain(model, targets=[0, 1])[0]
        expected = model.module(IMAGES)['b'][0].sigmoid().tolist()
        assert [target.score for target in result.targets] == pytest.approx(expected)


def test_an_assumed_softmax_is_said_in_one_line(caplog):
    with caplog.at_level(logging.INFO, 'vistool'):
        explain(Net(5))
    assert caplog.text.count('5 classes by softmax (assumed') == 1


@pytest.mark.parametrize('activation', ['softmaxx', 'relu'])
def test_unknown_activations_are_errors_at_once(activation):
    with pytest.raises(InputError, match=f'activation: unknown activation {activation!r}; accepted: auto, softmax'):
        vt.load(Net(2), activation=activation)


def test_the_softmax_of_one_number_is_refused():
    with pytest.raises(
        InputError, match='activation: the softmax of a single number is always 1; accepted: activation'
    ):
        explain(Net(), activation='softmax')


# ---- probabilities are not squashed again


@pytest.mark.parametrize('methods', ['gradcam', 'eigencam', 'ablationcam'])
@pytest.mark.parametrize(
    ('squash', 'classes'),
    [
        (lambda y: y.sigmoid(), 3),
        (lambda y: y.softmax(1), 3),
        (lambda y: nn.Sigmoid()(y), 1),
        (lambda y: y.sigmoid()[:, 0], 1),
        (lambda y: (y.sigmoid() + (y / 2).sigmoid()) / 2, 3),
        (lambda y: nn.functional.hardsigmoid(y), 3),
    ],
)
def test_an_output_that_ends_in_a_sigmoid_or_softmax_is_the_probability(squash, classes, methods, caplog):
    net = Net(classes, give=lambda f, y: squash(y))
    names = ['no', 'yes'] if classes == 1 else None
    results = explain(net, methods=methods, classes=names, targets=[1])
    for result, own in zip(results, net(IMAGES).reshape(2, -1), strict=True):
        assert result.prediction.score == pytest.approx(max(own.max().item(), 1 - own.item() if classes == 1 else 0))
        assert result.targets[0].score == pytest.approx(own[-1 if classes == 1 else 1].item())
    assert not caplog.text


def test_probabilities_that_only_their_values_tell_are_said_to_be_assumed(caplog):
    def shares(features, y):
        weights = y.square() + 0.1
        return weights / weights.sum(1, keepdim=True)

    net = Net(3, give=shares)
    with caplog.at_level(logging.INFO, 'vistool'):
        result = explain(net, targets=[0, 1, 2])[0]
    assert [target.score for target in result.targets] == pytest.approx(net(IMAGES)[0].tolist())
    assert 'assumed: all values lie in [0, 1] and sum to 1' in caplog.text


def test_logits_that_happen_to_lie_in_the_unit_interval_are_logits():
    net = logits([0.2, 0.7, 0.4])
    assert explain(net)[0].prediction.score == pytest.approx(torch.tensor([0.2, 0.7, 0.4]).softmax(0)[1].item())
    one = explain(logits([0.4]), classes=['no', 'yes'])[0].prediction
    assert one.score == pytest.approx(torch.tensor(0.4).sigmoid().item())


def test_probabilities_as_requested():
    net = Net(2, give=lambda f, y: (y.tanh() + 1) / 2)
    scores = [target.score for target in explain(net, targets=[0, 1], activation='none')[0].targets]
    assert scores == pytest.approx(net(IMAGES)[0].tolist())
    raw = explain(Net(2), targets=[0, 1], activation='none')[0]
    assert [target.score for target in raw.targets] == pytest.approx(Net(2)(IMAGES)[0].tolist())


# ---- which tensor


@pytest.mark.parametrize(
    'give',
    [
        lambda f, y: (f, y),
        lambda f, y: [y, f],
        lambda f, y: {'x': f, 'y': [y]},
        lambda f, y: SimpleNamespace(first=f, second=y),
    ],
)
def test_the_number_of_class_names_decides(give, caplog):
    net = Net(2, give=give)
    result = explain(net, classes=['cat', 'dog'], targets=['dog'])[0]
    np.testing.assert_allclose(result.maps[0].signed, evidence(net, column=1)[0], atol=1e-6)
    assert 'scores are taken from' not in caplog.text


def test_the_number_of_outputs_of_the_head_decides():
    net = Net(4, give=lambda f, y: (f, y), num_classes=4)
    assert len(explain(net, targets='top4')[0].targets) == 4


@pytest.mark.parametrize(
    'give',
    [
        lambda f, y: {'embedding': f, 'logit': y},
        lambda f, y: {'feat': f, 'cls': y},
        lambda f, y: {'image_features': f, 'pred': y, 'loss': y.sum()},
        lambda f, y: {'aux': f[:, :5], 'main': y},
        lambda f, y: {'out': y, 'aux': [f, f[:, :5]]},
        lambda f, y: {'logits': y, 'probs': y.softmax(1)},
        lambda f, y: {'logits_per_image': y, 'logits_per_text': y[:, :2], 'image_embeds': f},
        lambda f, y: {'domain_pred': f, 'cls_score': y},
    ],
)
def test_names_of_the_field_decide_and_that_is_said(give, caplog):
    net = Net(5, give=give)
    with caplog.at_level(logging.INFO, 'vistool'):
        result = explain(net, targets=[3])[0]
    np.testing.assert_allclose(result.maps[0].signed, evidence(net, column=3)[0], atol=1e-6)
    assert 'by its name' in caplog.text or 'logit' in str(net(IMAGES).keys())


@pytest.mark.parametrize(
    ('give', 'listed'),
    [
        (lambda f, y: (f, y), r'\[0\] \(2, 16\), \[1\] \(2, 5\); accepted: output=0, output=1'),
        (lambda f, y: [y * 0.5, y], r'\[0\] \(2, 5\), \[1\] \(2, 5\); accepted: output=0, output=1'),
        (lambda f, y: {'color': y, 'shape': y}, r"color \(2, 5\), shape \(2, 5\); accepted: output='color'"),
        (lambda f, y: {'heads': {'a': y, 'b': y}}, r'heads.a \(2, 5\), heads.b \(2, 5\)'),
    ],
)
def test_two_tensors_that_remain_are_an_error_that_lists_them(give, listed):
    with pytest.raises(InputError, match=f'output: 2 tensors of the output may hold the scores: {listed}') as error:
        explain(Net(5, give=give))
    assert all(word in str(error.value) for word in ('output', 'activation', 'score=', 'cam_target'))


def test_what_does_not_need_the_score_does_not_ask_for_it():
    net = Net(5, give=lambda f, y: [y * 0.5, y])
    assert explain(net, methods='eigencam')[0].targets == ()
    own = vt.CAM(layers='layer', score=lambda output, samples: output[1][:, 2])(net, IMAGES)[0]
    np.testing.assert_allclose(own.maps[0].signed, evidence(net, column=2)[0], atol=1e-6)


@pytest.mark.parametrize(
    ('give', 'path'),
    [
        (lambda f, y: (f, y), 1),
        (lambda f, y: (f, y), '[1]'),
        (lambda f, y: (f, y), '-1'),
        (lambda f, y: {'heads': {'main': y, 'aux': f}}, 'heads.main'),
        (lambda f, y: {'heads': {'main': y, 'aux': f}}, 'main'),
        (lambda f, y: {'heads': [f, y]}, 'heads[1]'),
        (lambda f, y: {'heads': [f, y]}, 'heads.-1'),
        (lambda f, y: [f, {'y': y}], '1.y'),
        (lambda f, y: y, 0),
    ],
)
def test_the_user_says_which(give, path):
    net = Net(5, give=give)
    result = explain(net, targets=[4], output=path)[0]
    np.testing.assert_allclose(result.maps[0].signed, evidence(net, column=4)[0], atol=1e-6)
    assert (
        result.provenance['scores']['reason'] == 'as requested' or result.provenance['scores']['meaning'] == 'softmax'
    )


def test_a_head_that_attributes_deny_can_be_named():
    net = Net(5, give=lambda f, y: {'x': y, 'f': f}, num_classes=0)
    assert explain(net, output='x', targets=[1])[0].targets[0].id == 1


@pytest.mark.parametrize(
    ('path', 'message'),
    [
        (
            'logit',
            r"no tensor 'logit' in the output, which holds logits \(2, 5\), map \(2, 16, 8, 8\).*mean logits",
        ),
        ('map', r"'map' is not a row of numbers for each image; the output holds"),
        (7, r"no tensor '7'"),
    ],
)
def test_what_the_user_names_has_to_be_there(path, message):
    net = Net(5)
    net.forward = lambda x: {'logits': net.logits(net.layer(x))[1], 'map': net.layer(x)}
    with pytest.raises(InputError, match=f'output: {message}'):
        explain(net, output=path)


def test_maps_and_features_alone_are_not_scores():
    net = Net(5, give=lambda f, y: {'embedding': f, 'hidden_state': f[:, :, None]})
    with pytest.raises(InputError, match=r'gives none \(its output is embedding \(2, 16\), hidden_state') as error:
        explain(net)
    assert 'cam_target' in str(error.value)


def test_the_layer_is_searched_for_with_the_scores_that_are_explained():
    class TwoTowers(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.main, self.other = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 3, padding=1)

        def forward(self, x):
            first, last = self.main(x), self.other(x)
            return {'features': last.mean((2, 3)), 'logits': first.mean((2, 3))}

    assert vt.CAM()(TwoTowers(), IMAGES)[0].layers == ('main',)


# ---- attention


@pytest.mark.parametrize('method', ['legrad', 'grad-rollout'])
def test_attention_explains_one_logit_as_it_does_two(method):
    timm = pytest.importorskip('timm')
    torch.manual_seed(0)
    one = timm.create_model('test_vit', img_size=32, num_classes=1).eval()
    two = timm.create_model('test_vit', img_size=32, num_classes=2).eval()
    two.load_state_dict(
        one.state_dict() | {name: torch.cat([-w, w]) for name, w in one.head.state_dict(prefix='head.').items()}
    )
    images = torch.randn(2, 3, 32, 32)
    for model in (vt.load(one, classes=['no', 'yes']), vt.load(two, classes=['no', 'yes'])):
        both = vt.Attention(method, targets=['no', 'yes'])(model, images)[1]
        against = vt.Attention(method, targets=['-no'])(model, images)[1]
        np.testing.assert_allclose(against.maps[0].values, both.maps[1].values, atol=1e-5)
        assert [target.name for target in both.targets] == ['no', 'yes'] and against.targets[0].name == 'against no'
    assert sum(
        target.score for target in vt.Attention(method, targets=[0, 1])(vt.load(one), images)[0].targets
    ) == pytest.approx(1)


# ---- listings


def test_the_preview_says_what_the_outputs_are_taken_for():
    net = Net(2, give=lambda f, y: {'embedding': f, 'logits': y})
    lines = vt.preview_model(vt.load(net, classes=['a', 'b']), IMAGES[0]).splitlines()
    assert lines[-2].startswith('output embedding: 16') and '←' not in lines[-2]
    assert lines[-1].startswith('output logits: 2  ← 2 classes by softmax')
    unclear = vt.preview_model(Net(5, give=lambda f, y: (y, y)), IMAGES[0]).splitlines()
    assert 'output [1]: 5' in unclear
    assert unclear[-1].startswith(
        'output: 2 tensors of the output may hold the scores: [0] (1, 5), [1] (1, 5); accepted'
    )
