"""Zip archives: downloaded, and unpacked safely, file by file."""

import contextlib
import errno
import os
import shutil
import stat
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from mrcnn.data.files import check_file
from mrcnn.engine.downloads import download

CHUNK = 1 << 18
# What systems say of a name that they cannot have: too long, of forbidden characters, through a file, a folder's.
_BAD_NAME = {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP}


def fetch(url: str, folder: str | os.PathLike, verbose: int = 1) -> Path:
    """Downloads a zip archive into a folder and unpacks it there; what was interrupted goes on where it stopped.

    Args:
        url: address of the archive.
        folder: of nothing else than what comes out of the archive; it is made if needed. The archive is removed in the
            end.
        verbose: 0 shows no progress.

    Returns:
        The folder.

    Raises:
        ConnectionError, ValueError, OSError: as `download` and `unpack`. An archive that is damaged is removed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = PurePosixPath(urllib.parse.urlsplit(url).path).name
    if name in ("", ".."):
        raise ValueError(f"url = {url!r} names no file. Give the whole address of the archive")
    archive = folder / name
    if not archive.exists():
        if verbose:
            print(f"Downloading {url}")
        download(url, archive, check=zipfile.is_zipfile, verbose=verbose)
    try:
        unpack(archive, folder, verbose)
    except ValueError:
        archive.unlink()
        raise
    archive.unlink()
    return folder


def unpack(archive: str | os.PathLike, folder: str | os.PathLike, verbose: int = 1) -> list[Path]:
    """Unpacks a zip archive, nothing outside of a folder; a file gets its name when its checksum was found right.

    Files that are there already in the size that they have in the archive stay, so that an unpacking which was cut off
    goes on.

    Args:
        archive: path of the .zip file.
        folder: where its files go; it is made if needed.
        verbose: 0 shows no progress.

    Returns:
        Paths of the files that were written.

    Raises:
        FileNotFoundError: there is no such archive.
        ValueError: it is no zip archive, is damaged or encrypted, or holds a link, a file that would lie outside of
            `folder`, also by a link that is there, or one whose name cannot be had there; nothing is written then,
            unless the damage shows later.
        OSError: there is too little room (none is taken then), or a file cannot be written.
    """
    folder = Path(folder)
    check_file(archive)
    try:
        with zipfile.ZipFile(archive) as opened:
            wanted = [(member, folder / _safe_name(archive, member)) for member in opened.infolist()
                      if not member.filename.endswith("/")]
            _check_names(archive, folder, [path for _, path in wanted])
            _check_places(archive, folder, wanted)
            wanted = [(member, path) for member, path in wanted if not _is_there(path, member.file_size)]
            _check_links(archive, folder, {path.parent for _, path in wanted})
            folder.mkdir(parents=True, exist_ok=True)
            _check_room(archive, folder, sum(member.file_size for member, _ in wanted))
            columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
            with Progress(*columns, disable=not verbose) as progress:
                task = progress.add_task(f"unpacking {Path(archive).name}", total=sum(m.file_size for m, _ in wanted))
                for member, path in wanted:
                    with _naming(archive, member, path):
                        _unpack_file(opened, member, path)
                    progress.update(task, advance=member.file_size)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ValueError(f"{archive} is no whole zip archive ({error}). Fetch it again.") from error
    return [path for _, path in wanted]


def _safe_name(archive: str | os.PathLike, member: zipfile.ZipInfo) -> PurePosixPath:
    """Where a file goes, relative to the folder; an archive of which one file must not be unpacked is refused."""
    name = PurePosixPath(member.filename)
    if name.is_absolute() or ".." in name.parts or set(member.filename) & set("\\:") or not name.parts:
        raise ValueError(f"{archive} has a file {member.filename!r}, which would lie outside of the folder. Nothing "
                         "was unpacked; delete the archive, it is not to be trusted.")
    kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where the archive was made on a system without such kinds
    if kind not in (0, stat.S_IFREG):
        what = "link" if kind == stat.S_IFLNK else "device or the like"
        raise ValueError(f"{archive} has a {what}, {member.filename!r}. Nothing was unpacked; use an archive of files "
                         "only.")
    if member.flag_bits & 1:
        raise ValueError(f"{archive} is encrypted. Nothing was unpacked; use an archive without a password.")
    return name


def _check_names(archive: str | os.PathLike, folder: Path, paths: list[Path]) -> None:
    """Raises a ValueError if one file of an archive would take the place of another."""
    files = set()
    for path in paths:
        if path in files:
            raise ValueError(_two_files(archive, folder, path, path))
        files.add(path)
    folders = {parent for path in paths for parent in path.parents}
    for path in paths:
        # Each is written as {name}.part first, so that a file or a folder of the archive must not have this name.
        for other in (_part(path), *path.parents):
            if other in files or (other == _part(path) and other in folders):
                raise ValueError(_two_files(archive, folder, path, other))


def _two_files(archive: str | os.PathLike, folder: Path, path: Path, other: Path) -> str:
    names = " and ".join(str(one.relative_to(folder)) for one in (other, path))
    return f"{archive} has the files {names}, which cannot both be there. Nothing was unpacked; use another archive."


def _check_places(archive: str | os.PathLike, folder: Path, wanted: list[tuple[zipfile.ZipInfo, Path]]) -> None:
    """Raises a ValueError where a file cannot be: the system does not know such a name, or has a folder there."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    for member, path in wanted:
        with _naming(archive, member, path):
            # Each part of the name in a folder that exists: in one that does not, systems do not look at it.
            for name in _part(path).relative_to(folder).parts:
                _is_folder(there / name)
            if _is_folder(path) or _is_folder(_part(path)):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def _is_folder(path: Path) -> bool:
    """As `Path.is_dir`, but links are none, and a name that cannot be is an error."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _naming(archive: str | os.PathLike, member: zipfile.ZipInfo, path: Path) -> Iterator[None]:
    """Names archive and file where the system refuses the name; other errors, such as of a full disk, go through."""
    try:
        yield
    except OSError as error:
        if error.errno not in _BAD_NAME:
            raise
        raise ValueError(f"{archive} has a file {member.filename!r}, which cannot be written to {path} "
                         f"({error.strerror}). Unpack into an empty folder with a short path, or use another "
                         "archive.") from error


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _check_links(archive: str | os.PathLike, folder: Path, parents: set[Path]) -> None:
    """Raises a ValueError if a link within the folder leads files out of it."""
    whole = Path(os.path.realpath(folder))
    for parent in sorted(parents):
        if not (real := Path(os.path.realpath(parent))).is_relative_to(whole):
            raise ValueError(f"{archive} has files for {parent}, but that lies at {real}, outside of the folder, by a "
                             "link. Nothing was unpacked; remove the link, or unpack elsewhere.")


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _check_room(archive: str | os.PathLike, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"Unpacking {archive} needs {needed:,} bytes, {free:,} are free. Make room in",
                      str(folder))


def _unpack_file(opened: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    try:
        part.unlink(missing_ok=True)                                        # what was cut off, or a link elsewhere
        with opened.open(member) as source, part.open("xb") as target:      # reading to the end compares the checksum
            shutil.copyfileobj(source, target, CHUNK)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
