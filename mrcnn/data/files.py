"""Files that are there whole or not at all, and the reading of tables."""

import contextlib
import csv
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}    # full disk, used-up quota, a limit on the size of files


def is_no_room(error: BaseException) -> bool:
    """Whether an error says that a file had no room, be it an OSError or one of a framework that only says so."""
    return getattr(error, "errno", None) in _NO_ROOM or os.strerror(errno.ENOSPC) in str(error)


def check_file(path: str | os.PathLike) -> None:
    """Raises a ValueError if there is something of this name that is no file: whoever reads a pipe may wait for ever.

    What is not there at all is left to the one who opens it.
    """
    if kind := kind_of_no_file(path):
        raise ValueError(f"{os.fspath(path)} is {kind}. Give the path of a file")


def kind_of_no_file(path: str | os.PathLike) -> str | None:
    """What it is that lies there and is no file; None for a file, and for nothing."""
    if not os.path.exists(path) or os.path.isfile(path):
        return None
    return "a folder" if os.path.isdir(path) else "a pipe or a device"


def read_table(path: str | os.PathLike) -> tuple[list[str], list[dict[str, str]]]:
    """The column names of a CSV file and its lines as dicts; a line that ends early has NA in the columns it lacks.

    Raises:
        ValueError: it is no text of UTF-8, a quote is open, or a line has more cells than there are columns.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # spreadsheets put a byte order mark first
            reader = csv.DictReader(file, restval="NA", strict=True)
            rows, columns = list(reader), list(reader.fieldnames or ())
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{os.fspath(path)} is no table of comma-separated values: {error}") from error
    long = next((number for number, row in enumerate(rows, start=2) if None in row), None)
    if long:
        raise ValueError(f"{os.fspath(path)}: line {long} has more cells than the {len(columns)} columns. Does it have "
                         "decimal commas?")
    return columns, rows


def write_whole(path: str | os.PathLike, content: bytes | memoryview) -> None:
    """Writes a file that is there whole or not at all.

    Args:
        path: of the file, in a folder that exists; replaced as a whole.
        content: all of it.

    Raises:
        FileNotFoundError: there is no such folder.
        OSError: it cannot be written; where the disk is full, with the room that the file needs.
    """
    try:
        with atomic(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        if not is_no_room(error):
            raise
        folder, size = Path(os.path.realpath(path)).parent, memoryview(content).nbytes
        free = shutil.disk_usage(folder).free
        raise OSError(error.errno, f"No room to save {Path(path).name} ({error.strerror}): it needs {size:,} bytes, "
                      f"{free:,} are free. Make room in", str(folder)) from error


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which it becomes on success and which is removed on failure.

    A process killed in between leaves the old file whole, and a hidden temporary one that the next attempt overwrites.
    """
    path = Path(os.path.realpath(path))     # a link stays a link: its target is replaced
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "No such folder to save to; create it first", str(path.parent))
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):      # Windows cannot open a folder
        _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
