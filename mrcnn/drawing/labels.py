"""Labels of boxes: how large their text is, and where each hides least."""

import functools
import importlib.util
from pathlib import Path

import numpy as np
from PIL import ImageFont

LEAST_TEXT = 8  # pixels


def place_labels(boxes, captions, size, text_size, least_text=LEAST_TEXT):
    """Finds a place for the label of each box, the first ones where they hide least.

    Args:
        boxes: [N, (y1, x1, y2, x2)] number, pixels.
        captions: list of N str; empty ones get no label.
        size: (width, height) of the picture, pixels.
        text_size: float, pixels; small boxes get smaller text, so that many of them stay visible.
        least_text: int, pixels, the smallest text.

    Yields:
        (index, caption, font, (x1, y1, x2, y2), (dx, dy)): the caption is cut where it would be wider than the
        picture; the label's frame in pixels; where its text begins in the frame.
    """
    placed = np.zeros((0, 4))
    for index, (box, caption) in enumerate(zip(boxes, captions)):
        if not caption:
            continue
        extent = max(box[2] - box[0], box[3] - box[1])
        wanted = text_size if extent == 0 else np.clip(extent / 5, text_size / 2, text_size)
        caption, font = _fitting(caption, max(least_text, round(wanted)), size[0], least_text)
        left, top, right, bottom = _text_box(caption, font)
        x, y = _free_place(box, (right - left, bottom - top), size, placed)
        frame = (x, y, x + right - left, y + bottom - top)
        placed = np.vstack([placed, frame])
        yield index, caption, font, frame, (-left, -top)


@functools.lru_cache(maxsize=64)
def _font(size):
    """The font that comes with matplotlib, which need not be imported for it: Pillow's own knows few letters."""
    package = importlib.util.find_spec("matplotlib")
    path = Path(package.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf" if package else None
    return ImageFont.truetype(str(path), size) if path and path.is_file() else ImageFont.load_default(size)


def _text_box(caption, font):
    """(left, top, right, bottom) of a label's ground around the origin of its text, pixels."""
    ascent, descent = font.getmetrics()
    pad = max(1, round(font.size / 8))
    return -pad, -pad // 2, int(np.ceil(font.getlength(caption))) + pad, ascent + descent + pad // 2


def _fitting(caption, text_size, width, least_text):
    """The caption and a font with which its label is no wider than the image: smaller text, else a cut caption."""

    def fits(caption, font):
        left, _, right, _ = _text_box(caption, font)
        return right - left <= width

    for size in range(text_size, least_text - 1, -1):
        if fits(caption, _font(size)):
            return caption, _font(size)
    while len(caption) > 1 and not fits(caption, _font(least_text)):
        caption = caption[:-1]
    return caption, _font(least_text)


def _free_place(box, label_size, size, placed):
    """(x, y) of a label at its box, within the image: the first of several places that overlaps others least."""
    y1, x1, y2, x2 = (int(v) for v in box)
    width, height = label_size
    places = [(x1, y1 - height), (x1, y1), (x1, y2), (x2 - width, y1 - height), (x2 - width, y2), (x1, y2 - height)]
    places = [p for p in places if 0 <= p[1] <= size[1] - height] or places
    places = [(min(max(x, 0), max(size[0] - width, 0)), min(max(y, 0), max(size[1] - height, 0))) for x, y in places]
    corners = np.array(places)
    shared = np.minimum(placed[:, 2:], corners[:, None] + label_size) - np.maximum(placed[:, :2], corners[:, None])
    return places[int(shared.clip(0).prod(axis=2).sum(axis=1).argmin())]
