"""Training targets made on the host: which anchors the RPN learns from, and regions for training the heads alone.

Where a function takes `rng`, it is a `numpy.random.Generator`; without one numpy's global generator draws, as ever.
"""

import numpy as np

from mrcnn.geometry.anchors import AnchorGrid
from mrcnn.geometry.boxes import box_refinement, compute_iou, compute_overlaps
from mrcnn.geometry.images import resize
from mrcnn.geometry.masks import expand_mask

# Faster R-CNN, section 3.1.2: intersection over union from which an anchor is an object, and below which it is none.
RPN_POSITIVE_IOU, RPN_NEGATIVE_IOU = 0.7, 0.3
# The same for a region, Mask R-CNN, section 3.1.
ROI_IOU = 0.5
# What touches a crowd more than this is never background: the crowd may hide an object there.
CROWD_IOU = 0.001
# Share of random regions that are drawn around objects.
NEAR_OBJECTS = 0.9


def build_rpn_targets(image_shape, anchors, gt_class_ids, gt_boxes, anchors_per_image, std_dev, rng=None):
    """Matches anchors with objects and says how each matched anchor should move (Faster R-CNN, section 3.1.2).

    Args:
        image_shape: [H, W, channels]; not used.
        anchors: [anchors, (y1, x1, y2, x2)] number, pixels; or an `AnchorGrid`, which gives the same much faster.
        gt_class_ids: [N] int, negative for crowds. There may be no objects at all.
        gt_boxes: [N, (y1, x1, y2, x2)] int, pixels.
        anchors_per_image: int, how many anchors are trained on; at most half of them are positive.
        std_dev: [4] float, units of the deltas.
        rng: see the top of this file.

    Returns:
        rpn_match: [anchors] int32, 1 positive, -1 negative, 0 neutral.
        rpn_bbox: [anchors_per_image, (dy, dx, log(dh), log(dw))] float64 in units of `std_dev`, for the positive
            anchors in their order; rows of zeros fill the end.
    """
    rng = rng or np.random
    gt_class_ids, gt_boxes = np.asarray(gt_class_ids), np.asarray(gt_boxes).reshape(-1, 4)
    objects, crowds = gt_boxes[gt_class_ids > 0], gt_boxes[gt_class_ids < 0]
    grid = anchors if isinstance(anchors, AnchorGrid) else None
    anchors = np.asarray(anchors) if grid is None else grid.anchors
    if grid is not None and grid.takes(gt_boxes):
        touched, positive = _match_near(grid, objects, crowds)
    else:
        touched, positive = _match_all(anchors, objects, crowds)

    rpn_match = np.where(touched, np.int32(0), np.int32(-1))
    rpn_match[positive] = 1
    _thin_out(rpn_match, 1, anchors_per_image // 2, rng)
    _thin_out(rpn_match, -1, anchors_per_image - np.count_nonzero(rpn_match == 1), rng)

    rpn_bbox = np.zeros((anchors_per_image, 4))
    positive = np.flatnonzero(rpn_match == 1)
    if len(positive):
        # An anchor that is forced to stand for one object learns to move to the object that it covers best, as ever.
        best_object = compute_overlaps(anchors[positive], objects).argmax(axis=1)
        rpn_bbox[: len(positive)] = box_refinement(anchors[positive], objects[best_object]) / np.asarray(std_dev)
    return rpn_match, rpn_bbox


def _match_near(grid, objects, crowds):
    """[anchors] bool twice: which are not background, and which stand for an object. Both follow from few pairs.

    Besides those that cover an object well, the anchors that cover it as no other anchor does stand for it.
    """
    touched, positive = np.zeros((2, len(grid.anchors)), bool)
    touched[grid.pairs(crowds, CROWD_IOU)[1]] = True
    box_ids, anchor_ids, iou = grid.pairs(objects, RPN_NEGATIVE_IOU)
    touched[anchor_ids] = True
    best = np.zeros(len(objects))
    np.maximum.at(best, box_ids, iou)
    positive[anchor_ids[(iou >= RPN_POSITIVE_IOU) | (iou == best[box_ids])]] = True
    positive[grid.best_pairs(objects[best == 0])[1]] = True  # less than the limit is the best for these
    return touched, positive


def _match_all(anchors, objects, crowds):
    """As `_match_near`, for anchors in any order: one pass over all of them per box."""
    areas = (anchors[:, 2] - anchors[:, 0]) * (anchors[:, 3] - anchors[:, 1])
    touched, positive = np.zeros((2, len(anchors)), bool)
    for boxes, least in ((objects, RPN_NEGATIVE_IOU), (crowds, CROWD_IOU)):
        for box in boxes:
            iou = compute_iou(box, anchors, (box[2] - box[0]) * (box[3] - box[1]), areas)
            touched |= iou >= least
            if boxes is objects:
                # A box that no anchor touches at all would otherwise tie for all anchors of the image.
                positive |= (iou >= RPN_POSITIVE_IOU) | ((iou == iou.max(initial=0)) & (iou > 0))
    return touched, positive


def _thin_out(rpn_match, value, limit, rng):
    """Sets random anchors of this value to neutral until at most `limit` are left."""
    found = np.flatnonzero(rpn_match == value)
    if len(found) > limit:
        kept = np.ones(len(found), bool)
        kept[rng.choice(len(found), len(found) - limit, replace=False)] = False  # draws as from `found` itself
        rpn_match[found] = 0
        rpn_match[found[kept]] = value


def build_detection_targets(
    rpn_rois, gt_class_ids, gt_boxes, gt_masks, num_classes, rois_per_image, positive_ratio, std_dev, mask_shape,
    image_shape=None, rng=None, negatives_alone=False,
):  # fmt: skip
    """Picks regions to train the heads on, and their targets; what `DetectionTargetLayer` does within the network.

    It is for training or debugging the heads without the RPN. Unlike in the layer, missing regions are made up for by
    repeating others, and mask targets are not rounded.

    Args:
        rpn_rois: [N, (y1, x1, y2, x2)] int, pixels.
        gt_class_ids: [instances] int; only those above 0 count.
        gt_boxes: [instances, (y1, x1, y2, x2)] int, pixels.
        gt_masks: [H, W, instances] bool; mini masks where `image_shape` is given.
        num_classes: int, background included.
        rois_per_image: int, number of regions to return.
        positive_ratio: float, largest share of them that are objects.
        std_dev: [4] float, units of the deltas.
        mask_shape: (height, width) of the mask targets.
        image_shape: (H, W, ...) of the image, if the masks are mini masks.
        rng: see the top of this file.
        negatives_alone: whether without objects all regions are background; else that is an error.

    Returns:
        rois: [rois_per_image, (y1, x1, y2, x2)] int32, pixels; objects come first.
        class_ids: [rois_per_image] int32, 0 for background.
        bboxes: [rois_per_image, num_classes, (dy, dx, log(dh), log(dw))] float32 in units of `std_dev`; zeros but for
            the region's class.
        masks: [rois_per_image, height, width, num_classes] float32, 0..1; zeros but for the region's class.

    Raises:
        ValueError: there are no regions, no objects (unless `negatives_alone`), or no region that is clearly object
            or background.
    """
    rng = rng or np.random
    rpn_rois, instances = np.asarray(rpn_rois), np.flatnonzero(np.asarray(gt_class_ids) > 0)
    if len(rpn_rois) == 0 or (len(instances) == 0 and not negatives_alone):
        raise ValueError(
            f"rpn_rois and gt_class_ids need at least one region and one object; received {len(rpn_rois)} regions and "
            f"class ids {np.asarray(gt_class_ids).tolist()}"
        )
    overlaps = compute_overlaps(rpn_rois, gt_boxes[instances])
    kept, is_object = _pick_rois(overlaps.max(axis=1, initial=0), rois_per_image, positive_ratio, rng)
    rois = rpn_rois[kept].astype(np.int32)
    rows, class_ids = np.flatnonzero(is_object), np.zeros(rois_per_image, np.int32)
    matched = instances[overlaps[kept[rows]].argmax(axis=1)] if len(rows) else instances[:0]
    class_ids[rows] = labels = np.asarray(gt_class_ids)[matched]

    bboxes = np.zeros((rois_per_image, num_classes, 4), np.float32)
    bboxes[rows, labels] = box_refinement(rois[rows], gt_boxes[matched]) / np.asarray(std_dev)
    masks = np.zeros((rois_per_image, *mask_shape, num_classes), np.float32)
    for row, label, instance in zip(rows, labels, matched):
        mask = gt_masks[..., instance]
        if image_shape is not None:
            mask = expand_mask(gt_boxes[[instance]], mask[..., None], image_shape)[..., 0]
        y1, x1, y2, x2 = rois[row]
        masks[row, :, :, label] = resize(mask[y1:y2, x1:x2], mask_shape)
    return rois, class_ids, bboxes, masks


def _pick_rois(iou, count, positive_ratio, rng):
    """Indices of `count` regions, objects first, repeated if there are too few; and bool, which are objects."""

    def at_most(limit, found):
        return rng.choice(found, limit, replace=False) if len(found) > limit else found

    positive = at_most(int(count * positive_ratio), np.flatnonzero(iou > ROI_IOU))
    negative = at_most(count - len(positive), np.flatnonzero(iou < ROI_IOU))
    kept = np.concatenate([positive, negative])
    if len(kept) == 0:
        raise ValueError(f"none of the {len(iou)} regions in rpn_rois is clearly an object or background")
    if len(kept) < count:
        kept = np.concatenate([kept, rng.choice(kept, count - len(kept), replace=True)])
    return kept, np.isin(kept, positive)


def generate_random_rois(image_shape, count, gt_class_ids, gt_boxes, rng=None):
    """Draws regions to train the heads on without an RPN: nine of ten around objects, the others anywhere.

    Args:
        image_shape: [H, W, channels].
        count: int, number of regions.
        gt_class_ids: [N] int; rows of class 0 are padding.
        gt_boxes: [N, (y1, x1, y2, x2)] int, pixels.
        rng: see the top of this file.

    Returns:
        [count, (y1, x1, y2, x2)] int32, pixels, none without area.

    Raises:
        ValueError: the image has a side of less than two pixels, or a box lies outside of it.
    """
    rng, (height, width) = rng or np.random, image_shape[:2]
    boxes = np.asarray(gt_boxes)[np.asarray(gt_class_ids) != 0]
    per_box = int(NEAR_OBJECTS * count / max(len(boxes), 1))
    rois = []
    for y1, x1, y2, x2 in boxes:
        # Up to one size of the object away from it.
        h, w = max(y2 - y1, 1), max(x2 - x1, 1)
        ys = _random_spans(max(y1 - h, 0), min(y2 + h, height), per_box, rng)
        xs = _random_spans(max(x1 - w, 0), min(x2 + w, width), per_box, rng)
        rois.append(np.stack([ys, xs], axis=2).reshape(-1, 4))
    rest = count - per_box * len(boxes)
    anywhere = [_random_spans(0, side, rest, rng) for side in (height, width)]
    rois.append(np.stack(anywhere, axis=2).reshape(-1, 4))
    return np.concatenate(rois).astype(np.int32)


def _random_spans(low, high, count, rng):
    """[count, (start, end)] of whole numbers in [low, high), start below end."""
    if high - low < 2:
        raise ValueError(f"no room for random regions in pixels {low} to {high}: does the box lie within the image?")
    draw = getattr(rng, "integers", None) or rng.randint
    spans = np.zeros((0, 2), int)
    while len(spans) < count:
        drawn = draw(low, high, (2 * count, 2))
        spans = np.concatenate([spans, drawn[drawn[:, 0] != drawn[:, 1]]])
    return np.sort(spans[:count], axis=1)
