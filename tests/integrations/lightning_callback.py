"""ExplainCallback in a Lightning Trainer. ``.ci/environment.py`` runs this file, in an environment with lightning."""

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from small_training import write_shapes
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from vistool.errors import InputError
from vistool.integrations.lightning import ExplainCallback


class Shapes(lightning.LightningModule):
    """A small CNN with BatchNorm and dropout, inside the module that Lightning trains."""

    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(8, 2),
        )  # fmt: skip

    def training_step(self, batch, index):
        images, labels = batch
        return nn.functional.cross_entropy(self.model(images), labels)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def to_tensor(image):
    return torch.tensor(np.array(image.resize((32, 32)))).permute(2, 0, 1) / 255


def fit(folder, *callbacks, **more):
    lightning.seed_everything(5)
    data = TensorDataset(torch.rand(24, 3, 32, 32), torch.arange(24) % 2)
    module = Shapes()
    settings = {'max_epochs': 3, 'accelerator': 'cpu', 'logger': TensorBoardLogger(folder), **more}
    trainer = lightning.Trainer(
        callbacks=list(callbacks), default_root_dir=folder, enable_progress_bar=False, log_every_n_steps=1,
        enable_model_summary=False, **settings,
    )  # fmt: skip
    trainer.fit(module, DataLoader(data, 4, shuffle=True))
    return module


def test_a_training_is_the_same_to_the_last_bit(tmp_path):
    photos = write_shapes(tmp_path / 'photos', 4)
    plain = fit(tmp_path / 'plain')
    callback = ExplainCallback(photos, to_tensor, network='model', classes=['circle', 'cross'])
    explained = fit(tmp_path / 'explained', callback)
    state, other = plain.state_dict(), explained.state_dict()
    assert [name for name in state if not torch.equal(state[name], other[name])] == []
    out = tmp_path / 'explained' / 'explain'
    assert sorted(path.name for path in out.glob('*.npz')) == [f'epoch_{number}.npz' for number in range(4)]
    assert len(list(out.rglob('*.png'))) == 4
    events = next((tmp_path / 'explained').rglob('events.out*')).read_bytes()
    assert b'explain_circle-0' in events


def test_what_is_wrong_is_an_error_before_the_first_epoch(tmp_path):
    photos = write_shapes(tmp_path / 'photos', 2)
    with pytest.raises(InputError, match='images: '):
        ExplainCallback(tmp_path / 'nowhere', to_tensor)
    wrong = ExplainCallback(photos, to_tensor, {'type': 'vistool.CAM', 'layers': '9'}, network='model')
    with pytest.raises(InputError, match="'9'"):
        fit(tmp_path, wrong)
