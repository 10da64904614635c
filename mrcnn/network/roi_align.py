"""Pooling of regions from the pyramid (Feature Pyramid Networks, section 4.2; Mask R-CNN, section 3)."""

from __future__ import annotations

import keras
from keras import ops

from mrcnn.network import cropping, kernels
from mrcnn.network.tensors import log2, parse_image_meta


def pyramid_levels(boxes, image_area):
    """Index 0..3 of the level P2..P5 for boxes [batch, N, 4] (normalized): a box of 224 x 224 pixels belongs to P4."""
    height = ops.maximum(boxes[..., 2] - boxes[..., 0], 0.0)
    width = ops.maximum(boxes[..., 3] - boxes[..., 1], 0.0)
    level = ops.round(log2(ops.sqrt(height * width) / (224.0 / ops.sqrt(image_area))))
    # boxes without area, the padding among them, give -inf, as does an image without size, which fills a batch up: the
    # clip takes them to P2 before the cast
    return ops.cast(ops.clip(level + 2.0, 0.0, 3.0), "int32")


class PyramidROIAlign(keras.layers.Layer):
    """Pools every box from the level that fits its size, one bilinear sample per bin.

    Args:
        pool_shape: (height, width) of the result.

    Args (call), a list:
        boxes: [batch, N, (y1, x1, y2, x2)] float, normalized; rows of zeros are padding.
        image_meta: [batch, 12 + classes] float; the first image's size serves the batch.
        feature maps: P2, P3, P4, P5, each [batch, h, w, channels] float.

    Returns:
        [batch, N, height, width, channels] float. No gradient reaches the boxes.
    """

    def __init__(self, pool_shape, **kwargs):
        super().__init__(**kwargs)
        self.pool_shape = tuple(int(side) for side in pool_shape)
        self.supports_jit = kernels.BACKEND != "tensorflow"

    def call(self, inputs):
        boxes, image_meta, *feature_maps = inputs
        boxes = ops.stop_gradient(boxes)
        image_shape = parse_image_meta(image_meta)["image_shape"][0]
        levels = pyramid_levels(boxes, ops.cast(image_shape[0] * image_shape[1], "float32"))
        return cropping.pyramid_crop(feature_maps, boxes, levels, self.pool_shape)

    def compute_output_shape(self, input_shape):
        return (*input_shape[0][:2], *self.pool_shape, input_shape[2][-1])


def crop_masks(masks, boxes, assignment, shape):
    """Crops ground truth masks to ROIs as targets of the mask head.

    Args:
        masks: [batch, h, w, M] bool or float.
        boxes: [batch, N, (y1, x1, y2, x2)] float, normalized to the mask.
        assignment: [batch, N] int, the mask of each box.
        shape: (height, width) of a target.

    Returns:
        [batch, N, height, width] float of zeros and ones (0.5 counts as 0, halves round to even).
    """
    planes = ops.transpose(ops.cast(masks, "float32"), (0, 3, 1, 2))
    crops = cropping.crop_planes(planes, boxes, assignment, tuple(shape))
    return ops.stop_gradient(ops.round(crops))
