"""Region proposal network: objectness and box deltas for every anchor (Faster R-CNN, section 3.1)."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops

from mrcnn.network import kernels
from mrcnn.network.layers import EXACT, SparselyLearned

STRIP = 32  # rows of a feature map


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


def in_strips(rpn, feature_map, rows=STRIP, after=None):
    """What the RPN makes of a feature map, computed some rows at a time: so its widest layer takes little memory.

    Each strip has the rows beside it, which the convolution of 3 x 3 sees; what is found there is left out. A map of
    few rows, or whose sides are not known beforehand, is computed at once; and so are all if the RPN leaves places out.

    Args:
        rpn: what `build_rpn_model` returned.
        feature_map: [batch, h, w, depth] float.
        rows: of a strip, with those beside it; 3 at least.
        after: a tensor that is to be there before the first strip is computed; None makes no demand.

    Returns:
        list of tensors, as `rpn` returns them.
    """
    height, width = feature_map.shape[1:3]
    if None in (height, width) or height <= rows or rpn.get_layer("rpn_conv_shared").strides != (1, 1):
        return rpn(feature_map)
    assert rows >= 3, "a strip without a row of its own"
    in_row, strips, bottom = width * rpn.get_layer("rpn_class_raw").filters // 2, [], 0
    while bottom < height:
        top = bottom
        first = max(top - 1, 0)
        last = min(first + rows, height)
        bottom = last if last == height else last - 1
        with kernels.after(strips[-1][0] if strips else after):
            seen = feature_map[:, first:last]
        outputs = rpn(seen)
        strips.append([output[:, (top - first) * in_row : (bottom - first) * in_row] for output in outputs])
    return [ops.concatenate(parts, axis=1) for parts in zip(*strips, strict=True)]


class Anchors(keras.layers.Layer):
    """Repeats constant anchors [anchors, (y1, x1, y2, x2)] (normalized) for every image of a batch."""

    def __init__(self, anchors, **kwargs):
        super().__init__(**kwargs)
        self.values = np.asarray(anchors, "float32")

    def call(self, images):
        return ops.broadcast_to(ops.convert_to_tensor(self.values), (ops.shape(images)[0], *self.values.shape))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *self.values.shape)
