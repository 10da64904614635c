"""Mask R-CNN on drawn shapes: a whole example without a download, and a model for a data set of your own.

It has what every project needs: a configuration, a data set, and the commands that train, evaluate and detect.
A small network learns the shapes from nothing in minutes, on a CPU:

    python samples/shapes/shapes.py train
    python samples/shapes/shapes.py evaluate
    python samples/shapes/shapes.py detect

It is one file, and so a long one, because a sample is read from top to bottom and copied as a whole.
"""

import argparse
import math
import os
import random
import sys
from pathlib import Path

import numpy as np
import skimage.draw

ROOT_DIR = str(Path(__file__).resolve().parents[2])
DEFAULT_LOGS_DIR = os.path.join(ROOT_DIR, "logs")

if __name__ == "__main__":
    sys.path.append(ROOT_DIR)  # a checkout runs without being installed
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's remarks would bury what this program says

from mrcnn import utils  # noqa: E402
from mrcnn.config import Config  # noqa: E402

# ---------------------------------------------------------------- configurations


class ShapesConfig(Config):
    """The full network on small images: a ResNet-101, to be started from trained weights, best on a GPU."""

    NAME = "shapes"
    GPU_COUNT = 1
    IMAGES_PER_GPU = 8  # the images are small, so a batch can hold many
    NUM_CLASSES = 1 + 3  # background, and three shapes
    IMAGE_MIN_DIM = 128
    IMAGE_MAX_DIM = 128
    RPN_ANCHOR_SCALES = (8, 16, 32, 64, 128)  # small images, small objects
    TRAIN_ROIS_PER_IMAGE = 32  # few objects, so few regions show them all
    STEPS_PER_EPOCH = 100
    VALIDATION_STEPS = 5


def slim_resnet(stem, widths):
    """Makes a backbone: a slim ResNet of basic blocks (He et al. 2015, section 4.2).

    The layers are named as those of the large ResNets, so that `train(layers="4+")` and the like work here too.

    Args:
        stem: int, channels of the first convolution.
        widths: four ints, channels of C2 to C5.

    Returns:
        A function for `Config.BACKBONE`: it takes an image [batch, H, W, channels] float, whether C5 is built, and the
        mode of the batch normalisation, and gives [C1, C2, C3, C4, C5 or None] of strides 2, 4, 8, 16 and 32.
    """

    def conv(x, filters, size, stride, name, train_bn):
        from keras import layers

        names = (name, "bn_" + name) if name == "conv1" else ("res" + name, "bn" + name)
        x = layers.Conv2D(filters, size, strides=stride, padding="same", use_bias=False, name=names[0])(x)
        # A low momentum: a short training must not end with the statistics of its beginning.
        return layers.BatchNormalization(momentum=0.9, name=names[1])(x, training=train_bn)

    def block(x, filters, stride, name, train_bn):
        from keras import layers

        y = layers.ReLU()(conv(x, filters, 3, stride, name + "_branch2a", train_bn))
        y = conv(y, filters, 3, 1, name + "_branch2b", train_bn)
        if stride > 1:
            x = conv(x, filters, 1, stride, name + "_branch1", train_bn)
        return layers.ReLU(name=f"res{name}_out")(layers.Add()([x, y]))

    def backbone(input_image, stage5=True, train_bn=None):
        from keras import layers

        # It keeps the sign of an edge and lifts weak ones, so that faint objects count as well as bright ones.
        stages = [layers.Activation("softsign")(conv(input_image, stem, 3, 2, "conv1", train_bn))]
        for stage, filters in enumerate(widths if stage5 else widths[:3], start=2):
            x = stages[-1]
            for index in range(1 if stage == 5 else 2):
                x = block(x, filters, 2 if index == 0 else 1, f"{stage}{'abc'[index]}", train_bn)
            stages.append(x)
        return stages if stage5 else [*stages, None]

    return backbone


small_backbone = slim_resnet(24, (16, 32, 64, 96))


def backbone_shape(image_shape):
    """[[height, width], ...] of P2 to P6 for an image of this shape."""
    return np.array([[math.ceil(side / stride) for side in image_shape[:2]] for stride in Config.BACKBONE_STRIDES])


class SmallShapesConfig(ShapesConfig):
    """A network of about a million weights on the same images, which learns from nothing on a CPU."""

    BACKBONE = small_backbone
    COMPUTE_BACKBONE_SHAPE = backbone_shape
    TOP_DOWN_PYRAMID_SIZE = 48
    RPN_CHANNELS = 64
    FPN_CLASSIF_FC_LAYERS_SIZE = 128
    MASK_POOL_SIZE = 7  # half the usual resolution, a fourth of the work
    MASK_CHANNELS = 48
    MASK_SHAPE = [14, 14]
    MINI_MASK_SHAPE = (28, 28)
    RPN_TRAIN_ANCHORS_PER_IMAGE = 64
    POST_NMS_ROIS_TRAINING = 64  # an image has four objects at most
    POST_NMS_ROIS_INFERENCE = 64
    TRAIN_ROIS_PER_IMAGE = 24
    ROI_POSITIVE_RATIO = 0.5  # more regions with an object: surer scores for faint shapes
    TRAIN_BN = None  # no trained statistics to keep, and batches large enough to make new ones
    LEARNING_RATE = 0.02


CONFIGS = {"small": SmallShapesConfig, "full": ShapesConfig}

# ---------------------------------------------------------------- data set

MARGIN = 20  # pixels, from the border of the image to the centre of a shape at least
LEAST_SIZE = 20  # pixels, half the height of a shape at least; at most a fourth of the image's height


class ShapesDataset(utils.Dataset):
    """Squares, circles and triangles on plain backgrounds, drawn when they are asked for.

    `image_info` holds the recipe of each image: its size, `bg_color`, and `shapes`, a list of
    (kind, colour, (x, y, size)) from the hindmost to the foremost.
    """

    def load_shapes(self, count, height, width, seed=None):
        """Adds images.

        Args:
            count: int, number of images.
            height, width: int, pixels.
            seed: int, the same images each time; None draws with Python's own generator (`random.seed`).

        Raises:
            ValueError: images this small have no room for a shape.
        """
        if height < 4 * LEAST_SIZE or width <= 2 * MARGIN:
            raise ValueError(
                f"shapes need images of height >= {4 * LEAST_SIZE} and width > {2 * MARGIN} pixels; "
                f"received height={height}, width={width}"
            )
        for class_id, name in enumerate(("square", "circle", "triangle"), start=1):
            self.add_class("shapes", class_id, name)
        rng = random if seed is None else random.Random(seed)
        for image_id in range(len(self.image_info), len(self.image_info) + count):
            bg_color, shapes = self.random_image(height, width, rng)
            self.add_image(
                "shapes", image_id, path=None, width=width, height=height, bg_color=bg_color, shapes=shapes
            )

    def load_image(self, image_id):
        """Draws an image: [height, width, 3] uint8."""
        info = self.image_info[image_id]
        image = np.full((info["height"], info["width"], 3), info["bg_color"], np.uint8)
        for kind, color, dims in info["shapes"]:
            self.draw_shape(image, kind, dims, color)
        return image

    def load_mask(self, image_id):
        """Draws what is visible of every shape: masks [height, width, N] bool, class ids [N] int32."""
        info = self.image_info[image_id]
        masks = np.zeros((info["height"], info["width"], len(info["shapes"])), bool)
        for index, (kind, _, dims) in enumerate(info["shapes"]):
            shape = self.draw_shape(np.zeros(masks.shape[:2], bool), kind, dims, True)
            masks[shape, :index] = False  # it hides what was drawn before
            masks[:, :, index] = shape
        class_ids = [self.class_names.index(kind) for kind, _, _ in info["shapes"]]
        return masks, np.array(class_ids, np.int32)

    def image_reference(self, image_id):
        """The recipe of the image's shapes, as text."""
        info = self.image_info[image_id]
        if info["source"] != "shapes":
            return super().image_reference(image_id)
        shapes = (f"{kind} of size {size} at ({x}, {y})" for kind, _, (x, y, size) in info["shapes"])
        return f"shapes image {info['id']}: {', '.join(shapes)}"

    def draw_shape(self, image, shape, dims, color):
        """Draws a shape into an image and returns the image.

        Args:
            image: [H, W] or [H, W, 3], is changed; what lies outside of it is cut off.
            shape: "square", "circle" or "triangle".
            dims: (x, y, size), the centre and half the height, pixels.
            color: value of a pixel.

        Raises:
            ValueError: a shape of another name.
        """
        x, y, s = dims
        size = image.shape[:2]
        if shape == "square":
            image[max(y - s, 0) : y + s + 1, max(x - s, 0) : x + s + 1] = color
        elif shape == "circle":
            # A little more than the radius, because the disk does not hold its rim.
            image[skimage.draw.disk((y, x), s + 0.01, shape=size)] = color
        elif shape == "triangle":
            reach = s / math.sin(math.radians(60))
            rows, columns = (y - s, y + s, y + s), (x, int(x - reach), int(x + reach))
            image[skimage.draw.polygon(rows, columns, size)] = color
            image[skimage.draw.polygon_perimeter(rows, columns, size, clip=False)] = color
        else:
            raise ValueError(f"shape must be 'square', 'circle' or 'triangle'; received {shape!r}")
        return image

    def random_shape(self, height, width, rng=random):
        """Draws the recipe of one shape: kind, colour (r, g, b), dims (x, y, size)."""
        kind = rng.choice(["square", "circle", "triangle"])
        color = tuple(rng.randint(0, 255) for _ in range(3))
        y = rng.randint(MARGIN, height - MARGIN - 1)
        x = rng.randint(MARGIN, width - MARGIN - 1)
        size = rng.randint(LEAST_SIZE, height // 4)
        return kind, color, (x, y, size)

    def random_image(self, height, width, rng=random):
        """Draws the recipe of an image: background colour [3] int, and one to four shapes.

        Of two shapes whose boxes overlap by more than 0.3 IoU, the later one stays.
        """
        bg_color = np.array([rng.randint(0, 255) for _ in range(3)])
        shapes = [self.random_shape(height, width, rng) for _ in range(rng.randint(1, 4))]
        boxes = np.array([(y - s, x - s, y + s, x + s) for _, _, (x, y, s) in shapes])
        kept = utils.non_max_suppression(boxes, np.arange(len(shapes)), 0.3)
        return bg_color, [shapes[index] for index in sorted(kept)]


def make_dataset(count, seed=None, side=128):
    """A data set of `count` square images, ready for use."""
    dataset = ShapesDataset()
    dataset.load_shapes(count, side, side, seed)
    dataset.prepare()
    return dataset


# ---------------------------------------------------------------- training, evaluation, detection


def make_model(mode, config, logs):
    """A model for `mode` "training" or "inference"; Keras is imported here, so that mistakes show before that."""
    from mrcnn.engine.command_line import quiet_import

    with quiet_import():
        from mrcnn import model as modellib

    return modellib.MaskRCNN(mode=mode, config=config, model_dir=logs)


def load_weights(model, weights):
    """Loads "last" (the newest checkpoint), a file, or "none"; returns the file's path or None."""
    if weights == "none":
        return None
    path = model.find_last() if weights == "last" else weights
    model.load_weights(path, by_name=True)
    return path


def learning_rate(peak, steps, warm_up=100):
    """A rate that rises to `peak` while the first statistics settle, and then falls to zero along a cosine."""
    from keras.optimizers.schedules import CosineDecay

    warm_up = min(warm_up, steps // 2)
    return CosineDecay(0.0, decay_steps=steps - warm_up, warmup_target=peak, warmup_steps=warm_up)


def train(model, train_set, val_set, epochs, callbacks=None, layers="all"):
    """Trains up to epoch `epochs`; `layers` as in `MaskRCNN.train`."""
    print(f"Training {layers} layers" if layers in ("all", "heads") else f"Training layers {layers}")
    model.train(
        train_set,
        val_set,
        learning_rate=learning_rate(model.config.LEARNING_RATE, epochs * model.config.STEPS_PER_EPOCH),
        epochs=epochs,
        layers=layers,
        custom_callbacks=callbacks,
    )


def truth(dataset, image_id):
    """What can be seen in an image, in the form of a result of `detect`, with all scores 1."""
    masks, class_ids = dataset.load_mask(image_id)
    visible = masks.any(axis=(0, 1))
    masks, class_ids = masks[:, :, visible], class_ids[visible]
    boxes = utils.extract_bboxes(masks)
    return {"rois": boxes, "class_ids": class_ids, "scores": np.ones(len(class_ids)), "masks": masks}


def detect(model, dataset, image_ids=None):
    """Detects in these images of a data set (all by default), batch by batch; yields (image id, result)."""
    image_ids = dataset.image_ids if image_ids is None else image_ids
    for start in range(0, len(image_ids), model.config.BATCH_SIZE):
        batch = image_ids[start : start + model.config.BATCH_SIZE]
        images = [dataset.load_image(image_id) for image_id in batch]
        yield from zip(batch, model.detect(images), strict=True)


def evaluate(model, dataset, image_ids=None):
    """Returns mAP@50: the average precision at mask IoU 0.5 of each image, and of these the mean over all images.

    The original's notebooks measure this. COCO's AP50 puts the detections of all images into one order, and is lower as
    a rule (docs/evaluation.md).
    """
    precisions = []
    for image_id, found in detect(model, dataset, image_ids):
        true = truth(dataset, image_id)
        precision, _, _, _ = utils.compute_ap(
            *(true[key] for key in ("rois", "class_ids", "masks")),
            *(found[key] for key in ("rois", "class_ids", "scores", "masks")),
        )
        precisions.append(precision)
    return float(np.mean(precisions))


# ---------------------------------------------------------------- command line


def count_argument(text):
    """A number of one or more."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number of 1 or more; received {text!r}")
    return int(text)


def parse_arguments(arguments=None):
    """Reads the command line, and refuses what cannot work."""
    parser = argparse.ArgumentParser(description="Mask R-CNN on squares, circles and triangles.")
    parser.add_argument("command", metavar="<command>", choices=("train", "evaluate", "detect"),
                        help="train, evaluate or detect")  # fmt: skip
    parser.add_argument("--weights", metavar="<file|last|none>",
                        help="where to start; training: none, else: last, the newest checkpoint")  # fmt: skip
    parser.add_argument("--config", choices=CONFIGS, default="small", help="the network (default: small)")
    parser.add_argument("--logs", default=DEFAULT_LOGS_DIR, metavar="<folder>", help="of the checkpoints")
    parser.add_argument("--count", type=count_argument,
                        help="images to draw (train: enough to see each once; evaluate: 50)")  # fmt: skip
    parser.add_argument("--seed", type=int, help="of the images, and of training (train: 0, else: 1000)")
    parser.add_argument("--epochs", type=count_argument, default=30, help="in total (default: 30)")
    parser.add_argument("--steps", type=count_argument, default=100, help="batches per epoch (default: 100)")
    parser.add_argument("--layers", default="all", help="to train: heads, 3+, 4+, 5+, all or a regular expression")
    parser.add_argument("--image", metavar="<file>", help="detect: the image (default: one that is drawn)")
    parser.add_argument("--output", default="shapes_detections.png", metavar="<file>", help="detect: the PNG to write")
    args = parser.parse_args(arguments)
    args.weights = args.weights or ("none" if args.command == "train" else "last")
    args.seed = args.seed if args.seed is not None else (0 if args.command == "train" else 1000)
    if args.command != "train" and args.weights == "none":
        parser.error(f"{args.command} needs trained weights: give a file or last as --weights, or train first")
    if args.weights not in ("last", "none") and not os.path.isfile(args.weights):
        parser.error(f"--weights {args.weights}: there is no such file; give a file, last or none")
    if not 0 <= args.seed < 2**32:
        parser.error(f"--seed must lie between 0 and 2**32 - 1; received {args.seed}")
    if args.image and args.command != "detect":
        parser.error(f"--image is for detect; {args.command} draws its images")
    if args.image and not os.path.isfile(args.image):
        parser.error(f"--image {args.image}: there is no such file")
    if args.command == "detect" and not os.path.isdir(os.path.dirname(os.path.abspath(args.output))):
        parser.error(f"--output {args.output}: there is no such folder")
    if args.command == "detect" and not args.output.lower().endswith(".png"):
        parser.error(f"--output {args.output}: the picture is a PNG; give a name that ends in .png")
    return args


def run_train(model, args):
    """The command `train`."""
    config = model.config
    count = args.count or args.epochs * args.steps * config.BATCH_SIZE
    val_set = make_dataset(config.VALIDATION_STEPS * config.BATCH_SIZE, args.seed + 1)
    train(model, make_dataset(count, args.seed), val_set, args.epochs, layers=args.layers)
    print(f"Checkpoints and logs are in {model.log_dir}")


def run_evaluate(model, args):
    """The command `evaluate`."""
    dataset = make_dataset(args.count or 50, args.seed)
    print(f"mAP@50 on {dataset.num_images} images of seed {args.seed}: {evaluate(model, dataset):.3f}")


def run_detect(model, args):
    """The command `detect`."""
    from pictures import save_picture

    drawn = make_dataset(1, args.seed)
    if args.image:
        photos = utils.Dataset()
        photos.add_image("file", args.image, args.image)
    image = photos.load_image(0) if args.image else drawn.load_image(0)
    result = model.detect([image])[0]
    for class_id, score, box in zip(result["class_ids"], result["scores"], result["rois"], strict=True):
        print(f"{drawn.class_names[class_id]:10} score {score:.3f}  box (y1, x1, y2, x2) {tuple(map(int, box))}")
    title = os.path.basename(args.image) if args.image else f"drawn, seed {args.seed}"
    save_picture(args.output, [(title, image, result, True)], drawn.class_names)
    print(f"{len(result['rois'])} objects; picture saved to {args.output}")


def main(arguments=None):
    args = parse_arguments(arguments)
    print(f"Command: {args.command}\nWeights: {args.weights}\nDataset: drawn shapes, seed {args.seed}\n"
          f"Config:  {args.config}\nLogs:    {args.logs}")  # fmt: skip
    config = CONFIGS[args.config]()
    if args.command == "train":
        config.SEED, config.STEPS_PER_EPOCH = args.seed, args.steps
    model = make_model("training" if args.command == "train" else "inference", config, args.logs)
    try:
        load_weights(model, args.weights)
        {"train": run_train, "evaluate": run_evaluate, "detect": run_detect}[args.command](model, args)
    except (FileNotFoundError, ValueError, FloatingPointError) as error:
        sys.exit(f"shapes.py: {error}")
    except KeyboardInterrupt as stop:
        sys.exit(f"shapes.py: {stop or 'interrupted'}")


if __name__ == "__main__":
    main()
