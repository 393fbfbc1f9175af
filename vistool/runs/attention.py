"""What a run of vis_attention writes beside its figures."""

from __future__ import annotations

from pathlib import Path

from vistool.results import Heatmaps
from vistool.visualization.files import write_file
from vistool.visualization.statistics import statistics_picture, statistics_table
from vistool.visualization.style import Style


def write_statistics(result: Heatmaps, picture: Path, style: Style, save_raw: bool) -> list[Path]:
    """Writes the numbers of every head as a picture beside ``picture``, and as a table with ``save_raw``.

    Returns:
        The files written.

    Raises:
        InputError: They cannot be written.
    """
    rows = result.provenance['statistics']
    path = picture.with_name(f'{picture.stem}_stats{picture.suffix}')
    write_file(path, statistics_picture(rows, style, picture.suffix))
    if not save_raw:
        return [path]
    table = path.with_suffix('.csv')
    write_file(table, statistics_table(rows))
    return [path, table]
