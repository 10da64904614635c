import keras
import numpy as np
import pytest

from mrcnn.network.assemble import MaskRCNNModel
from mrcnn.network.layers import BatchNorm, ROIConv2D, ROIConv2DTranspose


@pytest.mark.parametrize(
    "kind, settings, side",
    [
        (ROIConv2D, {"padding": "same"}, 6),
        (ROIConv2D, {"padding": "valid"}, 4),
        (ROIConv2DTranspose, {"strides": 2}, 13),
    ],
)
def test_layers_work_on_every_roi_alone(kind, settings, side):
    layer = kind(5, (3, 3), **settings)
    x = np.random.default_rng(0).normal(size=(2, 3, 6, 6, 4)).astype("float32")
    out = np.asarray(keras.ops.convert_to_numpy(layer(x)))
    assert out.shape == (2, 3, side, side, 5) == tuple(layer.compute_output_shape(x.shape))
    one = np.asarray(keras.ops.convert_to_numpy(layer(x[1:, 2:3])))
    np.testing.assert_allclose(out[1:, 2:3], one, atol=1e-5)
    assert [w.name for w in layer.weights] == ["kernel", "bias"]


@pytest.mark.parametrize("side", [1, 7])
def test_a_convolution_as_large_as_the_roi_gives_the_numbers_of_a_convolution(side, monkeypatch):
    def not_reached(*arguments):
        raise AssertionError("it is computed as a convolution")

    rng = np.random.default_rng(side)
    x = rng.normal(size=(2, 3, side, side, 4)).astype("float32")
    layer = ROIConv2D(5, (side, side), padding="valid", bias_initializer="normal")
    with monkeypatch.context() as patched:
        patched.setattr(keras.layers.Conv2D, "convolution_op", not_reached)
        out = np.asarray(keras.ops.convert_to_numpy(layer(x)))
    plain = keras.layers.Conv2D(5, (side, side), padding="valid")
    plain.build((None, side, side, 4))
    plain.set_weights(layer.get_weights())
    expected = np.asarray(keras.ops.convert_to_numpy(plain(x.reshape(-1, side, side, 4))))
    np.testing.assert_allclose(out, expected.reshape(2, 3, 1, 1, 5), atol=1e-5)
    assert out.shape == tuple(layer.compute_output_shape(x.shape))


def normalizing_model(flag, layer=BatchNorm):
    """input -> batch norm called with `training=flag`, in a model that trains nothing else."""
    inputs = keras.Input((4, 4, 3))
    return MaskRCNNModel(inputs, layer(name="bn", momentum=0.5)(inputs, training=flag))


@pytest.mark.parametrize("layer", [BatchNorm, keras.layers.BatchNormalization])
@pytest.mark.parametrize(
    "flag, training, by_batch",
    [(False, True, False), (False, False, False), (None, True, True), (None, False, False), (True, False, True)],
)
def test_the_mode_of_batch_norm_is_the_one_it_was_called_with(layer, flag, training, by_batch):
    x = np.random.default_rng(1).normal(3.0, 2.0, (2, 4, 4, 3)).astype("float32")
    model = normalizing_model(flag, layer)
    y = np.asarray(keras.ops.convert_to_numpy(model(x, training=training)))
    if by_batch:
        np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    else:
        np.testing.assert_allclose(y, x / np.sqrt(1 + 1e-3), rtol=1e-5)
    moved = np.asarray(keras.ops.convert_to_numpy(model.get_layer("bn").moving_mean)).any()
    assert moved == by_batch


def test_frozen_batch_norm_keeps_its_statistics():
    model = normalizing_model(None)
    model.get_layer("bn").trainable = False
    x = np.random.default_rng(1).normal(3.0, 2.0, (2, 4, 4, 3)).astype("float32")
    y = np.asarray(keras.ops.convert_to_numpy(model(x, training=True)))
    np.testing.assert_allclose(y, x / np.sqrt(1 + 1e-3), rtol=1e-5)


def test_fixed_batch_norm_equals_keras():
    rng = np.random.default_rng(2)
    for shape in [(2, 4, 5, 3), (2, 6, 4, 5, 3)]:
        ours, theirs = BatchNorm(), keras.layers.BatchNormalization()
        x = rng.normal(size=shape).astype("float32")
        for layer in (ours, theirs):
            layer(x)
            layer.set_weights([np.arange(1, 4), np.ones(3), np.full(3, 0.5), np.array([1.0, 2.0, 0.5])])
        a, b = (np.asarray(keras.ops.convert_to_numpy(layer(x, training=False))) for layer in (ours, theirs))
        np.testing.assert_allclose(a, b, atol=1e-5)
