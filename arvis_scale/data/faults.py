"""What can be wrong with one sample, and the exception that says so.

`data.on_bad_sample: raise` stops a run with it; under `skip` the loader counts it by its reason (`skipped_<reason>` in
metrics.jsonl) and puts another sample in its place.
"""

from __future__ import annotations

from typing import Literal, get_args

# read_error     the disk or server gives an error, also when asked again; of a stream: a shard cannot be read on
# missing_shard  there is no file where the index says
# wrong_index    the index places the sample outside its shard
# cut            the shard ends before the sample does
# not_an_image   empty, or not a JPEG, PNG or WebP file, whatever its name
# damaged_image  begins like an image and does not decode to its end
# too_large      more pixels than are decoded
Reason = Literal[
    "read_error",
    "missing_shard",
    "wrong_index",
    "cut",
    "not_an_image",
    "damaged_image",
    "too_large",
]
REASONS: tuple[Reason, ...] = get_args(Reason)


class BadSample(ValueError):  # noqa: N818 - "error" would say less than the name does
    """One sample that cannot be used: where it is, why, and what to do, in one line. Survives pickling."""

    def __init__(self, shard: str, key: str, offset: int | None, reason: Reason, message: str, advice: str) -> None:
        """`shard` is the path or address, `offset` the byte in it where the image should begin (None: not known)."""
        super().__init__(shard, key, offset, reason, message, advice)
        self.shard = shard
        self.key = key
        self.offset = offset
        self.reason: Reason = reason
        self._message = message
        self._advice = advice

    def __str__(self) -> str:
        place = "" if self.offset is None else f" at byte {self.offset}"
        return f"{self.shard}: sample {self.key}{place} {self._message} ({self.reason}); {self._advice}"
