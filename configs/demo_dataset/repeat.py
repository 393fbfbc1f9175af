# A wrapped dataset: each of the nine photos three times per epoch.
_base_ = './plain.py'

train_dataloader = dict(
    dataset=dict(_delete_=True, type='RepeatDataset', times=3, dataset=_base_.train_dataloader.dataset)
)
