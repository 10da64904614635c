"""Batch normalization folded into the layer before it: where, and with the same numbers."""

import math

import keras
import numpy as np
import tiny
from keras import layers, ops

from mrcnn.network import assemble, folding
from mrcnn.network.folding import foldable, folded
from mrcnn.network.layers import BatchNorm


class Odd(layers.Conv2D):
    def call(self, inputs):
        return super().call(inputs) ** 2


def chain(x, layer, training=False, **normalization):
    return BatchNorm(**normalization)(layer(x), training=training)


def values(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def test_every_normalization_of_the_network_is_folded():
    model = assemble.build_model("inference", tiny.config())
    found = foldable(model)
    assert set(found) == {layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)}
    assert {layer.name for layer in found.values()} >= {"conv1", "mrcnn_class_conv1", "mrcnn_mask_conv4"}


def test_what_can_be_folded():
    x = keras.Input((8, 8, 4))
    shared, middle = layers.Conv2D(4, 1, name="shared"), layers.Conv2D(3, 1, name="seen")(x)
    outputs = [
        chain(x, layers.Conv2D(3, 3, padding="same", strides=2, name="plain")),
        chain(x, layers.Conv2D(3, 1, use_bias=False, name="bare"), scale=False),
        chain(x, layers.Dense(5, name="dense"), center=False),
        layers.BatchNormalization()(layers.Conv2D(3, 1, name="positional")(x), None),
        chain(x, layers.Conv2D(3, 1, activation="relu")),
        chain(x, Odd(3, 1)),
        chain(chain(x, shared), shared),
        BatchNorm()(middle, training=False),
        middle,
        chain(x, layers.Conv2D(8, 1), axis=1),
        chain(x, layers.Conv2D(3, 1), training=True),
    ]
    model = assemble.MaskRCNNModel(x, outputs)
    tiny.draw_statistics(model)
    assert {layer.name for layer in foldable(model).values()} == {"plain", "bare", "dense", "positional"}
    inputs = [ops.convert_to_tensor(values(2, 8, 8, 4))]
    pairs = zip(model.run_layers(inputs, False, folded(model)), model.run_layers(inputs, False), strict=True)
    for got, want in pairs:
        np.testing.assert_allclose(*map(ops.convert_to_numpy, (got, want)), atol=1e-5)


def test_large_kernels_are_left_alone(monkeypatch):
    """A scaled copy of the box head's first kernel would take 51 MB."""
    model = assemble.build_model("inference", tiny.config())
    large = model.get_layer("mrcnn_class_conv1")
    pair = {large, model.get_layer("mrcnn_class_bn1")}
    assert pair <= set(folded(model))
    monkeypatch.setattr(folding, "_LARGEST", math.prod(large.kernel.shape) - 1)
    assert not pair & set(folded(model)) and model.get_layer("conv1") in folded(model)


def test_statistics_of_the_batch_are_not_folded():
    assert not foldable(assemble.build_model("inference", tiny.config(TRAIN_BN=True)))
