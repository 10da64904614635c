"""The HDF5 layout in which Keras 2, and so the original, keeps weights; reading and writing, without Keras."""

import contextlib
import difflib
import errno
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np

from mrcnn.data.files import write_whole

# HDF5 keeps an attribute in the header of its object, which holds 64 kB.
ATTRIBUTE_LIMIT = 64512

_AGAIN = "Fetch or save it again."
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_FOREIGN = {
    b"PK\x03\x04": "a zip archive (a Keras 3 .keras file, an .npz or a PyTorch .pth file)",
    b"\x80\x02": "a pickle (a PyTorch or Detectron file)",
    b"<": "a web page: the download went wrong",
    b"version https://git-lfs": "a Git LFS pointer: run `git lfs pull`",
    b"\x1f\x8b": "a gzip archive: unpack it first",
}


def load_names(group: h5py.Group, attribute: str) -> list[str] | None:
    """Reads a list of names, whole or in chunks (`layer_names0`, ...); None where there is none."""
    if attribute in group.attrs:
        values = list(group.attrs[attribute])
    elif f"{attribute}0" in group.attrs:
        values, chunk = [], 0
        while f"{attribute}{chunk}" in group.attrs:
            values.extend(group.attrs[f"{attribute}{chunk}"])
            chunk += 1
    else:
        return None
    return [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values]


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
        except (OSError, KeyError, RuntimeError) as error:
            raise ValueError(f"{path} is damaged: {error}. {_AGAIN}") from error
        yield layers


def _read_layers(path: str | os.PathLike, file: h5py.File) -> dict[str, dict[str, h5py.Dataset]]:
    root = file["model_weights"] if isinstance(file.get("model_weights"), h5py.Group) else file
    names = load_names(root, "layer_names")
    if names is None:
        raise ValueError(f"{path} is {_foreign_layout(file)}. Expected the layout of Keras 2: an attribute layer_names "
                         "and one group per layer, as in the original's mask_rcnn_coco.h5 or in the files that "
                         "`model.keras_model.save_weights('name.h5')` writes here.")
    layers = {}
    for name in names:
        weights = load_names(root[name], "weight_names") if isinstance(root.get(name), h5py.Group) else None
        if weights is None:
            raise ValueError(f"{path} is not whole: it lists the layer {name!r}, which is missing. {_AGAIN}")
        layers[name] = {weight: root[name].get(weight) for weight in weights}
        for weight, array in layers[name].items():
            _check_array(path, weight, array)
    return layers


def _foreign_layout(file: h5py.File) -> str:
    if "stage" in file and "variables" in file:
        return "a file of optimizer state; the weights lie next to it, in mask_rcnn_*.h5"
    if "_layer_checkpoint_dependencies" in file or "layers" in file:
        return "a Keras 3 .weights.h5 file, which has no layer names"
    inside = ", ".join(list(file)[:5]) or "nothing"
    return f"an HDF5 file without weights of Keras (it holds {inside})"


def _check_array(path: str | os.PathLike, name: str, array: object) -> None:
    # Space is given to an array when it is first written: one without space was cut short by the end of its writer.
    if not isinstance(array, h5py.Dataset) or (array.size and not array.id.get_storage_size()):
        raise ValueError(f"{path} is not whole: it lists the array {name!r}, which is missing. {_AGAIN}")
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{path}: the array {name!r} holds {array.dtype}, not numbers.")


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

    It is made in memory: when a disk is full, HDF5 ends the process by a segmentation fault.

    Raises:
        FileNotFoundError: there is no such folder.
        OSError: it cannot be written; where the disk is full, with the room that the file needs.
    """
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        yield file
    write_whole(path, memory.getbuffer())


def write_file(path: str | os.PathLike, layers: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Writes a weights file in the layout of Keras 2; on a failure the old file stays as it was.

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
                group.create_dataset(name, data=array)
