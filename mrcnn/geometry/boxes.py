"""Boxes: overlap, suppression, deltas, normalized and pixel coordinates.

A box is (y1, x1, y2, x2) with y2 and x2 just outside of it.
"""

import numpy as np

# A box grows by at most 1000 / 16 per refinement: far more than trained networks ask for, and exp() cannot overflow.
MAX_LOG_RATIO = np.log(1000 / 16)
# Pairs of boxes that are compared at a time: as many as stay in a processor's cache.
_PAIRS = 2**16


def compute_iou(box, boxes, box_area, boxes_area):
    """Computes the intersection over union of one box with each of many.

    The areas are passed in so that a caller with a loop computes them once.

    Args:
        box: [(y1, x1, y2, x2)] number, pixels or normalized.
        boxes: [N, (y1, x1, y2, x2)] number, the same coordinates.
        box_area: number, area of `box`.
        boxes_area: [N] number, areas of `boxes`.

    Returns:
        [N] float; 0 where neither box has an area.
    """
    box, boxes = _signed(np.asarray(box)), _signed(np.asarray(boxes))
    height = np.minimum(box[..., 2], boxes[..., 2]) - np.maximum(box[..., 0], boxes[..., 0])
    width = np.minimum(box[..., 3], boxes[..., 3]) - np.maximum(box[..., 1], boxes[..., 1])
    intersection = np.maximum(height, 0) * np.maximum(width, 0)
    union = box_area + boxes_area - intersection
    return intersection / np.where(union > 0, union, 1)


def compute_overlaps(boxes1, boxes2):
    """Computes the intersection over union of every pair of boxes.

    Args:
        boxes1: [N, (y1, x1, y2, x2)] number, pixels or normalized.
        boxes2: [M, (y1, x1, y2, x2)] number, the same coordinates.

    Returns:
        [N, M] float64; 0 for pairs without any area.

    Raises:
        ValueError: an argument is not [N, 4].
    """
    boxes1, boxes2 = _signed(_check(boxes1, "boxes1")), _signed(_check(boxes2, "boxes2"))
    if len(boxes1) < len(boxes2):
        return np.ascontiguousarray(compute_overlaps(boxes2, boxes1).T)
    overlaps = np.zeros((len(boxes1), len(boxes2)))
    step = max(1, _PAIRS // max(len(boxes2), 1))
    # Each coordinate in a row of its own: the shorter list is the slow axis.
    edges1, edges2 = np.ascontiguousarray(boxes1.T), np.ascontiguousarray(boxes2.T)[:, :, None]
    area1, area2 = _area(boxes1), _area(boxes2)[:, None]
    for start in range(0, len(boxes1), step):
        part = slice(start, start + step)
        overlaps[part] = _iou_table(edges2, edges1[:, None, part], area2, area1[part]).T
    return overlaps


def _iou_table(edges1, edges2, area1, area2):
    """`compute_iou` for edges [4, N, 1] and [4, 1, M], written over as few arrays as possible: [N, M] float."""
    intersection = np.minimum(edges1[2], edges2[2])
    intersection -= np.maximum(edges1[0], edges2[0])
    width = np.minimum(edges1[3], edges2[3])
    width -= np.maximum(edges1[1], edges2[1])
    np.maximum(intersection, 0, out=intersection)
    intersection *= np.maximum(width, 0, out=width)
    union = area1 + area2 - intersection
    empty = ~(union > 0)
    if empty.any():
        union[empty] = 1
    return intersection / union


def non_max_suppression(boxes, scores, threshold):
    """Picks the best boxes and drops those that overlap a better one.

    Args:
        boxes: [N, (y1, x1, y2, x2)] number, pixels or normalized.
        scores: [N] number. Of equal scores the later box wins.
        threshold: float, boxes with an intersection over union above it are dropped; an equal one stays.

    Returns:
        [kept] int32, indices into `boxes`, best score first.

    Raises:
        ValueError: there are no boxes, or not one score per box.
    """
    boxes, scores = _check(boxes, "boxes"), np.asarray(scores)
    if len(boxes) == 0:
        raise ValueError("boxes is empty: non_max_suppression needs at least one box")
    if scores.shape != boxes.shape[:1]:
        raise ValueError(f"scores must hold one number per box; received shape {scores.shape} for {len(boxes)} boxes")
    if boxes.dtype.kind != "f":
        boxes = boxes.astype(np.float32)

    areas = _area(boxes)
    order = np.argsort(scores, kind="stable")[::-1]
    kept = []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(best)
        iou = compute_iou(boxes[best], boxes[rest], areas[best], areas[rest])
        order = rest[iou <= threshold]
    return np.array(kept, np.int32)


def apply_box_deltas(boxes, deltas):
    """Moves and scales boxes by their deltas (R-CNN, appendix C).

    Args:
        boxes: [N, (y1, x1, y2, x2)] number, pixels or normalized.
        deltas: [N, (dy, dx, log(dh), log(dw))] float. The logarithms count up to `MAX_LOG_RATIO`.

    Returns:
        [N, (y1, x1, y2, x2)] float32, the same coordinates as `boxes`.

    Raises:
        ValueError: the arguments are not [N, 4], or of different lengths.
    """
    boxes, deltas = _check_pair(boxes, "boxes", deltas, "deltas")
    boxes = boxes.astype(np.float32)
    size = boxes[:, 2:] - boxes[:, :2]
    center = boxes[:, :2] + 0.5 * size
    # In place, so that deltas of any precision leave the boxes in float32.
    center += deltas[:, :2] * size
    size *= np.exp(np.minimum(deltas[:, 2:], MAX_LOG_RATIO))
    top_left = center - 0.5 * size
    return np.concatenate([top_left, top_left + size], axis=1)


def box_refinement(box, gt_box):
    """Computes the deltas that turn each box into its ground truth box: the inverse of `apply_box_deltas`.

    Args:
        box: [N, (y1, x1, y2, x2)] number, pixels or normalized.
        gt_box: [N, (y1, x1, y2, x2)] number, the same coordinates.

    Returns:
        [N, (dy, dx, log(dh), log(dw))] float32.

    Raises:
        ValueError: the arguments are not [N, 4], of different lengths, or a box has no height or width.
    """
    box, gt_box = _check_pair(box, "box", gt_box, "gt_box")
    box, gt_box = box.astype(np.float32), gt_box.astype(np.float32)
    size, gt_size = box[:, 2:] - box[:, :2], gt_box[:, 2:] - gt_box[:, :2]
    _check_sizes(box, size, "box")
    _check_sizes(gt_box, gt_size, "gt_box")
    shift = (gt_box[:, :2] + 0.5 * gt_size - (box[:, :2] + 0.5 * size)) / size
    return np.concatenate([shift, np.log(gt_size / size)], axis=1)


def norm_boxes(boxes, shape):
    """Converts boxes from pixels to normalized coordinates.

    In pixels y2 and x2 lie outside the box, in normalized coordinates inside: (0, 0, 1, 1) is the whole image.

    Args:
        boxes: [N, (y1, x1, y2, x2)] number, pixels.
        shape: (height, width) or (height, width, ...) of the image.

    Returns:
        [N, (y1, x1, y2, x2)] float32, normalized.
    """
    scale, shift = _scale_and_shift(shape)
    return ((np.asarray(boxes) - shift) / np.maximum(scale, 1)).astype(np.float32)  # an image may be one pixel high


def denorm_boxes(boxes, shape):
    """Converts boxes from normalized coordinates to pixels: the inverse of `norm_boxes`.

    Args:
        boxes: [N, (y1, x1, y2, x2)] float, normalized.
        shape: (height, width) or (height, width, ...) of the image.

    Returns:
        [N, (y1, x1, y2, x2)] int32, pixels; halves are rounded to the even pixel.
    """
    scale, shift = _scale_and_shift(shape)
    return np.around(np.asarray(boxes) * scale + shift).astype(np.int32)


def trim_zeros(x):
    """Drops the rows that hold nothing but zeros, as padding does.

    Args:
        x: [rows, columns] number.

    Returns:
        [kept rows, columns] of the same dtype.

    Raises:
        ValueError: `x` does not have two dimensions.
    """
    x = np.asarray(x)
    if x.ndim != 2:
        raise ValueError(f"x must have rows and columns; received shape {x.shape}")
    return x[x.any(axis=1)]


def _scale_and_shift(shape):
    """What normalized coordinates are multiplied by and moved by."""
    h, w = (int(side) - 1 for side in shape[:2])
    return np.array([h, w, h, w]), np.array([0, 0, 1, 1])


def _signed(boxes):
    """Whole numbers as int64: a difference or an area would wrap around in unsigned or small ones, and say nothing."""
    return boxes.astype(np.int64, copy=False) if boxes.dtype.kind in "iu" else boxes


def _area(boxes):
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _check(boxes, name):
    boxes = np.asarray(boxes)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name} must have the shape [N, 4]; received {boxes.shape}")
    return boxes


def _check_pair(first, first_name, second, second_name):
    first, second = _check(first, first_name), _check(second, second_name)
    if len(first) != len(second):
        raise ValueError(
            f"{first_name} and {second_name} must be of one length; received {len(first)} and {len(second)}"
        )
    return first, second


def _check_sizes(boxes, sizes, name):
    bad = np.flatnonzero(~(sizes > 0).all(axis=1))
    if bad.size:
        raise ValueError(
            f"{name}[{bad[0]}] = {boxes[bad[0]].tolist()} has no height or no width; leave such boxes out "
            f"({bad.size} of {len(boxes)})"
        )
