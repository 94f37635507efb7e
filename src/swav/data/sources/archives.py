"""Pictures inside zip and tar files: listed and read in place, never extracted to the disk."""

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from swav.data.sources.decode import MAX_FILE_BYTES
from swav.data.sources.listing import BadFile, is_hidden, is_picture

MAX_MEMBERS = 10**6
# deflate can shrink by 1032; pictures, most of them compressed before, are far below
MAX_RATIO = 200
_HARMLESS_BYTES = 64 * 2**20  # no compression ratio makes so little dangerous
_MOST_STORED = MAX_FILE_BYTES + 2**20  # what cannot be compressed grows a little
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_DAMAGE = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)
SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")


class Member(NamedTuple):
    """Where the bytes of one picture are."""

    name: str
    start: int
    """Its data for a tar, its local header for a zip."""
    stored: int
    """Bytes that it takes in the archive."""
    size: int
    deflated: bool = False
    crc: int | None = None


class Index(NamedTuple):
    """The pictures of an archive; ``content`` holds their bytes if it must be read in order."""

    members: list[Member]
    bad_files: list[BadFile]
    content: bytearray | None = None


def list_archive(path: Path, *, max_bytes: int | None) -> Index:
    """Return where the pictures of a zip or tar are, sorted by name.

    A compressed tar is read through, and its pictures kept as they are up to ``max_bytes``;
    ``None`` keeps none, for who needs the names only.

    Raises:
        ValueError: If it is no such archive, or is above the limits.
    """
    is_zip = path.name.lower().endswith(".zip")
    index = _list_zip(path) if is_zip else _list_tar(path, max_bytes)
    # by bytes, as folders are: unpacked or not, a set has one order
    index.members.sort(key=lambda member: member.name.encode("utf-8", "surrogatepass"))
    index.bad_files.sort()
    return index


def read_member(path: Path, member: Member) -> bytes:
    """Return the bytes of a picture. Safe from several threads and forked processes.

    Raises:
        ValueError: If they are not what the archive promised.
    """
    # opened anew: processes that share a file also share its position
    with open(path, "rb") as file:
        file.seek(member.start if member.crc is None else _zip_data_start(file, member))
        content = file.read(min(member.stored, _MOST_STORED))
    if member.deflated:
        try:
            # one byte more than promised: enough to see that there is more, and no bomb
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, member.size + 1)
        except zlib.error as error:
            raise ValueError(f"damaged in the archive: {error}") from error
    if len(content) != member.size:
        raise ValueError(f"{len(content)} bytes where the archive promised {member.size}")
    if member.crc is not None and zlib.crc32(content) != member.crc:
        raise ValueError("its checksum in the archive is wrong")
    return content


def _zip_data_start(file: IO[bytes], member: Member) -> int:
    file.seek(member.start)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
        raise ValueError("the archive is damaged here")
    _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    # the lengths of the local header, which may differ from those of the directory
    return member.start + len(header) + int(name_length) + int(extra_length)


def _list_zip(path: Path) -> Index:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, struct.error, NotImplementedError) as error:
        raise ValueError(f"{path} is not a whole zip file: {error}") from error
    _check_totals(path, len(entries), sum(entry.file_size for entry in entries))
    members, bad_files = [], []
    for entry in entries:
        if not _is_shown(entry.filename):
            continue
        reason = _zip_fault(entry) or _fault(entry.filename, entry.file_size)
        if reason:
            bad_files.append(BadFile(entry.filename, reason))
            continue
        extent = (entry.header_offset, entry.compress_size, entry.file_size)
        deflated = entry.compress_type == zipfile.ZIP_DEFLATED
        members.append(Member(entry.filename.removeprefix("./"), *extent, deflated, entry.CRC))
    return Index(members, bad_files)


def _zip_fault(entry: zipfile.ZipInfo) -> str:
    if entry.flag_bits & 1:
        return "encrypted"
    # its content is a path, which could lead anywhere
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "a link, not a file"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"compression method {entry.compress_type}: use deflate, or store it"
    return ""


def _list_tar(path: Path, max_bytes: int | None) -> Index:
    size = path.stat().st_size
    plain = path.suffix.lower() == ".tar"
    index = Index([], [], None if plain or max_bytes is None else bytearray())
    with _open_tar(path) as opened:
        # a compressed tar does not say how long it is: the limit is kept while it is read
        limit = max(_HARMLESS_BYTES, MAX_RATIO * size)
        stream = _Forward(opened, limit=limit, ends_at=size if plain else None)
        try:
            for member in _pictures_of_tar(stream, path, index.bad_files):
                _add_from_tar(index, member, stream)
                if index.content is not None and len(index.content) > (max_bytes or 0):
                    raise ValueError(
                        f"the pictures of {path} are above the memory limit of {max_bytes} bytes, "
                        "and a compressed tar cannot be read in any order: unpack it, or make it "
                        "a .tar"
                    )
        except _DAMAGE as error:
            # what was read before the damage is whole, and is used
            index.bad_files.append(BadFile(path.name, f"damaged, the rest is lost: {error}"))
    return index


def _open_tar(path: Path) -> io.BufferedIOBase:
    if path.suffix.lower() == ".tar":
        return open(path, "rb")
    if path.suffix.lower() == ".bz2":
        return bz2.open(path)
    return lzma.open(path) if path.suffix.lower() == ".xz" else gzip.open(path)


def _add_from_tar(index: Index, member: tarfile.TarInfo, stream: "_Forward") -> None:
    size = member.size
    if index.content is None:
        start = member.offset_data
        whole = stream.ends_at is None or start + size <= stream.ends_at
    else:
        stream.seek(member.offset_data)
        content = stream.read(size)
        whole = len(content) == size
        start = len(index.content)
        index.content.extend(content)
    if whole:
        index.members.append(Member(member.name.removeprefix("./"), start, size, size))
    else:
        index.bad_files.append(BadFile(member.name, "the archive ends inside of it"))


def _pictures_of_tar(
    stream: "_Forward", path: Path, bad_files: list[BadFile]
) -> Iterator[tarfile.TarInfo]:
    try:
        archive = tarfile.TarFile(fileobj=stream, mode="r")
    except _DAMAGE as error:
        raise ValueError(f"{path} is not a whole tar file: {error}") from error
    num_members, last = 0, ""
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
        num_members, last = num_members + 1, member.name
        _check_totals(path, num_members, 0)
        if member.isdir() or not _is_shown(member.name):
            continue
        reason = _tar_fault(member) or _fault(member.name, member.size)
        if reason:
            bad_files.append(BadFile(member.name, reason))
        else:
            yield member
    if any(stream.last):  # a header was expected, and neither the end nor a header was there
        bad_files.append(BadFile(path.name, f"damaged after {last!r}: the rest is lost"))


def _tar_fault(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return "a link, not a file"
    return "" if member.isreg() and not member.issparse() else "not a regular file"


def _is_shown(name: str) -> bool:
    folders = name.replace("\\", "/").split("/")[:-1]
    hidden = any(is_hidden(folder) for folder in folders if folder not in (".", ".."))
    return is_picture(name) and not hidden


def _fault(name: str, size: int) -> str:
    """Say what is wrong with a member by its name, which is only ever a name here, and size."""
    # both slashes and drive letters, wherever it was packed
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        return "its name leads out of the archive"
    if size == 0:
        return "the file is empty"
    if size > MAX_FILE_BYTES:
        return f"{size} bytes are above the limit of {MAX_FILE_BYTES}"
    return ""


def _check_totals(path: Path, num_members: int, total_bytes: int) -> None:
    if num_members > MAX_MEMBERS:
        raise ValueError(
            f"{path} has more than {MAX_MEMBERS} members: unpack it, or make it several"
        )
    if total_bytes > max(_HARMLESS_BYTES, MAX_RATIO * path.stat().st_size):
        raise ValueError(
            f"{path} unpacks to {total_bytes} bytes, more than {MAX_RATIO} times its size: "
            "it looks like a decompression bomb"
        )


class _Forward(io.RawIOBase):
    """A file for ``tarfile`` that skips lazily, never goes back, and gives no more than a limit."""

    def __init__(self, file: io.BufferedIOBase, *, limit: int, ends_at: int | None) -> None:
        super().__init__()
        self.ends_at = ends_at
        """Its size, if that is known before it is read."""
        self.last = b""
        """What the last read gave."""
        self._file = file
        self._limit = limit
        self._position = 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        assert whence == os.SEEK_SET
        self._position = position
        return position

    def read(self, size: int = -1) -> bytes:
        if self.ends_at is None and self._position + size > self._limit:
            raise tarfile.ReadError(f"more than {self._limit} bytes: is it a decompression bomb?")
        if not 0 <= size <= MAX_FILE_BYTES:
            raise tarfile.ReadError(f"a block of {size} bytes")
        if self._file.tell() != self._position:
            self._file.seek(self._position)
        self.last = self._file.read(size)
        self._position += len(self.last)
        return self.last
