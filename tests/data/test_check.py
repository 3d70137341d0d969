"""Every kind of damage to a shard folder is found and named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from arvis_scale.data.build import build_shards
from arvis_scale.data.check import check_shards
from arvis_scale.data.index import SampleTable, read_index, samples_folder
from arvis_scale.data.shards import open_shards

NAME = "train-000000.tar"


@pytest.fixture
def damaged(shards: Path, tmp_path: Path) -> Path:
    """A copy of the shards to break."""
    return Path(shutil.copytree(shards, tmp_path / "damaged"))


def _rows(folder: Path, shard: int = 0) -> SampleTable:
    """Rows of a train shard, 6 samples each."""
    return SampleTable.open(samples_folder(folder, "train"))[6 * shard : 6 * shard + 6]


def _keys(table: SampleTable) -> list[str]:
    return [key.decode() for key in table.key]


def _flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def _replace_table(folder: Path, table: SampleTable) -> None:
    """Put another train table there, and the index in agreement with it: only the shards can tell."""
    table.write(samples_folder(folder, "train"))
    index = read_index(folder)
    replace(index, table_sha256={**index.table_sha256, "train": table.sha256()}).write(folder)


def test_whole_shards_have_no_problems(shards: Path) -> None:
    report = check_shards(shards)
    assert (report.num_shards, report.num_samples, report.problems, report.duplicates) == (6, 32, [], [])
    assert "32 samples in 6 shards (every byte and image): all whole" in report.summary()


def test_a_flipped_byte_in_an_image_is_found_and_the_sample_named(damaged: Path) -> None:
    rows = _rows(damaged, 1)
    offset, key = int(rows.offset[3]), _keys(rows)[3]
    _flip(damaged / "train-000001.tar", offset)
    problems = check_shards(damaged).problems
    assert [(problem.kind, problem.key, problem.offset) for problem in problems] == [
        ("hash", None, None),
        ("not_an_image", key, offset),
    ]
    assert f"train-000001.tar, {key} at byte {offset}: does not decode" in check_shards(damaged).summary()


def test_a_damaged_header_names_the_samples_that_tar_readers_lose(damaged: Path) -> None:
    rows = _rows(damaged)
    _flip(damaged / NAME, int(rows.offset[4]) - 512)
    problems = check_shards(damaged).problems
    assert [problem.key for problem in problems if problem.kind == "not_in_shard"] == _keys(rows)[4:]
    assert any("breaks off after 8 members" in problem.what for problem in problems)


def test_a_flipped_byte_in_padding_is_found_by_the_hash(damaged: Path) -> None:
    _flip(damaged / "test-000000.tar", -1)
    assert [(problem.file, problem.kind) for problem in check_shards(damaged).problems] == [("test-000000.tar", "hash")]


@pytest.mark.parametrize("at_member", [False, True])
def test_a_truncated_shard_names_every_lost_sample(damaged: Path, at_member: bool) -> None:
    rows = _rows(damaged)
    start = int(rows.offset[4])
    path = damaged / NAME
    # At a member's boundary webdataset and tarfile see a shorter, whole shard.
    path.write_bytes(path.read_bytes()[: start - 512 if at_member else start + 10])
    problems = check_shards(damaged).problems
    assert {problem.key for problem in problems if problem.kind == "cut"} - {None} == set(_keys(rows)[4:])
    assert {problem.kind for problem in problems if problem.key is None} >= {"size"}


def test_missing_and_unlisted_files_are_named_together(damaged: Path) -> None:
    (damaged / "train-000002.tar").unlink()
    shutil.rmtree(damaged / "test.samples")
    shutil.copy(damaged / NAME, damaged / "train-000099.tar")
    assert {(problem.file, problem.kind) for problem in check_shards(damaged).problems} == {
        ("train-000002.tar", "missing_shard"),
        ("test.samples", "table"),
        ("train-000099.tar", "not_in_index"),
    }


def test_a_damaged_sample_table_is_found(damaged: Path) -> None:
    _flip(damaged / "train.samples" / "label.npy", -1)
    problems = check_shards(damaged, quick=True).problems
    assert {(problem.file, problem.kind) for problem in problems} == {
        ("train.samples", "hash"),
        ("train.samples", "label"),
    }


def test_a_wrong_row_is_found_where_image_label_and_place_disagree(damaged: Path) -> None:
    table = SampleTable.open(damaged / "train.samples")
    label, offset = table.label.copy(), table.offset.copy()
    label[0], label[1] = 1 - label[0], 7
    offset[2], offset[4] = offset[3], 1 << 62
    _replace_table(damaged, replace(table, label=label, offset=offset))
    problems = check_shards(damaged).problems
    keys = _keys(table)
    assert {(keys.index(problem.key or ""), problem.kind) for problem in problems} == {
        (0, "label"),
        (1, "label"),
        (2, "row"),
        (4, "row"),
    }
    assert {problem.key for problem in check_shards(damaged, quick=True).problems} == {keys[1], keys[4]}


def test_a_missing_label_among_others_is_found(damaged: Path) -> None:
    table = SampleTable.open(damaged / "train.samples")
    label = table.label.copy()
    label[3] = -1
    _replace_table(damaged, replace(table, label=label))
    problems = check_shards(damaged, quick=True).problems
    assert [(problem.kind, problem.key) for problem in problems] == [("missing_label", _keys(table)[3])]


def test_a_repeated_key_is_found_by_the_quick_check(damaged: Path) -> None:
    table = SampleTable.open(damaged / "train.samples")
    key = table.key.copy()
    key[5] = key[20]
    _replace_table(damaged, replace(table, key=key))
    problems = check_shards(damaged, quick=True).problems
    assert [(problem.kind, problem.key) for problem in problems] == [("repeated_key", key[20].decode())]


def test_the_quick_check_finds_a_wrong_size_and_reads_no_image(damaged: Path) -> None:
    _flip(damaged / "train-000001.tar", int(_rows(damaged, 1).offset[3]))
    assert check_shards(damaged, quick=True).problems == []
    (damaged / NAME).write_bytes(b"")
    problems = check_shards(damaged, quick=True).problems
    assert [(problem.file, problem.kind) for problem in problems] == [(NAME, "size")]


def test_copies_within_a_split_are_listed_and_no_damage(photos: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(photos, tmp_path / "photos"))
    for name in ("copy", "copy2"):
        shutil.copy(source / "train/cat/0003.png", source / f"train/dog/{name}.png")
    build_shards(source, tmp_path / "shards")
    report = check_shards(tmp_path / "shards")
    assert report.problems == [] and report.num_duplicates == 2
    keys = {copy.key for copy in report.duplicates[0]}
    assert len(report.duplicates) == 1 and keys == {"train_cat_0003", "train_dog_copy", "train_dog_copy2"}
    assert "warning: 2 images are copies of another" in report.summary()


def test_an_image_in_train_and_test_is_damage_named_loudly(photos: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(photos, tmp_path / "photos"))
    shutil.copy(source / "train/cat/0003.png", source / "test/cat/9999.png")
    build_shards(source, tmp_path / "shards")
    problems = check_shards(tmp_path / "shards").problems
    assert {(problem.kind, problem.key) for problem in problems} == {
        ("split_leak", "train_cat_0003"),
        ("split_leak", "test_cat_9999"),
    }
    assert "LEAK: this test image is also in train" in check_shards(tmp_path / "shards").summary()


def test_the_report_as_json_counts_problems_by_kind(damaged: Path, tmp_path: Path) -> None:
    (damaged / "train-000002.tar").unlink()
    report = check_shards(damaged)
    report.write(tmp_path / "report.json")
    value = json.loads((tmp_path / "report.json").read_text())
    assert value["schema_version"] == 1 and value["num_problems"] == {"missing_shard": 1}
    assert value["splits"][0] == {
        "name": "train",
        "num_shards": 4,
        "num_samples": 24,
        "num_bytes": report.splits[0].num_bytes,
        "num_problems": 1,
    }


def test_progress_comes_to_the_end_also_over_a_missing_shard(damaged: Path) -> None:
    (damaged / "train-000002.tar").unlink()
    calls: list[tuple[int, int]] = []
    check_shards(damaged, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (26, 26) and calls == sorted(calls)


def test_shards_elsewhere_are_checked_by_path_and_by_url(shards: Path, tmp_path: Path) -> None:
    index = read_index(shards)
    for number, place in enumerate((str, lambda path: path.as_uri())):
        folder = Path(shutil.copytree(shards, tmp_path / str(number), ignore=shutil.ignore_patterns("*.tar")))
        splits = {
            split: [replace(entry, file=place(shards / entry.file)) for entry in entries]
            for split, entries in index.splits.items()
        }
        replace(index, splits=splits).write(folder)
        assert check_shards(folder).problems == []


def test_a_changed_index_is_refused(damaged: Path) -> None:
    index = damaged / "index.json"
    index.write_text(index.read_text().replace('"cat"', '"cow"'))
    with pytest.raises(ValueError, match=r"index\.json is damaged"):
        check_shards(damaged)


def test_a_truncated_shard_is_refused_when_its_split_is_opened(damaged: Path) -> None:
    path = damaged / NAME
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(ValueError, match=r"train-000000\.tar has .* bytes"):
        open_shards(damaged).split("train")
