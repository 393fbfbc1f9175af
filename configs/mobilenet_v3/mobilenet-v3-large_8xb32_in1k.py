# MobileNetV3-Large on ImageNet with 32 images a GPU; mmpretrain ships the recipe with 128 only. Its learning rate
# belongs to a batch of 1024, which `auto_scale_lr` remembers.
_base_ = 'mmpretrain::mobilenet_v3/mobilenet-v3-large_8xb128_in1k.py'

train_dataloader = dict(batch_size=32)
val_dataloader = dict(batch_size=32)
test_dataloader = dict(batch_size=32)
