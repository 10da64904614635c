"""What happens after each batch and each epoch of a training: checkpoints, logs, and a stop when a loss breaks."""

from __future__ import annotations

import contextlib
import csv
import errno
import importlib.util
import io
import itertools
import math
import os
import shutil
import sys
import time

import keras
import numpy as np

from mrcnn.data.files import read_table, write_whole
from mrcnn.distribution.parallel import inner
from mrcnn.engine.checkpoints import save_optimizer, training_stage
from mrcnn.engine.weights import save_weights

_PER_ARRAY = 500  # bytes that HDF5 adds: names, and where what lies


def optimizer_path(checkpoint):
    """Path of the optimizer's state that belongs to a checkpoint `mask_rcnn_{name}_{epoch:04d}.h5`."""
    folder, name = os.path.split(checkpoint)
    return os.path.join(folder, f"optimizer_{name.rsplit('_', 1)[-1]}")


class Checkpoint(keras.callbacks.Callback):
    """Saves weights and optimizer after every epoch, each file as a whole or not at all.

    Args:
        path: of the weights file, with `{epoch:04d}`; the first epoch is 1.
        epoch: epochs done before.
        writes: bool; of several processes that train together one writes.

    Attributes:
        epoch: epochs done at the newest checkpoint.
        last: path of the newest checkpoint, or None.
    """

    def __init__(self, path, epoch=0, writes=True):
        super().__init__()
        self.path = path
        self.epoch = epoch
        self.writes = writes

    @property
    def last(self):
        path = self.path.format(epoch=self.epoch)
        return path if os.path.exists(path) else None

    @property
    def size(self):
        """Bytes that the files of an epoch take, roughly."""
        variables = *self.model.weights, *self.model.optimizer.variables
        return sum(math.prod(v.shape) * (8 if str(v.dtype).endswith("64") else 4) + _PER_ARRAY for v in variables)

    def on_train_begin(self, logs=None):
        """Says how long the disk has room; an OSError if it has none for the first checkpoint."""
        if not self.writes:
            return
        folder = os.path.dirname(os.path.abspath(self.path))
        left, (total, _, free) = self.params["epochs"] - self.epoch, shutil.disk_usage(folder)
        if not total or left * self.size <= free:  # some network drives know no size
            return
        room = f"a checkpoint takes {self.size:,} bytes, {free:,} are free"
        if free < self.size:
            raise OSError(errno.ENOSPC, f"No room to save an epoch: {room}. Make room in", folder)
        print(f"Room for {free // self.size} of {left} checkpoints: {room} in {folder}", flush=True)

    def on_epoch_end(self, epoch, logs=None):
        broken = [w.path for w in self.model.weights if not np.isfinite(keras.ops.convert_to_numpy(w)).all()]
        if broken:
            raise FloatingPointError(
                f"Training stopped after epoch {epoch + 1}: {len(broken)} weights are not finite any more, among them "
                f"{', '.join(broken[:3])}. {advice(self.last)}"
            )
        if self.writes:
            path = self.path.format(epoch=epoch + 1)
            optimizer = self.model.optimizer
            # the weights come second: whoever finds them finds the optimizer's state too
            save_optimizer(optimizer, optimizer_path(path), training_stage(optimizer, self.model.trainable_variables))
            try:
                save_weights(inner(self.model), path)
            except OSError:
                if not os.path.exists(path):  # without its weights it only takes room
                    os.remove(optimizer_path(path))
                raise
        self.epoch = epoch + 1


class NonFiniteGuard(keras.callbacks.Callback):
    """Stops a training at the first batch with a loss that is not finite.

    Args:
        image_ids: function of (epoch, step) -> [(image id, reference)] of that batch.
        checkpoint: the `Checkpoint` whose last file is good.
    """

    def __init__(self, image_ids, checkpoint):
        super().__init__()
        self.image_ids = image_ids
        self.checkpoint = checkpoint
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        broken = {name: float(value) for name, value in (logs or {}).items() if not np.isfinite(float(value))}
        if not broken:
            return
        if len(broken) > 1:
            broken.pop("loss", None)  # the sum follows its parts
        losses = ", ".join(f"{name} is {value}" for name, value in broken.items())
        images = ", ".join(f"{image_id} ({reference})" for image_id, reference in self.image_ids(self.epoch, batch))
        raise FloatingPointError(
            f"Training stopped in epoch {self.epoch + 1}, step {batch + 1}: {losses}. Images of that batch: {images}. "
            f"{advice(self.checkpoint.last)}"
        )


def advice(checkpoint):
    """What to do when a training has diverged."""
    return (
        "Look at these images and their boxes, or use a lower learning rate or GRADIENT_CLIP_NORM. "
        + (f"The last good checkpoint is {checkpoint}." if checkpoint else "There is no checkpoint of this run yet.")
    )


def interrupted(checkpoint):
    """What a training that was stopped leaves behind, and how to go on; `checkpoint` is its `Checkpoint`."""
    text = f"interrupted in epoch {checkpoint.epoch + 1}"
    if checkpoint.last is None:
        return f"{text}, before the first checkpoint"
    return f"{text}; the last checkpoint is {checkpoint.last}: load_weights(that path, by_name=True) and train() go on"


def no_room(error, checkpoint):
    """The OSError for a training that a full disk has stopped."""
    stopped = f"Training {interrupted(checkpoint)}"
    if checkpoint.model is not None:
        stopped += f". An epoch's files take {checkpoint.size:,} bytes"
    reason = error.strerror if isinstance(error, OSError) else error  # a framework's own says no more than that
    folder = os.path.dirname(checkpoint.path)
    return OSError(getattr(error, "errno", None) or errno.ENOSPC, f"{stopped}. {reason}",
                   getattr(error, "filename", None) or folder)


def verbosity(speaks=True):
    """How Keras reports on a training: by a moving bar on a terminal or in a notebook, else by a line per epoch."""
    if not speaks:
        return 0
    return 1 if sys.stdout.isatty() or "ipykernel" in sys.modules else 2


class DataWait(keras.callbacks.Callback):
    """Adds `data_wait` to the logs of an epoch: the share of the time, in percent, that steps waited for their batch.

    A step waits from the end of the step before it until its own batch is ready.

    Args:
        ready_at: function of (epoch, step) -> time.monotonic() when that batch was ready, or None.
    """

    def __init__(self, ready_at):
        super().__init__()
        self.ready_at = ready_at

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.begin = self.end = time.monotonic()
        self.waited = 0.0

    def on_train_batch_end(self, batch, logs=None):
        ready = self.ready_at(self.epoch, batch)
        if ready is not None:
            self.waited += max(0.0, ready - self.end)
        self.end = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["data_wait"] = round(100 * self.waited / max(self.end - self.begin, 1e-9), 2)


class Table(keras.callbacks.Callback):
    """Writes a line of a CSV file after every epoch, and goes on with a file that is there.

    An epoch that is done again, because its checkpoint was never written, gets a new line in place of the old. A run
    that goes on with other columns (with validation, say, after epochs without) adds them to the file; epochs without
    a value have NA. A file that cannot be written does not end the training: its lines are kept for the next attempt;
    one that cannot be read gets another name, and a new one is begun.

    Args:
        path: of the file.
    """

    def __init__(self, path):
        super().__init__()
        self.path = path
        self._waiting = []

    def on_epoch_end(self, epoch, logs=None):
        self._waiting.append({"epoch": str(epoch), **(logs or {})})
        try:
            write_whole(self.path, self._text().encode())
            self._waiting = []
        except OSError as error:
            epochs = ", ".join(str(int(row["epoch"]) + 1) for row in self._waiting)
            print(f"{self.path} lacks epoch {epochs}, and is tried again after the next one: {error}", flush=True)

    def _text(self):
        """The file with the lines that wait."""
        columns, rows = self._read()
        wanted = {column for row in self._waiting for column in row}
        if not wanted <= set(columns):
            columns = ["epoch", *sorted({*columns, *wanted} - {"epoch"})]
        places = {row["epoch"]: place for place, row in enumerate(rows)}
        for row in self._waiting:
            place = places.get(row["epoch"], len(rows))
            rows[place : place + 1] = [row]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, restval="NA")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def _read(self):
        """The columns of the file and its lines as dicts; none if there is no file that can be read."""
        if not os.path.exists(self.path):
            return [], []
        try:
            columns, rows = read_table(self.path)
            if columns and "epoch" not in columns:
                raise ValueError(f"{self.path} has no column epoch")
            return columns, rows
        except ValueError as error:
            names = (f"{self.path}.unreadable{number or ''}" for number in itertools.count())
            aside = next(name for name in names if not os.path.exists(name))
            os.replace(self.path, aside)
            print(f"{error}: it is now {aside}, and a new one is begun", flush=True)
            return [], []


class EpochStart(keras.callbacks.Callback):
    """Calls a function with the number of epochs done when an epoch begins."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def on_epoch_begin(self, epoch, logs=None):
        self.function(epoch)


def tensorboard(log_dir):
    """Keras' TensorBoard callback in a list, or an empty list with a printed reason."""
    if keras.backend.backend() != "tensorflow":
        print("TensorBoard logs are written on the TensorFlow backend only; see log.csv")
    elif importlib.util.find_spec("tensorboard") is None:
        print("TensorBoard logs are not written: `pip install tensorboard`; see log.csv")
    else:
        return [keras.callbacks.TensorBoard(log_dir=log_dir, write_graph=False)]
    return []


@contextlib.contextmanager
def log_files(log_dir, writes=True):
    """The callbacks that write log.csv, which a resumed run goes on with, and TensorBoard's files, if any."""
    files = [Table(os.path.join(log_dir, "log.csv")), *tensorboard(log_dir)] if writes else []
    try:
        yield files
    except BaseException:
        for file in files:
            file.on_train_end()  # Keras leaves them open when a training breaks off
        raise
