"""Axes of curves over training: their unit, ticks, marks and legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rcParams
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from vistool.results import Curve, Curves

DOTS: dict[str, Any] = {'linestyle': 'none', 'marker': 'o', 'markerfacecolor': 'none'}
"""How single values look, as against a course."""

_MOST_LABELS = 8
_LONGEST_LABEL = 56
_ROUND = [1, 2, 2.5, 5, 10]


@dataclass(frozen=True)
class Axis:
    """What the horizontal axis counts.

    Attributes:
        lengths: Iterations per epoch by config, where known.
        unit: ``both`` (epochs below, iterations above) where all configs share one epoch length; ``epoch`` where they
            differ; ``iteration`` where some are unknown; else the name of something that is no training (channels).
    """

    lengths: Mapping[str, float]
    unit: str

    @property
    def counts_training(self) -> bool:
        """Whether the curves run over a training, so that they have a peak and an end."""
        return self.unit in ('both', 'epoch', 'iteration')

    def position(self, config: str, steps: NDArray[Any]) -> NDArray[Any]:
        """Steps in the axis' unit; with ``both`` the data stay in iterations."""
        return steps / self.lengths[config] if self.unit == 'epoch' else steps

    def finish(self, bottom: Any, top: Any) -> None:
        """Ticks and labels below the lowest and above the highest panel, as many as have room."""
        low, high = bottom.get_xlim()
        bins = _room(bottom, _counted(high))
        if self.unit != 'both':
            bottom.set_xlabel(self.unit)
            bottom.xaxis.set_major_locator(MaxNLocator(nbins=bins, steps=_ROUND))
            bottom.xaxis.set_major_formatter(FuncFormatter(_counted))
            return
        # The data are in iterations; both axes get round numbers in their own unit.
        length = next(iter(self.lengths.values()))
        above = top.secondary_xaxis('top')
        above.set_xlabel('iteration')
        above.xaxis.set_major_locator(MaxNLocator(nbins=bins, steps=_ROUND))
        above.xaxis.set_major_formatter(FuncFormatter(_counted))
        rounded = MaxNLocator(nbins=bins, integer=high / length >= 4, steps=_ROUND)
        ticks = rounded.tick_values(max(low, 0) / length, high / length)
        inside = [tick for tick in ticks if low <= tick * length <= high]
        bottom.set_xticks([tick * length for tick in inside], [f'{tick:g}' for tick in inside])
        bottom.set_xlabel('epoch')
        bottom.set_xlim(low, high)


def axis_of(result: Curves) -> Axis:
    """The unit that all configs of a result have in common."""
    lengths = {curve.config: result.epoch_length.get(curve.config) for curve in result.curves}
    known = {config: length for config, length in lengths.items() if length}
    if len(known) < len(lengths):
        return Axis(known, result.x_label)
    return Axis(known, 'both' if len(set(known.values())) == 1 else 'epoch')


def _counted(value: float, _: Any = None) -> str:
    return f'{value:,.0f}' if abs(value - round(value)) < 1e-6 else f'{value:g}'


def _room(axes: Any, longest: str) -> int:
    """How many labels like this fit along an axis."""
    width = axes.figure.get_figwidth() * 72 * axes.get_position().width
    return max(2, min(8, int(width / (_letter('xtick.labelsize') * (0.62 * len(longest) + 1.5)))))


def _letter(setting: Any) -> float:
    return FontProperties(size=rcParams[setting]).get_size_in_points()


def tell_values(axes: Any) -> None:
    """Ticks that say their whole value, with no power of ten in a corner, and room above for one line of words."""
    letter = _letter('ytick.labelsize')
    height = axes.figure.get_figheight() * 72 * axes.get_position().height
    axes.margins(x=0.01, y=min(0.25, max(0.08, 1.9 * letter / height)))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=max(2, min(8, int(height / (3 * letter)))), steps=_ROUND))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{0.0 if abs(value) < 1e-15 else value:.10g}'))


def mark_ends(axes: Any, curves: Sequence[Curve], axis: Axis, colors: Sequence[Any], paper: bool) -> None:
    """Dots on the peak and the end of each config's highest curve; their values in words where there is one config.

    On paper the end has no words: they would stand outside and narrow the picture.
    """
    planned = [(curve, color) for curve, color in zip(curves, colors, strict=True) if not curve.measured]
    configs = list(dict.fromkeys(curve.config for curve, _ in planned))
    for config in configs:
        own = [pair for pair in planned if pair[0].config == config]
        curve, color = max(own, key=lambda pair: float(pair[0].values.max()))
        values = curve.values[[int(curve.values.argmax()), -1]]
        if values[0] == curve.values.min():
            continue
        places = axis.position(config, curve.steps[[int(curve.values.argmax()), -1]])
        axes.plot(places, values, linestyle='none', marker='o', color=color, zorder=5, clip_on=False)
        if len(configs) == 1:
            _say_ends(axes, places, values, paper)


def _say_ends(axes: Any, places: NDArray[Any], values: NDArray[Any], paper: bool) -> None:
    shared = {'textcoords': 'offset points', 'color': '0.25', 'fontsize': 'small', 'annotation_clip': False}
    side, anchor = (4, 'left') if places[0] < places[1] / 2 else (-4, 'right')
    axes.annotate(f'peak {values[0]:.3g}', (places[0], values[0]), (side, 4), ha=anchor, **shared)
    if not paper:
        axes.annotate(f'end {values[1]:.3g}', (places[1], values[1]), (6, 0), va='center', **shared)


def add_legend(axes: Any, curves: Sequence[Curve], colors: Sequence[Any]) -> None:
    """A legend of the labelled curves, cut where it would cover the picture."""
    several = len({curve.config for curve in curves}) > 1
    entries = []
    for curve, color in zip(curves, colors, strict=True):
        if not curve.label:
            continue
        values = f' · peak {curve.values.max():.3g}, end {curve.values[-1]:.3g}'
        told = values if several and not curve.measured else ''
        look = DOTS if curve.measured else {}
        entries.append((Line2D([], [], color=color, **look), _elided(curve.label) + told))
    if not entries:
        return
    if len(entries) > _MOST_LABELS:
        more = len(entries) - _MOST_LABELS + 1
        entries = [*entries[: _MOST_LABELS - 1], (Line2D([], [], linestyle='none'), f'… {more} more')]
    handles, labels = zip(*entries, strict=True)
    legend = axes.legend(handles, labels, frameon=True, framealpha=0.85, edgecolor='none')
    for text in legend.get_texts():
        text.set_parse_math(False)


def _elided(text: str) -> str:
    if len(text) <= _LONGEST_LABEL:
        return text
    half = _LONGEST_LABEL // 2
    return f'{text[: half - 1]}…{text[-half:]}'
