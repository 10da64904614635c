"""Folders laid out like COCO's, with images of noise, and the COCO sample as a module."""

import functools
import json
from pathlib import Path

import numpy as np
import PIL.Image
import scripts

FOLDER = Path(__file__).resolve().parents[1] / "samples" / "coco"
load_script = functools.partial(scripts.load_script, FOLDER)

coco = load_script("coco")

CATEGORIES = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}, {"id": 8, "name": "truck"}]
SQUARE = [2, 3, 12, 3, 12, 9, 2, 9]  # x 2 to 12, y 3 to 9


def annotation(number, image_id=1, category_id=1, segmentation=(SQUARE,), **more):
    """A COCO annotation; a tuple of polygons becomes a list."""
    segmentation = list(segmentation) if isinstance(segmentation, tuple) else segmentation
    return {"id": number, "image_id": image_id, "category_id": category_id, "segmentation": segmentation, **more}


def make_folder(folder, annotations=None, sizes=((30, 20), (24, 32)), name="val2017", categories=CATEGORIES):
    """A folder laid out like COCO's, with images 1, 2, ... of the sizes (width, height); returns its path."""
    images = [{"id": n, "file_name": f"{n:012d}.png", "width": w, "height": h} for n, (w, h) in enumerate(sizes, 1)]
    data = {"images": images, "categories": categories,
            "annotations": [annotation(1)] if annotations is None else annotations}  # fmt: skip
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "annotations" / f"instances_{name}.json").write_text(json.dumps(data))
    (folder / name).mkdir(exist_ok=True)
    for image in images:
        draw = np.random.default_rng(image["id"])
        pixels = draw.integers(0, 255, (image["height"], image["width"], 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / name / image["file_name"])
    return folder


def load(folder, **arguments):
    dataset = coco.CocoDataset()
    dataset.load_coco(folder, "val", "2017", **arguments)
    dataset.prepare()
    return dataset
