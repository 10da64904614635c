"""From class scores to final boxes (Mask R-CNN, section 3.1, inference)."""

from __future__ import annotations

import keras
from keras import ops

from mrcnn.network import kernels
from mrcnn.network.suppression import non_max_suppression
from mrcnn.network.tensors import apply_box_deltas, clip_boxes, constant, norm_boxes, parse_image_meta


def refine_detections(rois, probs, deltas, window, *, std_dev, min_confidence, nms_threshold, max_instances):
    """Names the class of every proposal, refines its box and thins the result per class.

    Args:
        rois: [batch, N, (y1, x1, y2, x2)] float, normalized.
        probs: [batch, N, classes] float.
        deltas: [batch, N, classes, (dy, dx, log(dh), log(dw))] float, in units of `std_dev`.
        window: [batch, (y1, x1, y2, x2)] float, normalized: the part of the image that is no padding.
        std_dev: [4] standard deviation of the deltas.
        min_confidence: lowest score that stays; 0 or None switches the test off.
        nms_threshold: IoU above which the lower of two boxes of one class falls.
        max_instances: detections per image.

    Returns:
        dict of class_ids int32 and class_scores [batch, N], refined_rois and clipped_rois [batch, N, 4], confident bool
        [batch, N] (foreground, above the threshold), keep int32 [batch, max_instances] (rows of N, best first, then -1)
        and detections [batch, max_instances, (y1, x1, y2, x2, class_id, score)], zero padded.
    """
    class_ids = ops.cast(ops.argmax(probs, axis=-1), "int32")
    class_scores = ops.max(probs, axis=-1)
    chosen = ops.take_along_axis(deltas, class_ids[:, :, None, None], axis=2)[:, :, 0]
    refined = apply_box_deltas(rois, chosen * constant(std_dev))
    clipped = clip_boxes(refined, window[:, None])
    confident = class_ids > 0
    if min_confidence:
        confident = ops.logical_and(confident, class_scores >= min_confidence)

    # one order by score serves all classes: boxes only suppress those of their own
    _, order = kernels.top_k(ops.where(confident, class_scores, -1.0), probs.shape[1])
    boxes, ids, scores = (kernels.gather_rows(x, order) for x in (clipped, class_ids, class_scores))
    survivors = non_max_suppression(
        boxes,
        max_instances,
        nms_threshold,
        groups=(ids, probs.shape[-1]),
        valid=kernels.gather_rows(confident, order),
    )
    at = ops.maximum(survivors, 0)
    found = survivors >= 0
    rows = [
        kernels.gather_rows(boxes, at),
        ops.cast(kernels.gather_rows(ids, at), "float32")[..., None],
        kernels.gather_rows(scores, at)[..., None],
    ]
    return {
        "class_ids": class_ids,
        "class_scores": class_scores,
        "refined_rois": refined,
        "clipped_rois": clipped,
        "confident": confident,
        "keep": ops.where(found, kernels.gather_rows(order, at), -1),
        "detections": ops.where(found[..., None], ops.concatenate(rows, axis=-1), 0.0),
    }


class DetectionLayer(keras.layers.Layer):
    """`refine_detections` as a layer.

    Args:
        std_dev, min_confidence, nms_threshold, max_instances: see `refine_detections`.

    Args (call):
        rois: [batch, N, (y1, x1, y2, x2)] float, normalized.
        mrcnn_class: [batch, N, classes] float.
        mrcnn_bbox: [batch, N, classes, (dy, dx, log(dh), log(dw))] float.
        image_meta: [batch, 12 + classes] float; windows are normalized by the first image's shape.

    Returns:
        [batch, max_instances, (y1, x1, y2, x2, class_id, score)] float, normalized, best first, zero padded.
    """

    step_names = ("class_ids", "class_scores", "refined_rois", "clipped_rois", "confident", "keep")

    def __init__(self, std_dev, min_confidence, nms_threshold, max_instances, **kwargs):
        super().__init__(**kwargs)
        self.settings = {
            "std_dev": std_dev,
            "min_confidence": min_confidence,
            "nms_threshold": nms_threshold,
            "max_instances": max_instances,
        }
        self.supports_jit = kernels.BACKEND != "tensorflow"

    def steps(self, rois, mrcnn_class, mrcnn_bbox, image_meta):
        """Every intermediate by name, see `refine_detections`."""
        meta = parse_image_meta(image_meta)
        window = norm_boxes(meta["window"], meta["image_shape"][0, :2])
        return refine_detections(rois, mrcnn_class, mrcnn_bbox, window, **self.settings)

    def call(self, inputs):
        return self.steps(*inputs)["detections"]

    def compute_output_shape(self, input_shape):
        return (input_shape[0][0], self.settings["max_instances"], 6)
