"""Masks within their boxes: no more memory, and no more work, than the objects themselves need."""

import numpy as np

from mrcnn.geometry.images import scaled_size
from mrcnn.geometry.masks import extract_bboxes, nearest_pixels, shrink_part


class BoxedMasks:
    """The masks of an image, of each the part that its box covers.

    Args:
        height, width: int, pixels of the image.
        boxes: [N, (y1, x1, y2, x2)] int, pixels within the image, each around all pixels of its mask; a larger one than
            needed will do.
        parts: list of N arrays [y2 - y1, x2 - x1] bool.

    Attributes:
        height, width: as given.
        boxes: [N, (y1, x1, y2, x2)] int32, as tight as they can be; zeros for an empty mask.
        parts: list of N arrays bool, not to be changed; they belong to `boxes`.

    Raises:
        ValueError: a part does not have the size of its box, or a box reaches out of the image.
    """

    def __init__(self, height, width, boxes, parts):
        self.height, self.width = int(height), int(width)
        boxes = np.asarray(boxes, np.int32).reshape(-1, 4)
        parts = [np.asarray(part, bool) for part in parts]
        sizes = (boxes[:, 2:] - boxes[:, :2]).tolist()
        if [list(part.shape) for part in parts] != sizes:
            raise ValueError(f"parts must have the (height, width) of their boxes, {sizes}; received "
                             f"{[list(part.shape) for part in parts]}")
        if boxes.size and (boxes.min() < 0 or (boxes[:, 2:] > (self.height, self.width)).any()):
            raise ValueError(f"boxes must lie within the image of {self.height} x {self.width} pixels; received "
                             f"{boxes.tolist()}")
        tight = [_tighten(*box[:2], part) for box, part in zip(boxes.tolist(), parts, strict=True)]
        self.boxes = np.array([box for box, _ in tight], np.int32).reshape(-1, 4)
        self.parts = [part for _, part in tight]

    @classmethod
    def cut(cls, masks):
        """Cuts the parts out of masks [H, W, N] bool or number (everything but 0 is inside), as copies."""
        boxes = extract_bboxes(masks)
        parts = [masks[y1:y2, x1:x2, i].astype(bool, order="C") for i, (y1, x1, y2, x2) in enumerate(boxes)]
        return cls._made(*masks.shape[:2], boxes, parts)

    @classmethod
    def _made(cls, height, width, boxes, parts):
        """Of boxes that are tight already."""
        made = object.__new__(cls)
        made.height, made.width, made.boxes, made.parts = height, width, boxes, parts
        return made

    def __len__(self):
        return len(self.parts)

    @property
    def nbytes(self):
        """Bytes of memory, roughly."""
        return self.boxes.nbytes + sum(part.nbytes + 200 for part in self.parts)

    def scaled(self, scale):
        """The masks that `resize_mask` makes by this factor, without padding or crop."""
        if scale == 1:
            return self
        height, width = scaled_size(self.height, self.width, scale)
        rows, columns = nearest_pixels(self.height, height), nearest_pixels(self.width, width)
        # The pixels to take rise, so that those of a box follow one another.
        starts = [np.searchsorted(taken, self.boxes[:, side]) for taken, side in ((rows, 0), (columns, 1))]
        stops = [np.searchsorted(taken, self.boxes[:, side]) for taken, side in ((rows, 2), (columns, 3))]
        boxes = np.stack([*starts, *stops], axis=1)
        parts = [
            part[rows[y1:y2] - box[0]][:, columns[x1:x2] - box[1]]
            for part, box, (y1, x1, y2, x2) in zip(self.parts, self.boxes, boxes, strict=True)
        ]
        return BoxedMasks(height, width, boxes, parts)

    def placed(self, padding, crop=None):
        """The masks as `resize_mask` pads them or, with a `crop`, cuts a part of the image out."""
        if crop is None:
            (top, bottom), (left, right) = padding[:2]
            boxes = np.where(self.boxes.any(axis=1, keepdims=True), self.boxes + np.array([top, left] * 2), 0)
            height, width = self.height + top + bottom, self.width + left + right
            return self._made(height, width, boxes.astype(np.int32), self.parts)
        top, left, height, width = crop
        height, width = min(height, self.height - top), min(width, self.width - left)
        boxes = np.clip(self.boxes - [top, left, top, left], 0, [height, width, height, width])
        parts = [
            part[y1 + top - box[0]:y2 + top - box[0], x1 + left - box[1]:x2 + left - box[1]]
            if y1 < y2 and x1 < x2 else np.zeros((y2 - y1, x2 - x1), bool)
            for part, box, (y1, x1, y2, x2) in zip(self.parts, self.boxes, boxes, strict=True)
        ]  # fmt: skip
        return BoxedMasks(height, width, boxes, parts)

    def chosen(self, kept):
        """Those of the masks for which `kept`, [N] bool, is true."""
        parts = [part for part, is_kept in zip(self.parts, kept, strict=True) if is_kept]
        return self._made(self.height, self.width, self.boxes[kept], parts)

    def full(self):
        """[height, width, N] bool, masks as large as the image."""
        masks = np.zeros((self.height, self.width, len(self)), bool)
        for i, ((y1, x1, y2, x2), part) in enumerate(zip(self.boxes, self.parts, strict=True)):
            masks[y1:y2, x1:x2, i] = part
        return masks

    def mini(self, mini_shape):
        """[height, width, N] bool, the mini masks that `minimize_mask` makes; no mask may be empty."""
        minis = np.zeros((*mini_shape, len(self)), bool)
        for i, part in enumerate(self.parts):
            minis[..., i] = shrink_part(part, mini_shape)
        return minis


def _tighten(top, left, part):
    """((y1, x1, y2, x2), part) of a part without the empty rows and columns at its borders."""
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    if not rows.size:
        return (0, 0, 0, 0), np.zeros((0, 0), bool)
    y1, x1, y2, x2 = int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
    return (top + y1, left + x1, top + y2, left + x2), part[y1:y2, x1:x2]
