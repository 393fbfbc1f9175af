import pytest
import torch

from vistool.errors import InputError
from vistool.models.classes import class_id, resolve_classes

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
