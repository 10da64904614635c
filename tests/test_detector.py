"""The inference model as one function: equal numbers, and weights that may change."""

import keras
import numpy as np
import pytest
import tiny

from mrcnn.network import assemble, compiled, detection, kernels, proposals, winograd
from mrcnn.network.detector import Detector
from mrcnn.network.tensors import clip_boxes


def make_inputs(config, size=64, seed=0):
    count = config.BATCH_SIZE
    rng = np.random.default_rng(seed)
    images = rng.uniform(-100, 100, (count, size, size, 3)).astype("float32")
    meta = [0, size, size, 3, size, size, 3, 0, 0, size, size, 1, *[0] * config.NUM_CLASSES]
    anchors = assemble.norm_boxes_array(assemble.config_anchors(config, (size, size, 3)), (size, size))
    return images, np.float32([meta] * count), np.stack([anchors] * count).astype("float32")


@pytest.fixture(scope="module", autouse=True)
def boxes_off_the_border():
    """Whether a sample on the border of an image lies inside is a matter of the last bit, and so of the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (proposals, detection):
            patch.setattr(module, "clip_boxes", lambda boxes, window: clip_boxes(boxes, 0.98 * window + 0.01))
        yield


@pytest.fixture(scope="module")
def config():
    return tiny.config()


@pytest.fixture(scope="module")
def model(config):
    keras.utils.set_random_seed(1)
    model = assemble.build_model("inference", config)
    tiny.draw_statistics(model)
    return model


def compare(detector, model, inputs, atol=2e-5):
    rows, _, _, all_masks, *_ = (np.asarray(x) for x in model.predict_on_batch(list(inputs)))
    detections, masks = detector(*inputs)
    np.testing.assert_allclose(detections, rows, atol=atol)
    counts = (rows[..., 4] > 0).sum(axis=1)
    assert masks.shape[1] == (rows.shape[1] if kernels.fixed_shapes() else max(counts.max(), 1))
    for of_image, want, found, count in zip(masks, all_masks, rows, counts, strict=True):
        ids = found[:count, 4].astype(int)
        np.testing.assert_allclose(of_image[:count], want[np.arange(count), :, :, ids], atol=25 * atol)
    return counts


def test_same_numbers_as_the_model(config, model):
    detector = Detector(model)
    assert compare(detector, model, make_inputs(config)).max() > 0
    compare(detector, model, make_inputs(config, size=128, seed=1))
    compare(detector, model, make_inputs(config, seed=2))


def test_changed_weights_count(config, model):
    detector, inputs = Detector(model), make_inputs(config)
    before = detector(*inputs)[0]
    tiny.draw_statistics(model, seed=3)
    model.get_layer("conv1").kernel.assign(model.get_layer("conv1").kernel * 1.5)
    assert np.abs(detector(*inputs)[0] - before).max() > 1e-3
    compare(detector, model, inputs)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="XLA compiles everything")
def test_same_numbers_with_fewer_multiplications(config, model, monkeypatch):
    uses, convolve = [], winograd.convolve
    for name in ("_CHANNELS", "_PRODUCTS"):
        monkeypatch.setattr(winograd, name, 1)  # every map is large enough
    monkeypatch.setattr(winograd, "convolve", lambda *given: uses.append(given) or convolve(*given))
    detector = Detector(model)
    assert compare(detector, model, make_inputs(config), 5e-5).max() > 0
    assert len(uses) == 9  # four levels of the pyramid, five of proposals
    compare(detector, model, make_inputs(config, size=128, seed=1), 5e-5)
    model.get_layer("fpn_p2").kernel.assign(model.get_layer("fpn_p2").kernel * 1.5)
    compare(detector, model, make_inputs(config, seed=2), 5e-5)


def test_nothing_is_detected():
    config = tiny.config()
    model = assemble.build_model("inference", config)
    model.get_layer("mrcnn_class_logits").bias.assign([1e6, 0, 0, 0])  # all is background
    detections, masks = Detector(model)(*make_inputs(config))
    assert not detections.any() and masks.shape[2:] == (28, 28)


@pytest.fixture
def traces(monkeypatch):
    """The shapes of the images that detectors are traced with."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("about TensorFlow's graphs")
    seen, forward = [], Detector._forward

    def counted(self, images, *others):
        seen.append(tuple(images.shape))
        return forward(self, images, *others)

    monkeypatch.setattr(Detector, "_forward", counted)
    return seen


def test_two_graphs_serve_all_shapes(config, model, traces):
    detector = Detector(model)
    for size in (64, 128, 192, 64, 128, 256):
        detector(*make_inputs(config, size))
    assert traces == [(2, 64, 64, 3), (2, None, None, 3)]


def test_shapes_that_come_often_get_graphs_of_their_own(config, model, traces, monkeypatch):
    monkeypatch.setattr(compiled, "_FIXED", 2)
    monkeypatch.setattr(compiled, "_OFTEN", 2)
    detector = Detector(model)
    for size in (64, 128, 128, 192, 64, 128, 128, 192, 192, 64):
        compare(detector, model, make_inputs(config, size))
    assert traces == [(2, 64, 64, 3), (2, None, None, 3), (2, 128, 128, 3)]


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch has no XLA")
@pytest.mark.parametrize("jit", [True, False])
def test_xla_finds_the_same(config, model, jit):
    other = assemble.build_model("inference", tiny.config(JIT=jit))
    other.set_weights(model.get_weights())
    assert other.jit_compile is jit
    detector, inputs = Detector(other), make_inputs(config)
    expected = Detector(model)(*inputs)
    detections, masks = detector(*inputs)
    np.testing.assert_allclose(detections, expected[0], atol=2e-5)
    count = int((detections[..., 4] > 0).sum(axis=1).min())
    assert count > 0
    np.testing.assert_allclose(masks[:, :count], expected[1][:, :count], atol=2e-4)
    if jit:  # a program for each shape
        larger = make_inputs(config, size=128)
        np.testing.assert_allclose(detector(*larger)[0], Detector(model)(*larger)[0], atol=2e-5)
