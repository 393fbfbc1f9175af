"""tools/checks/architectures.py: vistool beside independent computations on networks drawn at random."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tools' / 'checks'))

import architectures
import comparisons
import oracles
import zoo


@pytest.mark.parametrize(
    ('library', 'family', 'name', 'tasks'),
    [
        ('transformers', 'ViT', 'ViTForImageClassification', 'cam featmap attention patches'),
        ('transformers', 'ConvNext', 'ConvNextForImageClassification', 'cam featmap patches'),
        ('timm', 'vision_transformer', 'test_vit', 'cam featmap attention patches'),
        ('timm', 'resnet', 'test_resnet', 'cam featmap'),
    ],
)
def test_results_on_small_networks_equal_independent_computations(library, family, name, tasks):
    outcomes = architectures.check(zoo.MAKERS[library](family, name, 3), 3, inner=0)
    assert [each for each in outcomes if each.bad] == []
    assert {each.task for each in outcomes if each.verdict == 'equal'} == set(tasks.split())


def test_a_scrambled_order_of_tokens_is_noticed():
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    patches = torch.nn.Conv2d(3, 8, 8, 8)
    grid = 8, 12
    changed = torch.cat([images, oracles.image_parts(images, (3, 4), 0)])
    with torch.no_grad():
        tokens = patches(changed).flatten(2)
    answers = oracles.Answers((3, 4), (tokens[1:] - tokens[:1]).norm(dim=1))
    rows = torch.arange(96)
    assert comparisons.misplaced(answers, rows, grid) == ('', '')
    in_blocks = rows.view(4, 2, 6, 2).permute(0, 2, 1, 3).flatten()
    unrolled = rows.view(4, 2, 6, 2).permute(1, 3, 0, 2).flatten()
    for wrong in (in_blocks, unrolled, rows.flip(0), rows.view(8, 12).T.flatten()):
        assert 'scrambled' in comparisons.misplaced(answers, wrong, grid)[1]


def test_the_same_seed_draws_the_same_architectures_of_every_library():
    draws = [[str(each) for each, _ in zip(zoo.draw(7), range(40), strict=False)] for _ in range(2)]
    assert draws[0] == draws[1]
    assert {name.partition('/')[0] for name in draws[0]} == set(zoo.LIBRARIES)


@pytest.mark.slow
def test_architectures_drawn_at_random_show_nothing_wrong():
    assert architectures.main(['--seed', '1', '--count', '2']) == 0
