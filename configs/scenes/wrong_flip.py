# The generated scenes, with a transform that flips the image and forgets the boxes: browse_dataset says so.
_base_ = 'dataset.py'

train_dataloader = dict(
    dataset=dict(transforms=[dict(type='RandomPhotometricDistort', p=1.0), dict(type='FlipImageOnly', p=1.0)])
)
