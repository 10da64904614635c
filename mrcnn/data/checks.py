"""What can be wrong with a data set: checks that name the image, and a record of images that could not be used."""

import difflib
import logging
import threading
import warnings

import numpy as np

from mrcnn.geometry.boxed import BoxedMasks

_logger = logging.getLogger(__name__)


class ClassMismatch(ValueError):
    """The classes of a data set are wrong as such: no image can be used, so no image is skipped for it."""


class NoObjects(Exception):
    """An image shows nothing to learn from: never (`always`), or not after this crop and augmentation."""

    def __init__(self, always):
        super().__init__(always)
        self.always = always


def did_you_mean(name, known):
    """A sentence that proposes the known name nearest to a misspelt one; empty if none is near."""
    close = nearest(name, known)
    return f" Did you mean {close!r}?" if close else ""


def nearest(name, known):
    """The known name that is nearest to another one, in whatever case; None if none is near."""
    return next(iter(difflib.get_close_matches(str(name).lower(), known, n=1)), None)


def image_name(dataset, image_id):
    """Text that names an image by its id, source and path."""
    info = dataset.image_info[image_id]
    return f"image {info['id']!r} of source {info['source']!r} ({info['path']})"


def check_ready(dataset, role="the data set"):
    """Raises a ValueError unless the data set has images and is prepared."""
    if not hasattr(dataset, "image_info"):
        raise ValueError(f"{role} must be a mrcnn.utils.Dataset; received {dataset!r}")
    if not dataset.image_info:
        raise ValueError(f"{role} has no images: call add_image() for each of them, then prepare()")
    if not hasattr(dataset, "num_classes") or len(dataset.image_ids) != len(dataset.image_info):
        raise ValueError(
            f"{role} is not prepared: call prepare() after adding classes and images "
            f"({len(dataset.image_info)} added, {len(dataset.image_ids)} prepared)"
        )


def check_classes(dataset, num_classes, role="the data set"):
    """Raises a ClassMismatch unless the data set has as many classes as the network."""
    if dataset.num_classes != num_classes:
        raise ClassMismatch(
            f"NUM_CLASSES is {num_classes}, but {role} has {dataset.num_classes} classes with the background: "
            f"{', '.join(map(str, dataset.class_names))}. Set NUM_CLASSES = 1 + {dataset.num_classes - 1}, or add the "
            "same classes to each data set"
        )


def clean_masks(masks, class_ids, image_shape, num_classes, where):
    """Checks what a `load_mask` returned and brings it into one form.

    Args:
        masks: [H, W, N] bool or integer (everything but 0 is inside), or float of nothing but 0 and 1. Without objects
            any empty array will do.
        class_ids: [N] int, from 1 to `num_classes` - 1, or negative for crowds.
        image_shape: [H, W, ...] of the image.
        num_classes: int, background included.
        where: str, names the image.

    Returns:
        masks: [H, W, N] bool.
        class_ids: [N] int32.

    Raises:
        ValueError: wrong dtype, shape or number of masks.
        ClassMismatch: a class id out of range.
    """
    masks, class_ids = np.asarray(masks), np.asarray(class_ids)
    height, width = image_shape[:2]
    if masks.size == 0 and class_ids.size == 0:
        return np.zeros((height, width, 0), bool), np.zeros(0, np.int32)
    if masks.ndim != 3 or masks.shape[:2] != (height, width):
        raise ValueError(
            f"{where}: load_mask must return masks of the image's height and width, ({height}, {width}, N); received "
            f"{masks.shape}"
        )
    if masks.dtype.kind not in "bui" and not (masks.dtype.kind == "f" and np.isin(masks, (0, 1)).all()):
        raise ValueError(f"{where}: load_mask must return bool masks, or numbers 0 and 1; received dtype {masks.dtype}")
    if class_ids.shape != masks.shape[2:]:
        raise ValueError(
            f"{where}: load_mask must return one class id per mask; received {masks.shape[2]} masks and class ids of "
            f"shape {class_ids.shape}"
        )
    return masks.astype(bool, copy=False), _clean_class_ids(class_ids, num_classes, where)


def clean_boxed(masks, class_ids, image_shape, num_classes, where):
    """Checks what a `load_boxed_masks` returned, as `clean_masks` does.

    Args:
        masks: BoxedMasks of the image's size.
        class_ids, image_shape, num_classes, where: as for `clean_masks`.

    Returns:
        masks: BoxedMasks.
        class_ids: [N] int32.

    Raises:
        ValueError: no BoxedMasks, or of another size or number.
        ClassMismatch: a class id out of range.
    """
    class_ids = np.asarray(class_ids)
    if not isinstance(masks, BoxedMasks) or (masks.height, masks.width) != tuple(image_shape[:2]):
        size = f"{masks.height} x {masks.width}" if isinstance(masks, BoxedMasks) else type(masks).__name__
        raise ValueError(f"{where}: load_boxed_masks must return BoxedMasks of the image's height and width, "
                         f"{image_shape[0]} x {image_shape[1]}; received {size}")
    if class_ids.shape != (len(masks),):
        raise ValueError(f"{where}: load_boxed_masks must return one class id per mask; received {len(masks)} masks "
                         f"and class ids of shape {class_ids.shape}")
    return masks, _clean_class_ids(class_ids, num_classes, where)


def _clean_class_ids(class_ids, num_classes, where):
    if class_ids.dtype.kind not in "iuf" or not (class_ids == np.floor(class_ids)).all():
        raise ValueError(f"{where}: class ids must be whole numbers; received {class_ids.dtype}: {class_ids.tolist()}")
    wrong = class_ids[(class_ids == 0) | (class_ids >= num_classes)]
    if wrong.size:
        raise ClassMismatch(
            f"{where}: load_mask returned class id {wrong[0]}; ids go from 1 to {num_classes - 1} (0 is the "
            "background, negative ones are crowds). map_source_class_id() gives the id of a class of your source"
        )
    return class_ids.astype(np.int32)


def too_many(failed, total):
    """Whether so many images cannot be used that the data set is broken: more than one, and more than 5 % of all."""
    return failed > 1 and failed > 0.05 * total


class Record:
    """Keeps track of images while batches are made, in any number of threads.

    An image that fails is reported and counted. When there are `too_many` of them, `failed` raises.

    Args:
        total: int, number of images of the data set.
    """

    def __init__(self, total):
        self.total = total
        self.empty = set()  # ids of images that are known to have no objects
        self.problems = []  # (reference, error) of each image that failed
        self._seen, self._failed, self._tiny = set(), set(), {}
        self._lock = threading.Lock()

    def seen(self, image_id):
        with self._lock:
            self._seen.add(image_id)

    def failed(self, image_id, reference, error):
        """Counts and reports an image that could not be loaded; raises a ValueError when there are too many."""
        text = f"{type(error).__name__}: {error}"
        with self._lock:
            is_new = image_id not in self._failed
            self._failed.add(image_id)
            if is_new:
                self.problems.append((reference, text))
            failed, seen = len(self._failed), len(self._seen)
        if is_new:
            _logger.warning("left out, %d of %d images so far: %s: %s", failed, seen, reference, text)
        if too_many(failed, self.total):
            raise ValueError(f"{failed} of {self.total} images could not be used, more than 5 %, and {seen} were "
                             f"tried so far:\n{self.summary()}") from error

    def summary(self, most=20):
        """The problems, one a line."""
        lines = [f"  {reference}: {text}" for reference, text in self.problems[:most]]
        more = len(self.problems) - most
        return "\n".join(lines + [f"  and {more} more"] * (more > 0))

    def lost(self, image_id, count):
        """Counts the objects of an image that vanished by resizing; warns of the first, tenth, hundredth ... image."""
        with self._lock:
            if image_id in self._tiny:  # seen in an earlier epoch
                return
            self._tiny[image_id] = count
            objects, images = sum(self._tiny.values()), len(self._tiny)
        if str(images).strip("0") == "1":
            warnings.warn(f"{objects} objects in {images} images so far are smaller than a pixel after resizing, or "
                          "have no pixels at all; they are left out", stacklevel=2)
