"""Metrics of one image: matches of predictions with the ground truth, average precision, recall."""

import numpy as np

from mrcnn.geometry.boxes import compute_overlaps
from mrcnn.geometry.masks import compute_overlaps_masks


def compute_matches(gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores, pred_masks,
                    iou_threshold=0.5, score_threshold=0.0):
    """Pairs predictions with ground truth objects of their class, best score first.

    Each prediction takes the object that its mask overlaps most and that is still free. Rows of zeros in the boxes are
    padding and left out.

    Args:
        gt_boxes: [N, (y1, x1, y2, x2)] int, pixels.
        gt_class_ids: [N] int.
        gt_masks: [H, W, N] bool.
        pred_boxes: [M, (y1, x1, y2, x2)] int, pixels.
        pred_class_ids: [M] int.
        pred_scores: [M] float.
        pred_masks: [H, W, M] bool.
        iou_threshold: float, smallest intersection over union of a pair's masks.
        score_threshold: float, predictions of a lower score match nothing.

    Returns:
        gt_match: [N] float, index of the prediction (in the order of scores) that found the object, or -1.
        pred_match: [M] float, in the order of scores: index of the object that the prediction found, or -1.
        overlaps: [M, N] float32, intersection over union of the masks; rows in the order of scores.

    Raises:
        ValueError: boxes, classes, scores and masks differ in number.
    """
    truth, predictions = _prepare(gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores, pred_masks)
    overlaps = compute_overlaps_masks(predictions["masks"], truth["masks"])
    gt_match, pred_match = match_overlaps(overlaps, truth["class_ids"], predictions["class_ids"],
                                          predictions["scores"], iou_threshold, score_threshold)  # fmt: skip
    return gt_match, pred_match, overlaps


def match_overlaps(overlaps, gt_class_ids, pred_class_ids, pred_scores, iou_threshold=0.5, score_threshold=0.0):
    """Pairs predictions with objects of their class, one with one: each takes the free one that it overlaps most.

    Args:
        overlaps: [M, N] float, intersection over union; predictions (rows) best score first.
        gt_class_ids: [N] int.
        pred_class_ids: [M] int.
        pred_scores: [M] float, falling.
        iou_threshold: float, smallest overlap of a pair.
        score_threshold: float, predictions of a lower score match nothing.

    Returns:
        gt_match: [N] float, index of the prediction that found the object, or -1.
        pred_match: [M] float, index of the object that the prediction found, or -1.
    """
    pred_match, gt_match = np.full(overlaps.shape[0], -1.0), np.full(overlaps.shape[1], -1.0)
    for i in np.flatnonzero(pred_scores >= score_threshold):
        free = (gt_match < 0) & (gt_class_ids == pred_class_ids[i]) & (overlaps[i] >= iou_threshold)
        candidates = np.flatnonzero(free)
        if candidates.size:
            ranked = candidates[np.argsort(overlaps[i, candidates], kind="stable")]
            gt_match[ranked[-1]], pred_match[i] = i, ranked[-1]
    return gt_match, pred_match


def compute_ap(gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores, pred_masks,
               iou_threshold=0.5):
    """Computes the average precision of one image, all classes taken together, on masks.

    The precision at each recall is the best one at that recall or a higher (PASCAL VOC 2010). An image without ground
    truth has an average precision of 0.

    Args:
        gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores, pred_masks: see `compute_matches`.
        iou_threshold: float, smallest intersection over union of a match.

    Returns:
        mAP: float, average precision.
        precisions: [M + 2] float, after each prediction, best score first, with an end added on both sides.
        recalls: [M + 2] float, likewise.
        overlaps: [M, N] float32, see `compute_matches`.

    Raises:
        ValueError: boxes, classes, scores and masks differ in number.
    """
    gt_match, pred_match, overlaps = compute_matches(
        gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores, pred_masks, iou_threshold
    )
    return *_average_precision(pred_match, len(gt_match)), overlaps


def compute_ap_range(gt_box, gt_class_id, gt_mask, pred_box, pred_class_id, pred_score, pred_mask,
                     iou_thresholds=None, verbose=1):
    """Computes the mean of `compute_ap` over several thresholds, as COCO does.

    Args:
        gt_box, gt_class_id, gt_mask, pred_box, pred_class_id, pred_score, pred_mask: see `compute_matches`.
        iou_thresholds: sequence of floats; by default 0.5 to 0.95 in steps of 0.05.
        verbose: 1 prints each value, 0 nothing.

    Returns:
        float.

    Raises:
        ValueError: no thresholds; boxes, classes, scores and masks differ in number.
    """
    thresholds = np.arange(0.5, 1.0, 0.05) if iou_thresholds is None else np.asarray(iou_thresholds, float)
    if thresholds.ndim != 1 or thresholds.size == 0:
        raise ValueError(f"iou_thresholds must be a sequence of thresholds; received {iou_thresholds!r}")
    truth, predictions = _prepare(gt_box, gt_class_id, gt_mask, pred_box, pred_class_id, pred_score, pred_mask)
    overlaps = compute_overlaps_masks(predictions["masks"], truth["masks"])
    values = []
    for threshold in thresholds:
        gt_match, pred_match = match_overlaps(overlaps, truth["class_ids"], predictions["class_ids"],
                                              predictions["scores"], threshold)  # fmt: skip
        values.append(_average_precision(pred_match, len(gt_match))[0])
        if verbose:
            print(f"AP @{threshold:.2f}:\t {values[-1]:.3f}")
    mean = np.mean(values)
    if verbose:
        print(f"AP @{thresholds[0]:.2f}-{thresholds[-1]:.2f}:\t {mean:.3f}")
    return mean


def compute_recall(pred_boxes, gt_boxes, iou):
    """Computes the share of ground truth boxes that are found by a box.

    Args:
        pred_boxes: [M, (y1, x1, y2, x2)] number, pixels or normalized.
        gt_boxes: [N, (y1, x1, y2, x2)] number, the same coordinates.
        iou: float, smallest intersection over union that counts.

    Returns:
        recall: float; 0 without ground truth.
        positive_ids: [positives] int, indices of the boxes that overlap a ground truth box enough.
    """
    overlaps = compute_overlaps(pred_boxes, gt_boxes)
    if overlaps.size == 0:
        return 0.0, np.zeros(0, np.intp)
    positive_ids = np.flatnonzero(overlaps.max(axis=1) >= iou)
    found = np.unique(overlaps[positive_ids].argmax(axis=1))
    return len(found) / len(gt_boxes), positive_ids


def _prepare(gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores, pred_masks):
    """Ground truth and predictions without padding, predictions by falling score; later ones first among equals."""
    truth = _select("gt", _real_rows(gt_boxes), class_ids=gt_class_ids, masks=gt_masks)
    rows = _real_rows(pred_boxes)
    predictions = _select("pred", rows, class_ids=pred_class_ids, scores=pred_scores, masks=pred_masks)
    order = by_falling_score(predictions["scores"])
    return truth, {name: values[..., order] for name, values in predictions.items()}


def by_falling_score(scores):
    """[M] int, indices that sort scores from the best on; later ones first among equals."""
    return np.argsort(scores, kind="stable")[::-1]


def _real_rows(boxes):
    return np.flatnonzero(np.asarray(boxes).reshape(-1, 4).any(axis=1))


def _select(side, rows, **arrays):
    """The given rows (along the last axis) of each array."""
    arrays = {name: np.asarray(values) for name, values in arrays.items()}
    for name, values in arrays.items():
        if rows.size and rows[-1] >= values.shape[-1]:
            raise ValueError(
                f"{side}_{name} has room for {values.shape[-1]} instances (shape {values.shape}), but {side}_boxes "
                f"has a box in row {rows[-1]}"
            )
    return {name: values[..., rows] for name, values in arrays.items()}


def _average_precision(pred_match, gt_count):
    """(average precision, precisions, recalls) of predictions in the order of their scores."""
    hits = np.cumsum(pred_match > -1)
    precisions = np.concatenate([[0], hits / np.arange(1, len(hits) + 1), [0]])
    # In single precision, as the original: its averages carry the rounding.
    recalls = np.concatenate([[0], hits.astype(np.float32) / np.float32(max(gt_count, 1)), [1]])
    precisions = np.maximum.accumulate(precisions[::-1])[::-1]
    steps = np.flatnonzero(recalls[:-1] != recalls[1:]) + 1
    return np.sum((recalls[steps] - recalls[steps - 1]) * precisions[steps]), precisions, recalls
