# A small RetinaNet of torchvision for the generated scenes in demo/scenes. It resizes and normalizes images itself.
default_scope = 'mmpretrain'
custom_imports = dict(imports=['demo.scenes.networks', 'demo.scenes.annotated'])

model = dict(type='mmengine.SceneDetector', num_classes=4)
data_preprocessor = dict(mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0], to_rgb=True)
load_from = 'demo/scenes/detector.pth'

test_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
val_dataloader = dict(dataset=dict(type='mmengine.AnnotatedScenes', pipeline=test_pipeline))
