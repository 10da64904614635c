"""From anchors to proposals (Faster R-CNN, section 3.1)."""

from __future__ import annotations

import keras
from keras import ops

from mrcnn.network import kernels
from mrcnn.network.suppression import non_max_suppression
from mrcnn.network.tensors import apply_box_deltas, clip_boxes, constant


class ProposalLayer(keras.layers.Layer):
    """Selects the anchors worth a second look.

    The best `pre_nms_limit` anchors by foreground score are refined by their deltas, clipped to the image and thinned
    by non-maximum suppression.

    Args:
        proposal_count: proposals per image.
        nms_threshold: IoU above which the lower of two proposals falls.
        pre_nms_limit: anchors that are refined at most.
        std_dev: [4] standard deviation of the deltas.

    Args (call):
        rpn_probs: [batch, anchors, (bg, fg)] float.
        rpn_bbox: [batch, anchors, (dy, dx, log(dh), log(dw))] float, in units of `std_dev`.
        anchors: [batch, anchors, (y1, x1, y2, x2)] float, normalized.

    Returns:
        [batch, proposal_count, (y1, x1, y2, x2)] float, normalized, best first; rows of zeros fill the end.
    """

    step_names = ("pre_nms_anchors", "refined_anchors", "refined_anchors_clipped", "rpn_non_max_suppression")

    def __init__(self, proposal_count, nms_threshold, pre_nms_limit, std_dev, **kwargs):
        super().__init__(**kwargs)
        self.proposal_count = proposal_count
        self.nms_threshold = nms_threshold
        self.pre_nms_limit = pre_nms_limit
        self.std_dev = std_dev
        self.supports_jit = kernels.BACKEND != "tensorflow"

    def steps(self, rpn_probs, rpn_bbox, anchors):
        """Every intermediate by name: boxes [batch, limit, 4] before and after refining and clipping, kept indices."""
        limit = min(self.pre_nms_limit, anchors.shape[1] or self.pre_nms_limit)
        if anchors.shape[1] is None:
            limit = ops.minimum(limit, ops.shape(anchors)[1])
        _, best = kernels.top_k(ops.stop_gradient(rpn_probs[:, :, 1]), limit)
        pre_nms_anchors = kernels.gather_rows(anchors, best)
        refined = apply_box_deltas(pre_nms_anchors, kernels.gather_rows(rpn_bbox, best) * constant(self.std_dev))
        clipped = clip_boxes(refined, constant([0, 0, 1, 1]))
        keep = non_max_suppression(clipped, self.proposal_count, self.nms_threshold)
        return dict(zip(self.step_names, (pre_nms_anchors, refined, clipped, keep), strict=True))

    def call(self, inputs):
        steps = self.steps(*inputs)
        keep = steps["rpn_non_max_suppression"]
        proposals = kernels.gather_rows(steps["refined_anchors_clipped"], ops.maximum(keep, 0))
        return ops.where(keep[:, :, None] >= 0, proposals, 0.0)

    def compute_output_shape(self, input_shape):
        return (input_shape[0][0], self.proposal_count, 4)
