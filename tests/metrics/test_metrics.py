"""Each metric against a closed form, a case done by hand, or a naive version."""

import math
from dataclasses import replace

import naive_metrics
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import trapezoid
from torch import nn

from vistool.errors import InputError
from vistool.metrics import (
    METRICS,
    Case,
    Copy,
    Measured,
    Needs,
    Network,
    Protocol,
    evaluate,
    find_metrics,
    imputation,
    register_metric,
)
from vistool.metrics.faithfulness import plain_copy, removed_copy
from vistool.metrics.perturbation import Removal, impute, removal_order

PLAIN = Protocol(block=1, steps=6, baseline='black', space='network', score='logit')


class Linear(nn.Module):
    """A score for each image: the sum of weights times pixels, and one of its negative."""

    def __init__(self, size, channels=2):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, *size, dtype=torch.float64))
        self.seen = []

    def forward(self, x):
        self.seen.append(len(x))
        score = (x * self.weight).sum((1, 2, 3))
        return torch.stack([score, -score], 1)


def measured(network, image, values, names, protocol=PLAIN, at_once=5, **more):
    case = Case(values, image, protocol, **more)
    scorers = [lambda output, count: output[:, 0]]
    return evaluate([(case, 0)], find_metrics(names), Network(network, image[None], scorers, at_once))[0]


@pytest.fixture
def linear():
    torch.manual_seed(0)
    network = Linear((6, 7))
    return network.eval(), torch.randn(2, 6, 7, dtype=torch.float64)


@pytest.mark.parametrize('order', ['most', 'least'])
@pytest.mark.parametrize('block', [1, 2, 3])
def test_the_curves_of_a_linear_model_are_the_sums_of_what_is_left(linear, block, order):
    network, image = linear
    values = torch.rand(6, 7, dtype=torch.float64)
    protocol = replace(PLAIN, block=block, order=order)
    found = measured(network, image, values, ['insertion', 'deletion'], protocol)
    shares = (image * network.weight).sum(0).detach().numpy()
    units = {}
    for y in range(6):
        for x in range(7):
            units.setdefault((y // block, x // block), []).append((y, x))
    means = {unit: np.mean([float(values[place]) for place in pixels]) for unit, pixels in units.items()}
    ordered = sorted(units, key=lambda unit: -means[unit] if order == 'most' else means[unit])
    step = math.ceil(len(ordered) / 6)
    counts = [*range(0, len(ordered), step), len(ordered)]
    gone = [sum(shares[place] for unit in ordered[:count] for place in units[unit]) for count in counts]
    fractions = [sum(len(units[unit]) for unit in ordered[:count]) / 42 for count in counts]
    np.testing.assert_allclose(found['deletion'].curves['deletion'].fractions, fractions, atol=1e-12)
    np.testing.assert_allclose(found['deletion'].curves['deletion'].scores, shares.sum() - gone, atol=1e-9)
    np.testing.assert_allclose(found['insertion'].curves['insertion'].scores, gone, atol=1e-9)
    assert found['deletion'].value == pytest.approx(trapezoid(shares.sum() - np.array(gone), fractions), abs=1e-9)


def test_equal_copies_run_once_and_no_batch_is_larger_than_asked(linear):
    network, image = linear
    maps = [torch.rand(6, 7, dtype=torch.float64) for _ in range(3)]
    maps.append(maps[0])  # the same map for a second target
    cases = [(Case(values, image, PLAIN), number // 3) for number, values in enumerate(maps)]
    scorers = [lambda output, count: output[:, 0], lambda output, count: output[:, 1]]
    metrics = find_metrics(['insertion', 'deletion', 'drop', 'increase'])
    found = evaluate(cases, metrics, Network(network, image[None], scorers, 4))
    assert max(network.seen) == 4
    # a map has 5 inner points on each curve and one masked image; the untouched and the empty image are shared
    assert sum(network.seen) == 3 * (5 + 5 + 1) + 2
    assert found[3]['deletion'].value == pytest.approx(-found[0]['deletion'].value)
    one_by_one = evaluate(cases, metrics, Network(network, image[None], scorers, 1))
    for a, b in zip(found, one_by_one, strict=True):
        assert [each.value for each in a.values()] == pytest.approx(
            [each.value for each in b.values()], abs=1e-9, nan_ok=True
        )


def test_where_memory_does_not_suffice_fewer_copies_run_at_once(linear, monkeypatch, caplog):
    network, image = linear
    plain = network.forward

    def small(x):
        if len(x) > 2:
            raise torch.OutOfMemoryError('CUDA out of memory')
        return plain(x)

    monkeypatch.setattr(network, 'forward', small)
    values = torch.rand(6, 7, dtype=torch.float64)
    found = measured(network, image, values, ['deletion'], at_once=8)
    monkeypatch.undo()
    assert found['deletion'].value == pytest.approx(measured(network, image, values, ['deletion'])['deletion'].value)
    assert '2 copies of the image at once' in caplog.text


def one_imputed(image, removed, protocol):
    return impute(image, removed[None], protocol)[0]


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('share', [0.2, 0.6, 0.97])
def test_imputed_pixels_solve_the_linear_system(seed, share):
    generator = np.random.default_rng(seed)
    image, removed = generator.normal(size=(2, 6, 5)), generator.random((6, 5)) < share
    removed[3, 2] = False  # something is left
    found = one_imputed(torch.from_numpy(image), torch.from_numpy(removed), replace(PLAIN, noise=0.0)).numpy()
    np.testing.assert_allclose(found, naive_metrics.imputed(image, removed), atol=1e-10)


HOLES = {
    'blocks': lambda y, x, g: F.interpolate(torch.rand(1, 1, 6, 7, generator=g), (43, 50))[0, 0] < 0.5,
    'pixels': lambda y, x, g: torch.rand(43, 50, generator=g) < 0.9,
    'one large hole': lambda y, x, g: (y > 2) & (x < 47),
    'all but two pixels': lambda y, x, g: ~(((y == 5) & (x == 7)) | ((y == 40) & (x == 45))),
    'one pixel': lambda y, x, g: (y == 0) & (x == 0),
    'islands in a disk': lambda y, x, g: ((y - 21) ** 2 + (x - 25) ** 2 < 300) & ((y // 3 + x // 3) % 4 != 0),
}


def test_all_copies_are_imputed_at_once_as_a_direct_solver_would():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(3, 43, 50, generator=generator, dtype=torch.float64) + torch.linspace(-2, 2, 50)
    y, x = torch.arange(43)[:, None], torch.arange(50)[None]
    masks = torch.stack([hole(y, x, generator).expand(43, 50) for hole in HOLES.values()])
    exact, single = (
        impute(image.to(kind), masks, replace(PLAIN, noise=0.0)) for kind in (torch.float64, torch.float32)
    )
    scale = float(image.max() - image.min())
    for name, mask, ours, rounded in zip(HOLES, masks, exact, single, strict=True):
        expected = torch.from_numpy(naive_metrics.imputed(image.numpy(), mask.numpy()))
        assert float((ours - expected).abs().max()) < 1e-10 * scale, name
        assert float((rounded - expected).abs().max()) < 1e-4 * scale, name
        assert torch.equal(ours[:, ~mask], image[:, ~mask]), name


def test_copies_imputed_in_several_parts_are_the_same(monkeypatch):
    image, masks = torch.randn(2, 40, 31), torch.rand(5, 40, 31) < 0.7
    together = impute(image, masks, PLAIN)
    monkeypatch.setattr(imputation, '_AT_ONCE', {'cpu': 1})
    torch.testing.assert_close(impute(image, masks, PLAIN), together, atol=1e-4, rtol=0)


def test_noise_of_imputation_is_repeatable_and_as_large_as_said():
    image, removed = torch.randn(3, 40, 40), torch.zeros(40, 40, dtype=torch.bool)
    removed[:, 5:] = True
    clean = one_imputed(image, removed, replace(PLAIN, noise=0.0))
    noisy = one_imputed(image, removed, replace(PLAIN, noise=0.1))
    assert torch.equal(noisy, one_imputed(image, removed, replace(PLAIN, noise=0.1)))
    assert not torch.equal(noisy, one_imputed(image, removed, replace(PLAIN, noise=0.1, seed=1)))
    assert (noisy - clean)[:, removed].std() == pytest.approx(0.1, rel=0.05)
    assert torch.equal(noisy[:, ~removed], image[:, ~removed])
    # in the space of pixels, ten times the contrast means ten times the noise
    ten = one_imputed(10 * image, removed, replace(PLAIN, noise=0.1, space='pixels'))
    one = one_imputed(image, removed, replace(PLAIN, noise=0.1, space='pixels'))
    torch.testing.assert_close(ten, 10 * one, rtol=1e-4, atol=1e-4)
    nothing_left = one_imputed(image, torch.ones_like(removed), replace(PLAIN, noise=0.0))
    torch.testing.assert_close(nothing_left, image.mean((1, 2), keepdim=True).expand_as(image))


def test_black_is_found_from_the_photo_whatever_the_normalization():
    photo = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    mean, deviation = np.array([100.0, 110.0, 120.0]), np.array([50.0, 60.0, 70.0])
    normalized = torch.from_numpy(((photo - mean) / deviation).transpose(2, 0, 1)).float()
    values, protocol = torch.rand(8, 9), replace(PLAIN, space='pixels')
    found = Removal(Case(values, normalized, protocol, photo), 'black').baseline
    np.testing.assert_allclose(found[:, 0, 0], -mean / deviation, atol=1e-5)
    reversed_ = Removal(Case(values, normalized.flip(0), protocol, photo), 'black').baseline
    np.testing.assert_allclose(reversed_[:, 0, 0], (-mean / deviation)[::-1], atol=1e-5)
    with pytest.raises(InputError, match='the network value of black is not known for this image; accepted: baseline='):
        _ = Removal(Case(values, normalized**2, protocol, photo), 'black').baseline
    with pytest.raises(InputError, match='black is not known'):
        _ = Removal(Case(values, normalized, protocol, np.full_like(photo, 128)), 'black').baseline


def test_ties_leave_at_random_and_the_fraction_really_removed_is_reported(linear):
    network, image = linear
    constant = torch.ones(6, 7, dtype=torch.float64)
    orders = [removal_order(Case(constant, image, replace(PLAIN, seed=seed))).first(10) for seed in (0, 0, 1)]
    assert torch.equal(orders[0], orders[1]) and not torch.equal(orders[0], orders[2])
    assert all(int(order.sum()) == 10 for order in orders)
    by_place = removal_order(Case(constant, image, replace(PLAIN, ties='position'))).first(10)
    assert by_place.flatten().tolist() == [True] * 10 + [False] * 32
    together = measured(network, image, constant, ['road'], replace(PLAIN, ties='together', percent=(10, 50)))
    assert together['road'].curves['road most relevant'].fractions.tolist() == [1.0, 1.0]
    apart = measured(network, image, constant, ['road'], replace(PLAIN, percent=(10, 50)))
    assert apart['road'].curves['road most relevant'].fractions.tolist() == [4 / 42, 21 / 42]


def test_values_that_are_not_finite_count_as_nothing(linear):
    network, image = linear
    values = torch.rand(6, 7, dtype=torch.float64) + 0.1
    holes = values.clone()
    holes[2, 3] = torch.nan
    zero = values.clone()
    zero[2, 3] = 0
    names = [name for name, metric in METRICS.items() if metric.needs in (Needs.NOTHING, Needs.SCORES)]
    a, b = (measured(network, image, each, names) for each in (holes, zero))
    assert {name: each.value for name, each in a.items()} == {name: each.value for name, each in b.items()}


def by_hand(values, truth, name, **protocol):
    case = Case(torch.tensor(values), torch.zeros(1, 5, 5), Protocol(**protocol), truth=np.array(truth, bool))
    found = METRICS[name].measure(case)
    return found.value if isinstance(found, Measured) else found


MASK = [[0, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
MAP = [
    [0.0, 0.0, 0.0, 0.0, 0.0],
    [0.0, 0.4, 0.6, 0.5, 0.0],
    [0.0, 0.2, 0.8, 1.0, 0.0],
    [0.0, 0.0, 0.0, 0.5, 0.0],
    [0.0, 0.0, 0.0, 0.0, 0.0],
]


def test_localization_by_hand():
    assert by_hand(MAP, MASK, 'energy') == pytest.approx(2.0 / 4.0)
    assert by_hand(MAP, MASK, 'pointing', tolerance=0) == 0
    assert by_hand(MAP, MASK, 'pointing', tolerance=1) == 1
    assert by_hand(MAP, MASK, 'iou', threshold=0.5) == pytest.approx(2 / 7)  # .6 .8 of .6 .5 .8 1 .5 and the four
    assert by_hand(MAP, MASK, 'iou', threshold=0.15) == pytest.approx(4 / 7)
    two = [row[:] for row in MAP]
    two[1][1] = 1.0  # of two equal maxima, one is inside
    assert by_hand(two, MASK, 'pointing', tolerance=0) == 0.5


def chance_by_hand(name, **protocol):
    return (
        METRICS[name]
        .measure(Case(torch.tensor(MAP), torch.zeros(1, 5, 5), Protocol(**protocol), truth=np.array(MASK, bool)))
        .chance
    )


def test_chance_levels_by_hand():
    assert chance_by_hand('energy') == chance_by_hand('iou') == chance_by_hand('bestiou') == 4 / 25
    assert chance_by_hand('pointing', tolerance=0) == 4 / 25
    assert chance_by_hand('pointing', tolerance=1) == 12 / 25  # two pixels more on each side, no corners
    assert by_hand(np.ones((5, 5)), MASK, 'energy') == pytest.approx(4 / 25)  # what a flat map gets


def test_the_best_iou_is_that_of_the_best_threshold():
    # from 1.0 down: 0/5, .8 1/5, .6 2/5, both .5 2/7, .4 3/7, .2 4/7, all 4/25
    assert by_hand(MAP, MASK, 'bestiou') == pytest.approx(4 / 7)
    generator = np.random.default_rng(0)
    values, mask = np.round(generator.random((5, 5)), 1), generator.random((5, 5)) < 0.4
    naive = max(((values >= t) & mask).sum() / ((values >= t) | mask).sum() for t in np.unique(values))
    assert by_hand(values.tolist(), mask, 'bestiou') == pytest.approx(naive)


def test_energy_counts_what_is_positive():
    signed = np.array(MAP)
    signed[0], signed[1, 1] = -1.0, -3.0
    assert by_hand(signed.tolist(), MASK, 'energy') == pytest.approx(1.6 / 3.6)


@pytest.mark.parametrize('name', ['energy', 'pointing', 'iou', 'bestiou'])
def test_an_empty_mask_or_map_is_never_a_hit(name):
    assert math.isnan(by_hand(MAP, np.zeros((5, 5)), name))
    assert math.isnan(by_hand(np.zeros((5, 5)), MASK, name))


def test_sparseness_by_hand():
    one = np.zeros((5, 5))
    one[2, 2] = 1
    assert by_hand(one, MASK, 'sparseness') == pytest.approx(1 - 1 / 25)
    assert by_hand(np.full((5, 5), 0.3), MASK, 'sparseness') == pytest.approx(0)
    assert math.isnan(by_hand(np.zeros((5, 5)), MASK, 'sparseness'))
    generator = np.random.default_rng(0).random((5, 5))
    differences = np.abs(generator.ravel()[:, None] - generator.ravel()).sum()
    assert by_hand(generator, MASK, 'sparseness') == pytest.approx(differences / (2 * 25 * generator.sum()))


def test_drop_is_a_share_of_the_score_or_absolute(linear):
    network, image = linear
    values = torch.rand(6, 7, dtype=torch.float64)
    plain, masked = (float((each * network.weight).sum().detach()) for each in (image, image * values))
    sign = 1 if plain > 0 else -1
    with torch.no_grad():
        network.weight *= sign
    plain, masked = sign * plain, sign * masked
    found = measured(network, image, values, ['drop', 'increase'])
    assert found['drop'].value == pytest.approx(max(0, plain - masked) / plain)
    assert found['increase'].value == float(masked > plain)
    absolute = measured(network, image, values, ['drop'], replace(PLAIN, drop='absolute'))
    assert absolute['drop'].value == pytest.approx(max(0, plain - masked))
    with torch.no_grad():
        network.weight *= -1
    assert math.isnan(measured(network, image, values, ['drop'])['drop'].value)  # a share of a negative value


def test_a_metric_of_ones_own(linear):
    try:

        @register_metric('first', paper='an example', formula='lost', range=(-1, 1), needs=Needs.SCORES)
        def first(case):
            tenth = removal_order(case).first_percent(10)
            plain, changed = yield [plain_copy(case), removed_copy(case, Removal(case, 'black'), tenth)]
            return plain - changed

        network, image = linear
        values = torch.rand(6, 7, dtype=torch.float64)
        largest = (values >= values.flatten().sort(descending=True).values[3]) * image * network.weight
        found = measured(network, image, values, ['first', 'deletion'])['first'].value
        assert found == pytest.approx(float(largest.sum().detach()))

        @register_metric('area', paper='an example', formula='share above 0.5', range=(0, 1), better='lower')
        def area(case):
            return float((case.known > 0.5).double().mean())

        assert find_metrics(['Area'])['area'].measure(Case(torch.eye(5), torch.zeros(1, 5, 5), PLAIN)) == 0.2
        assert list(METRICS)[-1] == 'area'
    finally:
        METRICS.pop('area', None)
        METRICS.pop('first', None)


def test_the_infidelity_of_a_linear_models_gradient_is_0_whatever_its_scale(linear):
    """Yeh et al., NeurIPS 2019, with additive noise and the best factor, as captum's ``normalize=True``."""
    try:

        @register_metric('infidelity', paper='an example', formula='', range=(0, math.inf), needs=Needs.SCORES)
        def infidelity(case):
            noise = torch.randn(
                20, 1, *case.values.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
            )
            copies = [Copy(('noise', number), lambda each=each: case.image - each) for number, each in enumerate(noise)]
            plain, *changed = yield [plain_copy(case), *copies]
            foretold = (noise[:, 0] * case.values).sum((1, 2))
            really = plain - torch.stack(changed)
            factor = (foretold * really).sum() / (foretold**2).sum()
            return ((factor * foretold - really) ** 2).mean()

        network, image = linear
        gradient = network.weight.detach().sum(0)
        assert measured(network, image, gradient, ['infidelity'])['infidelity'].value < 1e-20
        assert measured(network, image, 100 * gradient, ['infidelity'])['infidelity'].value < 1e-20
        assert measured(network, image, torch.rand(6, 7).double(), ['infidelity'])['infidelity'].value > 1
    finally:
        METRICS.pop('infidelity', None)


def test_every_metric_says_what_it_is():
    assert list(METRICS) == [
        *('insertion', 'deletion', 'road', 'drop', 'increase', 'sparseness', 'sensitivity'),
        *('energy', 'pointing', 'iou', 'bestiou'),
    ]
    for name, metric in METRICS.items():
        assert metric.paper and metric.formula and metric.range[0] < metric.range[1], name
    assert len({metric.short for metric in METRICS.values()}) == len(METRICS)
    assert [*find_metrics(['ins', 'DEL', 'Insertion'])] == ['insertion', 'deletion']


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'steps': 1}, 'steps: 1; accepted: an integer from 2 up'),
        ({'block': 0}, 'block: 0; accepted: an integer from 1 up'),
        ({'baseline': 'white'}, "baseline: 'white'; accepted: blur, mean, black, minimum, linear"),
        ({'percent': (0, 50)}, r'percent: \(0, 50\); accepted: numbers between 0 and 100'),
        ({'blur': (10, 3.0)}, r'blur: \(10, 3.0\); accepted: an odd kernel'),
    ],
)
def test_wrong_protocols(wrong, message):
    with pytest.raises(InputError, match=message):
        Protocol(**wrong)
