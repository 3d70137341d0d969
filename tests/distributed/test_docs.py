"""Every command in README and docs does what the page says, in the order of the pages."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.processes

REPOSITORY = Path(__file__).parents[2]
PAGES = (
    "plan.md",
    "shards.md",
    "train.md",
    "probes.md",
    "finetune.md",
    "tensorboard.md",
    "branching.md",
    "guards.md",
    "sweep.md",
    "sweep-status.md",
    "curves.md",
    "figures.md",
    "weights.md",
    "tokens.md",
)
# Run by the tests as a whole, or what runs this test.
LEFT_OUT = ("make demo", "ARVIS_INSTALL_SLURM=1 make test")


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def commands(page):
    lines = [line.partition("  #")[0].strip() for block in blocks(page, "sh") for line in block.splitlines()]
    return [line for line in lines if line and line not in LEFT_OUT]


def test_no_page_is_left_out():
    with_commands = {page.name for page in (REPOSITORY / "docs").glob("*.md") if commands(page)}
    assert with_commands == set(PAGES)
    assert commands(REPOSITORY / "README.md") == []


def test_commands_of_the_pages(tmp_path, environment):
    generator = np.random.default_rng(0)
    for number in range(4):
        (tmp_path / "photos" / "cat").mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 255, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / "cat" / f"{number}.jpg")
    study, _ = blocks(REPOSITORY / "docs" / "sweep.md", "yaml")  # the other is a part of one
    (tmp_path / "my_study.yaml").write_text(study)
    (table,) = blocks(REPOSITORY / "docs" / "curves.md", "csv")
    (tmp_path / "runs.csv").write_text(table)
    path = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    for page in PAGES:
        for line in commands(REPOSITORY / "docs" / page):
            run_line(line, tmp_path, {**environment, "PATH": path})
    assert (tmp_path / "runs" / "my_study" / "report.html").is_file()


def run_line(line, folder, environment):
    words = shlex.split(line)
    words[0] = shutil.which(words[0], path=environment["PATH"]) or words[0]
    if "tensorboard" in line:
        serve_once([*words, "--port", "0"], folder, environment)
        return
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def serve_once(words, folder, environment):
    """Start TensorBoard on a free port, ask it for the runs it shows, and stop it."""
    log = folder / "tensorboard.log"
    with log.open("w") as file:
        server = subprocess.Popen(words, cwd=folder, env=environment, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + 60
        while not (address := re.search(r"http://\S+", log.read_text())):
            assert time.monotonic() < deadline and server.poll() is None, log.read_text()
            time.sleep(0.2)
        while (runs := urllib.request.urlopen(f"{address[0]}data/runs").read()) in (b"[]", b'["."]'):
            assert time.monotonic() < deadline, "TensorBoard shows no run"
            time.sleep(0.2)
        assert (b"xtra/nano/" if "sweep" in words else b"first/tensorboard") in runs
    finally:
        server.terminate()
        server.wait()
