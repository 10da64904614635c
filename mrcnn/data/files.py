"""Files that are there whole or not at all."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path


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
