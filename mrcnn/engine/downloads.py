"""Downloads that show their progress, go on where they were cut off, and never leave half a file behind."""

import contextlib
import errno
import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from mrcnn.data.transfers import chunks


def download(url: str, path: str | os.PathLike, expected_length: int | None = None,
             check: Callable[[str], bool] | None = None, verbose: int = 1, timeout: float = 30.0) -> None:
    """Downloads a file; whatever fails, a file that was there before stays as it was.

    The bytes gather in `{path}.part`. If that is there from an earlier attempt and the server still has the same file
    (and can send parts), only the rest is fetched. The file gets its name when its length is the announced one and
    `check` accepts it.

    Args:
        url: http, https, ftp or file address.
        path: where the file goes, in a folder that exists.
        expected_length: bytes that the file must have, if known.
        check: called with the path of the complete file before it gets its name; False or an exception refuses it.
        verbose: 0 shows no progress.
        timeout: seconds of silence after which the server counts as gone.

    Raises:
        ConnectionError: the server cannot be reached, answers with an error, falls silent, sends less than 1,000 bytes
            a second over a minute, or cuts off; what arrived is kept for the next attempt.
        ValueError: `url` cannot be asked for, the file has another length than expected, or `check` refused it.
        OSError: it cannot be written (the disk is full, ...); what arrived is kept.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "No such folder to download to; create it first", str(path.parent))
    part = path.with_name(path.name + ".part")
    note = path.with_name(path.name + ".part.json")
    if not _is_complete(url, part, note):
        _fetch(url, part, note, expected_length, verbose, timeout)
    size = part.stat().st_size
    try:
        if expected_length not in (None, size):
            raise ValueError(f"{url} has {size:,} bytes, expected {expected_length:,}. {path} was not touched; "
                             "check the address.")
        if check is not None and check(str(part)) is False:
            raise ValueError(f"{url} was fetched completely ({size:,} bytes), but is not a file of the expected kind. "
                             f"{path} was not touched; check the address.")
    except Exception:
        _discard(part, note)
        raise
    note.unlink(missing_ok=True)  # first: a process that ends here leaves no note that nobody would read again
    os.replace(part, path)


def _is_complete(url: str, part: Path, note: Path) -> bool:
    """An attempt may have ended between the last byte and the renaming."""
    return part.is_file() and _read_note(url, note).get("length") == part.stat().st_size


def _fetch(url: str, part: Path, note: Path, expected_length: int | None, verbose: int, timeout: float) -> None:
    with _open(url, part, note, timeout) as response:
        done = part.stat().st_size if _continues(response, part) else 0
        announced = response.headers.get("Content-Length")
        if announced is not None and not announced.isdecimal():
            raise ConnectionError(f"{url}: the server announces a file of Content-Length {announced!r}, which is no "
                                  "number of bytes. Check the address.")
        total = done + int(announced) if announced is not None else None
        if total is not None and expected_length not in (None, total):
            raise ValueError(f"{url} has {total:,} bytes, expected {expected_length:,}. Nothing was fetched; check the "
                             "address.")
        if not done:
            _discard(part)      # before the note: old bytes must never lie beside the note of a new file
        note.write_text(json.dumps({"url": url, "validator": _validator(response), "length": total}))
        try:
            _copy(url, response, part, done, total, verbose)
        except ConnectionError:
            raise
        except OSError as error:
            raise OSError(error.errno, f"Cannot write {part}: {error.strerror or error}. Make room and try again; what "
                          "arrived is kept") from error
    if total is not None and part.stat().st_size < total:
        raise ConnectionError(_interrupted(url, part, total, "the server closed the connection"))


def _open(url: str, part: Path, note: Path, timeout: float):
    """Asks for the missing bytes, or for all if there are none yet or they cannot be trusted."""
    validator = _read_note(url, note).get("validator")
    if validator and part.is_file() and part.stat().st_size:
        # If-Range: the server sends everything if its file has changed since.
        response = _request(url, timeout, {"Range": f"bytes={part.stat().st_size}-", "If-Range": validator})
        if response is not None and (_status(response) != 206 or _continues(response, part)):
            return response
        if response is not None:
            response.close()
        _discard(part, note)        # the server has no such range, or sent another one
    response = _request(url, timeout, {})
    if response is None or _status(response) == 206:
        raise ConnectionError(f"{url}: the server speaks of ranges that nobody asked for. Check the address.")
    return response


def _request(url: str, timeout: float, headers: dict[str, str]):
    """The open answer, or None if the server has no such range."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "mask-rcnn", **headers}
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            return None
        raise ConnectionError(f"{url}: the server answers {error.code} {error.reason}. Check the address.") from error
    except (OSError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        raise ConnectionError(f"Cannot reach {url}: {reason}. Check network and address, and try again.") from error
    except ValueError as error:
        raise ValueError(f"url = {url!r} cannot be asked for ({error}). Give an address that begins with http://, "
                         "https://, ftp:// or file://, characters beyond ASCII escaped as in %C3%BC") from error


def _status(response) -> int | None:
    return getattr(response, "status", None)        # a file:// address has none


def _continues(response, part: Path) -> bool:
    """True if the answer begins exactly where the part ends."""
    start = (response.headers.get("Content-Range") or "").removeprefix("bytes ").partition("-")[0]
    return _status(response) == 206 and start == str(part.stat().st_size)


def _copy(url: str, response, part: Path, done: int, total: int | None, verbose: int) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
               TimeRemainingColumn())
    with part.open("ab") as file, Progress(*columns, disable=not verbose) as progress:
        task = progress.add_task(part.name.removesuffix(".part"), total=total, completed=done)
        arriving = chunks(response)
        while True:
            try:
                chunk = next(arriving, b"")
            except (OSError, http.client.HTTPException) as error:
                file.flush()
                raise ConnectionError(_interrupted(url, part, total, str(error) or type(error).__name__)) from error
            if not chunk:
                break
            file.write(chunk)
            progress.update(task, advance=len(chunk))
        file.flush()
        os.fsync(file.fileno())


def _validator(response) -> str | None:
    """What identifies the server's version of the file; weak tags must not be used for parts."""
    tag = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _read_note(url: str, note: Path) -> dict:
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(note.read_text())
        if isinstance(known, dict) and known.get("url") == url:
            return known
    return {}


def _discard(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _interrupted(url: str, part: Path, total: int | None, reason: str) -> str:
    size = part.stat().st_size if part.is_file() else 0
    of = f" of {total:,}" if total is not None else ""
    return f"{url} broke off after {size:,}{of} bytes: {reason}. Try again: it goes on from there."
