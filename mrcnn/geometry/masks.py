"""Masks: boxes of masks, overlaps, mini masks, and pasting into an image."""

import contextlib
import math
import mmap

import numpy as np

from mrcnn.geometry.images import enlarge_or_shrink, resize, scaled_size

# Rows of masks that are looked at in one go.
_ROWS = 32
# Bytes, from which on numpy asks the system for large pages.
_LARGE = 2**22


def extract_bboxes(mask):
    """Computes the bounding box of each mask.

    Args:
        mask: [H, W, N] bool or number; everything but 0 is inside.

    Returns:
        [N, (y1, x1, y2, x2)] int32, pixels; zeros for an empty mask.

    Raises:
        ValueError: `mask` does not have three dimensions.
    """
    mask = _check(mask, "mask")
    boxes = np.zeros((mask.shape[2], 4), np.int32)
    if mask.size:
        boxes[:, 0], boxes[:, 2] = _extent(_any_in_rows(mask))
        boxes[:, 1], boxes[:, 3] = _extent(mask.any(axis=0))
    return boxes


def _any_in_rows(mask):
    """[H, N] bool, whether a row of a mask has a pixel.

    Where the masks are the fastest axis and few, `any` would go in steps of a few bytes. Halves laid over each other
    until one column is left are long runs, and stay in the cache for a few rows at a time.
    """
    if abs(mask.strides[1]) == mask.itemsize:
        return mask.any(axis=1)
    found = np.empty((mask.shape[0], mask.shape[2]), bool)
    for start in range(0, len(mask), _ROWS):
        part = mask[start:start + _ROWS]
        part = part if part.dtype == bool else part != 0
        while (half := part.shape[1] // 2) > 0:
            rest = part[:, 2 * half:]
            part = part[:, :half] | part[:, half:2 * half]
            part[:, :rest.shape[1]] |= rest
        found[start:start + _ROWS] = part[:, 0]
    return found


def _extent(occupied):
    """First and one past the last True along the first axis of [length, N]; 0 and 0 without any."""
    last = len(occupied) - occupied[::-1].argmax(axis=0)
    return occupied.argmax(axis=0), np.where(occupied.any(axis=0), last, 0)


def compute_overlaps_masks(masks1, masks2):
    """Computes the intersection over union of every pair of masks.

    Args:
        masks1: [H, W, N] bool or float; above 0.5 is inside.
        masks2: [H, W, M] bool or float, of the same height and width.

    Returns:
        [N, M] float32; 0 for pairs of empty masks.

    Raises:
        ValueError: the masks differ in height or width.
    """
    masks1, masks2 = _check(masks1, "masks1"), _check(masks2, "masks2")
    n, m = masks1.shape[2], masks2.shape[2]
    if n == 0 or m == 0:
        return np.zeros((n, m), np.float32)
    if masks1.shape[:2] != masks2.shape[:2]:
        raise ValueError(
            f"masks1 and masks2 must be of one height and width; received shapes {masks1.shape} and {masks2.shape}"
        )
    first, areas1 = _cut_out(masks1)
    second, areas2 = (first, areas1) if masks2 is masks1 else _cut_out(masks2)
    intersection = np.zeros((n, m), np.float32)
    for i, (box, part) in enumerate(first):
        for j in np.flatnonzero(_touching(box, np.array([box for box, _ in second]))):
            other, part2 = second[j]
            y1, x1, y2, x2 = *np.maximum(box[:2], other[:2]), *np.minimum(box[2:], other[2:])
            common = (part[y1 - box[0]:y2 - box[0], x1 - box[1]:x2 - box[1]]
                      & part2[y1 - other[0]:y2 - other[0], x1 - other[1]:x2 - other[1]])  # fmt: skip
            intersection[i, j] = np.count_nonzero(common)
    union = areas1[:, None] + areas2[None] - intersection
    return intersection / np.maximum(union, 1)


def _cut_out(masks):
    """[(box, part of the mask within it)] and [N] float32, the pixels inside of each."""
    masks = masks if masks.dtype == bool else masks > 0.5
    boxes = extract_bboxes(masks)
    parts = [np.ascontiguousarray(masks[y1:y2, x1:x2, i]) for i, (y1, x1, y2, x2) in enumerate(boxes)]
    return list(zip(boxes, parts, strict=True)), np.array([np.count_nonzero(part) for part in parts], np.float32)


def _touching(box, boxes):
    """[N] bool, which boxes have a pixel in common with a box."""
    return (np.maximum(box[:2], boxes[:, :2]) < np.minimum(box[2:], boxes[:, 2:])).all(axis=1)


def resize_mask(mask, scale, padding, crop=None):
    """Resizes masks as `resize_image` resized their image.

    Nearest pixels, with the corners of the mask on the corners of the result.

    Args:
        mask: [H, W, N] bool or number.
        scale: number, by which the image was multiplied.
        padding: [(top, bottom), (left, right), (0, 0)] int, pixels.
        crop: (y1, x1, height, width) int, pixels of the scaled mask, or None. With a crop there is no padding.

    Returns:
        [height, width, N], dtype of the argument.

    Raises:
        ValueError: `mask` does not have three dimensions, or `scale` is not positive.
    """
    mask = _check(mask, "mask")
    if not scale > 0:
        raise ValueError(f"scale must be positive; received {scale!r}")
    height, width = scaled_size(*mask.shape[:2], scale)
    mask = mask[nearest_pixels(mask.shape[0], height)][:, nearest_pixels(mask.shape[1], width)]
    if crop is not None:
        y, x, h, w = crop
        return mask[y:y + h, x:x + w]
    return np.pad(mask, padding)


def nearest_pixels(size, new_size):
    """For each of `new_size` pixels the index of the pixel to take: the ends of both lie on each other."""
    step = (size - 1) / (new_size - 1) if new_size > 1 else 1
    return np.minimum(np.floor(np.arange(new_size) * step + 0.5).astype(np.intp), max(size - 1, 0))


def minimize_mask(bbox, mask, mini_shape):
    """Cuts masks out by their boxes and shrinks them, to save memory; `expand_mask` goes back.

    Args:
        bbox: [N, (y1, x1, y2, x2)] int, pixels.
        mask: [H, W, N] bool or number; everything but 0 is inside.
        mini_shape: (height, width) of the mini masks.

    Returns:
        [height, width, N] bool.

    Raises:
        ValueError: a box has no pixels within the mask, or boxes and masks differ in number.
    """
    bbox, mask = _check_boxes(bbox, mask, "mask")
    mini_mask = np.zeros((*mini_shape, mask.shape[2]), bool)
    for i, (y1, x1, y2, x2) in enumerate(bbox[:, :4]):
        part = mask[y1:y2, x1:x2, i].astype(bool)
        if part.size == 0:
            raise ValueError(
                f"bbox[{i}] = {bbox[i].tolist()} has no pixels within the mask of {mask.shape[0]} x {mask.shape[1]}; "
                "drop instances without a mask first"
            )
        mini_mask[..., i] = shrink_part(part, mini_shape)
    return mini_mask


def shrink_part(part, mini_shape):
    """Resizes the part of a mask within its box, halves to the even number: [h, w] bool -> [height, width] bool."""
    if part.all():
        return np.ones(mini_shape, bool)  # as `clip` keeps the values at the border within those of the part
    return enlarge_or_shrink(part, mini_shape) > 0.5


def expand_mask(bbox, mini_mask, image_shape):
    """Resizes mini masks to their boxes and pastes them into full size masks: the inverse of `minimize_mask`.

    Args:
        bbox: [N, (y1, x1, y2, x2)] int, pixels; a box without area gives an empty mask.
        mini_mask: [height, width, N] bool or float.
        image_shape: (H, W) or (H, W, channels) of the image.

    Returns:
        [H, W, N] bool.

    Raises:
        ValueError: boxes and masks differ in number.
    """
    bbox, mini_mask = _check_boxes(bbox, mini_mask, "mini_mask")
    mask = np.zeros((*image_shape[:2], mini_mask.shape[2]), bool)
    for i, box in enumerate(bbox[:, :4]):
        _paste(mask[..., i], box, mini_mask[..., i], np.around)
    return mask


def mold_mask(mask, mini_shape=None):
    """Brings masks into the form that the network is trained with.

    Args:
        mask: [H, W, N] bool or number; everything but 0 is inside.
        mini_shape: (height, width) of mini masks, or None for masks as large as the image.

    Returns:
        [height, width, N] bool.

    Raises:
        ValueError: an instance has no pixels and mini masks are wanted.
    """
    if mini_shape is None:
        return _check(mask, "mask").astype(bool)
    return minimize_mask(extract_bboxes(mask), mask, mini_shape)


def unmold_mask(mask, bbox, image_shape):
    """Turns a mask of the network into one as large as the image.

    Args:
        mask: [height, width] float, 0..1; from 0.5 on is inside.
        bbox: [(y1, x1, y2, x2)] int, pixels; parts outside the image are cut off.
        image_shape: (H, W) or (H, W, channels) of the image.

    Returns:
        [H, W] bool.
    """
    full_mask = blank(image_shape[:2])
    paste_mask(full_mask, mask, bbox)
    return full_mask


def blank(shape):
    """False [shape], whose memory is taken as it is written: masks of a large photo are nearly all background.

    For an array of this size numpy asks the system for large pages, and each is cleared as a whole, 2 MB at a time.
    """
    size = math.prod(map(int, shape))
    if size < _LARGE:
        return np.zeros(shape, bool)
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    try:
        memory = mmap.mmap(-1, size, **private)
    except (OSError, OverflowError):
        return np.zeros(shape, bool)  # or numpy's own error, which says how much was asked for
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with contextlib.suppress(OSError):  # a system without large pages
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, bool).reshape(shape)


def paste_mask(canvas, mask, bbox):
    """Writes a mask of the network into the part of a larger one that its box covers.

    Args:
        canvas: [H, W] bool, changed within the box.
        mask, bbox: see `unmold_mask`.
    """
    _paste(canvas, bbox, np.asarray(mask), lambda values: values >= 0.5)


def resize_to_box(mask, box):
    """Turns a mask of the network into one as large as its box.

    Args:
        mask: [height, width] float, 0..1; from 0.5 on is inside.
        box: [(y1, x1, y2, x2)] int, pixels, with an area.

    Returns:
        [y2 - y1, x2 - x1] bool.
    """
    y1, x1, y2, x2 = (int(v) for v in box)
    return resize(np.asarray(mask), (y2 - y1, x2 - x1)) >= 0.5


def box_runs(mask, box, image_shape):
    """The run lengths of a mask that fills its box: COCO's RLE, without an array as large as the image.

    Args:
        mask: [y2 - y1, x2 - x1] bool.
        box: [(y1, x1, y2, x2)] int, pixels; parts outside the image are cut off.
        image_shape: (H, W) or (H, W, channels) of the image.

    Returns:
        list of int: pixels outside, inside, outside, ... from top to bottom, column after column; their sum is H * W.
    """
    y1, x1 = (int(v) for v in box[:2])
    height, width = image_shape[:2]
    top, left = max(y1, 0), max(x1, 0)
    part = np.asarray(mask, bool)[top - y1:max(height - y1, 0), left - x1:max(width - x1, 0)]
    # +1 where a run starts in its column, -1 where it has ended
    steps = np.diff(np.pad(part.T, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    starts, ends = (
        (left + column) * height + top + row for column, row in (np.nonzero(steps == value) for value in (1, -1))
    )
    joined = np.flatnonzero(starts[1:] == ends[:-1])  # from the foot of a column to the head of the next
    starts, ends = np.delete(starts, joined + 1), np.delete(ends, joined)
    borders = np.stack([starts, ends], axis=1).ravel()
    return np.diff(np.concatenate([[0], borders, [height * width]])).tolist()


def _paste(canvas, box, plane, decide):
    """Writes `plane`, resized to `box` and made boolean by `decide`, into the part of `canvas` that `box` covers."""
    y1, x1, y2, x2 = (int(v) for v in box)
    if y2 <= y1 or x2 <= x1:
        return
    inside = decide(resize(plane, (y2 - y1, x2 - x1)))
    top, left = max(y1, 0), max(x1, 0)
    target = canvas[top:max(y2, 0), left:max(x2, 0)]
    target[:] = inside[top - y1:, left - x1:][:target.shape[0], :target.shape[1]]


def _check(mask, name):
    mask = np.asarray(mask)
    if mask.ndim != 3:
        raise ValueError(f"{name} must have the shape [height, width, instances]; received {mask.shape}")
    return mask


def _check_boxes(bbox, mask, name):
    bbox, mask = np.asarray(bbox), _check(mask, name)
    if bbox.ndim != 2 or len(bbox) != mask.shape[2]:
        raise ValueError(
            f"bbox must have one row per mask; received bbox of shape {bbox.shape} and {name} of {mask.shape}"
        )
    return bbox, mask
