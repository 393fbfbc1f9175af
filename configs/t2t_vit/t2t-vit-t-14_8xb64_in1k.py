# T2T-ViT-t-14 on ImageNet, unchanged.
_base_ = 'mmpretrain::t2t_vit/t2t-vit-t-14_8xb64_in1k.py'
