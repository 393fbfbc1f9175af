# EfficientNet-Lite0 on the small labeled dataset in demo/dataset, which uses ImageNet's class ids and names. The path
# is relative to this file, so the config works from any current folder.
_base_ = './efficientnet-lite0_in1k.py'

data_root = '{{ fileDirname }}/../../demo/dataset'

train_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(data_root=data_root, split='', ann_file='train.txt'))
val_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(data_root=data_root, split='', ann_file='val.txt'))
test_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(data_root=data_root, split='', ann_file='val.txt'))
