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

_MOST_LABELS = 8
_LONGEST_LABEL = 56
_ROUND = [1, 2, 2.5, 5, 10]


@dataclass(frozen=True)
class Axis:
    """What the horizontal axis counts.

    Attributes:
        lengths: Iterations per epoch by config, where known.
        unit: ``both`` (epochs below, iterations above) where all configs share one epoch length; ``epoch`` where they
            differ; ``iteration`` where some are unknown.
    """

    lengths: Mapping[str, float]
    unit: str

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
        ticks = MaxNLocator(nbins=bins, integer=high / length >= 4, steps=_ROUND).tick_values(max(low, 0) / length, high / length)
        inside = [tick for tick in ticks if low <= tick * length <= high]
        bottom.set_xticks([tick * length for tick in inside], [f'{tick:g}' for tick in inside])
        bottom.set_xlabel('epoch')
        bottom.set_xlim(low, high)


def axis_of(result: Curves) -> Axis:
    """The unit that all configs of a result have in common."""
    lengths = {curve.config: result.epoch_length.get(curve.config) for curve in result.curves}
    known = {config: length for config, length in lengths.items() if length}
    if len(known) < len(lengths):
        return Axis(known, 'iteration')
    return Axis(known, 'both' if len(set(known.values())) == 1 else 'epoch')


def _counted(value: float, _: Any = None) -> str:
    return f'{value:,.0f}' if abs(value - round(value)) < 1e-6 else f'{value:g}'


def _room(axes: Any, longest: str) -> int:
    """How many labels like this fit along an axis."""
    width = axes.figure.get_figwidth() * 72 * axes.get_position().width
    return max(2, min(8, int(width / (_letter('xtick.labelsize') * (0.62 * len(longest) + 1.5)))))


def _letter(setting: str) -> float:
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
    configs = list(dict.fromkeys(curve.config for curve in curves))
    for config in configs:
        own = [(curve, color) for curve, color in zip(curves, colors, strict=True) if curve.config == config and not curve.measured]
        curve, color = max(own, key=lambda pair: float(pair[0].values.max()))
        peak, end = int(curve.values.argmax()), len(curve.values) - 1
        if curve.values[peak] == curve.values.min():
            continue
        places = axis.position(config, curve.steps[[peak, end]])
        values = curve.values[[peak, end]]
        axes.plot(places, values, linestyle='none', marker='o', color=color, zorder=5, clip_on=False)
        if len(configs) > 1:
            continue
        left = peak < len(curve.values) / 2
        shared = {'textcoords': 'offset points', 'color': '0.25', 'fontsize': 'small', 'annotation_clip': False}
        axes.annotate(f'peak {values[0]:.3g}', (places[0], values[0]), (4 if left else -4, 4), ha='left' if left else 'right', **shared)
        if not paper:
            axes.annotate(f'end {values[1]:.3g}', (places[1], values[1]), (6, 0), va='center', **shared)


def add_legend(axes: Any, curves: Sequence[Curve], colors: Sequence[Any]) -> None:
    """A legend of the labelled curves, cut where it would cover the picture."""
    configs = {curve.config for curve in curves}
    entries = []
    for curve, color in zip(curves, colors, strict=True):
        if not curve.label:
            continue
        look = {'linestyle': 'none', 'marker': 'o', 'markerfacecolor': 'none'} if curve.measured else {}
        label = _elided(curve.label)
        if len(configs) > 1 and not curve.measured:
            highest = max((each.values for each in curves if each.config == curve.config and (curve.order is not None or each is curve)), key=lambda v: float(v.max()))
            label += f' · peak {highest.max():.3g}, end {highest[-1]:.3g}'
        entries.append((Line2D([], [], color=color, **look), label))
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
