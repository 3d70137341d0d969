"""The typed configuration of one training run: dataclasses <- YAML <- key=value, strict.

A configuration is data: loading one never imports or executes anything it names. Unknown keys are refused with their
nearest neighbour, wrong types with the key and the value, contradictions (`RunConfig.validate`) before anything starts.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from arvis_scale.atomic import check_schema, write_text
from arvis_scale.models.options import AimOptions, DigptOptions, IgptOptions, MaeOptions, XtraOptions

SCHEMA_VERSION = 1
OBJECTIVES = ("xtra", "aim", "digpt", "igpt", "mae")
STRATEGIES = ("zero1", "zero2", "zero3")
PRECISIONS = ("fp32", "bf16")
TEACHER_KINDS = ("open_clip", "timm", "vq", "pixels")


@dataclass
class DataConfig:
    """The images that the model is pretrained on."""

    # Folder written by `arvis-scale shards build`.
    shards: str = MISSING
    # Split that is trained on.
    train_split: str = "train"
    # Split whose loss is reported as validation loss; null: `test` where the shards have one, else a part of the train
    # split, `validation_fraction` of it.
    validation_split: str | None = None
    # Fraction of the train split held out for validation (seeded, never trained on) where there is no split for it.
    validation_fraction: float = 0.05
    # At most this many images (a seeded choice) give the validation loss; null: all of the split.
    validation_images: int | None = None
    # Seed of the permutation whose first `unique_images` entries are trained on; the same seed gives nested subsets.
    subset_seed: int = 0
    # Random resized crop: area kept, as fractions of the image's area, and aspect ratio (width / height).
    crop_scale_min: float = 0.3
    crop_scale_max: float = 1.0
    crop_ratio_min: float = 0.75
    crop_ratio_max: float = 1.5
    # Probability of a horizontal flip.
    horizontal_flip: float = 0.5
    # Loader worker processes per training process; 0 reads in the training process itself.
    num_workers: int = 0


@dataclass
class OptimizerConfig:
    """AdamW with a linear warm-up and a cosine decay. No weight decay on one-dimensional parameters."""

    # Peak learning rate, reached after the warm-up; not scaled by the batch size.
    learning_rate: float = 1e-3
    # Learning rate of the first step and of the last.
    initial_learning_rate: float = 1e-4
    final_learning_rate: float = 1e-6
    # Fraction of the training steps spent warming up.
    warmup_fraction: float = 0.05
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.95
    # Gradients are scaled down to this global norm when they exceed it.
    clip_grad_norm: float = 1.0


@dataclass
class ParallelConfig:
    """How the run is spread over processes; the losses do not depend on it."""

    # DeepSpeed strategy: the name of a file of ds_configs/ (zero1, zero2, zero3).
    strategy: str = "zero1"
    # Training processes of the run, one per device. Under torchrun or Slurm the launcher's count must agree.
    processes: int = 1
    # Keys of the strategy's JSON to replace, e.g. {zero_optimization: {overlap_comm: false}}.
    deepspeed: dict[str, Any] = field(default_factory=dict)


@dataclass
class LogConfig:
    """Cadences, in optimizer steps."""

    # One line of metrics.jsonl and one TensorBoard point every so many steps.
    metrics_every: int = 10
    # Validation loss and reconstruction image every so many steps, and always after the last; 0: only after the last.
    validate_every: int = 0
    # Checkpoint every so many steps, and always when preempted; 0: only when preempted.
    checkpoint_every: int = 200
    # Newest checkpoints kept.
    keep_checkpoints: int = 2


@dataclass
class TeacherConfig:
    """The frozen model whose tokens D-iGPT predicts; other objectives have none."""

    # open_clip: an image tower of CLIP | timm: a vision transformer (DINO, supervised) | vq: codebook vectors of a
    # tokenizer of `weights train-vq` | pixels: the image itself, without weights.
    kind: str = "open_clip"
    # Local weights: a folder of `weights fetch`, `weights train-vq` or open_clip, or a file; never downloaded.
    checkpoint: str | None = None
    # Model that a bare file of weights holds, as open_clip (ViT-H-14) or timm (vit_base_patch16_224.dino) calls it;
    # null: what the folder says.
    architecture: str | None = None
    # fp32 | bf16, of weights and computation; null: bf16 on a GPU, fp32 on a CPU. Pixels are always fp32.
    precision: str | None = None


@dataclass
class ProbeDataConfig:
    """The labelled images that measure the encoder; most users pretrain on other, unlabelled ones."""

    # Folder written by `arvis-scale shards build` from labelled images; null: the run is not probed.
    shards: str | None = None
    # Split that the classifier is fitted on, and the one that its accuracy is measured on.
    train_split: str = "train"
    test_split: str = "test"
    # At most this many images (a seeded choice, the same for all runs) fit the classifier; null: all of the split.
    train_images: int | None = None
    # Probe after every layer, not only the last; iGPT's encoder, which is best in the middle, always is.
    every_layer: bool = False


@dataclass
class RunConfig:
    """One training run, complete: the same file, with another `output`, trains the same model again."""

    schema_version: int = SCHEMA_VERSION
    # Readable name of the run; also the name of its folder in a study.
    name: str = MISSING
    # Run folder.
    output: str = MISSING
    # xtra | aim | digpt | igpt | mae
    objective: str = MISSING
    # Encoder size by name (`arvis_scale.models.presets`).
    preset: str = "S"
    # Side of the square training image, and of a patch, in pixels.
    image_size: int = 224
    patch_size: int = 16
    # Seed of initial weights, data order, augmentation and every random draw of the objective.
    seed: int = 0
    # Number of different images trained on; null: all of the train split.
    unique_images: int | None = None
    # Number of images that pass through the model, repeats counted; rounded up to whole global batches.
    # 0 trains nothing and probes the untrained encoder.
    samples_seen: int = MISSING
    # Images per optimizer step over all processes, and per forward pass of one process; accumulation is derived.
    global_batch_size: int = 256
    micro_batch_size: int = 256
    # fp32 | bf16 (fp32 master weights).
    precision: str = "fp32"
    # Folder of `weights import` whose objective the run starts from; null: random weights.
    initial_weights: str | None = None

    data: DataConfig = field(default_factory=DataConfig)
    probe_data: ProbeDataConfig = field(default_factory=ProbeDataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    log: LogConfig = field(default_factory=LogConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    # Options of each objective; only the section of `objective` is read.
    xtra: XtraOptions = field(default_factory=XtraOptions)
    aim: AimOptions = field(default_factory=AimOptions)
    digpt: DigptOptions = field(default_factory=DigptOptions)
    igpt: IgptOptions = field(default_factory=IgptOptions)
    mae: MaeOptions = field(default_factory=MaeOptions)

    @property
    def num_steps(self) -> int:
        """Optimizer steps: whole global batches that hold at least `samples_seen` images."""
        return -(-self.samples_seen // self.global_batch_size)

    @property
    def accumulation_steps(self) -> int:
        """Micro batches that one process averages per optimizer step."""
        return self.global_batch_size // (self.micro_batch_size * self.parallel.processes)

    def validate(self) -> None:
        """Raise `ValueError`, naming key and value, for what no run could train with."""
        _one_of("objective", self.objective, OBJECTIVES)
        _one_of("precision", self.precision, PRECISIONS)
        _one_of("parallel.strategy", self.parallel.strategy, STRATEGIES)
        for key in ("global_batch_size", "micro_batch_size", "parallel.processes", "image_size", "patch_size"):
            if self._get(key) < 1:
                raise ValueError(f"{key}={self._get(key)} must be at least 1")
        per_pass = self.micro_batch_size * self.parallel.processes
        if self.global_batch_size % per_pass:
            raise ValueError(
                f"global_batch_size={self.global_batch_size} is not a multiple of micro_batch_size="
                f"{self.micro_batch_size} x parallel.processes={self.parallel.processes} = {per_pass}; change one"
            )
        if self.samples_seen < 0:
            raise ValueError(f"samples_seen={self.samples_seen} must not be negative")
        if self.unique_images is not None and self.unique_images < 1:
            raise ValueError(f"unique_images={self.unique_images} must be at least 1, or null for the whole split")
        if self.log.metrics_every < 1:
            raise ValueError(f"log.metrics_every={self.log.metrics_every} must be at least 1")
        if self.log.keep_checkpoints < 1:
            raise ValueError(f"log.keep_checkpoints={self.log.keep_checkpoints} must be at least 1")
        if self.seed < 0 or self.data.subset_seed < 0:
            raise ValueError(f"seed={self.seed} and data.subset_seed={self.data.subset_seed} must not be negative")
        if self.optimizer.learning_rate <= 0:
            raise ValueError(f"optimizer.learning_rate={self.optimizer.learning_rate} must be positive")
        data = self.data
        for low, high in (("crop_scale_min", "crop_scale_max"), ("crop_ratio_min", "crop_ratio_max")):
            least, most = getattr(data, low), getattr(data, high)
            if not 0 < least <= most:
                raise ValueError(f"data.{low}={least} and data.{high}={most} are no range above 0")
        if data.crop_scale_max > 1:
            raise ValueError(f"data.crop_scale_max={data.crop_scale_max} is more than the whole image, 1")
        if not 0 <= data.horizontal_flip <= 1:
            raise ValueError(f"data.horizontal_flip={data.horizontal_flip} is no probability")
        if not 0 <= self.optimizer.warmup_fraction <= 1:
            raise ValueError(f"optimizer.warmup_fraction={self.optimizer.warmup_fraction} must lie between 0 and 1")
        if self.optimizer.clip_grad_norm <= 0:
            raise ValueError(f"optimizer.clip_grad_norm={self.optimizer.clip_grad_norm} must be positive")
        _one_of("teacher.kind", self.teacher.kind, TEACHER_KINDS)
        if self.teacher.precision is not None:
            _one_of("teacher.precision", self.teacher.precision, PRECISIONS)
        if self.objective == "digpt" and self.teacher.kind != "pixels" and self.teacher.checkpoint is None:
            raise ValueError("objective=digpt needs teacher.checkpoint=FILE_OR_FOLDER, local weights (`weights fetch`)")

    def _get(self, key: str) -> Any:
        value: Any = self
        for part in key.split("."):
            value = getattr(value, part)
        return value


def _one_of(key: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{key}={value!r} is not known{suggestion(value, allowed)}; one of {', '.join(allowed)}")


def suggestion(word: str, known: Sequence[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known word, or nothing when none is near."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def recipe_path(name_or_path: str) -> Path:
    """Return the YAML file that `name_or_path` means: a path, or the name of a recipe that ships with the package."""
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ValueError(f"{path} does not exist; name a YAML file or a recipe ({', '.join(recipe_names())})")
        return path
    if name_or_path not in recipe_names():
        raise ValueError(
            f"{name_or_path!r} is neither a YAML file nor a recipe{suggestion(name_or_path, recipe_names())}"
            f" (recipes: {', '.join(recipe_names())})"
        )
    return Path(str(resources.files("arvis_scale.recipes"))) / f"{name_or_path}.yaml"


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with the package."""
    folder = Path(str(resources.files("arvis_scale.recipes")))
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; `ValueError` names the file when it is not one."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no keys; expected a YAML mapping")
    return value


def parse_override(override: str) -> tuple[str, Any]:
    """Split `key=value`, the value read as YAML (`1e-3` as a number too, which YAML 1.1 alone would not do)."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ValueError(f"{override!r} is not of the form key=value")
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))
    except yaml.YAMLError as error:
        raise ValueError(f"{override!r}: {text!r} is not a YAML value; quote it, as in {key}='\"...\"'") from error
    assert isinstance(value, dict), "a mapping was given"
    return key, value["value"]


def build_config(values: Mapping[str, Any], overrides: Mapping[str, Any], source: str) -> RunConfig:
    """Return the validated configuration of nested `values` with dotted-key `overrides` on top.

    `source` is what an error names: a file, or the run of a study.
    """
    schema = OmegaConf.structured(RunConfig)
    flat = dict(_flatten(values))
    flat.update(overrides)
    for key in flat:
        _check_key(key, schema, source)
    config = OmegaConf.create(schema)
    for key, value in flat.items():
        try:
            OmegaConf.update(config, key, value)
        except OmegaConfBaseException as error:
            raise ValueError(f"{source}: {key}={value!r}: {str(error).splitlines()[0]}") from error
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ValueError(f"{source}: {', '.join(missing)} must be given (in the file or as {missing[0]}=...)")
    run = OmegaConf.to_object(config)
    assert isinstance(run, RunConfig)
    check_schema(source, run.schema_version, SCHEMA_VERSION)
    run.validate()
    return run


def load_config(name_or_path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the configuration of a YAML file or recipe with `key=value` overrides on top."""
    path = recipe_path(name_or_path)
    return build_config(load_yaml(path), dict(map(parse_override, overrides)), str(path))


def save_config(config: RunConfig, path: Path) -> None:
    """Write every key of `config` as YAML, so that the file alone repeats the run."""
    write_text(path, OmegaConf.to_yaml(OmegaConf.structured(config)))


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return dotted keys and leaf values. `parallel.deepspeed` is free-form and stays one leaf."""
    flat: list[tuple[str, Any]] = []
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and dotted != "parallel.deepspeed":
            flat.extend(_flatten(value, f"{dotted}."))
        else:
            flat.append((dotted, value))
    return flat


def _known_keys(schema: DictConfig, prefix: str = "") -> list[str]:
    known: list[str] = []
    for key in map(str, schema):
        node = schema._get_node(key)
        known.append(f"{prefix}{key}")
        if isinstance(node, DictConfig) and f"{prefix}{key}" != "parallel.deepspeed":
            known.extend(_known_keys(node, f"{prefix}{key}."))
    return known


def _check_key(key: str, schema: DictConfig, source: str) -> None:
    known = _known_keys(schema)
    if key in known or key.startswith("parallel.deepspeed."):
        return
    section, _, leaf = key.rpartition(".")
    # People put a key into the wrong section, or misspell it within the right one.
    same_leaf = [other for other in known if other.rpartition(".")[2] == leaf]
    siblings = [other.rpartition(".")[2] for other in known if section and other.rpartition(".")[0] == section]
    if same_leaf:
        hint = f"; did you mean {same_leaf[0]!r}?"
    elif siblings:
        hint = suggestion(leaf, siblings) or f"; {section} has {', '.join(siblings)}"
    else:
        hint = suggestion(key, known)
    raise ValueError(f"{source}: unknown key {key!r}{hint}")
