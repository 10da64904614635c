"""Times what surrounds the network, beside a plain form of the same that looks at whole images and at all anchors.

    python benchmarks/functions.py
    python benchmarks/functions.py --objects 10 100 --json functions.json

The plain form does what one would write down first, one object after the other: every anchor is compared with every
object, each mask is an array as large as the image. Both take turns, and have to come to the same result.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout runs without being installed

import common
from contenders import make_config

from mrcnn import utils

PACKAGES = ("numpy", "scikit-image", "keras")
LARGE = 2000, 3000  # height and width of the photo into which masks are pasted
MINI = 56, 56
DIFFERENT = 0.001  # of the pixels of masks may differ: resizing may round the last digit otherwise


# ------------------------------------------------------------------ the plain form
def plain_targets(anchors, boxes, std_dev):
    """(match [anchors], deltas [positives, 4]) by a table of all anchors and all objects."""
    areas = (anchors[:, 2] - anchors[:, 0]) * (anchors[:, 3] - anchors[:, 1])
    table = np.empty((len(anchors), len(boxes)))
    for column, (y1, x1, y2, x2) in enumerate(boxes):
        height = np.clip(np.minimum(anchors[:, 2], y2) - np.maximum(anchors[:, 0], y1), 0, None)
        width = np.clip(np.minimum(anchors[:, 3], x2) - np.maximum(anchors[:, 1], x1), 0, None)
        table[:, column] = height * width / (areas + (y2 - y1) * (x2 - x1) - height * width)
    nearest, most = table.argmax(axis=1), table.max(axis=1)
    match = np.where(most < 0.3, -1, 0)
    match[(table == table.max(axis=0)).any(axis=1) | (most >= 0.7)] = 1
    deltas = []
    for anchor, (y1, x1, y2, x2) in zip(anchors[match == 1], boxes[nearest[match == 1]], strict=True):
        height, width = anchor[2] - anchor[0], anchor[3] - anchor[1]
        deltas.append([((y1 + y2) - (anchor[0] + anchor[2])) / 2 / height,
                       ((x1 + x2) - (anchor[1] + anchor[3])) / 2 / width,
                       np.log((y2 - y1) / height), np.log((x2 - x1) / width)])  # fmt: skip
    return match, np.array(deltas) / std_dev


def plain_boxes(masks):
    """The box of each mask [H, W, N], from its rows and columns."""
    boxes = []
    for plane in np.moveaxis(masks, -1, 0):
        rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
        boxes.append((rows[0], columns[0], rows[-1] + 1, columns[-1] + 1))
    return np.array(boxes)


def plain_mini_masks(boxes, masks):
    """[56, 56, N] bool: what lies in each box, resized."""
    planes = (masks[..., index].astype(float) for index in range(len(boxes)))
    parts = [plane[y1:y2, x1:x2] for plane, (y1, x1, y2, x2) in zip(planes, boxes, strict=True)]
    return np.stack([np.around(utils.resize(part, MINI)).astype(bool) for part in parts], axis=-1)


def plain_pasted(planes, boxes, size):
    """[H, W, N] bool: each mask in an image of its own, and all of them stacked."""
    images = []
    for plane, (y1, x1, y2, x2) in zip(planes, boxes, strict=True):
        image = np.zeros(size, bool)
        image[y1:y2, x1:x2] = utils.resize(plane, (y2 - y1, x2 - x1)) >= 0.5
        images.append(image)
    return np.stack(images, axis=-1)


# ------------------------------------------------------------------ what is timed
def make_objects(count, size):
    """Ellipses of many sizes in a square image, [size, size, N] bool, the same each time."""
    rng = np.random.default_rng(0)
    masks, places = np.zeros((size, size, count), bool), np.arange(size)
    for index in range(count):
        radii = np.exp(rng.uniform(np.log(size / 128), np.log(size / 8), 2))
        center = rng.uniform(radii, size - radii)
        down, right = (((places - middle) / radius) ** 2 for middle, radius in zip(center, radii, strict=True))
        masks[..., index] = down[:, None] + right <= 1
    return masks


def tasks(objects, size):
    """{what: (function of this package, plain function, whether two results are the same)}."""
    from mrcnn import model as modellib
    from mrcnn.engine import inference

    masks = make_objects(objects, size)
    boxes, class_ids = plain_boxes(masks), np.ones(objects, int)
    config = make_config("resnet50", size, 1, "float32", RPN_TRAIN_ANCHORS_PER_IMAGE=10**6)  # none is drawn
    cells = modellib.compute_backbone_shapes(config, config.IMAGE_SHAPE)
    anchors = utils.generate_pyramid_anchors(
        config.RPN_ANCHOR_SCALES, config.RPN_ANCHOR_RATIOS, cells, config.BACKBONE_STRIDES, config.RPN_ANCHOR_STRIDE
    )
    pasted_at = (boxes * np.tile(np.divide(LARGE, size), 2)).astype(int)
    detections = np.zeros((objects, 6))
    detections[:, :4] = utils.norm_boxes(pasted_at, LARGE)
    detections[:, 4:] = 1
    planes = np.random.default_rng(1).random((objects, 28, 28), np.float32)

    def targets():
        match, deltas = modellib.build_rpn_targets(config.IMAGE_SHAPE, anchors, class_ids, boxes, config)
        return match, deltas[: (match == 1).sum()]

    def pasted():
        shape = (*LARGE, 3)
        return inference.unmold_detections(detections, planes, shape, shape, np.array([0, 0, *LARGE]))[3]

    def same_targets(ours, plain):
        return np.array_equal(ours[0], plain[0]) and np.allclose(ours[1], plain[1], atol=1e-5)

    def agree(ours, plain):
        return (ours != plain).sum() <= DIFFERENT * plain.sum()

    std_dev = np.asarray(config.RPN_BBOX_STD_DEV)
    return {
        "targets of the RPN": (targets, lambda: plain_targets(anchors, boxes, std_dev), same_targets),
        "boxes of masks": (lambda: utils.extract_bboxes(masks), lambda: plain_boxes(masks), np.array_equal),
        "mini masks": (lambda: utils.minimize_mask(boxes, masks, MINI), lambda: plain_mini_masks(boxes, masks), agree),
        f"masks pasted into {LARGE[1]} x {LARGE[0]}": (pasted, lambda: plain_pasted(planes, pasted_at, LARGE), agree),
    }


def run(args):
    """All figures, as `--json` writes them.

    Raises:
        common.NotComparable: a function and its plain form come to different results.
    """
    rows = []
    for count in args.objects:
        for what, (ours, plain, same) in tasks(count, args.size).items():
            if not same(ours(), plain()):
                raise common.NotComparable(f"{what}, {count} objects: the plain form comes to another result")
            seconds = common.take_turns({"mrcnn": ours, "plain": plain}, args.runs)
            rows.append({
                "what": what, "objects": count, "seconds": common.summary(seconds["mrcnn"]),
                "plain_seconds": common.summary(seconds["plain"]),
                "times": common.ratio(seconds["plain"], seconds["mrcnn"]),
            })  # fmt: skip
    given = {"objects": args.objects, "size": args.size, "runs": args.runs}
    return {"input": given, "machine": common.machine(), "versions": common.versions(PACKAGES), "cases": rows}


def report(figures, markdown=False):
    """The figures as lines of text."""
    given = figures["input"]
    header = ["", "objects", "mrcnn", "least", "most", "plain", "times as fast"]
    rows = [
        [row["what"], row["objects"], *(f"{1e3 * row['seconds'][key]:.1f} ms" for key in ("median", "least", "most")),
         f"{1e3 * row['plain_seconds']['median']:.0f} ms", f"{row['times']:.1f}"] for row in figures["cases"]
    ]  # fmt: skip
    title = f"what surrounds the network, at {given['size']} pixels; medians of {given['runs']} runs, equal results"
    return [title, "", *common.table(header, rows, markdown)]


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Time what surrounds the network beside a plain form of the same.")
    parser.add_argument("--objects", type=common.positive, nargs="+", default=[10, 100],
                        help="in the image (default: 10 100)")  # fmt: skip
    parser.add_argument("--size", type=common.side, default=1024, help="of the image, pixels (default: 1024)")
    parser.add_argument("--runs", type=common.positive, default=5, help="of each function (default: 5)")
    common.add_output_arguments(parser)
    args = parser.parse_args(arguments)
    common.check_arguments(parser, args)
    common.complete(args, run, report)


if __name__ == "__main__":
    main()
