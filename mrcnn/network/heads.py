"""The heads on pooled regions: class and box (Fast R-CNN), and mask (Mask R-CNN, section 3, figure 4)."""

from __future__ import annotations

import math

from keras import layers

from mrcnn.network.layers import EXACT, BatchNorm, ROIConv2D, ROIConv2DTranspose
from mrcnn.network.roi_align import PyramidROIAlign


def fpn_classifier_graph(
    rois, feature_maps, image_meta, pool_size, num_classes, train_bn=True, fc_layers_size=1024
):
    """Class and box refinement of every ROI.

    Args:
        rois: [batch, N, (y1, x1, y2, x2)] float, normalized.
        feature_maps: [P2, P3, P4, P5], each [batch, h, w, channels] float.
        image_meta: [batch, 12 + classes] float.
        pool_size: side of the pooled features.
        num_classes: classes, background included.
        train_bn: False, None or True, see `BatchNorm`.
        fc_layers_size: width of the two fully connected layers.

    Returns:
        logits [batch, N, classes], probabilities [batch, N, classes] and deltas
        [batch, N, classes, (dy, dx, log(dh), log(dw))] in units of the deltas' standard deviation.
    """
    align = PyramidROIAlign([pool_size, pool_size], name="roi_align_classifier", dtype=EXACT)
    x = align([rois, image_meta, *feature_maps])
    for index, size in ((1, pool_size), (2, 1)):
        # a convolution as large as its input is a fully connected layer
        x = ROIConv2D(fc_layers_size, (size, size), padding="valid", name=f"mrcnn_class_conv{index}")(x)
        x = layers.Activation("relu")(BatchNorm(name=f"mrcnn_class_bn{index}")(x, training=train_bn))
    shared = layers.Reshape((-1, fc_layers_size), name="pool_squeeze")(x)
    logits = layers.Dense(num_classes, name="mrcnn_class_logits", dtype=EXACT)(shared)
    probs = layers.Activation("softmax", name="mrcnn_class", dtype=EXACT)(logits)
    deltas = layers.Dense(4 * num_classes, name="mrcnn_bbox_fc", dtype=EXACT)(shared)
    return logits, probs, layers.Reshape((-1, num_classes, 4), name="mrcnn_bbox", dtype=EXACT)(deltas)


def mask_upsampling(pool_size, mask_shape):
    """How often the mask head doubles its side from `pool_size` to `mask_shape` (height, width).

    Raises:
        ValueError: the shape is no square of `pool_size` times 2, 4, 8, ...
    """
    times = math.log2(mask_shape[0] / pool_size) if mask_shape[0] > 0 else 0
    if tuple(mask_shape) != (mask_shape[0],) * 2 or times < 1 or times != int(times):
        raise ValueError(
            "MASK_SHAPE must be MASK_POOL_SIZE times 2, 4, 8, ... on both sides; received "
            f"MASK_SHAPE={list(mask_shape)} with MASK_POOL_SIZE={pool_size}; {[2 * pool_size] * 2} would do."
        )
    return int(times)


def build_fpn_mask_graph(
    rois, feature_maps, image_meta, pool_size, num_classes, train_bn=True, channels=256, upsampling=1
):
    """A mask of every ROI for every class.

    Args:
        rois, feature_maps, image_meta, num_classes, train_bn: as `fpn_classifier_graph`.
        pool_size: side of the pooled features.
        channels: width of the head.
        upsampling: number of transposed convolutions; each doubles the side of the mask.

    Returns:
        [batch, N, side, side, classes] float, probabilities; side = pool_size * 2 ** upsampling.
    """
    x = PyramidROIAlign([pool_size, pool_size], name="roi_align_mask", dtype=EXACT)([rois, image_meta, *feature_maps])
    for index in (1, 2, 3, 4):
        x = ROIConv2D(channels, (3, 3), padding="same", name=f"mrcnn_mask_conv{index}")(x)
        x = layers.Activation("relu")(BatchNorm(name=f"mrcnn_mask_bn{index}")(x, training=train_bn))
    for index in range(upsampling):
        name = "mrcnn_mask_deconv" + (str(index + 1) if index else "")
        x = ROIConv2DTranspose(channels, (2, 2), strides=2, activation="relu", name=name)(x)
    return ROIConv2D(num_classes, (1, 1), activation="sigmoid", name="mrcnn_mask", dtype=EXACT)(x)
