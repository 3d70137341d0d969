"""What every pretraining objective is: per-image losses, reduced in one place."""

from __future__ import annotations

from torch import Tensor, nn

from arvis_scale.models.encoder import Backbone
from arvis_scale.models.pipeline import PipelineLayer, Step, cut


def mean_over_images(per_image: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean of `per_image` (`B`), weighted by `weights` (`B`, not negative) where given; 0 if all weigh 0."""
    if weights is None:
        return per_image.mean()
    weights = weights.to(per_image.dtype)
    return (per_image * weights).sum() / weights.sum().clamp_min(1e-12)


class Objective(nn.Module):
    """A pretraining method: `forward(batch)` gives the loss, `encoder` is what is used afterwards.

    A batch holds `images` (float, `B x 3 x H x W`, ImageNet-normalised), `sample_seeds` (int64, `B`; needed whenever
    the method draws anything), optionally `weights` (float, `B`: an image of weight 0 counts for nothing), and what the
    method adds (`teacher_tokens`; `step`, int64, no dimensions, the number of the optimizer step, for what a whole step
    draws).
    """

    encoder: Backbone

    def image_losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of each image, float32, `B`, and named parts of it, `B` each."""
        raise NotImplementedError

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar loss and named scalar metrics, which carry no gradient."""
        losses, parts = self.image_losses(batch)
        weights = batch.get("weights")
        metrics = {name: mean_over_images(part.detach(), weights) for name, part in parts.items()}
        return mean_over_images(losses, weights), metrics

    def pipeline_steps(self) -> list[Step]:
        """Return what `forward` computes, from the entries of a batch to the loss, step by step."""
        raise NotImplementedError

    def pipeline_layers(self) -> list[PipelineLayer]:
        """Return the objective cut into layers for pipeline parallelism; they hold its own parameters.

        The first reads what `pipeline.first_inputs` takes from a batch, the last returns the loss of `forward`.
        """
        return cut(self, self.pipeline_steps())

    def reconstruct(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return pictures of what the model predicts, `B x 3 x H x W` each, ImageNet-normalised, by name.

        Pixel objectives give `target` and `prediction`; an objective that predicts no pixels gives none.
        """
        return {}


def sample_seeds_of(batch: dict[str, Tensor], drawn: str) -> Tensor:
    """Return `batch["sample_seeds"]`; `ValueError` says what is `drawn` from it when it is missing."""
    if "sample_seeds" not in batch:
        raise ValueError(f'{drawn} are drawn from batch["sample_seeds"]; the batch has none')
    return batch["sample_seeds"]
