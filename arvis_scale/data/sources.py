"""Where images come from: a folder, an archive of one, or a built-in data set, all read as a stream of named files.

Archives are read member by member; nothing is unpacked to disk, so a member's name is only ever a label.
"""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from tarfile import EOFHeaderError, HeaderError, ReadError  # type: ignore[attr-defined]  # typeshed lacks one

from arvis_scale.data.digits import digits_files

# A file is taken for an image by its suffix. Formats that shards do not hold are in the list so that they are
# counted among the skipped instead of passed over in silence.
IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"),
        *(".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif", ".heic", ".heif"),
    )
)


@dataclass(frozen=True)
class SourceImage:
    """One image file: its cleaned path inside the source and how to get its bytes (raises `OSError`)."""

    path: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class ImageSource:
    """A named, repeatable stream of image files, in the same order every time.

    `num_images` is None where only reading the whole archive would tell.
    """

    name: str
    num_images: int | None
    images: Callable[[], Iterator[SourceImage]]


def open_source(source: str | Path) -> ImageSource:
    """Open a folder, a `.zip`, a tar (plain or compressed), or the built-in data set named `digits`.

    The word `digits` always means the built-in set; a folder of that name is given as `./digits`.
    Hidden files and folders are left out. Raises `ValueError` when there is nothing to read at `source`.
    """
    if source == "digits":
        files = digits_files()
        images = [SourceImage(path, partial(bytes, data)) for path, data in files]
        return ImageSource("digits", len(images), lambda: iter(images))
    path = Path(source)
    if not path.exists():
        raise ValueError(f"{source} does not exist; give an image folder, an archive of one, or 'digits'")
    if path.is_dir():
        return _folder_source(path)
    if path.suffix.lower() == ".zip":
        return _zip_source(path)
    return _tar_source(path)


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


def _folder_source(root: Path) -> ImageSource:
    def refuse(error: OSError) -> None:
        raise ValueError(f"{error.filename} cannot be listed ({error.strerror}); make it readable or move it away")

    files: list[tuple[str, Path]] = []
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=refuse):
        here = Path(folder).resolve()
        # A link back to a parent would be walked without end.
        subfolders[:] = [name for name in subfolders if not here.is_relative_to((here / name).resolve())]
        for name in names:
            file = Path(folder, name)
            path = _clean_path(file.relative_to(root).as_posix())
            if path is not None:
                files.append((path, file))
    files.sort()
    images = [SourceImage(path, file.read_bytes) for path, file in files]
    return ImageSource(root.resolve().name, len(images), lambda: iter(images))


def _zip_source(path: Path) -> ImageSource:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{path} cannot be read as a zip archive ({error}); fetch or pack it again") from error

    def read(member: zipfile.ZipInfo) -> bytes:
        try:
            return archive.read(member)
        except (zipfile.BadZipFile, RuntimeError, EOFError, zlib.error) as error:  # damaged, encrypted, unknown method
            raise OSError(str(error)) from error

    images = []
    for member in archive.infolist():
        # Some Windows tools write backslashes.
        cleaned = None if member.is_dir() else _clean_path(member.filename.replace("\\", "/"))
        if cleaned is not None:
            images.append(SourceImage(cleaned, partial(read, member)))
    return ImageSource(path.stem, len(images), lambda: iter(images))


class StrictTarInfo(tarfile.TarInfo):
    """Reads members so that only the end-of-archive mark ends an archive.

    tarfile takes a damaged or missing header in the middle for the end and says nothing.
    """

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> StrictTarInfo:
        try:
            return super().fromtarfile(tarfile)
        except EOFHeaderError:
            raise
        except HeaderError as error:
            raise ReadError(f"damaged or cut at byte {tarfile.offset}: {error}") from error


def _tar_source(path: Path) -> ImageSource:
    def images() -> Iterator[SourceImage]:
        num_members = 0
        try:
            with tarfile.open(path, "r|*", tarinfo=StrictTarInfo) as archive:
                for member in archive:
                    num_members += 1
                    cleaned = None if member.isdir() else _clean_path(member.name)
                    if cleaned is None:
                        continue
                    file = archive.extractfile(member) if member.isreg() else None
                    read = partial(bytes, file.read()) if file else _refuse_link
                    yield SourceImage(cleaned, read)
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            if num_members == 0:
                raise ValueError(f"{path} is neither a folder nor a zip or tar archive ({error})") from error
            raise ValueError(f"{path} breaks off after {num_members} members ({error}); fetch it again") from error

    return ImageSource(path.name.split(".tar")[0].removesuffix(".tgz"), None, images)


def _refuse_link() -> bytes:
    raise OSError("a link inside an archive; pack it with its links followed (tar --dereference --hard-dereference)")
