"""Statistics of image normalisation: every batch of images is ImageNet-normalised."""

from __future__ import annotations

# Per channel (red, green, blue), of pixel values in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
