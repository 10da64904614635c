"""Data that raises, hangs, exits or returns NaN in the threads of the loader: named, and no training waits for it."""

import re
import threading
import time

import numpy as np
import pytest
import tiny
from reliability import keep_beside
from tiny import Squares, config

from mrcnn import model as modellib
from mrcnn.data.loader import TrainingStream

SECONDS = 2.0  # long for a batch of the tiny network


class Faulty(Squares):
    """Squares of which one image calls a function instead of being read."""

    def __init__(self, count, at, fault, method="load_image"):
        super().__init__(count)
        self.at, self.fault, self.method = at, fault, method

    def load_image(self, image_id):
        changed = self.fault() if image_id == self.at and self.method == "load_image" else None
        return super().load_image(image_id) if changed is None else changed

    def load_mask(self, image_id):
        if image_id == self.at and self.method == "load_mask":
            self.fault()
        return super().load_mask(image_id)


@pytest.fixture
def hang():
    """A function that does not return before the test is over."""
    over, hanging = threading.Event(), []

    def wait():
        hanging.append(threading.current_thread())
        over.wait(60)  # a test that fails is better than one that hangs

    yield wait
    over.set()
    for thread in hanging:
        thread.join(10)


@pytest.mark.parametrize("method", ["load_image", "load_mask"])
def test_a_batch_that_hangs_names_image_time_and_place(hang, method):
    stream = TrainingStream(Faulty(8, 5, hang, method), config(DATA_TIMEOUT=SECONDS), shuffle=False)
    stream[0]
    begin = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        stream[2]
    assert SECONDS <= time.monotonic() - begin < SECONDS + 5
    for part in ("image 5 of source 'squares' (squares/5.png)", "DATA_TIMEOUT = 2.0 s", f"in {method}", "over.wait("):
        assert part in str(caught.value)
    assert stream.failure is caught.value
    assert stream[3][0][1][:, 0].tolist() == [6, 7]  # the others are none the worse


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_first_batch_may_hang_too(hang, workers):
    settings = config(DATA_TIMEOUT=0.5, DATA_WORKERS=workers)
    with pytest.raises(TimeoutError, match=r"image 0 of source 'squares'"):
        TrainingStream(Faulty(8, 0, hang), settings, shuffle=False).check_first_batch()


def test_where_a_debugger_looks_there_is_no_other_thread():
    threads = []
    data = Faulty(8, 0, lambda: threads.append(threading.current_thread()))
    TrainingStream(data, config(DATA_WORKERS=0, DATA_TIMEOUT=0), shuffle=False).check_first_batch()
    assert threads == [threading.main_thread()]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("part", ["training", "validation"])
def test_what_keras_asks_for_before_the_first_step_may_hang(model_dir, hang, part, workers):
    """It looks at two batches to learn their shapes, in the main thread."""
    settings = config(DATA_TIMEOUT=SECONDS, DATA_WORKERS=workers, VALIDATION_STEPS=2, SEED=5)
    second = int(TrainingStream(Squares(8), settings)[1][0][1][0, 0]) if part == "training" else 3
    faulty = Faulty(8, second, hang)
    data = {"training": Squares(8), "validation": Squares(8), part: faulty}
    with pytest.raises(TimeoutError, match=rf"image {second} of source 'squares'.*not loaded in DATA_TIMEOUT = 2\.0 s"):
        modellib.MaskRCNN("training", settings, model_dir).train(data["training"], data["validation"], 0.01, 1, "heads")


def test_time_in_which_the_process_was_stopped_does_not_count(monkeypatch):
    """A laptop that sleeps for hours, or a process under SIGSTOP: the wait for the thread returns late, but once."""
    stream = TrainingStream(Faulty(8, 1, lambda: time.sleep(0.3)), config(DATA_TIMEOUT=3), shuffle=False)
    clock, monotonic = [0], time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock[0] + monotonic())
    join = threading.Thread.join

    def late(thread, timeout=None):
        clock[0] += 36_000 if not clock[0] else 0
        join(thread, 0.01 if clock[0] == 36_000 else timeout)
        clock[0] += 1

    monkeypatch.setattr(threading.Thread, "join", late)
    assert stream[0][0][1][:, 0].tolist() == [0, 1]


def test_a_long_batch_is_no_hang():
    stream = TrainingStream(Faulty(8, 1, lambda: time.sleep(1.2)), config(DATA_TIMEOUT=30), shuffle=False)
    assert stream[0][0][1][:, 0].tolist() == [0, 1]


def test_exit_in_a_data_set_is_an_error_with_a_name():
    def leave():
        raise SystemExit(3)

    with pytest.raises(RuntimeError, match=r"batch 0: the data set raised SystemExit: 3"):
        TrainingStream(Faulty(8, 1, leave), config(), shuffle=False)[0]


def nan_image():
    return np.full((64, 64, 3), np.nan, np.float32)


def test_an_image_of_nan_is_left_out_and_named(caplog):
    stream = TrainingStream(Faulty(30, 3, nan_image), config(), shuffle=False)
    batches = [stream[k] for k in range(15)]
    assert all(np.isfinite(array).all() for batch in batches for array in batch[0])
    assert [reference for reference, _ in stream.problems] == ["image 3 of source 'squares' (squares/3.png)"]
    assert "be finite; found nan" in caplog.text


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_augmentation_that_makes_nan_is_named(value):
    def spoil(image, masks):
        return np.full_like(image, value), masks

    class Floats(Squares):
        def load_image(self, image_id):
            return super().load_image(image_id).astype(np.float32)

    with pytest.raises(ValueError, match=r"squares/0\.png.*spoil made pixels that are not finite"):
        TrainingStream(Floats(8), config(), shuffle=False, augmentation=spoil).check_first_batch()


def leave():
    raise SystemExit(3)


# Where threads of the framework wait for the batches; the message of `train` is the one that the loader gave.
@pytest.mark.parametrize(("workers", "fault", "error", "says"), [
    pytest.param(2, "hang", TimeoutError, r"image 5 of source 'squares'.*not loaded in DATA_TIMEOUT = 2\.0 s",
                 marks=pytest.mark.slow),
    pytest.param(0, "hang", TimeoutError, r"image 5 of source 'squares'.*not loaded in DATA_TIMEOUT = 2\.0 s",
                 marks=pytest.mark.long),
    pytest.param(2, leave, RuntimeError, r"the data set raised SystemExit: 3", marks=pytest.mark.long),
])  # fmt: skip
def test_a_training_ends_with_what_the_loader_says(model_dir, hang, workers, fault, error, says):
    settings = config(DATA_TIMEOUT=SECONDS, DATA_WORKERS=workers, STEPS_PER_EPOCH=20, DATA_QUEUE=2, SEED=5)
    late = int(TrainingStream(Squares(40), settings)[8][0][1][0, 0])
    data = Faulty(40, late, hang if fault == "hang" else fault)
    data.image_info[late]["id"], data.image_info[late]["path"] = 5, "squares/5.png"
    model = modellib.MaskRCNN("training", settings, model_dir)
    threads, begin = set(threading.enumerate()), time.monotonic()
    with pytest.raises(error) as caught:
        model.train(data, None, 0.01, 1, "heads")
    assert re.search(says, str(caught.value), re.DOTALL) and time.monotonic() - begin < 120
    for thread in set(threading.enumerate()) - threads:
        # the one that hangs holds nobody up: it is a daemon; those of tf.data are not Python's
        if not thread.name.startswith(("batch ", "Dummy")):
            thread.join(5)
            assert not thread.is_alive(), thread
        assert thread.daemon


@pytest.mark.long
def test_one_image_of_nan_does_not_spoil_a_training(model_dir, capsys):
    model = modellib.MaskRCNN("training", config(STEPS_PER_EPOCH=20), model_dir)
    late = int(TrainingStream(Squares(40), model.config)[8][0][1][0, 0])
    model.train(Faulty(40, late, nan_image), None, 0.01, 1, "heads")
    assert re.search(rf"Left out: .*squares/{late}\.png.*be finite; found nan", capsys.readouterr().out)
    weights = tiny.weights_of(model.keras_model).values()
    assert model.epoch == 1 and all(np.isfinite(array).all() for array in weights)
    keep_beside("kills", image_of_nan={"epochs": model.epoch, "weights": len(weights), "finite": len(weights)})
