"""Metrics over images: bootstrap intervals against resampling one draw at a time, differences, verdicts, curves."""

import math

import numpy as np
import pytest

from vistool.metrics.aggregation import (
    FRACTIONS,
    MapMetrics,
    bootstrap_means,
    estimate,
    is_whole,
    p_value,
    sampled,
    summarize,
)
from vistool.results import ScoreCurve
from vistool.visualization import kinds
from vistool.visualization.measurements import summary_text
from vistool.visualization.style import Style


def naive_means(values, seed, resamples):
    generator, found = np.random.default_rng(seed), []
    for _ in range(resamples):
        drawn = [values[place] for place in generator.integers(0, len(values), len(values))]
        known = [each for each in drawn if not math.isnan(each)]
        found.append(sum(known) / len(known) if known else math.nan)
    return found


@pytest.mark.parametrize('count', [2, 7, 300])
def test_intervals_are_those_of_a_naive_bootstrap_with_the_same_seed(count, monkeypatch):
    monkeypatch.setattr('vistool.metrics.aggregation._AT_ONCE', 5 * count)  # several parts
    generator = np.random.default_rng(3)
    table = generator.normal(size=(count, 2))
    if count > 2:
        table[generator.random(table.shape) < 0.2] = math.nan
    draws = bootstrap_means(table, seed=11, resamples=53)
    for column in (0, 1):
        naive = naive_means(table[:, column].tolist(), 11, 53)
        np.testing.assert_allclose(draws[:, column], naive, atol=1e-12)
        found = estimate(table[:, column], draws[:, column])
        assert (found.low, found.high) == pytest.approx(np.nanpercentile(naive, [2.5, 97.5]))
        assert found.mean == pytest.approx(np.nanmean(table[:, column]))


def test_a_p_value_counts_the_draws_on_the_other_side_and_is_never_0():
    assert p_value(np.arange(1.0, 100.0)) == pytest.approx(2 / 100)
    assert p_value(np.array([-1.0, 1.0, 2.0, 3.0])) == pytest.approx(2 * 2 / 5)
    assert p_value(np.zeros(9)) == 1


def maps_of(tables, curves=None, chance=None):
    """Maps from ``{series: {metric: values by image}}``."""
    return [
        MapMetrics(image, series, {name: values[image] for name, values in metrics.items()}, chance or {}, curves or {})
        for image in range(len(next(iter(next(iter(tables.values())).values()))))
        for series, metrics in tables.items()
    ]


def test_differences_are_paired_image_by_image():
    generator = np.random.default_rng(0)
    base = generator.normal(size=40)  # images differ far more than methods do
    better = base + 0.1 + 0.02 * generator.normal(size=40)
    summary = summarize(maps_of({'A': {'insertion': base}, 'B': {'insertion': better}}), seed=5)
    first, second = summary.of('A', 'insertion'), summary.of('B', 'insertion')
    assert first.difference is None and first.p is None
    naive = naive_means((better - base).tolist(), 5, 2000)
    assert (second.difference.low, second.difference.high) == pytest.approx(np.percentile(naive, [2.5, 97.5]))
    assert second.differs and second.p < 0.002
    assert second.value.low < first.value.high  # the intervals of the means overlap
    assert summary.to_frame().loc[1, 'difference'] == pytest.approx((better - base).mean())


def test_images_without_a_value_are_left_out_and_counted():
    tables = {'A': {'pointing': [1, math.nan, 0, 1]}, 'B': {'pointing': [math.nan, math.nan, 1, 1]}}
    summary = summarize(maps_of(tables, chance={'pointing': 0.25}))
    found = summary.of('A', 'pointing')
    assert (found.images, found.left_out, found.chance) == (3, 1, 0.25)
    assert found.value.mean == pytest.approx(2 / 3)
    assert summary.of('B', 'pointing').difference.mean == pytest.approx(0.5)  # over the two that have both
    text = summary_text(summary)
    assert 'left out, because it is not defined: point of A for 1 of 4 images' in text
    assert 'left out, because it is not defined: point of B for 2 of 4 images' in text


def test_targets_of_one_image_are_one_draw():
    maps = [MapMetrics(image, 'A', {'drop': value}) for image, values in enumerate([(0, 1), (1,)]) for value in values]
    found = summarize(maps).of('A', 'drop')
    assert found.images == 2 and found.value.mean == pytest.approx(0.75)


def test_a_method_that_does_not_beat_the_baselines_is_named():
    generator = np.random.default_rng(1)
    noise = {name: 0.05 * generator.normal(size=30) for name in 'ABR'}
    tables = {
        'A': {'insertion': 0.7 + noise['A'], 'deletion': 0.1 + noise['A'], 'sparseness': noise['A']},
        'B': {'insertion': 0.5 + noise['B'], 'deletion': 0.4 + noise['B'], 'sparseness': noise['B']},
        'Random': {'insertion': 0.5 + noise['R'], 'deletion': 0.3 + noise['R'], 'sparseness': 1 + noise['R']},
    }
    summary = summarize(maps_of(tables), ['Random'])
    assert list(summary.measures) == ['insertion', 'deletion', 'insertion - deletion', 'sparseness']
    assert summary.of('A', 'insertion - deletion').value.mean == pytest.approx(0.6, abs=1e-9)
    assert not any(each.not_better_than for each in summary.means if each.series != 'B')
    lost = {each.metric for each in summary.means if each.series == 'B' and each.not_better_than == ('Random',)}
    assert lost == {'insertion', 'deletion', 'insertion - deletion'}  # how sparse a map is says nothing of the network
    assert 'B does not beat Random in ins, del, ins − del: there it says little' in summary_text(summary)


def test_one_image_has_no_interval():
    summary = summarize(maps_of({'A': {'iou': [0.5]}, 'Random': {'iou': [0.4]}}), ['Random'])
    assert math.isnan(summary.of('A', 'iou').value.low) and summary.of('Random', 'iou').p is None
    text = summary_text(summary).splitlines()
    assert text[0] == 'metrics over 1 image: means'
    assert text[-1] == 'one image does not tell whether a method beats the baselines'


def test_curves_are_read_at_equal_steps_and_averaged():
    curve = ScoreCurve(np.array([0, 0.5, 1]), np.array([1.0, 0.4, 0.0]))
    assert is_whole(curve) and not is_whole(ScoreCurve(np.array([0.1, 0.9]), np.zeros(2)))
    np.testing.assert_allclose(sampled(curve), np.interp(FRACTIONS, curve.fractions, curve.scores), atol=1e-4)
    maps = [
        MapMetrics(image, 'A', {'deletion': image}, curves={'deletion': (FRACTIONS * image).tolist()})
        for image in range(3)
    ]
    (found,) = summarize(maps).curves
    np.testing.assert_allclose(found.mean, FRACTIONS)
    assert found.low[-1] == pytest.approx(summarize(maps).of('A', 'deletion').value.low)
    for style in (Style(), Style(width='column')):
        assert kinds.picture_bytes(summarize(maps), style, '.png')[:4] == b'\x89PNG'
