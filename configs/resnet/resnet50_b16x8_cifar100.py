# ResNet-50 on CIFAR-100, unchanged, under the older spelling of its name.
_base_ = 'mmpretrain::resnet/resnet50_8xb16_cifar100.py'
