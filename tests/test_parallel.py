"""ParallelModel: the original's surface, and what it refuses. What several devices come to is in test_devices.py."""

import keras
import numpy as np
import pytest
import tiny

from mrcnn.engine import weights
from mrcnn.model import MaskRCNN
from mrcnn.network.assemble import build_model
from mrcnn.network.losses import LOSS_NAMES
from mrcnn.parallel_model import ParallelModel

pytestmark = pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch runs on one device")


def classifier():
    inputs = keras.Input((8,), name="features")
    x = keras.layers.Dense(8, activation="tanh", name="hidden")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name="classifier")


def data(rows=16):
    random = np.random.default_rng(0)
    return random.normal(size=(rows, 8)).astype("float32"), random.integers(0, 3, rows)


@pytest.fixture
def parallel():
    return ParallelModel(classifier(), 1)


def test_the_surface_of_the_original(parallel):
    inner = parallel.inner_model
    assert inner.name == "classifier" and parallel.gpu_count == 1 and parallel.device_count == 1
    assert parallel.make_parallel()[0] is inner.outputs[0] and parallel.inputs[0] is inner.inputs[0]
    assert parallel.output_shape == (None, 3)
    assert isinstance(parallel, keras.Model) and parallel.name == inner.name
    assert [layer.name for layer in parallel.layers] == [layer.name for layer in inner.layers]
    assert [w.path for w in parallel.weights] == [w.path for w in inner.weights]
    assert parallel.get_layer("hidden") is inner.get_layer("hidden")


def test_loading_and_saving_are_the_inner_models(parallel, tmp_path):
    assert parallel.save_weights == parallel.inner_model.save_weights
    parallel.save_weights(tmp_path / "x.weights.h5")
    other = classifier()
    other.load_weights(tmp_path / "x.weights.h5")
    for one, two in zip(parallel.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    other.get_layer("hidden").kernel.assign(np.ones((8, 8)))
    other.save(tmp_path / "model.keras")
    other.save_weights(tmp_path / "y.weights.h5")
    parallel.load_weights(tmp_path / "y.weights.h5")
    assert (keras.ops.convert_to_numpy(parallel.get_layer("hidden").kernel) == 1).all()


def test_summary_says_on_how_many_devices(parallel):
    lines = []
    parallel.summary(print_fn=lambda line, **_: lines.append(line))
    assert lines[0] == "ParallelModel on 1 device, of:" and "classifier" in "".join(lines[1:])


def test_it_trains_like_the_wrapped_model():
    """Keras' own losses, metrics and optimizers; the weights are those of the wrapped model."""
    results = []
    for wrap in (lambda model: model, lambda model: ParallelModel(model, 1)):
        keras.utils.set_random_seed(3)
        inner = classifier()
        model = wrap(inner)
        model.compile(keras.optimizers.Adam(0.01, clipnorm=0.5), "mse", metrics=["mae"])
        x, y = data()[0], np.eye(3, dtype="float32")[data()[1]]
        history = model.fit(x, y, batch_size=8, epochs=2, verbose=0, shuffle=False, validation_data=(x, y)).history
        batch = model.train_on_batch(x, y, return_dict=True)
        tested = model.test_on_batch(x, y, return_dict=True)
        predicted = [model.predict(x, verbose=0, batch_size=8), model.predict_on_batch(x)]
        results.append((history, batch, tested, model.evaluate(x, y, verbose=0), predicted, inner.get_weights()))
    for one, other in zip(*map(keras.tree.flatten, results), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)


def test_the_optimizer_keeps_what_it_is():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    model = ParallelModel(classifier(), 1)
    model.compile(keras.optimizers.SGD(schedule, momentum=0.9, global_clipnorm=5.0), "mse")
    assert model.optimizer.global_clipnorm == 5.0 and model.optimizer.momentum == 0.9
    model.train_on_batch(data()[0], np.zeros((16, 3)))
    assert float(model.optimizer.learning_rate) == pytest.approx(0.1 * 0.5**0.1)


@pytest.mark.parametrize("given, count, message", [
    (classifier, 0, "gpu_count must be a whole number of 1 or more; received 0"),
    (classifier, True, "received True"),
    (classifier, 1.0, "received 1.0"),
    (classifier, 99, r"GPU_COUNT = 99: found \d"),
    (lambda: "model", 1, "keras_model must be a keras.Model.*received str"),
    (lambda: keras.Sequential([keras.layers.Dense(1)]), 1, "keras_model must be.*received Sequential"),
])  # fmt: skip
def test_what_cannot_be_wrapped(given, count, message):
    with pytest.raises(ValueError, match=message):
        ParallelModel(given(), count)


# ---- around Mask R-CNN


@pytest.fixture(scope="module")
def networks():
    """The tiny training network, plain and wrapped, with the same weights."""
    pair = []
    for wrap in (lambda model: model, lambda model: ParallelModel(model, 1)):
        keras.utils.set_random_seed(1)
        pair.append(wrap(weights.speak_layout(build_model("training", tiny.config()))))
    return pair


@pytest.mark.slow
def test_it_trains_mask_rcnn(networks, tmp_path):
    """The same losses under the same names, and checkpoints in the original's layout."""
    from mrcnn.data.loader import TrainingStream

    stream = TrainingStream(tiny.Squares(8), tiny.config())
    logs = []
    for model in networks:
        model.compile(keras.optimizers.SGD(0.001, momentum=0.9, global_clipnorm=5.0))
        logs.append([model.train_on_batch(stream[k][0], return_dict=True) for k in range(2)])
    for one, other in zip(*logs, strict=True):
        assert list(other) == list(one) and {"loss", *LOSS_NAMES} == set(one)
        assert other == pytest.approx({name: float(value) for name, value in one.items()}, rel=1e-5, abs=1e-6)
    networks[1].save_weights(tmp_path / "mask_rcnn_tiny_0001.h5")
    networks[0].load_weights(tmp_path / "mask_rcnn_tiny_0001.h5", by_name=True)
    for one, other in zip(*(tiny.weights_of(model).items() for model in networks), strict=True):
        if "seed" not in one[0]:
            np.testing.assert_array_equal(one[1], other[1], err_msg=one[0])


def test_one_device_needs_no_wrapping(model_dir):
    assert not isinstance(MaskRCNN("inference", tiny.config(), model_dir).keras_model, ParallelModel)
