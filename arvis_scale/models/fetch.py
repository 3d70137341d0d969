"""`weights fetch`: pretrained weights stored on a login node, with their hash, for compute nodes without a network.

weights/NAME/weights.json   what it is: name, source, file, size, SHA-256; written last, so that its folder is complete
weights/NAME/...            the file as the hub has it, and for open_clip the configuration that its folders carry
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from arvis_scale.atomic import read_json, whole_file, write_json
from arvis_scale.config import suggestion
from arvis_scale.hashing import sha256_of

RECORD_NAME = "weights.json"
KINDS = ("open_clip", "timm")
_SCHEMA_VERSION = 1
_EXAMPLES = "open_clip:ViT-H-14/laion2b_s32b_b79k, timm:vit_base_patch16_224.dino"


@dataclass(frozen=True)
class FetchedWeights:
    """A folder that `fetch_weights` wrote."""

    # As asked for: open_clip:ARCHITECTURE/TAG or timm:ARCHITECTURE.TAG.
    name: str
    kind: str
    # The library's own name of the model; timm's with its tag, which has the image statistics.
    architecture: str
    # Repository of the Hugging Face hub, or address, that the file came from.
    source: str
    file: Path
    num_bytes: int
    sha256: str

    def verify(self) -> None:
        """Raise `ValueError` unless the file is the one that was fetched."""
        if not self.file.is_file():
            raise ValueError(f"{self.file} is missing; fetch {self.name} again")
        num_bytes = self.file.stat().st_size
        if num_bytes != self.num_bytes:
            raise ValueError(f"{self.file} has {num_bytes} bytes, not {self.num_bytes}; fetch {self.name} again")
        if sha256_of(self.file) != self.sha256:
            raise ValueError(f"{self.file} has changed since it was fetched (SHA-256); fetch {self.name} again")


def read_fetched(folder: Path) -> FetchedWeights | None:
    """Return what `fetch_weights` stored in `folder`; None when it did not write that folder."""
    if not (folder / RECORD_NAME).is_file():
        return None
    values = read_json(folder / RECORD_NAME, newest_schema=_SCHEMA_VERSION)
    values.pop("schema_version")
    return FetchedWeights(**{**values, "file": folder / values["file"]})


def fetch_weights(name: str, weights: Path) -> FetchedWeights:
    """Download pretrained weights into a folder of `weights`, unless they are there, and return where they lie.

    `name`: `open_clip:ARCHITECTURE/TAG` or `timm:ARCHITECTURE.TAG`. Raises `ValueError` for an unknown name, with the
    nearest one, and when the download does not work, as on a machine without a network.
    """
    kind, _, model = name.partition(":")
    if kind not in KINDS or not model:
        raise ValueError(f"{name!r} is no name of weights; expected open_clip:... or timm:..., e.g. {_EXAMPLES}")
    pretrained = _open_clip_pretrained(model) if kind == "open_clip" else _timm_pretrained(model)
    folder = weights / f"{kind}-{model.replace('/', '-')}"
    fetched = read_fetched(folder)
    if fetched is not None:
        fetched.verify()
        return fetched
    weights.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=weights, prefix=".fetch-") as cache:
        try:
            file, source = pretrained.download(cache)
        # What the hub's client raises without a network, for a missing repository and for a damaged file.
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"{name} could not be downloaded ({reason}); run `weights fetch` on a machine with a network, "
                "such as the login node"
            ) from error
        return _store(name, kind, pretrained, file, source, folder)


def _store(
    name: str, kind: str, pretrained: _OpenClipPretrained | _TimmPretrained, file: Path, source: str, folder: Path
) -> FetchedWeights:
    stored = folder / pretrained.file_name(file)
    with whole_file(stored) as temporary:
        shutil.copyfile(file, temporary)
    pretrained.write_config(folder)
    fetched = FetchedWeights(
        name=name,
        kind=kind,
        architecture=pretrained.architecture,
        source=source,
        file=stored,
        num_bytes=stored.stat().st_size,
        sha256=sha256_of(stored),
    )
    write_json(folder / RECORD_NAME, {"schema_version": _SCHEMA_VERSION, **asdict(fetched), "file": stored.name})
    return fetched


@dataclass(frozen=True)
class _OpenClipPretrained:
    architecture: str
    config: dict[str, Any]  # open_clip's own entry for architecture and tag

    def download(self, cache: str) -> tuple[Path, str]:
        from open_clip import pretrained

        file = pretrained.download_pretrained(self.config, cache_dir=cache)
        return Path(file), self.config.get("hf_hub", "").rstrip("/") or self.config.get("url", "")

    def file_name(self, file: Path) -> str:
        """Return the name under which open_clip finds weights in a folder."""
        return "open_clip_model.safetensors" if file.suffix == ".safetensors" else "open_clip_pytorch_model.bin"

    def write_config(self, folder: Path) -> None:
        """Write open_clip_config.json: a file of weights alone knows neither its statistics nor its activation."""
        import open_clip

        model = {**open_clip.get_model_config(self.architecture), "quick_gelu": self.config.get("quick_gelu", False)}
        kept = {key: self.config[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in self.config}
        config = {"schema_version": _SCHEMA_VERSION, "model_cfg": model, "preprocess_cfg": kept}
        write_json(folder / "open_clip_config.json", config)


@dataclass(frozen=True)
class _TimmPretrained:
    architecture: str
    repository: str
    hub_file: str | None

    def download(self, cache: str) -> tuple[Path, str]:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        # Newer repositories have safetensors, the others torch's format.
        names = ("model.safetensors", "pytorch_model.bin") if self.hub_file is None else (self.hub_file,)
        for name in names:
            try:
                return Path(hf_hub_download(self.repository, name, cache_dir=cache)), self.repository
            except LocalEntryNotFoundError:  # no network, though it counts as an EntryNotFoundError
                raise
            except EntryNotFoundError as error:
                missing = error
        raise OSError(str(missing)) from missing

    def file_name(self, file: Path) -> str:
        """Return the hub's own name."""
        return file.name

    def write_config(self, folder: Path) -> None:
        """Write nothing: timm knows its architectures by name."""


def _open_clip_pretrained(model: str) -> _OpenClipPretrained:
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    architecture, _, tag = model.partition("/")
    config = get_pretrained_cfg(architecture, tag) if tag else {}
    if not config:
        known = [f"{known}/{tag}" for known, tag in open_clip.list_pretrained()]
        raise ValueError(
            f"open_clip has no pretrained {model!r}{suggestion(model, known)}; see open_clip.list_pretrained()"
        )
    return _OpenClipPretrained(architecture, config)


def _timm_pretrained(model: str) -> _TimmPretrained:
    import timm
    from timm.models import get_pretrained_cfg

    known = timm.list_pretrained()
    config = get_pretrained_cfg(model) if model in known else None
    if config is None or not config.hf_hub_id:
        raise ValueError(f"timm has no pretrained {model!r} on the hub{suggestion(model, known)}")
    return _TimmPretrained(model, config.hf_hub_id, config.hf_hub_filename)
