"""Region proposal network: objectness and box deltas for every anchor (Faster R-CNN, section 3.1)."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops

from mrcnn.network.layers import EXACT, SparselyLearned


def rpn_graph(feature_map, anchors_per_location, anchor_stride, channels=512):
    """The RPN on one feature map; its weights are shared by all levels.

    Args:
        feature_map: [batch, h, w, depth] float.
        anchors_per_location: number of anchor shapes.
        anchor_stride: 1 for anchors at every pixel, 2 for every second one.
        channels: width of the shared convolution.

    Returns:
        class logits [batch, anchors, (bg, fg)], class probabilities of the same shape and box deltas
        [batch, anchors, (dy, dx, log(dh), log(dw))] in units of the deltas' standard deviation; anchors run over rows,
        columns and shapes.
    """
    shared = SparselyLearned(
        channels, (3, 3), padding="same", activation="relu", strides=anchor_stride, name="rpn_conv_shared"
    )(feature_map)
    scores = layers.Conv2D(2 * anchors_per_location, (1, 1), name="rpn_class_raw", dtype=EXACT)(shared)
    logits = layers.Reshape((-1, 2), dtype=EXACT)(scores)
    probs = layers.Activation("softmax", name="rpn_class_xxx", dtype=EXACT)(logits)
    deltas = layers.Conv2D(4 * anchors_per_location, (1, 1), name="rpn_bbox_pred", dtype=EXACT)(shared)
    return [logits, probs, layers.Reshape((-1, 4), dtype=EXACT)(deltas)]


def build_rpn_model(anchor_stride, anchors_per_location, depth, channels=512):
    """The RPN as a model of its own, named `rpn_model`; input `input_rpn_feature_map` [batch, h, w, depth]."""
    dtype = keras.config.dtype_policy().compute_dtype
    feature_map = keras.Input((None, None, depth), dtype=dtype, name="input_rpn_feature_map")
    outputs = rpn_graph(feature_map, anchors_per_location, anchor_stride, channels)
    return keras.Model(feature_map, outputs, name="rpn_model")


class Anchors(keras.layers.Layer):
    """Repeats constant anchors [anchors, (y1, x1, y2, x2)] (normalized) for every image of a batch."""

    def __init__(self, anchors, **kwargs):
        super().__init__(**kwargs)
        self.values = np.asarray(anchors, "float32")

    def call(self, images):
        return ops.broadcast_to(ops.convert_to_tensor(self.values), (ops.shape(images)[0], *self.values.shape))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *self.values.shape)
