"""Which images a run takes: by position, class and number, and by what the model predicts."""

from pathlib import Path

import pytest

from vistool.data.datasets import dataset_items
from vistool.data.samples import Item
from vistool.errors import InputError
from vistool.models.configs import resolve
from vistool.runs.spec import Prediction, Selection, select

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
