"""The nucleus sample as a module, and small data sets in its form."""

import functools
import types
from pathlib import Path

import numpy as np
import PIL.Image
import scripts

from mrcnn import utils

FOLDER = Path(__file__).resolve().parents[1] / "samples" / "nucleus"
load_script = functools.partial(scripts.load_script, FOLDER)

def write_image(folder, name, masks=None, size=(70, 90), seed=0):
    """Writes an image as RGBA PNG, bright where its masks are, and a file per mask, unless `masks` is None."""
    pixels = np.random.default_rng(seed).integers(0, 60, (*size, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    if masks is not None:
        pixels[masks.any(axis=-1), :3] = 200
    for sub in ("images",) if masks is None else ("images", "masks"):
        (folder / name / sub).mkdir(parents=True)
    PIL.Image.fromarray(pixels).save(folder / name / "images" / f"{name}.png")
    for index in range(0 if masks is None else masks.shape[2]):
        plane = masks[..., index].astype(np.uint8) * 255
        PIL.Image.fromarray(plane).save(folder / name / "masks" / f"{index:03}.png")


def squares(*corners, side=20, size=(70, 90)):
    masks = np.zeros((*size, len(corners)), bool)
    for index, (y, x) in enumerate(corners):
        masks[y : y + side, x : x + side, index] = True
    return masks


def write_dataset(root):
    """Four training images, a to d, and two test images, t1 and t2."""
    train, test = root / "stage1_train", root / "stage1_test"
    write_image(train, "b", squares((5, 5), (40, 60)), seed=1)
    write_image(train, "a", squares((10, 30)), seed=2)
    write_image(train, "c", squares((2, 3), (30, 40), (48, 5)), seed=3)
    write_image(train, "d", squares((25, 25), (5, 60), size=(80, 100)), size=(80, 100), seed=4)
    write_image(test, "t1", seed=5)
    write_image(test, "t2", seed=6)
    (train / "readme.txt").write_text("no image")
    (train / ".cache").mkdir()
    return root


class Oracle:
    """Stands in for a model: finds what the data set's masks are."""

    def __init__(self, dataset, found=None):
        self.config = types.SimpleNamespace(DETECTION_MAX_INSTANCES=400)
        self.answers = [found(*dataset.load_mask(i)) if found else dataset.load_mask(i)[0] for i in dataset.image_ids]
        self.images = [dataset.load_image(i) for i in dataset.image_ids]

    def detect(self, images, verbose=0):
        return [self.answer(image) for image in images]

    def answer(self, image):
        number = next(i for i, own in enumerate(self.images) if np.array_equal(own, image))
        masks = self.answers[number]
        count = masks.shape[2]
        return {"rois": utils.extract_bboxes(masks), "class_ids": np.ones(count, np.int32), "masks": masks,
                "scores": np.linspace(0.9, 0.5, count, dtype=np.float32)}  # fmt: skip
