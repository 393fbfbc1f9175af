# A dataset in a wrapper: the nine photographs three times an epoch.
_base_ = './plain.py'

train_dataloader = dict(
    dataset=dict(_delete_=True, type='RepeatDataset', times=3, dataset=_base_.train_dataloader.dataset)
)
