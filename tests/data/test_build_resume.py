"""Builds that are killed and started again."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from arvis_scale.data.build import build_index, build_shards

# A build that kills itself when a stage has come to a number of images.
PROGRAM = """
import os, signal, sys
from pathlib import Path
from arvis_scale.data import build
source, destination, stage, images, function, options = sys.argv[1:]
def kill(at, done, total):
    if at == stage and done >= int(images):
        os.kill(os.getpid(), signal.SIGKILL)
getattr(build, function)(source, Path(destination), progress=kill, **eval(options))
"""


def _killed(
    source: Path, destination: Path, stage: str, images: int, function: str = "build_shards", **options: object
) -> None:
    arguments = [str(source), str(destination), stage, str(images), function, repr(options)]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _stages(source: Path, destination: Path, **options: object) -> dict[str, list[int]]:
    """The numbers of images that each stage of a build reported."""
    seen: dict[str, list[int]] = {}

    def note(stage: str, done: int, total: int | None) -> None:
        seen.setdefault(stage, []).append(done)

    build_shards(source, destination, progress=note, **options)  # type: ignore[arg-type]
    return seen


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, image_bytes: Callable[..., bytes]) -> Path:
    """200 JPEGs of 60 x 40 in two classes. Read-only."""
    root = tmp_path_factory.mktemp("many") / "many"
    for number in range(200):
        path = root / f"class{number % 2}" / f"{number:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(number, "JPEG", (60, 40)))
    return root


@pytest.mark.parametrize("options", [{}, {"shorter_side": 32}])
@pytest.mark.parametrize(("stage", "images"), [("verifying", 150), ("writing", 90)])
def test_a_killed_build_goes_on_and_gives_the_same_bytes(
    many: Path, tmp_path: Path, stage: str, images: int, options: dict[str, int]
) -> None:
    build_shards(many, tmp_path / "whole", samples_per_shard=40, **options)  # type: ignore[arg-type]
    _killed(many, tmp_path / "out", stage, images, samples_per_shard=40, **options)
    assert not (tmp_path / "out").exists()
    seen = _stages(many, tmp_path / "out", samples_per_shard=40, **options)
    assert _digests(tmp_path / "out") == _digests(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]
    # What was done is not done again: 128 images were in the journal, and two of five shards were whole.
    if stage == "verifying":
        assert seen["verifying"][0] == 129
    else:
        assert "verifying" not in seen and seen["writing"][:3] == [40, 80, 81]


def test_a_build_killed_twice_goes_on(many: Path, tmp_path: Path) -> None:
    build_shards(many, tmp_path / "whole", samples_per_shard=40)
    for stage, images in (("verifying", 70), ("verifying", 140), ("writing", 50)):
        _killed(many, tmp_path / "out", stage, images, samples_per_shard=40)
    build_shards(many, tmp_path / "out", samples_per_shard=40)
    assert _digests(tmp_path / "out") == _digests(tmp_path / "whole")


def test_a_line_cut_by_the_kill_is_written_again(many: Path, tmp_path: Path) -> None:
    build_shards(many, tmp_path / "whole", samples_per_shard=40, shorter_side=32)
    _killed(many, tmp_path / "out", "verifying", 150, samples_per_shard=40, shorter_side=32)
    journal = tmp_path / ".out.building" / "verified.jsonl"
    os.truncate(journal, journal.stat().st_size - 7)
    build_shards(many, tmp_path / "out", samples_per_shard=40, shorter_side=32)
    assert _digests(tmp_path / "out") == _digests(tmp_path / "whole")


@pytest.mark.parametrize("other", ["options", "source", "files"])
def test_another_build_into_a_half_built_destination_is_refused(
    many: Path, photos: Path, tmp_path: Path, other: str
) -> None:
    source = Path(shutil.copytree(many, tmp_path / "many"))
    _killed(source, tmp_path / "out", "writing", 90, samples_per_shard=40)
    before = _digests(tmp_path / ".out.building")
    if other == "files":
        (source / "class0" / "000.jpg").unlink()
    with pytest.raises(ValueError, match="half built from other") as caught:
        build_shards(
            photos if other == "source" else source,
            tmp_path / "out",
            samples_per_shard=41 if other == "options" else 40,
        )
    assert "\n" not in str(caught.value) and ".out.building" in str(caught.value)
    assert _digests(tmp_path / ".out.building") == before


def test_two_builds_into_one_destination_do_not_meet(many: Path, tmp_path: Path) -> None:
    program = PROGRAM.replace("os.kill(os.getpid(), signal.SIGKILL)", "print('here', flush=True); sys.stdin.read()")
    arguments = [str(many), str(tmp_path / "out"), "writing", "10", "build_shards", "{}"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None and first.stdout.readline() == b"here\n"
        with pytest.raises(ValueError, match="another process is building"):
            build_shards(many, tmp_path / "out")
        first.communicate()
    assert first.returncode == 0
    assert build_shards(many, tmp_path / "out").was_finished


def test_a_killed_index_of_shards_goes_on(many: Path, tmp_path: Path) -> None:
    build_shards(many, tmp_path / "shards", samples_per_shard=40)
    build_index(tmp_path / "shards", tmp_path / "whole")
    _killed(tmp_path / "shards", tmp_path / "out", "indexing shards", 3, function="build_index")
    assert not (tmp_path / "out").exists()
    seen: list[int] = []
    build_index(tmp_path / "shards", tmp_path / "out", progress=lambda stage, done, total: seen.append(done))
    assert seen == [4, 5]
    assert _digests(tmp_path / "out") == _digests(tmp_path / "whole")


def test_what_a_kill_leaves_after_the_shards_appeared_is_removed(many: Path, tmp_path: Path) -> None:
    build_shards(many, tmp_path / "out")
    leftover = tmp_path / ".out.building"
    leftover.mkdir()
    (leftover / "reencoded.bin").write_bytes(b"large")
    build_shards(many, tmp_path / "out")
    assert not leftover.exists()
