"""Building shards from CSV and Parquet manifests."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from arvis_scale.data.build import BuildReport, build_shards
from arvis_scale.data.shards import open_shards

ImageMaker = Callable[..., bytes]


@pytest.fixture
def folder(tmp_path: Path, image_bytes: ImageMaker) -> Path:
    """Images `img/0.png` to `img/5.png`, for a manifest beside `img`."""
    (tmp_path / "set" / "img").mkdir(parents=True)
    for number in range(6):
        (tmp_path / "set" / "img" / f"{number}.png").write_bytes(image_bytes(number))
    return tmp_path / "set"


def _build(folder: Path, table: str, columns: dict[str, str] | None = None) -> BuildReport:
    (folder / "photos.csv").write_text(table, encoding="utf-8")
    return build_shards(folder / "photos.csv", folder.parent / "shards", columns=columns)


def _labels(folder: Path, split: str = "train") -> dict[str, str | None]:
    """Key -> class name."""
    dataset = open_shards(folder.parent / "shards")
    rows = dataset.split(split)
    labels = rows.labels
    return {rows.key(row): None if labels is None else dataset.classes[labels[row]] for row in range(len(rows))}


def _reasons(report: BuildReport) -> dict[str, str]:
    return {image.path: image.reason for image in report.skipped}


def test_rows_give_split_label_and_caption(folder: Path) -> None:
    report = _build(
        folder,
        "path,label,caption,split\n"
        'img/0.png,dog,"a dog, runs",train\n'
        "img/1.png,cat,,train\n"
        f"{folder}/img/2.png,cat,Катя,val\n"
        "img/3.png,,no label here,test\n",
    )
    assert (report.name, report.classes) == ("photos", ["cat", "dog"])
    assert report.num_samples == {"train": 2, "val": 1, "test": 1} and report.skipped == []
    assert _labels(folder) == {"train_img_0": "dog", "train_img_1": "cat"}
    assert list(_labels(folder, "val").values()) == ["cat"]
    assert _labels(folder, "test") == {"test_img_3": None}  # nothing in the split is labelled
    with tarfile.open(folder.parent / "shards" / "train-000000.tar") as shard:
        members = {name: shard.extractfile(name).read() for name in shard.getnames()}  # type: ignore[union-attr]
    assert members["train_img_0.txt"] == b"a dog, runs" and members["train_img_0.cls"] == b"1"
    assert "train_img_1.txt" not in members
    assert members["train_img_0.png"] == (folder / "img" / "0.png").read_bytes()


def test_a_manifest_of_paths_alone_is_unlabelled(folder: Path) -> None:
    report = _build(folder, "path\nimg/0.png\nimg/1.png\n")
    assert report.classes == [] and report.num_samples == {"train": 2}


def test_columns_may_have_other_names(folder: Path) -> None:
    report = _build(folder, "file,breed,path\nimg/0.png,pug,x\nimg/1.png,husky,x\n", {"path": "file", "label": "breed"})
    assert report.classes == ["husky", "pug"] and report.skipped == []


def test_class_numbers_keep_their_value(folder: Path) -> None:
    report = _build(folder, "path,label\nimg/0.png,10\nimg/1.png,2\nimg/2.png,002\n")
    assert report.classes == [str(number) for number in range(11)]
    assert _labels(folder) == {"train_img_0": "10", "train_img_1": "2", "train_img_2": "2"}


def test_every_bad_row_is_named_with_its_number(folder: Path) -> None:
    (folder / "img" / "3.png").write_text("text")
    report = _build(
        folder,
        "path,label,split\n"
        "img/0.png,cat,train\n"
        "img/missing.png,cat,train\n"
        ",cat,train\n"
        "img/1.png,cat,holdout\n"
        "img/2.png,,train\n"
        "img/3.png,cat,train\n"
        "img/0.png,dog,train\n"
        "img/4.png,cat,train,more\n"
        "img/5.png,cat\n",
    )
    assert report.num_samples == {"train": 2}  # the last row has no split, and is of train
    reasons = _reasons(report)
    assert sorted(reasons) == [
        "row 2: img/missing.png",
        "row 3",
        "row 4",
        "row 5: img/2.png",
        "row 6: img/3.png",
        "row 7",
        "row 8",
    ]
    assert "No such file" in reasons["row 2: img/missing.png"]
    assert "'holdout'" in reasons["row 4"] and "no label" in reasons["row 5: img/2.png"]
    assert "img/0.png again" in reasons["row 7"] and "more cells" in reasons["row 8"]


@pytest.mark.parametrize(
    ("table", "columns", "named"),
    [
        ("image,label\nimg/0.png,cat\n", None, "no column 'path'"),
        ("path,label\nimg/0.png,cat\n", {"label": "breed"}, "no column 'breed'"),
        ("path,label\nimg/0.png,cat\n", {"lable": "label"}, "'lable' is no column"),
        ("", None, "no column 'path'"),
        ("path,label\nimg/0.png,99999999\n", None, "99999999 is no class number"),
        ('path\n"img/0.png\n', None, "cannot be read as CSV"),
        ("path,label\nimg/9.png,cat\n", None, "no readable image"),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_refused_in_one_line(
    folder: Path, table: str, columns: dict[str, str] | None, named: str
) -> None:
    with pytest.raises(ValueError, match=named) as caught:
        _build(folder, table, columns)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["set"]


def test_columns_without_a_manifest_are_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is none"):
        build_shards(photos, tmp_path / "shards", columns={"label": "class"})


def test_parquet_gives_what_csv_gives(folder: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    files = [f"img/{number}.png" for number in range(5)]
    table = {"path": files, "label": [3.0, 1.0, None, 2.5, 1.0], "caption": ["a", None, "", "b", "c"]}
    parquet.write_table(pyarrow.table(table), folder / "photos.parquet")
    report = build_shards(folder / "photos.parquet", folder.parent / "parquet")
    assert report.num_samples == {"train": 3}
    assert _reasons(report) == {
        "row 3: img/2.png": "has no label, in a split that has labels",
        "row 4": "has the label 2.5, which is no class number",
    }
    csv = _build(folder, "path,label,caption\nimg/0.png,3,a\nimg/1.png,1,\nimg/4.png,1,c\n")
    assert csv.content_hash == report.content_hash


def test_a_file_that_is_no_parquet_is_refused_in_one_line(folder: Path) -> None:
    pytest.importorskip("pyarrow")
    (folder / "photos.parquet").write_text("text" * 100)
    with pytest.raises(ValueError, match="cannot be read as Parquet") as caught:
        build_shards(folder / "photos.parquet", folder.parent / "parquet")
    assert "\n" not in str(caught.value)
