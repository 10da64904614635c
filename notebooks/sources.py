"""The data sets, settings and weights that the notebooks can show, by name: shapes, coco, balloon, nucleus."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
for folder in ("", "samples/shapes", "samples/coco", "samples/balloon", "samples/nucleus"):
    sys.path.append(str(ROOT / folder))  # a checkout runs without being installed
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's remarks would bury what the notebooks show

import balloon  # noqa: E402
import coco  # noqa: E402
import nucleus  # noqa: E402
import shapes  # noqa: E402

from mrcnn.engine.command_line import quiet_import  # noqa: E402

with quiet_import():  # once, here, so that a notebook that imports it later stays clean
    from mrcnn import model as modellib

SHAPES_WEIGHTS = ROOT / "samples" / "shapes" / "mask_rcnn_shapes.h5"
LOGS = ROOT / "logs"


class OnACpu:
    """What makes the samples' settings small enough for a notebook without a GPU."""

    BACKBONE = "resnet50"
    IMAGES_PER_GPU = 1
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 512
    SEED = 0


class Inference:
    """One image at a time, and every detection: what is doubtful is worth a look, too."""

    GPU_COUNT = 1
    IMAGES_PER_GPU = 1
    DETECTION_MIN_CONFIDENCE = 0


class ShapesNotebookConfig(shapes.SmallShapesConfig):
    """The small network of the Shapes sample."""

    SEED = 0


class CocoNotebookConfig(OnACpu, coco.CocoConfig):
    """COCO at half the resolution."""


class BalloonNotebookConfig(OnACpu, balloon.BalloonConfig):
    """Balloons at half the resolution."""


class NucleusNotebookConfig(nucleus.NucleusConfig):
    """Nuclei as in the sample, an image at a time."""

    IMAGES_PER_GPU = 1
    SEED = 0


class ShapesInferenceConfig(Inference, ShapesNotebookConfig):
    """Shapes, for detection."""


class CocoInferenceConfig(Inference, CocoNotebookConfig):
    """COCO, for detection."""


class BalloonInferenceConfig(Inference, BalloonNotebookConfig):
    """Balloons, for detection."""


class NucleusInferenceConfig(Inference, NucleusNotebookConfig):
    """Whole images of nuclei, enlarged and padded."""

    IMAGE_RESIZE_MODE = nucleus.NucleusInferenceConfig.IMAGE_RESIZE_MODE
    RPN_NMS_THRESHOLD = nucleus.NucleusInferenceConfig.RPN_NMS_THRESHOLD


# For training, for inference.
CONFIGS = {
    "shapes": (ShapesNotebookConfig, ShapesInferenceConfig),
    "coco": (CocoNotebookConfig, CocoInferenceConfig),
    "balloon": (BalloonNotebookConfig, BalloonInferenceConfig),
    "nucleus": (NucleusNotebookConfig, NucleusInferenceConfig),
}


def _check_name(name):
    if name not in CONFIGS:
        raise ValueError(f"DATA must be one of {', '.join(CONFIGS)}; received {name!r}")


def make_config(name, mode="training"):
    """The settings for a data set, a `Config`.

    Args:
        name: "shapes", "coco", "balloon" or "nucleus".
        mode: "training" or "inference".

    Raises:
        ValueError: there is no such name.
    """
    _check_name(name)
    return CONFIGS[name][mode == "inference"]()


def open_dataset(name, subset="train", folder=None):
    """A prepared `Dataset`.

    Args:
        name: "shapes", "coco", "balloon" or "nucleus".
        subset: "train" or "val".
        folder: of the files; by default that of this name in the folder MRCNN_DATA, or in datasets/. Shapes have none.

    Raises:
        ValueError: there is no such name.
        FileNotFoundError: there are no such files.
    """
    _check_name(name)
    folder = folder or Path(os.environ.get("MRCNN_DATA") or ROOT / "datasets") / name
    if name == "shapes":
        count, seed = {"train": (500, 0), "val": (50, 1)}[subset]
        return shapes.make_dataset(count, seed)
    if name == "coco":
        return coco.load_subsets(folder, [subset], "2017")[0]
    return {"balloon": balloon.load_subset, "nucleus": nucleus.make_dataset}[name](folder, subset)


def open_model(name, mode="inference", config=None, weights=None):
    """A model with weights, a `MaskRCNN`.

    Args:
        name: "shapes", "coco", "balloon" or "nucleus".
        mode: "training" or "inference".
        config: Config; `make_config(name, mode)` by default.
        weights: path of a weights file. By default those that ship for Shapes; the others stay as they are drawn with
            the config's SEED, and a line says so.

    Raises:
        ValueError, OSError: as `MaskRCNN` and `load_weights` do.
    """
    config = config or make_config(name, mode)
    model = modellib.MaskRCNN(mode=mode, config=config, model_dir=str(LOGS))
    if weights is None and name == "shapes":
        weights = SHAPES_WEIGHTS
    if weights is not None:
        model.load_weights(str(weights), by_name=True)
    else:
        print("No weights were given: the network is untrained, and what it finds means nothing.")
    return model
