"""Class MaskRCNN on a tiny network: runs and their folders, training and resuming."""

import csv
import datetime
import itertools
import os
import re
import threading

import keras
import numpy as np
import pytest
import tiny

from mrcnn.engine import mask_rcnn, weights
from mrcnn.engine.mask_rcnn import MaskRCNN

TRAIN, VALIDATION = tiny.Squares(7), tiny.Squares(3, start=50)
LOSSES = ["loss", "mrcnn_bbox_loss", "mrcnn_class_loss", "mrcnn_mask_loss", "rpn_bbox_loss", "rpn_class_loss"]


class Watch(keras.callbacks.Callback):
    """Keeps the losses of every step."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append({name: float(logs[name]) for name in LOSSES})


def make(mode, folder, **settings):
    return MaskRCNN(mode, tiny.config(**settings), folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training of two epochs in one go: model, losses per step, folder of the logs, printed text."""
    folder = str(tmp_path_factory.mktemp("run") / "logs")
    model, watch = make("training", folder), Watch()
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr("builtins.print", lambda *text, **_: printed.append(" ".join(map(str, text))))
        model.train(TRAIN, VALIDATION, 0.01, 2, "all", custom_callbacks=[watch])
    return model, watch.steps, folder, printed


# ---- construction


@pytest.mark.parametrize("mode, hint", [("train", "'training'"), ("Inference", "'inference'"), (None, "received None")])
def test_unknown_modes(model_dir, mode, hint):
    with pytest.raises(ValueError, match=f"mode must be one of.*{hint}"):
        make(mode, model_dir)


def test_impossible_settings_are_refused(model_dir):
    with pytest.raises(ValueError, match="IMAGE_MAX_DIM"):
        make("inference", model_dir, IMAGE_MAX_DIM=100)
    with pytest.raises(ValueError, match="GPU_COUNT = 2"):
        make("inference", model_dir, GPU_COUNT=2)


@pytest.mark.parametrize("config", [None, {}, "coco"])
def test_what_is_no_config(model_dir, config):
    with pytest.raises(ValueError, match=f"config must be an instance of a class derived from Config.*{config!r}"):
        MaskRCNN("inference", config, model_dir)


@pytest.mark.parametrize("folder", [None, 5, b"logs"])
def test_what_is_no_folder(folder):
    with pytest.raises(ValueError, match=f"model_dir must be a path.*received {folder!r}"):
        make("inference", folder)


def test_building_touches_no_disk(tmp_path):
    model = make("inference", tmp_path / "not yet there")
    assert not list(tmp_path.iterdir())
    assert model.model_dir == str(tmp_path / "not yet there")
    assert (model.mode, model.epoch, model.keras_model.name) == ("inference", 0, "mask_rcnn")


def test_a_seed_gives_the_same_weights(model_dir):
    first, second, other = (tiny.weights_of(make("inference", model_dir, SEED=seed).keras_model) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not all(np.array_equal(first[name], other[name]) for name in first)


def test_layers_with_weights(model_dir):
    model = make("training", model_dir)
    names = [layer.name for layer in model.get_trainable_layers()]
    assert {"conv1", "rpn_model", "mrcnn_mask"} <= set(names) and "ROI" not in names
    assert len(names) == len(set(names))
    wrapped = keras.layers.TimeDistributed(keras.layers.Dense(2, name="inner"))
    assert model.find_trainable_layer(wrapped).name == "inner"


# ---- folders


def test_a_checkpoint_brings_back_its_run(model_dir):
    model = make("inference", model_dir)
    model.set_log_dir("/elsewhere/tiny20200229T0102/mask_rcnn_tiny_0107.h5")
    assert model.epoch == 107
    assert model.log_dir == os.path.join(model_dir, "tiny20200229T0102")
    assert model.checkpoint_path == os.path.join(model.log_dir, "mask_rcnn_tiny_{epoch:04d}.h5")


@pytest.mark.parametrize("path", [None, "/somewhere/mask_rcnn_coco.h5"])
def test_other_files_start_a_new_run(model_dir, path):
    model = make("inference", model_dir)
    model.set_log_dir(path)
    assert model.epoch == 0 and re.fullmatch(r"tiny\d{8}T\d{4}", os.path.basename(model.log_dir))


def test_runs_of_the_same_minute_take_the_next_ones(model_dir, monkeypatch):
    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 12, 31, 23, 59, 30)

    monkeypatch.setattr(mask_rcnn.datetime, "datetime", Clock)
    models = [make("inference", model_dir) for _ in range(3)]
    for model in models:
        model._make_log_dir()
        model._make_log_dir()
    folders = [os.path.basename(model.log_dir) for model in models]
    assert folders == ["tiny20311231T2359", "tiny20320101T0000", "tiny20320101T0001"] == sorted(os.listdir(model_dir))
    for model in models:  # the name ends with the minute, so that it can be resumed
        path = model.checkpoint_path.format(epoch=4)
        model.set_log_dir(path)
        assert (model.epoch, model.checkpoint_path.format(epoch=4)) == (4, path)


def test_resuming_uses_the_folder_that_is_there(model_dir):
    os.makedirs(os.path.join(model_dir, "tiny20200229T0102"))
    model = make("inference", model_dir)
    model.set_log_dir("/l/tiny20200229T0102/mask_rcnn_tiny_0003.h5")
    model._make_log_dir()
    assert os.listdir(model_dir) == ["tiny20200229T0102"]


# ---- training


def test_a_run_leaves_checkpoints_and_a_table(run):
    model, steps, folder, _ = run
    assert len(steps) == 4 and model.epoch == 2
    assert os.listdir(folder) == [os.path.basename(model.log_dir)]
    files = set(os.listdir(model.log_dir)) - {"train", "validation"}
    assert files == {"log.csv", *(f"{name}_{n:04d}.h5" for name in ("mask_rcnn_tiny", "optimizer") for n in (1, 2))}
    assert model.find_last() == model.checkpoint_path.format(epoch=2)
    with open(os.path.join(model.log_dir, "log.csv")) as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"epoch", "data_wait", *LOSSES, *(f"val_{name}" for name in LOSSES)}
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert float(rows[1]["loss"]) == pytest.approx(steps[-1]["loss"])


def test_a_run_says_what_it_does(run):
    model, _, _, printed = run
    text = "\n".join(printed)
    for part in ("conv1                  (Conv2D)", "Start epoch: 0, learning rate: 0.01",
                 f"Checkpoint path: {model.checkpoint_path}"):
        assert part in text
    assert "resuming" not in text
    assert ("Tracing the graph, this takes about" in text) == (keras.backend.backend() != "torch")


def test_nothing_left_to_do(run, capsys):
    model, _, _, _ = run
    before = tiny.weights_of(model.keras_model)
    model.train(TRAIN, VALIDATION, 0.01, 2, "all")
    assert "Nothing left to do: epochs = 2 is the total, and 2 done already" in capsys.readouterr().out
    assert all(np.array_equal(before[n], value) for n, value in tiny.weights_of(model.keras_model).items())


@pytest.mark.slow
def test_a_resumed_run_is_the_run_that_was_not_interrupted(run, tmp_path, capsys):
    model, steps, _, _ = run
    folder, first, second = str(tmp_path), Watch(), Watch()
    make("training", folder).train(TRAIN, VALIDATION, 0.01, 1, "all", custom_callbacks=[first])
    keras.utils.set_random_seed(99)
    resumed = make("training", folder, SEED=7, DATA_WORKERS=0)  # threads make no difference
    resumed.load_weights(resumed.find_last())
    capsys.readouterr()
    resumed.train(TRAIN, VALIDATION, 0.01, 2, "all", custom_callbacks=[second])
    assert "Start epoch: 1, learning rate: 0.01, resuming at epoch 2 of 2\n" in capsys.readouterr().out
    assert len(os.listdir(folder)) == 1
    for got, want in zip(first.steps + second.steps, steps, strict=True):
        assert got == pytest.approx(want, rel=1e-4)
    want = tiny.weights_of(model.keras_model)
    for name, value in tiny.weights_of(resumed.keras_model).items():
        np.testing.assert_allclose(value, want[name], rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_another_stage_starts_without_momentum(run, tmp_path, capsys):
    done, _, _, _ = run
    model = make("training", str(tmp_path))
    model.load_weights(done.find_last())
    model.train(TRAIN, None, 0.01, 3, "heads")
    printed = capsys.readouterr().out
    assert "another stage" in printed and "resuming at epoch 3 of 3" in printed
    assert model.epoch == 3 and model.find_last().endswith("mask_rcnn_tiny_0003.h5")
    assert int(model.keras_model.optimizer.iterations) == 2


@pytest.mark.slow
@pytest.mark.parametrize("settings", [
    {"USE_RPN_ROIS": False}, {"USE_MINI_MASK": False, "DATA_WORKERS": 0}, {"SEED": None, "TRAIN_BN": None},
    {"IMAGE_RESIZE_MODE": "crop", "GRADIENT_CLIP_NORM": 0}])
def test_settings_train(model_dir, settings):
    model, watch = make("training", model_dir, **settings), Watch()
    schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.5)
    model.train(TRAIN, None, schedule, 1, "heads", custom_callbacks=[watch], augmentation=lambda image, masks: (
        np.ascontiguousarray(image[:, ::-1]), masks[:, ::-1]))
    assert len(watch.steps) == 2 and all(np.isfinite(list(step.values())).all() for step in watch.steps)


@pytest.mark.slow
def test_accumulated_gradients_change_the_weights_at_every_second_step(model_dir):
    model, kernels = make("training", model_dir, STEPS_PER_EPOCH=4, GRADIENT_ACCUMULATION=2), []
    weights = model.keras_model.get_layer("mrcnn_class_logits").kernel
    kernels.append(keras.ops.convert_to_numpy(weights).copy())
    look = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: kernels.append(keras.ops.convert_to_numpy(weights).copy()))
    model.train(TRAIN, None, 0.01, 1, "heads", custom_callbacks=[look])
    changed = [not np.array_equal(before, after) for before, after in itertools.pairwise(kernels)]
    assert changed == [False, True, False, True]


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch has no XLA")
def test_xla_trains_the_same(model_dir):
    """All regions are taken, because XLA draws other random numbers."""
    all_regions = {"USE_RPN_ROIS": False, "TRAIN_ROIS_PER_IMAGE": 1100, "ROI_POSITIVE_RATIO": 0.03}
    steps = []
    for jit in (False, True):
        model, watch = make("training", model_dir, JIT=jit, STEPS_PER_EPOCH=3, **all_regions), Watch()
        model.train(TRAIN, VALIDATION, 0.01, 1, "all", custom_callbacks=[watch])
        steps.append([list(step.values()) for step in watch.steps])
        assert model.keras_model.jit_compile is jit
    assert np.min(steps) > 0
    np.testing.assert_allclose(*steps, rtol=1e-4)


@pytest.mark.slow
def test_a_broken_loss_keeps_the_last_checkpoint(run, tmp_path):
    done, _, _, _ = run
    model = make("training", str(tmp_path))
    model.load_weights(done.find_last())
    threads = set(threading.enumerate())
    with pytest.raises(FloatingPointError, match=r"epoch 3, step 2: .*loss is nan.*squares/\d+\.png"):
        model.train(TRAIN, VALIDATION, 1e30, 4, "all")
    assert model.epoch == 2
    assert not [name for name in os.listdir(model.log_dir) if name.endswith(".h5")]
    for thread in set(threading.enumerate()) - threads:
        thread.join(5)
    assert set(threading.enumerate()) <= threads


@pytest.mark.slow
def test_a_run_that_a_callback_stops_goes_on_from_there(model_dir, capsys):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    model = make("training", model_dir, STEPS_PER_EPOCH=1)
    model.train(TRAIN, None, 0.01, 3, "heads", custom_callbacks=[Stop()])
    assert model.epoch == 1 and model.find_last() == model.checkpoint_path.format(epoch=1)
    capsys.readouterr()
    model.train(TRAIN, None, 0.01, 2, "heads")
    assert "resuming at epoch 2 of 2" in capsys.readouterr().out and model.epoch == 2


@pytest.mark.parametrize("arguments, message", [
    ({"layers": "head"}, "Did you mean 'heads'"), ({"learning_rate": -1}, "learning_rate must be a number above 0"),
    ({"no_augmentation_sources": 5}, "no_augmentation_sources must be a list.*received 5")])
def test_misspelt_arguments(model_dir, arguments, message):
    model = make("training", model_dir)
    with pytest.raises(ValueError, match=message):
        model.train(TRAIN, None, **{"learning_rate": 0.01, "epochs": 1, "layers": "heads", **arguments})


def test_modes_are_kept_apart(model_dir):
    training, detector = make("training", model_dir), make("inference", model_dir)
    for call in (lambda: training.detect([]), lambda: training.detect_molded([], [])):
        with pytest.raises(ValueError, match='needs a model of mode "inference"'):
            call()
    for call in (lambda: detector.train(TRAIN, None, 0.1, 1, "all"), lambda: detector.compile(0.1, 0.9)):
        with pytest.raises(ValueError, match='needs a model of mode "training"'):
            call()


# ---- weights


def test_weights_trained_are_weights_detected_with(run, tmp_path):
    trained, _, folder, _ = run
    model = make("inference", folder)
    model.load_weights(model.find_last(), by_name=True)
    assert model.epoch == 2 and model.log_dir == trained.log_dir
    want = tiny.weights_of(trained.keras_model)
    assert all(np.array_equal(want[name], value) for name, value in tiny.weights_of(model.keras_model).items())
    result = model.detect([TRAIN.load_image(0)])[0]
    assert len(result["rois"]) == len(result["scores"]) == result["masks"].shape[2]


def test_partly_loaded_weights_start_a_new_run(run, tmp_path, capsys):
    done, _, _, _ = run
    model = make("training", str(tmp_path))
    model.load_weights(done.find_last(), skip_mismatch=True)
    assert model._resume_from == done.find_last() and model.epoch == 2
    assert os.path.basename(model.log_dir) == os.path.basename(done.log_dir)
    assert "new run" not in capsys.readouterr().out
    model.load_weights(done.find_last(), exclude="heads")
    assert model._resume_from is None and model.epoch == 0
    assert not model._has_folder  # the first training makes one of its own, even in the same minute
    line = rf"A new run starts at epoch 0: layers of .*0002\.h5 were left out \({weights.HEADS[0]}, "
    assert re.search(line, capsys.readouterr().out)

    other = make("training", str(tmp_path), NUM_CLASSES=6)
    other.load_weights(done.find_last(), by_name=True, skip_mismatch=True)
    assert other.epoch == 0 and "mrcnn_class_logits/kernel" in capsys.readouterr().out.split("new run starts")[1]


@pytest.mark.parametrize("mode", ["training", "inference"])
def test_a_checkpoint_of_another_task_starts_a_new_run(run, tmp_path, capsys, mode):
    done, _, _, _ = run
    model = make(mode, str(tmp_path), NAME="Tiny2")
    model.load_weights(done.find_last())
    assert model.epoch == 0 and model._resume_from is None
    assert re.fullmatch(r"tiny2\d{8}T\d{4}", os.path.basename(model.log_dir))
    assert os.path.basename(model.log_dir)[5:] != os.path.basename(done.log_dir)[4:] or not model._has_folder
    printed = capsys.readouterr().out
    assert ("epoch 0: " + done.find_last() + " is a checkpoint of another task ('tiny', not 'tiny2')" in printed) == (
        mode == "training")
    same = make(mode, str(tmp_path), NAME="TINY")
    same.load_weights(done.find_last())
    assert same.epoch == 2


def test_the_folder_of_another_task_can_still_be_set(model_dir):
    model = make("inference", model_dir)
    model.set_log_dir("/path/to/logs/coco20171029T2315/mask_rcnn_coco_0001.h5")
    assert model.epoch == 1 and model.log_dir == os.path.join(model_dir, "tiny20171029T2315")


def test_missing_weights(model_dir):
    model = make("inference", model_dir)
    with pytest.raises(FileNotFoundError, match="x.h5"):
        model.load_weights("/nonexistent/x.h5")
    for path in (None, 5, b"x", ["a"], ""):
        with pytest.raises(ValueError, match=f"filepath must be a path.*; received {re.escape(repr(path))}"):
            model.load_weights(path)
    with pytest.raises(FileNotFoundError, match="tiny"):
        model.find_last()
    with pytest.raises(ValueError, match="BACKBONE"):
        model.get_imagenet_weights()
