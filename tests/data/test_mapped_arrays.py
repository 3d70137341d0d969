"""An array file is what was written or an error in one line, in the index as in token folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from arvis_scale.data.mapped_arrays import open_mapped


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.save(tmp_path / "a.npy", np.arange(5))
    return tmp_path / "a.npy"


def test_what_was_written_is_read(path: Path) -> None:
    array = open_mapped(path)
    assert array.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"}", b"} ", "1 bytes too many"),  # a longer header, of which numpy reads as much as before
        (b"}", b"}\n", "created on Python 2|cannot parse|bytes too many"),
        (b"(5,), ", b"(-50,)", "positive|negative"),
        (b"(5,)", b"(6,)", "."),
        (b"descr", b"de((r", "."),
        (b"}", b"", "."),
        (b" 'fortran", b"b'fortran", "."),
    ],
)
def test_a_damaged_header_shifts_no_number(path: Path, old: bytes, new: bytes, said: str) -> None:
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(ValueError, match=said) as caught:
        open_mapped(path)
    assert "\n" not in str(caught.value)


def test_an_archive_an_empty_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "archive.npy").open("wb") as file:
        np.savez(file, a=np.arange(5))
    (tmp_path / "empty.npy").write_bytes(b"")
    for name, said in (("archive", "an archive of arrays"), ("empty", "."), ("missing", "No such file")):
        with pytest.raises(ValueError, match=said):
            open_mapped(tmp_path / f"{name}.npy")
