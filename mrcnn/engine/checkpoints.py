"""The folders of training runs, and the optimizer's state, which a weights file does not hold."""

import datetime
import errno
import json
import os
import re
from pathlib import Path

import h5py
import keras
import numpy as np

from mrcnn.engine.h5_layout import check_array, find, is_whole, new_hdf5, open_hdf5, read_array, save_array

_TIMESTAMP = r"(\d{8}T\d{4})"
_CHECKPOINT = re.compile(rf"(?:^|[/\\])([\w-]+?){_TIMESTAMP}[/\\]mask_rcnn_[\w-]+?_?(\d{{4,}})\.h5$")


def parse_checkpoint(path: str | os.PathLike) -> tuple[datetime.datetime, int] | None:
    r"""Reads start of the run and epoch from a path `.../{name}{YYYYMMDD}T{HHMM}/mask_rcnn_{name}_{epoch:04d}.h5`.

    Args:
        path: of a checkpoint, with / or \ between folders; it need not exist.

    Returns:
        (start of the run, epochs trained), or None for a path of another form.
    """
    match = _CHECKPOINT.search(os.fspath(path))
    if not match:
        return None
    try:
        return datetime.datetime.strptime(match.group(2), "%Y%m%dT%H%M"), int(match.group(3))
    except ValueError:      # digits that are no date
        return None


def run_name(path: str | os.PathLike) -> str | None:
    """The name, in lower case, of the run that a path of a checkpoint belongs to; None for a path of another form."""
    return _CHECKPOINT.search(os.fspath(path)).group(1).lower() if parse_checkpoint(path) else None


def find_last(model_dir: str | os.PathLike, name: str) -> str:
    """Finds the last whole checkpoint of the newest run; says which runs and files it skips, and why.

    Args:
        model_dir: folder of the runs.
        name: the configuration's NAME; runs of names that merely begin with it do not count.

    Returns:
        Path of the weights file.

    Raises:
        FileNotFoundError: there is none; names the folder and what was looked at.
    """
    form = re.compile(re.escape(name.lower()) + _TIMESTAMP)
    folder = Path(model_dir)
    runs = [run for run in folder.iterdir() if run.is_dir() and form.fullmatch(run.name)] if folder.is_dir() else []
    runs.sort(key=lambda run: run.name, reverse=True)
    for run in runs:
        checkpoints = sorted(run.glob("mask_rcnn*.h5"), key=_age, reverse=True)
        for path in checkpoints:
            if is_whole(path):
                return str(path)
            print(f"{path} is not a whole weights file: skipped")
        if not checkpoints:
            print(f"{run} has no checkpoint: skipped")
    if not folder.is_dir():
        reason = "there is no such folder"
    elif runs:
        reason = f"none of its runs {', '.join(run.name for run in runs[:10])} has a whole mask_rcnn*.h5"
    else:
        reason = f"it has no folder {name.lower()}{{YYYYMMDD}}T{{HHMM}}"
    raise FileNotFoundError(errno.ENOENT, f"No checkpoint of {name!r} in {folder}: {reason}. Train first, or give the "
                            "path of a weights file")


def _age(path: Path) -> tuple[int, str]:
    """Sorts by epoch; a file without one, such as mask_rcnn_best.h5, counts only for want of another."""
    digits = re.search(r"_(\d+)$", path.stem)
    return (int(digits.group(1)) if digits else -1, path.name)


def training_stage(optimizer: keras.optimizers.Optimizer, variables: list) -> str:
    """Names what an optimizer's state belongs to: its class and the trainable weights, in order."""
    return json.dumps([type(optimizer).__name__, *(variable.path for variable in variables)])


def save_optimizer(optimizer: keras.optimizers.Optimizer, path: str | os.PathLike, stage: str) -> None:
    """Saves momentum buffers and step count, keyed by the names of the weights that they belong to.

    Args:
        optimizer: built for the variables that it trains.
        path: of the file, in a folder that exists; replaced as a whole.
        stage: what the state belongs to (`training_stage`).

    Raises:
        OSError: the file cannot be written.
    """
    with new_hdf5(path) as file:
        # as numbers: HDF5 keeps texts in a heap that has no checksum, and may never return from a damaged one
        save_array(file, "stage", np.frombuffer(stage.encode(), np.uint8))
        group = file.create_group("variables")
        for key, variable in _state(optimizer).items():
            save_array(group, key, keras.ops.convert_to_numpy(variable))


def load_optimizer(optimizer: keras.optimizers.Optimizer, path: str | os.PathLike, stage: str) -> bool:
    """Restores what `save_optimizer` saved, if it belongs to the same stage; else says why not.

    Args:
        optimizer: built for the variables that it trains; all of its state is restored, or none.
        path: of the file.
        stage: what the state has to belong to.

    Returns:
        True if the state was restored.
    """
    reason = None
    try:
        with open_hdf5(path) as file:
            state, saved, belongs_to = _state(optimizer), find(file, "variables"), find(file, "stage")
            check_array(path, "stage", belongs_to)
            if read_array(path, "stage", belongs_to).tobytes() != stage.encode():
                reason = "it belongs to another stage (other layers or another optimizer)"
            elif {key: tuple(v.shape) for key, v in state.items()} != _shapes(saved):
                reason = "it holds other variables than the optimizer has"
            else:
                for key in state:
                    check_array(path, key, find(saved, key))
                values = {key: read_array(path, key, saved[key]) for key in state}
                for key, variable in state.items():
                    variable.assign(values[key])
    except FileNotFoundError:
        reason = "there is no such file"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = f"it is damaged ({error})"
    if reason:
        print(f"Optimizer state not restored from {path}: {reason}; momentum starts at zero")
    return reason is None


def _state(optimizer: keras.optimizers.Optimizer) -> dict:
    """The optimizer's variables but for the learning rate, which every stage sets itself."""
    # The first part of the path is the optimizer's own name, which is numbered within a session. The position keeps
    # variables of one name apart (layers of equal names in two nested models).
    named = [(variable.path.partition("/")[2], variable) for variable in optimizer.variables]
    return {f"{position:04d} {name}": variable for position, (name, variable) in enumerate(named)
            if name != "learning_rate"}


def _shapes(group: h5py.Group) -> dict[str, tuple]:
    found = {}
    group.visititems(lambda key, item: found.update({key: item.shape}) if isinstance(item, h5py.Dataset) else None)
    return found
