# ViT-B/16 fine-tuned at 384 pixels, unchanged, under the older spelling of its name.
_base_ = 'mmpretrain::vision_transformer/vit-base-p16_64xb64_in1k-384px.py'
