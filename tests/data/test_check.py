"""Every kind of damage to a shard folder is found and named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from arvis_scale.data.check import check_shards
from arvis_scale.data.shards import open_shards


@pytest.fixture
def damaged(shards: Path, tmp_path: Path) -> Path:
    """A copy of the shards to break."""
    return Path(shutil.copytree(shards, tmp_path / "damaged"))


def _flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def test_whole_shards_have_no_problems(shards: Path) -> None:
    report = check_shards(shards)
    assert (report.num_shards, report.num_samples, report.problems) == (6, 32, [])
    assert report.summary() == "32 samples in 6 shards: all whole"


def test_a_flipped_byte_in_an_image_is_found_and_the_sample_named(damaged: Path) -> None:
    with np.load(damaged / "train-000001.index.npz") as table:
        offset, key = int(table["offset"][3]), table["key"][3].decode()
    _flip(damaged / "train-000001.tar", offset)
    problems = check_shards(damaged).problems
    assert [(problem.file, problem.key) for problem in problems] == [
        ("train-000001.tar", None),
        ("train-000001.tar", key),
    ]
    assert key in check_shards(damaged).summary()


def test_a_damaged_header_names_the_samples_that_tar_readers_lose(damaged: Path) -> None:
    with np.load(damaged / "train-000000.index.npz") as table:
        offset, keys = int(table["offset"][4]), [key.decode() for key in table["key"]]
    _flip(damaged / "train-000000.tar", offset - 512)
    problems = check_shards(damaged).problems
    lost = [problem.key for problem in problems if problem.what == "the tar has no such member"]
    assert lost == keys[4:]
    assert any("breaks off after 8 members" in problem.what for problem in problems)


def test_a_flipped_byte_in_padding_is_found_by_the_hash(damaged: Path) -> None:
    _flip(damaged / "test-000000.tar", -1)
    assert [problem.file for problem in check_shards(damaged).problems] == ["test-000000.tar"]


@pytest.mark.parametrize("at_member", [False, True])
def test_a_truncated_shard_names_every_lost_sample(damaged: Path, at_member: bool) -> None:
    with np.load(damaged / "train-000000.index.npz") as table:
        start, keys = int(table["offset"][4]), [key.decode() for key in table["key"]]
    path = damaged / "train-000000.tar"
    # At a member's boundary webdataset and tarfile see a shorter, whole shard.
    path.write_bytes(path.read_bytes()[: start - 512 if at_member else start + 10])
    problems = check_shards(damaged).problems
    assert {problem.key for problem in problems} - {None} == set(keys[4:])
    assert any("bytes instead of" in problem.what for problem in problems)


def test_missing_and_unlisted_files_are_named_together(damaged: Path) -> None:
    (damaged / "train-000002.tar").unlink()
    (damaged / "test-000001.index.npz").unlink()
    shutil.copy(damaged / "train-000000.tar", damaged / "train-000099.tar")
    problems = {problem.file: problem.what for problem in check_shards(damaged).problems}
    assert problems == {
        "train-000002.tar": "the shard is missing",
        "test-000001.index.npz": "the sample table is missing",
        "train-000099.tar": "the shard is not in index.json",
    }


def test_a_damaged_sample_table_is_found(damaged: Path) -> None:
    _flip(damaged / "train-000000.index.npz", 200)
    assert {problem.file for problem in check_shards(damaged).problems} == {"train-000000.index.npz"}


def test_a_wrong_row_is_found_where_image_label_and_place_disagree(damaged: Path) -> None:
    path = damaged / "train-000000.index.npz"
    with np.load(path) as arrays:
        table = dict(arrays)
    table["label"][0] = 1 - table["label"][0]
    table["label"][1] = 7
    table["offset"][2] = table["offset"][3]
    table["offset"][4] = 1 << 60
    np.savez(path, **table)
    found = {problem.key for problem in check_shards(damaged).problems if problem.file == "train-000000.tar"}
    assert found == {table["key"][row].decode() for row in (0, 1, 2, 4)}


def test_a_changed_index_is_refused(damaged: Path) -> None:
    index = damaged / "index.json"
    index.write_text(index.read_text().replace('"cat"', '"cow"'))
    with pytest.raises(ValueError, match=r"index\.json is damaged"):
        check_shards(damaged)


def test_a_truncated_shard_is_refused_when_its_split_is_opened(damaged: Path) -> None:
    path = damaged / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(ValueError, match=r"train-000000\.tar has .* bytes"):
        open_shards(damaged).split("train")
