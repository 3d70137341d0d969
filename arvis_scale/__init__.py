"""arvis_scale: from a folder of images to efficiency curves of autoregressive image pretraining."""

__version__ = "0.1.0"
