"""What a check of shards finds, in words and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from arvis_scale.atomic import write_json
from arvis_scale.data.faults import Reason

SCHEMA_VERSION = 1
# How many the summary names; the JSON file names all.
NUM_PROBLEMS_LISTED = 100
NUM_DUPLICATES_LISTED = 20

# size           a shard has another length than the index says
# hash           a shard or a sample table has another SHA-256
# table          a sample table is missing, unreadable or of another length
# row            a row of the table and the shard do not agree about a sample's place
# label          a label is no class, or not the one in the shard
# missing_label  a sample without a label among others that have one
# repeated_key   two samples have one key
# not_in_index   a shard or an image that the index does not know
# not_in_shard   a sample that readers of tar files do not find
# unsafe_name    a member that would be unpacked outside its folder, or is a link
# split_leak     one image in two splits: a test on it measures memory
Kind = (
    Reason
    | Literal[
        "size",
        "hash",
        "table",
        "row",
        "label",
        "missing_label",
        "repeated_key",
        "not_in_index",
        "not_in_shard",
        "unsafe_name",
        "split_leak",
    ]
)


@dataclass(frozen=True)
class Problem:
    """One thing that is broken: in which file, at which sample (None: the file as a whole) and byte, and what."""

    file: str
    key: str | None
    kind: Kind
    what: str
    offset: int | None = None

    def __str__(self) -> str:
        place = f", {self.key}" if self.key else ""
        byte = f" at byte {self.offset}" if self.offset is not None else ""
        return f"{self.file}{place}{byte}: {self.what}"


@dataclass(frozen=True)
class Copy:
    """One of several samples whose image files are equal byte by byte."""

    split: str
    file: str
    key: str


@dataclass(frozen=True)
class SplitCount:
    """How much of one split the index promises, and what is wrong in it."""

    name: str
    num_shards: int
    num_samples: int
    num_bytes: int
    num_problems: int


@dataclass(frozen=True)
class CheckReport:
    """What was looked at and what is broken.

    `duplicates` are groups of equal images; only those that stand in more than one split are problems as well.
    """

    folder: str
    content_hash: str
    is_quick: bool
    splits: list[SplitCount]
    problems: list[Problem]
    duplicates: list[list[Copy]]

    @property
    def num_shards(self) -> int:
        return sum(split.num_shards for split in self.splits)

    @property
    def num_samples(self) -> int:
        return sum(split.num_samples for split in self.splits)

    @property
    def num_duplicates(self) -> int:
        """Images beyond the first of each group of equal ones."""
        return sum(len(group) - 1 for group in self.duplicates)

    def summary(self) -> str:
        """Return the report in words: a table of the splits, the verdict, then one line for each problem."""
        lines = [f"{'split':<8}{'shards':>8}{'samples':>14}{'bytes':>18}{'problems':>10}"]
        lines += [
            f"{split.name:<8}{split.num_shards:>8,}{split.num_samples:>14,}{split.num_bytes:>18,}{split.num_problems:>10,}"
            for split in self.splits
        ]
        looked_at = "index and sizes only" if self.is_quick else "every byte and image"
        verdict = f"{len(self.problems):,} problems:" if self.problems else "all whole"
        lines.append(f"{self.num_samples:,} samples in {self.num_shards:,} shards ({looked_at}): {verdict}")
        lines += [f"  {problem}" for problem in self.problems[:NUM_PROBLEMS_LISTED]]
        if len(self.problems) > NUM_PROBLEMS_LISTED:
            lines.append(f"  and {len(self.problems) - NUM_PROBLEMS_LISTED:,} more (--json FILE names all)")
        if self.duplicates:
            lines.append(f"warning: {self.num_duplicates:,} images are copies of another in the set:")
            lines += [
                "  " + " = ".join(f"{copy.split} {copy.key}" for copy in group)
                for group in self.duplicates[:NUM_DUPLICATES_LISTED]
            ]
            if len(self.duplicates) > NUM_DUPLICATES_LISTED:
                more = len(self.duplicates) - NUM_DUPLICATES_LISTED
                lines.append(f"  and {more:,} more groups (--json FILE names all)")
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """Write everything as JSON, with the problems counted by kind."""
        kinds = dict(sorted(Counter(problem.kind for problem in self.problems).items()))
        write_json(path, {"schema_version": SCHEMA_VERSION, "num_problems": kinds, **asdict(self)})
