"""A full disk: the last whole checkpoint stays, nothing half has a good name, the message says what is needed."""

import csv
import errno
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from reliability import keep_beside

from mrcnn.data import files
from mrcnn.engine import callbacks, training
from mrcnn.engine.h5_layout import is_whole, write_file

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LAYERS = {f"layer{n}": {f"layer{n}/kernel:0": np.full((40, 100), n, np.float32)} for n in range(60)}


# ------------------------------------------------------------------ a disk that fails at one write
@pytest.fixture
def fit():
    """Trains a layer for some epochs, with the callbacks that write; returns the `Checkpoint`."""

    def run(folder, epochs, *further):
        model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
        model.optimizer.build(model.trainable_variables)
        checkpoint = callbacks.Checkpoint(os.path.join(folder, "mask_rcnn_tiny_{epoch:04d}.h5"))
        table = callbacks.Table(os.path.join(folder, "log.csv"))
        data = np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)
        model.fit(*data, epochs=epochs, verbose=0, callbacks=[table, checkpoint, *further])
        return checkpoint

    return run


def fill_disk_at(monkeypatch, place, name, code, look=lambda: None):
    """From now on files of this name are written by half and refused, or refused when they are to reach the disk.

    `look` is called at that moment.
    """
    write_bytes, fsync = pathlib.Path.write_bytes, os.fsync

    def half(path, content):
        if name not in path.name:
            return write_bytes(path, content)
        write_bytes(path, bytes(content)[: len(content) // 2])
        look()
        raise OSError(code, os.strerror(code), str(path))

    def late(handle):
        if name in os.readlink(f"/proc/self/fd/{handle}"):
            look()
            raise OSError(code, os.strerror(code))
        return fsync(handle)

    if place == "write":
        monkeypatch.setattr(pathlib.Path, "write_bytes", half)
    else:
        monkeypatch.setattr(os, "fsync", late)


@pytest.mark.parametrize("old", [None, b"an older file"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("name", ["optimizer_0003", "mask_rcnn_tiny_0003"])
@pytest.mark.parametrize("place", [
    "write", pytest.param("fsync", marks=pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")),
])  # fmt: skip
def test_a_checkpoint_that_finds_no_room(fit, model_dir, monkeypatch, place, name, code, old):
    path, seen = pathlib.Path(model_dir, f"{name}.h5"), []
    if old:
        path.write_bytes(old)

    def look():
        seen.append(path.read_bytes() if path.exists() else None)

    fill_disk_at(monkeypatch, place, name, code, look)
    says = rf"No room to save {name}\.h5 \(.*\): it needs [\d,]+ bytes, [\d,]+ are free"
    with pytest.raises(OSError, match=says) as no:
        fit(model_dir, 5)
    assert no.value.errno == code and no.value.filename == os.path.realpath(model_dir)
    look()
    assert seen == [old, old], "the good name has what it had, when the disk is full and afterwards"
    whole = ["mask_rcnn_tiny_0001.h5", "mask_rcnn_tiny_0002.h5", "optimizer_0001.h5", "optimizer_0002.h5"]
    found = os.listdir(model_dir)
    assert set(whole) < set(found) and not [name for name in found if name.endswith(".tmp")]
    assert old or sorted(found) == ["log.csv", *whole]
    for name in whole:
        written = pathlib.Path(model_dir, name)
        assert h5py.is_hdf5(written) and (name.startswith("optimizer") or is_whole(written))


def test_other_errors_of_a_write_stay_what_they_are(fit, model_dir, monkeypatch):
    fill_disk_at(monkeypatch, "write", "mask_rcnn_tiny_0001", errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)) as no:
        fit(model_dir, 5)
    assert no.value.errno == errno.EIO


def test_a_log_that_finds_no_room_is_written_later(fit, model_dir, monkeypatch, capsys):
    """It has what a training can do without; the checkpoints of that time are there."""
    with monkeypatch.context() as full:
        happens = {1: lambda: fill_disk_at(full, "write", "log.csv", errno.ENOSPC), 3: full.undo}
        fit(model_dir, 5, keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: happens.get(epoch, lambda: None)()))
    text = capsys.readouterr().out
    assert "log.csv lacks epoch 2, and is tried again" in text and "log.csv lacks epoch 2, 3, and" in text
    assert text.count("No room to save log.csv") == 2 and "needs" in text
    with open(os.path.join(model_dir, "log.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == list("01234") and all(float(row["loss"]) >= 0 for row in rows)
    assert len(list(pathlib.Path(model_dir).glob("mask_rcnn*.h5"))) == 5


def test_an_epoch_done_again_gets_a_new_line(model_dir):
    """Its checkpoint was never written; the lines of the others stay where they are."""
    table = callbacks.Table(os.path.join(model_dir, "log.csv"))
    for epoch, loss in ((0, 5.0), (1, 4.0), (2, 3.0), (1, 2.0), (3, 1.0)):
        table.on_epoch_end(epoch, {"loss": loss})
    with open(table.path, newline="") as file:
        assert file.read().split() == ["epoch,loss", "0,5.0", "1,2.0", "2,3.0", "3,1.0"]


@pytest.mark.parametrize(("rooms", "says"), [(0.5, None), (2.5, "Room for 2 of 4 checkpoints"), (4.5, "")])
def test_room_is_looked_at_before_the_first_step(fit, model_dir, monkeypatch, capsys, rooms, says):
    size = fit(model_dir, 1).size
    assert size >= sum(path.stat().st_size for path in pathlib.Path(model_dir).glob("*.h5")) / 2
    free = int(rooms * size)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9 - free, free))
    capsys.readouterr()
    steps = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, logs: steps.append(step))
    if says is None:
        with pytest.raises(OSError, match=rf"No room to save an epoch: .* {size:,} bytes, {free:,} are free"):
            fit(model_dir, 4, count)
        assert not steps
    else:
        fit(model_dir, 4, count)
        out = capsys.readouterr().out
        assert says in out and bool(out) == bool(says)


def test_a_full_disk_is_no_lack_of_memory():
    """TensorFlow has one class of errors for both; its writer of events raises it."""

    class ResourceExhaustedError(Exception):
        pass

    full = ResourceExhaustedError("events.v2; No space left on device")
    with pytest.raises(ResourceExhaustedError), training.clear_errors({"IMAGES_PER_GPU": 2}):
        raise full
    with pytest.raises(MemoryError), training.clear_errors({"IMAGES_PER_GPU": 2}):
        raise ResourceExhaustedError("OOM when allocating tensor")
    assert files.is_no_room(full) and files.is_no_room(OSError(errno.ENOSPC, "x")) and not files.is_no_room(OSError())


# ------------------------------------------------------------------ a disk that is small
@pytest.fixture(scope="module")
def on_small_disk(tmp_path_factory):
    """Runs a function of this file in a process whose `folder` is a disk of so many bytes; returns what it returned."""

    def run(function, size, timeout=300):
        folder = tmp_path_factory.mktemp("disk")
        paths = [str(ROOT), str(ROOT / "tests"), str(HERE)]
        code = (f"import json, sys; sys.path[:0] = {paths}; import test_full_disk; "
                f"found = test_full_disk.{function}({str(folder)!r}); print('FOUND', json.dumps(found))")  # fmt: skip
        script = f'mount -t tmpfs -o size={size} tmpfs "{folder}" && exec "$0" -c "$1"'
        found = subprocess.run([*_unshare(), "sh", "-c", script, sys.executable, code], capture_output=True, text=True,
                               timeout=timeout, check=False)  # fmt: skip
        assert found.returncode == 0, (found.returncode, found.stdout[-2000:], found.stderr[-4000:])
        return json.loads(found.stdout.rpartition("FOUND ")[2]), found.stdout

    if not _unshare():
        pytest.skip("no right to mount a small disk here (unshare --mount)")
    return run


def _unshare():
    """The command that gives a process mounts of its own, or []."""
    for command in (["unshare", "-m"], ["unshare", "-Urm"]):
        try:
            tried = subprocess.run([*command, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True,
                                   check=False)  # fmt: skip
        except OSError:
            return []
        if tried.returncode == 0:
            return command
    return []


def fill(folder, leave):
    """Leaves so many bytes of a disk free."""
    with open(os.path.join(folder, "filler"), "wb") as file:
        file.write(bytes(max(0, shutil.disk_usage(folder).free - leave)))


def write_at_every_fill(folder):
    """Saves weights where less and less room is left; [files that were saved, refused, messages that name the need]."""
    path = pathlib.Path(folder, "mask_rcnn_x_0001.h5")
    write_file(path, {"first": {"first/bias:0": np.ones(3, np.float32)}})
    first, saved, refused, named = path.read_bytes(), 0, 0, 0
    for leave in range(0, 1_300_000, 9_973):
        fill(folder, leave)
        try:
            write_file(path, LAYERS)
            saved += 1
        except OSError as error:
            refused += 1
            named += error.errno == errno.ENOSPC and "it needs 1," in str(error)
            assert path.read_bytes() == first
        assert is_whole(path) and sorted(os.listdir(folder)) == ["filler", path.name]
        os.remove(os.path.join(folder, "filler"))
        path.write_bytes(first)
    return saved, refused, named


def test_weights_on_a_disk_of_any_fill(on_small_disk):
    """HDF5, when it writes to a full disk itself, ends the process: then there is no result here at all."""
    (saved, refused, named), _ = on_small_disk("write_at_every_fill", 2 * 2**20)
    assert saved > 10 and refused == named > 50


def train_until_full(folder):
    """Trains on a small disk; frees it, and trains on. [message, epochs, files] of both."""
    import tiny
    from killing import modellib

    found = []
    for epochs in (20, 6):
        model = modellib.MaskRCNN("training", tiny.config(), os.path.join(folder, "logs"))
        if found:
            model.load_weights(model.find_last(), by_name=True)
        message = None
        try:
            model.train(tiny.Squares(12), None, 0.01, epochs, "all")
        except OSError as error:
            message = str(error)
        names = sorted(os.listdir(model.log_dir))
        whole = [name for name in names if name.startswith("mask_rcnn") and is_whole(os.path.join(model.log_dir, name))]
        found.append([message, model.epoch, names, len(whole)])
        for path in pathlib.Path(model.log_dir).glob("*.h5"):  # of old epochs
            if int(path.stem[-4:]) < model.epoch:
                path.unlink()
    return found


@pytest.mark.long
def test_a_training_until_the_disk_is_full_and_on(on_small_disk):
    (full, after), text = on_small_disk("train_until_full", 1_000_000)
    message, epoch, names, whole = full
    assert 2 <= epoch <= 4 and whole == epoch and not [name for name in names if name.endswith(".tmp")]
    expected = int(re.search(r"Room for (\d+) of 20 checkpoints", text).group(1))
    assert abs(expected - epoch) <= 1, (expected, epoch)  # names and event files take room too
    assert f"Training interrupted in epoch {epoch + 1}; the last checkpoint is" in message
    assert f"mask_rcnn_tiny_{epoch:04}.h5" in message and "An epoch's files take" in message and "it needs" in message
    assert {f"{kind}_{n:04}.h5" for n in range(1, epoch + 1) for kind in ("mask_rcnn_tiny", "optimizer")} == {
        name for name in names if name.endswith(".h5")}
    assert after[0] is None and after[1] == 6 and f"resuming at epoch {epoch + 1} of 6" in text
    keep_beside("kills", full_disk={"epochs_saved": epoch, "whole_checkpoints": whole, "room_foretold_for": expected,
                                    "epochs_after_room_was_made": after[1]})  # fmt: skip


def events_on_a_full_disk(folder):
    """Trains on a disk that something else fills in the second epoch, to the last byte."""
    import tiny
    from killing import modellib

    model = modellib.MaskRCNN("training", tiny.config(), os.path.join(folder, "logs"))
    begin = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: fill(folder, 0) if epoch == 1 else None)
    try:
        model.train(tiny.Squares(12), None, 0.01, 5, "all", custom_callbacks=[begin])
    except Exception as error:
        return type(error).__name__, str(error), sorted(os.listdir(model.log_dir)), is_whole(model.find_last())


@pytest.mark.long
def test_another_process_fills_the_disk(on_small_disk):
    (kind, message, names, whole), text = on_small_disk("events_on_a_full_disk", 8_000_000)
    assert kind == "OSError" and "Training interrupted in epoch 2; the last checkpoint is" in message and whole
    assert [name for name in names if name.endswith(".h5")] == ["mask_rcnn_tiny_0001.h5", "optimizer_0001.h5"]
    assert not [name for name in names if name.endswith(".tmp")] and "log.csv lacks epoch 2" in text
    keep_beside("kills", disk_filled_by_another={"epochs_saved": 1, "error": kind, "left": names})
