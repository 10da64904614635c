"""Average precision of a whole data set, COCO's way: images are collected into rows first, pycocotools scores the rows.

Collecting needs the images and the network, one batch at a time; scoring needs the rows alone. So the parts of a data
set may be collected anywhere, and joined with `Findings.add` in any order: several processes share the images out.
"""

import itertools
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from mrcnn.data.checks import ClassMismatch, Record, check_ready, clean_masks, image_name
from mrcnn.distribution import processes
from mrcnn.engine.confusion import confusion_matrix
from mrcnn.engine.progress import progress
from mrcnn.engine.scoring import (
    COCO_DETECTIONS,
    check_arguments,
    coco_results,
    encode_mask,
    load_pycocotools,
    make_coco,
    score,
)
from mrcnn.geometry.images import standardize_image

# The samples and `MaskRCNN` find all of evaluation here.
__all__ = [
    "COCO_DETECTIONS", "Findings", "choose_images", "coco_results", "collect", "confusion", "evaluate", "progress",
    "report_left_out", "score", "score_findings",
]  # fmt: skip


@dataclass
class Findings:
    """What was collected of some images: plain numbers and text, to be pickled or written as JSON.

    Attributes:
        images: list of {"id", "height", "width"}.
        annotations: list of COCO annotations, the ground truth; masks as compressed RLE, or as the data set has them.
        rows: list of detections, see `coco_results`.
        left_out: dict, name of an image that could not be used -> why.
        seconds: float, time that detection took.
    """

    images: list = field(default_factory=list)
    annotations: list = field(default_factory=list)
    rows: list = field(default_factory=list)
    left_out: dict = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, other):
        """Takes in what was collected of other images; the order does not change the scores."""
        self.images += other.images
        self.annotations += other.annotations
        self.rows += other.rows
        self.left_out |= other.left_out
        self.seconds += other.seconds


def evaluate(detect, dataset, image_ids=None, limit=0, eval_type="both", batch_size=1, max_detections=COCO_DETECTIONS,
             verbose=1, channels=None):
    """Measures how well a function finds the objects of a data set; docs/evaluation.md explains the numbers.

    Args:
        detect: function of a list of images that returns a list of dicts as `MaskRCNN.detect`; its masks may be RLE.
        dataset: Dataset, prepared.
        image_ids: indices of the images to evaluate; all by default.
        limit: int, only the first so many of them; 0 = all.
        eval_type: "bbox", "segm" or "both".
        batch_size: int, images per call of `detect`.
        max_detections: int >= 100, best detections that count per image and class.
        verbose: 1 shows progress and prints pycocotools' summary and a table per class; 0 prints nothing. Of several
            processes the first prints.
        channels: int, what `detect` takes, see `standardize_image`; None passes images as the data set has them.

    Returns:
        dict: "bbox" and "segm" (what `eval_type` asks for), "images", "objects" and "detections" as `score`;
        "seconds_detecting", "seconds" (float); "left_out" (dict, name of an image that could not be used -> why);
        "curves" as `score` and "confusion" as `confusion`, which `visualize` plots.

    Raises:
        ValueError: a wrong argument, a data set that is empty or not prepared, too many images that cannot be read
            (see `Record`), or results that do not fit the images.
        ImportError: pycocotools is not installed.
    """
    started, verbose = time.perf_counter(), verbose and processes.is_first()
    check_arguments(eval_type, max_detections, batch_size)
    check_ready(dataset)
    image_ids = choose_images(dataset, image_ids, limit)
    load_pycocotools()
    with progress(len(image_ids), "Evaluating", verbose) as advance:
        found = collect(detect, dataset, image_ids, eval_type, batch_size, channels, advance)
    result = score_findings(found, dataset, eval_type, max_detections, verbose)
    result["seconds"] = time.perf_counter() - started
    if verbose:
        count = result["images"]
        print(f"{count} images, {result['objects']} objects, {result['detections']} detections. Detection took "
              f"{found.seconds:.1f} s ({found.seconds / count:.3f} s per image), all {result['seconds']:.1f} s")
    return result


def choose_images(dataset, image_ids=None, limit=0):
    """The indices to evaluate as a list of int; raises a ValueError for what is no image of the data set."""
    if isinstance(limit, bool) or not isinstance(limit, int | np.integer) or limit < 0:
        raise ValueError(f"limit must be a whole number, 0 for all images; received {limit!r}")
    chosen = list(dataset.image_ids if image_ids is None else image_ids)
    for image_id in chosen:
        is_index = isinstance(image_id, int | np.integer) and not isinstance(image_id, bool)
        if not is_index or not 0 <= image_id < len(dataset.image_ids):
            raise ValueError(f"unknown image id {image_id!r}: ids are indices from 0 to {len(dataset.image_ids) - 1}; "
                             "dataset.image_from_source_map has those of the sources' own ids")
    chosen = [int(image_id) for image_id in chosen[: limit or None]]
    if not chosen:
        raise ValueError("image_ids is empty: there is no image to evaluate")
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"image_ids names image {Counter(chosen).most_common(1)[0][0]} more than once")
    return chosen


def collect(detect, dataset, image_ids, eval_type="both", batch_size=1, channels=None, advance=None, coco_ids=None):
    """Detects in images and notes the ground truth; full-size masks live no longer than their batch.

    Where several processes work together each detects in its share of the images, and all get what all have found.

    Args:
        detect, dataset, eval_type, batch_size, channels: see `evaluate`.
        image_ids: list of int, indices of images.
        advance: function that is told the number of images just done.
        coco_ids: id in the ground truth of each image of the data set, by index; by default the images' own ids where
            these are different whole numbers, else the indices.

    Returns:
        Findings.

    Raises:
        ValueError: too many images cannot be read, or results do not fit the images.
        ConnectionError: another process has gone.
    """
    coco_ids, advance = _coco_ids(dataset) if coco_ids is None else coco_ids, advance or (lambda count: None)
    with processes.together():
        own = image_ids[processes.index() :: processes.count()]
        found = _collect(detect, dataset, own, eval_type, batch_size, channels, advance, coco_ids)
        everyones = Findings()
        for number, part in enumerate(processes.gather(found)):
            everyones.add(part)
            if number != processes.index():
                advance(len(part.images) + len(part.left_out))
    return everyones


def _collect(detect, dataset, image_ids, eval_type, batch_size, channels, advance, coco_ids):
    """What `collect` does, in one process."""
    found, record, with_masks = Findings(), Record(len(image_ids)), eval_type != "bbox"
    readable = _readable(dataset, image_ids, channels, record, advance)
    while batch := list(itertools.islice(readable, batch_size)):
        for image_id, image, annotations in batch:
            number, (height, width) = coco_ids[image_id], image.shape[:2]
            found.images.append({"id": number, "height": height, "width": width})
            found.annotations += [annotation | {"image_id": number} for annotation in annotations]
        rows, seconds = _detect(detect, dataset, batch, coco_ids, with_masks)
        found.rows += rows
        found.seconds += seconds
        advance(len(batch))
    found.left_out = dict(record.problems)
    return found


def _coco_ids(dataset):
    """The images' own ids where these are different whole numbers, as COCO's; else their indices.

    Detections of equal score count in the order of ids, so that COCO's own evaluation comes to the same numbers.
    """
    own = [info["id"] for info in dataset.image_info]
    are_numbers = all(isinstance(number, int | np.integer) and not isinstance(number, bool) for number in own)
    return [int(number) for number in own] if are_numbers and len(set(own)) == len(own) else range(len(own))


def _readable(dataset, image_ids, channels, record, advance):
    """(image id, image, annotations) of the images that can be used; the record keeps the others."""
    for image_id in image_ids:
        where = image_name(dataset, image_id)
        record.seen(image_id)
        try:
            image = dataset.load_image(image_id)
            image = np.asarray(image) if channels is None else standardize_image(image, channels, where)
            if image.ndim not in (2, 3) or image.size == 0:
                raise ValueError(f"{where}: load_image must return [height, width, channels]; it has {image.shape}")
            annotations, lost = _annotations(dataset, image_id, image.shape[:2], where)
        except (ClassMismatch, MemoryError):
            raise
        except Exception as error:  # a data set's own methods may raise anything
            record.failed(image_id, where, error)
            advance(1)
        else:
            if lost:
                record.lost(image_id, lost)
            yield image_id, image, annotations


def _annotations(dataset, image_id, shape, where):
    """COCO annotations of an image, and the number of its masks that have no pixel and are left out."""
    given = dataset.coco_annotations(image_id)
    if given is None:
        masks, class_ids = clean_masks(*dataset.load_mask(image_id), shape, dataset.num_classes, where)
        visible = np.flatnonzero(masks.any(axis=(0, 1)))
        made = [
            {"category_id": int(abs(class_ids[n])), "iscrowd": int(class_ids[n] < 0),
             "segmentation": encode_mask(masks[:, :, n])}
            for n in visible
        ]  # fmt: skip
        return made, len(class_ids) - len(visible)
    for annotation in given:
        if not 1 <= annotation["category_id"] < dataset.num_classes:
            raise ClassMismatch(f"{where}: coco_annotations gives class id {annotation['category_id']}; ids go from 1 "
                                f"to {dataset.num_classes - 1}")
        segmentation = annotation.get("segmentation")
        if isinstance(segmentation, dict) and list(segmentation["size"]) != list(shape):
            raise ValueError(f"{where}: an annotation is for an image of (height, width) {segmentation['size']}, but "
                             f"the image has {list(shape)}")
    return given, 0


def _detect(detect, dataset, batch, coco_ids, with_masks):
    """(rows, seconds) of a batch of `_readable`'s images."""
    names = [image_name(dataset, image_id) for image_id, _, _ in batch]
    started = time.perf_counter()
    try:
        results = detect([image for _, image, _ in batch])
    except ValueError as error:
        known = "; ".join(f"images[{n}] is {name}" for n, name in enumerate(names))
        raise ValueError(f"{error} ({known})") from error
    seconds = time.perf_counter() - started
    if len(results) != len(batch):
        raise ValueError(f"detect must return a result per image; it returned {len(results)} for {len(batch)} images")
    rows = []
    for (image_id, image, annotations), result, name in zip(batch, results, names):
        _check_result(result, image.shape[:2], dataset.num_classes, with_masks, name)
        masks = result["masks"] if with_masks else None
        class_ids = np.abs(result["class_ids"])  # of a crowd it is negative, as in `load_mask`
        found = coco_results(coco_ids[image_id], result["rois"], class_ids, result["scores"], masks)
        # Of classes that the image's source does not know nobody can say whether they are there.
        source = dataset.source_class_ids.get(dataset.image_info[image_id]["source"], dataset.class_ids)
        judged = {*source, *(annotation["category_id"] for annotation in annotations)}
        rows += [row for row in found if row["category_id"] in judged]
    return rows, seconds


def _is_rle(masks):
    return isinstance(masks, list) and all(isinstance(mask, dict) for mask in masks)


def _masks_fit(masks, shape, count):
    if _is_rle(masks):
        return len(masks) == count and all(tuple(mask["size"]) == tuple(shape) for mask in masks)
    return np.shape(masks) == (*shape, count)


def _described(masks):
    return f"RLE of {[tuple(mask['size']) for mask in masks]}" if _is_rle(masks) else np.shape(masks)


def _check_result(result, shape, num_classes, with_masks, where):
    count, class_ids = len(result["rois"]), np.abs(result["class_ids"])
    if len(class_ids) != count or len(result["scores"]) != count:
        raise ValueError(f"{where}: detect returned {count} rois, {len(class_ids)} class_ids and "
                         f"{len(result['scores'])} scores")
    if with_masks and count and not _masks_fit(result["masks"], shape, count):
        raise ValueError(f"{where}: masks must be [height, width, N], {(*shape, count)}, or a list of N RLE of this "
                         f"size; detect returned {_described(result['masks'])}")
    if count and not 1 <= class_ids.min() <= class_ids.max() < num_classes:
        raise ValueError(f"{where}: detect returned class ids from {class_ids.min()} to {class_ids.max()}; those of "
                         f"the data set go from 1 to {num_classes - 1}")


def report_left_out(found, verbose=1):
    """Prints which images could not be used, if `verbose`; raises a ValueError if there is no other image."""
    problems = "\n".join(f"  {name}: {problem}" for name, problem in found.left_out.items())
    if not found.images:
        raise ValueError(f"none of the {len(found.left_out)} images could be used:\n{problems}")
    if verbose and problems:
        print(f"{len(found.left_out)} images were left out:\n{problems}")


def score_findings(found, dataset, eval_type="both", max_detections=COCO_DETECTIONS, verbose=1):
    """Scores what was collected of a data set.

    Args:
        found: Findings of all images.
        dataset, eval_type, max_detections, verbose: see `evaluate`.

    Returns:
        dict as `evaluate`, without "seconds".

    Raises:
        ValueError: no image could be used.
    """
    report_left_out(found, verbose)
    category_ids = [int(class_id) for class_id in dataset.class_ids[1:]]
    coco = make_coco(found.images, category_ids, found.annotations)
    result = score(coco, found.rows, [image["id"] for image in found.images], category_ids, dataset.class_names[1:],
                   eval_type, max_detections, verbose)  # fmt: skip
    return result | {"seconds_detecting": found.seconds, "left_out": found.left_out,
                     "confusion": confusion(found, dataset, "bbox" if eval_type == "bbox" else "segm", coco=coco)}


def confusion(found, dataset, kind="segm", iou_threshold=0.5, score_threshold=0.5, coco=None):
    """Counts which classes were taken for which; `visualize.plot_confusion_matrix` plots it.

    Args:
        found: Findings.
        dataset: Dataset, prepared.
        kind, iou_threshold, score_threshold: see `confusion_matrix`.
        coco: pycocotools.coco.COCO, the ground truth, where it was made already.

    Returns:
        dict: "matrix" (list of lists of int, see `confusion_matrix`), "names" (list of str, the background's first),
        "kind", "iou_threshold", "score_threshold".
    """
    category_ids = [int(class_id) for class_id in dataset.class_ids[1:]]
    coco = coco or make_coco(found.images, category_ids, found.annotations)
    matrix = confusion_matrix(coco, found.rows, category_ids, kind, iou_threshold, score_threshold)
    return {"matrix": matrix.tolist(), "names": list(dataset.class_names), "kind": kind,
            "iou_threshold": iou_threshold, "score_threshold": score_threshold}  # fmt: skip
