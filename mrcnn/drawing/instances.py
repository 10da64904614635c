"""What can be drawn: checks of images, boxes, masks and class ids before anything is."""

from dataclasses import dataclass

import numpy as np

from mrcnn.geometry.images import standardize_image


@dataclass
class Instances:
    """Instances of one image that belong together.

    Attributes:
        boxes: [N, (y1, x1, y2, x2)] float, pixels.
        names: list of N str, of the classes.
        captions: list of N str.
        masks: [H, W, N] bool or number, or None.
    """

    boxes: np.ndarray
    names: list
    captions: list
    masks: np.ndarray | None

    def __len__(self):
        return len(self.boxes)

    def whole_boxes(self, size):
        """[N, (y1, x1, y2, x2)] int, cut off at the border of an image of (height, width); may be without area."""
        height, width = size
        boxes = np.clip(np.around(self.boxes), 0, (height, width, height, width)).astype(int)
        boxes[:, 2:] = np.maximum(boxes[:, :2], boxes[:, 2:])
        return boxes


def to_rgb(image):
    """Makes an image of any kind one to look at.

    Args:
        image: [H, W] or [H, W, channels] bool, integer or float; grey, RGB, either with alpha, 16 bits (few of which
            are in use: stretched); of more than four channels the first three are shown.

    Returns:
        [H, W, 3] uint8, a copy.

    Raises:
        ValueError: no pixels, values out of range or not finite.
    """
    image = np.asarray(image)
    if image.ndim == 3 and image.shape[2] > 4:
        image = image[..., :3]
    if image.dtype.kind == "u" and image.dtype.itemsize == 2 and image.size and image.max() < 4096:
        image = image / max(int(image.max()), 1)  # of a camera of 12 bits or less, and black as it is
    return standardize_image(image).astype(np.uint8)


def check_boxes(boxes, name):
    """Boxes as [N, (y1, x1, y2, x2)] float; a ValueError names those that are none."""
    boxes = np.asarray(boxes, float)
    boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name} must be [N, (y1, x1, y2, x2)]; received shape {boxes.shape}")
    if not np.isfinite(boxes).all():
        bad = int(np.flatnonzero(~np.isfinite(boxes).all(axis=1))[0])
        raise ValueError(f"{name}[{bad}] = {boxes[bad].tolist()} is not finite")
    return boxes


def check_masks(masks, size, name="masks"):
    """Masks as [H, W, N] of an image's (height, width); a ValueError tells what else they are."""
    masks = np.asarray(masks)
    if masks.ndim != 3 or masks.shape[:2] != tuple(size):
        raise ValueError(f"{name} must be [{size[0]}, {size[1]}, N], as large as the image; received {masks.shape}")
    return masks


def check_counts(**counts):
    """A ValueError unless all are the same number; those that are None do not count."""
    counts = {name: count for name, count in counts.items() if count is not None}
    if len(set(counts.values())) > 1:
        raise ValueError(f"an instance needs one of each; received {counts}")


def count_of(values):
    """Number of rows, None for None."""
    return None if values is None else len(values)


def class_name(class_id, class_names=None):
    """Name of a class id (negative: a crowd of that class); a ValueError if `class_names` has none for it."""
    if class_names is None:
        return f"class {abs(class_id)}"
    if abs(class_id) >= len(class_names):
        raise ValueError(f"class id {class_id} has no name: class_names has {len(class_names)}, {list(class_names)}")
    return str(class_names[abs(class_id)])


def make_instances(size, boxes, masks, class_ids, class_names=None, scores=None, captions=None, box_name="boxes"):
    """Puts together and checks the instances of an image.

    Args:
        size: (height, width) of the image.
        boxes: [N, (y1, x1, y2, x2)] number, pixels.
        masks: [H, W, N] bool or number, or None.
        class_ids: [N] int; negative: a crowd of that class.
        class_names: list of str by class id; None writes the numbers.
        scores: [N] float (those that are None or NaN are not written), or None.
        captions: list of N str to write instead of name and score; an entry that is None leaves name and score.
        box_name: str, what the caller calls `boxes`.

    Returns:
        Instances.

    Raises:
        ValueError: the numbers differ, a box is not finite, masks are of another size, a class id has no name.
    """
    boxes, class_ids = check_boxes(boxes, box_name), np.asarray(class_ids).reshape(-1).astype(int)
    if masks is not None and len(boxes) == 0 and np.size(masks) == 0:
        masks = None  # of whatever shape
    if masks is not None:
        masks = check_masks(masks, size)
    check_counts(**{box_name: len(boxes)}, class_ids=len(class_ids), scores=count_of(scores),
                 masks=None if masks is None else masks.shape[2], captions=count_of(captions))  # fmt: skip
    names = [class_name(class_id, class_names) for class_id in class_ids.tolist()]
    scores = [None] * len(names) if scores is None else scores
    captions = [None] * len(names) if captions is None else captions
    written = [
        _caption(name, class_id, score) if caption is None else str(caption)
        for name, class_id, score, caption in zip(names, class_ids.tolist(), scores, captions)
    ]
    return Instances(boxes, names, written, masks)


def _caption(name, class_id, score):
    """A score of 0 is one too."""
    crowd = " (crowd)" if class_id < 0 else ""
    return name + crowd + ("" if score is None or np.isnan(score) else f" {score:.2f}")
