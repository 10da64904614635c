"""Times the drawing of many instances on a large photo.

    python benchmarks/drawing.py                       # a table
    python benchmarks/drawing.py --json drawing.json   # and its figures as a file
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import skimage.data
import skimage.draw
import skimage.transform

if __name__ == "__main__":
    os.environ["MPLBACKEND"] = "agg"  # no window
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout runs without being installed

import common
from common import positive

from mrcnn import COCO_CLASS_NAMES, visualize
from mrcnn.geometry.masks import extract_bboxes

PACKAGES = ("numpy", "scipy", "scikit-image", "Pillow", "matplotlib")
INSTANCES, WIDTH = 100, 2048
LIMITS = {"draw_instances": 0.5}  # seconds wanted for this many, on a photo this wide


# ------------------------------------------------------------------ what is drawn
def make_photo(width):
    """[2/3 of the width, width, 3] uint8: a photo that comes with scikit-image, resized."""
    size = max(1, int(width * 400 / 600)), width
    return skimage.transform.resize(skimage.data.coffee(), size, preserve_range=True).astype(np.uint8)


def make_result(size, count):
    """Instances as `MaskRCNN.detect` returns them: ellipses of many sizes, the same each time."""
    rng = np.random.default_rng(0)
    masks = np.zeros((*size, count), bool)
    for index in range(count):
        radii = np.exp(rng.uniform(*np.log([0.01, 0.12]), 2)) * size[1]
        center, angle = rng.uniform(0, size), rng.uniform(-np.pi, np.pi)
        masks[(*skimage.draw.ellipse(*center, *radii, shape=size, rotation=angle), index)] = True
    return {"rois": extract_bboxes(masks), "class_ids": rng.integers(1, len(COCO_CLASS_NAMES), count),
            "scores": rng.uniform(0.5, 1, count).astype(np.float32), "masks": masks}  # fmt: skip


def tasks(photo, result, folder):
    """What is timed, {name: function}."""
    import matplotlib.pyplot as plt

    instances = photo, result["rois"], result["masks"], result["class_ids"], COCO_CLASS_NAMES, result["scores"]

    def display(**arguments):
        visualize.display_instances(*instances, **arguments)
        plt.close("all")  # they would pile up

    return {
        "draw_instances": lambda: visualize.draw_instances(photo, result, COCO_CLASS_NAMES),
        "display_instances": lambda: display(show=False),
        "display_instances, saved": lambda: display(save=Path(folder) / "figure.png"),
    }


# ------------------------------------------------------------------ timing
def run(instances=INSTANCES, width=WIDTH, runs=5):
    """All figures, as `--json` writes them."""
    photo = make_photo(width)
    result = make_result(photo.shape[:2], instances)
    with tempfile.TemporaryDirectory() as folder:
        seconds = common.take_turns(tasks(photo, result, folder), runs)
    limits = LIMITS if (instances, width) == (INSTANCES, WIDTH) else {}
    return {
        "input": {"width": photo.shape[1], "height": photo.shape[0], "instances": instances, "runs": runs},
        "machine": common.machine(),
        "versions": common.versions(PACKAGES),
        "seconds": {name: common.summary(values) | {"limit": limits.get(name)} for name, values in seconds.items()},
    }


def report(figures, markdown=False):
    """The figures as lines of text."""
    given = figures["input"]
    rows = [
        [name, *common.spread(row), "" if row["limit"] is None else f"< {row['limit']:g} s"]
        for name, row in figures["seconds"].items()
    ]
    size = f"{given['width']} x {given['height']} pixels"
    title = f"{given['instances']} instances on a photo of {size}; {given['runs']} runs"
    return [title, "", *common.table(["", "median", "least", "most", "wanted"], rows, markdown)]


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Time the drawing of many instances on a large photo.")
    parser.add_argument("--instances", type=positive, default=INSTANCES, help=f"on the photo (default: {INSTANCES})")
    parser.add_argument("--width", type=positive, default=WIDTH, help=f"of the photo, pixels (default: {WIDTH})")
    parser.add_argument("--runs", type=positive, default=5, help="of each function (default: 5)")
    common.add_output_arguments(parser)
    args = parser.parse_args(arguments)
    common.check_output(parser, args)
    figures = run(args.instances, args.width, args.runs)
    common.finish(args, figures, report(figures, args.markdown))


if __name__ == "__main__":
    main()
