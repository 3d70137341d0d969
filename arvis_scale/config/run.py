"""One training run, complete."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from arvis_scale.config.checkpoints import CheckpointConfig
from arvis_scale.config.data import ADD_AN_INDEX, DataConfig, ProbeDataConfig
from arvis_scale.config.finetune import FinetuneConfig
from arvis_scale.config.guards import GuardConfig
from arvis_scale.config.hints import PRECISIONS, one_of
from arvis_scale.config.log import LogConfig, ProfileConfig
from arvis_scale.config.optimizer import OptimizerConfig
from arvis_scale.config.parallel import ParallelConfig
from arvis_scale.config.teacher import TeacherConfig
from arvis_scale.models.options import AimOptions, DigptOptions, IgptOptions, MaeOptions, XtraOptions

SCHEMA_VERSION = 1
OBJECTIVES = ("xtra", "aim", "digpt", "igpt", "mae")


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
    # Name of the method in tables and on curves, which tells several of one objective apart; null: the objective.
    method: str | None = None
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
    # Folder of the run that this one branches from before its cool-down, equal to it in everything but length; null:
    # trained from scratch (docs/branching.md).
    parent: str | None = None

    data: DataConfig = field(default_factory=DataConfig)
    probe_data: ProbeDataConfig = field(default_factory=ProbeDataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    guards: GuardConfig = field(default_factory=GuardConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    # Read by `arvis-scale finetune` alone.
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    # Options of each objective; only the section of `objective` is read.
    xtra: XtraOptions = field(default_factory=XtraOptions)
    aim: AimOptions = field(default_factory=AimOptions)
    digpt: DigptOptions = field(default_factory=DigptOptions)
    igpt: IgptOptions = field(default_factory=IgptOptions)
    mae: MaeOptions = field(default_factory=MaeOptions)

    @property
    def method_name(self) -> str:
        """The name that the run's method has in tables and on curves."""
        return self.method or self.objective

    @property
    def num_steps(self) -> int:
        """Optimizer steps: whole global batches that hold at least `samples_seen` images."""
        return -(-self.samples_seen // self.global_batch_size)

    @property
    def data_parallel_size(self) -> int:
        """Shares that each global batch is split into: the processes, or the copies of the pipeline."""
        return self.parallel.processes // self.parallel.stages

    @property
    def accumulation_steps(self) -> int:
        """Micro batches that one share of a global batch consists of; a pipeline computes several of them at once."""
        return self.global_batch_size // (self.micro_batch_size * self.data_parallel_size)

    def validate(self) -> None:
        """Raise `ValueError`, naming key and value, for what no run could train with."""
        one_of("objective", self.objective, OBJECTIVES)
        if self.method in (*OBJECTIVES, "raw_pixels", ""):
            raise ValueError(f"method={self.method!r} must be a name of its own, or null for the objective's")
        one_of("precision", self.precision, PRECISIONS)
        for section in (
            self.data,
            self.probe_data,
            self.optimizer,
            self.parallel,
            self.checkpoints,
            self.log,
            self.profile,
            self.guards,
            self.teacher,
            self.finetune,
        ):
            section.validate()
        for key in ("global_batch_size", "micro_batch_size", "image_size", "patch_size"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}={getattr(self, key)} must be at least 1")
        per_pass = self.micro_batch_size * self.data_parallel_size
        if self.global_batch_size % per_pass:
            stages = f" / parallel.stages={self.parallel.stages}" if self.parallel.stages > 1 else ""
            raise ValueError(
                f"global_batch_size={self.global_batch_size} is not a multiple of micro_batch_size="
                f"{self.micro_batch_size} x parallel.processes={self.parallel.processes}{stages} = {per_pass}; "
                f"change one"
            )
        if self.parallel.strategy == "zero0" and self.optimizer.name == "muon":
            raise ValueError(
                "parallel.strategy=zero0 with optimizer.name=muon: an update with gradients that are not finite could "
                "not be left out there; take parallel.strategy=zero1"
            )
        if self.parallel.strategy == "zero0" and self.precision == "bf16":
            raise ValueError(
                "parallel.strategy=zero0 with precision=bf16: DeepSpeed's optimizer for it takes an empty step at the "
                "start, which puts AdamW's step count off by one; take parallel.strategy=zero1"
            )
        if self.samples_seen < 0 or self.seed < 0:
            raise ValueError(f"samples_seen={self.samples_seen} and seed={self.seed} must not be negative")
        if self.optimizer.name == "muon" and self.guards.loss_spike is not None:
            raise ValueError(
                f"guards.loss_spike={self.guards.loss_spike} needs an update that can be left out, which "
                "optimizer.name=muon cannot; set guards.loss_spike=null"
            )
        self._validate_streaming()
        self.optimizer.validate_length(self.num_steps, self.global_batch_size)
        if self.unique_images is not None and self.unique_images < 1:
            raise ValueError(f"unique_images={self.unique_images} must be at least 1, or null for the whole split")
        if self.objective == "digpt" and self.teacher.is_missing:
            raise ValueError("objective=digpt needs teacher.checkpoint=FILE_OR_FOLDER, local weights (`weights fetch`)")

    def _validate_streaming(self) -> None:
        """Raise `ValueError` where a stream is to give what takes samples by number and in an exact order."""
        asked = {
            "unique_images": self.unique_images,
            "parent": self.parent,
            "teacher.tokens": self.teacher.tokens,
            "objective": "igpt" if self.objective == "igpt" else None,  # its palette is of images by number
            "guards.non_finite": "rewind" if self.guards.non_finite == "rewind" else None,
            "guards.loss_spike": "rewind" if self.guards.loss_spike == "rewind" else None,
        }
        for key, value in asked.items():
            if self.data.streaming and value is not None:
                raise ValueError(
                    f"data.streaming=true knows no samples by number, which {key}={value} asks for; {ADD_AN_INDEX}"
                )
