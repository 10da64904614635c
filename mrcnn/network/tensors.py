"""Boxes and image metas as tensors: the same arithmetic as `geometry.boxes`, over any leading axes."""

from __future__ import annotations

import numpy as np
from keras import ops

from mrcnn.geometry import boxes as pixel_boxes

MAX_LOG_RATIO = float(pixel_boxes.MAX_LOG_RATIO)  # a numpy scalar would turn the graph into float64


def constant(values):
    """A float32 tensor; torch does not multiply arrays with tensors that have a gradient."""
    return ops.convert_to_tensor(np.asarray(values, "float32"))


def log2(x):
    """Logarithm to base 2 of a float tensor."""
    return ops.log(x) / float(np.log(2.0))


def apply_box_deltas(boxes, deltas):
    """Moves and scales boxes by deltas (R-CNN, appendix C).

    Args:
        boxes: [..., (y1, x1, y2, x2)] float.
        deltas: [..., (dy, dx, log(dh), log(dw))] float; the logarithms are limited to log(1000 / 16).

    Returns:
        [..., (y1, x1, y2, x2)] float.
    """
    height, width = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    center_y = boxes[..., 0] + 0.5 * height + deltas[..., 0] * height
    center_x = boxes[..., 1] + 0.5 * width + deltas[..., 1] * width
    height = height * ops.exp(ops.minimum(deltas[..., 2], MAX_LOG_RATIO))
    width = width * ops.exp(ops.minimum(deltas[..., 3], MAX_LOG_RATIO))
    y1, x1 = center_y - 0.5 * height, center_x - 0.5 * width
    return ops.stack([y1, x1, y1 + height, x1 + width], axis=-1)


def clip_boxes(boxes, window):
    """Moves the corners of boxes [..., 4] into a window that broadcasts against them, (y1, x1, y2, x2)."""
    low, high = window[..., :2], window[..., 2:]
    low, high = ops.concatenate([low, low], axis=-1), ops.concatenate([high, high], axis=-1)
    return ops.maximum(ops.minimum(boxes, high), low)


def box_refinement(box, gt_box):
    """The deltas that turn `box` into `gt_box`; both [..., (y1, x1, y2, x2)] float.

    Returns:
        [..., (dy, dx, log(dh), log(dw))] float; zeros where one of the two has no height or no width.
    """
    box, gt_box = _with_area(ops.cast(box, "float32"), ops.cast(gt_box, "float32"))
    height, width = box[..., 2] - box[..., 0], box[..., 3] - box[..., 1]
    gt_height, gt_width = gt_box[..., 2] - gt_box[..., 0], gt_box[..., 3] - gt_box[..., 1]
    dy = (gt_box[..., 0] + 0.5 * gt_height - (box[..., 0] + 0.5 * height)) / height
    dx = (gt_box[..., 1] + 0.5 * gt_width - (box[..., 1] + 0.5 * width)) / width
    return ops.stack([dy, dx, ops.log(gt_height / height), ops.log(gt_width / width)], axis=-1)


def _with_area(box, gt_box):
    """Both, [..., 4] float, with the unit box in the place of pairs of which one has no height or no width."""
    sides = ops.concatenate([box[..., 2:] - box[..., :2], gt_box[..., 2:] - gt_box[..., :2]], axis=-1)
    has_area, unit = ops.all(sides > 0, axis=-1, keepdims=True), constant([0, 0, 1, 1])
    return ops.where(has_area, box, unit), ops.where(has_area, gt_box, unit)


def iou(a, b):
    """IoU of boxes [..., (y1, x1, y2, x2)] that broadcast against each other; 0 where the union is empty."""
    height = ops.minimum(a[..., 2], b[..., 2]) - ops.maximum(a[..., 0], b[..., 0])
    width = ops.minimum(a[..., 3], b[..., 3]) - ops.maximum(a[..., 1], b[..., 1])
    intersection = ops.maximum(height, 0.0) * ops.maximum(width, 0.0)
    area_a = (a[..., 2] - a[..., 0]) * (a[..., 3] - a[..., 1])
    area_b = (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])
    union = area_a + area_b - intersection
    return ops.where(union > 0, intersection / ops.where(union > 0, union, 1.0), 0.0)


def overlaps(boxes1, boxes2):
    """IoU of every pair: [..., N, 4] and [..., M, 4] -> [..., N, M]."""
    return iou(boxes1[..., :, None, :], boxes2[..., None, :, :])


def _span(shape):
    """(h-1, w-1, h-1, w-1) of an image shape, and the shift of the far corner."""
    height, width = ops.cast(shape[0], "float32"), ops.cast(shape[1], "float32")
    scale = ops.stack([height, width, height, width]) - 1.0
    return scale, constant([0, 0, 1, 1])


def norm_boxes(boxes, shape):
    """Pixels to normalized coordinates.

    Args:
        boxes: [..., (y1, x1, y2, x2)] in pixels; y2, x2 are outside the box.
        shape: (height, width) in pixels, numbers or an int tensor.

    Returns:
        [..., (y1, x1, y2, x2)] float32, normalized.
    """
    scale, shift = _span(shape)
    return (ops.cast(boxes, "float32") - shift) / ops.maximum(scale, 1.0)  # an image may be one pixel high or wide


def denorm_boxes(boxes, shape):
    """Normalized coordinates to whole pixels (half to even), int32; the inverse of `norm_boxes`."""
    scale, shift = _span(shape)
    return ops.cast(ops.round(boxes * scale + shift), "int32")


def nonzero_rows(boxes):
    """bool [..., N]: rows of boxes [..., N, 4] that are not padding."""
    return ops.sum(ops.abs(boxes), axis=-1) > 0


def trim_zeros(boxes, name="trim_zeros"):
    """Drops the padding rows of one image's boxes.

    Args:
        boxes: [N, 4] float.
        name: kept for the original's callers; not used.

    Returns:
        boxes [M, 4] without the rows of zeros, and bool [N] that tells which rows stayed.
    """
    keep = nonzero_rows(boxes)
    return ops.take(boxes, ops.nonzero(keep)[0], axis=0), keep


def batch_pack(x, counts, num_rows):
    """Joins the first `counts[i]` rows of each of the first `num_rows` batch entries of x [batch, N, ...]."""
    rows = ops.shape(x)[1]
    x, counts = x[:num_rows], counts[:num_rows]
    taken = ops.reshape(ops.arange(rows)[None] < ops.cast(counts, "int32")[:, None], (-1,))
    return ops.take(ops.reshape(x, (-1, *x.shape[2:])), ops.nonzero(taken)[0], axis=0)


def parse_image_meta(meta):
    """Splits image metas [batch, 12 + classes] into their named parts (all of the meta's dtype).

    Returns:
        dict of image_id [batch], original_image_shape [batch, 3], image_shape [batch, 3], window [batch, 4] in pixels,
        scale [batch], active_class_ids [batch, classes].
    """
    return {
        "image_id": meta[:, 0],
        "original_image_shape": meta[:, 1:4],
        "image_shape": meta[:, 4:7],
        "window": meta[:, 7:11],
        "scale": meta[:, 11],
        "active_class_ids": meta[:, 12:],
    }
