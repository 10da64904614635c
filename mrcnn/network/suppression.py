"""Non-maximum suppression in each image of a batch, with what is fastest on the backend."""

from __future__ import annotations

import numpy as np
from keras import ops

from mrcnn.geometry.boxes import compute_iou
from mrcnn.network import kernels
from mrcnn.network.tensors import iou

_TILE = 256  # boxes that are compared with each other at once


def non_max_suppression(boxes, max_output, iou_threshold, groups=None, valid=None):
    """Greedy suppression in each image of a batch, over boxes that are already ordered best first.

    A box falls when its IoU with a better survivor exceeds the threshold; equality survives.

    Args:
        boxes: [batch, N, (y1, x1, y2, x2)] float, best first.
        max_output: static int, number of indices returned per image.
        iou_threshold: float.
        groups: optional (ids int [batch, N], number of groups): boxes suppress each other only within a group.
        valid: optional bool [batch, N]: boxes that take part.

    Returns:
        int32 [batch, max_output]: indices of the survivors in ascending order, then -1.
    """
    boxes = ops.stop_gradient(boxes)
    if kernels.has_own_kernels():
        return kernels.suppress_by_tensorflow(boxes, max_output, iou_threshold, groups, valid)
    ids = None if groups is None else groups[0]
    if kernels.BACKEND == "torch" and boxes.device.type == "cpu":
        return _one_by_one(boxes, max_output, iou_threshold, ids, valid)
    given = [tensor for tensor in (ids, valid) if tensor is not None]

    def run(boxes, *given):
        rest = iter(given)
        return _by_tiles(boxes, max_output, iou_threshold, *(None if t is None else next(rest) for t in (ids, valid)))

    return kernels.per_device(run, boxes, *given)


def _one_by_one(boxes, max_output, iou_threshold, ids, valid):
    """One surviving box after the other against all later ones, until there are enough: with numpy."""
    ids, valid = (None if rows is None else ops.convert_to_numpy(rows) for rows in (ids, valid))
    kept = np.full((boxes.shape[0], max_output), -1, np.int32)
    for image, rows in enumerate(ops.convert_to_numpy(boxes)):
        rows = np.asfortranarray(rows)  # coordinate by coordinate, as they are read
        areas = (rows[:, 2] - rows[:, 0]) * (rows[:, 3] - rows[:, 1])
        alive = np.ones(len(rows), bool) if valid is None else valid[image].copy()
        found = 0
        for row in range(len(rows)):
            if found == max_output:
                break
            if not alive[row]:
                continue
            kept[image, found] = row
            found += 1
            later = slice(row + 1, None)
            falls = compute_iou(rows[row], rows[later], areas[row], areas[later]) > iou_threshold
            if ids is not None:
                falls &= ids[image, later] == ids[image, row]
            alive[later] &= ~falls
    return ops.convert_to_tensor(kept)


def _by_tiles(boxes, max_output, iou_threshold, ids, valid):
    """Tile after tile: the greedy result within a tile by fixed point, then all later boxes are thinned by it."""
    count = boxes.shape[1]
    alive = ops.ones(ops.shape(boxes)[:2], dtype="bool") if valid is None else valid
    for start in range(0, count, _TILE):
        stop = min(start + _TILE, count)
        overlap = iou(boxes[:, start:stop, None], boxes[:, None, start:]) > iou_threshold
        if ids is not None:
            overlap = ops.logical_and(overlap, ids[:, start:stop, None] == ids[:, None, start:])
        size = stop - start
        later = ops.convert_to_tensor(np.triu(np.ones((size, size), bool), 1))
        keep = _greedy(alive[:, start:stop], ops.logical_and(overlap[:, :, :size], later))
        rest = alive[:, stop:]
        if stop < count:
            hit = ops.any(ops.logical_and(overlap[:, :, size:], keep[:, :, None]), axis=1)
            rest = ops.logical_and(rest, ops.logical_not(hit))
        alive = ops.concatenate([alive[:, :start], keep, rest], axis=1)
    if count < max_output:
        alive = ops.pad(alive, ((0, 0), (0, max_output - count)))
    found, indices = kernels.local_top_k(ops.cast(alive, "float32"), max_output)
    return ops.where(found > 0, indices, -1)


def _greedy(alive, suppresses):
    """Survivors of one tile: repeats "alive and not hit by a survivor" until nothing changes.

    Greedy suppression is its only fixed point, because `suppresses` [batch, better, worse] is strictly triangular.
    """

    def unstable(keep, before):
        return ops.any(ops.not_equal(keep, before))

    def refine(keep, before):
        hit = ops.any(ops.logical_and(suppresses, keep[:, :, None]), axis=1)
        return ops.logical_and(alive, ops.logical_not(hit)), keep

    keep, _ = ops.while_loop(unstable, refine, refine(alive, alive), maximum_iterations=alive.shape[1])
    return keep
