"""Which images a run takes: by position, class and number, and by what the model predicts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vistool as vt
from vistool.data.datasets import dataset_items
from vistool.data.samples import Item
from vistool.errors import InputError
from vistool.models.configs import resolve
from vistool.models.model import as_samples
from vistool.runs.spec import MARGIN, Prediction, Selection, predict, select

LABELLED = 'configs/efficientnet_lite/efficientnet-lite0_demo.py'
FILES = [Item(Path(f'{number}.png'), str(number)) for number in range(11)]


@pytest.fixture(scope='module')
def train():
    """Nine images: three tabbies (281), three missiles (657), three espressos (967)."""
    return dataset_items(resolve(LABELLED).config, 'train')


def unasked(pool):
    raise AssertionError('predictions are not needed')


def chosen(items, seed=0, predictions=unasked, **selection):
    return select(Selection(**selection), items, predictions, seed)


def test_everything_by_default(train):
    assert chosen(train) == list(range(9)) and chosen(FILES) == list(range(11))


def test_by_position(train):
    assert chosen(train, indices=['8', '0-2', '-8']) == [0, 1, 2, 8]
    assert chosen(FILES, indices=[3, 3, -1]) == [3, 10]


def test_by_class_and_number(train):
    assert chosen(train, classes=['tabby']) == [0, 1, 2]
    assert chosen(train, classes=[967, 'tabby']) == [0, 1, 2, 6, 7, 8]
    each = chosen(train, per_class=1)
    assert [index // 3 for index in each] == [0, 1, 2]
    drawn = chosen(train, seed=5, max_samples=4)
    assert len(drawn) == 4 and drawn == chosen(train, seed=5, max_samples=4)
    assert len({tuple(chosen(train, seed=seed, max_samples=4)) for seed in range(5)}) > 1


def test_by_what_the_model_predicts(train):
    # class by class: right at 0.9, 0.5, 0.7; wrong at 0.6, 0.8; the last image cannot be read
    scores = [(281, 0.9), (281, 0.5), (657, 0.6), (657, 0.7), (281, 0.8), (657, 0.3), (967, 0.4), (967, 0.2)]
    found = [Prediction(index, class_id, score, score / 4) for index, (class_id, score) in enumerate(scores)]
    asked = []

    def predictions(pool):
        asked.append(list(pool))
        return [each for each in found if each.index in pool]

    def ask(**selection):
        return chosen(train, predictions=predictions, **selection)

    assert ask(only='wrong') == [2, 4, 8] and ask(only='right') == [0, 1, 3, 5, 6, 7, 8]
    assert ask(only='wrong', max_samples=1) == [4, 8]  # the most confident of them, and the run reports the unread one
    assert ask(only='uncertain', max_samples=2) == [5, 7, 8]  # the smallest margins
    assert ask(only='uncertain') == [1, 2, 3, 5, 6, 7, 8]
    assert ask(only='wrong', indices=['0-2']) == [2] and asked[-1] == [0, 1, 2]
    assert ask(only='right', per_class=1, indices=['0-6']) in ([0, 3, 6], [0, 5, 6], [1, 3, 6], [1, 5, 6])


@pytest.mark.parametrize(
    ('selection', 'problem'),
    [
        ({'max_samples': 0}, 'max_samples: 0 is not a number'),
        ({'per_class': 2}, 'per_class: files have no labels'),
        ({'classes': ['cat']}, 'classes: files have no labels'),
        ({'only': 'wrong'}, "only: files have no labels.*only='uncertain' needs no labels"),
        ({'only': 'bad'}, 'only: unknown outcome.*wrong, right, uncertain'),
        ({'indices': ['11']}, 'indices: no sample 11'),
    ],
)
def test_what_does_not_fit_the_images_is_an_error(selection, problem):
    with pytest.raises(InputError, match=problem):
        chosen(FILES, **selection)


def test_nothing_left_is_an_error(train):
    with pytest.raises(InputError, match='no right image of tabby among those chosen'):
        chosen(
            train, predictions=lambda pool: [Prediction(0, 7, 0.9, 0.8)], only='right', classes=['tabby'], indices=[0]
        )


# ---- by what networks with other outputs predict


class Bias(nn.Module):
    """A network whose logits are rows of a table, whatever it sees: image i gets row i."""

    def __init__(self, *rows, squash=None):
        super().__init__()
        self.rows, self.squash = torch.tensor(rows), squash or nn.Identity()

    def forward(self, x):
        return self.squash(self.rows[x[:, 0, 0, 0].long()])


def predicted(module, **load):
    count = len(module.rows)
    samples, _ = as_samples(torch.arange(count).float()[:, None, None, None].expand(count, 3, 4, 4))
    return predict(vt.load(module, **load), samples)


@pytest.mark.parametrize('squash', [None, nn.Sigmoid()])
def test_one_logit_is_right_where_sign_and_label_agree(squash):
    found = predicted(Bias([-3.0], [0.1], [2.0], [-0.2], squash=squash), classes=['benign', 'malignant'])
    assert [each.class_id for each in found] == [0, 1, 1, 0]
    assert [each.is_right(label) for each, label in zip(found, (0, 0, 1, 1), strict=True)] == [True, False, True, False]
    assert [each.is_right(np.array([float(label)])) for each, label in zip(found, (0, 0, 1, 1), strict=True)] == [
        True,
        False,
        True,
        False,
    ]
    assert [each.margin < MARGIN for each in found] == [False, True, False, True]
    assert found[0].score == pytest.approx(torch.tensor(3.0).sigmoid().item())


def test_one_logit_without_class_names_is_judged_as_two_classes():
    assert [each.is_right(1) for each in predicted(Bias([-0.6], [0.6]))] == [False, True]


@pytest.mark.parametrize('squash', [None, nn.Sigmoid()])
def test_independent_labels_are_right_where_all_of_them_are(squash):
    rows = [5.0, 5.0, -5.0], [5.0, -5.0, -5.0], [-5.0, -5.0, 0.1]
    found = predicted(Bias(*rows, squash=squash), activation='sigmoid')
    assert [each.labels for each in found] == [(0, 1), (0,), (2,)]
    assert [each.is_right((0, 1)) for each in found] == [True, False, False]
    assert [each.is_right(np.array([1.0, 0, 0])) for each in found] == [False, True, False]
    assert [each.is_right(0) for each in found] == [found[0].class_id == 0, True, False]  # one class of several
    assert [each.is_right(None) for each in found] == [None] * 3
    assert [each.margin < MARGIN for each in found] == [False, False, True]


def test_an_image_without_any_label_is_right_where_none_is_predicted():
    found = predicted(Bias([-5.0, -5.0], [5.0, -5.0]), activation='sigmoid')
    assert [each.is_right(np.zeros(2)) for each in found] == [True, False]


def test_values_are_neither_right_nor_wrong():
    with pytest.raises(InputError, match=r'only: Bias gives 1 value, not classes .*leave it out'):
        predicted(Bias([57.2], [30.0]))
