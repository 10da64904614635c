"""Which classes are taken for which: the confusion matrix of a data set."""

from collections import defaultdict

import numpy as np

from mrcnn.engine.scoring import load_pycocotools
from mrcnn.geometry.metrics import by_falling_score, match_overlaps


def confusion_matrix(coco, rows, category_ids, kind="segm", iou_threshold=0.5, score_threshold=0.5):
    """Counts what the objects of a data set are taken for.

    In each image detections first find objects of their class, best score first and one each; then those that are left
    find what is left of the objects, which are thus taken for another class. What remains are objects missed and
    detections of nothing, or of an object that was found already. Detections in a crowd of their class do not count.

    Args:
        coco: pycocotools.coco.COCO, the ground truth.
        rows: list of detections, see `coco_results`.
        category_ids: list of int, the categories.
        kind: "segm" compares masks, "bbox" boxes.
        iou_threshold: float, smallest intersection over union of a pair.
        score_threshold: float, detections of a lower score do not count.

    Returns:
        [1 + categories, 1 + categories] int: rows the true classes, columns the detected ones, in the order of
        `category_ids`; the first row and the first column are the background.
    """
    place = {category_id: number for number, category_id in enumerate(category_ids, start=1)}
    matrix = np.zeros((len(place) + 1, len(place) + 1), int)
    detections = defaultdict(list)
    for row in rows:
        if row["score"] >= score_threshold and row["category_id"] in place:
            detections[row["image_id"]].append(row)
    for image_id in coco.imgs:
        objects = [coco.anns[number] for number in coco.getAnnIds(imgIds=[image_id])]
        objects = [one for one in objects if one["category_id"] in place]
        found, given, wrong = _match(coco, objects, detections[image_id], kind, iou_threshold)
        true = [place[one["category_id"]] for one in objects if not one["iscrowd"]]
        taken = [place[row["category_id"]] for row in detections[image_id]]
        for number, match in enumerate(found):
            matrix[true[number], taken[match] if match >= 0 else 0] += 1
        for number in np.flatnonzero((given < 0) & wrong):
            matrix[0, taken[number]] += 1
    return matrix


def _match(coco, objects, rows, kind, threshold):
    """(detection of each object that is no crowd, object of each detection, which detections lie in no crowd)."""
    overlaps = _overlaps(coco, objects, rows, kind)
    crowds = np.array([bool(one["iscrowd"]) for one in objects], bool)
    classes = np.array([one["category_id"] for one in objects], int)
    scores, ids = (np.array([row[key] for row in rows]) for key in ("score", "category_id"))
    order = by_falling_score(scores)
    in_crowd = ((overlaps >= threshold) & crowds & (classes == ids[:, None])).any(axis=1)
    overlaps, classes, scores = overlaps[order][:, ~crowds], classes[~crowds], scores[order]
    found, given = (matches.astype(int) for matches in match_overlaps(overlaps, classes, ids[order], scores, threshold))
    free, left = np.flatnonzero(found < 0), np.flatnonzero(given < 0)
    other, _ = match_overlaps(overlaps[np.ix_(left, free)], 0 * free, 0 * left, scores[left], threshold)
    for number, match in zip(free, other.astype(int)):
        if match >= 0:
            found[number], given[left[match]] = left[match], number
    unsorted = np.empty_like(given)
    unsorted[order] = given
    return [order[match] if match >= 0 else -1 for match in found], unsorted, ~in_crowd


def _overlaps(coco, objects, rows, kind):
    """[detections, objects] float, intersection over union; over the detection's own area for crowds."""
    if not rows or not objects:
        return np.zeros((len(rows), len(objects)))
    if kind == "segm":
        shapes = [row["segmentation"] for row in rows], [coco.annToRLE(one) for one in objects]
    else:
        shapes = ([one["bbox"] for one in side] for side in (rows, objects))
    return np.asarray(load_pycocotools().mask.iou(*shapes, [int(one["iscrowd"]) for one in objects]))
