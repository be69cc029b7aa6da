"""Files that are there whole or not at all, also after a kill or on a full disk."""

import json
import os
import secrets
from pathlib import Path
from typing import Any

from pmc_jax.distributed import multihost
from pmc_jax.errors import UserError, telling_file_errors

PARTIAL = ".pmc_jax-partial"  # begins the name of what is being written


def write_whole(file: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all. Only the first process of a run writes.

    It is written beside its place under a name that nobody else has, brought to the disk, and moved there.

    Raises:
        UserError: it cannot be written; the file is then as it was.
    """
    if not multihost.is_primary():
        return
    partial = file.with_name(f"{PARTIAL}-{secrets.token_hex(4)}")
    with telling_file_errors(file):
        try:
            # A lone surrogate becomes its escape, which JSON reads back.
            with partial.open("x", encoding="utf-8", errors="backslashreplace", newline="\n") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            os.replace(partial, file)
        except BaseException as error:
            partial.unlink(missing_ok=True)
            if isinstance(error, OSError):  # its own name says nothing to the user
                raise OSError(error.errno, f"cannot be written: {error.strerror}", str(file)) from None
            raise
        sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Bring names in a folder to the disk."""
    if os.name == "posix":
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        except OSError:  # some file systems cannot; the files themselves are on the disk
            pass
        finally:
            os.close(opened)


def write_json(file: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    write_whole(file, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    """Write JSONL, whole or not at all."""
    write_whole(file, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))


def read_json(file: Path) -> Any | None:
    """The file's value; None when it is not there. UserError for a file that cannot be read."""
    with telling_file_errors(file):
        if not file.exists():
            return None
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{file}: is damaged: not valid JSON ({error}); restore it, or move it away") from None


def split_lines(file: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The rows of a JSONL file, and the numbers of lines that are damaged.

    A last line cut by a kill is neither; a file that is not there has none.
    """
    with telling_file_errors(file):
        text = file.read_bytes() if file.exists() else b""
    rows: list[dict[str, Any]] = []
    damaged = []
    # Not splitlines: answers may hold other line separators.
    for number, line in enumerate(text.rpartition(b"\n")[0].split(b"\n"), 1):
        if line:
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict):
                rows.append(row)
            else:
                damaged.append(number)
    return rows, damaged


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file; a last line cut by a kill is left out, [] when there is no file.

    Raises:
        UserError: a line in between is damaged, or the file cannot be read.
    """
    rows, damaged = split_lines(file)
    if damaged:
        raise UserError(f"{file}, line {damaged[0]}: is damaged: no JSON object; restore the file, or move it away")
    return rows
