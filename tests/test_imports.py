"""A command imports what its config names, and every name means what it means after importing everything."""

import importlib
import inspect
import subprocess
import sys
import textwrap

import pytest
from mmengine.registry import Registry

from vistool import imports

HEAVY = ('albumentations', 'sympy', 'torch._dynamo', 'torch.distributed.fsdp', 'torchvision.ops', 'transformers')
PLOTS = ('matplotlib', 'pandas', 'scipy', 'seaborn')


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A package ``toy`` that gathers names out of modules; each module leaves its name in ``toy_log``."""
    log = []
    monkeypatch.setitem(sys.modules, 'toy_log', log)
    files = {
        '__init__.py': 'from .parts import *\nfrom .plain import value as renamed\nfrom . import plain\nmade = [1]\n',
        'plain.py': 'value = 3\n',
        'parts/__init__.py': (
            'from .wheel import Wheel\nfrom .paint import paint\nif True:\n    from .door import Door\n'
        ),
        'parts/paint.py': 'def paint(): return "red"\n',
        'parts/wheel.py': 'class Wheel: pass\n',
        'parts/door.py': 'import toy\nclass Door: pass\n',
    }
    for name, text in files.items():
        path = tmp_path / 'toy' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'import sys\nsys.modules["toy_log"].append(__name__)\n{text}')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(imports, 'GATHERING', imports.GATHERING | {'toy'})
    yield log
    for name in [name for name in sys.modules if name.partition('.')[0] == 'toy']:
        del sys.modules[name]
    for name in [name for name in imports._finder.waiting if name.partition('.')[0] == 'toy']:
        del imports._finder.waiting[name]
    imports.names_of.cache_clear()


def test_a_module_is_imported_without_its_package(toy):
    with imports.lazy_imports():
        from toy.parts.wheel import Wheel

        assert toy == ['toy.parts.wheel']
        import toy as package

        assert package.Wheel is Wheel and package.renamed == 3 and package.plain.value == 3
        assert toy == ['toy.parts.wheel', 'toy.plain']


def test_a_function_with_the_name_of_its_module_stays_the_function(toy):
    with imports.lazy_imports():
        from toy.parts import paint as first
        from toy.parts import paint as second  # the module is imported by now

        assert first() == second() == 'red' and toy == ['toy.parts.paint']
        assert importlib.import_module('toy.parts.paint').paint is first
    from toy.parts import paint as third

    assert third() == 'red'


def test_what_only_the_package_itself_gives_runs_its_init(toy):
    with imports.lazy_imports():
        import toy.parts as parts

        assert toy == []
        assert parts.Door.__module__ == 'toy.parts.door'  # taken under a condition
        assert toy[:1] == ['toy.parts'] and 'toy' not in toy
        import toy as package

        assert package.made == [1]
        assert type(package) is type(sys)


def test_a_name_that_a_package_lacks_is_an_attribute_error(toy):
    with imports.lazy_imports():
        import toy as package

        assert not hasattr(package, '__wrapped__')
        assert toy == []  # as inspect asks every module for such names
        with pytest.raises(AttributeError, match="'toy' has no attribute 'absent'"):
            _ = package.absent


def test_afterwards_a_package_that_waits_is_imported_as_ever(toy):
    with imports.lazy_imports():
        import toy as lazily

        first = lazily.parts.wheel.Wheel
        assert toy == ['toy.parts.wheel']
    assert 'toy' not in sys.modules
    package = importlib.import_module('toy')
    assert package is lazily and package.made == [1] and package.parts.Wheel is first
    assert inspect.getsource(package).count('made') == 1
    assert sorted(toy) == [
        'toy',
        'toy.parts',
        *(f'toy.parts.{name}' for name in ('door', 'paint', 'wheel')),
        'toy.plain',
    ]


def test_a_lazy_package_that_is_still_held_is_imported_when_it_is_used_later(toy):
    with imports.lazy_imports():
        import toy as held
    assert held.made == [1]
    assert sys.modules['toy'] is held


def test_a_package_that_fails_can_be_tried_again(toy, tmp_path):
    init = tmp_path / 'toy' / '__init__.py'
    text = init.read_text()
    init.write_text('raise ImportError("no wheels today")\n')
    with imports.lazy_imports():
        import toy as package

        with pytest.raises(ImportError, match='no wheels today'):
            _ = package.made
        init.write_text(text)
        importlib.invalidate_caches()
        assert package.made == [1]


def test_packages_that_were_imported_before_are_left_alone(toy):
    whole = importlib.import_module('toy')
    with imports.lazy_imports():
        assert importlib.import_module('toy') is whole and 'toy' in toy
    assert sys.modules['toy'] is whole


def registries(package):
    module = importlib.import_module(f'{package}.registry')
    return [each for each in vars(module).values() if isinstance(each, Registry) and each.scope == package]


def test_the_sources_tell_where_every_class_of_mmpretrain_is_registered():
    """What is read in the sources, against what importing everything registers."""
    found, wrong = 0, []
    for registry in registries('mmpretrain'):
        registry.import_from_location()
        for location in registry._locations:
            modules, others = imports.registrations(location)
            for name, registered in registry.module_dict.items():
                module = registered.__module__
                found += name in modules
                if name in modules:
                    right = module == modules[name]
                else:
                    right = module in others or module in LATE or not module.startswith('mmpretrain.')
                wrong += [] if right else [(name, module)]
    assert found > 250 and not wrong


LATE = ('mmpretrain.utils.dependency',)
"""Stands in for multimodal models where their packages are missing: found by importing everything."""


def run(code):
    """What a fresh process prints."""
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    return [line for line in done.stdout.splitlines() if line not in NOTICES]


NOTICES = ('Could not import OneDL', 'the torch version of Adafactor is registered as TorchAdafactor')
"""Printed by mmpretrain and mmengine."""


def test_a_command_imports_nothing_that_its_config_does_not_name(tmp_path):
    lines = run(f"""
        import sys
        import torch.utils.checkpoint
        there = set(sys.modules)  # PyTorch 2.6 itself imports sympy
        from vistool.commands.vis_cam import main
        code = main(['demo/coffee.png', 'mmpretrain::resnet/resnet18_8xb32_in1k.py', 'none',
                     '-o', {str(tmp_path / 'a.png')!r}])
        print(code, [name for name in {(*HEAVY, *PLOTS)!r} if name in sys.modules.keys() - there])
        import mmpretrain, torchvision
        from mmpretrain.registry import MODELS
        print(mmpretrain.models.ResNet is MODELS.get('ResNet'), len(MODELS.module_dict) > 150)
        print(torchvision.ops.nms.__module__)
    """)
    assert lines[-3:] == ['0 []', 'True True', 'torchvision.ops.boxes']


def test_a_config_that_names_albumentations_transformers_or_fsdp_gets_them():
    lines = run("""
        import numpy as np, torch
        from vistool.imports import are_lazy, lazy_imports
        import vistool.registry
        with lazy_imports():
            from mmengine.registry import MODEL_WRAPPERS, OPTIMIZERS, TRANSFORMS, DefaultScope
            with DefaultScope.overwrite_default_scope('mmpretrain'):
                flip = TRANSFORMS.build(dict(type='Albumentations', transforms=[dict(type='HorizontalFlip', p=1.0)]))
                print(flip(dict(img=np.arange(12, dtype=np.uint8).reshape(2, 2, 3)))['img'][0, 0].tolist(), are_lazy())
                weight = torch.nn.Parameter(torch.ones(1))
                print(type(OPTIMIZERS.build(dict(type='AdamW', params=[weight]))).__module__, are_lazy())
                print(MODEL_WRAPPERS.get('MMFullyShardedDataParallel').__mro__[1].__name__)
                print(type(OPTIMIZERS.build(dict(type='Adafactor', params=[weight]))).__module__)
                print(type(OPTIMIZERS.build(dict(type='AdamW', params=[weight]))).__module__)
                try:
                    OPTIMIZERS.build(dict(type='NoSuchOptimizer', params=[weight]))
                except KeyError as error:
                    print('NoSuchOptimizer is not in the' in str(error))
    """)
    assert lines == [
        '[3, 4, 5] True',
        'torch.optim.adamw True',
        'FullyShardedDataParallel',
        'transformers.optimization',
        'torch.optim.adamw',
        'True',
    ]


def test_figures_are_whole_without_the_help_texts_of_their_classes():
    lines = run("""
        import inspect
        from vistool.imports import lazy_imports
        with lazy_imports():
            from matplotlib.figure import Figure
            from matplotlib.lines import Line2D
        print(len(inspect.signature(Line2D.set).parameters))
        Line2D([0], [1]).set(linewidth=3, alpha=0.5)
        print(Figure().add_subplot().set(xlabel='step')[0].get_text())
        class Own(Line2D):
            def set_mine(self, value): pass
        print('mine' in inspect.signature(Own.set).parameters, 'mine' in Own.set.__doc__)
    """)
    assert lines == ['2', 'step', 'True True']  # self and **kwargs; what is made afterwards is described as ever
