"""Which layers train, the optimizer, seeds, and errors that say what helps."""

import re
import threading

import keras
import numpy as np
import pytest
import tiny
from keras import layers

from mrcnn.data.loader import TrainingStream
from mrcnn.engine import training
from mrcnn.engine.mask_rcnn import MaskRCNN


@pytest.fixture
def model():
    """A backbone, a nested RPN and a head, all called as in the original."""
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(2, 1, name="conv1")(image)
    for stage in (2, 3, 4, 5):
        x = layers.Conv2D(2, 1, name=f"res{stage}a_branch2a")(x)
        x = layers.BatchNormalization(name=f"bn{stage}a_branch2a")(x)
    x = layers.Activation("relu", name="res5a_out")(x)
    maps = keras.Input((8, 8, 2))
    rpn = keras.Model(maps, layers.Conv2D(2, 1, name="rpn_conv_shared")(maps), name="rpn_model")
    x = layers.Conv2D(2, 1, name="fpn_c5p5")(rpn(x))
    x = layers.Dropout(0.5, seed=3)(x)
    return keras.Model(image, layers.Conv2D(2, 1, name="mrcnn_mask")(x))


def names(model):
    return {weight.path.split("/")[0] for weight in model.trainable_weights}


@pytest.mark.parametrize("momentum, accumulation", [(0.9, 1), (0.9, 2), (0.0, 1)])
def test_the_optimizer_steps_as_that_of_keras(momentum, accumulation, monkeypatch):
    """And has the same variables, so that a run that was begun with that one goes on.

    The second gradient is so small that only the norm of both together limits it.
    """
    rng = np.random.default_rng(0)
    starts, gradients = [rng.normal(size=(4, 3)), rng.normal(size=5)], []
    for _ in range(6):
        gradients.append([1 + rng.normal(size=(4, 3)), 0.1 * rng.normal(size=5)])
        assert np.linalg.norm(gradients[-1][0]) > 2 and np.linalg.norm(gradients[-1][1]) < 1
    made = training.make_optimizer(0.1, momentum, 1.5, accumulation)
    steps = {"gradient_accumulation_steps": accumulation if accumulation > 1 else None}
    plain = keras.optimizers.SGD(0.1, momentum=momentum, global_clipnorm=1.5, **steps)
    with monkeypatch.context() as patched:
        if keras.backend.backend() == "tensorflow":
            patched.setattr(keras.optimizers.SGD, "_clip_gradients", not_reached)
        ours = after_steps(made, starts, gradients)
    theirs = after_steps(plain, starts, gradients)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert type(made).__name__ == type(plain).__name__
    assert all(np.abs(now - start).max() > 0.001 for now, start in zip(ours[:2], starts, strict=True))


def not_reached(*arguments, **keywords):
    raise AssertionError("the function of Keras is reached")


def after_steps(optimizer, starts, gradients):
    """Arrays of the weights after steps of an optimizer, and of its own variables."""
    weights = [keras.Variable(start, dtype="float32", name=f"kernel{n}") for n, start in enumerate(starts)]
    optimizer.build(weights)
    for some in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient.astype("float32")) for gradient in some])
    return [np.array(keras.ops.convert_to_numpy(v)) for v in (*weights, *optimizer.variables)]


HEADS = {"rpn_conv_shared", "fpn_c5p5", "mrcnn_mask"}


@pytest.mark.parametrize("layers, backbone", [
    ("heads", ""), ("3+", "345"), ("4+", "45"), ("5+", "5"), ("all", "2345")])
def test_presets(model, layers, backbone, capsys):
    training.set_trainable(model, training.layer_regex(layers, model))
    stages = {f"{kind}{stage}a_branch2a" for kind in ("res", "bn") for stage in backbone}
    assert names(model) == HEADS | stages | ({"conv1"} if layers == "all" else set())
    printed = capsys.readouterr().out.splitlines()
    assert "In model: rpn_model" in printed
    assert "    rpn_conv_shared        (Conv2D)" in printed
    assert "mrcnn_mask             (Conv2D)" in printed


def test_a_regular_expression_must_fit_the_whole_name(model, capsys):
    training.set_trainable(model, "mrcnn", verbose=0)
    assert names(model) == set()
    training.set_trainable(model, "mrcnn.*|rpn_conv_shared", verbose=0)
    assert names(model) == {"mrcnn_mask", "rpn_conv_shared"}
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("regex", ["([", None, 5, b"heads", ["res5.*"]])
def test_what_is_no_regular_expression_changes_no_layer(model, regex):
    before = names(model)
    with pytest.raises(ValueError, match=rf"layer_regex must be a regular.*received {re.escape(repr(regex))} \("):
        training.set_trainable(model, regex)
    assert names(model) == before


def test_layers_can_be_freed_again(model):
    model.trainable = False
    training.set_trainable(model, ".*", verbose=0)
    assert names(model) >= HEADS | {"conv1"}


@pytest.mark.parametrize("layers, message", [
    ("head", "'head' fits no layer.*Did you mean 'heads'"),
    ("mrcnn_maks", "Did you mean 'mrcnn_mask'"),
    ("HEADS", "'HEADS' fits no layer.*Did you mean 'heads'"),
    ("zzz.*", "one of heads, 3\\+"),
    ("(", "regular expression; received '\\('"),
    (None, "received None"),
    (["res5.*", "heads"], "one regular expression; received \\['res5"),
    (5, "received 5")])
def test_misspelt_layers(model, layers, message):
    with pytest.raises(ValueError, match=message):
        training.layer_regex(layers, model)


def test_optimizer_is_the_original_one():
    optimizer = training.make_optimizer(0.25, 0.5, 4.0)
    weight = keras.Variable(np.array([0.0, 0.0], "float32"))
    for expected in ([-0.6, -0.8], [-1.5, -2.0]):  # norm 10, limited to 4; then with momentum
        optimizer.apply([keras.ops.convert_to_tensor(np.array([6.0, 8.0], "float32"))], [weight])
        np.testing.assert_allclose(keras.ops.convert_to_numpy(weight), expected, rtol=1e-6)


def test_accumulated_steps_are_one_of_a_large_batch():
    rng = np.random.default_rng(0)
    inputs, wanted, start, trained = rng.normal(size=(6, 5)), rng.normal(size=(6, 2)), None, []
    for steps in (1, 3):
        layer = keras.layers.Dense(2)
        net = keras.Sequential([keras.Input((5,)), layer])
        start = start or net.get_weights()
        net.set_weights(start)
        net.compile(training.make_optimizer(0.5, 0.9, 0.1, accumulation=steps), "mse")
        for _ in range(2):
            for part in np.split(np.arange(6), steps):
                before = net.get_weights()
                net.train_on_batch(inputs[part], wanted[part])
        trained.append(net.get_weights())
        assert any((now != then).any() for now, then in zip(trained[-1], before, strict=True))
    for one, parts in zip(*trained, strict=True):
        np.testing.assert_allclose(parts, one, atol=1e-5)
        assert np.abs(one).max() > 0


@pytest.mark.parametrize("clip_norm", [0, None])
def test_clipping_can_be_off(clip_norm):
    assert training.make_optimizer(0.1, 0.9, clip_norm).global_clipnorm is None


@pytest.mark.parametrize("rate", [0, -0.1, "0.1", None, [0.1]])
def test_impossible_learning_rates(rate):
    with pytest.raises(ValueError, match=f"learning_rate.*{re.escape(repr(rate))}"):
        training.make_optimizer(rate, 0.9, 5)


def test_a_schedule_is_a_learning_rate():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    assert training.make_optimizer(schedule, 0.9, 5)._learning_rate is schedule


def test_draws_depend_on_seed_and_epoch_alone(model):
    dropout = next(layer for layer in model.layers if isinstance(layer, layers.Dropout))

    def draw(seed, epoch):
        training.seed_draws(model, seed, epoch)
        return keras.ops.convert_to_numpy(keras.random.uniform((5,), seed=dropout.seed_generator))

    first = draw(1, 0)
    assert not np.array_equal(first, draw(1, 1)) and not np.array_equal(first, draw(2, 0))
    np.testing.assert_array_equal(first, draw(1, 0))
    assert not np.array_equal(draw(None, 0), draw(None, 0))


class ResourceExhaustedError(Exception):
    """Called as TensorFlow's."""


@pytest.mark.parametrize("error", [
    ResourceExhaustedError("OOM when allocating"), RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying")])
def test_out_of_memory_names_the_settings_that_help(error):
    with pytest.raises(MemoryError, match=r"IMAGES_PER_GPU = 2, IMAGE_MAX_DIM = 64\. .*USE_MINI_MASK") as caught, \
            training.clear_errors({"IMAGES_PER_GPU": 2, "IMAGE_MAX_DIM": 64}):
        raise error
    assert caught.value.__cause__ is error


def test_other_errors_pass():
    with pytest.raises(KeyError, match="other"), training.clear_errors({}, None):
        raise KeyError("other")


def test_errors_of_data_threads_come_out_as_they_were():
    stream = TrainingStream(tiny.Squares(2), tiny.config())
    stream.failure = FileNotFoundError("image 7 is gone")
    with pytest.raises(FileNotFoundError, match="image 7") as caught, training.clear_errors({}, None, stream):
        raise RuntimeError("error in a generator")
    assert caught.value.__suppress_context__


def test_threads_end_after_an_exception(model):
    class Data(keras.utils.PyDataset):
        num_batches = None

        def __getitem__(self, index):
            return np.ones((1, 8, 8, 3), "float32"), np.ones((1, 8, 8, 2), "float32")

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyError("stop")

    data, before = Data(workers=2, max_queue_size=2), set(threading.enumerate())
    model.compile("sgd", "mse")
    with pytest.raises(KeyError, match="stop"):
        model.fit(data, steps_per_epoch=3, verbose=0, shuffle=False, callbacks=[Stop()])
    training.stop_threads(data, None)
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
    assert not set(threading.enumerate()) - before


def test_tracing_is_only_announced_where_it_happens(model):
    seconds = training.tracing_seconds(model)
    assert (seconds == 0) == (keras.backend.backend() == "torch")


@pytest.mark.parametrize("arguments, message", [
    ((float("inf"), 1, None), "learning_rate must be a number"),
    ((0.1, 1.5, None), "epochs must be a whole number.*received 1.5"),
    ((0.1, 1, ["x"]), "custom_callbacks must be a list.*received 'x'"),
    ((0.1, 1, print), "custom_callbacks must be a list"),
    ((0.1, 1, None, 5), "no_augmentation_sources must be a list of names of sources; received 5"),
])
def test_arguments_are_checked_before_the_work_begins(arguments, message):
    with pytest.raises(ValueError, match=message):
        training.check_arguments(*arguments)
    training.check_arguments(0.1, 3, [keras.callbacks.Callback()], {"coco"})


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "logs"):
        with pytest.raises(ValueError, match="model_dir.*cannot be made.*choose another"):
            training.check_writable(str(folder))


def test_schedules_are_announced_by_name(model, capsys):
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    training.announce(model, schedule, 0, 3, "x.h5")
    assert "learning rate: by CosineDecay\n" in capsys.readouterr().out


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="about TensorFlow's traces")
def test_a_step_is_traced_once(tmp_path, monkeypatch):
    """Tracing is most of what a short training takes."""
    model = MaskRCNN("training", tiny.config(), str(tmp_path))
    traced, step = [], model.keras_model.train_step
    monkeypatch.setattr(model.keras_model, "train_step", lambda data: traced.append(1) or step(data))
    model.train(tiny.Squares(4), None, 0.01, epochs=1, layers="heads")
    assert len(traced) == 1
