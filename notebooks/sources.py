"""The data sets, settings and weights that the notebooks can show, by name: shapes, coco, balloon, nucleus."""

import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
for folder in ("", "samples/shapes", "samples/coco", "samples/balloon", "samples/nucleus"):
    sys.path.append(str(ROOT / folder))  # a checkout runs without being installed
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's remarks would bury what the notebooks show

import balloon  # noqa: E402
import coco  # noqa: E402
import nucleus  # noqa: E402
import shapes  # noqa: E402

from mrcnn import COCO_CLASS_NAMES, utils, visualize  # noqa: E402
from mrcnn.data.checks import did_you_mean  # noqa: E402
from mrcnn.data.survey import find_problems  # noqa: E402
from mrcnn.engine.command_line import quiet_import  # noqa: E402
from mrcnn.engine.h5_layout import read_file  # noqa: E402
from mrcnn.geometry.images import resize_scale  # noqa: E402

with quiet_import():  # once, here, so that a notebook that imports it later stays clean
    from mrcnn import model as modellib

WEIGHTS = {"shapes": ROOT / "samples" / "shapes" / "mask_rcnn_shapes.h5", "coco": Path(coco.COCO_MODEL_PATH)}
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


def _check(what, value, known):
    if value not in known:
        hint = did_you_mean(value, known)
        raise ValueError(f"{what} must be one of {', '.join(known)}; received {value!r}{hint and '.' + hint}")


def make_config(name, mode="training"):
    """The settings for a data set, a `Config`.

    Args:
        name: "shapes", "coco", "balloon" or "nucleus".
        mode: "training" or "inference".

    Raises:
        ValueError: there is no such name or mode.
    """
    _check("DATA", name, list(CONFIGS))
    _check("mode", mode, ["training", "inference"])
    return CONFIGS[name][mode == "inference"]()


def open_dataset(name, subset="train", folder=None):
    """A prepared `Dataset`.

    Args:
        name: "shapes", "coco", "balloon" or "nucleus".
        subset: "train" or "val".
        folder: of the files; by default that of this name in the folder MRCNN_DATA, or in datasets/. Shapes have none.

    Raises:
        ValueError: there is no such name or subset.
        FileNotFoundError: there is no such folder, or files in it are missing.
    """
    _check("DATA", name, list(CONFIGS))
    _check("subset", subset, ["train", "val"])
    if name == "shapes":
        count, seed = {"train": (500, 0), "val": (50, 1)}[subset]
        return shapes.make_dataset(count, seed)
    folder = Path(folder or Path(os.environ.get("MRCNN_DATA") or ROOT / "datasets") / name)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} with the data of {name!r}: set FOLDER to where it lies, "
                                f"or the environment variable MRCNN_DATA to the folder that {name}/ is in; or take "
                                'DATA = "shapes", which needs no files')
    if name == "coco":
        return coco.load_subsets(folder, [subset], "2017")[0]
    return {"balloon": balloon.load_subset, "nucleus": nucleus.make_dataset}[name](folder, subset)


def class_names(name):
    """The names of a data set's classes by class id, as its weights are trained for: a list of str.

    Raises:
        ValueError: there is no such name.
    """
    _check("DATA", name, list(CONFIGS))
    if name == "coco":
        return COCO_CLASS_NAMES
    return ["BG", "square", "circle", "triangle"] if name == "shapes" else ["BG", name]


def open_model(name, mode="inference", config=None, weights=None):
    """A model with weights, a `MaskRCNN`.

    Args:
        name: "shapes", "coco", "balloon" or "nucleus".
        mode: "training" or "inference".
        config: Config; `make_config(name, mode)` by default. Its BACKBONE becomes the one that the weights are of.
        weights: path of a weights file. By default those that ship for Shapes, and for COCO those in the folder above,
            if they were downloaded; others stay as they are drawn with the config's SEED, and a line says so.

    Raises:
        ValueError: there is no such name.
        ValueError, OSError: as `MaskRCNN` and `load_weights` do.
    """
    _check("DATA", name, list(CONFIGS))
    config = make_config(name, mode) if config is None else config
    if weights is None and name in WEIGHTS and WEIGHTS[name].is_file():
        weights = WEIGHTS[name]
    if weights is not None and isinstance(config.BACKBONE, str):
        with read_file(weights) as arrays:
            config.BACKBONE = "resnet101" if "res4w_branch2a" in arrays else "resnet50"
    model = modellib.MaskRCNN(mode=mode, config=config, model_dir=str(LOGS))
    if weights is not None:
        model.load_weights(str(weights), by_name=True)
    else:
        print("No weights were given: the network is untrained, and what it finds means nothing.")
    return model


def load_objects(dataset, config, image_id):
    """An image with its ground truth as `load_image_gt` has it, without crowds: a region of many is no object to find.

    Returns:
        image, image_meta, class_ids, bbox, mask.
    """
    image, image_meta, class_ids, bbox, mask = modellib.load_image_gt(dataset, config, image_id)
    single = class_ids > 0
    return image, image_meta, class_ids[single], bbox[single], mask[..., single]


def last_layers(model):
    """The layers whose outputs are the backbone's feature maps.

    Args:
        model: MaskRCNN.

    Returns:
        dict: "C2" to "C5" -> name of that stage's last layer, such as "res4w_out" for C4 of a ResNet-101.
    """
    found = (re.fullmatch(r"res(\d)\w+_out", layer.name) for layer in model.keras_model.layers)
    return {f"C{match[1]}": match[0] for match in found if match}


# ---------------------------------------------------------------- what training sees


def scale_of(config, fact):
    """The number by which an image of the survey is multiplied for the network."""
    return resize_scale((fact.height, fact.width), config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM, config.IMAGE_MIN_SCALE,
                        config.IMAGE_RESIZE_MODE)  # fmt: skip


def problems_of(config, facts):
    """What training would stumble over: `find_problems` with the settings of a config."""
    return find_problems(facts, lambda fact: scale_of(config, fact), config.RPN_ANCHOR_SCALES, config.MAX_GT_INSTANCES)


def problem_table(dataset, problems):
    """Problems as rows for `visualize.display_table`."""
    rows = [["PROBLEM", "IMAGES", "OBJECTS", "FIRST IMAGE", "IN TRAINING"]]
    for problem in problems:
        first = str(dataset.image_info[problem.image_ids[0]]["id"])[:24] if problem.image_ids else ""
        rows.append([problem.name, len(problem.image_ids), problem.objects or "", first, problem.consequence])
    return rows


def anchor_levels(config, image_shape):
    """The anchors of each level of the pyramid, and those of the cell in its middle.

    Returns:
        levels: list of [anchors, (y1, x1, y2, x2)] float, pixels, from the finest level to the coarsest.
        centers: list of [anchors per cell, (y1, x1, y2, x2)] float, pixels.
    """
    shapes = modellib.compute_backbone_shapes(config, image_shape)
    levels, centers = [], []
    for scale, shape, stride in zip(config.RPN_ANCHOR_SCALES, shapes, config.BACKBONE_STRIDES):
        ratios, step = config.RPN_ANCHOR_RATIOS, config.RPN_ANCHOR_STRIDE
        anchors = utils.generate_anchors(scale, ratios, shape, stride, step)
        rows, columns = -(-shape // step)
        middle = rows // 2 * columns + columns // 2
        levels.append(anchors)
        centers.append(anchors[middle * len(ratios) : (middle + 1) * len(ratios)])
    return levels, centers


def training_example(config, anchors, batch, index=0):
    """Reads an image of a batch back: targets become boxes and masks that can be drawn.

    Args:
        config: Config that the batch was made with.
        anchors: [anchors, (y1, x1, y2, x2)] number, pixels.
        batch: (inputs, outputs) of a `data_generator` with `random_rois` and `detection_targets`.
        index: int, the image within the batch.

    Returns:
        namespace of `image` [H, W, 3] uint8; `class_ids` and `boxes` of the objects; the anchors `positive`, `refined`
        (the positive ones where they should move), `negative` and `neutral`, [N, 4] pixels; the regions' `rois`,
        `roi_class_ids`, `refined_rois` and `roi_masks` [N, height, width].
    """
    inputs, outputs = ([array[index] for array in part] for part in batch)
    image, _, match, deltas, class_ids, boxes, _, _, rois = inputs
    roi_class_ids, roi_deltas, roi_masks = outputs
    match, labels, rows = match[:, 0], roi_class_ids[:, 0], np.arange(len(rois))
    positive = anchors[match == 1]
    return SimpleNamespace(
        image=modellib.unmold_image(image, config),
        class_ids=class_ids[class_ids != 0],
        boxes=boxes[class_ids != 0],
        positive=positive,
        refined=utils.apply_box_deltas(positive, deltas[: len(positive)] * config.RPN_BBOX_STD_DEV),
        negative=anchors[match == -1],
        neutral=anchors[match == 0],
        rois=rois,
        roi_class_ids=labels,
        refined_rois=utils.apply_box_deltas(rois.astype(float), roi_deltas[rows, labels] * config.BBOX_STD_DEV),
        roi_masks=roi_masks[rows, :, :, labels],
    )


def region_panels(image, rois, refined_rois, masks, titles, side=140):
    """Regions one by one, as (images, titles) for `visualize.display_images`.

    Of each the surroundings, with the region in orange and the box of its object in green, and beside it the mask. All
    are squares of `side` pixels, white beyond the image.
    """
    pictures = []
    for roi, box, mask in zip(rois, refined_rois, masks):
        length = max(int(2.5 * max(roi[2:] - roi[:2])), 2)
        y, x = ((roi[:2] + roi[2:] - length) / 2).astype(int)
        around = np.pad(image, ((length, length), (length, length), (0, 0)), constant_values=255)
        around = around[y + length : y + 2 * length, x + length : x + 2 * length]
        picture = utils.resize(around, (side, side), preserve_range=True).astype(np.uint8)
        for corners, color in ((roi, (213, 94, 0)), (box, (0, 158, 115))):
            shown = (corners - [y, x, y, x]) * (side / length)
            visualize.draw_box(picture, shown + np.array([-1, -1, 1, 1]), (255, 255, 255))  # is seen anywhere
            visualize.draw_box(picture, shown, color)
        pictures += [picture, mask]
    return pictures, [text for title in titles for text in ("", title)]


def small_shapes(seed):
    """Many small bright shapes on dark grounds, in images of the sizes that microscopes give; a prepared data set."""
    rng = np.random.default_rng(seed)
    dataset = shapes.ShapesDataset()
    dataset.load_shapes(0, 128, 128)  # the classes
    for count, height, width in ((16, 128, 160), (50, 256, 256), (25, 256, 320), (15, 360, 360), (8, 520, 696)):
        for _ in range(count):
            most = min(int(rng.uniform(3, 40) * height * width / 256**2) + 1, 100)
            dataset.add_image("shapes", len(dataset.image_info), path=None, width=width, height=height,
                              bg_color=rng.integers(0, 40, 3), shapes=_scattered(most, height, width, rng))  # fmt: skip
    dataset.prepare()
    return dataset


def _scattered(most, height, width, rng):
    """Recipes of up to `most` shapes that do not hide each other."""
    found, reach = [], 1.16  # times the size, to the sides of a triangle
    for _ in range(4 * most):
        x, y, size = int(rng.integers(width)), int(rng.integers(height)), int(rng.integers(4, 15))
        if all(max(abs(x - a), abs(y - b)) > reach * (size + c) for _, _, (a, b, c) in found):
            kind = str(rng.choice(["square", "circle", "triangle"]))
            found.append((kind, tuple(rng.integers(90, 256, 3).tolist()), (x, y, size)))
    return found[:most]
