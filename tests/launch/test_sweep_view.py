"""The view of a sweep that TensorBoard shows: grouped, thinned, kept up, with a line per run in HPARAMS."""

import json

import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.util.tensor_util import make_ndarray

from arvis_scale.atomic import write_json
from arvis_scale.config import load_config, save_config
from arvis_scale.engine.run_folder import RunFolder
from arvis_scale.launch.sweep_file import Sweep, SweepRun, write_sweep
from arvis_scale.launch.tensorboard_view.sweep_view import SweepView
from arvis_scale.launch.tensorboard_view.thinned_metrics import MAX_POINTS, ReadSoFar, new_records

NUM_STEPS = 5000


def lines(steps, loss=1.0):
    records = [{"step": step, "loss": loss, "lr": 0.1, "seconds_per_step": 0.5, "mfu": None} for step in steps]
    return "".join(json.dumps(record) + "\n" for record in records)


def write_run(study, name, *overrides, loss=1.0, steps=range(1, NUM_STEPS + 1)):
    folder = RunFolder(study / "runs" / name)
    fixed = [f"name={name}", f"output={folder.path}", f"samples_seen={64 * NUM_STEPS}", "data.shards=a"]
    save_config(load_config("digits", [*fixed, "objective=xtra", *overrides]), folder.config)
    folder.metrics.write_text(lines(steps, loss))
    return folder


@pytest.fixture
def study(tmp_path):
    """Two runs and the raw pixels, none with a result yet."""
    write_run(tmp_path, "small", "preset=nano", "unique_images=100")
    write_run(tmp_path, "large", "preset=micro", "unique_images=300", "optimizer.weight_decay=0.5")
    write_run(tmp_path, "raw-pixels", "samples_seen=0", steps=[])
    runs = [SweepRun("small", "train"), SweepRun("large", "train"), SweepRun("raw-pixels", "raw_pixels")]
    write_sweep(tmp_path, Sweep("two", runs=tuple(runs)))
    return tmp_path


def look(study):
    with SweepView(study) as view:
        view.update()
        return view


def events(study, group):
    accumulator = EventAccumulator(str(study / "tensorboard" / "scalars" / group), size_guidance={"tensors": 0})
    accumulator.Reload()
    return accumulator


def points(study, group, tag):
    return [(event.step, float(make_ndarray(event.tensor_proto))) for event in events(study, group).Tensors(tag)]


def hparams(study, group, tag):
    content = events(study, group).SummaryMetadata(f"_hparams_/{tag}").plugin_data.content
    return HParamsPluginData.FromString(content)


def test_curves_are_thinned_and_keep_their_ends(study):
    look(study)
    curve = points(study, "xtra/nano/small", "loss/loss")
    steps = [step for step, _ in curve]
    assert MAX_POINTS <= len(steps) <= MAX_POINTS + 1
    assert (steps[0], steps[-1]) == (1, NUM_STEPS)
    assert steps == sorted(set(steps))
    assert [step for step, _ in points(study, "xtra/micro/large", "optimizer/lr")] == steps
    assert "system/mfu" not in events(study, "xtra/nano/small").Tags()["tensors"]


def test_a_run_s_line_has_what_the_study_varies_and_its_results_when_it_has_them(study):
    look(study)
    table = hparams(study, ".", "experiment").experiment
    names = ["objective", "preset", "unique_images", "optimizer.weight_decay"]
    assert [column.name for column in table.hparam_infos] == names
    assert [metric.name.tag for metric in table.metric_infos] == ["probe/linear_accuracy", "loss/val_loss"]
    line = hparams(study, "xtra/nano/small", "session_start_info").session_start_info
    assert line.group_name == "small"
    assert line.hparams["preset"].string_value == "nano"
    assert line.hparams["unique_images"].number_value == 100
    with pytest.raises(KeyError):
        hparams(study, "xtra/nano/small", "session_end_info")
    result = RunFolder(study / "runs" / "small").result
    write_json(result, {"schema_version": 1, "probes": {"linear": {"accuracy": 0.75}}})
    look(study)
    assert points(study, "xtra/nano/small", "probe/linear_accuracy") == [(NUM_STEPS, 0.75)]
    assert hparams(study, "xtra/nano/small", "session_end_info").session_end_info.status == 1


def test_a_run_on_all_images_is_a_line_when_their_number_is_known(study):
    folder = write_run(study, "large", "preset=micro", "unique_images=null")
    look(study)
    assert "_hparams_/session_start_info" not in events(study, "xtra/micro/large").Tags()["tensors"]
    write_json(folder.result, {"schema_version": 1, "unique_images": 1437, "probes": {}})
    look(study)
    line = hparams(study, "xtra/micro/large", "session_start_info").session_start_info
    assert line.hparams["unique_images"].number_value == 1437


def test_raw_pixels_have_their_accuracy_and_no_line(study):
    result = RunFolder(study / "runs" / "raw-pixels").result
    write_json(result, {"schema_version": 1, "unique_images": 0, "probes": {"linear": {"accuracy": 0.5}}})
    look(study)
    assert points(study, "raw_pixels/none/raw-pixels", "probe/linear_accuracy") == [(0, 0.5)]
    assert "_hparams_/session_start_info" not in events(study, "raw_pixels/none/raw-pixels").Tags()["tensors"]


def test_what_a_run_adds_is_added_and_what_it_drops_is_dropped(study):
    folder = write_run(study, "small", "preset=nano", "unique_images=100", steps=range(1, 2001))
    look(study)
    with folder.metrics.open("a") as file:
        file.write(lines(range(2001, 4001), loss=2.0))
    look(study)
    curve = dict(points(study, "xtra/nano/small", "loss/loss"))
    assert (curve[1], curve[max(curve)]) == (1.0, 2.0) and max(curve) > 3900
    # A start from the checkpoint of step 3000 writes the file anew.
    for end in (3001, 4501):  # shorter than what was read, then longer, in the same file
        folder.metrics.write_text(lines(range(1, end), loss=float(end)))
        look(study)
        curve = points(study, "xtra/nano/small", "loss/loss")
        assert {value for _, value in curve} == {float(end)}
        assert [step for step, _ in curve] == sorted({step for step, _ in curve}) and max(curve)[0] < end


def test_a_look_at_what_has_not_changed_writes_nothing(study):
    look(study)
    files = set((study / "tensorboard").rglob("events*"))
    look(study)
    assert set((study / "tensorboard").rglob("events*")) == files


def test_a_view_of_which_nothing_is_known_is_written_anew(study):
    look(study)
    (study / "tensorboard" / "view.json").write_text("{")
    look(study)
    steps = [step for step, _ in points(study, "xtra/nano/small", "loss/loss")]
    assert steps == sorted(set(steps)) and len(steps) >= MAX_POINTS


def test_a_study_that_varies_another_key_gets_its_column(study):
    look(study)
    write_run(study, "third", "preset=nano", "unique_images=100", "data.crop_scale_min=0.5")
    runs = [SweepRun(name, "train") for name in ("small", "large", "third")]
    write_sweep(study, Sweep("two", runs=tuple(runs)))
    look(study)
    assert "data.crop_scale_min" in [
        column.name for column in hparams(study, ".", "experiment").experiment.hparam_infos
    ]
    line = hparams(study, "xtra/nano/small", "session_start_info").session_start_info
    assert line.hparams["data.crop_scale_min"].number_value == pytest.approx(0.7)


def test_pictures_are_linked_apart_from_the_curves(study):
    pictures = RunFolder(study / "runs" / "small").tensorboard_images
    pictures.mkdir()
    view = look(study)
    assert (view.images / "xtra" / "nano" / "small").resolve() == pictures
    assert not list(view.scalars.rglob("*.png"))


def test_a_second_view_at_the_same_time_only_looks(study):
    with SweepView(study) as first, SweepView(study) as second:
        second.update()
        assert not second.scalars.exists()
        first.update()
        assert first.scalars.exists()


def test_lines_come_once_and_a_cut_one_when_it_is_whole(tmp_path):
    file, so_far = tmp_path / "metrics.jsonl", ReadSoFar()
    assert new_records(file, so_far, 10) == (False, [])
    file.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert new_records(file, so_far, 10) == (True, [{"step": 1, "loss": 2.0}])
    with file.open("a") as more:
        more.write('ss": 1.0}\n{"step": 2, "val_loss": 3.0}\n')
    assert new_records(file, so_far, 10) == (False, [{"step": 2, "loss": 1.0}, {"step": 2, "val_loss": 3.0}])
