"""The frozen model that D-iGPT learns from."""

from __future__ import annotations

from dataclasses import dataclass

from arvis_scale.config.hints import PRECISIONS, one_of

TEACHER_KINDS = ("open_clip", "timm", "vq", "pixels")


@dataclass
class TeacherConfig:
    """The frozen model whose tokens D-iGPT predicts; other objectives have none."""

    # open_clip: an image tower of CLIP | timm: a vision transformer (DINO, supervised) | vq: codebook vectors of a
    # tokenizer of `weights train-vq` | pixels: the image itself, without weights.
    kind: str = "open_clip"
    # Local weights: a folder of `weights fetch`, `weights train-...` or open_clip, or a file; never downloaded.
    checkpoint: str | None = None
    # Model that a bare file of weights holds, as open_clip (ViT-H-14) or timm (vit_base_patch16_224.dino) calls it;
    # null: what the folder says.
    architecture: str | None = None
    # fp32 | bf16, of weights and computation; null: bf16 on a GPU, fp32 on a CPU. Pixels are always fp32.
    precision: str | None = None
    # Folder of `shards tokenize`, whose views and tokens are replayed: the teacher is not loaded, and what is said of
    # it above may be left out. null: the teacher runs in every step.
    tokens: str | None = None

    @property
    def is_missing(self) -> bool:
        """Whether neither weights nor stored tokens are named where one of them is needed."""
        return self.kind != "pixels" and self.checkpoint is None and self.tokens is None

    def validate(self) -> None:
        """Raise `ValueError`, naming key and value, for what no run could train with."""
        one_of("teacher.kind", self.kind, TEACHER_KINDS)
        if self.precision is not None:
            one_of("teacher.precision", self.precision, PRECISIONS)
