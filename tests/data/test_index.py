"""The index on disk: columns of samples, and what `index.json` may say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arvis_scale.data.index import DatasetIndex, SampleTable, ShardEntry, read_index, samples_folder


def _table(num_rows: int, first: int = 0) -> SampleTable:
    rows = np.arange(first, first + num_rows)
    return SampleTable(
        offset=rows * 1024,
        size=rows + 1,
        label=(rows % 3).astype(np.int32),
        key=np.array([f"key_{row}".encode() for row in rows], dtype="S"),
        extension=np.full(num_rows, b"jpg"),
    )


def test_a_table_comes_back_as_it_was_written_and_cannot_be_changed(tmp_path: Path) -> None:
    table = _table(200)
    table.write(tmp_path / "train.samples")
    opened = SampleTable.open(tmp_path / "train.samples")
    assert len(opened) == 200 and opened.sha256() == table.sha256()
    assert opened[7:9].key.tolist() == [b"key_7", b"key_8"]
    with pytest.raises(ValueError, match="read-only"):
        opened.label[0] = 1
    opened.release()
    assert opened.offset[199] == 199 * 1024
    assert [path.name for path in tmp_path.iterdir()] == ["train.samples"]


def test_tables_of_keys_of_any_length_join(tmp_path: Path) -> None:
    joined = SampleTable.concatenate([_table(9), _table(100, first=9)])
    assert joined.key.tolist() == _table(109).key.tolist()
    assert joined.sha256() == _table(109).sha256() != _table(109, first=1).sha256()


def test_writing_replaces_an_earlier_table(tmp_path: Path) -> None:
    for num_rows in (5, 3):
        _table(num_rows).write(tmp_path / "train.samples")
    assert len(SampleTable.open(tmp_path / "train.samples")) == 3


@pytest.mark.parametrize(
    ("name", "column", "said"),
    [
        ("size", np.arange(4), "unequal length"),
        ("label", np.arange(5), "wrong types"),
        ("key", np.array([b"a", None, b"c"], dtype=object), "key.npy cannot be read"),
        ("offset", None, "offset.npy cannot be read"),
    ],
)
def test_a_damaged_column_is_named(tmp_path: Path, name: str, column: Any, said: str) -> None:
    folder = tmp_path / "train.samples"
    _table(5).write(folder)
    if column is None:
        (folder / f"{name}.npy").write_bytes(b"")
    else:
        np.save(folder / f"{name}.npy", column, allow_pickle=True)
    with pytest.raises(ValueError, match=said) as caught:
        SampleTable.open(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_a_byte_more_in_a_header_does_not_shift_the_labels(tmp_path: Path) -> None:
    folder = tmp_path / "train.samples"
    _table(5).write(folder)
    whole = (folder / "label.npy").read_bytes()
    (folder / "label.npy").write_bytes(whole.replace(b"}", b"} ", 1))
    with pytest.raises(ValueError, match="label.npy cannot be read as a column of samples .1 bytes too many"):
        SampleTable.open(folder)


def _index(file: str) -> DatasetIndex:
    return DatasetIndex("some", [], {"train": [ShardEntry(file, 5, 10240, "a" * 64)]}, [], {"train": "b" * 64}, {})


@pytest.mark.parametrize("file", ["train-000000.tar", "/data/a.tar", "https://host/a.tar", "s3://bucket/a.tar"])
def test_shards_lie_beside_the_index_or_where_it_openly_says(tmp_path: Path, file: str) -> None:
    index = _index(file)
    index.write(tmp_path)
    assert read_index(tmp_path) == index
    assert samples_folder(tmp_path, "train") == tmp_path / "train.samples"


@pytest.mark.parametrize("file", ["../a.tar", "sub/a.tar"])
def test_a_relative_path_out_of_the_folder_is_refused(tmp_path: Path, file: str) -> None:
    _index(file).write(tmp_path)
    with pytest.raises(ValueError, match=f"names the shard '{file}'"):
        read_index(tmp_path)


def test_the_content_hash_is_over_shards_and_rows(shards: Path, tmp_path: Path) -> None:
    index = read_index(shards)
    copy = Path(shutil.copytree(shards, tmp_path / "copy"))
    value = json.loads((copy / "index.json").read_text())
    value["table_sha256"]["train"] = "0" * 64
    (copy / "index.json").write_text(json.dumps(value))
    with pytest.raises(ValueError, match="do not give its content hash"):
        read_index(copy)
    assert index.table_sha256["train"] == SampleTable.open(samples_folder(shards, "train")).sha256()


def test_an_older_index_is_refused_with_what_to_do(shards: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(shards, tmp_path / "copy"))
    value = json.loads((copy / "index.json").read_text())
    (copy / "index.json").write_text(json.dumps({**value, "schema_version": 1}))
    with pytest.raises(
        ValueError, match="schema_version 1, this arvis_scale reads 2; build the shards again"
    ) as caught:
        read_index(copy)
    assert "\n" not in str(caught.value)
