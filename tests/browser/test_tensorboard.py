"""TensorBoard, started on the folders of two runs, shows them: one line of its HPARAMS table each, their curves."""

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request

import pytest
import torch

from arvis_scale.config import load_config, save_config
from arvis_scale.engine.logs.metrics_log import MetricsLog
from arvis_scale.engine.run_folder import RunFolder

SECONDS = 120  # what a loaded machine may take
TABLE = {"experimentName": "", "colParams": [], "startIndex": 0, "sliceSize": 100, "allowedStatuses": []}
TABLE["allowedStatuses"] = ["STATUS_SUCCESS", "STATUS_UNKNOWN", "STATUS_RUNNING", "STATUS_FAILURE"]


def write_run(path, seed, *, starts):
    """Write a run of two steps, as its loop does it, stopped before the second one in all but the last of `starts`."""
    folder = RunFolder(path)
    given = [f"name={path.name}", f"output={path}", "objective=xtra", "data.shards=a", f"seed={seed}"]
    config = load_config("digits", given)
    save_config(config, folder.config)
    for start in range(starts):
        with MetricsLog(folder, step=min(start, 1), num_steps=2, is_first=True) as log:
            if log.is_new:
                log.begin(config, unique_images=7, images={"attention_mask/raster": torch.ones(3, 8, 8)})
            if start == 0:
                log.scalars(1, {"loss": 2.0})
            log.scalars(2, {"loss": 1.0})
    with MetricsLog(folder, step=2, num_steps=2, is_first=True) as log:
        log.scalars(2, {"val_loss": 0.5 + seed})
        log.finish(2, {"linear": {"accuracy": 0.25}})


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    write_run(root / "whole", 0, starts=1)
    write_run(root / "resumed", 1, starts=3)
    log = tmp_path_factory.mktemp("log") / "tensorboard.log"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(root), "--load_fast=false", "--port", "0"]
    with log.open("w") as file:
        server = subprocess.Popen([*command, "--host", "127.0.0.1"], stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + SECONDS
        while not (found := re.search(r"http://\S+", log.read_text())):
            assert time.monotonic() < deadline and server.poll() is None, log.read_text()
            time.sleep(0.2)
        while not all_is_read(ask(found[0], "data/plugin/scalars/tags")):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield found[0]
    finally:
        server.terminate()
        server.wait()


def all_is_read(tags):
    """Return whether the server has come to the last point of both runs."""
    return len(tags) == 2 and all("probe/linear_accuracy" in names for names in tags.values())


def ask(address, path, question=None):
    data = None if question is None else json.dumps(question).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


@pytest.mark.processes
def test_every_run_is_one_line_of_the_hparams_table(address):
    lines = {line["name"]: line for line in ask(address, "data/plugin/hparams/session_groups", TABLE)["sessionGroups"]}
    assert lines.keys() == {"whole/tensorboard", "resumed/tensorboard"}
    for seed, name in enumerate(("whole", "resumed")):
        line = lines[f"{name}/tensorboard"]
        assert line["hparams"] == {
            "objective": "xtra",
            "preset": "micro",
            "unique_images": 7,
            "samples_seen": 16000,
            "learning_rate": 0.006,
            "global_batch_size": 64,
            "seed": seed,
        }
        results = {result["name"]["tag"]: result["value"] for result in line["metricValues"]}
        assert results == {"loss/val_loss": 0.5 + seed, "probe/linear_accuracy": 0.25}
        assert [session["status"] for session in line["sessions"]] == ["STATUS_SUCCESS"]
    columns = ask(address, "data/plugin/hparams/experiment", {"experimentName": ""})["hparamInfos"]
    # The page shows five at first: what a study varies.
    assert {column["name"] for column in columns[:5]} == {
        "objective",
        "preset",
        "unique_images",
        "samples_seen",
        "seed",
    }


@pytest.mark.processes
def test_a_resumed_run_has_every_point_once(address):
    points = ask(address, "data/plugin/scalars/scalars?run=resumed/tensorboard&tag=loss/loss")
    assert [(step, value) for _, step, value in points] == [(1, 2.0), (2, 1.0)]
    texts = ask(address, "data/plugin/text/text?run=resumed/tensorboard&tag=config/text_summary")
    assert len(texts) == 1 and "name: resumed" in texts[0]["text"]


@pytest.mark.browser
def test_the_page_shows_the_curves_of_both_runs(address, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("neither chromium nor google-chrome is installed")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    flags += ["--no-first-run", f"--user-data-dir={tmp_path}", "--virtual-time-budget=20000", "--window-size=1600,2400"]
    deadline = time.monotonic() + SECONDS
    wanted = ("loss/loss", "loss/val_loss", "whole/tensorboard", "resumed/tensorboard")
    page = ""
    while not all(word in page for word in wanted):
        assert time.monotonic() < deadline, f"of {wanted} the page does not show all"
        command = [chromium, *flags, "--dump-dom", f"{address}#timeseries"]
        page = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS).stdout
