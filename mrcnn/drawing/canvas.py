"""Drawing into arrays, without a window and without matplotlib."""

import numpy as np
import scipy.ndimage
from PIL import Image, ImageDraw

from mrcnn.drawing.colors import choose_colors, ink_on
from mrcnn.drawing.instances import make_instances, to_rgb
from mrcnn.drawing.labels import place_labels

MASK_ALPHA = 0.4  # how much of its colour a mask takes on
BOX_LINE = 2  # pixels, of `draw_box`


def apply_mask(image, mask, color, alpha=0.5):
    """Blends a colour into an image where a mask is 1.

    Args:
        image: [H, W, 3 or more channels] number, 0..255; is changed, in its first three channels.
        mask: [H, W] bool or number; only what equals 1 is inside.
        color: (red, green, blue), 0..1.
        alpha: float, 0..1, the share of the colour.

    Returns:
        the same `image`.

    Raises:
        ValueError: the mask has another height or width than the image, or the image no three channels.
    """
    mask = np.asarray(mask)
    if image.ndim != 3 or image.shape[2] < 3 or mask.shape != image.shape[:2]:
        raise ValueError(
            f"image must be [height, width, 3] and mask [height, width]; received shapes {image.shape}, {mask.shape}"
        )
    inside = mask == 1
    blended = image[inside, :3] * (1 - alpha) + np.asarray(color[:3]) * (alpha * 255)
    image[inside, :3] = blended.astype(image.dtype)
    return image


def draw_box(image, box, color):
    """Draws a box into an image, with lines of two pixels; parts outside the image are cut off.

    Args:
        image: [H, W, channels] or [H, W] number; is changed.
        box: [(y1, x1, y2, x2)] number, pixels; the lower and the right line lie just outside, as y2 and x2 do.
        color: a value per channel, on the image's own scale (0..255 mostly).

    Returns:
        the same `image`.

    Raises:
        ValueError: the box is not four finite numbers.
    """
    box = np.asarray(box, float)
    if box.shape != (4,) or not np.isfinite(box).all():
        raise ValueError(f"box must be (y1, x1, y2, x2), four finite numbers; received {box.tolist()}")
    y1, x1, y2, x2 = np.around(box).astype(int).tolist()
    bottom, right = y2 + BOX_LINE, x2 + BOX_LINE
    for top, left, low, far in ((y1, x1, y1 + BOX_LINE, right), (y2, x1, bottom, right),
                                (y1, x1, bottom, x1 + BOX_LINE), (y1, x2, bottom, right)):  # fmt: skip
        image[max(top, 0) : max(low, 0), max(left, 0) : max(far, 0)] = color
    return image


def draw_instances(image, result, class_names=None, colors=None):
    """Draws the instances of an image into a copy of it: box, translucent mask with its rim, name and score.

    Lines and text grow with the image, so that they can be read at any size. Of a mask, what its box covers is drawn.
    Rows of zeros in the boxes are padding and left out; an image without instances stays as it is.

    Args:
        image: [H, W] or [H, W, channels] bool, integer or float; grey, RGB, either with alpha, 16 bits (few of which
            are in use: stretched); of more than four channels the first three are shown.
        result: dict as `MaskRCNN.detect` returns: `rois` [N, (y1, x1, y2, x2)] pixels, `class_ids` [N] int (negative:
            a crowd of that class), `scores` [N] float and `masks` [H, W, N] bool; the last two may be None or missing.
        class_names: list of str by class id; None writes the numbers.
        colors: None, one colour per instance; "class", one per class name, the same in all images; or a list of N
            (red, green, blue), 0..1.

    Returns:
        [H, W, 3] uint8.

    Raises:
        ValueError: boxes, class ids, scores, masks and colours differ in number, masks and image in size; a class id
            has no name; a box is not finite; the image cannot be shown.
    """
    canvas = to_rgb(image)
    size = canvas.shape[:2]
    instances = _instances_of(result, size, class_names)
    colors = np.around(choose_colors(colors, instances.names) * 255).astype(np.uint8)
    side = sum(size) / 2
    boxes = instances.whole_boxes(size)
    drawn = large_first(boxes)
    # Finer lines for small objects.
    widths = np.clip((boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) // 12, 1, max(1, round(side / 300)))
    if instances.masks is not None:
        for index in drawn:
            rim = max(1, widths[index] // 2)
            blend_mask(canvas, boxes[index], instances.masks[..., index], colors[index], rim)
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    for index in drawn:
        y1, x1, y2, x2 = boxes[index].tolist()
        pen.rectangle((x1, y1, x2 - 1, y2 - 1), outline=tuple(colors[index].tolist()), width=int(widths[index]))
    rows = sorted(drawn)
    captions = [instances.captions[index] for index in rows]
    for row, caption, font, frame, (dx, dy) in place_labels(boxes[rows], captions, picture.size, max(10, side / 50)):
        x1, y1, x2, y2 = frame
        color = colors[rows[row]]
        pen.rectangle((x1, y1, x2 - 1, y2 - 1), fill=tuple(color.tolist()))
        pen.text((x1 + dx, y1 + dy), caption, font=font, fill=ink_on(color / 255))
    return np.array(picture)


def large_first(boxes):
    """Indices of the boxes that have an area, large ones first: drawn so, they do not hide small ones."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return [index for index in np.argsort(-areas, kind="stable").tolist() if areas[index]]


def blend_mask(canvas, box, mask, color, rim=0, alpha=MASK_ALPHA):
    """Blends the part of a mask that its box covers into a picture; color 0..255, with which its rim is painted."""
    y1, x1, y2, x2 = box
    part, inside = canvas[y1:y2, x1:x2], mask[y1:y2, x1:x2] != 0
    apply_mask(part, inside, color / 255, alpha)
    if rim:
        core = scipy.ndimage.minimum_filter(inside, 2 * rim + 1, mode="constant", cval=False)
        part[inside & ~core] = color


def _instances_of(result, size, class_names):
    missing = [key for key in ("rois", "class_ids") if result.get(key) is None]
    if missing:
        raise ValueError(f"result must hold rois and class_ids, as those of detect do; it lacks {missing}: "
                         f"{list(result)}")  # fmt: skip
    return make_instances(size, result["rois"], result.get("masks"), result["class_ids"], class_names,
                          result.get("scores"), box_name="rois")  # fmt: skip
