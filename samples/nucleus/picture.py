"""Makes picture.png: drawn nuclei, detections that overlap, and the masks of a submission, which do not.

    python samples/nucleus/picture.py
"""

import sys
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import skimage.draw
import skimage.filters

FOLDER = Path(__file__).resolve().parent

if __name__ == "__main__":
    sys.path[:0] = [str(FOLDER), str(FOLDER.parents[1])]

import nucleus  # noqa: E402

from mrcnn import utils, visualize  # noqa: E402

SIDE = 96  # pixels of the drawn image
ZOOM = 4
BAR = 28  # pixels above each panel, for its title


def draw_ellipses(ellipses):
    """[SIDE, SIDE, N] bool of N (y, x, y radius, x radius, angle)."""
    masks = np.zeros((SIDE, SIDE, len(ellipses)), bool)
    for index, (y, x, height, width, angle) in enumerate(ellipses):
        masks[(*skimage.draw.ellipse(y, x, height, width, masks.shape[:2], angle), index)] = True
    return masks


def draw_nuclei(masks, rng):
    """[SIDE, SIDE, 3] uint8: bright, soft nuclei with grain on a dark ground."""
    light = (masks * rng.uniform(0.45, 0.8, masks.shape[2])).max(axis=-1) + 0.08
    light = skimage.filters.gaussian(light, 1) + rng.normal(0, 0.02, light.shape)
    return np.around(np.clip(light, 0, 1)[..., None] * (170, 190, 255)).astype(np.uint8)


def result_of(masks, scores):
    """Masks and scores in the form of a result of `detect`; masks without pixels are left out."""
    seen = masks.any(axis=(0, 1))
    masks, scores = masks[..., seen], scores[seen]
    return {"rois": utils.extract_bboxes(masks), "class_ids": np.ones(len(scores), int), "scores": scores,
            "masks": masks}  # fmt: skip


def enlarge(array):
    return array.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)


def main():
    rng = np.random.default_rng(4)
    nuclei = [(22, 20, 10, 13, 0.3), (30, 68, 15, 12, 0.9), (64, 26, 14, 10, 2.4), (72, 47, 10, 12, 0.2),
              (74, 79, 11, 11, 0.0)]  # fmt: skip
    image = draw_nuclei(draw_ellipses(nuclei), rng)
    # A network's view: outlines a little off, two that reach into each other, one nucleus found twice.
    found = [(22, 21, 11, 13, 0.3), (31, 68, 15, 13, 0.9), (65, 28, 15, 13, 2.4), (71, 46, 12, 15, 0.2),
             (74, 79, 11, 12, 0.0), (24, 72, 10, 12, 0.9)]  # fmt: skip
    masks, scores = draw_ellipses(found), np.array([0.97, 0.91, 0.88, 0.95, 0.99, 0.41])
    labels = nucleus.label_pixels(masks, scores)
    parted = labels[..., None] == np.arange(1, len(scores) + 1)

    panels = [("image", enlarge(image))]
    for title, shown in (("detections", masks), ("submission: the higher score wins", parted)):
        picture = visualize.draw_instances(enlarge(image), result_of(enlarge(shown), scores), ["BG", "nucleus"])
        panels.append((title, picture))
    sheet = PIL.Image.new("RGB", (len(panels) * (SIDE * ZOOM + 8) - 8, SIDE * ZOOM + BAR), "white")
    pen, font = PIL.ImageDraw.Draw(sheet), PIL.ImageFont.load_default(18)
    for index, (title, panel) in enumerate(panels):
        left = index * (SIDE * ZOOM + 8)
        pen.text((left, 2), title, font=font, fill="black")
        sheet.paste(PIL.Image.fromarray(panel), (left, BAR))
    sheet.save(FOLDER / "picture.png", optimize=True)


if __name__ == "__main__":
    main()
