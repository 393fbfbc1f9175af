from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from torch import nn

import vistool as vt
from vistool.data.datasets import of_classes, read_class
from vistool.errors import InputError
from vistool.models.classes import Chosen, class_id, dataset_classes, resolve_classes
from vistool.models.model import words_of
from vistool.visualization.kinds import to_panels
from vistool.visualization.style import Style

NAMES = ['tench, Tinca tinca', 'crane', 'tabby, tabby cat', 'measuring cup', 'cup', 'crane', 'label']
SCORES = torch.tensor([[0.1, 0.9, 0.3, 0.2, 0.0, 0.4, 0.5], [0.7, 0.1, 0.3, 0.2, 0.0, 0.9, 0.5]])


def classes(*wanted, labels=(None, None), names=NAMES):
    return resolve_classes(wanted, SCORES, names, labels).tolist()


def test_by_default_the_predicted_class_of_each_image():
    assert classes() == [[1], [5]]


def test_ids_names_and_rankings():
    assert classes(2, '0', 'Tabby Cat', 'tabby_cat') == [[2, 0], [2, 0]]
    assert classes('top2') == [[1, 6], [5, 0]]
    assert classes('cup') == [[4], [4]]  # not the measuring cup


def test_the_label_is_the_ground_truth_unless_a_class_is_called_so():
    assert classes('label', labels=(3, 4), names=NAMES[:-1]) == [[3], [4]]
    assert classes('label') == [[6], [6]]


@pytest.mark.parametrize(
    ('target', 'message'),
    [
        (7, 'no class 7; accepted: 0 to 6'),
        ('-1', 'no class -1'),
        ('crane', r'ambiguous: 1 \(crane\), 5 \(crane\)'),
        ('taby', 'did you mean tabby'),
        ('top9', 'top1 to top7'),
    ],
)
def test_errors(target, message):
    with pytest.raises(InputError, match=message):
        classes(target)


def test_without_names_only_ids():
    assert classes(3, names=None) == [[3], [3]]
    with pytest.raises(InputError, match='not known here'):
        classes('cup', names=None)
    with pytest.raises(InputError, match='no known label'):
        classes('label', names=None)


def test_class_id_may_be_missing():
    assert class_id('unicorn', NAMES, missing_ok=True) is None


NUMBERS = ['0', '1', '10', '11', '2']
"""Folders named by numbers, sorted as text."""


@pytest.mark.parametrize('word', ['10', '2', '11'])
@pytest.mark.parametrize('parameter', ['targets', 'classes'])
def test_a_number_that_is_the_name_of_another_class_is_ambiguous(word, parameter):
    place = NUMBERS.index(word)
    with pytest.raises(
        InputError, match=f'{parameter}: {word!r} is ambiguous.*id:{place} or name:{word}.*; id:{word} '
    ):
        read_class(word, NUMBERS, parameter)


def test_id_and_name_choose():
    assert classes('id:2', 'name:2', 1, names=NUMBERS) == [[2, 4, 1]] * 2
    assert classes('0', names=NUMBERS) == [[0], [0]]  # id and name agree
    assert classes(2, names=NUMBERS) == [[2], [2]]  # a number from Python is an id
    assert read_class('id:7', None, 'classes') == 7 and read_class('name:tabby', NAMES, 'classes') == 'tabby'
    assert read_class('id:7', ['id:7'], 'classes') == 'id:7'
    with pytest.raises(InputError, match=r"'id:x' is not an id; accepted: id:NUMBER, name:NAME"):
        read_class('id:x', NUMBERS, 'targets')


def test_dataset_classes_named_by_numbers_are_chosen_by_id_or_name():
    samples = SimpleNamespace(classes=tuple(NUMBERS), label=lambda index: index)
    assert of_classes(samples, range(5), ['name:10'], None, None) == [2]
    assert of_classes(samples, range(5), ['id:2'], None, None) == [2]
    with pytest.raises(InputError, match="classes: '10' is ambiguous"):
        of_classes(samples, range(5), ['10'], None, None)


def test_a_minus_before_a_name_asks_for_the_evidence_against_it():
    chosen = Chosen.decoded(resolve_classes(['tabby', '-tabby', '-id:4', '-top1'], SCORES, NAMES, (None, None)))
    assert chosen.ids.tolist() == [[2, 2, 4, 1], [2, 2, 4, 5]]
    assert chosen.signs.tolist() == [[1, -1, -1, -1]] * 2


def test_labels_outside_the_classes_are_named():
    with pytest.raises(InputError, match='targets: the label 9 of the image is not one of the 7 classes'):
        classes('label', labels=(9, 1), names=NAMES[:-1])


@pytest.mark.parametrize(
    ('dataset', 'expected'),
    [
        ({'classes': ['a', 'b']}, ('a', 'b')),
        ({'classes': ['a', 'b'], 'metainfo': {'classes': ['c', 'd']}}, ('c', 'd')),  # as mmpretrain has it
        ({'type': 'RepeatDataset', 'dataset': {'classes': ('a', 'b')}}, ('a', 'b')),
        ({'type': 'ConcatDataset', 'datasets': [{'classes': ('a', 'b')}, {}]}, ('a', 'b')),
        ({'type': 'mmpretrain.CIFAR10', 'classes': None}, 'airplane'),
        ({'type': 'mmpretrain.CustomDataset'}, None),
    ],
)
def test_class_names_of_a_configs_dataset(dataset, expected):
    found = dataset_classes(Config({'val_dataloader': {'dataset': dataset}}))
    assert found == expected or found[0] == expected


def test_class_names_in_a_file(tmp_path):
    (tmp_path / 'names.txt').write_text('cat\ndog\n', encoding='utf-8')
    config = Config({'test_dataloader': {'dataset': {'classes': str(tmp_path / 'names.txt')}}})
    assert dataset_classes(config) == ('cat', 'dog')


@pytest.mark.parametrize(
    ('targets', 'words'),
    [
        ([], ['top1']), ('top2', ['top1', 'top2']), (['label', 'cat'], ['label', '']), ([3], ['']), ('own', ['own']),
        ([[1], [2]], ['']), (['top2', 7], ['top1', 'top2', '']),
    ],
)  # fmt: skip
def test_words_say_how_a_class_was_asked_for(targets, words):
    assert words_of(targets, len(words)) == words


def test_classes_that_are_asked_for_twice_go_by_their_names():
    assert words_of(['top1', 5], 1) == ['']


def test_panels_of_predictions_are_not_named_by_the_class():
    def panels(seed, **options):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 9))
        result = vt.CAM(layers='1', **options)(net, torch.rand(3, 16, 16))
        return result.targets[0].id, [name for name, _ in to_panels(result, Style())]

    (first, names), (second, others) = panels(0), panels(1)
    assert first != second and names == others and any('top1' in name for name in names)
    assert any('class 4' in name for name in panels(0, targets=[4])[1])
