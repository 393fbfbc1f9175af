"""A page's server in this process: a tiny network, photos, and requests as a browser sends them."""

from __future__ import annotations

import io
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from vistool.commands import vis_explore
from vistool.commands.options import models_of
from vistool.commands.vis_explore import build_parser, own_photos, session_of
from vistool.explore.answers import decode_maps
from vistool.explore.server import Server, static_files
from vistool.explore.worker import Worker
from vistool.runs.spec import find_source, opened_models

PORT = 8000
ADDRESS = f'http://127.0.0.1:{PORT}'

CLASSIFIER = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VisionTransformer', img_size=64, patch_size=8,
        arch=dict(embed_dims=24, num_layers=3, num_heads=3, feedforward_channels=48)),
    head=dict(type='VisionTransformerClsHead', num_classes=7, in_channels=24, loss=dict(type='CrossEntropyLoss')))
data_preprocessor = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], to_rgb=True)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=72, edge='short'),
    dict(type='CenterCrop', crop_size=64),
    dict(type='PackInputs')]
"""


def png(size=(80, 100), seed=0):
    """A photo of smooth noise as the bytes of a PNG."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC).save(file, 'PNG')
    return file.getvalue()


class Client:
    """What a page asks of a server."""

    def __init__(self, server, http):
        self.server, self.http = server, http

    def get(self, path, headers=(), **parameters):
        query = f'?{urlencode(parameters)}' if parameters else ''
        return self.http.get(f'/{self.server.token}/{path}{query}', headers=dict(headers))

    def post(self, data, name='photo.png', headers=()):
        path = f'/{self.server.token}/photos?{urlencode({"name": name})}'
        return self.http.post(path, content=data, headers=dict(headers))

    def upload(self, data, name='photo.png'):
        answer = self.post(data, name)
        assert answer.status_code == 201, answer.text
        return answer.json()['id']

    def describe(self, photo, model=0):
        answer = self.get(f'photos/{photo}/describe', model=model)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def map(self, view, photo, **parameters):
        answer = self.get('map', view=view, photo=photo, **parameters)
        assert answer.status_code == 200, answer.text
        return decode_maps(answer.content)

    def figure(self, view, photo, **parameters):
        answer = self.get('figure', view=view, photo=photo, **parameters)
        assert answer.status_code == 200, answer.text
        return answer.content


@contextmanager
def explored(folder: Path, *words: str):
    """A page over the models and photos that words name, as vis_explore takes them."""
    args = build_parser().parse(words)
    args.command = 'vis_explore'
    models = models_of(args)
    source = find_source(models.first, models)
    worker = Worker()
    try:
        with opened_models(models, source, args.seed) as loaded:
            session = session_of(args, loaded, models, own_photos(args.images, source), folder)
            here = Path(vis_explore.__file__).parents[1]
            files = static_files([here / 'explore' / 'page', here / 'gallery' / 'shared'])
            server = Server(session, worker, files, 'vis_explore')
            yield Client(server, TestClient(server.app(PORT), ADDRESS))
    finally:
        worker.stop(5)
