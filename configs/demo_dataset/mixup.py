# Batches mixed by Mixup and CutMix, as in the training of DeiT, Swin and ConvNeXt. `browse_dataset --mode batch` shows
# them.
_base_ = './plain.py'

model = dict(
    type='ImageClassifier',
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
