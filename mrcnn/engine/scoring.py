"""Detections and ground truth as COCO writes them, and pycocotools' judgement of them as numbers and tables."""

import contextlib
import io
import math
from collections import Counter

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mrcnn.geometry.masks import box_runs

EVAL_TYPES = {"bbox": ("bbox",), "segm": ("segm",), "both": ("bbox", "segm")}
TITLES = {"bbox": "boxes", "segm": "masks"}
COCO_DETECTIONS = 100  # per image and class: what COCO counts, and pycocotools' summary shows


# ---- rows


def encode_mask(mask):
    """Compresses a mask.

    Args:
        mask: [H, W] bool or integer; everything but 0 is inside.

    Returns:
        dict: COCO's compressed RLE, "size" [height, width] and "counts" (str, so that JSON takes it).
    """
    return _as_text(load_pycocotools().mask.encode(np.asfortranarray(mask, dtype=bool).view(np.uint8)))


def encode_box_mask(mask, box, image_shape):
    """Compresses a mask that fills its box.

    Args:
        mask: [y2 - y1, x2 - x1] bool.
        box: [(y1, x1, y2, x2)] int, pixels.
        image_shape: (H, W) or (H, W, channels) of the image.

    Returns:
        dict as `encode_mask`.
    """
    (height, width), runs = image_shape[:2], box_runs(mask, box, image_shape)
    return _as_text(load_pycocotools().mask.frPyObjects({"size": [height, width], "counts": runs}, height, width))


def _as_text(rle):
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def coco_results(image_ref, rois, category_ids, scores, masks=None):
    """Writes the detections of an image as COCO does.

    Args:
        image_ref: id of the image in the ground truth.
        rois: [N, (y1, x1, y2, x2)] number, pixels; None for no detections.
        category_ids: [N] int, as in the ground truth.
        scores: [N] float.
        masks: [H, W, N] bool or integer, or a list of N masks as `encode_mask` returns them; None leaves masks out.

    Returns:
        list of dicts: image_id, category_id, bbox [x, y, width, height], score, segmentation (compressed RLE).
    """
    if rois is None:
        return []
    image_ref = image_ref.item() if isinstance(image_ref, np.generic) else image_ref
    rows = []
    for n, (y1, x1, y2, x2) in enumerate(np.asarray(rois).reshape(-1, 4).tolist()):
        row = {"image_id": image_ref, "category_id": int(category_ids[n]), "bbox": [x1, y1, x2 - x1, y2 - y1],
               "score": float(scores[n])}  # fmt: skip
        if masks is not None:
            row["segmentation"] = masks[n] if isinstance(masks, list) else encode_mask(masks[:, :, n])
        rows.append(row)
    return rows


# ---- scores


def score(coco, rows, image_ids, category_ids, names, eval_type="both", max_detections=COCO_DETECTIONS, verbose=1):
    """Scores detections against a ground truth, both as COCO writes them; neither is changed.

    Args:
        coco: pycocotools.coco.COCO, the ground truth.
        rows: list of detections, see `coco_results`; those of other images and categories do not count.
        image_ids: list of the ids of the images, in `coco`.
        category_ids: list of int, the categories.
        names: list of str, what the categories are called.
        eval_type, max_detections, verbose: see `evaluate`.

    Returns:
        dict: "images", "objects" (crowds are none), "detections" (int); "bbox" and "segm", each a dict of AP, AP50,
        AP75, AP_small, AP_medium, AP_large, AR_1, AR_10, AR_100 (and AR of `max_detections`), AR_small, AR_medium,
        AR_large, 0 to 1, and "per_class": name -> dict of AP, AP50, AP75, AR, objects. NaN where there are no such
        objects, 0 where none was found. "curves": "recalls" (list of 101 floats), and "bbox" and "segm" with
        precisions at these: "mean" (over classes) by IoU threshold ("0.50" ... "0.95"), "per_class" at IoU 0.5.

    Raises:
        ValueError: a wrong argument, an image that is not in `coco`, or masks of another size than their image.
    """
    check_arguments(eval_type, max_detections)
    _check_rows(rows, coco, image_ids, "segm" in EVAL_TYPES[eval_type])
    truth = make_coco([coco.imgs[image_id] for image_id in image_ids], category_ids, coco.dataset["annotations"])
    rows = [dict(row) for row in rows if row["image_id"] in truth.imgs and row["category_id"] in truth.cats]
    with _silence():  # loadRes takes no empty list
        results = truth.loadRes(rows) if rows else make_coco(truth.imgs.values(), category_ids, [])
    objects = dict.fromkeys(category_ids, 0)
    for annotation in truth.anns.values():
        objects[annotation["category_id"]] += not annotation["iscrowd"]
    labels = _labels(category_ids, names)
    result = {"images": len(truth.imgs), "objects": sum(objects.values()), "detections": len(rows), "curves": {}}
    for kind in EVAL_TYPES[eval_type]:
        evaluation = _run(truth, results, kind, max_detections)
        if verbose:
            print(f"\n{TITLES[kind].capitalize()}:")
            evaluation.summarize()
        result[kind] = _numbers(evaluation, labels, objects, max_detections)
        result["curves"] |= {"recalls": np.around(evaluation.params.recThrs, 2).tolist(),
                             kind: _curves(evaluation, labels, max_detections)}  # fmt: skip
    if verbose:
        _print_table({kind: result[kind] for kind in EVAL_TYPES[eval_type]}, max_detections)
    return result


def _labels(category_ids, names):
    """dict category id -> its name, with the id behind it where several have that name; no two are equal."""
    labels, taken = {}, Counter(names)
    for category_id, name in zip(category_ids, names, strict=True):
        label, is_shared = name, taken[name] > 1
        while is_shared and label in taken:
            label = f"{label} ({category_id})"
        labels[category_id] = label
        taken[label] += label != name
    return labels


def check_arguments(eval_type, max_detections, batch_size=1):
    if eval_type not in EVAL_TYPES:
        raise ValueError(f"eval_type must be one of {', '.join(EVAL_TYPES)}; received {eval_type!r}")
    if max_detections < COCO_DETECTIONS:
        raise ValueError(f"max_detections must be {COCO_DETECTIONS} or more; received {max_detections}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more; received {batch_size}")


def _check_rows(rows, coco, image_ids, with_masks):
    """Raises a ValueError for what pycocotools would score wrongly without a word."""
    if len(image_ids) == 0:
        raise ValueError("image_ids is empty: there is nothing to score")
    if unknown := {*image_ids, *(row["image_id"] for row in rows)} - set(coco.imgs):
        raise ValueError(f"the ground truth has no image {', '.join(map(repr, sorted(unknown, key=str)[:10]))}")
    for row in rows if with_masks else ():
        image = coco.imgs[row["image_id"]]
        size = row["segmentation"]["size"] if "segmentation" in row else "without a mask"
        if size != [image["height"], image["width"]]:
            raise ValueError(f"a detection {size} in image {image['id']!r} of (height, width) "
                             f"[{image['height']}, {image['width']}]: masks must have the size of their image")


def make_coco(images, category_ids, annotations):
    """A pycocotools COCO of these images and categories, with the annotations that belong to them."""
    coco = load_pycocotools().coco.COCO()
    images = {image["id"]: image for image in images}
    known = set(category_ids)
    own = (a for a in annotations if a["image_id"] in images and a["category_id"] in known)
    coco.dataset = {
        "images": list(images.values()),
        "categories": [{"id": category_id} for category_id in category_ids],
        "annotations": [_completed(a, number, images[a["image_id"]]) for number, a in enumerate(own, start=1)],
    }
    with _silence():
        coco.createIndex()
    return coco


def _completed(annotation, number, image):
    """A copy with all that pycocotools reads. Numbers start at 1: it takes an object 0 for one that was not found."""
    completed = {"iscrowd": 0} | annotation | {"id": number}
    if "area" not in annotation or "bbox" not in annotation:
        masks, segmentation = load_pycocotools().mask, annotation["segmentation"]
        if isinstance(segmentation, list):
            segmentation = masks.merge(masks.frPyObjects(segmentation, image["height"], image["width"]))
        elif isinstance(segmentation["counts"], list):
            segmentation = masks.frPyObjects(segmentation, image["height"], image["width"])
        completed = {"area": float(masks.area(segmentation)), "bbox": masks.toBbox(segmentation).tolist()} | completed
    return completed


def _run(truth, results, kind, max_detections):
    evaluation = load_pycocotools().cocoeval.COCOeval(truth, results, kind)
    # The summary reads the place of 100, so a larger number goes behind it.
    evaluation.params.maxDets = sorted({1, 10, COCO_DETECTIONS, int(max_detections)})
    with _silence():
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _numbers(evaluation, labels, objects, max_detections):
    """The dict of one kind, from precision [IoU, recall, class, size, limit] and recall [IoU, class, size, limit]."""
    params, precision, recall = evaluation.params, evaluation.eval["precision"], evaluation.eval["recall"]
    last = params.maxDets.index(max_detections)
    at = {"AP": slice(None), "AP50": np.isclose(params.iouThrs, 0.5), "AP75": np.isclose(params.iouThrs, 0.75)}
    sizes = list(enumerate(params.areaRngLbl))[1:]
    numbers = {name: _mean(precision[iou, :, :, 0, last]) for name, iou in at.items()}
    numbers |= {f"AP_{size}": _mean(precision[..., a, last]) for a, size in sizes}
    numbers |= {f"AR_{limit}": _mean(recall[..., 0, m]) for m, limit in enumerate(params.maxDets)}
    numbers |= {f"AR_{size}": _mean(recall[..., a, last]) for a, size in sizes}
    numbers["per_class"] = {
        labels[category_id]: {
            **{name: _mean(precision[iou, :, k, 0, last]) for name, iou in at.items()},
            "AR": _mean(recall[:, k, 0, last]), "objects": objects[category_id],
        }
        for k, category_id in enumerate(int(number) for number in params.catIds)
    }  # fmt: skip
    return numbers


def _curves(evaluation, labels, max_detections):
    """Precision over recall, of what there are objects for."""
    params = evaluation.params
    precision = evaluation.eval["precision"][:, :, :, 0, params.maxDets.index(max_detections)].round(6)
    seen = [k for k in range(precision.shape[2]) if (precision[:, :, k] > -1).all()]
    means = precision[:, :, seen].mean(axis=2).round(6).tolist() if seen else ()
    half = int(np.flatnonzero(np.isclose(params.iouThrs, 0.5))[0])
    return {
        "mean": {f"{iou:.2f}": values for iou, values in zip(params.iouThrs, means)},
        "per_class": {labels[int(params.catIds[k])]: precision[half, :, k].tolist() for k in seen},
    }


def _mean(values):
    """Mean over what there are objects for, which pycocotools marks with -1 otherwise."""
    values = values[values > -1]
    return float(values.mean()) if values.size else math.nan


# ---- what is shown


def _print_table(kinds, max_detections):
    """A line per class, then one for all of them."""
    console = Console()
    if not console.is_terminal and not console.is_jupyter:
        console.width = 120  # a file has no width of its own to fold at
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("class", overflow="fold")
    table.add_column("objects", justify="right", no_wrap=True)
    for kind in kinds:
        for name in ("AP", "AP50", "AP75", "AR"):
            table.add_column(f"{TITLES[kind]}\n{name}", justify="right")
    whole = [{**numbers, "AR": numbers[f"AR_{max_detections}"]} for numbers in kinds.values()]
    classes = [numbers["per_class"] for numbers in kinds.values()]
    lines = [(name, [one[name] for one in classes]) for name in classes[0]]
    total = sum(numbers["objects"] for numbers in classes[0].values())
    for name, columns in [*lines, ("all", whole)]:
        values = [numbers[key] for numbers in columns for key in ("AP", "AP50", "AP75", "AR")]
        cells = ["-" if math.isnan(value) else f"{value:.3f}" for value in values]
        table.add_row(Text(name), str(columns[0].get("objects", total)), *cells)
    print()
    console.print(table)
    note = f"at most {max_detections} detections per image and class"
    note += f" (in the summary above: {COCO_DETECTIONS})" if max_detections > COCO_DETECTIONS else ""
    print(note)


def _silence():
    """Keeps pycocotools' remarks from the screen."""
    return contextlib.redirect_stdout(io.StringIO())


def load_pycocotools():
    """The package with its modules; imported here, because it is an extra."""
    try:
        import pycocotools.coco
        import pycocotools.cocoeval
        import pycocotools.mask
    except ImportError as error:
        raise ImportError("COCO's measures and masks need pycocotools: pip install pycocotools") from error
    return pycocotools
