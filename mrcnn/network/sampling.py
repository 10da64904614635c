"""Which proposals train the heads, and on what (Mask R-CNN, section 3.1)."""

from __future__ import annotations

import keras
from keras import ops

from mrcnn.network import kernels
from mrcnn.network.roi_align import crop_masks
from mrcnn.network.tensors import box_refinement, constant, nonzero_rows, overlaps

POSITIVE_IOU = 0.5
CROWD_IOU = 0.001


def match_proposals(proposals, gt_class_ids, gt_boxes):
    """Compares proposals with ground truth, crowds (negative class ids) aside.

    Args:
        proposals: [batch, N, (y1, x1, y2, x2)] float, normalized, zero padded.
        gt_class_ids: [batch, M] int.
        gt_boxes: [batch, M, (y1, x1, y2, x2)] float, normalized, zero padded.

    Returns:
        positive and negative, bool [batch, N], and int [batch, N], the ground truth that each proposal overlaps most.
    """
    real_box = nonzero_rows(gt_boxes)
    crowd = ops.logical_and(gt_class_ids < 0, real_box)
    single = ops.logical_and(gt_class_ids > 0, real_box)
    iou = overlaps(proposals, gt_boxes)
    single_iou = ops.where(single[:, None, :], iou, -1.0)
    best_iou = ops.max(single_iou, axis=-1)
    near_crowd = ops.max(ops.where(crowd[:, None, :], iou, 0.0), axis=-1) >= CROWD_IOU
    real = nonzero_rows(proposals)
    positive = ops.logical_and(real, best_iou >= POSITIVE_IOU)
    negative = ops.logical_and(ops.logical_and(real, best_iou < POSITIVE_IOU), ops.logical_not(near_crowd))
    return positive, negative, ops.cast(ops.argmax(single_iou, axis=-1), "int32")


def draw(candidates, count, seed):
    """A random choice of at most `count` candidates: bool [batch, N] -> indices and validity, each [batch, count]."""
    keys = kernels.uniform(ops.shape(candidates), seed)
    available = min(count, candidates.shape[1])
    found, indices = kernels.top_k(ops.where(candidates, keys, -1.0), available)
    padding = ((0, 0), (0, count - available))
    return ops.pad(indices, padding), ops.pad(found, padding, constant_values=-1.0) >= 0


def relative_to_boxes(rois, boxes):
    """ROIs in the coordinates of other boxes, in which the mini masks lie; both [batch, N, 4] normalized."""
    origin = ops.concatenate([boxes[..., :2], boxes[..., :2]], axis=-1)
    size = boxes[..., 2:] - boxes[..., :2]
    size = ops.where(size > 0, size, 1.0)  # a box without area has no coordinates, and must not bring NaN either
    return (rois - origin) / ops.concatenate([size, size], axis=-1)


def detection_targets(
    proposals, gt_class_ids, gt_boxes, gt_masks, *, count, positive_ratio, std_dev, mask_shape, mini_masks, seed=None,
    negatives_alone=False,
):  # fmt: skip
    """Draws the ROIs that train the heads and makes their targets.

    At most `count * positive_ratio` proposals with an IoU of 0.5 or more are taken, and negatives in proportion to the
    positives found: without a positive the image trains no ROI, or negatives alone where that is wanted. Gradients flow
    from the deltas into the proposals, as they did in the original.

    Args:
        proposals: [batch, N, (y1, x1, y2, x2)] float, normalized, zero padded.
        gt_class_ids: [batch, M] int, negative for crowds, 0 for padding.
        gt_boxes: [batch, M, (y1, x1, y2, x2)] float, normalized, zero padded.
        gt_masks: [batch, h, w, M] bool, of the whole image or, with `mini_masks`, of the box.
        count: ROIs per image.
        positive_ratio: largest share of positives.
        std_dev: [4] by which the deltas are divided.
        mask_shape: (height, width) of a target mask.
        mini_masks: whether `gt_masks` are limited to their boxes.
        seed: int or keras.random.SeedGenerator.
        negatives_alone: whether an image without a positive trains `count` negatives instead of nothing.

    Returns:
        rois [batch, count, 4] normalized, class_ids int32 [batch, count], deltas [batch, count, 4] and masks
        [batch, count, height, width]: positives first, then negatives, then rows of zeros.
    """
    positive, negative, assignment = match_proposals(proposals, gt_class_ids, gt_boxes)
    quota = int(count * positive_ratio)
    positive_at, is_positive = draw(positive, quota, seed)
    negative_at, is_candidate = draw(negative, count, seed)
    alone = count if negatives_alone else 0
    rois = _arrange(proposals, positive_at, is_positive, negative_at, is_candidate, positive_ratio, alone)

    # targets exist for the first `quota` rows only; the rest is background or padding
    assigned = kernels.gather_rows(assignment, positive_at)
    unit = constant([0, 0, 1, 1])  # padding has no logarithm of its sides
    matched = ops.where(is_positive[..., None], kernels.gather_rows(gt_boxes, assigned), unit)
    positives = ops.where(is_positive[..., None], rois[:, :quota], unit)
    deltas = box_refinement(positives, matched) / constant(std_dev)
    frames = relative_to_boxes(positives, matched) if mini_masks else positives
    masks = crop_masks(gt_masks, ops.stop_gradient(frames), assigned, mask_shape)
    class_ids = ops.cast(kernels.gather_rows(gt_class_ids, assigned), "int32")

    def complete(values):
        real = ops.reshape(is_positive, (-1, quota, *(1,) * (len(values.shape) - 2)))
        values = ops.where(real, values, ops.zeros_like(values))
        return ops.pad(values, [(0, 0), (0, count - quota)] + [(0, 0)] * (len(values.shape) - 2))

    return rois, complete(class_ids), complete(deltas), complete(masks)


def _arrange(proposals, positive_at, is_positive, negative_at, is_candidate, positive_ratio, alone):
    """Positives, so many negatives that the ratio holds (without positives: `alone`), then zeros: [batch, count, 4]."""
    quota, count = positive_at.shape[1], negative_at.shape[1]
    positives = ops.sum(ops.cast(is_positive, "int32"), axis=1, keepdims=True)
    wanted = ops.cast(ops.cast(positives, "float32") * (1.0 / positive_ratio), "int32") - positives
    if alone:
        wanted = ops.where(positives > 0, wanted, alone)
    slot = ops.arange(count, dtype="int32")[None]
    negatives = ops.sum(ops.cast(ops.logical_and(slot < wanted, is_candidate), "int32"), axis=1, keepdims=True)
    both = ops.concatenate([positive_at, negative_at], axis=1)
    first, second = ops.minimum(slot, max(quota - 1, 0)), slot - positives + quota
    source = kernels.gather_rows(both, ops.where(slot < positives, first, second))
    return ops.where((slot < positives + negatives)[..., None], kernels.gather_rows(proposals, source), 0.0)


class DetectionTargetLayer(keras.layers.Layer):
    """`detection_targets` as a layer that draws anew at every call.

    Args:
        count, positive_ratio, std_dev, mask_shape, mini_masks, negatives_alone: see `detection_targets`.
        seed: int or None.

    Args (call): [proposals, gt_class_ids, gt_boxes, gt_masks]; the result is (rois, class_ids, deltas, masks).
    """

    def __init__(
        self, count, positive_ratio, std_dev, mask_shape, mini_masks, seed=None, negatives_alone=False, **kwargs
    ):
        super().__init__(**kwargs)
        self.settings = {
            "count": count,
            "positive_ratio": positive_ratio,
            "std_dev": std_dev,
            "mask_shape": tuple(mask_shape),
            "mini_masks": mini_masks,
            "negatives_alone": negatives_alone,
        }
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_jit = kernels.BACKEND != "tensorflow"

    def call(self, inputs):
        return detection_targets(*inputs, **self.settings, seed=self.seed_generator)

    def compute_output_shape(self, input_shape):
        batch, count = input_shape[0][0], self.settings["count"]
        return [(batch, count, 4), (batch, count), (batch, count, 4), (batch, count, *self.settings["mask_shape"])]

    def compute_output_spec(self, inputs):
        shapes = self.compute_output_shape([x.shape for x in inputs])
        dtypes = ("float32", "int32", "float32", "float32")
        return tuple(keras.KerasTensor(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True))

    def compute_mask(self, inputs, mask=None):
        return [None, None, None, None]


class Positives(keras.layers.Layer):
    """The first rows of what `detection_targets` returns, in which all positive ROIs are.

    Args:
        quota: number of rows that positives may fill; None keeps all rows.

    Args (call): [rois, class_ids, masks], each [batch, N, ...]; the result has the same with fewer rows: `quota`, or
        where shapes may vary as many as the image with most positives has, 1 at least.
    """

    def __init__(self, quota, **kwargs):
        super().__init__(**kwargs)
        self.quota = None if quota is None else max(quota, 1)

    def call(self, inputs):
        if self.quota is None:
            return inputs
        count = self.quota
        if not kernels.fixed_shapes():
            positives = ops.sum(ops.cast(inputs[1] > 0, "int32"), axis=1)
            count = ops.clip(ops.max(positives), 1, self.quota)
        return [x[:, :count] for x in inputs]

    def compute_output_spec(self, inputs):
        if self.quota is None:
            return [keras.KerasTensor(x.shape, x.dtype) for x in inputs]
        rows = self.quota if kernels.fixed_shapes() else None
        return [keras.KerasTensor((x.shape[0], rows, *x.shape[2:]), x.dtype) for x in inputs]


class ZerosBelow(keras.layers.Layer):
    """Adds rows of zeros: [batch, fewer, ...] -> [batch, count, ...]."""

    def __init__(self, count, **kwargs):
        super().__init__(**kwargs)
        self.count = count

    def call(self, x):
        rows = ops.shape(x)[1]
        padded = ops.pad(x, [(0, 0), (0, self.count - rows)] + [(0, 0)] * (len(x.shape) - 2))
        return ops.reshape(padded, (-1, self.count, *x.shape[2:]))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.count, *input_shape[2:])
