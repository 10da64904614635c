"""The HDF5 layout in which Keras 2, and so the original, keeps weights; reading and writing, without Keras."""

import contextlib
import difflib
import errno
import functools
import io
import math
import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np

from mrcnn.data.files import check_file, write_whole

# HDF5 keeps an attribute in the header of its object, which holds 64 kB.
ATTRIBUTE_LIMIT = 64512

_CHECKSUM = "crc32"
_AGAIN = "Fetch or save it again."
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HEAP = b"GCOL\x01"  # with its version, the only one; HDF5 does not look at the three zeros that follow
_LOOKALIKES = 1000  # far more than by chance
_FOREIGN = {
    b"PK\x03\x04": "a zip archive (a Keras 3 .keras file, an .npz or a PyTorch .pth file)",
    b"\x80\x02": "a pickle (a PyTorch or Detectron file)",
    b"<": "a web page: the download went wrong",
    b"version https://git-lfs": "a Git LFS pointer: run `git lfs pull`",
    b"\x1f\x8b": "a gzip archive: unpack it first",
}


class _LayoutError(ValueError):
    """An error that names the file already, unlike those of h5py."""


def load_names(group: h5py.Group, attribute: str) -> list[str] | None:
    """Reads a list of names, whole or in chunks (`layer_names0`, ...); None where there is none.

    Raises:
        TypeError: the attribute is there, but is no list of names.
    """
    if attribute in group.attrs:
        return _names(group, attribute)
    if f"{attribute}0" not in group.attrs:
        return None
    values, chunk = [], 0
    while f"{attribute}{chunk}" in group.attrs:
        values += _names(group, f"{attribute}{chunk}")
        chunk += 1
    return values


def _names(group: h5py.Group, attribute: str) -> list[str]:
    value = _read_attribute(group, attribute)
    values = value.tolist() if isinstance(value, np.ndarray) and value.ndim == 1 else None
    if values is None or not all(isinstance(name, bytes | str) for name in values):
        raise TypeError(f"the attribute {attribute} of {group.name} is no list of names")
    try:
        encoded = [name if isinstance(name, bytes) else name.encode("utf-8") for name in values]
        names = [name.decode("utf-8") for name in encoded]
    except UnicodeError as error:
        raise TypeError(f"the attribute {attribute} of {group.name} has a name that is no text ({error})") from error
    if any("\0" in name for name in names):
        raise TypeError(f"the attribute {attribute} of {group.name} has a name with a zero byte")
    return names


def _read_attribute(item: h5py.Group | h5py.Dataset, name: str) -> object:
    """The value of an attribute; a TypeError if HDF5 would ask for too much memory, crash, or never come back."""
    header = item.attrs.get_id(name)
    if math.prod(header.shape or ()) * header.dtype.itemsize > item.file.id.get_filesize():
        raise TypeError(f"the attribute {name} of {item.name} would be larger than the file")
    # Texts of any length lie in heaps. HDF5 goes round in circles in one that says of a part that it has no bytes.
    # Of other things in a heap than texts it reads as many bytes as the attribute says, whatever the heap has.
    if header.dtype.hasobject and h5py.check_string_dtype(header.dtype) is None:
        raise TypeError(f"the attribute {name} of {item.name} is neither texts nor numbers")
    if header.dtype.hasobject and not _lies_in_whole_heaps(item, name):
        raise TypeError(f"the attribute {name} of {item.name} lies in a heap that is damaged")
    return item.attrs[name]


def _lies_in_whole_heaps(item: h5py.Group | h5py.Dataset, attribute: str) -> bool:
    """Whether all global heaps that an attribute needs can be walked through.

    Names and numbers may look like a damaged heap. What looks like one is made unreadable in a copy of the file: if the
    attribute can be read there, it does not need it. Opened by its place, as the names of groups may have changed.
    """
    if item.file.id.get_create_plist().get_sizes() != (8, 8):  # bytes of an address and of a length
        return False
    try:
        copy = _without_damaged_heaps(item.file.filename, h5py.h5o.get_info(item.id).fileno)
        if copy is not None:
            copy[item.ref].attrs[attribute]
    except (OSError, KeyError, RuntimeError, ValueError):
        return False
    return True


@functools.lru_cache(maxsize=1)
def _without_damaged_heaps(path: str, opened: int) -> h5py.File | None:
    """A copy in memory, None where nothing looks like a damaged heap; `opened` is HDF5's number of the open file.

    Whole heaps are searched through too, as one that was made up may lie around another.

    Raises:
        ValueError: there are more of them than a file can have that was not made to keep this search busy.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        damaged, at = [], content.find(_HEAP)
        most_parts = len(content) // 16  # heaps lie side by side
        while at >= 0:
            whole, parts = _walk_heap(content, at)
            most_parts -= parts
            damaged += [] if whole else [at]
            if most_parts < 0 or len(damaged) > _LOOKALIKES:
                raise ValueError("too many heaps")
            at = content.find(_HEAP, at + len(_HEAP))
        if not damaged:
            return None
        copy = io.BytesIO(content)
    for at in damaged:
        copy.seek(at)
        copy.write(b"none")
    return h5py.File(copy, "r")


def _walk_heap(content: mmap.mmap, at: int) -> tuple[bool, int]:
    """Whether the parts of a heap follow each other to its end, and their number.

    HDF5 File Format Specification 3.0, III.E.
    """
    head = struct.Struct("<HHIQ")  # number, references, nothing, bytes; number 0 is free space, with these 16 bytes
    if at + 16 > len(content):
        return False, 0
    end, parts = at + int.from_bytes(content[at + 8 : at + 16], "little"), 0
    at += 16
    while at + head.size <= end <= len(content):
        number, _, _, size = head.unpack_from(content, at)
        step = size if number == 0 else head.size + -(-size // 8) * 8
        if step < head.size:
            return False, parts
        at += step
        parts += 1
    return at <= end <= len(content), parts


def find(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """What lies in a group under a name, `inner/name` included; None where there is nothing, or a link.

    Links may lead to other files, which no file from elsewhere shall make a program open. Keras writes none.
    """
    found = group
    for part in filter(None, name.split("/")):
        if not isinstance(found, h5py.Group) or not isinstance(found.get(part, getlink=True), h5py.HardLink):
            return None
        found = found[part]
    return found


def save_names(group: h5py.Group, attribute: str, names: list[str]) -> None:
    """Writes a list of names as fixed-length bytes, in chunks where they exceed what an attribute can hold."""
    values = np.array([name.encode("utf-8") for name in names]) if names else np.zeros(0)
    if values.nbytes <= ATTRIBUTE_LIMIT:
        group.attrs[attribute] = values
        return
    rows = max(1, ATTRIBUTE_LIMIT // values.itemsize)
    for chunk, start in enumerate(range(0, len(values), rows)):
        group.attrs[f"{attribute}{chunk}"] = values[start : start + rows]


def open_hdf5(path: str | os.PathLike) -> h5py.File:
    """Opens a file for reading.

    Args:
        path: of a file.

    Returns:
        The open `h5py.File`.

    Raises:
        FileNotFoundError: there is no such file; names a similar one in the same folder.
        ValueError: it is not HDF5 (and what it seems to be), cut off, or damaged.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a weights file. Give the .h5 file in it; `model.find_last()` finds "
                         "the last one of a run.")
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "No such weights file" + _remedy_if_missing(path), str(path))
    check_file(path)
    with path.open("rb") as file:
        head = file.read(64)
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if head.startswith(_SIGNATURE):
            raise ValueError(f"{path} ({path.stat().st_size:,} bytes) is cut off, damaged or being written: {error}. "
                             f"{_AGAIN}") from error
        kind = next((kind for magic, kind in _FOREIGN.items() if head.startswith(magic)), "not HDF5")
        kind = kind if head else "empty (0 bytes)"
        raise ValueError(f"{path} is {kind}. A weights file is HDF5 in the layout of Keras 2, as the original "
                         "mask_rcnn_coco.h5.") from error


def _remedy_if_missing(path: Path) -> str:
    siblings = [file.name for file in path.parent.glob("*.h5")] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, siblings, n=1)
    if close:
        return f" (did you mean {close[0]}?)"
    if not path.parent.is_dir():
        return f" (there is no folder {path.parent} either)"
    return " (`mrcnn.utils.download_trained_weights(path)` fetches the COCO weights)"


@contextlib.contextmanager
def read_file(path: str | os.PathLike) -> Iterator[dict[str, dict[str, h5py.Dataset]]]:
    """Opens a weights file in the layout of Keras 2, to be used as `with read_file(path) as layers:`.

    Names may be str or bytes, whole or in chunks, and the layers may be wrapped in a group `model_weights`. Nothing
    is read but names and shapes: `dataset[()]` reads an array, as long as the context is open.

    Args:
        path: of a file.

    Returns:
        {layer name: {weight name: dataset}} in the order of the file; layers without weights have an empty dict.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not HDF5, cut off, of another layout, or lacks arrays that it lists.
    """
    with open_hdf5(path) as file:
        try:
            layers = _read_layers(path, file)
        except _LayoutError:
            raise
        except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged: {error}. {_AGAIN}") from error
        yield layers


def _read_layers(path: str | os.PathLike, file: h5py.File) -> dict[str, dict[str, h5py.Dataset]]:
    wrapped = find(file, "model_weights")
    root = wrapped if isinstance(wrapped, h5py.Group) else file
    names = load_names(root, "layer_names")
    if names is None:
        raise _LayoutError(f"{path} is {_foreign_layout(file)}. Expected the layout of Keras 2: an attribute "
                           "layer_names and one group per layer, as in the original's mask_rcnn_coco.h5 or in the "
                           "files that `model.keras_model.save_weights('name.h5')` writes here.")
    layers = {}
    for name in names:
        group = find(root, name)
        weights = load_names(group, "weight_names") if isinstance(group, h5py.Group) else None
        if weights is None:
            raise _LayoutError(f"{path} is not whole: it lists the layer {name!r}, which is missing. {_AGAIN}")
        layers[name] = {weight: find(group, weight) for weight in weights}
        for weight, array in layers[name].items():
            check_array(path, weight, array)
    return layers


def _foreign_layout(file: h5py.File) -> str:
    if "stage" in file and "variables" in file:
        return "a file of optimizer state; the weights lie next to it, in mask_rcnn_*.h5"
    if "_layer_checkpoint_dependencies" in file or "layers" in file:
        return "a Keras 3 .weights.h5 file, which has no layer names"
    inside = ", ".join(list(file)[:5]) or "nothing"
    return f"an HDF5 file without weights of Keras (it holds {inside})"


def check_array(path: str | os.PathLike, name: str, array: object) -> None:
    """Raises a ValueError unless an array is there, whole, within its file, and of numbers; reads none of them."""
    if isinstance(array, h5py.Dataset) and (array.is_virtual or array.external):
        raise _LayoutError(f"{path}: the numbers of the array {name!r} lie in another file, which is not opened. Save "
                           "the weights as one file.")
    # Space is given to an array when it is first written: one without space was cut short by the end of its writer.
    # An array of no shape at all (HDF5's null dataspace) holds nothing either.
    is_array = isinstance(array, h5py.Dataset) and array.shape is not None
    if not is_array or (array.size and not (array.id.get_storage_size() and _has_chunks(array))):
        raise _LayoutError(f"{path} is not whole: it lists the array {name!r}, which is missing. {_AGAIN}")
    if array.dtype.kind not in "fiu":
        raise _LayoutError(f"{path}: the array {name!r} holds {array.dtype}, not numbers.")


def _has_chunks(array: h5py.Dataset) -> bool:
    """Whether all parts of an array that is kept in parts are there, none without its checksum.

    What is missing would be read as zeros.
    """
    if not array.chunks:
        return True
    parts = math.prod(-(-side // step) for side, step in zip(array.shape, array.chunks, strict=True))
    if array.id.get_num_chunks() != parts:
        return False
    offsets = set()
    array.id.chunk_iter(lambda part: None if part.filter_mask else offsets.add(part.chunk_offset))
    return len(offsets) == parts and all(
        at < side and at % step == 0
        for offset in offsets for at, side, step in zip(offset, array.shape, array.chunks, strict=True)
    )  # fmt: skip


def read_array(path: str | os.PathLike, name: str, array: h5py.Dataset) -> np.ndarray:
    """The numbers of an array that `read_file` found.

    Args:
        path, name: of the file and the array, for messages.
        array: as long as the file is open.

    Returns:
        array of finite numbers, of the dtype in the file.

    Raises:
        ValueError: it cannot be read, its checksum is wrong, or a number is not finite, even as float32.
    """
    try:
        values = array[()]
        expected = _read_attribute(array, _CHECKSUM) if _CHECKSUM in array.attrs else None
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: the array {name!r} cannot be read ({error}). {_AGAIN}") from error
    if expected is not None and not np.array_equal(expected, _checksum(values)):
        raise ValueError(f"{path} is damaged: the array {name!r} has changed since it was saved. {_AGAIN}")
    with np.errstate(over="ignore"):  # what is too large becomes infinite
        if not np.isfinite(np.asarray(values, np.float32)).all():
            raise ValueError(f"{path}: the array {name!r} holds values that are no finite numbers: the file is "
                             "damaged, or its training went wrong. Take an earlier checkpoint, or fetch it again.")
    return values


def is_whole(path: str | os.PathLike) -> bool:
    """Tells whether a weights file can be opened and has every array that it lists, without reading the arrays.

    Args:
        path: of a file, which need not exist.

    Returns:
        True if it is a whole file in the layout of Keras 2.
    """
    try:
        with read_file(path):
            return True
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def new_hdf5(path: str | os.PathLike) -> Iterator[h5py.File]:
    """Yields an open `h5py.File` to write to; it becomes the file `path` in the end, whole or not at all.

    It is made in memory: when a disk is full, HDF5 ends the process by a segmentation fault. Its structure has
    checksums, and every HDF5 since 1.8 (2008) reads it.

    Raises:
        FileNotFoundError: there is no such folder.
        OSError: it cannot be written; where the disk is full, with the room that the file needs.
    """
    memory = io.BytesIO()
    with h5py.File(memory, "w", libver=("v108", "v108")) as file:
        yield file
    write_whole(path, memory.getbuffer())


def write_file(path: str | os.PathLike, layers: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Writes a weights file in the layout of Keras 2; on a failure the old file stays as it was.

    Arrays and structure have checksums, so that a file that suffers damage later is refused.

    Args:
        path: of the file, in a folder that exists.
        layers: {layer name: {weight name: array}} in the order to write; layers without weights included.

    Raises:
        FileNotFoundError: there is no such folder.
        OSError: it cannot be written (the disk is full, ...).
    """
    with new_hdf5(path) as file:
        save_names(file, "layer_names", list(layers))
        # The original turns kernels over when they come from another backend than its own.
        file.attrs["backend"] = np.bytes_("tensorflow")
        file.attrs["keras_version"] = np.bytes_("2.2.4")
        for layer, weights in layers.items():
            group = file.create_group(layer)
            save_names(group, "weight_names", list(weights))
            for name, array in weights.items():
                save_array(group, name, array)


def save_array(group: h5py.Group, name: str, array: np.ndarray) -> None:
    """Adds an array and its checksum, an attribute that others need not know."""
    group.create_dataset(name, data=array).attrs[_CHECKSUM] = _checksum(array)


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
