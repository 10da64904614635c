"""Convolutions by Winograd's way: the numbers of the plain sum, and only where that is faster."""

import keras
import numpy as np
import pytest
import tiny
from arrays import array
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from mrcnn.network import assemble, kernels, winograd
from mrcnn.network.folding import folded
from mrcnn.network.layers import BatchNorm, Conv2D, SparselyLearned

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

JAX = keras.backend.backend() == "jax"
needs_graphs = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="about TensorFlow's graphs")
needs_steps = pytest.mark.skipif(JAX, reason="XLA compiles everything")


def values(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def plain(x, kernel):
    """The sum of the definition, in float64."""
    x, kernel = np.pad(x.astype("float64"), ((0, 0), (1, 1), (1, 1), (0, 0))), kernel.astype("float64")
    height, width = x.shape[1] - 2, x.shape[2] - 2
    return sum(x[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))


def by_winograd(x, kernel):
    return array(winograd.convolve(ops.convert_to_tensor(x), ops.convert_to_tensor(kernel)))


def check(x, kernel, most=3e-6):
    expected = plain(x, kernel)
    found = by_winograd(x, kernel)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=most * np.abs(expected).max())


@pytest.fixture
def anywhere(monkeypatch):
    """Every convolution of 3 x 3 without strides is large enough, and the squares come in several strips."""
    monkeypatch.setattr(winograd, "_CHANNELS", 1)
    monkeypatch.setattr(winograd, "_PRODUCTS", 1)
    monkeypatch.setattr(winograd, "_TILES", 8)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 21), st.integers(1, 21), st.integers(1, 4), st.integers(1, 4))
def test_the_numbers_of_the_sum(batch, height, width, channels, filters):
    check(values(batch, height, width, channels), values(3, 3, channels, filters, seed=1))


@pytest.mark.parametrize("height", [1, 4, 7, 8, 9, 31, 32, 33, 64, 70])
def test_strips_meet(monkeypatch, height):
    monkeypatch.setattr(winograd, "_TILES", 6)
    check(values(1, height, 10, 3), values(3, 3, 3, 2, seed=1))


def test_rounding_is_that_of_float32():
    x, kernel = np.maximum(values(1, 32, 32, 256), 0), values(3, 3, 256, 64, seed=1)
    expected = plain(x, kernel)
    error = by_winograd(x, kernel) - expected
    assert np.sqrt(np.mean(error**2) / np.mean(expected**2)) < 2e-6
    assert np.abs(error).max() < 5e-6 * np.abs(expected).max()


def test_each_output_is_that_of_its_place():
    x = np.zeros((1, 12, 12, 1), "float32")
    x[0, 5, 6] = 1
    kernel = np.arange(1, 10, dtype="float32").reshape(3, 3, 1, 1)
    found = by_winograd(x, kernel)[0, :, :, 0]
    np.testing.assert_allclose(found[4:7, 5:8], kernel[::-1, ::-1, 0, 0], atol=1e-5)
    found[4:7, 5:8] = 0
    assert np.abs(found).max() < 1e-5


@needs_steps
@pytest.mark.parametrize(("shape", "kernel", "wanted"), [
    ((1, 64, 64, 256), (3, 3, 256, 256), True),
    ((None, 64, 64, 256), (3, 3, 256, 256), True),
    ((1, 32, 32, 512), (3, 3, 512, 512), True),
    ((1, 8, 8, 512), (3, 3, 512, 512), False),  # too small
    ((1, 256, 256, 64), (3, 3, 64, 64), False),  # too few channels
    ((1, 256, 256, 256), (3, 3, 256, 18), False),
    ((1, 64, 64, 1024), (1, 1, 1024, 1024), False),
    ((1, None, 64, 256), (3, 3, 256, 256), False),
])  # fmt: skip
def test_where_it_pays(shape, kernel, wanted):
    x, kernel = keras.KerasTensor(shape), keras.KerasTensor(kernel)
    assert not winograd.pays(x, kernel)
    with winograd.preferred():
        assert winograd.pays(x, kernel) is wanted
        assert not winograd.pays(keras.KerasTensor(shape, dtype="float16"), kernel)
    assert not winograd.pays(x, kernel)


@needs_steps
@pytest.mark.parametrize("has_units", [False, True])
def test_bfloat16_is_left_to_the_units_that_a_cpu_has_for_it(monkeypatch, has_units):
    monkeypatch.setattr(kernels, "multiplies_tiles", lambda: has_units)
    x, kernel = keras.KerasTensor((1, 64, 64, 256), dtype="bfloat16"), keras.KerasTensor((3, 3, 256, 256))
    with winograd.preferred():
        assert winograd.pays(x, kernel) is not has_units


@needs_steps
@pytest.mark.parametrize("kind", [Conv2D, SparselyLearned])
def test_bfloat16_is_rounded_once_only(anywhere, monkeypatch, kind):
    monkeypatch.setattr(kernels, "multiplies_tiles", lambda: False)
    layer, x = kind(4, 3, padding="same", dtype="mixed_bfloat16", use_bias=False), values(2, 9, 10, 4)
    rounded = array(ops.cast(ops.cast(x, "bfloat16"), "float32"))
    with winograd.preferred():
        found = layer(x)
        assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"
    kernel = array(ops.cast(ops.cast(layer.kernel, "bfloat16"), "float32"))
    expected = plain(rounded, kernel)
    # bfloat16 has 8 bits; near zero the error of the sum in float32 is left
    np.testing.assert_allclose(array(ops.cast(found, "float32")), expected, rtol=2**-8, atol=1e-5)


def test_not_where_something_else_is_faster(monkeypatch):
    with winograd.preferred():
        assert winograd.is_preferred() is not JAX
    with kernels.for_xla(), winograd.preferred():
        assert not winograd.is_preferred()
    monkeypatch.setattr(kernels, "has_gpu", lambda: True)
    with winograd.preferred():
        assert not winograd.is_preferred()


@needs_steps
@pytest.mark.parametrize("kind", [Conv2D, SparselyLearned])
@pytest.mark.parametrize(("wanted", "arguments"), [
    (True, {"padding": "same"}), (True, {"padding": "same", "use_bias": False, "activation": "relu"}),
    (False, {}), (False, {"padding": "same", "strides": 2}), (False, {"padding": "same", "dilation_rate": 2}),
])  # fmt: skip
def test_layers_take_it_where_it_is_the_same(anywhere, monkeypatch, kind, wanted, arguments):
    layer, x, uses = kind(4, 3, **arguments), values(2, 9, 10, 4), []
    expected, convolve = array(layer(x)), winograd.convolve
    monkeypatch.setattr(winograd, "convolve", lambda *given: uses.append(given) or convolve(*given))
    with winograd.preferred():
        np.testing.assert_allclose(array(layer(x)), expected, atol=1e-5)
    assert bool(uses) is wanted
    layer(x)
    assert len(uses) == wanted


@needs_steps
def test_groups_are_left_alone(anywhere):
    layer, x = Conv2D(4, 3, padding="same", groups=2), values(1, 8, 8, 4)
    expected = array(layer(x))
    with winograd.preferred():
        np.testing.assert_array_equal(array(layer(x)), expected)


@needs_steps
def test_a_kernel_is_transformed_once_and_anew_when_it_changes():
    kernel, x = keras.Variable(values(3, 3, 4, 4)), ops.convert_to_tensor(values(1, 8, 8, 4, seed=1))
    with winograd.preferred():
        first = winograd._transformed(kernel, x)
        assert winograd._transformed(kernel, x) is first
    kernel.assign(kernel * 2)
    with winograd.preferred():
        np.testing.assert_allclose(array(winograd._transformed(kernel, x)), 2 * array(first), rtol=1e-6)


@needs_steps
def test_only_the_last_kernel_is_kept():
    kernels_ = [keras.Variable(values(3, 3, 4, 4, seed=seed)) for seed in (1, 2)]
    x = ops.convert_to_tensor(values(1, 8, 8, 4))
    with winograd.preferred():
        for kernel in (*kernels_, kernels_[0]):
            np.testing.assert_allclose(array(winograd.convolve(x, kernel)), plain(array(x), array(kernel)), atol=1e-4)
            assert len(winograd._TRANSFORMED.get()) == 1


@needs_steps
def test_normalization_is_folded_into_it(anywhere):
    inputs = x = keras.Input((9, 10, 4))
    for _ in range(2):
        x = BatchNorm()(Conv2D(4, 3, padding="same")(x), training=False)
        x = keras.layers.Activation("relu")(x)
    model = assemble.MaskRCNNModel(inputs, [x])
    tiny.draw_statistics(model)
    image = [ops.convert_to_tensor(values(2, 9, 10, 4))]
    expected = array(model.run_layers(image, False)[0])
    with winograd.preferred():
        for _ in range(2):
            found = model.run_layers(image, False, folded(model))[0]
            np.testing.assert_allclose(array(found), expected, atol=1e-5 * np.abs(expected).max())


@needs_graphs
def test_a_batch_of_unknown_size():
    kernel, x = values(3, 3, 4, 2), values(3, 37, 53, 4, seed=1)
    signature = [tf.TensorSpec((None, 37, 53, 4))]
    found = tf.function(lambda x: winograd.convolve(x, ops.convert_to_tensor(kernel)), input_signature=signature)(x)
    np.testing.assert_allclose(array(found), plain(x, kernel), atol=3e-5)


@needs_graphs
def test_kernels_and_strips_wait_for_what_is_before_them(anywhere):
    """Otherwise TensorFlow computes all of them at once, and needs memory for all."""
    layer = Conv2D(4, 3, padding="same")
    layer.build((1, 16, 16, 4))

    def run(x):
        with winograd.preferred():
            return layer(x)

    graph = tf.function(run, input_signature=[tf.TensorSpec((1, 16, 16, 4))]).get_concrete_function().graph
    waits_for = {(op.type, other.type) for op in graph.get_operations() for other in op.control_inputs}
    assert ("ReadVariableOp", "Placeholder") in waits_for  # the kernel, for the input
    assert ("Const", "Reshape") in waits_for  # where the second strip begins, for what the first becomes
