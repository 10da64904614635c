"""A look at a whole data set before training: the facts of its images, and what is wrong with them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from mrcnn.data.checks import clean_masks, image_name
from mrcnn.geometry.images import standardize_image
from mrcnn.geometry.masks import extract_bboxes

SMALL, LARGE = 0.5, 2  # times the side of the smallest and of the largest anchor, beyond which none fits
THIN = 4  # times as long as wide: the anchors' proportions reach 1 to 2


@dataclass
class ImageFacts:
    """What is known of an image; of one that cannot be used, nothing but the error.

    Attributes:
        image_id: int.
        height, width: int, pixels.
        mean_color: [channels] float, 0..255.
        class_ids: [N] int32, negative for crowds.
        boxes: [N, (y1, x1, y2, x2)] int32, pixels; zeros for an empty mask.
        areas: [N] int, pixels of each mask.
        error: str, empty if the image can be used.
    """

    image_id: int
    height: int = 0
    width: int = 0
    mean_color: np.ndarray = field(default_factory=lambda: np.zeros(3))
    class_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.int32))
    areas: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    error: str = ""


@dataclass
class Problem:
    """A kind of problem that a data set has or has not.

    Attributes:
        name: str, what is wrong.
        consequence: str, what training makes of it.
        image_ids: list of int, the images concerned.
        objects: int, number of objects concerned.
    """

    name: str
    consequence: str
    image_ids: list
    objects: int


def survey(dataset, image_ids=None, workers=4, channels=3):
    """Reads images and masks, several at a time, and keeps what can be counted of them.

    Args:
        dataset: Dataset, prepared.
        image_ids: list of int; by default all.
        workers: int, threads.
        channels: int, what the network takes (`IMAGE_CHANNEL_COUNT`); images become that as they do in training.

    Returns:
        list of ImageFacts, in the order of `image_ids`.
    """
    image_ids = dataset.image_ids if image_ids is None else image_ids
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda image_id: _facts(dataset, int(image_id), channels), image_ids))


def _facts(dataset, image_id, channels):
    where = image_name(dataset, image_id)
    try:
        image = standardize_image(dataset.load_image(image_id), channels, where)
        masks, class_ids = clean_masks(*dataset.load_mask(image_id), image.shape, dataset.num_classes, where)
    except Exception as error:  # each data set has its own kinds
        return ImageFacts(image_id, error=f"{type(error).__name__}: {error}")
    boxes = extract_bboxes(masks)
    areas = [int(masks[y1:y2, x1:x2, index].sum()) for index, (y1, x1, y2, x2) in enumerate(boxes)]
    mean_color = image.mean(axis=(0, 1))
    return ImageFacts(image_id, *image.shape[:2], mean_color, class_ids, boxes, np.array(areas, int))


def find_problems(facts, scale, anchor_scales, most_objects):
    """Counts what training stumbles over, or passes over in silence.

    Args:
        facts: list of ImageFacts.
        scale: function of ImageFacts -> number by which the image is multiplied for the network.
        anchor_scales: list of numbers, sides of the anchors in pixels of the network's image.
        most_objects: int, objects of an image that are used (`MAX_GT_INSTANCES`).

    Returns:
        list of Problem, of every kind, those that do not occur among them.
    """
    usable = [fact for fact in facts if not fact.error]
    sides = [_sides(fact, scale) for fact in usable]
    least, most = SMALL * min(anchor_scales), LARGE * max(anchor_scales)
    real = [(fact.areas > 0) & (pair.min(axis=1) >= 1) for fact, pair in zip(usable, sides)]

    def objects(name, consequence, chosen):
        counts = [int(np.sum(rows)) for rows in chosen]
        found = [fact.image_id for fact, count in zip(usable, counts) if count]
        return Problem(name, consequence, found, sum(counts))

    def images(name, consequence, chosen):
        return Problem(name, consequence, chosen, 0)

    # A side of the square that has the object's box as its area, as the scale of an anchor is meant.
    extents = [np.sqrt(pair.prod(axis=1)) for pair in sides]
    return [
        images("image or masks cannot be read", "left out; too many end the training",
               [fact.image_id for fact in facts if fact.error]),
        images("no objects", "left out",
               [fact.image_id for fact in usable if not len(fact.class_ids)]),
        images("nothing but crowds", "left out",
               [fact.image_id for fact in usable if len(fact.class_ids) and (fact.class_ids < 0).all()]),
        images(f"more than {most_objects} objects", "a random choice of them is used",
               [fact.image_id for fact in usable if len(fact.class_ids) > most_objects]),
        objects("crowd", "no target; anchors on it are neither object nor background",
                [fact.class_ids < 0 for fact in usable]),
        objects("empty mask", "left out", [fact.areas == 0 for fact in usable]),
        objects("vanishes when resized", "left out",
                [(fact.areas > 0) & ~rows for fact, rows in zip(usable, real)]),
        objects(f"too small for the anchors (below {least:g} pixels)", "found badly: add a smaller anchor, or enlarge",
                [rows & (extent < least) for rows, extent in zip(real, extents)]),
        objects(f"too large for the anchors (above {most:g} pixels)", "found badly: add a larger anchor",
                [rows & (extent > most) for rows, extent in zip(real, extents)]),
        objects(f"more than {THIN} times as long as wide", "found badly: add anchor ratios",
                [rows & (pair.max(axis=1) > THIN * pair.min(axis=1)) for rows, pair in zip(real, sides)]),
        objects("same class and box as another", "one of the two is likely a slip", map(_repeated, usable)),
    ]  # fmt: skip


def _sides(fact, scale):
    """[N, (height, width)] float of the boxes in pixels of the network's image."""
    return (fact.boxes[:, 2:] - fact.boxes[:, :2]) * float(scale(fact))


def _repeated(fact):
    """[N] bool, whether an object has class and box of one before it."""
    rows = np.column_stack([fact.class_ids, fact.boxes])
    first = np.unique(rows, axis=0, return_index=True)[1]
    return ~np.isin(np.arange(len(rows)), first) & (fact.areas > 0)
