"""Kills a small training run again and again, at the named points of a save and at random moments, and starts it again.

    python tests/distributed/kill_runs.py FOLDER --kills 100 --processes 1 --seed 0

After each kill no checkpoint may be damaged and none that was there before may be lost; whenever the run ends, its
weights must be those of the undisturbed run, bit for bit. Points are functions of the checkpoints' modules, replaced by
ones that kill their process. Processes are forked from one that has imported everything, so that a start costs seconds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arvis_scale.config import build_config, load_config, load_yaml, recipe_path, save_config
from arvis_scale.data.build import build_shards
from arvis_scale.engine.checkpointing import checkpoints, pruning, writing
from arvis_scale.engine.checkpointing.files import newest_checkpoint, step_of
from arvis_scale.engine.ports import free_port

NUM_STEPS = 24


def kill() -> None:
    """End this process as the machine would."""
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(number: int, owner: Any, name: str, act: Callable[..., Any]) -> None:
    """Let the `number`-th call of the function `owner.name` be `act(function, *arguments)`."""
    function, calls = getattr(owner, name), Counter[str]()

    def counted(*arguments: Any, **options: Any) -> Any:
        calls[name] += 1
        act_now = calls[name] == number
        return act(function, *arguments, **options) if act_now else function(*arguments, **options)

    setattr(owner, name, counted)


def before(function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    kill()


def after(function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    function(*arguments, **options)
    kill()


def half_a_file(function: Callable[..., Any], value: Any, path: Path) -> None:
    os.truncate(path, function(value, path).num_bytes // 2)
    kill()


def half_removed(function: Callable[..., Any], checkpoint: Path) -> None:
    def remove_half(folder: Path, **options: Any) -> None:
        if folder.exists():
            next(path for path in sorted(folder.rglob("*")) if path.is_file()).unlink()
            kill()

    shutil.rmtree = remove_half  # type: ignore[assignment]
    function(checkpoint)


def at_random_moment(generator: random.Random) -> None:
    """Kill from a thread, at any time from the loading of the last checkpoint to well after the end."""
    delay = generator.uniform(0.0, 2.5)
    load = checkpoints.Checkpoints.load

    def start_clock(*arguments: Any) -> Any:
        threading.Timer(delay, kill).start()
        return load(*arguments)

    checkpoints.Checkpoints.load = start_clock  # type: ignore[method-assign]


# Name -> what arranges the kill at the n-th time that the point is reached.
POINTS: dict[str, Callable[[int, random.Random], None]] = {
    "mid-file": lambda n, _: at_call(3 * n - 1, writing, "write_tensors", half_a_file),
    "one process has written": lambda n, _: at_call(n, checkpoints, "write_part", after),
    "before the manifest": lambda n, _: at_call(n, checkpoints, "write_manifest", before),
    "before the rename": lambda n, _: at_call(n, checkpoints, "publish", before),
    "between rename and latest": lambda n, _: at_call(n, checkpoints, "publish", after),
    "while pruning": lambda n, _: at_call(n, pruning, "remove_checkpoint", half_removed),
    "before optimizer state goes": lambda n, _: at_call(1, pruning, "write_manifest", before),
    "while optimizer state goes": lambda n, _: at_call(1, pruning, "write_manifest", after),
    "at random": lambda n, generator: at_random_moment(generator),
}


def train_rank(config_path: str, environment: dict[str, str], point: str | None, number: int, seed: int) -> None:
    """Be one process of the run; with a `point`, be killed there the `number`-th time."""
    sys.stderr = open(f"{config_path}.log", "a")  # noqa: SIM115 - the process's own, to its end
    os.environ.update(environment)
    if point is not None:
        POINTS[point](number, random.Random(seed))
    from arvis_scale.engine.train import train

    train(load_config(config_path))


def train(
    config_path: str, num_processes: int, victim: int = 0, point: str | None = None, number: int = 1, seed: int = 0
) -> list[int | None]:
    """Train until the end or until rank `victim` dies; the others die some time after it. Return how each ended."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["arvis_scale.engine.train"])
    shared = {"WORLD_SIZE": str(num_processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = []
    for rank in range(num_processes):
        environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        own_point = point if rank == victim else None
        ranks.append(context.Process(target=train_rank, args=(config_path, environment, own_point, number, seed)))
    for process in ranks:
        process.start()
    while any(process.is_alive() for process in ranks):
        if any(process.exitcode for process in ranks):
            time.sleep(random.Random(seed).uniform(0.0, 0.5))
            for process in ranks:
                process.kill()
        time.sleep(0.01)
    return [process.exitcode for process in ranks]


def newest_step(folder: Path) -> int:
    """Return the step of the newest checkpoint, 0 when there is none; a damaged one is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        newest = newest_checkpoint(folder / "checkpoints")
    return step_of(newest) if newest else 0


def write_run(folder: Path, arguments: argparse.Namespace) -> str:
    """Write the configuration of a run that saves, prunes and removes optimizer states often."""
    stages = arguments.processes if arguments.strategy == "pipeline" else 1
    values = {
        "name": "run",
        "output": str(folder),
        "data.shards": str(folder.parent / "digits"),
        "objective": "xtra",
        "preset": "pico",
        "samples_seen": NUM_STEPS * 8,
        "global_batch_size": 8,
        "micro_batch_size": 8 // arguments.processes,
        "unique_images": 50,
        "data.validation_images": 8,
        "xtra.drop_path": 0.1,
        "parallel.processes": arguments.processes,
        "parallel.strategy": arguments.strategy,
        "parallel.stages": stages,
        "checkpoints.every": 3,
        "checkpoints.keep_last": 2,
        "checkpoints.keep_every": 6,
        "checkpoints.keep_optimizer_state": "newest",
        "log.metrics_every": 1,
    }
    config = build_config(load_yaml(recipe_path("digits")), values, "kill_runs")
    folder.mkdir(parents=True, exist_ok=True)
    save_config(config, folder / "config.yaml")
    shutil.copy(folder / "config.yaml", folder.parent / f"{folder.name}.yaml")
    return str(folder.parent / f"{folder.name}.yaml")


def same_bytes(folder: Path, other: Path) -> bool:
    """Return whether two completed runs ended with the same weights."""
    one, two = (path / "encoder.safetensors" for path in (folder, other))
    return one.read_bytes() == two.read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where shards and runs go")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--strategy", default="zero1", help="`pipeline`: as many stages as processes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--points", nargs="+", choices=POINTS, help="in this order; by default all, shuffled")
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    build_shards("digits", arguments.folder / "digits")
    undisturbed = write_run(arguments.folder / "undisturbed", arguments)
    assert train(undisturbed, arguments.processes) == [0] * arguments.processes, "the undisturbed run failed"
    folder = arguments.folder / "run"
    run = write_run(folder, arguments)
    points: list[str] = []
    kills, ended = Counter[str](), 0
    while kills.total() < arguments.kills or ended == 0 or newest_step(folder):
        step = newest_step(folder)
        points = points or list(arguments.points or generator.sample(list(POINTS), len(POINTS)))
        point = points.pop(0) if kills.total() < arguments.kills else None
        how = train(
            run,
            arguments.processes,
            victim=generator.randrange(arguments.processes) if point in ("mid-file", "at random") else 0,
            point=point,
            number=generator.choice((1, 2)),
            seed=generator.randrange(2**32),
        )
        print(f"{point or 'left alone'}: from step {step} to {newest_step(folder)}, {how}", flush=True)
        assert newest_step(folder) >= step, "a checkpoint was lost"
        if -signal.SIGKILL in how:
            assert point is not None, "killed without a point"
            kills[point] += 1
            continue
        assert how == [0] * arguments.processes, f"failed: {(arguments.folder / 'run.yaml.log').read_text()[-3000:]}"
        assert same_bytes(folder, arguments.folder / "undisturbed"), "other weights than the undisturbed run's"
        ended += 1
        shutil.rmtree(folder)
        run = write_run(folder, arguments)
    print(f"{kills.total()} kills, {ended} runs ended, all with the weights of the undisturbed run", flush=True)
    print(dict(kills))


if __name__ == "__main__":
    main()
