"""Photos and data sets that are made from a seed, so that a benchmark needs no files."""

import numpy as np
import skimage.draw
import skimage.transform

from mrcnn.utils import Dataset

OBJECTS = 10  # on every generated image
LARGE = (3000, 2000)  # width and height of a large photo


def make_photo(width, height, seed=0):
    """[height, width, 3] uint8: smooth noise, coarse and fine."""
    rng = np.random.default_rng(seed)
    photo = np.zeros((height, width, 3), np.float32)
    for cell, weight in ((128, 0.6), (16, 0.4)):
        grid = rng.random((height // cell + 2, width // cell + 2, 3), np.float32)
        photo += weight * skimage.transform.resize(grid, photo.shape, order=1)
    return (255 * photo).astype(np.uint8)


class Objects(Dataset):
    """Ellipses of many sizes on smooth noise, ten on each image; an image is drawn when it is asked for.

    Args:
        count: int, images.
        size: int, their side, pixels.
        classes: int, kinds of objects.
    """

    def __init__(self, count, size, classes=80):
        super().__init__()
        for class_id in range(1, classes + 1):
            self.add_class("objects", class_id, f"object {class_id}")
        for number in range(count):
            self.add_image("objects", number, path=None, size=size)
        self.prepare()

    def _objects(self, image_id):
        """The class ids, and the pixels (rows, columns) of every object."""
        info = self.image_info[image_id]
        size, rng = info["size"], np.random.default_rng(info["id"])
        class_ids = rng.integers(1, self.num_classes, OBJECTS).astype(np.int32)
        pixels = []
        for _ in range(OBJECTS):
            radii = np.exp(rng.uniform(*np.log([0.03, 0.2]), 2)) * size
            center = rng.uniform(0.1 * size, 0.9 * size, 2)
            pixels.append(skimage.draw.ellipse(*center, *radii, shape=(size, size)))
        return class_ids, pixels

    def load_image(self, image_id):
        info = self.image_info[image_id]
        image = make_photo(info["size"], info["size"], info["id"])
        for class_id, pixels in zip(*self._objects(image_id), strict=True):
            image[pixels] = image[pixels] // 2 + np.array([class_id, 127 - class_id, 64], np.uint8)
        return image

    def load_mask(self, image_id):
        class_ids, objects = self._objects(image_id)
        masks = np.zeros((self.image_info[image_id]["size"],) * 2 + (OBJECTS,), bool)
        for index, pixels in enumerate(objects):
            masks[(*pixels, index)] = True
        return masks, class_ids
