"""Anchors: the boxes that the region proposal network refines (Faster R-CNN, section 3.1.1)."""

import math

import numpy as np


def backbone_shapes(image_shape, strides):
    """Computes the size of the feature map of each level.

    Args:
        image_shape: (height, width) or (height, width, channels), pixels.
        strides: N numbers, pixels of the image per pixel of the feature map.

    Returns:
        [N, (height, width)] int64.
    """
    return np.array([[math.ceil(side / stride) for side in image_shape[:2]] for stride in strides], np.int64)


def generate_anchors(scales, ratios, shape, feature_stride, anchor_stride):
    """Generates the anchors of one feature map.

    Centers lie on multiples of the stride, the first at (0, 0), so that anchors may reach over the image. The order is
    row, column, ratio, scale, the last one fastest.

    Args:
        scales: number or list of numbers, square roots of the anchors' areas, pixels of the image.
        ratios: list of numbers, width / height.
        shape: (height, width) of the feature map.
        feature_stride: pixels of the image per pixel of the feature map.
        anchor_stride: 2 puts anchors on every second pixel of the feature map.

    Returns:
        [height * width * ratios * scales, (y1, x1, y2, x2)] float64, pixels.

    Raises:
        ValueError: a scale, a ratio or a stride is not positive.
    """
    for name, value in (("scales", scales), ("ratios", ratios), ("feature_stride", feature_stride),
                        ("anchor_stride", anchor_stride)):
        if not (np.asarray(value) > 0).all():
            raise ValueError(f"{name} must be positive; received {value!r}")
    scales, ratios = np.meshgrid(np.asarray(scales, float), np.sqrt(np.asarray(ratios, float)))
    sizes = np.stack([scales / ratios, scales * ratios], axis=-1).reshape(-1, 2)

    rows, columns = (np.arange(0, side, anchor_stride) * feature_stride for side in shape[:2])
    centers = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 1, 2)
    return np.concatenate([centers - 0.5 * sizes, centers + 0.5 * sizes], axis=-1).reshape(-1, 4)


def generate_pyramid_anchors(scales, ratios, feature_shapes, feature_strides, anchor_stride):
    """Generates the anchors of all levels of a feature pyramid, one scale per level (FPN, section 4.1).

    Args:
        scales: one number, or list of numbers, per level.
        ratios: list of numbers, width / height.
        feature_shapes: [levels, (height, width)] int, see `backbone_shapes`.
        feature_strides: one number per level.
        anchor_stride: see `generate_anchors`.

    Returns:
        [anchors, (y1, x1, y2, x2)] float64, pixels; levels in the order of `scales`.

    Raises:
        ValueError: scales, shapes and strides differ in number.
    """
    if not len(scales) == len(feature_shapes) == len(feature_strides):
        raise ValueError(
            "scales, feature_shapes and feature_strides must hold one value per level; received "
            f"{len(scales)}, {len(feature_shapes)} and {len(feature_strides)}"
        )
    levels = zip(scales, feature_shapes, feature_strides, strict=True)
    return np.concatenate([
        generate_anchors(scale, ratios, shape, stride, anchor_stride) for scale, shape, stride in levels
    ])


class AnchorGrid:
    """The anchors of a pyramid, and where each lies: those near a box are found without a look at all the others.

    Anchors of one level and one shape are a grid. Top and bottom of an anchor follow from its row alone, left and right
    from its column, and so does the intersection with a box: only the rows and columns around the box are compared.
    The numbers are those of `mrcnn.geometry.boxes.compute_iou`, bit by bit.

    Args:
        scales, ratios, feature_shapes, feature_strides, anchor_stride: see `generate_pyramid_anchors`.

    Attributes:
        anchors: [anchors, (y1, x1, y2, x2)] float64, pixels, as `generate_pyramid_anchors` makes them; read-only.
    """

    # Boxes with sides of more pixels than this might overflow the areas of int32.
    LARGEST = 2**14
    # Pairs that are compared at a time: as many as stay in a processor's cache.
    _PAIRS = 2**18
    # What rounding may add to a bound or to a number of pixels, many times over.
    _SLACK = 1e-5

    def __init__(self, scales, ratios, feature_shapes, feature_strides, anchor_stride):
        self.anchors = generate_pyramid_anchors(scales, ratios, feature_shapes, feature_strides, anchor_stride)
        self.anchors.flags.writeable = False
        self._groups, start = [], 0
        for scale, shape in zip(scales, feature_shapes, strict=True):
            rows, columns = (len(range(0, int(side), anchor_stride)) for side in shape[:2])
            shapes = np.size(scale) * len(ratios)
            level = self.anchors[start:start + rows * columns * shapes].reshape(rows, columns, shapes, 4)
            if level.size:
                self._groups += [_Group(level, i, start) for i in range(shapes)]
            start += rows * columns * shapes
        sizes = np.array([group.size for group in self._groups]).reshape(-1, 2)
        self._heights, self._widths = sizes[:, 0], sizes[:, 1]

    def takes(self, boxes):
        """Whether boxes are numbers that `pairs` and `best_pairs` are exact for: all that images in use have."""
        return boxes.dtype in (np.int32, np.int64, np.float32, np.float64) and bool(
            (np.abs(boxes) <= self.LARGEST).all()  # false for NaN too
        )

    def pairs(self, boxes, least):
        """Finds all pairs of a box and an anchor that overlap enough.

        Args:
            boxes: [N, (y1, x1, y2, x2)] number, pixels, such as `takes` agrees to.
            least: float above 0, smallest intersection over union.

        Returns:
            box_ids: [pairs] int, indices into `boxes`.
            anchor_ids: [pairs] int, indices into `anchors`; a pair may occur several times.
            iou: [pairs] float64.
        """
        found, bounds = [_NO_PAIRS], self._bounds(boxes)
        for group, bound in zip(self._groups, bounds.T):
            found += self._compare(group, boxes, np.flatnonzero(bound >= least), np.full(len(boxes), float(least)))
        return tuple(map(np.concatenate, zip(*found)))

    def best_pairs(self, boxes):
        """Finds the anchors that overlap each box most, all of them if several do so equally.

        Args:
            boxes: as for `pairs`.

        Returns:
            box_ids, anchor_ids, iou: as of `pairs`; boxes that no anchor touches do not occur.
        """
        found, bounds, best = [_NO_PAIRS], self._bounds(boxes), np.zeros(len(boxes))

        def compare(number, box_ids):
            pairs = self._compare(self._groups[number], boxes, box_ids, best)
            for ids, _, iou in pairs:
                np.maximum.at(best, ids, iou)
            found.extend(pairs)

        if bounds.size:
            # The shape that fits a box best first: what it reaches rules most of the others out.
            first = bounds.argmax(axis=1)
            for number in np.unique(first):
                compare(number, np.flatnonzero((first == number) & (bounds[:, number] > 0)))
            for number, bound in enumerate(bounds.T):
                compare(number, np.flatnonzero((first != number) & (bound > 0) & (bound >= best)))
        box_ids, anchor_ids, iou = map(np.concatenate, zip(*found))
        kept = iou == best[box_ids]
        return box_ids[kept], anchor_ids[kept], iou[kept]

    def _bounds(self, boxes):
        """[N, groups] the most that an anchor of a group can overlap a box, wherever they lie; 0 for no area."""
        boxes = boxes.astype(np.float64)
        height, width = boxes[:, 2:3] - boxes[:, 0:1], boxes[:, 3:] - boxes[:, 1:2]
        shared = np.minimum(height, self._heights) * np.minimum(width, self._widths)
        union = height * width + self._heights * self._widths - shared
        has_area = (height > 0) & (width > 0)
        return np.where(has_area, shared / np.where(has_area, union, 1), 0) * (1 + self._SLACK)

    def _compare(self, group, boxes, box_ids, least):
        """[(box ids, anchor ids, iou)] of the pairs that overlap by `least` of the box, and at all."""
        if not len(box_ids):
            return []
        chosen, least = boxes[box_ids], least[box_ids]
        edges = chosen.astype(np.float64).T
        height, width = edges[2] - edges[0], edges[3] - edges[1]
        # IoU >= t needs an intersection of t / (1 + t) of both areas together; no more than one side comes from each
        # direction.
        needed = least / (1 + least) * (height * width + group.size.prod())
        rows = group.rows.near(edges[0], edges[2], needed / np.minimum(width, group.size[1]), self._SLACK)
        columns = group.columns.near(edges[1], edges[3], needed / np.minimum(height, group.size[0]), self._SLACK)
        count = rows.shape[1] * columns.shape[1]
        if len(box_ids) > 1 and count * len(box_ids) > self._PAIRS:
            parts = np.array_split(np.arange(len(box_ids)), min(len(box_ids), -(-count * len(box_ids) // self._PAIRS)))
            everyone = np.zeros(len(boxes))
            everyone[box_ids] = least
            return [pairs for part in parts for pairs in self._compare(group, boxes, box_ids[part], everyone)]
        if count == 0:
            return []
        areas = (chosen[:, 2] - chosen[:, 0]) * (chosen[:, 3] - chosen[:, 1])
        iou = group.iou(rows, columns, edges, areas)
        box, row, column = np.nonzero((iou >= least[:, None, None]) & (iou > 0))
        anchor_ids = group.start + rows[box, row] * group.row_step + columns[box, column] * group.column_step
        return [(box_ids[box], anchor_ids, iou[box, row, column])]


_NO_PAIRS = (np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0))


class _Group:
    """The anchors of one level and one shape, rows by columns of them."""

    def __init__(self, level, shape, start):
        self.rows = _Edges(level[:, 0, shape, 0], level[:, 0, shape, 2])
        self.columns = _Edges(level[0, :, shape, 1], level[0, :, shape, 3])
        self.size = np.array([self.rows.lengths.max(), self.columns.lengths.max()])
        self.start, self.row_step, self.column_step = start + shape, level.shape[1] * level.shape[2], level.shape[2]

    def iou(self, rows, columns, edges, areas):
        """[N, rows, columns] of N boxes, given as four [N] `edges`, with the anchors of [N, rows] and [N, columns]."""
        height = self.rows.shared(rows, edges[0], edges[2])
        width = self.columns.shared(columns, edges[1], edges[3])
        intersection = height[:, :, None] * width[:, None, :]
        union = self.rows.lengths[rows][:, :, None] * self.columns.lengths[columns][:, None, :]
        union = areas[:, None, None] + union - intersection
        return np.divide(intersection, union, out=intersection)


class _Edges:
    """Where the anchors of a group begin and end in one direction, in rising order."""

    def __init__(self, first, last):
        self.first, self.last, self.lengths = first.copy(), last.copy(), last - first

    def near(self, low, high, needed, slack):
        """[N, n] places of anchors, among them all that share at least `needed` pixels with [low, high)."""
        needed = np.maximum(needed * (1 - slack) - slack, 0)
        start = np.searchsorted(self.last, low + needed, "left")
        stop = np.searchsorted(self.first, high - needed, "right")
        places = start[:, None] + np.arange(max((stop - start).max(), 0))
        return np.minimum(places, len(self.first) - 1)

    def shared(self, places, low, high):
        """[N, n] pixels that the anchors at these places have in common with [low, high)."""
        pixels = np.minimum(high[:, None], self.last[places]) - np.maximum(low[:, None], self.first[places])
        return np.maximum(pixels, 0)
