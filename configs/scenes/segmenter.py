# A small FCN of torchvision for the generated scenes in demo/scenes.
default_scope = 'mmpretrain'
custom_imports = dict(imports=['demo.scenes.networks', 'demo.scenes.annotated'])

model = dict(type='mmengine.SceneSegmenter', num_classes=4)
data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
load_from = 'demo/scenes/segmenter.pth'

test_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
val_dataloader = dict(dataset=dict(type='mmengine.AnnotatedScenes', label_maps=True, pipeline=test_pipeline))
