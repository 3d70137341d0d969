"""A run's checkpoints as its train loop sees them: saved while training goes on, verified before they are trusted.

checkpoints/step_00000100/state/...            DeepSpeed's files: model, optimizer, scheduler, the loop's own state
checkpoints/step_00000100/random_00000.pt      the first process's random number generators
checkpoints/step_00000100/manifest.json        who wrote it, size and SHA-256 of every file
checkpoints/latest                             name of the newest, for people
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Any

from arvis_scale.atomic import write_text
from arvis_scale.config import RunConfig
from arvis_scale.engine.checkpointing.branching import take_branch_point
from arvis_scale.engine.checkpointing.files import (
    checkpoint_path,
    disk_use,
    needs_resharding,
    newest_checkpoint,
    publish,
    refuse_other_layout,
    remove_unfinished,
    unfinished_path,
)
from arvis_scale.engine.checkpointing.manifest import (
    Layout,
    Manifest,
    has_part,
    read_manifest,
    take_part,
    write_manifest,
    write_part,
)
from arvis_scale.engine.checkpointing.pruning import STATE, prune_checkpoints
from arvis_scale.engine.checkpointing.random_state import random_state, restore_random_state
from arvis_scale.engine.checkpointing.resharding import load_universal, write_universal
from arvis_scale.engine.checkpointing.writing import PostponedFiles, write_files
from arvis_scale.engine.distributed import Processes
from arvis_scale.engine.parallel.deepspeed_here import DeepSpeedEngine

_logger = logging.getLogger(__name__)
_POLL_SECONDS = 0.02


class Checkpoints:
    """Context in which a run loads and saves itself; at its end everything is written.

    Every process calls every method at the same point. Files are written by a thread of each process, which never talks
    to another process but through files: the first one's completes the checkpoint when all have written theirs.
    """

    def __init__(
        self,
        folder: Path,
        processes: Processes,
        config: RunConfig,
        confirm_lease: Callable[[], None] = lambda: None,
    ) -> None:
        """`confirm_lease` is called before anything that is there is changed; see `HeldLease.confirm`."""
        self._folder = folder
        self._confirm_lease = confirm_lease
        self._processes = processes
        self._config = config
        self._files = PostponedFiles(copies=config.checkpoints.background)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._written: Future[None] | None = None
        self._completed: Future[None] | None = None
        self._abandoned = Event()
        # Seconds that the last `save` kept training waiting, and until this process's files were on disk.
        self.save_seconds = 0.0
        self.seconds_to_disk = 0.0

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.wait()
        # The others may never come; what they have not written is not waited for.
        self._abandoned.set()
        self._thread.shutdown()

    def save(self, engine: DeepSpeedEngine, client_state: dict[str, Any]) -> None:
        """Save the run at `client_state["step"]`; with `checkpoints.background` return once its state is copied.

        A crash at any point, of the machine too, leaves either the whole new checkpoint or none of it, and the one
        before. Waits for the save before this one, and raises what went wrong with it, see `wait`.
        """
        started = time.perf_counter()
        self.wait()
        step = client_state["step"]
        unfinished = unfinished_path(self._folder, step, "unfinished")
        if self._processes.is_first:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
        self._processes.barrier()
        engine.checkpoint_engine = self._files
        engine.save_checkpoint(str(unfinished), tag=STATE, client_state={"run": client_state}, save_latest=False)
        self._files.save(random_state(), unfinished / _random_name(self._processes.rank))
        self._written = self._thread.submit(self._write, self._files.take(), unfinished, started)
        if self._processes.is_first:
            self._completed = self._thread.submit(self._complete, unfinished, step)
        if not self._config.checkpoints.background:
            self.wait()
        self.save_seconds = time.perf_counter() - started

    def wait(self) -> None:
        """Wait until the last `save` is on disk; `RuntimeError` on every process when one could not write it."""
        if self._written is None:
            return
        self._agree(self._written.exception())
        self._agree(self._completed.exception() if self._completed else None)
        self._written = self._completed = None

    def load(self, engine: DeepSpeedEngine) -> dict[str, Any] | None:
        """Load the newest undamaged checkpoint into `engine` and return its client state; None when there is none.

        The first process verifies them, and names damaged ones with the reason in a warning. One of another number of
        processes is spread anew on the way.
        """
        self.wait()
        checkpoint = self._told_by_first(self._choose)
        if checkpoint is None:
            return None
        written, wanted = read_manifest(checkpoint).layout, Layout.of(self._config)
        if needs_resharding(written, wanted):
            client_state = self._load_resharded(engine, checkpoint, written)
        else:
            _, client_state = engine.load_checkpoint(str(checkpoint), tag=STATE)
        if written.processes == wanted.processes:
            restore_random_state(checkpoint / _random_name(self._processes.rank))
        return client_state["run"]

    def _choose(self) -> Path | None:
        remove_unfinished(self._folder)
        chosen = newest_checkpoint(self._folder) or take_branch_point(self._config)
        if chosen is not None:
            refuse_other_layout(chosen, read_manifest(chosen).layout, self._config)
        return chosen

    def _load_resharded(self, engine: DeepSpeedEngine, checkpoint: Path, written: Layout) -> dict[str, Any]:
        universal = unfinished_path(self._folder, read_manifest(checkpoint).step, "universal")
        self._told_by_first(lambda: write_universal(checkpoint / STATE, universal / STATE))
        client_state = load_universal(engine, universal, STATE)
        self._processes.barrier()
        if self._processes.is_first:
            shutil.rmtree(universal)
            _logger.info(
                "%s was written by %d processes, its state is now spread over %d",
                checkpoint,
                written.processes,
                self._processes.world_size,
            )
        return client_state

    def _write(self, files: dict[Path, Any], unfinished: Path, started: float) -> None:
        write_part(unfinished, self._processes.rank, write_files(files, unfinished))
        self.seconds_to_disk = time.perf_counter() - started

    def _complete(self, unfinished: Path, step: int) -> None:
        """Make a checkpoint of the files of all processes as soon as they are written."""
        for rank in range(self._processes.world_size):
            while not has_part(unfinished, rank):
                if self._abandoned.wait(_POLL_SECONDS):
                    return
        files = {}
        for rank in range(self._processes.world_size):
            files.update(take_part(unfinished, rank))
        for script in unfinished.glob("*.py"):  # DeepSpeed's readers of its files, which every installation has
            script.unlink()
        layout = Layout.of(self._config)
        write_manifest(unfinished, Manifest(step, layout, has_optimizer_state=True, files=files))
        final = checkpoint_path(self._folder, step)
        self._confirm_lease()
        publish(unfinished, final)
        write_text(self._folder / "latest", final.name + "\n")
        self._confirm_lease()  # flushing a large checkpoint may have taken long
        prune_checkpoints(self._folder, self._config.checkpoints, step=step)
        self._report(final)

    def _report(self, written: Path) -> None:
        sizes = disk_use(self._folder)
        megabytes, total = sizes[written.name] / 1e6, sum(sizes.values()) / 1e6
        _logger.info("%s: %.1f MB; %d on disk, %.1f MB", written, megabytes, len(sizes), total)

    def _agree(self, error: BaseException | None) -> None:
        """Raise on every process when one has an error."""
        if self._processes.any(error is not None):
            self._abandoned.set()
            what = f"could not be written: {error}" if error else "could not be written by another process"
            raise RuntimeError(f"a checkpoint of {self._folder} {what}") from error

    def _told_by_first(self, task: Callable[[], Any]) -> Any:
        """Return on every process what `task` returns on the first, or raise its `ValueError`."""
        answer: Any = None
        if self._processes.is_first:
            try:
                answer = task()
            except ValueError as error:
                answer = error
        answer = self._processes.tell_all(answer)
        if isinstance(answer, ValueError):
            raise answer
        return answer


def _random_name(rank: int) -> str:
    return f"random_{rank:05d}.pt"
