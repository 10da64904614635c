"""Crops of feature maps and masks, resized to one shape: what needs speed or care per backend (see `kernels`)."""

from __future__ import annotations

import numpy as np
from keras import ops

from mrcnn.network import kernels
from mrcnn.network.kernels import BACKEND

if BACKEND == "tensorflow":
    import tensorflow as tf
elif BACKEND == "jax":
    import jax


def crop_and_resize(images, boxes, box_indices, crop_shape):
    """Bilinear samples on a grid whose corners lie on the box's corners; 0 outside the image. No gradient to boxes.

    Args:
        images: [K, H, W, channels] float.
        boxes: [R, (y1, x1, y2, x2)] float, normalized.
        box_indices: [R] int, the image of each box.
        crop_shape: static (height, width).

    Returns:
        [R, height, width, channels] float32.
    """
    boxes = ops.stop_gradient(boxes)
    if kernels.has_own_kernels():
        return tf.image.crop_and_resize(images, boxes, tf.cast(box_indices, "int32"), crop_shape)
    height, width, channels = images.shape[1:]
    table = ops.reshape(images, (-1, channels))
    zeros = ops.zeros_like(box_indices)
    return _sample(table, boxes, box_indices * (height * width), zeros + height, zeros + width, crop_shape)


def crop_planes(planes, boxes, assignment, crop_shape):
    """Crops one plane for each box, see `crop_and_resize`.

    Args:
        planes: [batch, M, h, w] float.
        boxes: [batch, N, (y1, x1, y2, x2)] float, normalized.
        assignment: [batch, N] int, the plane of each box.
        crop_shape: static (height, width).

    Returns:
        [batch, N, height, width] float32.
    """

    def crop(planes, boxes, rows):
        return crop_and_resize(planes[..., None], boxes, rows, crop_shape)[..., 0]

    if BACKEND == "jax":
        return kernels.per_image(crop)(planes, boxes, assignment)
    (batch, count), found = ops.shape(planes)[:2], ops.shape(boxes)[1]
    rows = ops.arange(batch, dtype="int32")[:, None] * count + assignment
    flat = ops.reshape(planes, (-1, *planes.shape[2:]))
    crops = crop(flat, ops.reshape(boxes, (-1, 4)), ops.reshape(rows, (-1,)))
    return ops.reshape(crops, (-1, found, *crop_shape))


def pyramid_crop(feature_maps, boxes, levels, crop_shape):
    """Crops each box from the feature map of its level.

    Args:
        feature_maps: list of [batch, H, W, channels] float.
        boxes: [batch, N, (y1, x1, y2, x2)] float, normalized.
        levels: [batch, N] int, index into `feature_maps`.
        crop_shape: static (height, width).

    Returns:
        [batch, N, height, width, channels] float32. Gradients reach the feature maps, not the boxes.
    """
    boxes = ops.stop_gradient(boxes)
    if BACKEND == "jax":
        return kernels.per_image(lambda maps, box, level: _pyramid_of_one(maps, box, level, crop_shape))(
            list(feature_maps), boxes, levels
        )
    shape = ops.shape(boxes)
    batch_ids = ops.repeat(ops.arange(shape[0], dtype="int32"), shape[1])
    flat_boxes = ops.reshape(boxes, (-1, 4))
    flat_levels = ops.reshape(levels, (-1,))
    crop = _pyramid_tensorflow if kernels.has_own_kernels() else _pyramid_gathered
    pooled = crop(feature_maps, flat_boxes, flat_levels, batch_ids, crop_shape)
    return ops.reshape(pooled, (-1, shape[1], *crop_shape, feature_maps[0].shape[-1]))


def _pyramid_of_one(maps, boxes, levels, crop_shape):
    """`_pyramid_gathered` for the maps [H, W, channels] of one image."""
    return _pyramid_gathered([fm[None] for fm in maps], boxes, levels, ops.zeros_like(levels), crop_shape)


def _pyramid_gathered(feature_maps, boxes, levels, batch_ids, crop_shape):
    """All levels as one table of pixels: every sample is a gather of four rows, shapes stay fixed."""
    sizes = np.array([fm.shape[1:3] for fm in feature_maps], "int32")
    starts = np.concatenate([[0], np.cumsum(sizes[:-1].prod(axis=1))]).astype("int32")  # of a batch of one
    table = ops.concatenate([ops.reshape(fm, (-1, fm.shape[-1])) for fm in feature_maps], axis=0)
    height, width = (ops.take(sizes[:, axis], levels) for axis in (0, 1))
    start = ops.take(starts, levels) * ops.shape(feature_maps[0])[0] + batch_ids * height * width
    return _sample(table, boxes, start, height, width, crop_shape)


def _sample(table, boxes, start, height, width, crop_shape):
    """Bilinear samples from images that lie in `table` [pixels, channels] from row `start` on."""
    top, bottom, dy, in_y = _grid(boxes[:, 0], boxes[:, 2], height, crop_shape[0])
    left, right, dx, in_x = _grid(boxes[:, 1], boxes[:, 3], width, crop_shape[1])

    def pixel(y, x):
        return ops.take(table, start[:, None, None] + y[:, :, None] * width[:, None, None] + x[:, None, :], axis=0)

    dx, dy = dx[:, None, :, None], dy[:, :, None, None]
    upper = pixel(top, left) * (1 - dx) + pixel(top, right) * dx
    lower = pixel(bottom, left) * (1 - dx) + pixel(bottom, right) * dx
    inside = ops.logical_and(in_y[:, :, None], in_x[:, None, :])[..., None]
    return ops.where(inside, upper * (1 - dy) + lower * dy, 0.0)


def _grid(low, high, size, count):
    """Sample positions along one axis: lower pixel, upper pixel, distance to the lower one, inside; each [R, count]."""
    last = ops.cast(size - 1, "float32")
    if count > 1:
        step = _quotient(_product(high - low, last), count - 1)
        offsets = _product(step[:, None], ops.arange(count, dtype="float32"))
        position = _product(low, last)[:, None] + offsets
    else:
        position = (0.5 * (low + high) * last)[:, None]
    last = ops.reshape(last, (-1, 1))  # one size for all boxes, or one each
    inside = ops.logical_and(position >= 0, position <= last)
    position = ops.clip(position, 0.0, last)
    lower = ops.floor(position)
    return ops.cast(lower, "int32"), ops.cast(ops.ceil(position), "int32"), position - lower, inside


def _product(x, small):
    """x * small, rounded once.

    Whether a sample falls outside is a matter of one ulp, and XLA likes to merge a product into the next addition
    without rounding it; from two exact halves (`small` has 12 bits at most) the sum is the same either way.
    """
    if not kernels.fixed_shapes():
        return x * small
    high = _bits(_bits(x, "uint32") & np.uint32(0xFFFFF000), "float32")
    return high * small + (x - high) * small


def _bits(x, dtype):
    """The same bits, read as another type."""
    return jax.lax.bitcast_convert_type(x, dtype) if BACKEND == "jax" else tf.bitcast(x, dtype)


def _quotient(x, number):
    """x / number, rounded once: XLA would multiply by the rounded inverse, if it could tell that this is a constant."""
    return x / (number + 0.0 * x if kernels.fixed_shapes() else number)


def _pyramid_tensorflow(feature_maps, boxes, levels, batch_ids, crop_shape):
    """TensorFlow's crop kernel per level.

    Its own gradient loses updates when threads meet at a pixel; here it is a segment sum, right on every run.
    """
    rows = [tf.cast(tf.where(levels == level)[:, 0], "int32") for level in range(len(feature_maps))]
    level_boxes = [tf.gather(boxes, r) for r in rows]
    level_images = [tf.gather(batch_ids, r) for r in rows]

    @tf.custom_gradient
    def crop(*maps):
        crops = [
            tf.image.crop_and_resize(fm, box, image, crop_shape)
            for fm, box, image in zip(maps, level_boxes, level_images, strict=True)
        ]

        def gradient(upstream):
            return [
                _crop_gradient(tf.gather(upstream, r), tf.shape(fm), box, image, crop_shape)
                for fm, r, box, image in zip(maps, rows, level_boxes, level_images, strict=True)
            ]

        return tf.dynamic_stitch(rows, crops), gradient

    return crop(*feature_maps)


def _crop_gradient(upstream, map_shape, boxes, image, crop_shape):
    """The transpose of `crop_and_resize`: spreads [R, h, w, C] over the pixels of [batch, H, W, C]."""
    height, width, channels = map_shape[1], map_shape[2], upstream.shape[-1]
    top, bottom, dy, _ = _grid(boxes[:, 0], boxes[:, 2], height, crop_shape[0])
    left, right, dx, _ = _grid(boxes[:, 1], boxes[:, 3], width, crop_shape[1])
    dx, dy = dx[:, None, :, None], dy[:, :, None, None]
    # Which samples lie outside is a matter of one ulp at the border, and TensorFlow may reorder the arithmetic of
    # `_grid`: the kernel itself tells what it has decided.
    inside = tf.image.crop_and_resize(tf.ones([1, height, width, 1]), boxes, tf.zeros_like(image), crop_shape)
    upstream = upstream * tf.round(inside)
    pixels, values = [], []
    for y, weight_y in ((top, 1 - dy), (bottom, dy)):
        for x, weight_x in ((left, 1 - dx), (right, dx)):
            pixels.append(image[:, None, None] * (height * width) + y[:, :, None] * width + x[:, None, :])
            values.append(upstream * weight_y * weight_x)
    total = tf.math.unsorted_segment_sum(
        tf.reshape(tf.stack(values), [-1, channels]),
        tf.reshape(tf.stack(pixels), [-1]),
        map_shape[0] * height * width,
    )
    return tf.reshape(total, map_shape)
