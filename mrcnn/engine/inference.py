"""From photos of any size to batches, and from the network's rows back to objects in each photo's own pixels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple

import keras
import numpy as np

from mrcnn.data.checks import did_you_mean
from mrcnn.engine.inspect import log
from mrcnn.engine.scoring import encode_box_mask, load_pycocotools
from mrcnn.geometry.boxes import denorm_boxes, norm_boxes
from mrcnn.geometry.images import compose_image_meta, mold_image, resize_image, standardize_image
from mrcnn.geometry.masks import blank, paste_mask, resize_to_box

MASK_KINDS = ("full", "box", "rle")


class Molded(NamedTuple):
    """One image on its way through the network.

    Attributes:
        original_shape: (height, width, channels) of the user's image.
        image: [H, W, channels] float, resized and padded, without the mean pixel.
        meta: [12 + classes] number, see `compose_image_meta`.
        window: (y1, x1, y2, x2) pixels of `image` that are no padding.
    """

    original_shape: tuple
    image: np.ndarray
    meta: np.ndarray
    window: tuple


def check_images(images):
    """Makes sure that `images` is a sequence of images and not one image, a path or a generator.

    Raises:
        ValueError: naming what was received and what to pass.
    """
    if isinstance(images, (str, bytes, os.PathLike)):
        raise ValueError(f"images must be a list of arrays; received the path {images!r}. Read it first, for instance "
                         f"with skimage.io.imread, and pass [image]")
    if isinstance(images, np.ndarray) and images.ndim in (2, 3):
        raise ValueError(f"images must be a list of arrays; received one array of shape {images.shape}. Pass [image]")
    if not isinstance(images, (list, tuple, np.ndarray)) or (isinstance(images, np.ndarray) and images.ndim != 4):
        raise ValueError(f"images must be a list of arrays [height, width, channels]; received {type(images).__name__}")


@dataclass(frozen=True)
class Molding:
    """How images are brought into the form that the network takes.

    Attributes:
        channels: channels of an image.
        min_dim, max_dim, min_scale, mode: see `resize_image`.
        mean_pixel: [channels] float, subtracted.
        classes: number of classes, background included.
        multiple_of: what the sides of a molded image must be multiples of, pixels.
    """

    channels: int
    min_dim: int | None
    max_dim: int | None
    min_scale: float | None
    mode: str
    mean_pixel: np.ndarray
    classes: int
    multiple_of: int

    def mold(self, image, where="image"):
        """Resizes one image and subtracts the mean pixel.

        Args:
            image: [H, W, channels] or [H, W]; see `standardize_image`.
            where: what the image is called in messages.

        Returns:
            `Molded`.

        Raises:
            ValueError: the image cannot be read as one, or the network cannot take its size.
        """
        if isinstance(image, (str, bytes, os.PathLike)):
            raise ValueError(f"{where}: expected an array [height, width, channels], received the path {image!r}. Read "
                             "it first, for instance with skimage.io.imread")
        image = standardize_image(image, self.channels, where)
        molded, window, scale, _, _ = resize_image(image, self.min_dim, self.max_dim, self.min_scale, self.mode)
        height, width = molded.shape[:2]
        if height % self.multiple_of or width % self.multiple_of:
            raise ValueError(f"{where}: the network takes sides that are multiples of {self.multiple_of} pixels, not "
                             f"{height} x {width} as IMAGE_RESIZE_MODE {self.mode!r} made it. Use 'square' or 'pad64'")
        no_classes = np.zeros(self.classes, np.int32)
        meta = compose_image_meta(0, image.shape, molded.shape, window, scale, no_classes)
        return Molded(image.shape, mold_image(molded, self.mean_pixel), meta, window)


def mold_inputs(images, molding):
    """Molds images that come out equally large into one batch.

    Args:
        images: list of [H, W, channels] arrays, see `standardize_image`.
        molding: Molding.

    Returns:
        molded_images: [batch, H, W, channels] float64.
        image_metas: [batch, 12 + classes] float64, or int64 when the scale of every image is a whole number.
        windows: [batch, (y1, x1, y2, x2)] int, pixels of the molded images.

    Raises:
        ValueError: there is no image, an image cannot be used, or they come out in different sizes.
    """
    check_images(images)
    if len(images) == 0:
        raise ValueError("images is empty: a batch needs one image at least")
    molded = [molding.mold(image, f"images[{index}]") for index, image in enumerate(images)]
    shapes = {m.image.shape for m in molded}
    if len(shapes) > 1:
        raise ValueError(f"images of different sizes cannot share a batch: with IMAGE_RESIZE_MODE = {molding.mode!r} "
                         f"these become {sorted(shapes)}. Mold them one at a time, or call detect(), which takes any "
                         "mixture")
    return (
        np.stack([m.image for m in molded]),
        np.stack([m.meta for m in molded]),
        np.stack([m.window for m in molded]),
    )


def check_mask_kind(masks):
    """Makes sure that the masks asked for are of a kind that there is.

    Raises:
        ValueError: they are not.
        ImportError: it is "rle", and pycocotools is not installed.
    """
    if not isinstance(masks, str) or masks not in MASK_KINDS:
        raise ValueError(f"masks must be one of {MASK_KINDS}; received {masks!r}.{did_you_mean(masks, MASK_KINDS)}")
    if masks == "rle":
        load_pycocotools()


def detect(images, molding, batch_size, predict, verbose=0, masks="full"):
    """Detects objects in images of any number and size.

    Images are molded one by one and run as soon as a batch of one molded size is full, so that memory stays bounded.

    Args:
        images: list of [H, W, channels] arrays.
        molding: Molding.
        batch_size: images of one molded size that run together.
        predict: function of molded images and metas (lists) that returns, for each image, detections and the masks of
            the detected classes, see `in_batches`.
        verbose: 1 prints what goes in.
        masks: "full", "box" or "rle", see `unmold_detections`.

    Returns:
        list of dicts as `to_result`, in the order of `images`.

    Raises:
        ValueError: `images` is no list of images, one of them cannot be used, or `masks` is unknown.
    """
    check_images(images)
    check_mask_kind(masks)
    if verbose:
        print(f"Processing {len(images)} images")
    results, pending = [None] * len(images), {}

    def run(shape):
        group = pending.pop(shape)
        found = predict([m.image for _, m in group], [m.meta for _, m in group])
        # without the molded images, whose memory the masks may need
        group = [(index, (m.original_shape, shape, m.window)) for index, m in group]
        for (index, unmolding), (rows, planes) in zip(group, found, strict=True):
            results[index] = to_result(*unmold_detections(rows, planes, *unmolding, masks))

    def add(index, image):
        molded = molding.mold(image, f"images[{index}]")
        shape = molded.image.shape
        pending.setdefault(shape, []).append((index, molded))
        return shape

    for index, image in enumerate(images):
        shape = add(index, image)
        if verbose:
            log("image", image)
        if len(pending[shape]) == batch_size:
            run(shape)
    for shape in list(pending):
        run(shape)
    return results


def detect_molded(molded_images, image_metas, predict, verbose=0, masks="full", molding=None):
    """Detects objects in images that are molded already; results are in pixels of the molded images.

    Args:
        molded_images: [batch, H, W, channels] float, or a list of images of one shape.
        image_metas: [batch, 12 + classes] number.
        predict, masks: see `detect`.
        verbose: 1 prints what goes in.
        molding: Molding that images and metas have to fit; None takes them as they are.

    Returns:
        list of dicts as `to_result`.

    Raises:
        ValueError: images and metas differ in number, the images in shape, they do not fit the network, or `masks` is
            unknown.
    """
    check_mask_kind(masks)
    for name, rows in (("molded_images", molded_images), ("image_metas", image_metas)):
        if not hasattr(rows, "__len__") or getattr(rows, "ndim", 1) == 0:  # an array of no axes
            raise ValueError(f"{name} must be an array or a list, as mold_inputs() returns it; received {rows!r}")
    if molding is not None:
        _check_molded(molded_images, image_metas, molding)
    shapes = {np.shape(image) for image in molded_images}
    if len(molded_images) != len(image_metas) or len(shapes) > 1:
        raise ValueError(f"molded_images and image_metas must be as many, and the images of one shape; received "
                         f"{len(molded_images)} images of {sorted(shapes)} and {len(image_metas)} metas")
    if verbose:
        print(f"Processing {len(molded_images)} images")
        for image in molded_images:
            log("image", np.asarray(image))
    if len(molded_images) == 0:
        return []
    shape = shapes.pop()
    window = (0, 0, *shape[:2])
    return [
        to_result(*unmold_detections(rows, planes, shape, shape, window, masks))
        for rows, planes in predict(list(molded_images), list(image_metas))
    ]


def _check_molded(images, metas, molding):
    """Raises a ValueError for the first image or meta that the network cannot take."""
    side, length = molding.multiple_of, 12 + molding.classes
    for index, image in enumerate(images):
        shape = np.shape(image)
        if len(shape) != 3 or 0 in shape or shape[0] % side or shape[1] % side or shape[2] != molding.channels:
            raise ValueError(f"molded_images[{index}]: the network takes [height, width, {molding.channels}], with "
                             f"sides that are multiples of {side} pixels; received {shape}. Use mold_inputs(), or "
                             "detect()")
        _check_finite(f"molded_images[{index}]", image)
    for index, meta in enumerate(metas):
        if np.shape(meta) != (length,):
            raise ValueError(f"image_metas[{index}]: with NUM_CLASSES = {molding.classes} a meta has {length} numbers; "
                             f"received {np.shape(meta)}. Use those that mold_inputs() returned with the images")
        _check_finite(f"image_metas[{index}]", meta)


def _check_finite(name, values):
    values = np.asarray(values)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold numbers; received {values.dtype}. Use what mold_inputs() returned")
    finite = np.isfinite(values)
    if not finite.all():
        place = tuple(int(at) for at in np.unravel_index(np.argmin(finite), values.shape))
        raise ValueError(f"{name} must hold finite numbers; received {values[place]} at {list(place)}. Use what "
                         "mold_inputs() returned")


def in_batches(images, metas, batch_size, run):
    """Runs a function of full batches on any number of images; the last batch is filled up with its last image.

    A batch of another length would be traced anew.

    Args:
        images: list of [H, W, channels] arrays of one shape.
        metas: list of [12 + classes] arrays.
        batch_size: images per call.
        run: function of float32 images and metas, [batch_size, ...], that returns a tuple of arrays.

    Returns:
        list with a tuple of arrays for each image, its rows of the results of `run`.
    """
    results = []
    for start in range(0, len(images), batch_size):
        rows = [min(start + k, len(images) - 1) for k in range(batch_size)]
        batch = (np.stack([list_[row] for row in rows]).astype(np.float32) for list_ in (images, metas))
        used = min(batch_size, len(images) - start)
        results += list(zip(*(np.asarray(result)[:used] for result in run(*batch)), strict=True))
    return results


def to_result(boxes, class_ids, scores, masks):
    """The dict that `detect` returns: `rois`, `class_ids`, `scores`, `masks`."""
    return {"rois": boxes, "class_ids": class_ids, "scores": scores, "masks": masks}


class Watched:
    """A network as a function of arrays, whose weights are looked at where NaN would pass for photos without objects.

    That is before the first detection, when nothing is found after something was, and when the network fails; looking
    always would cost as much as a twentieth of a detection.

    Args:
        run: function of arrays; the first that it returns is detections [batch, N, 6], zero padded.
        model: keras.Model, whose weights these are.
    """

    def __init__(self, run, model):
        self._run, self._model = run, model
        self._found = None

    def __call__(self, *inputs):
        if self._found is None:
            check_weights(self._model)
        try:
            results = self._run(*inputs)
        except Exception:  # of NaN TensorFlow's kernels say that a box has no area, torch that an index is too large
            check_weights(self._model)
            raise
        found = bool((results[0][..., 4] > 0).any())
        if self._found and not found:
            check_weights(self._model)
        self._found = found
        return results


def check_weights(model):
    """Makes sure that the weights of a keras.Model are finite.

    Raises:
        ValueError: they are not; names the layers, and what to do.
    """
    wrong = {os.path.basename(os.path.dirname(variable.path)) or variable.path: None for variable in model.weights
             if not np.isfinite(keras.ops.convert_to_numpy(variable)).all()}  # fmt: skip
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(f"nothing can be detected: the weights of {', '.join(list(wrong)[:5])}{more} hold NaN or "
                         "infinity. Load the weights again, from a file of before they broke")


def predict(model, *inputs):
    """Detections [batch, N, 6] and the masks of their classes [batch, N, height, width], by Keras' own prediction."""
    detections, _, _, masks, *_ = model.predict_on_batch(list(inputs))
    detections = np.asarray(detections)
    return detections, np.stack([class_planes(*of_one) for of_one in zip(detections, np.asarray(masks), strict=True)])


def class_planes(detections, mrcnn_mask):
    """The masks of the detected classes: [N, 6 or more] and [N, height, width, classes] -> [N, height, width]."""
    class_ids = np.asarray(detections)[:, 4].astype(np.int32)
    return np.asarray(mrcnn_mask)[np.arange(len(class_ids)), :, :, class_ids]


def unmold_detections(detections, planes, original_image_shape, image_shape, window, masks="full"):
    """Turns the network's rows for one image into boxes and masks in the pixels of the original image.

    Args:
        detections: [N, (y1, x1, y2, x2, class_id, score)] float, normalized; the first class 0 ends the list.
        planes: [N or fewer, height, width] float, probabilities of the detected classes; one for each detection.
        original_image_shape: (H, W, channels) before resizing.
        image_shape: (H, W, channels) after resizing and padding.
        window: (y1, x1, y2, x2) pixels of the resized image that are no padding.
        masks: "full" for masks as large as the image, "box" as large as their boxes, "rle" for COCO's compressed form.

    Returns:
        boxes: [M, (y1, x1, y2, x2)] int32, pixels.
        class_ids: [M] int32.
        scores: [M] float32.
        masks: [H, W, M] bool; with "box" a list of [y2 - y1, x2 - x1] bool; with "rle" a list of dicts, `size` [H, W]
            and `counts` (text), as pycocotools takes them.
    """
    detections = np.asarray(detections)
    ends = np.flatnonzero(detections[:, 4] == 0)
    count = ends[0] if len(ends) else len(detections)
    class_ids = detections[:count, 4].astype(np.int32)

    boxes = denorm_boxes(_within(detections[:count, :4], window, image_shape), original_image_shape[:2])

    kept = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
    boxes, scores = boxes[kept], detections[kept, 5].astype(np.float32)
    return boxes, class_ids[kept], scores, _unmold_masks(np.asarray(planes)[kept], boxes, original_image_shape, masks)


def _within(boxes, window, image_shape):
    """Boxes [N, 4], normalized by the whole image -> by its window (pixels).

    A window of one pixel, in which a very long photo ends up, has no height (width) when it is normalized, and no more
    have boxes in it: they take all of it.
    """
    y1, x1, y2, x2 = norm_boxes(np.asarray(window), image_shape[:2])
    shift, scale = np.array([y1, x1, y1, x1]), np.array([y2 - y1, x2 - x1, y2 - y1, x2 - x1])
    within = (boxes - shift) / np.where(scale > 0, scale, 1)
    return np.where(scale > 0, within, [0, 0, 1, 1])


def _unmold_masks(planes, boxes, shape, kind):
    if kind != "full":
        cut = [resize_to_box(plane, box) for plane, box in zip(planes, boxes, strict=True)]
        if kind == "box":
            return cut
        return [encode_box_mask(mask, box, shape) for mask, box in zip(cut, boxes, strict=True)]
    full = blank((len(boxes), *shape[:2]))
    for mask, plane, box in zip(full, planes, boxes, strict=True):
        paste_mask(mask, plane, box)
    return full.transpose(1, 2, 0)  # a view: each mask lies in one piece, which is how masks are read
