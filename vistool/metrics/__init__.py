"""How far a map can be trusted: numbers about a map, each with its paper, its range and its direction.

The table of metrics is in :mod:`~vistool.metrics.registry`, how pixels are removed and what is scored in
:mod:`~vistool.metrics.protocol`, and the forwards that all metrics of an image share in
:mod:`~vistool.metrics.evaluation`.
"""

from vistool.metrics import faithfulness, localization, properties  # noqa: F401 (they register the metrics)
from vistool.metrics.evaluation import Network, Truths, evaluate, no_truth, truth_of
from vistool.metrics.protocol import PROTOCOLS, Protocol, find_protocol
from vistool.metrics.registry import (
    METRICS,
    Case,
    Copy,
    Measured,
    Metric,
    Needs,
    find_metrics,
    register_metric,
)

__all__ = [
    'METRICS',
    'PROTOCOLS',
    'Case',
    'Copy',
    'Measured',
    'Metric',
    'Needs',
    'Network',
    'Protocol',
    'Truths',
    'evaluate',
    'find_metrics',
    'find_protocol',
    'no_truth',
    'register_metric',
    'truth_of',
]
