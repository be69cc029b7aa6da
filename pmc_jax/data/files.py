"""Files of other people -> rows. What a file is, is seen by its content and not by its name."""

import bz2
import gzip
import io
import lzma
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pmc_jax.data.parse import DELIMITERS, Rows, parse_text, without_nan
from pmc_jax.errors import UserError, few, first_line
from pmc_jax.settings.paths import expand

KINDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow")
PACKED = ("", ".gz", ".bz2", ".xz", ".zip")
SUFFIXES = tuple(kind + packed for packed in PACKED for kind in KINDS)
LFS = b"version https://git-lfs.github.com"
EXCEL = "an Excel sheet; save it as CSV (UTF-8)"
# What a file begins with -> what it is, and what to do instead.
FOREIGN = (
    (LFS, "a Git LFS pointer and not the file itself; run `git lfs pull` in its folder, or download the file"),
    (b"\xd0\xcf\x11\xe0", EXCEL),
    (b"\x1f\x8b", "packed twice; unpack it once (gunzip)"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd; unpack it (unzstd)"),
    (b"\x04\x22\x4d\x18", "packed with lz4; unpack it (unlz4)"),
    (b"7z\xbc\xaf", "a 7-Zip archive; unpack it"),
    (b"Rar!", "a RAR archive; unpack it"),
    (b"%PDF", "a PDF; save its questions as CSV"),
    (b"\x89HDF", "HDF5; save it as parquet or CSV"),
    (b"SQLite format 3", "a database; export the table as CSV"),
    (b"\x93NUMPY", "a numpy array; save it as JSON lines"),
    (b"FEA1", "an old feather file; save it as parquet"),
    (b"ORC", "an ORC file; save it as parquet"),
    (b"Obj\x01", "an Avro file; save it as parquet"),
    (b"\x80", "a Python pickle, which is never opened; save it as JSON lines"),
    (b"<", "a web page or XML; fetch the raw file, or save it as CSV"),
)
MARKS = (  # byte order marks; those of UTF-32 begin with those of UTF-16
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
ACCEPTED = f"known: {', '.join(KINDS)}, also packed as {', '.join(PACKED[1:])}"


def read_file(path: str | Path) -> Rows:
    """All rows of a JSON, JSON lines, CSV, TSV, parquet or arrow file, packed or not.

    Raises:
        UserError: the file is absent, empty, of another kind, or damaged; the message names file and row.
    """
    path = Path(expand(path))
    rows = read_content(unpack(read_bytes(path), str(path)), str(path))
    if not rows:
        raise UserError(f"{path}: has no rows")
    return rows


def read_passages(path: str | Path) -> Rows:
    """Rows of raw text, {"text": ...}: of a file that `read_file` reads, or one passage, all of a plain text file.

    Plain text is called NAME.txt: it may well begin like a table.
    """
    path = Path(expand(path))
    if ".txt" not in (suffix.lower() for suffix in path.suffixes[-2:]):
        return read_file(path)
    content = unpack(read_bytes(path), str(path))
    kind = foreign_kind(content) if content.startswith(LFS) else ""
    if kind:
        raise UserError(f"{path}: {kind}")
    return [{"text": decode(content, str(path))}]


def read_bytes(path: Path) -> bytes:
    """What a file holds. UserError where it is absent, a folder or a device."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UserError(f"{path}: no such file: it is a folder; name a file in it, or give the folder as data.path")
        if not stat.S_ISREG(mode):
            raise UserError(f"{path}: a pipe or a device, and data is read more than once; save it as a file first")
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def read_content(content: bytes, source: str) -> Rows:
    """The rows in the bytes of an unpacked file."""
    if content.startswith(b"PAR1"):
        return _read_arrow(_parquet, content, source, "parquet")
    if content.startswith(b"ARROW1"):
        return _read_arrow(_arrow_file, content, source, "arrow")
    if content.startswith(b"\xff\xff\xff\xff"):
        return _read_arrow(_arrow_stream, content, source, "arrow")
    kind = foreign_kind(content)
    if kind:
        raise UserError(f"{source}: {kind}; {ACCEPTED}")
    text = decode(content, source)
    name = source.lower().removesuffix(".zip")
    if text.lstrip()[:1] not in ("[", "{") and not any(k in name for k in KINDS) and not _has_columns(text):
        raise UserError(f"{source}: unknown kind of file; {ACCEPTED}")
    return parse_text(text, source)


def _has_columns(text: str) -> bool:
    """Whether a text of unknown kind begins like a table."""
    start = "\n".join(text.split("\n", 2)[:2])
    return "question" in start.lower() or any(delimiter in start for delimiter in DELIMITERS)


def foreign_kind(content: bytes) -> str:
    """What a file of a kind that is not read is, and what to do instead; empty for any other."""
    if content[257:262] == b"ustar":
        return "a tar archive; unpack it"
    return next((what for start, what in FOREIGN if content.lstrip(b" \t\r\n").startswith(start)), "")


def unpack(content: bytes, source: str) -> bytes:
    """The bytes of a file that may be packed with gzip, bzip2, xz or zip. UserError where the archive is damaged."""
    unpackers: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
        (b"\x1f\x8b", gzip.decompress),
        (b"BZh", bz2.decompress),
        (b"\xfd7zXZ\x00", lzma.decompress),
        (b"PK\x03\x04", lambda packed: _unzip(packed, source)),
        (b"PK\x05\x06", lambda packed: _unzip(packed, source)),
    )
    unpacker = next((unpacker for start, unpacker in unpackers if content.startswith(start)), None)
    if unpacker is None:
        return content
    try:
        return unpacker(content)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, ValueError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{source}: cannot be unpacked: {first_line(error)}; download or pack it again") from None


def _unzip(content: bytes, source: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        if "xl/workbook.xml" in names or "content.xml" in names:
            raise UserError(f"{source}: {EXCEL}; {ACCEPTED}")
        files = [n for n in names if not n.endswith("/") and not n.startswith("__MACOSX/")]
        if len(files) != 1:
            inside = f"{len(files)} files ({few(files)})" if files else "no file"
            raise UserError(f"{source}: an archive with {inside}; one is needed: unpack it and name the file")
        return archive.read(files[0])


def decode(content: bytes, source: str) -> str:
    """The text of a file: UTF-8, or what its byte order mark says. UserError names the line that is none."""
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
    hint = "save it as UTF-8, such as with `iconv -f latin1 -t utf-8`"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        shown = encoding.removesuffix("-sig").upper()
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{source}, line {line}: cannot be read as {shown}; {hint}") from None
    text = text.removesuffix("\x1a")  # ends a file of DOS
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UserError(f"{source}, line {line}: holds NUL bytes: a damaged file, or UTF-16 without its mark; {hint}")
    return text


def _read_arrow(read: Callable[[bytes], Any], content: bytes, source: str, kind: str) -> Rows:
    try:
        return without_nan(read(content).to_pylist())
    except Exception as error:  # arrow raises many kinds, NotImplementedError among them
        raise UserError(f"{source}: cannot be read as {kind}: {first_line(error)}; download or save it again") from None


def _parquet(content: bytes) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(io.BytesIO(content))


def _arrow_file(content: bytes) -> Any:
    import pyarrow.ipc

    return pyarrow.ipc.open_file(content).read_all()


def _arrow_stream(content: bytes) -> Any:
    import pyarrow.ipc

    return pyarrow.ipc.open_stream(content).read_all()


def check_pointer(file: Path) -> None:
    """UserError where a file is a Git LFS pointer: a checkout without `git lfs pull`.

    Raises:
        OSError: the file cannot be opened.
    """
    with file.open("rb") as opened:
        is_pointer = opened.read(len(LFS)) == LFS
    if is_pointer:
        raise UserError(f"{file}: {foreign_kind(LFS)}")
