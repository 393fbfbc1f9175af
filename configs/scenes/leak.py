# The generated scenes in two phases, one of which is in both: browse_dataset --report says so.
_base_ = 'dataset.py'

train_dataloader = dict(dataset=dict(indices=[0, 1, 2, 3]))
val_dataloader = dict(batch_size=2, dataset=dict(type='SceneDataset', indices=[3, 4, 5]))
