"""Mask R-CNN on microscopy images: finds every nucleus, as the 2018 Data Science Bowl asked for.

The data is that of https://www.kaggle.com/c/data-science-bowl-2018: a folder per subset (stage1_train, stage1_test,
stage2_test), in it a folder per image, ID/images/ID.png, and where the nuclei are known one mask each, ID/masks/*.png.

    python samples/nucleus/nucleus.py train --dataset nucleus/ --subset train --weights imagenet
    python samples/nucleus/nucleus.py evaluate --dataset nucleus/ --subset val --weights last
    python samples/nucleus/nucleus.py detect --dataset nucleus/ --subset stage1_test --weights last

It is one file, and so a long one, because a sample is read from top to bottom and then changed for data of your own.
"""

import collections
import datetime
import functools
import os
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageChops

ROOT_DIR = str(Path(__file__).resolve().parents[2])

if __name__ == "__main__":
    sys.path.append(ROOT_DIR)  # a checkout runs without being installed
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's remarks would bury what this program says

from mrcnn import utils  # noqa: E402
from mrcnn.config import Config  # noqa: E402
from mrcnn.data.checks import did_you_mean, too_many  # noqa: E402
from mrcnn.geometry.boxed import BoxedMasks  # noqa: E402

COCO_WEIGHTS_PATH = os.path.join(ROOT_DIR, "mask_rcnn_coco.h5")
DEFAULT_LOGS_DIR = os.path.join(ROOT_DIR, "logs")
RESULTS_DIR = os.path.join(ROOT_DIR, "results/nucleus/")

# The images of stage1_train that are kept for validation, chosen so that every kind of microscopy is among them.
VAL_IMAGE_IDS = [
    "0c2550a23b8a0f29a7575de8c61690d3c31bc897dd5ba66caec201d201a278c2",
    "92f31f591929a30e4309ab75185c96ff4314ce0a7ead2ed2c2171897ad1da0c7",
    "1e488c42eb1a54a3e8412b1f12cde530f950f238d71078f2ede6a85a02168e1f",
    "c901794d1a421d52e5734500c0a2a8ca84651fb93b19cec2f411855e70cae339",
    "8e507d58f4c27cd2a82bee79fe27b069befd62a46fdaed20970a95a2ba819c7b",
    "60cb718759bff13f81c4055a7679e81326f78b6a193a2d856546097c949b20ff",
    "da5f98f2b8a64eee735a398de48ed42cd31bf17a6063db46a9e0783ac13cd844",
    "9ebcfaf2322932d464f15b5662cae4d669b2d785b8299556d73fffcae8365d32",
    "1b44d22643830cd4f23c9deadb0bd499fb392fb2cd9526d81547d93077d983df",
    "97126a9791f0c1176e4563ad679a301dac27c59011f579e808bbd6e9f4cd1034",
    "e81c758e1ca177b0942ecad62cf8d321ffc315376135bcbed3df932a6e5b40c0",
    "f29fd9c52e04403cd2c7d43b6fe2479292e53b2f61969d25256d2d2aca7c6a81",
    "0ea221716cf13710214dcd331a61cea48308c3940df1d28cfc7fd817c83714e1",
    "3ab9cab6212fabd723a2c5a1949c2ded19980398b56e6080978e796f45cbbc90",
    "ebc18868864ad075548cc1784f4f9a237bb98335f9645ee727dac8332a3e3716",
    "bb61fc17daf8bdd4e16fdcf50137a8d7762bec486ede9249d92e511fcb693676",
    "e1bcb583985325d0ef5f3ef52957d0371c96d4af767b13e48102bca9d5351a9b",
    "947c0d94c8213ac7aaa41c4efc95d854246550298259cf1bb489654d0e969050",
    "cbca32daaae36a872a11da4eaff65d1068ff3f154eedc9d3fc0c214a4e5d32bd",
    "f4c4db3df4ff0de90f44b027fc2e28c16bf7e5c75ea75b0a9762bbb7ac86e7a3",
    "4193474b2f1c72f735b13633b219d9cabdd43c21d9c2bb4dfc4809f104ba4c06",
    "f73e37957c74f554be132986f38b6f1d75339f636dfe2b681a0cf3f88d2733af",
    "a4c44fc5f5bf213e2be6091ccaed49d8bf039d78f6fbd9c4d7b7428cfcb2eda4",
    "cab4875269f44a701c5e58190a1d2f6fcb577ea79d842522dcab20ccb39b7ad2",
    "8ecdb93582b2d5270457b36651b62776256ade3aaa2d7432ae65c14f07432d49",
]

# ---------------------------------------------------------------- configurations


class NucleusConfig(Config):
    """Training: random crops of enlarged images, because the images differ much in size and nuclei are small."""

    NAME = "nucleus"
    IMAGES_PER_GPU = 6
    NUM_CLASSES = 1 + 1  # background, nucleus
    STEPS_PER_EPOCH = (657 - len(VAL_IMAGE_IDS)) // IMAGES_PER_GPU
    VALIDATION_STEPS = max(1, len(VAL_IMAGE_IDS) // IMAGES_PER_GPU)
    DETECTION_MIN_CONFIDENCE = 0  # the score of the competition rewards finding them all
    BACKBONE = "resnet50"
    IMAGE_RESIZE_MODE = "crop"
    IMAGE_MIN_DIM = 512
    IMAGE_MAX_DIM = 512
    IMAGE_MIN_SCALE = 2.0  # a nucleus can be as small as 8 pixels
    RPN_ANCHOR_SCALES = (8, 16, 32, 64, 128)
    POST_NMS_ROIS_TRAINING = 1000
    POST_NMS_ROIS_INFERENCE = 2000
    RPN_NMS_THRESHOLD = 0.9  # keeps more proposals to learn from
    RPN_TRAIN_ANCHORS_PER_IMAGE = 64
    MEAN_PIXEL = np.array([43.53, 39.56, 48.22])  # most images are bright nuclei on black
    USE_MINI_MASK = True
    MINI_MASK_SHAPE = (56, 56)
    TRAIN_ROIS_PER_IMAGE = 128
    MAX_GT_INSTANCES = 200
    DETECTION_MAX_INSTANCES = 400


class NucleusInferenceConfig(NucleusConfig):
    """Detection: whole images, one at a time, enlarged and padded to multiples of 64 pixels."""

    GPU_COUNT = 1
    IMAGES_PER_GPU = 1
    IMAGE_RESIZE_MODE = "pad64"
    RPN_NMS_THRESHOLD = 0.7


# ---------------------------------------------------------------- data set

# The folder that a subset lies in. Nuclei of the test images are unknown.
SUBSETS = {
    "train": "stage1_train",
    "val": "stage1_train",
    "stage1_train": "stage1_train",
    "stage1_test": "stage1_test",
    "stage2_test": "stage2_test",
}


class NucleusDataset(utils.Dataset):
    """Microscopy images with a mask file per nucleus."""

    masks_are_fixed = True

    def load_nucleus(self, dataset_dir, subset):
        """Adds the images of a subset, in the order of their ids.

        Args:
            dataset_dir: folder of the data, the one that `stage1_train` lies in.
            subset: "train" (stage1_train but for VAL_IMAGE_IDS), "val" (those of VAL_IMAGE_IDS that are there),
                "stage1_train", "stage1_test" or "stage2_test".

        Raises:
            ValueError: there is no such subset.
            FileNotFoundError: the folder, images, or masks to train on are missing; names them.
        """
        if subset not in SUBSETS:
            raise ValueError(f"subset must be one of {', '.join(SUBSETS)}; received {subset!r}."
                             f"{did_you_mean(subset, SUBSETS)}")
        folder = Path(dataset_dir, SUBSETS[subset])
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: there is no such folder; the subset {subset!r} lies in it, with a "
                                    "folder per image")
        image_ids = {path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."}
        if subset == "train":
            image_ids -= set(VAL_IMAGE_IDS)
        elif subset == "val":
            image_ids &= set(VAL_IMAGE_IDS)
        if not image_ids:
            raise FileNotFoundError(f"{folder} has no images of the subset {subset!r}: a folder per image is expected")
        needed = ["images/{}.png"] if folder.name.endswith("_test") else ["images/{}.png", "masks"]
        _check_files([folder / i / name.format(i) for i in sorted(image_ids) for name in needed], subset)

        self.add_class("nucleus", 1, "nucleus")
        for image_id in sorted(image_ids):
            self.add_image("nucleus", image_id, path=str(folder / image_id / "images" / f"{image_id}.png"))

    def load_mask(self, image_id):
        """Reads the masks of an image; none for images of the test sets.

        Args:
            image_id: int, index of the image.

        Returns:
            masks: [H, W, N] bool, one per file in the order of their names.
            class_ids: [N] int32, all 1.

        Raises:
            FileNotFoundError: the image is gone.
            ValueError: a mask cannot be read, or its size is not that of the image.
        """
        if self.image_info[image_id]["source"] != "nucleus":
            return super().load_mask(image_id)
        masks, class_ids = self.load_boxed_masks(image_id)
        return masks.full(), class_ids

    def load_boxed_masks(self, image_id):
        """As `load_mask`, but nothing that is as large as the image: there may be hundreds of nuclei."""
        info = self.image_info[image_id]
        if info["source"] != "nucleus":
            return super().load_boxed_masks(image_id)
        with _open(info["path"]) as image:
            width, height = image.size  # which reads no pixels
        read = [_read_mask(path, height, width) for path in sorted(Path(info["path"]).parents[1].glob("masks/*.png"))]
        masks = BoxedMasks(height, width, [box for box, _ in read], [part for _, part in read])
        return masks, np.ones(len(read), np.int32)

    def image_reference(self, image_id):
        """The id of the image, which is the name of its folder."""
        info = self.image_info[image_id]
        return info["id"] if info["source"] == "nucleus" else super().image_reference(image_id)


def _check_files(paths, subset):
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise FileNotFoundError(f"the subset {subset!r} is not complete; missing are {', '.join(missing[:5])}{more}")


def _open(path):
    """A PIL image, of which nothing but the size was read so far."""
    try:
        return PIL.Image.open(path)
    except PIL.UnidentifiedImageError as error:
        raise ValueError(f"{path} is no image, or a damaged one") from error


def _read_mask(path, height, width):
    """(box, part of the mask within it, bool) of what is not black in a mask file of this size."""
    with _open(path) as file:
        if file.size != (width, height):
            raise ValueError(f"{path} has {file.width} x {file.height} pixels, but its image has {width} x {height}")
        try:
            plane = file.convert("L") if file.mode in ("1", "L") else _brightest(file.convert("RGB"))
        except (OSError, SyntaxError) as error:  # what PIL raises for a file that ends early
            raise ValueError(f"{path} cannot be read: {error}") from error
    x1, y1, x2, y2 = plane.getbbox() or (0, 0, 0, 0)
    # A nucleus is small: to look at its box only halves the time.
    return (y1, x1, y2, x2), np.asarray(plane.crop((x1, y1, x2, y2))).reshape(y2 - y1, x2 - x1).astype(bool)


def _brightest(image):
    """The largest of the three channels, an image of grey."""
    return functools.reduce(PIL.ImageChops.lighter, image.split())


def make_dataset(dataset_dir, subset):
    """The data set of a subset, ready for use."""
    dataset = NucleusDataset()
    dataset.load_nucleus(dataset_dir, subset)
    dataset.prepare()
    return dataset


# ---------------------------------------------------------------- training


def make_augmentation():
    """None to two random changes per image: mirrored, turned by a right angle, brightness, blur.

    Returns:
        augmenter for `MaskRCNN.train`.

    Raises:
        ImportError: the library is not installed.
    """
    try:
        from imgaug import augmenters as iaa
    except ImportError as error:
        raise ImportError('training augments images with imgaug: pip install imaug') from error
    return iaa.SomeOf((0, 2), [
        iaa.Fliplr(0.5),
        iaa.Flipud(0.5),
        iaa.OneOf([iaa.Affine(rotate=90), iaa.Affine(rotate=180), iaa.Affine(rotate=270)]),
        iaa.Multiply((0.8, 1.5)),
        iaa.GaussianBlur(sigma=(0.0, 5.0)),
    ])  # fmt: skip


# Layers, total number of epochs, factor of the learning rate: first the new heads, then everything.
SCHEDULE = [("heads", 20, 1), ("all", 40, 1)]


def train(model, dataset_dir, subset, schedule=None):
    """Trains on a subset, and validates on "val", if there is any.

    Args:
        model: MaskRCNN in training mode.
        dataset_dir, subset: as for `NucleusDataset.load_nucleus`.
        schedule: list as SCHEDULE, which is the default.
    """
    from mrcnn.engine.command_line import train_in_stages

    train_set, val_set = make_dataset(dataset_dir, subset), None
    try:
        val_set = make_dataset(dataset_dir, "val")
    except FileNotFoundError as error:  # nuclei of your own
        print(f"Training without validation: {error}")
    train_in_stages(model, train_set, val_set, schedule or SCHEDULE, augmentation=make_augmentation())
    print(f"Checkpoints and logs are in {model.log_dir}")


# ---------------------------------------------------------------- run-length encoding


def rle_encode(mask):
    """Encodes a mask as the competition wants it: "start length start length ...".

    Pixels are counted from 1, from top to bottom, column after column.

    Args:
        mask: [H, W] bool or number; everything but 0 is inside.

    Returns:
        str, empty for an empty mask.
    """
    pixels = np.asarray(mask, bool).T.ravel()
    changes = np.flatnonzero(np.diff(pixels, prepend=False, append=False))
    starts, ends = changes[::2], changes[1::2]
    return " ".join(map(str, np.stack([starts + 1, ends - starts], axis=1).ravel()))


def rle_decode(rle, shape):
    """Decodes what `rle_encode` made.

    Args:
        rle: str.
        shape: (H, W) of the mask.

    Returns:
        [H, W] bool.

    Raises:
        ValueError: the text is no such encoding, or has runs outside the mask.
    """
    height, width = shape[:2]
    words = rle.split()
    if len(words) % 2 or not all(word.isdecimal() for word in words):
        raise ValueError(f"rle must be pairs of whole numbers, start and length; received {rle[:60]!r}")
    starts, lengths = np.array(words, int).reshape(-1, 2).T
    if len(words) and (starts.min() < 1 or (starts + lengths).max() > height * width + 1):
        raise ValueError(f"rle has runs outside a mask of {height} x {width} pixels: {rle[:60]!r}")
    steps = np.zeros(height * width + 1, int)
    np.add.at(steps, starts - 1, 1)
    np.add.at(steps, starts - 1 + lengths, -1)
    return steps[:-1].cumsum().astype(bool).reshape(width, height).T


def label_pixels(mask, scores):
    """Gives each pixel to one mask, the one with the highest score: no pixel may belong to two nuclei.

    Args:
        mask: [H, W, N] bool or number; everything but 0 is inside.
        scores: [N] float; of equal ones the first counts more.

    Returns:
        [H, W] int32, number of the mask from 1 on, 0 outside of all.

    Raises:
        ValueError: masks and scores differ in number.
    """
    mask, scores = np.asarray(mask), np.asarray(scores)
    if mask.ndim != 3 or scores.shape != mask.shape[2:]:
        raise ValueError(f"mask must be [H, W, N] and scores [N]; received shapes {mask.shape} and {scores.shape}")
    labels = np.zeros(mask.shape[:2], np.int32, order="F")  # as runs are counted
    for index in np.argsort(-scores, kind="stable")[::-1]:
        labels[mask[:, :, index] != 0] = index + 1
    return labels


def mask_to_rle(image_id, mask, scores):
    """Encodes all masks of an image as lines of a submission; overlaps go to the mask with the highest score.

    Args:
        image_id: str.
        mask: [H, W, N] bool.
        scores: [N] float.

    Returns:
        str, a line "id, start length ..." for each mask that has pixels left, in their order; "id," if none has.
    """
    labels = label_pixels(mask, scores)
    lines = [f"{image_id}, {rle_encode(labels == label)}" for label in np.unique(labels[labels > 0])]
    return "\n".join(lines) or f"{image_id},"


# ---------------------------------------------------------------- detection


def new_folder(results_dir):
    """Makes the folder of a submission, named after the time; of two in one second the later one takes the next."""
    started = datetime.datetime.now()
    while True:
        folder = os.path.join(results_dir, f"submit_{started:%Y%m%dT%H%M%S}")
        try:
            os.makedirs(folder)
            return folder
        except FileExistsError:
            if not os.path.isdir(folder):
                raise
            started += datetime.timedelta(seconds=1)


def detect(model, dataset_dir, subset, results_dir=RESULTS_DIR):
    """Detects nuclei in all images of a subset; writes a submission and a picture of each image.

    An image that cannot be read is named, and stands in the submission as one without nuclei. If they are all, or more
    than one and more than 5 %, that is an error in the end.

    Args:
        model: MaskRCNN in inference mode.
        dataset_dir, subset: as for `NucleusDataset.load_nucleus`.
        results_dir: folder in which a new one is made, with `submit.csv` and `{image id}.png`.

    Returns:
        Path of `submit.csv`.
    """
    from mrcnn.engine.progress import progress
    from mrcnn.visualize import draw_instances

    dataset = make_dataset(dataset_dir, subset)
    folder = new_folder(results_dir)
    path = os.path.join(folder, "submit.csv")
    unreadable = []
    with open(path + ".part", "w") as file, progress(dataset.num_images, "Detecting") as advance:
        file.write("ImageId,EncodedPixels\n")
        for image_id in dataset.image_ids:
            name = dataset.image_info[image_id]["id"]
            try:
                image = dataset.load_image(image_id)
            except (ValueError, OSError) as error:
                unreadable.append(str(error))
                file.write(f"{name},\n")
            else:
                result = model.detect([image])[0]
                file.write(mask_to_rle(name, result["masks"], result["scores"]) + "\n")
                # Names and scores of hundreds of nuclei would cover them.
                shown = {key: result[key] for key in ("rois", "class_ids", "masks")}
                picture = draw_instances(image, shown, class_names=["", ""])
                PIL.Image.fromarray(picture).save(os.path.join(folder, f"{name}.png"))
            advance()
    os.replace(path + ".part", path)  # only a whole submission gets the name
    none_is_left = len(unreadable) == dataset.num_images
    if too_many(len(unreadable), dataset.num_images) or none_is_left:
        raise ValueError("\n  ".join([f"{len(unreadable)} of {dataset.num_images} images cannot be read:", *unreadable])
                         + ("" if none_is_left else f"\nThe others are in {folder}"))
    for line in unreadable:
        print(f"Left out: {line}")
    print(f"{dataset.num_images - len(unreadable)} of {dataset.num_images} images; submission and pictures are in "
          f"{folder}")  # fmt: skip
    return path


# ---------------------------------------------------------------- evaluation


def competition_score(true_labels, found_labels):
    """The score that the competition gave to one image.

    At each of the IoU thresholds 0.5, 0.55, ..., 0.95 it is TP / (TP + FP + FN), and of these the mean.

    Args:
        true_labels: [H, W] int, as from `label_pixels`.
        found_labels: [H, W] int, of the same size.

    Returns:
        float, 0..1; 1 for an image without nuclei in which none was found.
    """
    shape = true_labels.max() + 1, found_labels.max() + 1
    pairs = np.ravel_multi_index((true_labels.ravel(), found_labels.ravel()), shape)
    common = np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape)  # pixels of each pair of nuclei
    areas, found_areas = common.sum(axis=1, keepdims=True), common.sum(axis=0, keepdims=True)
    iou = (common / np.maximum(areas + found_areas - common, 1))[1:, 1:]
    count = np.count_nonzero(areas[1:]) + np.count_nonzero(found_areas[:, 1:])
    # No pixel belongs to two nuclei, so above 0.5 there is one partner at most.
    hits = [np.count_nonzero(iou > threshold) for threshold in np.linspace(0.5, 0.95, 10)]
    return float(np.mean([hit / (count - hit) for hit in hits])) if count else 1.0


def _labels(image, rows):
    """`label_pixels` of COCO's annotations or detections of an image."""
    from mrcnn.engine.scoring import load_pycocotools

    if not rows:
        return np.zeros((image["height"], image["width"]), np.int32)
    masks = load_pycocotools().mask.decode([row["segmentation"] for row in rows])
    return label_pixels(masks, [row.get("score", 1.0) for row in rows])


def evaluate(model, dataset_dir, subset):
    """Compares the detections in all images of a subset with their masks, and prints the scores.

    Args:
        model: MaskRCNN in inference mode.
        dataset_dir, subset: as for `NucleusDataset.load_nucleus`.

    Returns:
        dict as `MaskRCNN.evaluate`, and "competition": mean of `competition_score` over the images.
    """
    from mrcnn.engine import evaluation
    from mrcnn.engine.progress import progress

    dataset = make_dataset(dataset_dir, subset)
    with progress(dataset.num_images, "Evaluating") as advance:
        each = getattr(model.config, "GPU_COUNT", 1)
        found = evaluation.collect(model.detect, dataset, dataset.image_ids, batch_size=each, advance=advance)
    # An image can have hundreds of nuclei, more than COCO's limit of detections.
    most = max(evaluation.COCO_DETECTIONS, model.config.DETECTION_MAX_INSTANCES)
    result = evaluation.score_findings(found, dataset, max_detections=most)
    rows, truth = collections.defaultdict(list), collections.defaultdict(list)
    for grouped, some in ((rows, found.rows), (truth, found.annotations)):
        for row in some:
            grouped[row["image_id"]].append(row)
    result["competition"] = float(np.mean([
        competition_score(_labels(image, truth[image["id"]]), _labels(image, rows[image["id"]]))
        for image in found.images
    ]))  # fmt: skip
    print(f"{subset}, masks: AP50 {result['segm']['AP50']:.3f}, AP {result['segm']['AP']:.3f}, score of the "
          f"competition {result['competition']:.3f}")  # fmt: skip
    return result


# ---------------------------------------------------------------- command line

COMMANDS = {
    "train": "learns from the masks of a subset",
    "detect": "writes a submission and pictures for a subset",
    "evaluate": "compares detections with the masks of a subset",
}
EXAMPLES = """\
  nucleus.py train --dataset nucleus/ --subset train --weights imagenet
  nucleus.py train --dataset nucleus/ --subset stage1_train --weights last --layers all --epochs 60
  nucleus.py evaluate --dataset nucleus/ --subset val --weights last
  nucleus.py detect --dataset nucleus/ --subset stage1_test --weights nucleus.h5 --output results/"""


def parse_arguments(arguments=None):
    """Reads the command line, and refuses what cannot work before anything slow begins."""
    from mrcnn.engine import command_line, scoring

    output = f"detect: folder for the folder of the submission (default: {RESULTS_DIR})"
    parser = command_line.make_parser("Mask R-CNN on cell nuclei.", COMMANDS, EXAMPLES, output)
    parser.add_argument("--dataset", required=True, metavar="<folder>", help="that stage1_train lies in")
    parser.add_argument("--subset", required=True, metavar="<subset>", type=command_line.one_of(SUBSETS),
                        help=f"one of {', '.join(SUBSETS)}")  # fmt: skip
    parser.add_argument("--logs", default=DEFAULT_LOGS_DIR, metavar="<folder>", help="of the checkpoints")
    args = parser.parse_args(arguments)
    command_line.check_arguments(parser, args, COCO_WEIGHTS_PATH)
    command_line.check_folder(parser, "--dataset", args.dataset)
    if args.command != "detect" and SUBSETS[args.subset].endswith("_test"):
        parser.error(f"{args.command} needs masks, and {args.subset} has none; take train, val or stage1_train")
    if args.weights == "coco" and args.command != "train":
        parser.error(f"{args.command} needs weights that know nuclei, and coco's do not: train from them first")
    if args.command == "detect":
        command_line.check_writable(parser, "--output", args.output or RESULTS_DIR)
    if args.output and args.command != "detect":
        parser.error(f"--output is for detect; {args.command} writes nothing there")
    try:
        make_dataset(args.dataset, args.subset)
        if args.command == "train":
            make_augmentation()
        elif args.command == "evaluate":
            scoring.load_pycocotools()
    except (OSError, ValueError, ImportError) as error:
        parser.error(str(error))
    return args


def main(arguments=None):
    from mrcnn.engine import command_line

    args = parse_arguments(arguments)
    command_line.announce(args, Dataset=args.dataset, Subset=args.subset)
    with command_line.exit_on_error("nucleus.py"):
        training = args.command == "train"
        config = command_line.configure(NucleusConfig if training else NucleusInferenceConfig, args)
        config.display()

        with command_line.quiet_import():
            from mrcnn import model as modellib  # not before now, because Keras takes its time

        model = modellib.MaskRCNN("training" if training else "inference", config, args.logs)
        command_line.load_weights(model, args.weights, COCO_WEIGHTS_PATH, utils.download_trained_weights)
        if training:
            train(model, args.dataset, args.subset, command_line.choose_stages(args, SCHEDULE))
        elif args.command == "detect":
            detect(model, args.dataset, args.subset, args.output or RESULTS_DIR)
        else:
            evaluate(model, args.dataset, args.subset)


if __name__ == "__main__":
    main()
