"""The figures that tests compare with tests/golden/pictures/.

Renew the pictures after a change that is meant, and look at each of them:

    python tests/golden_pictures.py                    # all
    python tests/golden_pictures.py display_instances  # those that begin with a name
"""

import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

if __name__ == "__main__":
    os.environ["MPLBACKEND"] = "agg"
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import matplotlib as mpl
import matplotlib.pyplot as plt

from mrcnn import visualize
from mrcnn.utils import generate_anchors

FOLDER = Path(__file__).with_name("golden") / "pictures"
DPI = 50
NAMES = ["BG", "square", "circle", "triangle"]
SIZE = (120, 160)
BOXES = np.array([(15, 12, 75, 72), (40, 90, 110, 150), (60, 50, 115, 100)])
CLASS_IDS = np.array([1, 2, 3])
SCORES = np.array([0.99, 0.8, 0.0])
LOG = """epoch,data_wait,loss,mrcnn_bbox_loss,mrcnn_class_loss,mrcnn_mask_loss,rpn_bbox_loss,rpn_class_loss,val_loss,\
val_mrcnn_bbox_loss,val_mrcnn_class_loss,val_mrcnn_mask_loss,val_rpn_bbox_loss,val_rpn_class_loss
0,0.3,3.1,0.83,0.81,0.61,0.72,0.17,NA,NA,NA,NA,NA,NA
1,0.3,2.2,0.5,0.6,0.5,0.5,0.1,2.4,0.55,0.62,0.55,0.58,0.1
2,0.3,9.9,0.4,0.5,0.4,0.4,0.08,9.9,0.5,0.55,0.5,0.5,0.08
2,0.3,1.7,0.4,0.5,0.4,0.35,0.05,1.9,0.45,0.55,0.45,0.4,0.05
3,0.3,1.4,0.3,0.4,0.35,0.3,0.05,1.8,0.42,0.5,0.43,0.4,0.05
"""


def photo():
    """[120, 160, 3] uint8: a soft ground that shades can be seen on."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.stack([90 + 0.6 * y, 120 + 0.3 * x, 190 - 0.5 * y], axis=2).astype(np.uint8)


def masks_of(boxes, shapes=CLASS_IDS):
    """[120, 160, N] bool: a square, a circle or a triangle in each box."""
    masks = np.zeros((*SIZE, len(boxes)), bool)
    for n, ((y1, x1, y2, x2), shape) in enumerate(zip(boxes, shapes)):
        y, x = np.mgrid[: y2 - y1, : x2 - x1]
        y, x = (y + 0.5) / (y2 - y1) * 2 - 1, (x + 0.5) / (x2 - x1) * 2 - 1
        masks[y1:y2, x1:x2, n] = (abs(x) < 0.9, x**2 + y**2 < 1, abs(x) * 2 < y + 1)[shape - 1]
    return masks


def log_file(folder):
    path = Path(folder) / "log.csv"
    path.write_text(LOG)
    return path


def evaluated():
    """An evaluation's result, as far as it is plotted."""
    recalls = np.linspace(0, 1, 101)
    falling = {name: np.clip(1.2 - recalls**power - 0.2, 0, 1) for name, power in (("square", 9), ("circle", 3))}
    means = {f"{iou:.2f}": np.clip(1 - recalls ** (10 * (1.02 - iou)), 0, 1) for iou in np.arange(0.5, 1, 0.05)}
    matrix = [[0, 3, 0, 1], [2, 40, 3, 0], [5, 1, 30, 0], [0, 0, 8, 9]]
    return {
        "curves": {"recalls": recalls, "segm": {"mean": means, "per_class": falling}},
        "confusion": {"matrix": matrix, "names": NAMES, "kind": "segm", "iou_threshold": 0.5, "score_threshold": 0.5},
    }


# ------------------------------------------------------------------ a figure per function, made without a window
def display_images(folder):
    grey = np.linspace(0, 4000, 120 * 160).reshape(SIZE).astype(np.uint16)
    waves = np.sin(np.mgrid[:28, :28][1] / 3)
    images = [photo(), grey, waves, np.dstack([photo()] * 2), masks_of(BOXES)[..., 1]]
    return visualize.display_images(images, ["photo", "12 bits", "activations", "six channels", "mask"], show=False)


def display_instances(folder):
    return visualize.display_instances(photo(), BOXES, masks_of(BOXES), CLASS_IDS, NAMES, SCORES, "Found by a model",
                                       (6, 6), show=False)  # fmt: skip


def display_instances_by_class(folder):
    return visualize.display_instances(photo(), BOXES, None, [1, -2, 1], NAMES, title="Boxes alone", figsize=(6, 6),
                                       colors="class", show=False)  # fmt: skip


def display_instances_empty(folder):
    return visualize.display_instances(photo(), [], None, [], NAMES, figsize=(6, 6), show=False)


def display_differences(folder):
    boxes = np.concatenate([BOXES[:2] + 5, [(5, 110, 30, 140)]])
    scores = [0.99, 0.8, 0.4]  # the last one is below the threshold
    return visualize.display_differences(photo(), BOXES, CLASS_IDS, masks_of(BOXES), boxes, [1, 3, 1], scores,
                                         masks_of(boxes), NAMES, figsize=(8, 8), show=False)  # fmt: skip


def display_top_masks(folder):
    boxes = np.concatenate([BOXES, BOXES[:1] // 3])
    return visualize.display_top_masks(photo(), masks_of(boxes, [1, 2, 3, 1]), [1, 2, 3, 1], NAMES, show=False)


def draw_instances(folder):
    result = {"rois": BOXES, "class_ids": CLASS_IDS, "scores": SCORES, "masks": masks_of(BOXES)}
    return visualize.draw_instances(np.kron(photo(), np.ones((2, 2, 1), np.uint8)),
                                    result | {"rois": BOXES * 2, "masks": masks_of(BOXES).repeat(2, 0).repeat(2, 1)},
                                    NAMES)  # fmt: skip


def draw_box(folder):
    masked = visualize.apply_mask(photo(), masks_of(BOXES)[..., 1], (1, 0.5, 0))
    return visualize.draw_box(masked, BOXES[0], [255, 0, 0])


def draw_boxes(folder):
    refined = BOXES + np.array([4, 3, -6, 8])
    boxes = BOXES - np.array([30, 0, 0, 0])
    return visualize.draw_boxes(photo(), boxes, refined, masks_of(BOXES), ["first", None, "third"], [0, 1, 2],
                                "Anchors, refined", figsize=(6, 6), show=False)  # fmt: skip


def draw_anchors(folder):
    center = np.array([60, 80, 60, 80])
    levels = [generate_anchors(scale, [0.5, 1, 2], (1, 1), 1, 1) + center for scale in (12, 40, 90)]
    return visualize.draw_anchors(photo(), levels, title="Anchors of a cell", figsize=(6, 6), show=False)


def draw_rois(folder):
    np.random.seed(3)
    soft = np.mgrid[:28, :28][1][None].repeat(3, axis=0) / 28
    return visualize.draw_rois(photo(), BOXES, BOXES + 6, soft, [1, 0, 3], NAMES, figsize=(6, 6), show=False)


def plot_precision_recall(folder):
    precisions, recalls = [1, 1, 1, 0.75, 0.75, 0], [0, 0.25, 0.5, 0.5, 0.75, 1]
    return visualize.plot_precision_recall(0.6875, precisions, recalls, show=False)


def plot_overlaps(folder):
    overlaps = np.array([[0.93, 0, 0.1], [0, 0.61, 0], [0, 0.2, 0.72], [0.3, 0, 0]])
    return visualize.plot_overlaps([1, 2, 3, 0], [1, 3, 3, 1, 0, 0], [1, 0.95, 0.9, 0.5], overlaps, NAMES, show=False)


def plot_dataset_precision_recall(folder):
    return visualize.plot_dataset_precision_recall(evaluated(), show=False)


def plot_dataset_precision_recall_of_classes(folder):
    return visualize.plot_dataset_precision_recall(evaluated(), classes="all", show=False)


def plot_confusion_matrix(folder):
    return visualize.plot_confusion_matrix(evaluated(), show=False)


def plot_losses(folder):
    return visualize.plot_losses(log_file(folder), show=False)


PICTURES = (
    display_images, display_instances, display_instances_by_class, display_instances_empty, display_differences,
    display_top_masks, draw_instances, draw_box, draw_anchors, draw_boxes, draw_rois, plot_precision_recall,
    plot_overlaps, plot_dataset_precision_recall, plot_dataset_precision_recall_of_classes, plot_confusion_matrix,
    plot_losses,
)  # fmt: skip


def make(picture, folder):
    """Makes a figure in matplotlib's own style and returns it as [H, W, 3] uint8."""
    with mpl.rc_context(mpl.rcParamsDefault | {"backend": mpl.rcParams["backend"]}):
        made = picture(folder)
        if isinstance(made, np.ndarray):
            return made
        path = Path(folder) / "made.png"
        figure = getattr(made, "figure", made)
        figure.savefig(path, dpi=DPI, bbox_inches="tight", pad_inches=0.05)
        plt.close(figure)
        return np.asarray(Image.open(path).convert("RGB"))


if __name__ == "__main__":
    import tempfile

    FOLDER.mkdir(parents=True, exist_ok=True)
    for picture in PICTURES:
        if picture.__name__.startswith(tuple(sys.argv[1:]) or ""):
            with tempfile.TemporaryDirectory() as folder:
                Image.fromarray(make(picture, folder)).save(FOLDER / f"{picture.__name__}.png", optimize=True)
            print(FOLDER / f"{picture.__name__}.png")
