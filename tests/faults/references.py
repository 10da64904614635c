"""Masks of annotations, drawn pixel by pixel in a slow and simple way, without the code that they are compared with.

Each function returns (mask, sure), [height, width] bool each: what is inside, and the pixels for which one can tell.
The others lie on an outline, where the answer hangs on the last bit of a number, or on how thick a line is.
"""

import math
from fractions import Fraction

import numpy as np

NEAR = 1e-5  # of a pixel, or of a radius: less may be an error of rounding


def via_shape(shape, size):
    """A region of VIA. Circles, ellipses and polygons hold the points (column, row), rectangles the pixels' centres."""
    kind = shape["name"]
    if kind == "rect":
        return _rectangle(shape, size)
    if kind in ("circle", "ellipse"):
        return _ellipse(shape, size)
    return _polygon(list(zip(shape["all_points_x"], shape["all_points_y"], strict=True)), size)


def _rectangle(shape, size):
    inside = np.ones(size, bool)
    sure = np.ones(size, bool)
    for axis, start, length in ((0, "y", "height"), (1, "x", "width")):
        centres = np.expand_dims(np.arange(size[axis]) + 0.5, 1 - axis)
        first, last = shape[start], shape[start] + shape[length]
        inside &= (centres > first) & (centres < last)
        sure &= (centres != first) & (centres != last)
    return inside, sure


def _ellipse(shape, size):
    mask, sure = np.zeros(size, bool), np.zeros(size, bool)
    rx, ry = (shape["r"], shape["r"]) if shape["name"] == "circle" else (shape["rx"], shape["ry"])
    cos, sin = math.cos(shape.get("theta", 0)), math.sin(shape.get("theta", 0))  # clockwise, as y points down
    for row, column in np.ndindex(*size):
        x, y = column - shape["cx"], row - shape["cy"]
        away = ((x * cos + y * sin) / rx) ** 2 + ((y * cos - x * sin) / ry) ** 2
        mask[row, column], sure[row, column] = away < 1, abs(away - 1) > NEAR
    return mask, sure


def _polygon(points, size):
    """Inside is where a line to the right crosses an odd number of edges; of the outline, its left and upper sides."""
    mask, sure = np.zeros(size, bool), np.ones(size, bool)
    is_whole = all(isinstance(number, int) and abs(number) < 1000 for point in points for number in point)
    exact = [(Fraction(x), Fraction(y)) for x, y in points]
    edges = list(zip(exact, exact[1:] + exact[:1], strict=True))
    for row in range(size[0]):
        crossings = [x1 + (x2 - x1) * (row - y1) / (y2 - y1)
                     for (x1, y1), (x2, y2) in edges if (y1 <= row) != (y2 <= row)]  # fmt: skip
        is_near = not is_whole and any(0 < abs(y - row) < NEAR for _, y in exact)
        for column in range(size[1]):
            mask[row, column] = sum(crossing > column for crossing in crossings) % 2
            sure[row, column] = is_whole or not (is_near or any(abs(x - column) < NEAR for x in crossings))
    return mask, sure


def coco_polygons(polygons, size):
    """The union of COCO's polygons, which hold pixels' centres; sure is what lies a pixel or more from each outline."""
    mask, sure = np.zeros(size, bool), np.ones(size, bool)
    rows, columns = np.mgrid[:size[0], :size[1]] + 0.5
    for polygon in polygons:
        inside = np.zeros(size, bool)
        x, y = polygon[0::2], polygon[1::2]
        for x1, y1, x2, y2 in zip(x, y, x[1:] + x[:1], y[1:] + y[:1], strict=True):
            spans = (y1 <= rows) != (y2 <= rows)
            with np.errstate(all="ignore"):  # of edges that span no row
                inside ^= spans & (x1 + (x2 - x1) * ((rows - y1) / np.float64(y2 - y1)) > columns)
            length = (x2 - x1) ** 2 + (y2 - y1) ** 2
            along = ((columns - x1) * (x2 - x1) + (rows - y1) * (y2 - y1)) / length if length > 0 else np.zeros(size)
            along = along.clip(0, 1)
            sure &= np.hypot(columns - x1 - along * (x2 - x1), rows - y1 - along * (y2 - y1)) >= 1
        mask |= inside
    return mask, sure


def boxes_of(masks):
    """[N, (y1, x1, y2, x2)] int around [H, W, N] bool, none of which is empty; y2, x2 outside."""
    found = np.zeros((masks.shape[2], 4), int)
    for n in range(masks.shape[2]):
        rows, columns = np.nonzero(masks[:, :, n])
        found[n] = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
    return found
