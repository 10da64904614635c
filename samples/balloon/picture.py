"""Makes picture.jpg: a photo, what VIA knows of it, and the colour splash that follows from it.

    python samples/balloon/picture.py
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image
import skimage.data

FOLDER = Path(__file__).resolve().parent

if __name__ == "__main__":
    sys.path[:0] = [str(FOLDER), str(FOLDER.parents[1])]

import balloon  # noqa: E402

from mrcnn import utils, visualize  # noqa: E402

# As VIA exports it: an ellipse around the saucer, and a polygon around the cup that stands on it.
SAUCER = {"name": "ellipse", "cx": 277, "cy": 236, "rx": 202, "ry": 160, "theta": 0.04}
CUP = {
    "name": "polygon",
    "all_points_x": [173, 176, 196, 232, 286, 338, 384, 410, 416, 406, 376, 366, 350, 300, 236, 202, 208, 188, 178],
    "all_points_y": [92, 68, 42, 24, 17, 23, 42, 72, 98, 132, 172, 210, 240, 268, 262, 256, 240, 204, 140],
}
ANNOTATIONS = {
    "coffee.png-1": {
        "filename": "coffee.png",
        "size": -1,
        "file_attributes": {},
        "regions": [
            {"shape_attributes": SAUCER, "region_attributes": {"kind": "saucer"}},
            {"shape_attributes": CUP, "region_attributes": {"kind": "cup"}},
        ],
    }
}


def load_coffee(folder):
    """The photo as a data set, as if it had been annotated with VIA."""
    train = Path(folder) / "train"
    train.mkdir()
    PIL.Image.fromarray(skimage.data.coffee()).save(train / "coffee.png")
    (train / "via_region_data.json").write_text(json.dumps(ANNOTATIONS))
    return balloon.load_subset(folder, "train")


def main():
    with tempfile.TemporaryDirectory() as folder:
        dataset = load_coffee(folder)
        image, (masks, class_ids) = dataset.load_image(0), dataset.load_mask(0)
    drawn = visualize.draw_instances(
        image, {"rois": utils.extract_bboxes(masks), "class_ids": class_ids, "masks": masks}, dataset.class_names
    )
    panels = [drawn, balloon.color_splash(image, masks)]
    PIL.Image.fromarray(np.concatenate(panels, axis=1)).save(FOLDER / "picture.jpg", quality=88)


if __name__ == "__main__":
    main()
