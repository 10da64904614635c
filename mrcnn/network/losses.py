"""The five losses (Faster R-CNN, section 3.1.2; Mask R-CNN, section 3).

Each is a mean over the whole batch of what counts, and 0 if nothing does. Where several replicas share a batch
(`kernels.replicas`) each returns its part of that mean: the sum over its own images, by the number in all images.
"""

from __future__ import annotations

import keras
from keras import ops

from mrcnn.network import kernels

LOSS_NAMES = ("rpn_class_loss", "rpn_bbox_loss", "mrcnn_class_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss")


def smooth_l1_loss(y_true, y_pred):
    """Quadratic below 1, linear above, elementwise; any two float tensors of one shape."""
    distance = ops.abs(y_true - y_pred)
    return ops.where(distance < 1.0, 0.5 * distance**2, distance - 0.5)


def _mean_where(mask, values):
    """Mean of `values` [..., k] over the entries where `mask` [...] holds (and over k); of it, this replica's part."""
    weights = ops.cast(mask, "float32")
    extra = len(values.shape) - len(mask.shape)
    per_entry = 1
    for side in values.shape[len(mask.shape) :]:
        per_entry *= side
    chosen = ops.where(ops.reshape(mask, (*ops.shape(mask), *(1,) * extra)), values, 0.0)
    return ops.sum(chosen) / (ops.maximum(kernels.total(ops.sum(weights)), 1.0) * per_entry)


def rpn_class_loss(rpn_match, rpn_class_logits):
    """Cross-entropy of all anchors that are not neutral.

    Args:
        rpn_match: [batch, anchors, 1] int: 1 positive, -1 negative, 0 neutral.
        rpn_class_logits: [batch, anchors, (bg, fg)] float.

    Returns:
        A float scalar.
    """
    match = rpn_match[..., 0]
    entropy = keras.losses.sparse_categorical_crossentropy(
        ops.cast(match == 1, "int32"), rpn_class_logits, from_logits=True
    )
    return _mean_where(match != 0, entropy)


def rpn_bbox_loss(target_bbox, rpn_match, rpn_bbox):
    """Smooth L1 of the deltas of positive anchors.

    Args:
        target_bbox: [batch, K, (dy, dx, log(dh), log(dw))] float: row i belongs to the i-th positive anchor of its
            image; the rest is padding.
        rpn_match: [batch, anchors, 1] int: 1 positive.
        rpn_bbox: [batch, anchors, 4] float.

    Returns:
        A float scalar.
    """
    positive = ops.cast(rpn_match[..., 0] == 1, "float32")
    rows = target_bbox.shape[1]
    if rpn_bbox.shape[1] is not None:
        rows = min(rows, rpn_bbox.shape[1])
    found, at = kernels.top_k(positive, rows)  # positives in their own order, then others
    return _mean_where(found > 0, smooth_l1_loss(target_bbox[:, :rows], kernels.gather_rows(rpn_bbox, at)))


def mrcnn_class_loss(target_class_ids, pred_class_logits, active_class_ids):
    """Cross-entropy of the ROIs whose predicted class belongs to their image's data set; zero rows count as background.

    Args:
        target_class_ids: [batch, N] int, zero padded.
        pred_class_logits: [batch, N, classes] float.
        active_class_ids: [batch, classes] int or float, 1 for the classes of the image's data set.

    Returns:
        A float scalar.
    """
    entropy = keras.losses.sparse_categorical_crossentropy(
        ops.cast(target_class_ids, "int32"), pred_class_logits, from_logits=True
    )
    predicted = ops.argmax(pred_class_logits, axis=-1)
    return _mean_where(ops.take_along_axis(active_class_ids, predicted, axis=-1) > 0, entropy)


def mrcnn_bbox_loss(target_bbox, target_class_ids, pred_bbox):
    """Smooth L1 of the true class's deltas, positive ROIs only.

    Args:
        target_bbox: [batch, N, (dy, dx, log(dh), log(dw))] float.
        target_class_ids: [batch, N] int, 0 for background and padding.
        pred_bbox: [batch, N, classes, 4] float.

    Returns:
        A float scalar.
    """
    ids = ops.cast(target_class_ids, "int32")
    predicted = ops.take_along_axis(pred_bbox, ids[:, :, None, None], axis=2)[:, :, 0]
    return _mean_where(ids > 0, smooth_l1_loss(target_bbox, predicted))


def mrcnn_mask_loss(target_masks, target_class_ids, pred_masks):
    """Binary cross-entropy of the true class's mask, positive ROIs only.

    Args:
        target_masks: [batch, N, h, w] float of zeros and ones.
        target_class_ids: [batch, N] int, 0 for background and padding.
        pred_masks: [batch, N, h, w, classes] float, probabilities.

    Returns:
        A float scalar.
    """
    ids = ops.cast(target_class_ids, "int32")
    predicted = ops.take_along_axis(pred_masks, ids[:, :, None, None, None], axis=4)
    # written out, because torch's own refuses NaN before anyone can say which images it came from
    probability = ops.clip(predicted[..., 0], 1e-7, 1.0 - 1e-7)
    entropy = -(target_masks * ops.log(probability) + (1.0 - target_masks) * ops.log(1.0 - probability))
    return _mean_where(ids > 0, entropy)


class Loss(keras.layers.Layer):
    """A loss function as a layer, so that it has a name in the model; returns shape [1]."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function
        self.supports_jit = kernels.BACKEND != "tensorflow"

    def call(self, inputs):
        return ops.reshape(self.function(*inputs), (1,))

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((1,), "float32")
