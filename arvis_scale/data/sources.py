"""Where images come from: a folder, an archive, a manifest, WebDataset shards or a built-in set, all as one list.

Every image of the list can be read by itself and in any order, which is what lets shards be shuffled, written one
after the other, and gone on with after an interruption.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from arvis_scale.data.annotations import NO_LABEL, Annotation, labelled_splits
from arvis_scale.data.archives import Member, read_span, tar_files, unpacked_tar, zip_files
from arvis_scale.data.digits import digits_files
from arvis_scale.data.index import SkippedImage
from arvis_scale.data.manifests import MANIFEST_SUFFIXES, read_manifest
from arvis_scale.data.webdataset_shards import is_shard_pattern, list_shards, scan_shard

# A file is taken for an image by its suffix. Formats that shards do not hold are in the list so that they are
# counted among the skipped instead of passed over in silence.
IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"),
        *(".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif", ".heic", ".heif"),
    )
)
_LISTED_BETWEEN_REPORTS = 1000

# Called with the stage, what is done of it, and its total where it is known.
Progress = Callable[[str, int, "int | None"], None]


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image file: its cleaned path inside the source, its size as listed, and how to get its bytes.

    `read` raises `OSError`. `annotation` is what the source says about the image; without one its path tells. `row` is
    that of a manifest, from 1.
    """

    path: str
    size: int
    read: Callable[[], bytes]
    annotation: Annotation | None = None
    row: int | None = None

    @property
    def named(self) -> str:
        """What reports call the image."""
        return self.path if self.row is None else f"row {self.row}: {self.path}"


@dataclass(frozen=True)
class ImageSource:
    """A named list of image files, the same every time, and what was left out of it already.

    Either all images carry an annotation or none does.
    """

    name: str
    images: list[SourceImage]
    skipped: list[SkippedImage] = field(default_factory=list)

    def listing_hash(self) -> str:
        """Return SHA-256 over all paths, sizes and annotations: it tells whether the source is still the same."""
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(f"{image.path!r} {image.size} {image.annotation!r}\n".encode())
        return digest.hexdigest()


def source_name(source: str) -> str:
    """Return what a data set is called after its source; this does not look at the source."""
    name = Path(source).resolve().name
    if is_shard_pattern(source):
        return name.split("{")[0].split(".tar")[0].rstrip("-_.") or "shards"
    if Path(name).suffix.lower() in (".zip", *MANIFEST_SUFFIXES):
        return Path(name).stem
    return name.split(".tar")[0].removesuffix(".tgz")


def open_source(
    source: str, *, scratch: Path, columns: Mapping[str, str] | None = None, progress: Progress | None = None
) -> ImageSource:
    """List the images of a folder, an archive, a manifest, WebDataset shards, or the built-in set `digits`.

    The word `digits` always means the built-in set; a folder of that name is given as `./digits`. Hidden files and
    folders are left out. A compressed tar is unpacked, as one plain tar, into the folder `scratch`. `columns` renames
    the columns of a manifest. Raises `ValueError` when there is nothing to read at `source`.
    """
    report = progress or (lambda stage, done, total: None)
    path, name = Path(source), source_name(source)
    if columns and path.suffix.lower() not in MANIFEST_SUFFIXES:
        raise ValueError(f"columns name those of a .csv or .parquet manifest; {source} is none")
    if source == "digits":
        return ImageSource(name, [SourceImage(path, len(data), partial(bytes, data)) for path, data in digits_files()])
    if is_shard_pattern(source):
        return _shard_source(name, source, report)
    if not path.exists():
        raise ValueError(
            f"{source} does not exist; give an image folder, an archive of one, a .csv or .parquet manifest, "
            "WebDataset shards, or 'digits'"
        )
    if path.is_dir():
        images = _listed(_folder_files(path), report)
        if not images and any(path.glob("**/*.tar")):
            return _shard_source(name, source, report)
        return ImageSource(name, sorted(images, key=lambda image: image.path))
    if path.suffix.lower() in MANIFEST_SUFFIXES:
        return _manifest_source(name, path, columns or {})
    if path.suffix.lower() == ".zip":
        return ImageSource(name, _listed(zip_files(path), report))
    tar = unpacked_tar(path, scratch, partial(report, "unpacking"))
    try:
        return ImageSource(name, _listed(tar_files(tar), report))
    except ValueError as error:  # names the archive that the user knows
        raise ValueError(str(error).replace(str(tar), str(path))) from error


def _listed(members: Iterable[Member], report: Progress) -> list[SourceImage]:
    images = []
    for number, (name, size, read) in enumerate(members):
        cleaned = _clean_path(name)
        if cleaned is not None:
            images.append(SourceImage(cleaned, size, read))
        if number % _LISTED_BETWEEN_REPORTS == 0:
            report("listing", len(images), None)
    return images


def _clean_path(name: str) -> str | None:
    """`name` without `.`, `..` and leading slashes, as valid Unicode; None when it is hidden or not an image."""
    name = os.fsencode(name).decode("utf-8", "backslashreplace") if not _is_unicode(name) else name
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    if not parts or PurePosixPath(parts[-1]).suffix.lower() not in IMAGE_SUFFIXES:
        return None
    if any(part.startswith(".") or part == "__MACOSX" for part in parts):
        return None
    return "/".join(parts)


def _is_unicode(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _folder_files(root: Path) -> Iterator[Member]:
    def refuse(error: OSError) -> None:
        raise ValueError(f"{error.filename} cannot be listed ({error.strerror}); make it readable or move it away")

    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=refuse):
        here = Path(folder).resolve()
        # A link back to a parent would be walked without end.
        subfolders[:] = sorted(name for name in subfolders if not here.is_relative_to((here / name).resolve()))
        for name in names:
            file = Path(folder, name)
            yield file.relative_to(root).as_posix(), file_size(file), partial(read_file, str(file))


def file_size(file: Path) -> int:
    """Return the size of a file in bytes, -1 where it cannot be had (reading it will say why)."""
    try:
        return file.stat().st_size
    except OSError:
        return -1


def read_file(file: str) -> bytes:
    with open(file, "rb") as opened:
        return opened.read()


def _manifest_source(name: str, path: Path, columns: Mapping[str, str]) -> ImageSource:
    rows, skipped = read_manifest(path, columns)
    images = []
    for row in rows:
        file = path.parent / row.file
        image = SourceImage(row.file, file_size(file), partial(read_file, str(file)), row.annotation, row.number)
        images.append((image, row.annotation))
    return _annotated(name, images, skipped)


def _shard_source(name: str, source: str, report: Progress) -> ImageSource:
    images: list[tuple[SourceImage, Annotation]] = []
    skipped: list[SkippedImage] = []
    shards = list_shards(source)
    for done, shard in enumerate(shards, start=1):
        if shard.is_remote:
            raise ValueError(f"{shard.file} is not on this machine; fetch it, or index it where it is (--index-only)")
        samples, left_out = scan_shard(shard, Path(shard.file))
        skipped += left_out
        for sample in samples:
            said = Annotation(shard.split, sample.label, sample.caption, sample.key)
            read = partial(read_span, shard.file, sample.offset, sample.size)
            path = f"{shard.name}/{sample.key}.{sample.extension}"
            images.append((SourceImage(path, sample.size, read, said), said))
        report("listing shards", done, len(shards))
    return _annotated(name, images, skipped)


def _annotated(name: str, images: list[tuple[SourceImage, Annotation]], skipped: list[SkippedImage]) -> ImageSource:
    """The source of annotated images, without those that miss a label."""
    labelled = labelled_splits((said.split, said.label) for _, said in images)
    kept = [image for image, said in images if said.label is not None or said.split not in labelled]
    unlabelled = [
        SkippedImage(image.named, NO_LABEL) for image, said in images if said.label is None and said.split in labelled
    ]
    return ImageSource(name, kept, [*skipped, *unlabelled])
