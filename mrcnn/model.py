"""Mask R-CNN, under the names that it always had: class MaskRCNN, the layers, the losses and the data generator.

The work is done in `mrcnn.network`, one file per stage, and in `mrcnn.engine`. Where a function takes a `config` here,
it takes values there. Names that end in `_graph` work on tensors of the Keras backend.
"""

import numpy as np

import mrcnn.engine.requirements  # noqa: F401 - before the imports that need a new Keras
from mrcnn import utils
from mrcnn.config import Config
from mrcnn.data import targets as _targets
from mrcnn.data.loader import DataGenerator, compute_backbone_shapes, config_grid, data_generator, load_image_gt
from mrcnn.engine.inspect import log
from mrcnn.engine.mask_rcnn import MaskRCNN
from mrcnn.geometry import images as _images
from mrcnn.geometry.images import compose_image_meta, parse_image_meta
from mrcnn.network import detection as _detection
from mrcnn.network import proposals as _proposals
from mrcnn.network import sampling as _sampling
from mrcnn.network.backbone import conv_block, identity_block, resnet_graph
from mrcnn.network.heads import build_fpn_mask_graph, fpn_classifier_graph
from mrcnn.network.kernels import enable_memory_growth
from mrcnn.network.layers import BatchNorm
from mrcnn.network.losses import mrcnn_bbox_loss as mrcnn_bbox_loss_graph
from mrcnn.network.losses import mrcnn_class_loss as mrcnn_class_loss_graph
from mrcnn.network.losses import mrcnn_mask_loss as mrcnn_mask_loss_graph
from mrcnn.network.losses import rpn_bbox_loss, smooth_l1_loss
from mrcnn.network.losses import rpn_class_loss as rpn_class_loss_graph
from mrcnn.network.roi_align import PyramidROIAlign
from mrcnn.network.rpn import build_rpn_model, rpn_graph
from mrcnn.network.tensors import apply_box_deltas as apply_box_deltas_graph
from mrcnn.network.tensors import batch_pack as batch_pack_graph
from mrcnn.network.tensors import clip_boxes as clip_boxes_graph
from mrcnn.network.tensors import denorm_boxes as denorm_boxes_graph
from mrcnn.network.tensors import log2 as log2_graph
from mrcnn.network.tensors import norm_boxes as norm_boxes_graph
from mrcnn.network.tensors import overlaps as overlaps_graph
from mrcnn.network.tensors import parse_image_meta as parse_image_meta_graph
from mrcnn.network.tensors import trim_zeros as trim_zeros_graph

__all__ = [
    "BatchNorm",
    "DataGenerator",
    "DetectionLayer",
    "DetectionTargetLayer",
    "MaskRCNN",
    "ProposalLayer",
    "PyramidROIAlign",
    "apply_box_deltas_graph",
    "batch_pack_graph",
    "build_detection_targets",
    "build_fpn_mask_graph",
    "build_rpn_model",
    "build_rpn_targets",
    "clip_boxes_graph",
    "compose_image_meta",
    "compute_backbone_shapes",
    "conv_block",
    "data_generator",
    "denorm_boxes_graph",
    "detection_targets_graph",
    "enable_memory_growth",
    "fpn_classifier_graph",
    "generate_random_rois",
    "identity_block",
    "load_image_gt",
    "log",
    "log2_graph",
    "mold_image",
    "mrcnn_bbox_loss_graph",
    "mrcnn_class_loss_graph",
    "mrcnn_mask_loss_graph",
    "norm_boxes_graph",
    "overlaps_graph",
    "parse_image_meta",
    "parse_image_meta_graph",
    "refine_detections_graph",
    "resnet_graph",
    "rpn_bbox_loss_graph",
    "rpn_class_loss_graph",
    "rpn_graph",
    "smooth_l1_loss",
    "trim_zeros_graph",
    "unmold_image",
    "utils",
]


# ---- network


class ProposalLayer(_proposals.ProposalLayer):
    """`mrcnn.network.proposals.ProposalLayer` with PRE_NMS_LIMIT and RPN_BBOX_STD_DEV of a config (or the defaults).

    Args:
        proposal_count: proposals per image.
        nms_threshold: IoU above which the lower of two proposals falls.
        config: Config.
    """

    def __init__(self, proposal_count, nms_threshold, config=None, **kwargs):
        config = config or Config()
        super().__init__(proposal_count, nms_threshold, config.PRE_NMS_LIMIT, config.RPN_BBOX_STD_DEV, **kwargs)


def _target_settings(config):
    return {
        "count": config.TRAIN_ROIS_PER_IMAGE,
        "positive_ratio": config.ROI_POSITIVE_RATIO,
        "std_dev": config.BBOX_STD_DEV,
        "mask_shape": tuple(config.MASK_SHAPE),
        "mini_masks": config.USE_MINI_MASK,
        "seed": config.SEED,
        "negatives_alone": config.USE_EMPTY_IMAGES,
    }


def detection_targets_graph(proposals, gt_class_ids, gt_boxes, gt_masks, config):
    """Draws the ROIs of one image that train the heads, and makes their targets (Mask R-CNN, section 3.1).

    Args:
        proposals: [N, (y1, x1, y2, x2)] float, normalized, zero padded.
        gt_class_ids: [M] int, negative for crowds.
        gt_boxes: [M, (y1, x1, y2, x2)] float, normalized, zero padded.
        gt_masks: [h, w, M] bool, mini masks where the config says so.
        config: Config.

    Returns:
        rois [TRAIN_ROIS_PER_IMAGE, 4], class_ids, deltas and masks: positives, negatives, then rows of zeros.
    """
    batch = [x[None] for x in (proposals, gt_class_ids, gt_boxes, gt_masks)]
    return [x[0] for x in _sampling.detection_targets(*batch, **_target_settings(config))]


class DetectionTargetLayer(_sampling.DetectionTargetLayer):
    """`mrcnn.network.sampling.DetectionTargetLayer` with the settings of a config."""

    def __init__(self, config, **kwargs):
        super().__init__(**_target_settings(config), **kwargs)


def _detection_settings(config):
    return {
        "std_dev": config.BBOX_STD_DEV,
        "min_confidence": config.DETECTION_MIN_CONFIDENCE,
        "nms_threshold": config.DETECTION_NMS_THRESHOLD,
        "max_instances": config.DETECTION_MAX_INSTANCES,
    }


def refine_detections_graph(rois, probs, deltas, window, config):
    """Names the class of every proposal of one image, refines its box and thins the result per class.

    Args:
        rois: [N, (y1, x1, y2, x2)] float, normalized.
        probs: [N, classes] float.
        deltas: [N, classes, (dy, dx, log(dh), log(dw))] float, in units of BBOX_STD_DEV.
        window: (y1, x1, y2, x2) float, normalized: the part of the image that is no padding.
        config: Config.

    Returns:
        [DETECTION_MAX_INSTANCES, (y1, x1, y2, x2, class_id, score)] float, normalized, best first, zero padded.
    """
    batch = [x[None] for x in (rois, probs, deltas, window)]
    return _detection.refine_detections(*batch, **_detection_settings(config))["detections"][0]


class DetectionLayer(_detection.DetectionLayer):
    """`mrcnn.network.detection.DetectionLayer` with the settings of a config (or the defaults)."""

    def __init__(self, config=None, **kwargs):
        super().__init__(**_detection_settings(config or Config()), **kwargs)


def rpn_bbox_loss_graph(config, target_bbox, rpn_match, rpn_bbox):
    """`mrcnn.network.losses.rpn_bbox_loss`; `config` is not used, any batch size goes."""
    return rpn_bbox_loss(target_bbox, rpn_match, rpn_bbox)


# ---- data


def build_rpn_targets(image_shape, anchors, gt_class_ids, gt_boxes, config):
    """Matches anchors with objects and says how each matched anchor should move (Faster R-CNN, section 3.1.2).

    Args:
        image_shape: [H, W, channels]; not used.
        anchors: [anchors, (y1, x1, y2, x2)] number, pixels.
        gt_class_ids: [N] int, negative for crowds.
        gt_boxes: [N, (y1, x1, y2, x2)] int, pixels.
        config: Config.

    Returns:
        rpn_match: [anchors] int32, 1 positive, -1 negative, 0 neutral.
        rpn_bbox: [RPN_TRAIN_ANCHORS_PER_IMAGE, (dy, dx, log(dh), log(dw))] float64, for the positive anchors in order.
    """
    return _targets.build_rpn_targets(
        image_shape, _grid_or_array(anchors, config), gt_class_ids, gt_boxes, config.RPN_TRAIN_ANCHORS_PER_IMAGE,
        config.RPN_BBOX_STD_DEV,
    )  # fmt: skip


def _grid_or_array(anchors, config):
    """The `AnchorGrid` of the config if these are its anchors, else the anchors: targets for a grid come much faster.

    The grid stays in memory for the next call; anchors of any other making are compared one by one.
    """
    anchors = np.asarray(anchors)
    try:
        grid = config_grid(config, config.IMAGE_SHAPE)
    except (TypeError, ValueError):  # settings for anchors that fit no model, which are nobody's concern here
        return anchors
    return grid if anchors.dtype == np.float64 and np.array_equal(anchors, grid.anchors) else anchors


def build_detection_targets(rpn_rois, gt_class_ids, gt_boxes, gt_masks, config):
    """Picks regions to train the heads on, and their targets, without the network.

    Args:
        rpn_rois: [N, (y1, x1, y2, x2)] int, pixels.
        gt_class_ids: [instances] int.
        gt_boxes: [instances, (y1, x1, y2, x2)] int, pixels.
        gt_masks: [H, W, instances] bool, mini masks where the config says so.
        config: Config.

    Returns:
        rois [TRAIN_ROIS_PER_IMAGE, 4] int32 in pixels, class_ids, bboxes [TRAIN_ROIS_PER_IMAGE, classes, 4] and masks
        [TRAIN_ROIS_PER_IMAGE, height, width, classes].

    Raises:
        ValueError: there are no regions or no objects.
    """
    return _targets.build_detection_targets(
        rpn_rois, gt_class_ids, gt_boxes, gt_masks, config.NUM_CLASSES, config.TRAIN_ROIS_PER_IMAGE,
        config.ROI_POSITIVE_RATIO, config.BBOX_STD_DEV, tuple(config.MASK_SHAPE),
        image_shape=config.IMAGE_SHAPE if config.USE_MINI_MASK else None,
    )  # fmt: skip


def generate_random_rois(image_shape, count, gt_class_ids, gt_boxes):
    """Draws regions to train the heads on without an RPN: nine of ten around objects, the others anywhere.

    Args:
        image_shape: [H, W, channels].
        count: int, number of regions.
        gt_class_ids: [N] int; rows of class 0 are padding.
        gt_boxes: [N, (y1, x1, y2, x2)] int, pixels.

    Returns:
        [count, (y1, x1, y2, x2)] int32, pixels.
    """
    return _targets.generate_random_rois(image_shape, count, gt_class_ids, gt_boxes)


def mold_image(images, config):
    """Subtracts the config's mean pixel: [..., channels] number -> float."""
    return _images.mold_image(images, config.MEAN_PIXEL)


def unmold_image(normalized_images, config):
    """Adds the config's mean pixel again: [..., channels] float -> uint8."""
    return _images.unmold_image(normalized_images, config.MEAN_PIXEL)
