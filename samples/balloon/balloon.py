"""Mask R-CNN on balloons: a network trained on COCO learns a class of your own from a few dozen photos.

The photos are annotated with the VGG Image Annotator (VIA); found balloons keep their colour, all else turns grey:

    python samples/balloon/balloon.py train --dataset datasets/balloon --weights coco
    python samples/balloon/balloon.py splash --weights last --image photo.jpg
    python samples/balloon/balloon.py splash --weights last --video film.mp4

For objects of your own, change BalloonConfig, and give your VIA files the place of the balloons'.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import skimage.color

ROOT_DIR = str(Path(__file__).resolve().parents[2])
COCO_WEIGHTS_PATH = os.path.join(ROOT_DIR, "mask_rcnn_coco.h5")
DEFAULT_LOGS_DIR = os.path.join(ROOT_DIR, "logs")
DEFAULT_DATASET_DIR = os.path.join(ROOT_DIR, "datasets", "balloon")
SCHEDULE = [("heads", 30, 1)]  # layers, epochs, factor of the learning rate: the backbone knows enough from COCO

if __name__ == "__main__":
    sys.path.append(ROOT_DIR)  # a checkout runs without being installed
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's remarks would bury what this program says

from mrcnn import COCO_CLASS_NAMES, utils  # noqa: E402
from mrcnn.config import Config  # noqa: E402
from mrcnn.data import via  # noqa: E402
from mrcnn.engine import command_line  # noqa: E402
from mrcnn.engine.pictures import check_source, save_pictures  # noqa: E402
from mrcnn.geometry.boxed import BoxedMasks  # noqa: E402
from mrcnn.geometry.images import standardize_image  # noqa: E402

# ---------------------------------------------------------------- configuration


class BalloonConfig(Config):
    """The settings that differ from those of every other data set."""

    NAME = "balloon"
    IMAGES_PER_GPU = 2  # fits a GPU of 12 GB
    NUM_CLASSES = 1 + 1  # background, and balloons
    STEPS_PER_EPOCH = 100
    DETECTION_MIN_CONFIDENCE = 0.9  # a doubtful balloon stays grey


# ---------------------------------------------------------------- data set


class BalloonDataset(utils.Dataset):
    """Photos with outlines drawn in VIA, versions 1 and 2.

    `image_info` holds of each image its `width` and `height` (None if it cannot be read), and its `polygons`: a list of
    VIA's `shape_attributes`, with the class id of each in `class_ids`.
    """

    masks_are_fixed = True

    def load_balloon(self, dataset_dir, subset, attribute=None, classes=None, keep_empty=False):
        """Adds the photos of `{dataset_dir}/{subset}` that have regions in the VIA file beside them.

        The file is `via_region_data.json`, or the only JSON in the folder: annotations that VIA exported, or a project.

        Args:
            dataset_dir: folder of the data set.
            subset: "train" or "val".
            attribute: str, the region attribute that holds the class; None takes the only one there is, "" none.
                Without attributes all regions are of one class, that of `classes` or "balloon".
            classes: list of str, names of the classes in the order of their ids; None takes those that were added
                before, else those found, in alphabetical order. Give all data sets of a model the same.
            keep_empty: True keeps photos without regions as such without objects: training passes them over, evaluation
                counts what is found in them as wrong. False leaves them out, because VIA lists photos that nobody has
                annotated yet as well.

        Raises:
            FileNotFoundError: no such folder, no VIA file in it, or photos of it are missing.
            ValueError: unknown subset, a file that is not VIA's, a region that has no area or no known class.
        """
        if subset not in ("train", "val"):
            raise ValueError(f"subset must be 'train' or 'val'; received {subset!r}")
        photos = via.read_folder(os.path.join(dataset_dir, subset), keep_empty)
        regions = [region for photo in photos for region in photo.regions]
        names = via.class_names(regions, attribute)
        known = list(classes or self.balloon_classes() or sorted(set(names) - {None}) or ["balloon"])
        class_ids = iter([via.class_id(name, known, region.where) for name, region in zip(names, regions)])
        for class_id, name in enumerate(known, start=1):
            self.add_class("balloon", class_id, name)
        for photo in photos:
            self.add_image(
                "balloon",
                image_id=photo.name,  # file names are unique in a folder
                path=photo.path,
                width=photo.width,
                height=photo.height,
                polygons=[region.shape for region in photo.regions],
                class_ids=[next(class_ids) for _ in photo.regions],
            )

    def balloon_classes(self):
        """Names of the classes added so far, in the order of their ids."""
        return [info["name"] for info in self.class_info if info["source"] == "balloon"]

    def load_mask(self, image_id):
        """Draws the outlines of an image.

        Returns:
            masks: [height, width, N] bool, one per outline; what reaches out of the image is cut off.
            class_ids: [N] int32.
        """
        if self.image_info[image_id]["source"] != "balloon":
            return super().load_mask(image_id)
        masks, class_ids = self.load_boxed_masks(image_id)
        return masks.full(), class_ids

    def load_boxed_masks(self, image_id):
        """As `load_mask`, but nothing that is as large as the image."""
        info = self.image_info[image_id]
        if info["source"] != "balloon":
            return super().load_boxed_masks(image_id)
        if info["width"] is None:
            raise ValueError(f"image {info['id']!r} ({info['path']}) cannot be read, so its masks have no size")
        size = info["height"], info["width"]
        drawn = [via.draw_part(shape, size) for shape in info["polygons"]]
        # Ids are numbered anew where a data set has other sources as well.
        class_ids = info.get("class_ids") or [1] * len(drawn)
        class_ids = [self.map_source_class_id(f"balloon.{class_id}") for class_id in class_ids]
        return BoxedMasks(*size, [box for box, _ in drawn], [part for _, part in drawn]), np.array(class_ids, np.int32)

    def image_reference(self, image_id):
        """The path of the image."""
        info = self.image_info[image_id]
        return info["path"] if info["source"] == "balloon" else super().image_reference(image_id)


def load_subset(dataset_dir, subset, attribute=None, classes=None):
    """A data set that is ready for use; arguments as those of `load_balloon`."""
    dataset = BalloonDataset()
    dataset.load_balloon(dataset_dir, subset, attribute, classes)
    dataset.prepare()
    return dataset


# ---------------------------------------------------------------- training and evaluation


def train(model, dataset_dir=DEFAULT_DATASET_DIR, epochs=30, layers="heads", attribute=None, classes=None):
    """Trains a model on the photos of `train`, with those of `val` to watch it.

    Args:
        model: MaskRCNN in training mode, with weights loaded.
        dataset_dir: folder that holds `train` and `val`.
        epochs: int, in total.
        layers: as in `MaskRCNN.train`.
        attribute, classes: as in `load_balloon`.
    """
    train_set = load_subset(dataset_dir, "train", attribute, classes)
    val_set = load_subset(dataset_dir, "val", attribute, train_set.balloon_classes())
    for subset, dataset in (("train", train_set), ("val", val_set)):
        objects = sum(len(info["polygons"]) for info in dataset.image_info)
        print(f"{subset}: {dataset.num_images} images, {objects} objects: {', '.join(dataset.balloon_classes())}")
    command_line.train_in_stages(model, train_set, val_set, [(layers, epochs, 1)])


def evaluate(model, dataset_dir, subset="val", attribute=None, classes=None):
    """Average precision on a subset: the dict of `MaskRCNN.evaluate`; other arguments as those of `load_balloon`."""
    return model.evaluate(load_subset(dataset_dir, subset, attribute, classes))


# ---------------------------------------------------------------- colour splash and detection


def color_splash(image, mask):
    """Makes an image grey but for its objects.

    Args:
        image: [H, W, 3] uint8; grey and RGBA will do.
        mask: [H, W, N] bool, the masks of the objects; N may be 0.

    Returns:
        [H, W, 3] uint8.
    """
    image = standardize_image(image)
    gray = 255 * skimage.color.rgb2gray(image)[:, :, np.newaxis]
    mask = np.any(mask, axis=-1, keepdims=True) if np.size(mask) else False
    return np.where(mask, image, gray).astype(np.uint8)


def detect_and_color_splash(model, image_path=None, video_path=None, output="."):
    """Saves a photo, each photo of a folder, or a video with all but the detected objects in grey.

    Args:
        model: MaskRCNN in inference mode.
        image_path: file, address or folder; or
        video_path: file or address.
        output: folder for `splash_{time}.png`, `.mp4`, or the folder `splash_{time}` with a PNG per photo.

    Returns:
        Path of what was saved.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: what cannot be read, or not be written.
    """
    return save_pictures(
        lambda image: color_splash(image, model.detect([image])[0]["masks"]), "splash", image_path, video_path, output
    )


def detect_and_draw(model, class_names, image_path=None, video_path=None, output="."):
    """Saves photos or a video with box, mask, class and score of each object; prints the objects of photos.

    Args:
        class_names: list of str, by class id.
        model, image_path, video_path, output: as `detect_and_color_splash`; the files are named `detect_{time}`.

    Returns:
        Path of what was saved.
    """
    from mrcnn import visualize

    counts = []

    def draw(image):
        result = model.detect([image])[0]
        counts.append(len(result["class_ids"]))
        for class_id, score, box in zip(result["class_ids"], result["scores"], result["rois"]):
            if video_path is None:
                print(f"{class_names[class_id]:12} score {score:.3f}  box (y1, x1, y2, x2) {tuple(map(int, box))}")
        # In a video a colour per object would change from frame to frame.
        return visualize.draw_instances(image, result, class_names, colors="class" if video_path else None)

    path = save_pictures(draw, "detect", image_path, video_path, output)
    print(f"{sum(counts)} objects in {len(counts)} {'frames' if video_path else 'images'}")
    return path


# ---------------------------------------------------------------- command line

COMMANDS = {
    "train": "learn from the photos of --dataset",
    "evaluate": "measure average precision on --dataset",
    "splash": "keep the colour of objects only, in --image or --video",
    "detect": "draw boxes, masks and scores into --image or --video",
}
EXAMPLES = """\
  balloon.py train --dataset datasets/balloon --weights coco
  balloon.py train --dataset datasets/balloon --weights last --epochs 40
  balloon.py evaluate --dataset datasets/balloon --weights last
  balloon.py splash --weights last --image photo.jpg
  balloon.py splash --weights last --video https://example.org/film.mp4
  balloon.py detect --weights last --image folder/of/photos --output pictures
  balloon.py train --dataset fruit --attribute kind --weights coco
  balloon.py detect --classes apple,pear --weights last --image basket.jpg"""


def class_list(text):
    """The names in a list with commas."""
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"must be different names with commas in between; received {text!r}")
    return names


def parse_arguments(arguments=None):
    """Reads the command line, and refuses what cannot work."""
    parser = command_line.make_parser(
        "Mask R-CNN on balloons, or on your own objects in photos annotated with VIA.", COMMANDS, EXAMPLES,
        "splash, detect: folder for the pictures (default: the working directory)",
    )  # fmt: skip
    parser.add_argument("--dataset", metavar="<folder>", help="data set with train and val (default: datasets/balloon)")
    parser.add_argument("--subset", type=command_line.one_of(("train", "val")), metavar="<name>",
                        help="evaluate: train or val (default: val)")  # fmt: skip
    parser.add_argument("--attribute", metavar="<name>", help="region attribute in VIA that holds the class")
    parser.add_argument("--classes", type=class_list, metavar="<names>",
                        help="names with commas, as in training (default: those in the data set)")  # fmt: skip
    parser.add_argument("--image", metavar="<path or URL>", help="splash, detect: a photo, or a folder of photos")
    parser.add_argument("--video", metavar="<path or URL>", help="splash, detect: a video")
    parser.add_argument("--logs", default=DEFAULT_LOGS_DIR, metavar="<folder>", help="of the checkpoints")
    args = parser.parse_args(arguments)
    command_line.check_arguments(parser, args, COCO_WEIGHTS_PATH)
    on_dataset = args.command in ("train", "evaluate")
    for name in ("image", "video", "output") if on_dataset else ():
        if getattr(args, name) is not None:
            parser.error(f"--{name} is for splash and detect; {args.command} works on --dataset")
    if args.subset and args.command != "evaluate":
        parser.error(f"--subset is for evaluate; {args.command} does not use it")
    if args.command == "evaluate" and args.weights == "coco":
        parser.error("evaluate needs weights that were trained on the data set; those of COCO know other classes")
    if on_dataset:
        check_dataset_arguments(parser, args)
    else:
        check_source_arguments(parser, args)
    return args


def check_dataset_arguments(parser, args):
    """Ends the program unless the folders to read are there."""
    if args.dataset is None and not os.path.isdir(DEFAULT_DATASET_DIR):
        parser.error(f"{args.command} needs --dataset, a folder that holds train and val")
    args.dataset, args.subset = args.dataset or DEFAULT_DATASET_DIR, args.subset or "val"
    command_line.check_folder(parser, "--dataset", args.dataset)
    for subset in ("train", "val") if args.command == "train" else (args.subset,):
        command_line.check_folder(parser, f"--dataset {args.dataset}, folder", os.path.join(args.dataset, subset))


def check_source_arguments(parser, args):
    """Ends the program unless there is one photo, folder or video to read."""
    if (args.image is None) == (args.video is None):
        parser.error(f"{args.command} needs --image or --video, and only one of them")
    source, flag = args.image or args.video, "--image" if args.image else "--video"
    scheme = source.partition("://")[0] if "://" in source else None
    if scheme and scheme not in ("http", "https", "ftp", "file"):
        parser.error(f"{flag} {source}: an address begins with http://, https://, ftp:// or file://")
    if scheme is None and not (args.image and os.path.isdir(source)):
        command_line.check_file(parser, flag, source)
    args.output = args.output or "."
    command_line.check_writable(parser, "--output", args.output)


def find_classes(args):
    """The names of the classes that the command works with, in the order of their ids from 1 on."""
    if args.dataset:  # numbered as in training, whatever another subset shows
        has_train = args.command != "evaluate" or os.path.isdir(os.path.join(args.dataset, "train"))
        subset = "train" if has_train else args.subset
        classes = load_subset(args.dataset, subset, args.attribute, args.classes).balloon_classes()
        other = {"train": "val", "evaluate": args.subset}.get(args.command, subset)
        if other != subset:  # what is wrong with it shows now, and not after downloads and the building of the model
            load_subset(args.dataset, other, args.attribute, classes)
        return classes
    knows_coco = args.weights == "coco" or (
        os.path.isfile(args.weights) and command_line.class_count(args.weights) == len(COCO_CLASS_NAMES)
    )
    return args.classes or list(COCO_CLASS_NAMES[1:] if knows_coco else ["balloon"])


def check_class_count(path, classes):
    """Raises a ValueError unless a weights file was trained on as many classes."""
    found = command_line.class_count(path)
    if found != 1 + len(classes):
        knows = "has no heads" if found is None else f"was trained on {found - 1} classes"
        raise ValueError(f"{path} {knows}, where {len(classes)} are expected ({', '.join(classes)}): name those of the "
                         "training with --classes a,b,... or --dataset")


def make_model(args, classes):
    """The model that a command needs, with its weights; Keras is imported here, so that mistakes show before that."""
    settings = {"NUM_CLASSES": 1 + len(classes)}
    if args.command != "train":
        settings |= {"GPU_COUNT": 1, "IMAGES_PER_GPU": 1}
    if args.command == "evaluate":
        settings["DETECTION_MIN_CONFIDENCE"] = 0  # average precision is about doubtful objects too
    config = command_line.configure(BalloonConfig, args, **settings)
    if args.command != "train" and os.path.isfile(args.weights):
        check_class_count(args.weights, classes)
    with command_line.quiet_import():
        from mrcnn import model as modellib

    model = modellib.MaskRCNN("training" if args.command == "train" else "inference", config, args.logs)
    if args.command != "train" and args.weights == "last":
        check_class_count(model.find_last(), classes)
    command_line.load_weights(model, args.weights, COCO_WEIGHTS_PATH, utils.download_trained_weights)
    return model


def main(arguments=None):
    args = parse_arguments(arguments)
    command_line.announce(args, Dataset=args.dataset, Image=args.image, Video=args.video)
    classes = find_classes(args)
    if args.image or args.video:
        check_source(args.image, args.video)
    model = make_model(args, classes)
    if args.command == "train":
        ((layers, epochs, _),) = command_line.choose_stages(args, SCHEDULE)
        train(model, args.dataset, epochs, layers, args.attribute, classes)
    elif args.command == "evaluate":
        evaluate(model, args.dataset, args.subset, args.attribute, classes)
    elif args.command == "splash":
        detect_and_color_splash(model, args.image, args.video, args.output)
    else:
        detect_and_draw(model, ["BG", *classes], args.image, args.video, args.output)


if __name__ == "__main__":
    with command_line.exit_on_error("balloon.py"):
        main()
