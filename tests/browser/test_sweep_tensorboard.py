"""`arvis-scale sweep tensorboard`: the HPARAMS page has a line per run, and its parallel coordinates draw them."""

import json
import re
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from itertools import product

import pytest
import torch

from arvis_scale.atomic import write_json
from arvis_scale.config import load_config, save_config
from arvis_scale.engine.logs.metrics_log import MetricsLog
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.launch.sweep_file import Sweep, SweepRun, write_sweep

SECONDS = 120  # what a loaded machine may take
TABLE = {"experimentName": "", "colParams": [], "startIndex": 0, "sliceSize": 100}
TABLE["allowedStatuses"] = ["STATUS_SUCCESS", "STATUS_UNKNOWN", "STATUS_RUNNING", "STATUS_FAILURE"]
# Every element of the page, those in shadow trees too.
ELEMENTS = """(() => {
  const found = [];
  const walk = root => root.querySelectorAll('*').forEach(
    each => { found.push(each); if (each.shadowRoot) walk(each.shadowRoot); });
  walk(document);
  return found;
})()"""


def write_run(study, objective, preset, unique_images):
    name = f"{objective}-{preset}-u{unique_images}"
    folder = RunFolder(study / "runs" / name)
    given = [f"name={name}", f"output={folder.path}", f"objective={objective}", f"preset={preset}", "data.shards=a"]
    config = load_config("digits", [*given, f"unique_images={unique_images}", "samples_seen=128"])
    save_config(config, folder.config)
    with MetricsLog(folder, step=0, num_steps=2, is_first=True) as log:
        log.begin(config, unique_images=unique_images, images={"attention_mask/raster": torch.ones(3, 8, 8)})
        for step in (1, 2):
            log.scalars(step, {"loss": 2.0 / step, "seconds_per_step": 0.5})
        log.scalars(2, {"val_loss": 1.0})
    accuracy = 0.5 + unique_images / 1000
    write_json(folder.result, {"schema_version": 1, "probes": {"linear": {"accuracy": accuracy}}})
    return SweepRun(name, "train")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of 12 completed runs."""
    folder = tmp_path_factory.mktemp("study")
    points = product(("xtra", "aim"), ("nano", "micro"), (10, 100, 300))
    write_sweep(folder, Sweep("twelve", runs=tuple(write_run(folder, *point) for point in points)))
    return folder


@contextmanager
def served(study, log, *options):
    """Yield the address at which the command serves the study."""
    command = [sys.executable, "-m", "arvis_scale", "sweep", "tensorboard", str(study), "--port", "0", *options]
    with log.open("w") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + SECONDS
        while not (found := re.search(r"TensorBoard: (http://127.0.0.1:\d+/)", log.read_text())):
            assert time.monotonic() < deadline and server.poll() is None, log.read_text()
            time.sleep(0.2)
        yield found[1]
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def address(study, tmp_path_factory):
    with served(study, tmp_path_factory.mktemp("log") / "curves.log") as address:
        deadline = time.monotonic() + SECONDS
        while len(lines(address)) < 12 or any(not line["metricValues"] for line in lines(address)):
            assert time.monotonic() < deadline, lines(address)
            time.sleep(0.2)
        yield address


def ask(address, path, question=None):
    data = None if question is None else json.dumps(question).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def lines(address):
    return ask(address, "data/plugin/hparams/session_groups", TABLE)["sessionGroups"]


@pytest.mark.processes
def test_every_run_is_a_line_with_what_the_study_varies_and_what_it_reached(address):
    by_name = {line["name"]: line for line in lines(address)}
    assert len(by_name) == 12
    line = by_name["aim-micro-u300"]
    assert line["hparams"] == {"objective": "aim", "preset": "micro", "unique_images": 300}
    results = {result["name"]["tag"]: result["value"] for result in line["metricValues"]}
    assert results == {"probe/linear_accuracy": pytest.approx(0.8), "loss/val_loss": 1.0}
    assert [session["name"] for session in line["sessions"]] == ["aim/micro/aim-micro-u300"]


@pytest.mark.processes
def test_pictures_are_served_apart(study, address, tmp_path):
    assert ask(address, "data/plugin/images/tags") == {}
    with served(study, tmp_path / "images.log", "--images") as pictures:
        deadline = time.monotonic() + SECONDS
        while len(tags := ask(pictures, "data/plugin/images/tags")) < 12:
            assert time.monotonic() < deadline, tags
            time.sleep(0.2)
    assert "pictures/attention_mask/raster" in tags["xtra/nano/xtra-nano-u10"]


@pytest.mark.browser
def test_parallel_coordinates_draw_every_run(address, page, tmp_path):
    tab = "each => each.tagName == 'PAPER-TAB' && /parallel/i.test(each.textContent)"
    plot = "each => each.tagName == 'TF-HPARAMS-PARALLEL-COORDS-PLOT'"
    drawn = f"{ELEMENTS}.find({plot})?.shadowRoot.querySelectorAll('.foreground path').length"
    page.open(f"{address}#hparams")
    page.wait_until(f"{ELEMENTS}.some({tab})", SECONDS)
    page.evaluate(f"{ELEMENTS}.find({tab}).click()")
    page.wait_until(f"{drawn} == 12", SECONDS)
    words = page.evaluate(f"{ELEMENTS}.find({plot}).shadowRoot.textContent")
    for axis in ("objective", "preset", "unique_images", "linear probe accuracy", "validation loss", "aim", "nano"):
        assert axis in words
    page.screenshot(tmp_path / "parallel_coordinates.png")
    assert (tmp_path / "parallel_coordinates.png").stat().st_size > 20_000
