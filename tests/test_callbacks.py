"""What happens after batches and epochs, on a model of a few numbers."""

import csv
import os
import sys
import time
import types

import keras
import numpy as np
import pytest

from mrcnn.engine import callbacks
from mrcnn.engine.checkpoints import load_optimizer, training_stage
from mrcnn.engine.weights import is_whole, load_weights


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="only", kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
    return model


def data(steps=3):
    return np.ones((steps, 2), "float32"), np.zeros((steps, 1), "float32")


def fit(model, *built_in, steps=3, epochs=2, **settings):
    return model.fit(*data(steps), batch_size=1, epochs=epochs, shuffle=False, verbose=0, callbacks=list(built_in),
                     **settings)


def path(folder):
    return os.path.join(folder, "mask_rcnn_tiny_{epoch:04d}.h5")


def test_a_checkpoint_is_written_after_every_epoch(model, model_dir):
    checkpoint = callbacks.Checkpoint(path(model_dir))
    assert checkpoint.last is None
    fit(model, checkpoint)
    assert sorted(os.listdir(model_dir)) == [
        "mask_rcnn_tiny_0001.h5", "mask_rcnn_tiny_0002.h5", "optimizer_0001.h5", "optimizer_0002.h5"]
    assert checkpoint.epoch == 2 and checkpoint.last == path(model_dir).format(epoch=2)
    kernel = np.copy(keras.ops.convert_to_numpy(model.get_layer("only").kernel))
    stage = training_stage(model.optimizer, model.trainable_variables)
    momentum = np.copy(keras.ops.convert_to_numpy(model.optimizer.momentums[0]))

    fit(model, epochs=1)
    load_weights(model, checkpoint.last)
    assert load_optimizer(model.optimizer, callbacks.optimizer_path(checkpoint.last), stage)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(model.get_layer("only").kernel), kernel)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(model.optimizer.momentums[0]), momentum)
    assert int(model.optimizer.iterations) == 6


def test_whoever_finds_a_checkpoint_finds_its_optimizer(model, model_dir, monkeypatch):
    seen = []
    monkeypatch.setattr(callbacks, "save_weights", lambda *_: seen.extend(os.listdir(model_dir)))
    fit(model, callbacks.Checkpoint(path(model_dir)), epochs=1)
    assert seen == ["optimizer_0001.h5"]


def test_broken_weights_are_not_saved(model, model_dir):
    class Break(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                self.model.get_layer("only").bias.assign([np.inf])

    with pytest.raises(FloatingPointError, match=r"after epoch 2.*only/bias.*mask_rcnn_tiny_0001\.h5"):
        fit(model, Break(), callbacks.Checkpoint(path(model_dir)))
    assert not os.path.exists(path(model_dir).format(epoch=2)) and is_whole(path(model_dir).format(epoch=1))


def test_a_broken_loss_stops_at_once_and_names_the_images(model, model_dir):
    checkpoint = callbacks.Checkpoint(path(model_dir))
    guard = callbacks.NonFiniteGuard(lambda epoch, step: [(10 * epoch + step, "dog.png"), (7, "cat.png")], checkpoint)
    x, y = data(4)
    fit(model, guard, checkpoint, epochs=1)
    x[2] = np.nan
    steps = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, logs: steps.append(step))
    with pytest.raises(FloatingPointError) as caught:
        model.fit(x, y, batch_size=1, epochs=5, initial_epoch=3, shuffle=False, verbose=0,
                  callbacks=[guard, checkpoint, count])
    message = str(caught.value)
    for part in ("epoch 4, step 3", "loss is nan", "32 (dog.png), 7 (cat.png)", "mask_rcnn_tiny_0001.h5"):
        assert part in message
    assert steps == [0, 1]
    assert sorted(os.listdir(model_dir)) == ["mask_rcnn_tiny_0001.h5", "optimizer_0001.h5"]


def test_the_total_is_not_blamed_when_a_part_is_broken(model_dir):
    guard = callbacks.NonFiniteGuard(lambda *_: [], callbacks.Checkpoint(path(model_dir)))
    with pytest.raises(FloatingPointError, match="step 1: rpn_bbox_loss is inf. Images.*no checkpoint"):
        guard.on_train_batch_end(0, {"loss": np.inf, "rpn_bbox_loss": np.inf, "rpn_class_loss": 1.0})
    guard.on_train_batch_end(0, {"loss": 3.0})


def test_data_wait_is_the_share_of_time_without_data(monkeypatch):
    """Steps end at 2, 4 and 10 s of an epoch that begins at 0; batches are ready at -1, 3 and 9 s."""
    clock = iter([0, 2, 4, 10])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    ready = {(5, 0): -1, (5, 1): 3, (5, 2): 9}
    watch = callbacks.DataWait(lambda *batch: ready[batch])
    watch.on_epoch_begin(5)
    for step in range(3):
        watch.on_train_batch_end(step)
    logs = {"loss": 1.0}
    watch.on_epoch_end(5, logs)
    assert logs["data_wait"] == pytest.approx(100 * (0 + 1 + 5) / 10)


def test_data_wait_reaches_the_table(model, model_dir):
    for epoch in (0, 1):  # the second run adds to the table of the first
        watch = callbacks.DataWait(lambda *_: None)
        with callbacks.log_files(model_dir) as files:
            fit(model, watch, *files, epochs=epoch + 1, initial_epoch=epoch, validation_data=data())
    with open(os.path.join(model_dir, "log.csv")) as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert all(float(row["data_wait"]) == 0 and float(row["loss"]) > 0 and float(row["val_loss"]) > 0 for row in rows)


def test_columns_that_come_later_join_the_table(model, model_dir):
    """First without validation, then with it, then without again."""
    table = os.path.join(model_dir, "log.csv")
    for epoch, settings in enumerate(({}, {"validation_data": data()}, {})):
        fit(model, callbacks.Table(table), epochs=epoch + 1, initial_epoch=epoch, **settings)
    with open(table, newline="") as file:
        assert file.readline().strip() == "epoch,loss,val_loss"
        file.seek(0)
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"] and all(float(row["loss"]) > 0 for row in rows)
    assert float(rows[1]["val_loss"]) > 0 and rows[0]["val_loss"] == rows[2]["val_loss"] == "NA"
    assert os.listdir(model_dir) == ["log.csv"]


def test_a_table_that_keras_began_goes_on(model, model_dir):
    table = os.path.join(model_dir, "log.csv")
    fit(model, keras.callbacks.CSVLogger(table), epochs=1)
    fit(model, callbacks.Table(table), epochs=2, initial_epoch=1)
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["val_loss"]) for row in rows] == [("0", "NA"), ("1", "NA")]


@pytest.mark.parametrize("content", [
    b"\0" * 40, b"epoch;loss\r\n0;1\r\n", "epoch,loss\r\n0,1\r\n".encode("utf-16"), b"loss\n1\n", b"\x80epoch\n",
    b'epoch,loss\n0,"' + b"x" * 200_000, b'epoch,loss\n0,"1\n1,2\n', b"epoch,loss\r\n0,1,5\r\n",
], ids=["zeros", "semicolons", "utf-16", "another", "no text", "a huge cell", "an open quote",
        "decimal commas"])  # fmt: skip
def test_a_table_that_cannot_be_read_is_put_aside(model_dir, content, capsys):
    path = os.path.join(model_dir, "log.csv")
    for aside in ("log.csv.unreadable", "log.csv.unreadable1"):
        with open(path, "wb") as file:
            file.write(content)
        callbacks.Table(path).on_epoch_end(5, {"loss": 1.0})
        assert f"it is now {os.path.join(model_dir, aside)}" in capsys.readouterr().out
        with open(os.path.join(model_dir, aside), "rb") as file:
            assert file.read() == content
        with open(path) as file:
            assert file.read() == "epoch,loss\n5,1.0\n"


def test_a_table_goes_on_after_a_spreadsheet_saved_it(model_dir):
    path = os.path.join(model_dir, "log.csv")
    with open(path, "wb") as file:
        file.write(b"\xef\xbb\xbfepoch,loss\r\n0,1\r\n")
    callbacks.Table(path).on_epoch_end(1, {"loss": 2.0})
    with open(path, newline="") as file:
        assert file.read() == "epoch,loss\r\n0,1\r\n1,2.0\r\n"


def test_files_are_closed_when_a_training_breaks_off(model, model_dir, monkeypatch):
    ended = []
    open_file = keras.callbacks.LambdaCallback(on_train_end=lambda logs=None: ended.append(True))
    monkeypatch.setattr(callbacks, "tensorboard", lambda log_dir: [open_file])
    stop = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: 1 / 0)
    with pytest.raises(ZeroDivisionError), callbacks.log_files(model_dir) as files:
        fit(model, *files, stop)
    assert ended == [True]


def test_tensorboard_gets_the_losses_or_a_line_says_why_not(model, model_dir, capsys):
    found = callbacks.tensorboard(model_dir)
    if keras.backend.backend() != "tensorflow":
        assert found == [] and "TensorFlow backend only" in capsys.readouterr().out
        return
    fit(model, *found, validation_data=data())
    events = [name for _, _, files in os.walk(model_dir) for name in files]
    assert len(events) == 2 and all("tfevents" in name for name in events)


def test_no_tensorboard_is_no_error(model_dir, capsys, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    monkeypatch.setattr(callbacks.importlib.util, "find_spec", lambda name: None)
    with callbacks.log_files(model_dir) as files:
        assert len(files) == 1
    assert "pip install tensorboard" in capsys.readouterr().out


def test_epoch_start_counts_from_the_first_epoch(model):
    seen = []
    fit(model, callbacks.EpochStart(seen.append), epochs=5, initial_epoch=3)
    assert seen == [3, 4]


def test_an_interrupted_training_says_how_to_go_on(tmp_path):
    checkpoint = callbacks.Checkpoint(str(tmp_path / "mask_rcnn_x_{epoch:04d}.h5"), epoch=3)
    assert callbacks.interrupted(checkpoint) == "interrupted in epoch 4, before the first checkpoint"
    (tmp_path / "mask_rcnn_x_0003.h5").write_text("")
    assert "the last checkpoint is" in callbacks.interrupted(checkpoint)


@pytest.mark.parametrize(("terminal", "notebook", "verbose"), [(True, False, 1), (False, True, 1), (False, False, 2)])
def test_the_bar_moves_only_where_it_can(monkeypatch, terminal, notebook, verbose):
    monkeypatch.setattr("sys.stdout", types.SimpleNamespace(isatty=lambda: terminal))
    if notebook:
        monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    else:
        monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert callbacks.verbosity() == verbose
