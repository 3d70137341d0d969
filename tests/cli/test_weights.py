"""Bad input to the verbs of `weights`, and to teachers of a run: one line, status 2, nothing written."""

import sys

import pytest
import torch
from PIL import Image

from arvis_scale import cli
from arvis_scale.data.build import build_shards


@pytest.fixture
def refused(monkeypatch, capsys):
    """Run the command line, which must end with status 2 and one line that says `said`."""

    def call(said, *arguments):
        monkeypatch.setattr(sys, "argv", ["arvis-scale", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        error = capsys.readouterr().err
        assert ended.value.code == 2
        assert error.startswith("error: ") and said in error and error.count("\n") == 1

    return call


SIZES = ("--preset", "nano", "--image-size", "32", "--patch-size", "8")


def test_names_are_answered_with_near_ones(refused, tmp_path):
    folder = ("--weights", tmp_path / "weights")
    refused("did you mean 'ViT-H-14/laion2b_s32b_b79k'?", "weights", "fetch", "open_clip:ViT-H-14/laion2b", *folder)
    refused("did you mean 'vit_base_patch16_224.dino'?", "weights", "fetch", "timm:vit_base_patch16_dino", *folder)
    refused("expected open_clip:... or timm:...", "weights", "fetch", "dino", *folder)
    refused("did you mean 'xtra'?", "weights", "import", "a.ckpt", tmp_path / "b", "--objective", "xtr", *SIZES)
    refused("did you mean 'timm'?", "weights", "export", tmp_path, tmp_path / "b", "--format", "tim")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_not_what_they_should_be(refused, tmp_path):
    xtra = ("--objective", "xtra", *SIZES)
    blocks = (*xtra, "xtra.block_side=2")
    refused("do not exist", "weights", "import", tmp_path / "a.ckpt", tmp_path / "b", *xtra)
    torch.save({"state_dict": {"head.weight": torch.ones(1)}}, tmp_path / "a.ckpt")
    refused("'head.weight' is no parameter of", "weights", "import", tmp_path / "a.ckpt", tmp_path / "b", *blocks)
    torch.save({"state_dict": {"enc.norm.weight": torch.ones(5)}}, tmp_path / "a.ckpt")
    said = "encoder.norm.weight is 5, the model's 32"
    refused(said, "weights", "import", tmp_path / "a.ckpt", tmp_path / "b", *blocks)
    refused("is not of the form key=value", "weights", "import", tmp_path / "a.ckpt", tmp_path / "b", *xtra, "nonsense")
    refused("has no config.yaml", "weights", "export", tmp_path, tmp_path / "b")
    vq = ("weights", "train-vq", tmp_path / "shards", tmp_path / "b")
    refused("patch_size=5 does not divide image_size=32", *vq, "--image-size", 32, "--patch-size", 5)
    refused("shards", *vq)
    clip = ("weights", "train-clip", tmp_path / "shards", tmp_path / "b")
    refused("samples_seen=0 must be at least 1", *clip, "--samples-seen", 0)
    refused("shards", *clip)
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def test_a_clip_model_needs_class_names(refused, tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.jpg")
    build_shards(tmp_path, tmp_path / "shards")
    refused("has no class names to write captions with", "weights", "train-clip", tmp_path / "shards", tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "digits"
    build_shards("digits", folder)
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("teacher.kind=clip", "did you mean 'open_clip'?"),
        ("teacher.precision=fp16", "teacher.precision='fp16' is not known"),
        ("teacher.kind=timm teacher.architecture=test_vit teacher.checkpoint=nowhere", "nowhere does not exist"),
        ("teacher.kind=vq", "needs teacher.checkpoint=FILE_OR_FOLDER"),
        # 160 / 16 = 10 tokens per side cannot be cut into the student's 4 x 4 segments.
        (
            "teacher.kind=timm teacher.architecture=test_vit teacher.checkpoint=FILE digpt.segment_side=1",
            "teacher_grid=10 cannot be cut into 4 x 4 segments",
        ),
        ("teacher.kind=pixels initial_weights=nowhere", "initial_weights=nowhere has no objective.safetensors"),
    ],
)
def test_teachers_that_do_not_fit_are_refused_before_anything_starts(refused, tmp_path, digits, change, said):
    (tmp_path / "file.safetensors").write_bytes(b"")
    change = change.replace("FILE ", f"{tmp_path / 'file.safetensors'} ")
    given = ["objective=digpt", "name=a", f"output={tmp_path / 'run'}", f"data.shards={digits}"]
    refused(said, "train", "digits", *given, *change.split())
    assert not (tmp_path / "run").exists()
