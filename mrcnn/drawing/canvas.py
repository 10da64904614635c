"""Drawing on arrays: instances, masks and boxes, without a window and without matplotlib."""

import functools
import importlib.util
import itertools
from pathlib import Path

import numpy as np
import scipy.ndimage
from PIL import Image, ImageDraw, ImageFont

from mrcnn.drawing.colors import colors_of
from mrcnn.geometry.images import standardize_image

MASK_ALPHA = 0.4  # how much of its colour a mask takes on
LEAST_TEXT = 8  # pixels


# ------------------------------------------------------------------ masks
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
    """Draws the frame of a box, two pixels wide, into an image.

    Args:
        image: [H, W] or [H, W, channels] array; is changed.
        box: (y1, x1, y2, x2), pixels; parts outside the image are left out.
        color: what the pixels are set to, such as (255, 0, 0).

    Returns:
        the same `image`.

    Raises:
        ValueError: the box is not finite.
    """
    if not np.isfinite(np.asarray(box, float)).all():
        raise ValueError(f"box = {list(box)} is not finite")
    y1, x1, y2, x2 = (int(v) for v in box)
    frame = np.zeros((max(y2 - y1, 0) + 2, max(x2 - x1, 0) + 2), bool)
    frame[:2] = frame[-2:] = frame[:, :2] = frame[:, -2:] = True
    y, x = np.nonzero(frame)
    y, x = y + y1, x + x1
    inside = (y >= 0) & (x >= 0) & (y < image.shape[0]) & (x < image.shape[1])
    image[y[inside], x[inside]] = color
    return image


def _draw_mask(canvas, box, mask, color, width):
    """Blends the part of a mask that its box covers into the canvas, and draws the rim in the full colour."""
    y1, x1, y2, x2 = box
    part, inside = canvas[y1:y2, x1:x2], mask[y1:y2, x1:x2] != 0
    apply_mask(part, inside, color / 255, MASK_ALPHA)
    core = scipy.ndimage.minimum_filter(inside, 2 * width + 1, mode="constant", cval=False)
    part[inside & ~core] = color


# ------------------------------------------------------------------ instances
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
    canvas = to_canvas(image)
    instances = check_instances(result, canvas.shape[:2], class_names)
    colors = np.around(colors_of(instances["names"], colors) * 255).astype(np.uint8)
    side = (canvas.shape[0] + canvas.shape[1]) / 2
    boxes = whole_pixels(instances["boxes"], canvas.shape[:2])
    extents = boxes[:, 2:] - boxes[:, :2]
    areas = extents.prod(axis=1)
    widths = np.clip(extents.max(axis=1, initial=0) // 12, 1, max(1, round(side / 300)))  # finer for small objects
    # Large ones first, so that they do not hide small ones.
    drawn = [index for index in np.argsort(-areas, kind="stable") if areas[index]]
    if instances["masks"] is not None:
        for index in drawn:
            _draw_mask(canvas, boxes[index], instances["masks"][..., index], colors[index],
                       max(1, widths[index] // 2))  # fmt: skip
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    for index in drawn:
        y1, x1, y2, x2 = boxes[index].tolist()
        pen.rectangle((x1, y1, x2 - 1, y2 - 1), outline=tuple(colors[index].tolist()), width=int(widths[index]))
    captions = instances["captions"]
    labels = [(boxes[index], captions[index], colors[index]) for index in sorted(drawn) if captions[index]]
    _draw_labels(pen, labels, picture.size, max(10, side / 50))
    return np.array(picture)


def to_canvas(image):
    """[H, W, 3] uint8 copy of any image."""
    image = np.asarray(image)
    if image.ndim == 3 and image.shape[2] > 4:
        image = image[..., :3]
    if image.dtype.kind == "u" and image.dtype.itemsize == 2 and image.size and image.max() < 4096:
        image = image / max(int(image.max()), 1)  # of a camera of 12 bits or less, and black as it is
    return standardize_image(image).astype(np.uint8)


def check_instances(result, size, class_names):
    """Checks a result; dict of boxes [N, 4] float, names and captions (lists of N str), and masks or None."""
    missing = [key for key in ("rois", "class_ids") if result.get(key) is None]
    if missing:
        raise ValueError(f"result must hold rois and class_ids, as those of detect do; it lacks {missing}: "
                         f"{list(result)}")  # fmt: skip
    boxes, class_ids = np.asarray(result["rois"], float), np.asarray(result["class_ids"]).reshape(-1)
    scores, masks = result.get("scores"), result.get("masks")
    boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"rois must be [N, (y1, x1, y2, x2)]; received shape {boxes.shape}")
    counts = {"rois": len(boxes), "class_ids": len(class_ids)}
    if scores is not None:
        counts["scores"] = len(scores)
    if masks is not None:
        masks = np.asarray(masks)
        if masks.ndim != 3 or masks.shape[:2] != size:
            raise ValueError(f"masks must be [{size[0]}, {size[1]}, N], as large as the image; received {masks.shape}")
        counts["masks"] = masks.shape[2]
    if len(set(counts.values())) > 1:
        raise ValueError(f"an instance needs one of each; received {counts}")
    if not np.isfinite(boxes).all():
        bad = int(np.flatnonzero(~np.isfinite(boxes).all(axis=1))[0])
        raise ValueError(f"rois[{bad}] = {boxes[bad].tolist()} is not finite")
    names = [_name(class_id, class_names) for class_id in class_ids.tolist()]
    captions = [
        name + (" (crowd)" if class_id < 0 else "") + ("" if score is None else f" {score:.2f}")
        for name, class_id, score in zip(names, class_ids, scores if scores is not None else itertools.repeat(None))
    ]
    return {"boxes": boxes, "names": names, "captions": captions, "masks": masks}


def _name(class_id, class_names):
    if class_names is None:
        return f"class {abs(class_id)}"
    if abs(class_id) >= len(class_names):
        raise ValueError(f"class id {class_id} has no name: class_names has {len(class_names)}, {list(class_names)}")
    return str(class_names[abs(class_id)])


def whole_pixels(boxes, size):
    """Boxes cut off at the border of the image: [N, (y1, x1, y2, x2)] int, without area where nothing is left."""
    height, width = size
    boxes = np.clip(np.around(boxes), 0, (height, width, height, width)).astype(int)
    boxes[:, 2:] = np.maximum(boxes[:, :2], boxes[:, 2:])
    return boxes


# ------------------------------------------------------------------ labels
@functools.lru_cache(maxsize=64)
def _font(size):
    """The font that comes with matplotlib, which need not be imported for it: Pillow's own knows few letters."""
    package = importlib.util.find_spec("matplotlib")
    path = Path(package.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf" if package else None
    return ImageFont.truetype(str(path), size) if path and path.is_file() else ImageFont.load_default(size)


def _draw_labels(pen, labels, size, text_size):
    """Writes (box, caption, colour) each onto a ground of its colour, the first ones where they hide least."""
    placed = np.zeros((0, 4))
    for box, caption, color in labels:
        extent = max(box[2] - box[0], box[3] - box[1])
        # Small objects get smaller text, so that many of them stay visible.
        wanted = text_size if extent == 0 else np.clip(extent / 5, text_size / 2, text_size)
        caption, font = _fitting(caption, max(LEAST_TEXT, round(wanted)), size[0])
        left, top, right, bottom = _text_box(caption, font)
        x, y = free_place(box, (right - left, bottom - top), size, placed)
        frame = (x, y, x + right - left, y + bottom - top)
        placed = np.vstack([placed, frame])
        pen.rectangle((x, y, frame[2] - 1, frame[3] - 1), fill=tuple(color.tolist()))
        dark = color @ (0.299, 0.587, 0.114) < 140
        pen.text((x - left, y - top), caption, font=font, fill="white" if dark else "black")


def _text_box(caption, font):
    """(left, top, right, bottom) of a label's ground around the origin of its text, pixels."""
    ascent, descent = font.getmetrics()
    pad = max(1, round(font.size / 8))
    return -pad, -pad // 2, int(np.ceil(font.getlength(caption))) + pad, ascent + descent + pad // 2


def _fitting(caption, text_size, width):
    """The caption and a font with which its label is no wider than the image: smaller text, else a cut caption."""

    def fits(caption, font):
        left, _, right, _ = _text_box(caption, font)
        return right - left <= width

    for size in range(text_size, LEAST_TEXT - 1, -1):
        if fits(caption, _font(size)):
            return caption, _font(size)
    while len(caption) > 1 and not fits(caption, _font(LEAST_TEXT)):
        caption = caption[:-1]
    return caption, _font(LEAST_TEXT)


def free_place(box, label_size, size, placed):
    """(x, y) of a label at its box, within the image: the first of several places that overlaps others least."""
    y1, x1, y2, x2 = (int(v) for v in box)
    width, height = label_size
    places = [(x1, y1 - height), (x1, y1), (x1, y2), (x2 - width, y1 - height), (x2 - width, y2), (x1, y2 - height)]
    places = [p for p in places if 0 <= p[1] <= size[1] - height] or places
    places = [(min(max(x, 0), max(size[0] - width, 0)), min(max(y, 0), max(size[1] - height, 0))) for x, y in places]
    corners = np.array(places)
    shared = np.minimum(placed[:, 2:], corners[:, None] + label_size) - np.maximum(placed[:, :2], corners[:, None])
    return places[int(shared.clip(0).prod(axis=2).sum(axis=1).argmin())]
