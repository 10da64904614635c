"""Images and masks at the scale of the network: before padding, cropping and augmentation, so nothing is random yet.

What comes out the same each time is made once, as far as memory goes (`mrcnn.data.kept`).
"""

import os
from typing import NamedTuple

import numpy as np

from mrcnn.data.checks import clean_boxed, clean_masks, image_name
from mrcnn.data.dataset import Dataset, written_for
from mrcnn.data.kept import MEMORY
from mrcnn.geometry.boxed import BoxedMasks
from mrcnn.geometry.images import scale_image, standardize_image


class Resizing(NamedTuple):
    """How images are scaled: the arguments of `resize_image`, and the number of channels."""

    min_dim: int
    max_dim: int
    min_scale: float
    mode: str
    channels: int


class Scaled(NamedTuple):
    """An image that may be read-only, its scale, its shape before, `BoxedMasks` and class ids; the ids are shared."""

    image: np.ndarray
    scale: float
    original_shape: tuple
    masks: BoxedMasks
    class_ids: np.ndarray


def load_scaled(dataset, image_id, resizing, limit=0):
    """Loads an image and its masks, checks and scales them.

    An image is kept if `Dataset.load_image` reads it, for as long as its file has the same time and size; masks are
    kept if the data set says `masks_are_fixed`.

    Args:
        dataset: Dataset, prepared.
        image_id: int, index of the image.
        resizing: Resizing.
        limit: int, bytes of memory that all that is kept may take.

    Returns:
        Scaled.

    Raises:
        ValueError, FileNotFoundError: the image cannot be read or its masks do not fit it; the message names the image.
    """
    where = image_name(dataset, image_id)
    stamp = _image_stamp(dataset, image_id, resizing) if limit else None
    found = MEMORY.find(dataset, ("image", image_id), stamp) if stamp else None
    image, scale, shape = found or _load_image(dataset, image_id, resizing, where)
    masks, class_ids = _load_masks(dataset, image_id, shape, scale, limit, where)
    if stamp and not found and len(class_ids):  # an image without objects is not asked for again
        image = np.ascontiguousarray(image)
        image.flags.writeable = False
        MEMORY.keep(dataset, ("image", image_id), stamp, (image, scale, shape), image.nbytes + 1000, limit)
    return Scaled(image, scale, shape, masks, class_ids)


def _load_image(dataset, image_id, resizing, where):
    """(scaled image, scale, shape before) as read by the data set."""
    image = standardize_image(dataset.load_image(image_id), resizing.channels, where)
    return *scale_image(image, *resizing[:4]), image.shape


def _image_stamp(dataset, image_id, resizing):
    """What an image as scaled depends on; None if that cannot be told."""
    if type(dataset).load_image is not Dataset.load_image or "load_image" in getattr(dataset, "__dict__", ()):
        return None
    path = dataset.image_info[image_id]["path"]
    try:
        state = os.stat(path)
    except (OSError, TypeError, ValueError):  # not a file: an address, or nothing
        return None
    return os.fspath(path), state.st_mtime_ns, state.st_size, resizing


def _load_masks(dataset, image_id, shape, scale, limit, where):
    """(BoxedMasks, class ids), checked and scaled."""
    # The number of a class depends on all that are there.
    stamp = (shape, scale, len(dataset.class_info), len(dataset.image_info))
    is_fixed = limit and written_for(dataset, "masks_are_fixed", "load_mask") and dataset.masks_are_fixed
    found = MEMORY.find(dataset, ("masks", image_id), stamp) if is_fixed else None
    if found:
        return found
    masks, class_ids = _read_masks(dataset, image_id, shape, where)
    masks = masks.scaled(scale)
    if is_fixed and len(class_ids):
        size = masks.nbytes + class_ids.nbytes + 1000
        MEMORY.keep(dataset, ("masks", image_id), stamp, (masks, class_ids), size, limit)
    return masks, class_ids


def _read_masks(dataset, image_id, shape, where):
    """(BoxedMasks, class ids) as the data set has them, checked."""
    if written_for(dataset, "load_boxed_masks", "load_mask"):
        loaded = dataset.load_boxed_masks(image_id)
        if loaded is not None:
            return clean_boxed(*_pair(loaded, "load_boxed_masks", where), shape, dataset.num_classes, where)
    loaded = _pair(dataset.load_mask(image_id), "load_mask", where)
    masks, class_ids = clean_masks(*loaded, shape, dataset.num_classes, where)
    return BoxedMasks.cut(masks), class_ids


def _pair(loaded, method, where):
    if not isinstance(loaded, tuple | list) or len(loaded) != 2:
        raise ValueError(f"{where}: {method} must return (masks, class_ids); it returned {type(loaded).__name__}")
    return loaded
