"""`arvis-scale shards build` and its options."""

import sys

import numpy as np
import pytest
from PIL import Image

from arvis_scale import cli
from arvis_scale.data.index import read_index


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Forty noise images of 40 x 40 in two classes, and a manifest of them. Read-only."""
    root = tmp_path_factory.mktemp("photos") / "photos"
    draw = np.random.default_rng(0)
    rows = ["file,class"]
    for number in range(40):
        path = root / f"c{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
        rows.append(f"{path},name{number % 4}")
    (root.parent / "photos.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process; return its status and all that it wrote."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["arvis-scale", "shards", "build", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        written = capsys.readouterr()
        return ended.value.code or 0, written.out + written.err

    return call


@pytest.mark.parametrize(
    ("options", "num_shards"),
    [(["--shard-size", 10], 4), (["--shard-bytes", "0.1MB"], 3), (["--shard-bytes", "200KiB"], 2), ([], 1)],
)
def test_shards_are_as_large_as_asked_for(run, photos, tmp_path, options, num_shards):
    status, said = run(photos, tmp_path / "s", *options)
    assert status == 0 and f"{num_shards} shards" in said
    assert len(read_index(tmp_path / "s").splits["train"]) == num_shards


def test_a_finished_build_ends_well_and_says_so(run, photos, tmp_path):
    run(photos, tmp_path / "s")
    status, said = run(photos, tmp_path / "s")
    assert status == 0 and "is finished already" in said


def test_columns_and_side_reach_the_build(run, photos, tmp_path):
    manifest = photos.parent / "photos.csv"
    options = [
        "--column",
        "path=file",
        "--column",
        "label=class",
        "--shorter-side",
        20,
        "--quality",
        80,
        "--workers",
        1,
    ]
    assert run(manifest, tmp_path / "s", *options)[0] == 0
    index = read_index(tmp_path / "s")
    assert index.classes == [f"name{number}" for number in range(4)]
    assert index.statistics["width"]["max"] == 20 and index.statistics["reencoded_images"] == 40


def test_shards_are_indexed_where_they_are(run, photos, tmp_path):
    run(photos, tmp_path / "s")
    status, _ = run(tmp_path / "s" / "train-{000000..000000}.tar", tmp_path / "i", "--index-only")
    (entry,) = read_index(tmp_path / "i").splits["train"]
    assert (status, entry.file) == (0, str(tmp_path / "s" / "train-000000.tar"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--shard-bytes", "1 terabyte"], "write it like 1GB"),
        (["--shard-bytes", "1GB", "--shard-size", 5], "one of the two"),
        (["--column", "label"], "write it like label=class"),
        (["--column", "label=x"], "is none"),
        (["--index-only", "--shorter-side", 8], "--index-only rewrites nothing"),
        (["--shorter-side", 8, "--quality", 0], "JPEG quality 0"),
    ],
)
def test_options_that_cannot_be_meant_end_in_one_line(run, photos, tmp_path, options, said):
    status, written = run(photos, tmp_path / "s", *options)
    assert status == 2 and said in written and written.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_bad_images_are_met_as_asked_for(run, photos, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    (folder / "good.png").write_bytes(next(photos.glob("*/*.png")).read_bytes())
    (folder / "bad.png").write_bytes(b"text")
    status, said = run(folder, tmp_path / "s", "--on-bad-sample", "raise")
    assert status == 2 and "bad.png" in said and said.count("\n") == 1
    assert run(folder, tmp_path / "s", "--on-bad-sample", "drop")[0] == 2
    status, said = run(folder, tmp_path / "s")
    assert status == 0 and "skipped 1 image files" in said
