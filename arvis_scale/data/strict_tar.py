"""Tar members read so that damage is an error and no header costs more time or memory than a name can need."""

from __future__ import annotations

import tarfile
from tarfile import EOFHeaderError, HeaderError, ReadError  # type: ignore[attr-defined]  # typeshed lacks one

# Long names and PAX records. tarfile searches them in a time that grows with the square of their length.
LONGEST_HEADER = 32 * 1024
LARGEST_MEMBER = 1 << 50
_EXTENDED_HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class StrictTarInfo(tarfile.TarInfo):
    """Reads members so that only the end-of-archive mark ends an archive; all else raises `tarfile.ReadError`.

    tarfile itself takes a damaged or missing header in the middle for the end and says nothing, lets members begin
    before their own headers (it then never ends), and believes any length that a header claims.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> StrictTarInfo:
        member = super().frombuf(buf, encoding, errors)
        largest = LONGEST_HEADER if member.type in _EXTENDED_HEADERS else LARGEST_MEMBER
        if not 0 <= member.size <= largest:
            raise HeaderError(f"a member of {member.size} bytes")
        return member

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> StrictTarInfo:
        start = tarfile.offset
        try:
            member = super().fromtarfile(tarfile)
        except EOFHeaderError:
            raise
        except (HeaderError, ValueError, OverflowError, RecursionError) as error:
            raise ReadError(f"damaged or cut at byte {start}: {error}") from error
        if not 0 <= member.size <= LARGEST_MEMBER or tarfile.offset <= start:
            raise ReadError(f"damaged at byte {start}: a member of {member.size} bytes")
        return member
