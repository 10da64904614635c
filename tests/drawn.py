"""Data sets drawn by rectangles, and stand-ins for a model that know what is in them."""

import numpy as np

from mrcnn.data.dataset import Dataset
from mrcnn.engine import evaluation
from mrcnn.geometry.masks import extract_bboxes

KINDS = ("bbox", "segm")


class Drawn(Dataset):
    """Images given as (masks, class ids); their pixels are their number, so that a stand-in knows them."""

    def __init__(self, *truths, classes=("dot", "bar", "ring")):
        super().__init__()
        for class_id, name in enumerate(classes, start=1):
            self.add_class("drawn", class_id, name)
        for number, truth in enumerate(truths):
            self.add_image("drawn", f"no. {number}", path=f"{number}.png", truth=truth)
        self.prepare()
        self.loaded = []

    def load_image(self, image_id):
        self.loaded.append(("image", int(image_id)))
        masks, _ = self.image_info[image_id]["truth"]
        return np.full((*masks.shape[:2], 3), image_id, np.uint8)

    def load_mask(self, image_id):
        self.loaded.append(("mask", int(image_id)))
        return self.image_info[image_id]["truth"]


def truth(*objects, shape=(64, 80)):
    """(masks, class ids) of objects (class id, y1, x1, y2, x2)."""
    masks = np.zeros((*shape, len(objects)), bool)
    for n, (_, y1, x1, y2, x2) in enumerate(objects):
        masks[y1:y2, x1:x2, n] = True
    return masks, np.array([class_id for class_id, *_ in objects], np.int32)


def result(masks, class_ids, scores=None):
    """What `detect` returns for these masks."""
    scores = np.ones(len(class_ids), np.float32) if scores is None else np.asarray(scores, np.float32)
    return {"rois": extract_bboxes(masks), "class_ids": np.abs(class_ids), "scores": scores, "masks": masks}


def answers(*results):
    """A stand-in that knows the results of images by their number."""
    return lambda images: [results[image[0, 0, 0]] for image in images]


def echo(dataset):
    """A stand-in that finds each object, but no crowd."""

    def answer(masks, class_ids):
        return result(masks[:, :, class_ids > 0], class_ids[class_ids > 0])

    return answers(*(answer(*info["truth"]) for info in dataset.image_info))


def nothing(images):
    return [result(np.zeros((*image.shape[:2], 0), bool), np.zeros(0, np.int32)) for image in images]


def evaluate(detect, dataset, **arguments):
    """`evaluation.evaluate` without a word."""
    return evaluation.evaluate(detect, dataset, **{"verbose": 0, **arguments})


def noisy(seed):
    """Truths and results of a few images: objects moved, missed, confused and invented; scores tie now and then."""
    draw = np.random.default_rng(seed)
    truths, results = [], []
    for _ in range(draw.integers(1, 5)):
        height, width = draw.integers(60, 220, 2)

        def objects(count, signs, height=height, width=width):
            sides = draw.integers(3, 60, (count, 2))
            corners = (draw.random((count, 2)) * ((height, width) - sides)).astype(int)
            classes = draw.integers(1, 4, count) * draw.choice(signs, count)
            return np.concatenate([classes[:, None], corners, corners + sides], axis=1)

        real = objects(draw.integers(0, 8), [1, 1, 1, -1])
        found = np.concatenate([real[draw.random(len(real)) < 0.8], objects(draw.integers(0, 4), [1])])
        found[:, 1:] += draw.integers(-2, 3, (len(found), 4)) * (found[:, 1:] > 2)
        found[:, 0] = np.where(draw.random(len(found)) < 0.9, np.abs(found[:, 0]), 1)
        truths.append(truth(*real, shape=(height, width)))
        results.append(result(*truth(*found, shape=(height, width)), draw.integers(1, 6, len(found)) / 5))
    return truths, results


def counts(mask):
    """COCO's run lengths: pixels column by column, zeros first."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel().astype(int), [2]])))
    return np.diff(np.concatenate([[0], edges])).tolist()


def several():
    """Five images: several classes, sizes and crowds, and one image without anything."""
    return Drawn(
        truth((1, 2, 3, 12, 30), (2, 20, 20, 50, 60), (-2, 0, 0, 64, 80)),
        truth(),
        truth((1, 0, 0, 1, 1), (1, 5, 5, 9, 9)),
        truth((-3, 1, 1, 30, 30)),
        truth((2, 10, 10, 30, 30), shape=(40, 40)),
    )
