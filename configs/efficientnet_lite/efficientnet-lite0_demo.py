# EfficientNet-Lite0 on the tiny labelled data set in demo/dataset, which has ImageNet's class ids and names. The path
# is taken from this file, so that the config works from any current folder.
_base_ = './efficientnet-lite0_in1k.py'

data_root = '{{ fileDirname }}/../../demo/dataset'

train_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(data_root=data_root, split='', ann_file='train.txt'))
val_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(data_root=data_root, split='', ann_file='val.txt'))
test_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(data_root=data_root, split='', ann_file='val.txt'))
