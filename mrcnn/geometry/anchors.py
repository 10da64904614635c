"""Anchors: the boxes that the region proposal network refines (Faster R-CNN, section 3.1.1)."""

import math

import numpy as np


def backbone_shapes(image_shape, strides):
    """Computes the size of the feature map of each level.

    Args:
        image_shape: (height, width) or (height, width, channels), pixels.
        strides: N numbers, pixels of the image per pixel of the feature map.

    Returns:
        [N, (height, width)] int64.
    """
    return np.array([[math.ceil(side / stride) for side in image_shape[:2]] for stride in strides], np.int64)


def generate_anchors(scales, ratios, shape, feature_stride, anchor_stride):
    """Generates the anchors of one feature map.

    Centers lie on multiples of the stride, the first at (0, 0), so that anchors may reach over the image. The order is
    row, column, ratio, scale, the last one fastest.

    Args:
        scales: number or list of numbers, square roots of the anchors' areas, pixels of the image.
        ratios: list of numbers, width / height.
        shape: (height, width) of the feature map.
        feature_stride: pixels of the image per pixel of the feature map.
        anchor_stride: 2 puts anchors on every second pixel of the feature map.

    Returns:
        [height * width * ratios * scales, (y1, x1, y2, x2)] float64, pixels.

    Raises:
        ValueError: a scale, a ratio or a stride is not positive.
    """
    for name, value in (("scales", scales), ("ratios", ratios), ("feature_stride", feature_stride),
                        ("anchor_stride", anchor_stride)):
        if not (np.asarray(value) > 0).all():
            raise ValueError(f"{name} must be positive; received {value!r}")
    scales, ratios = np.meshgrid(np.asarray(scales, float), np.sqrt(np.asarray(ratios, float)))
    sizes = np.stack([scales / ratios, scales * ratios], axis=-1).reshape(-1, 2)

    rows, columns = (np.arange(0, side, anchor_stride) * feature_stride for side in shape[:2])
    centers = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 1, 2)
    return np.concatenate([centers - 0.5 * sizes, centers + 0.5 * sizes], axis=-1).reshape(-1, 4)


def generate_pyramid_anchors(scales, ratios, feature_shapes, feature_strides, anchor_stride):
    """Generates the anchors of all levels of a feature pyramid, one scale per level (FPN, section 4.1).

    Args:
        scales: one number, or list of numbers, per level.
        ratios: list of numbers, width / height.
        feature_shapes: [levels, (height, width)] int, see `backbone_shapes`.
        feature_strides: one number per level.
        anchor_stride: see `generate_anchors`.

    Returns:
        [anchors, (y1, x1, y2, x2)] float64, pixels; levels in the order of `scales`.

    Raises:
        ValueError: scales, shapes and strides differ in number.
    """
    if not len(scales) == len(feature_shapes) == len(feature_strides):
        raise ValueError(
            "scales, feature_shapes and feature_strides must hold one value per level; received "
            f"{len(scales)}, {len(feature_shapes)} and {len(feature_strides)}"
        )
    levels = zip(scales, feature_shapes, feature_strides, strict=True)
    return np.concatenate([
        generate_anchors(scale, ratios, shape, stride, anchor_stride) for scale, shape, stride in levels
    ])
