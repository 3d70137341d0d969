"""The README.md beside exported weights: what they are, what they were trained on, how to load them."""

from __future__ import annotations

from typing import Any

from arvis_scale.config import RunConfig
from arvis_scale.models.encoder import Backbone
from arvis_scale.models.timm_export import check_exportable, transfer_mask

_LOAD_TIMM = """\
```python
import timm

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
tokens = model.forward_features(images)  # B x {num_tokens} x {width}, the last layer{after}
```

{tokens}Images are `B x 3 x {side} x {side}`, normalized with ImageNet's mean and standard deviation.
"""
_LOAD_TIMM_MASKED = """\
```python
import timm
from safetensors.torch import load_file

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
mask = load_file("FOLDER/attention_mask.safetensors")["attention_mask"]
tokens = model.forward_features(images, attn_mask=mask)  # B x {num_tokens} x {width}, the last layer{after}
```

**The mask must be passed.** This encoder was trained with a block causal mask that stays on at transfer. timm keeps
none of its own: `model(images)` and `forward_features(images)` without it run, and give other features.
Images are `B x 3 x {side} x {side}`, normalized with ImageNet's mean and standard deviation.
"""
_LOAD_SAFETENSORS = """\
```python
from arvis_scale.engine.weights.export_weights import load_run_encoder

encoder = load_run_encoder("FOLDER")
(tokens,) = encoder.layer_outputs(images, [encoder.depth])  # B x N x {width}, before the final norm
```

Attention is as the encoder was trained to be used at transfer. Images are `B x 3 x {side} x {side}`, normalized with
ImageNet's mean and standard deviation.
"""


def model_card(encoder: Backbone, config: RunConfig, result: dict[str, Any] | None, *, kind: str) -> str:
    """Return the card of an encoder exported as `kind` (timm | safetensors); `result`: the run's result.json."""
    result = result or {}
    rows = [
        ("objective", config.objective),
        ("preset", config.preset),
        ("width, depth", f"{encoder.width}, {encoder.depth}"),
        ("image, patch", f"{config.image_size}, {config.patch_size} pixels"),
        ("parameters", f"{sum(parameter.numel() for parameter in encoder.parameters()):,}"),
        *_training_rows(result),
        *_probe_rows(result),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return (
        f"# {config.name}\n\nAn image encoder exported by arvis_scale.\n\n| | |\n|---|---|\n{table}\n\n"
        f"## Loading\n\n{_loading(encoder, config, kind)}\n"
        "## License\n\nThe code that made these weights is under Apache-2.0. The weights carry no license of their "
        "own: the terms of the images they were trained on, and of the weights they were made from, apply to them.\n"
    )


def _training_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    if "source" in result:
        source = result["source"]
        return [("imported from", f"{source['file']}, SHA-256 {source['sha256']}"), ("trained on", "not known here")]
    data = result.get("pretrain_data")
    rows = [("trained on", f"{data['name']}, content hash {data['hash']}" if data else "not known here")]
    for key in ("unique_images", "samples_seen"):
        if result.get(key) is not None:
            rows.append((key.replace("_", " "), f"{result[key]:,}"))
    if result.get("initial_weights"):
        rows.append(("started from", result["initial_weights"]))
    return rows


def _probe_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    data = result.get("probe_data")
    rows = []
    for name, probe in result.get("probes", {}).items():
        if isinstance(probe, dict) and "accuracy" in probe:
            interval = f"{probe['accuracy_low']:.4f} to {probe['accuracy_high']:.4f}"
            of = f"{probe['num_test']} images of {data['name']}, content hash {data['hash']}" if data else "test images"
            rows.append((f"{name} probe", f"accuracy {probe['accuracy']:.4f} ({interval}) on {of}"))
    return rows or [("probes", "none")]


def _loading(encoder: Backbone, config: RunConfig, kind: str) -> str:
    if kind == "safetensors":
        return _LOAD_SAFETENSORS.format(width=encoder.width, side=config.image_size)
    exported = check_exportable(encoder)
    has_class_token = exported.cls_token is not None
    template = _LOAD_TIMM if transfer_mask(exported) is None else _LOAD_TIMM_MASKED
    return template.format(
        num_tokens=exported.num_patches + has_class_token,
        width=exported.width,
        side=config.image_size,
        after=" after the final norm" if "norm.weight" in exported.state_dict() else ", which has no final norm",
        tokens="The class token comes first. " if has_class_token else "",
    )
