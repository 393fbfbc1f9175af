"""What analyses return: frozen kinds of result that hold numbers and coordinates, and draw nothing."""

from vistool.results.attention import AttentionMatrix
from vistool.results.base import COORDINATES, Coordinate, Coordinates, Result
from vistool.results.checks import Cascade, CheckReport, Finding, Grid
from vistool.results.curves import Curve, Curves
from vistool.results.embeddings import EmbeddedSample, Embedding, EmbeddingMap, confusion_matrix
from vistool.results.grids import Cut, GridImage, ImageGrid
from vistool.results.heatmaps import (
    Heatmap,
    Heatmaps,
    Instance,
    Layer,
    Mass,
    Measure,
    NetworkView,
    SampledPoints,
    ScoreCurve,
    Target,
    Top,
    distinct,
    over_training,
    side_by_side,
)
from vistool.results.measurements import Estimate, MeanCurve, MetricMean, MetricsSummary
from vistool.results.statistics import (
    ChannelStack,
    ChannelStatistics,
    DatasetSummary,
    HeadStatistics,
    LayerChannels,
    LayerStatistics,
    ObjectStatistics,
    channel_names,
)

__all__ = [
    'COORDINATES',
    'AttentionMatrix',
    'Cascade',
    'ChannelStack',
    'ChannelStatistics',
    'CheckReport',
    'Coordinate',
    'Coordinates',
    'Curve',
    'Curves',
    'Cut',
    'DatasetSummary',
    'EmbeddedSample',
    'Embedding',
    'EmbeddingMap',
    'Estimate',
    'Finding',
    'Grid',
    'GridImage',
    'HeadStatistics',
    'Heatmap',
    'Heatmaps',
    'ImageGrid',
    'Instance',
    'Layer',
    'LayerChannels',
    'LayerStatistics',
    'Mass',
    'MeanCurve',
    'Measure',
    'MetricMean',
    'MetricsSummary',
    'NetworkView',
    'ObjectStatistics',
    'Result',
    'SampledPoints',
    'ScoreCurve',
    'Target',
    'Top',
    'channel_names',
    'confusion_matrix',
    'distinct',
    'over_training',
    'side_by_side',
]
