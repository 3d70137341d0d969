"""Files are written whole or not at all."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from arvis_scale.atomic import read_json, whole_file, write_json, write_text


def test_failed_write_keeps_the_earlier_file_and_leaves_nothing_beside_it(tmp_path):
    write_text(tmp_path / "a.txt", "first")
    with pytest.raises(RuntimeError, match="half way"), whole_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("sec")
        raise RuntimeError("half way")
    assert (tmp_path / "a.txt").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_files_of_several_threads_are_as_readable_as_any_other(tmp_path):
    """The mode of a process's new files is its own, whichever thread asks what it is."""
    earlier, interval = os.umask(0o027), sys.getswitchinterval()
    sys.setswitchinterval(1e-7)  # threads take turns in the middle of everything
    try:
        with ThreadPoolExecutor(8) as writers:
            list(writers.map(lambda number: write_text(tmp_path / str(number), "text"), range(200)))
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(earlier)
        sys.setswitchinterval(interval)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


def test_json_round_trip(tmp_path):
    write_json(tmp_path / "a.json", {"schema_version": 1, "x": [1.5, None]})
    assert read_json(tmp_path / "a.json", newest_schema=1)["x"] == [1.5, None]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"schema_version": 2}', "schema_version 2, this arvis_scale reads up to 1; upgrade"),
        ('{"x": 1}', "schema_version None"),
        ("[1]", "holds a list"),
        ('{"schema_v', "not valid JSON"),
        ("\udcff", "not valid JSON"),
    ],
)
def test_unreadable_json_is_named(tmp_path, text, said):
    (tmp_path / "b.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match="b.json") as caught:
        read_json(tmp_path / "b.json", newest_schema=1)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nan_is_refused_rather_than_written_as_invalid_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "c.json", {"x": float("nan")})
    assert not (tmp_path / "c.json").exists()
