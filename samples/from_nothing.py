"""Small networks learn balloons or nuclei on a CPU in minutes, from nothing: no trained weights, no download.

They are no match for a ResNet that starts from COCO's weights, but they show that the whole path works, from outlines
in files to masks in photos, and what to change for a small training of your own: a configuration, the photos held in
memory, and an augmentation.

    python samples/from_nothing.py balloon --dataset datasets/balloon
    python samples/from_nothing.py nucleus --dataset datasets/nucleus
"""

import argparse
import functools
import json
import math
import os
import sys
import time

import numpy as np
import PIL.Image
import PIL.ImageOps

if __name__ == "__main__":
    for folder in ("..", "shapes", "balloon", "nucleus"):  # a checkout runs without being installed
        sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), folder))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's remarks would bury what this program says

import balloon
import nucleus
import shapes

from mrcnn import utils
from mrcnn.data.files import atomic
from mrcnn.engine import command_line

# ---------------------------------------------------------------- configurations


class Small:
    """A network of about two and a half million weights."""

    BACKBONE = staticmethod(shapes.slim_resnet(24, (24, 48, 96, 192)))
    COMPUTE_BACKBONE_SHAPE = staticmethod(shapes.backbone_shape)
    IMAGES_PER_GPU = 4
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 256
    TOP_DOWN_PYRAMID_SIZE = 64
    RPN_CHANNELS = 96
    FPN_CLASSIF_FC_LAYERS_SIZE = 256
    MASK_POOL_SIZE = 7
    MASK_CHANNELS = 64
    MASK_SHAPE = [14, 14]
    MINI_MASK_SHAPE = (28, 28)
    RPN_TRAIN_ANCHORS_PER_IMAGE = 128
    TRAIN_BN = None  # no trained statistics to keep
    LEARNING_RATE = 0.02
    GRADIENT_CLIP_NORM = 1.0  # large first steps would silence the RPN's units for good
    DETECTION_MIN_CONFIDENCE = 0  # average precision wants all detections
    SEED = 0


class SmallBalloonConfig(Small, balloon.BalloonConfig):
    """Photos at 256 pixels, few objects."""

    RPN_ANCHOR_SCALES = (16, 32, 64, 128, 224)
    RPN_TRAIN_ANCHORS_PER_IMAGE = 64
    POST_NMS_ROIS_TRAINING = 200
    POST_NMS_ROIS_INFERENCE = 200
    DETECTION_NMS_THRESHOLD = 0.4  # balloons come in bunches
    TRAIN_ROIS_PER_IMAGE = 32
    ROI_POSITIVE_RATIO = 0.5
    MAX_GT_INSTANCES = 50


class SmallNucleusConfig(Small, nucleus.NucleusConfig):
    """Crops of 256 pixels from tiles that are enlarged already."""

    IMAGE_MIN_SCALE = 0
    POST_NMS_ROIS_TRAINING = 256
    TRAIN_ROIS_PER_IMAGE = 64
    MAX_GT_INSTANCES = 100


class SmallNucleusInferenceConfig(SmallNucleusConfig):
    """Whole images, twice as large as they are, as in the training."""

    IMAGES_PER_GPU = 1
    IMAGE_RESIZE_MODE = "pad64"
    IMAGE_MIN_SCALE = 2.0
    POST_NMS_ROIS_INFERENCE = 1000
    RPN_NMS_THRESHOLD = 0.7


# ---------------------------------------------------------------- data in memory


class InMemory(utils.Dataset):
    """Images of another data set, read once, scaled, and cut into tiles.

    Of two objects that overlap, the later hides the earlier.

    Args:
        source: prepared Dataset of one class.
        scale: function of an image's height and width, how much larger it becomes.
        tile: int, largest side of a tile, pixels; None does not cut.
    """

    def __init__(self, source, scale, tile=None):
        super().__init__()
        info = source.class_info[1]
        self.add_class(info["source"], info["id"], info["name"])
        for image_id in source.image_ids:
            image, (masks, _) = source.load_image(image_id), source.load_mask(image_id)
            factor = scale(*image.shape[:2])
            size = [round(side * factor) for side in image.shape[1::-1]]
            image = np.asarray(PIL.Image.fromarray(image).resize(size, PIL.Image.Resampling.BILINEAR, reducing_gap=2))
            labels = np.asarray(PIL.Image.fromarray(number_pixels(masks)).resize(size, PIL.Image.Resampling.NEAREST))
            for y, x in tiles(*image.shape[:2], tile):
                part = np.s_[y : y + tile, x : x + tile] if tile else np.s_[:]
                name = f"{source.image_info[image_id]['id']}+{y}+{x}"
                self.add_image(info["source"], name, path=None, image=image[part], labels=labels[part])
        self.prepare()

    def load_image(self, image_id):
        return self.image_info[image_id]["image"]

    def load_mask(self, image_id):
        labels = self.image_info[image_id]["labels"]
        masks = labels[:, :, np.newaxis] == np.setdiff1d(labels, 0)
        return masks, np.ones(masks.shape[2], np.int32)


def number_pixels(masks):
    """[H, W] int32 of masks [H, W, N]: the number of the last mask that covers a pixel, from 1 on, or 0."""
    labels = np.zeros(masks.shape[:2], np.int32)
    for number, mask in enumerate(np.moveaxis(masks, -1, 0), start=1):
        labels[mask != 0] = number
    return labels


def tiles(height, width, side):
    """Upper left corners of tiles that cover an image and overlap by a third at least."""
    if side is None:
        return [(0, 0)]

    def starts(length):
        count = max(1, int(np.ceil((length - side) / (side * 2 / 3))) + 1)
        return np.linspace(0, max(0, length - side), count).astype(int)

    return [(y, x) for y in starts(height) for x in starts(width)]


def vary(image, masks, rng, sizes=(0.8, 1.25), light=(0.7, 1.4), hues=0.0, turns=False):
    """An augmentation: mirrors, other sizes, other light.

    Args:
        image: [H, W, 3] uint8.
        masks: [H, W, N] bool.
        rng: numpy.random.Generator.
        sizes: (least, most), by how much things grow; what grows is cut off at the image's border.
        light: (least, most), by how much brighter the image becomes.
        hues: float, share of the images whose colours go round the colour circle.
        turns: bool, quarter turns.

    Returns:
        image and masks, [H, W, N] bool.
    """
    height, width = image.shape[:2]
    scale = np.exp(rng.uniform(*np.log(sizes)))
    top, left = (rng.uniform(min(0, d), max(0, d)) for d in (height - height / scale, width - width / scale))
    box = (1 / scale, 0, left, 0, 1 / scale, top)  # PIL's affine map, from the new pixels to the old ones

    def moved(plane, resample):
        plane = PIL.Image.fromarray(plane)
        return np.asarray(plane.transform((width, height), PIL.Image.Transform.AFFINE, box, resample))

    image = moved(image, PIL.Image.Resampling.BILINEAR)
    labels = moved(number_pixels(masks), PIL.Image.Resampling.NEAREST)
    if rng.random() < 0.5:
        image, labels = image[:, ::-1], labels[:, ::-1]
    if hues and rng.random() < hues:
        image = shift_hue(image, rng.integers(256))
    if turns:
        image, labels = (np.rot90(plane, number) for number in [rng.integers(4)] for plane in (image, labels))
    brightness = np.exp(rng.uniform(*np.log(light))) * rng.uniform(0.95, 1.05, 3)
    image = np.clip(image * brightness, 0, 255).astype(np.uint8)
    return image, labels[:, :, np.newaxis] == np.arange(1, masks.shape[2] + 1)


def shift_hue(image, amount):
    """The image [H, W, 3] uint8 with all hues further along the colour circle, which has 256 steps."""
    hue, *others = PIL.Image.fromarray(np.ascontiguousarray(image)).convert("HSV").split()
    hue = PIL.Image.fromarray(np.asarray(hue) + np.uint8(amount))
    return np.asarray(PIL.Image.merge("HSV", [hue, *others]).convert("RGB"))


def load(load_into, dataset, folder, subset):
    """A prepared data set of a sample."""
    getattr(dataset, load_into)(folder, subset)
    dataset.prepare()
    return dataset


# ---------------------------------------------------------------- the two tasks

# A training has phases, each with its share of the steps, an augmentation, and a learning rate that rises and falls.
TASKS = {
    "balloon": {
        "configs": (SmallBalloonConfig, SmallBalloonConfig),
        "open": lambda folder, subset: load("load_balloon", balloon.BalloonDataset(), folder, subset),
        "scale": lambda height, width: 384 / max(height, width),
        "tile": None,
        "steps": 5200,
        # First photos of all colours and sizes, so that few of them teach what a balloon is; then as they are.
        "phases": ((0.6, functools.partial(vary, sizes=(0.75, 1.6), hues=0.5)), (0.4, vary)),
    },
    "nucleus": {
        "configs": (SmallNucleusConfig, SmallNucleusInferenceConfig),
        "open": lambda folder, subset: load("load_nucleus", nucleus.NucleusDataset(), folder, subset),
        "scale": lambda height, width: 2,
        "tile": 384,
        "steps": 6500,
        # First stains, light and sizes of all kinds, since the few training images do not show them all.
        "phases": (
            (0.6, functools.partial(vary, sizes=(0.7, 1.5), light=(0.5, 2.0), hues=0.5, turns=True)),
            (0.4, functools.partial(vary, turns=True)),
        ),
    },
}


def train(task, folder, output, steps, seed):
    """Trains for a number of steps, with checkpoints and logs below `output`; returns the weights file and seconds."""
    train_set, val_set = (
        InMemory(task["open"](folder, subset), task["scale"], task["tile"]) for subset in ("train", "val")
    )
    config = task["configs"][0]()
    config.SEED, config.VALIDATION_STEPS = seed, 5
    model = shapes.make_model("training", config, os.path.join(output, "logs"))
    shares, augmentations = zip(*task["phases"], strict=True)
    ends = np.round(np.cumsum(shares) * steps).astype(int)
    started, epochs = time.monotonic(), 0
    for phase_steps, augmentation in zip(np.diff(ends, prepend=0).tolist(), augmentations, strict=True):
        if phase_steps:
            phase_epochs = math.ceil(phase_steps / 100)
            config.STEPS_PER_EPOCH = phase_steps // phase_epochs
            epochs += phase_epochs
            rate = shapes.learning_rate(config.LEARNING_RATE, phase_epochs * config.STEPS_PER_EPOCH)
            model.train(train_set, val_set, rate, epochs, "all", augmentation=augmentation)
    weights = os.path.join(output, "weights.h5")
    model.keras_model.save_weights(weights)
    return weights, time.monotonic() - started


def measure(task, folder, weights, output):
    """AP of masks and boxes on ten training images and on all validation images, and a picture of some detections."""
    model = shapes.make_model("inference", task["configs"][1](), output)
    model.load_weights(weights, by_name=True)
    found = {}
    for subset, limit in (("train", 10), ("val", 0)):
        dataset = task["open"](folder, subset)
        ids = sorted(dataset.image_ids, key=lambda image_id: dataset.image_info[image_id]["id"])[: limit or None]
        print(f"Evaluating on {len(ids)} images of {subset}")
        scores = model.evaluate(dataset, image_ids=ids)
        found[subset] = {
            kind: {name: scores[kind][name] for name in ("AP", "AP50", "AP75")} for kind in ("segm", "bbox")
        }
        found[subset]["mean_AP50"] = shapes.evaluate(model, dataset, ids)
    save_picture(model, dataset, ids[:6], os.path.join(output, "detections.png"))
    return found


def save_picture(model, dataset, image_ids, path, confidence=0.7):
    """Draws what is found in some images side by side into a PNG file."""
    from mrcnn import visualize

    panels = []
    for image_id in image_ids:
        image = dataset.load_image(image_id)
        result = model.detect([image])[0]
        sure = result["scores"] >= confidence
        result = {key: values[..., sure] if key == "masks" else values[sure] for key, values in result.items()}
        names = dataset.class_names
        if len(result["rois"]) > 20:  # their names would cover them
            names, result["scores"] = [""] * len(names), None
        drawn = PIL.ImageOps.contain(PIL.Image.fromarray(visualize.draw_instances(image, result, names)), (480, 480))
        panel = PIL.Image.new("RGB", (480, 480), "white")
        panel.paste(drawn, ((480 - drawn.width) // 2, (480 - drawn.height) // 2))
        panels.append(np.asarray(panel))
    rows = [np.concatenate(panels[start : start + 3], axis=1) for start in range(0, len(panels), 3)]
    with atomic(path) as unfinished:
        PIL.Image.fromarray(np.concatenate(rows)).save(unfinished, format="PNG")


# ---------------------------------------------------------------- command line


def parse_arguments(arguments=None):
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description="Train a small Mask R-CNN on balloons or nuclei from nothing, and measure it.", allow_abbrev=False
    )
    parser.add_argument("task", metavar="<task>", type=command_line.one_of(TASKS), help="balloon or nucleus")
    parser.add_argument("--dataset", required=True, metavar="<folder>", help="of the sample's data set")
    parser.add_argument("--output", metavar="<folder>", help="of weights, logs and results (default: the task's name)")
    parser.add_argument("--steps", type=command_line.at_least(1), metavar="<n>",
                        help="of training (default: {})".format(
                            ", ".join(f"{task['steps']} for {name}" for name, task in TASKS.items())))  # fmt: skip
    parser.add_argument("--seed", type=command_line.seed, default=0, metavar="<n>", help="of all that is drawn")
    parser.add_argument("--weights", metavar="<file>", help="measure these instead of training")
    args = parser.parse_args(arguments)
    args.output, args.steps = args.output or args.task, args.steps or TASKS[args.task]["steps"]
    command_line.check_folder(parser, "--dataset", args.dataset)
    command_line.check_writable(parser, "--output", args.output)
    if args.weights:
        command_line.check_file(parser, "--weights", args.weights)
    return args


def main(arguments=None):
    args = parse_arguments(arguments)
    task = TASKS[args.task]
    for subset in ("train", "val"):
        task["open"](args.dataset, subset)  # what is wrong with it shows now
    command_line.writable_folder(args.output)
    weights, seconds = args.weights, None
    if weights is None:
        weights, seconds = train(task, args.dataset, args.output, args.steps, args.seed)
    scores = measure(task, args.dataset, weights, args.output)
    results = {"task": args.task, "steps": args.steps, "seed": args.seed, "training_seconds": seconds, "scores": scores}
    path = os.path.join(args.output, "results.json")
    with atomic(path) as unfinished, open(unfinished, "w") as file:
        json.dump(results, file, indent=2)
    for subset, kinds in scores.items():
        print(f"{subset:6} AP50 of masks {kinds['segm']['AP50']:.3f}, of boxes {kinds['bbox']['AP50']:.3f}; "
              f"AP of masks {kinds['segm']['AP']:.3f}; mean AP50 per image {kinds['mean_AP50']:.3f}")
    print(f"Weights, results.json and detections.png are in {args.output}")


if __name__ == "__main__":
    with command_line.exit_on_error("from_nothing.py"):
        main()
