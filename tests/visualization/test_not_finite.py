"""NaN and infinity in maps: marked, counted, never on the scale; a map of nothing else is an error of its image."""

import io
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import vistool as vt
from vistool.analyses.cam.maps import finish, to_unit
from vistool.data.display import Shown
from vistool.errors import InputError
from vistool.results import Coordinates, GridImage, Heatmap, Heatmaps, ImageGrid
from vistool.visualization.grids import grid_scene
from vistool.visualization.heatmaps import heatmaps_scene, overlays, sheet_scenes
from vistool.visualization.kinds import picture_pixels
from vistool.visualization.raster import NOT_FINITE
from vistool.visualization.scene import GRAY
from vistool.visualization.style import Style
from vistool.visualization.views import map_colors

HOLES = (np.nan, np.inf, -np.inf)


def holed(kind='feature', size=(8, 8), **more):
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    values[2, 3:6] = HOLES
    item = Heatmap(values, Coordinates({'layer': 'a', 'method': 'gradcam', 'head': 0}))
    image = np.full((*size, 3), 120, np.uint8)
    return Heatmaps(kind=kind, image=image, maps=(item,), titles={'gradcam': 'GradCAM'}, **more)


def pixels_of(result, **style):
    return np.asarray(Image.open(io.BytesIO(vt.render(result, **style))).convert('RGB'))


def share_marked(pixels):
    return float((pixels == NOT_FINITE).all(axis=2).mean())


@pytest.mark.parametrize('kind', ['cam', 'attention', 'feature'])
def test_what_is_not_finite_is_marked_and_the_scale_is_that_of_the_rest(kind):
    result = holed(kind, (64, 64))
    (mapping,) = map_colors(result, Style())
    finite = result.maps[0].values[np.isfinite(result.maps[0].values)]
    assert np.isnan(mapping.values[2, 3:6]).all() and np.nanmax(mapping.values) == 1
    if mapping.bar is not None:
        assert (mapping.bar.low, mapping.bar.high) == (finite.min(), finite.max())
    pixels = pixels_of(result)
    assert share_marked(pixels) > 0.01
    ((_, drawn),) = overlays(result, Style())
    marked = (drawn == NOT_FINITE).all(axis=2)
    expected = np.zeros((8, 8), bool)
    expected[2, 3:6] = True
    np.testing.assert_array_equal(marked, expected.repeat(8, axis=0).repeat(8, axis=1))  # its own cells, no more


def test_the_caption_counts_them():
    scene = heatmaps_scene(holed(), Style(), Style().page(vector=False))
    assert any('3 of 64 values not finite (magenta)' in item.text for item in scene.texts)
    fine = heatmaps_scene(holed().sel(head=0), Style(), Style().page(vector=False))
    assert len(fine.texts) == len(scene.texts)


@pytest.mark.parametrize(('width', 'marked'), [('column', 'hatched'), ('screen', 'magenta')])
def test_sheets_and_paper_count_them_below(width, marked):
    shown = Shown(0.0, 4095.0)
    style = Style(width=width)
    said = f'shown 0–4095 · 3 of 64 values not finite ({marked})'
    (sheet,) = sheet_scenes([holed(shown=shown), holed()], style, style.page(vector=False))
    remarks = [item for item in sheet.texts if 'not finite' in item.text]
    assert [item.text for item in remarks] == [said, said.partition(' · ')[2]]
    assert all(item.color == GRAY and item.size < style.page(False).font for item in remarks)
    (first, second), (upper, lower) = remarks, sorted({item.box.y for item in sheet.images})
    assert upper < first.y < lower < second.y
    assert not any(
        item.box.y - 0.3 * first.size < text.y < item.box.bottom for item in sheet.images for text in remarks
    )
    paper = Style(width='column')
    scene = heatmaps_scene(holed(shown=shown), paper, paper.page(vector=True))
    (text,) = (item for item in scene.texts if 'not finite' in item.text)
    assert text.text == said.replace(marked, 'hatched') and text.y > max(item.box.bottom for item in scene.images)


def test_paper_says_the_range_of_a_grid_below():
    grid = ImageGrid(((GridImage(np.full((20, 30, 3), 120, np.uint8)),),), 'a caption', shown=(Shown(0.0, 4095.0),))
    style = Style(width='column')
    assert [item.text for item in grid_scene(grid, style.page(vector=True)).texts] == ['shown 0–4095']
    assert [item.text for item in grid_scene(grid, Style().page(vector=False)).texts] == ['a caption · shown 0–4095']


def test_print_hatches_them_in_black_and_white():
    for format in ('png', 'pdf', 'svg'):
        assert vt.render(holed('attention', (64, 64)), format, width='column')
    pixels = pixels_of(holed('attention', (64, 64)), width='column')
    assert share_marked(pixels) == 0
    black, white = ((pixels == level).all(axis=2).mean() for level in (0, 255))
    assert black > 0 and white > 0.005


@pytest.mark.parametrize('interpolation', ['nearest', 'bilinear', 'bicubic'])
def test_neighbors_keep_their_values(interpolation):
    result = holed('cam', (64, 64))
    plain = result.maps[0].values.copy()
    plain[2, 3:6] = plain[2, 2]
    other = Heatmaps(kind='cam', image=result.image, maps=(Heatmap(plain, result.maps[0].coordinates),))
    ((_, drawn),), ((_, expected),) = (overlays(each, Style(interpolation=interpolation)) for each in (result, other))
    away = np.ones((64, 64), bool)
    away[0:40, 8:64] = False
    np.testing.assert_array_equal(drawn[away], expected[away])


@pytest.mark.parametrize('value', HOLES)
def test_a_map_of_nothing_else_is_an_error(value):
    item = Heatmap(np.full((4, 4), value, np.float32), Coordinates(layer='a'))
    result = Heatmaps(kind='feature', image=np.zeros((8, 8, 3), np.uint8), maps=(item,))
    with pytest.raises(InputError, match="no value of the map is finite .*layer='a'"):
        picture_pixels(result, Style())


def test_raw_numbers_keep_them():
    with np.load(io.BytesIO(vt.visualization.files.heatmaps_npz(holed()))) as raw:
        np.testing.assert_array_equal(raw['maps_0'][0], holed().maps[0].values)


def test_colors_by_pca_are_marked_too():
    values = np.full((4, 4, 3), 0.5, np.float32)
    values[1, 1, 0] = np.nan
    item = Heatmap(values, Coordinates(layer='a', reduction='pca'))
    result = Heatmaps(kind='feature', image=np.zeros((32, 32, 3), np.uint8), maps=(item,))
    assert share_marked(pixels_of(result)) > 0.01


def test_a_cam_is_scaled_by_its_finite_values():
    signed = torch.linspace(-1, 3, 16).reshape(1, 4, 4)
    signed[0, 3, 1] = torch.nan
    signed[0, 0, 0] = -torch.inf
    signed[0, 3, 3] = torch.inf
    unit, span = finish([signed], (8, 8))
    assert unit[unit.isfinite()].max() == pytest.approx(1, abs=1e-5) and unit[unit.isfinite()].min() == 0
    assert int(unit.isnan().sum()) == 3 * 4 and span[0, 1] == pytest.approx(float(signed[0, 3, 2]), abs=1e-5)
    plain = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0))
    low, high = plain.amin((1, 2), keepdim=True), plain.amax((1, 2), keepdim=True)
    torch.testing.assert_close(to_unit(plain)[0], (plain - low) / (high - low + 1e-7), rtol=0, atol=0)
    assert to_unit(torch.full((1, 2, 2), torch.nan))[0].isnan().all()


class Holed(nn.Module):
    """A network whose first layer gives NaN where a photo is black."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.last = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        first = self.first(x)
        first = first + torch.where(x.sum(1, keepdim=True) == 0, torch.nan, 0.0)
        self.seen = self.last(first)
        return self.last(first).nan_to_num(0.0).mean((2, 3))


def to_tensor(image):
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).astype(np.float32) / 255)


def test_a_run_reports_the_image_of_which_nothing_is_finite(tmp_path, caplog):
    for name, dark in (('fine', 0), ('hole', 3), ('black', 16)):
        photo = np.full((16, 16, 3), 200, np.uint8)
        photo[:dark] = 0
        Image.fromarray(photo).save(tmp_path / f'{name}.png')
    torch.manual_seed(0)
    network = Holed()
    with caplog.at_level(logging.WARNING, 'vistool'):
        summary = vt.run(
            network, tmp_path, vt.FeatureMaps(layers=['last']), transform=to_tensor, out=tmp_path / 'out', workers=1
        )
    assert summary.done == 2 and [failure.item for failure in summary.failures] == [str(tmp_path / 'black.png')]
    assert 'no value of the map is finite' in summary.failures[0].reason
    assert '48 of 256 values of the maps are not finite' in caplog.text
