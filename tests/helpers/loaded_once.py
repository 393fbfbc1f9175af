"""Runs in this process share the models that they load: most of a short run is loading."""

import copy

import pytest

from vistool.models.configs import Source
from vistool.runs import spec

LOADED = {}


@pytest.fixture(autouse=True)
def models_are_loaded_once(monkeypatch):
    """A run with the config, weights and seed of an earlier one gets its network; runs leave it as it was."""
    load = spec.load

    def load_once(source, checkpoint=None, **options):
        if not isinstance(source, Source):  # the caller's own network
            return load(source, checkpoint, **options)
        key = (source.name, repr(source.config), source.checkpoint, checkpoint, *map(repr, options.items()))
        if key not in LOADED:
            LOADED[key] = load(source, checkpoint, **options)
        return copy.copy(LOADED[key])

    monkeypatch.setattr(spec, 'load', load_once)
