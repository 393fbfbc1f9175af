# MobileNetV3-Large on ImageNet with 32 images per GPU. mmpretrain ships this config for 128 images per GPU only. The
# learning rate is set for a total batch of 1024, as `auto_scale_lr` records.
_base_ = 'mmpretrain::mobilenet_v3/mobilenet-v3-large_8xb128_in1k.py'

train_dataloader = dict(batch_size=32)
val_dataloader = dict(batch_size=32)
test_dataloader = dict(batch_size=32)
