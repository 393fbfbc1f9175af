"""Analyses are registered in one place, and a user's own by a decorator in the user's file."""

import textwrap

import numpy as np
import pytest

import vistool as vt
from vistool.models.configs import resolve
from vistool.registry import ANALYSES, ANALYSIS_MODULES


@pytest.mark.parametrize('name', ANALYSIS_MODULES)
def test_every_analysis_is_public_and_registered(name):
    assert name in vt.__all__ and ANALYSES.get(name) is getattr(vt, name)


def test_a_users_own_analysis_comes_with_custom_imports(tmp_path, monkeypatch):
    (tmp_path / 'brightness.py').write_text(
        textwrap.dedent("""
            from dataclasses import dataclass

            from vistool.registry import ANALYSES


            @ANALYSES.register_module()
            @dataclass(frozen=True)
            class Brightness:
                scale: float = 1.0

                def __call__(self, model, sample):
                    return self.scale * sample.image.mean()
        """)
    )
    (tmp_path / 'own.py').write_text("custom_imports = dict(imports=['brightness'])\n")
    monkeypatch.syspath_prepend(tmp_path)
    resolve(tmp_path / 'own.py')
    analysis = ANALYSES.build({'type': 'Brightness', 'scale': 2.0})
    image = np.full((2, 3, 3), 7, np.uint8)
    assert analysis(None, vt.Sample(None, image)) == 14
    assert type(ANALYSES.build({'type': 'vistool.Brightness'})) is type(analysis)
