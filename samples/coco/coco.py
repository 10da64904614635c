"""Mask R-CNN on COCO, or on data of your own in COCO's format: train it, and measure how well it does.

    python samples/coco/coco.py train --dataset=/path/to/coco/ --model=imagenet --download
    python samples/coco/coco.py train --dataset=/path/to/coco/ --model=last
    python samples/coco/coco.py evaluate --dataset=/path/to/coco/ --model=last --limit=0

It is one file, and so a long one, because a sample is read from top to bottom and copied as a whole.
"""

import argparse
import json
import math
import os
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

ROOT_DIR = str(Path(__file__).resolve().parents[2])
COCO_MODEL_PATH = os.path.join(ROOT_DIR, "mask_rcnn_coco.h5")
DEFAULT_LOGS_DIR = os.path.join(ROOT_DIR, "logs")
DEFAULT_DATASET_YEAR = "2014"

if __name__ == "__main__":
    sys.path.append(ROOT_DIR)  # a checkout runs without being installed
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's remarks would bury what this program says

from mrcnn import utils  # noqa: E402
from mrcnn.config import Config  # noqa: E402
from mrcnn.data import coco_files  # noqa: E402
from mrcnn.data.checks import check_ready, image_name  # noqa: E402
from mrcnn.data.files import atomic  # noqa: E402
from mrcnn.data.shared_classes import SharedClasses  # noqa: E402
from mrcnn.geometry.boxed import BoxedMasks  # noqa: E402

# In 2014 most validation images ("35k") served for training too, and 5,000 others, "minival", for validation; the data
# of 2017 is divided that way from the start.
TRAINED_ON = {"2014": ("train", "valminusminival"), "2017": ("train",)}
EVALUATED_ON = {"2014": "minival", "2017": "val"}

IMAGES_URL = "http://images.cocodataset.org/zips"
ANNOTATIONS_URL = "http://images.cocodataset.org/annotations"
SUBSET_URLS = {
    "minival": "https://dl.dropboxusercontent.com/s/o43o90bna78omob/instances_minival2014.json.zip?dl=0",
    "valminusminival": "https://dl.dropboxusercontent.com/s/s3tw5zcg7395368/instances_valminusminival2014.json.zip?dl=0",
}

# ---------------------------------------------------------------- configurations


class CocoConfig(Config):
    """Trains on COCO's 80 classes; two images of 1024 pixels fit a GPU of 12 GB."""

    NAME = "coco"
    IMAGES_PER_GPU = 2
    NUM_CLASSES = 1 + 80  # background, and COCO's classes


class CocoInferenceConfig(CocoConfig):
    """Evaluates: one image at a time, and every detection, because average precision weighs them by their scores."""

    GPU_COUNT = 1
    IMAGES_PER_GPU = 1
    DETECTION_MIN_CONFIDENCE = 0


# Layers, epochs in total, factor of the learning rate.
SCHEDULE = [("heads", 40, 1), ("4+", 120, 1), ("all", 160, 0.1)]

# ---------------------------------------------------------------- data set


class CocoDataset(SharedClasses):
    """Images and instances of COCO, or of any folder laid out like it:

        {folder}/annotations/instances_{subset}{year}.json
        {folder}/{train or val}{year}/*.jpg

    `image_info` holds width, height and the `annotations` of each image.
    """

    masks_are_fixed = True

    def __init__(self, class_map=None):
        super().__init__(class_map)
        self._coco_sources = {"coco"}

    def load_coco(self, dataset_dir, subset, year=DEFAULT_DATASET_YEAR, class_ids=None, class_map=None,
                  return_coco=False, auto_download=False, source="coco"):
        """Adds the images of a subset; may be called for several, and together with loaders of other formats.

        Sources know their classes by numbers of their own. To train classes of several sources as one, `class_map`
        names them: a category gets the class id of the class that has this name, whichever source brings it along,
        before or after. Categories that are given one name become one class.

            dataset.load_coco("coco", "train", "2017", class_ids=[1, 3, 8], class_map={3: "vehicle", 8: "vehicle"})
            dataset.load_coco("street", "train", "", class_map={1: "vehicle", 2: "person"}, source="street")
            dataset.prepare()  # BG, person, vehicle

        Args:
            dataset_dir: folder of the data.
            subset: "train", "val", or of 2014 "minival", "valminusminival"; other names for data of your own.
            year: "2014" or "2017"; others, or "", for data of your own.
            class_ids: list of category ids; only images that show one of them are loaded, and only their annotations.
                All by default.
            class_map: dict, category id -> name of the class to train it as; COCO's name where it says nothing.
            return_coco: bool, also returns the annotations for `evaluate_coco`.
            auto_download: bool, downloads first what is not there.
            source: str, name of this data among the sources, for data whose category ids are not COCO's.

        Returns:
            pycocotools.coco.COCO with `return_coco`, else None.

        Raises:
            FileNotFoundError: there is no such file of annotations.
            ValueError: misspelt subset or year, unknown class ids, or a file that is not as it should be; the message
                names file, annotation and image.
            ImportError: pycocotools is not installed.
        """
        year = str(year)
        coco_files.rle_tools()  # without which no mask can be drawn
        if auto_download:
            self.auto_download(dataset_dir, subset, year)
        path = coco_files.find_annotations(dataset_dir, subset, year)
        data = coco_files.read_annotations(path)
        names = {category["id"]: category["name"] for category in data["categories"]}
        class_map = class_map or {}
        for category_id in (*(class_ids or ()), *class_map):
            if category_id not in names:
                raise ValueError(f"{path} has no category {category_id!r}; its ids are "
                                 f"{', '.join(f'{number}: {name}' for number, name in names.items())}")
        self._coco_sources.add(source)
        self.share_classes(class_map.values())
        wanted = sorted(set(class_ids)) if class_ids else sorted(names)
        for category_id in wanted:
            self.add_class(source, category_id, class_map.get(category_id, names[category_id]))

        annotations = {image["id"]: [] for image in data["images"]}
        for annotation in data["annotations"]:
            if annotation["category_id"] in wanted:
                annotations[annotation["image_id"]].append(annotation)
        image_dir = os.path.join(dataset_dir, f"{coco_files.FOLDERS.get(subset, subset)}{year}")
        for image in data["images"]:
            if annotations[image["id"]] or not class_ids:
                self.add_image(
                    source, image["id"], os.path.join(image_dir, image["file_name"]), width=image["width"],
                    height=image["height"], annotations=annotations[image["id"]],
                )  # fmt: skip
        return coco_files.make_coco(data) if return_coco else None

    def auto_download(self, dataDir, dataType, dataYear):
        """Downloads images and annotations of a subset from COCO's server and unpacks them, where they are not there.

        What was interrupted goes on where it stopped.

        Args:
            dataDir: folder for the data.
            dataType: "train", "val", "minival" or "valminusminival".
            dataYear: "2014" or "2017".

        Raises:
            ValueError: misspelt subset or year, or an archive that is damaged.
            ConnectionError: the server cannot be reached or broke off.
            OSError: the disk is full.
        """
        from mrcnn.engine import archives

        year = str(dataYear)
        coco_files.check_subset(dataType, year)
        images = os.path.join(dataDir, f"{coco_files.FOLDERS[dataType]}{year}")
        annotations = coco_files.annotations_path(dataDir, dataType, year)
        for there in filter(os.path.exists, (images, annotations)):
            print(f"{there} is there already")
        if not os.path.exists(images):
            name = os.path.basename(images)
            folder = archives.fetch(f"{IMAGES_URL}/{name}.zip", f"{images}.part")
            os.replace(folder / name, images)  # now it is whole
            folder.rmdir()
        if not os.path.exists(annotations):
            url = SUBSET_URLS.get(dataType, f"{ANNOTATIONS_URL}/annotations_trainval{year}.zip")
            folder = archives.fetch(url, os.path.join(dataDir, f"annotations_{dataType}{year}.part"))
            os.makedirs(os.path.dirname(annotations), exist_ok=True)
            for path in folder.rglob("*.json"):  # of other subsets too
                if not os.path.exists(target := os.path.join(os.path.dirname(annotations), path.name)):
                    os.replace(path, target)
            shutil.rmtree(folder)

    def load_mask(self, image_id):
        """Draws the masks of an image.

        Args:
            image_id: int, index of the image.

        Returns:
            masks: [H, W, N] bool, without objects that cover no pixel.
            class_ids: [N] int32; negative for crowds.

        Raises:
            ValueError: the image has another size than its annotations.
        """
        if self.image_info[image_id]["source"] not in self._coco_sources:
            return super().load_mask(image_id)
        masks, class_ids = self.load_boxed_masks(image_id)
        return masks.full(), class_ids

    def load_boxed_masks(self, image_id):
        """As `load_mask`, but no more than one array that is as large as the image at a time."""
        info = self.image_info[image_id]
        if info["source"] not in self._coco_sources:
            return super().load_boxed_masks(image_id)
        height, width = coco_files.check_size(info)
        drawn = [coco_files.decode_part(self.annToRLE(a, height, width)) for a in info["annotations"]]
        masks = BoxedMasks(height, width, [box for box, _ in drawn], [part for _, part in drawn])
        class_ids = [self._class_id(info, a) * (-1 if a["iscrowd"] else 1) for a in info["annotations"]]
        visible = masks.boxes[:, 2] > 0
        return masks.chosen(visible), np.array(class_ids, np.int32)[visible]

    def coco_annotations(self, image_id):
        """The annotations of an image with this data set's class ids: evaluation measures against these."""
        info = self.image_info[image_id]
        if info["source"] not in self._coco_sources:
            return super().coco_annotations(image_id)
        coco_files.check_size(info)
        return [annotation | {"category_id": self._class_id(info, annotation)} for annotation in info["annotations"]]

    def _class_id(self, info, annotation):
        return self.map_source_class_id(f"{info['source']}.{annotation['category_id']}")

    def image_reference(self, image_id):
        """A link to the image in COCO's explorer."""
        info = self.image_info[image_id]
        if info["source"] != "coco":
            return super().image_reference(image_id)
        return f"https://cocodataset.org/#explore?id={info['id']}"

    def annToRLE(self, ann, height, width):
        """Makes the compressed mask of an annotation; parts outside of the image are cut off.

        Args:
            ann: COCO annotation; its `segmentation` is a list of polygons, or RLE, compressed or not.
            height, width: int, pixels.

        Returns:
            dict: COCO's compressed RLE, "size" [height, width] and "counts".

        Raises:
            ValueError: RLE of the size of another image.
        """
        return coco_files.to_rle(ann, height, width)

    def annToMask(self, ann, height, width):
        """Draws the mask of an annotation: [height, width] uint8, 1 inside; arguments as for `annToRLE`."""
        return coco_files.rle_tools().decode(self.annToRLE(ann, height, width))


# ---------------------------------------------------------------- training


def flip(image, masks, rng):
    """Mirrors half of all images: an augmentation, image [H, W, 3], masks [H, W, N], rng numpy.random.Generator."""
    return (image[:, ::-1], masks[:, ::-1]) if rng.random() < 0.5 else (image, masks)


def load_subsets(dataset_dir, subsets, year, download=False):
    """A prepared data set of one or more subsets, and the last one's annotations for `evaluate_coco`."""
    dataset = CocoDataset()
    for subset in subsets:
        coco = dataset.load_coco(dataset_dir, subset, year, return_coco=True, auto_download=download)
    for what, found in (("images", dataset.image_info), ("categories", dataset.class_info[1:])):
        if not found:
            raise ValueError(f"{dataset_dir}: the annotations of {' and '.join(subsets)} list no {what}")
    dataset.prepare()
    return dataset, coco


# ---------------------------------------------------------------- evaluation


def build_coco_results(dataset, image_ids, rois, class_ids, scores, masks):
    """Writes detections as COCO does.

    Args:
        dataset: CocoDataset, prepared.
        image_ids: list of COCO's ids of images, which all show these detections; usually one.
        rois: [N, (y1, x1, y2, x2)] number, pixels; None for no detections.
        class_ids: [N] int, class ids of the data set.
        scores: [N] float.
        masks: [H, W, N] bool or uint8.

    Returns:
        list of dicts: image_id, category_id, bbox [x, y, width, height], score, segmentation (compressed RLE).
    """
    from mrcnn.engine.evaluation import coco_results

    if rois is None:
        return []
    category_ids = [dataset.get_source_class_id(abs(class_id), "coco") for class_id in class_ids]
    return [row for image_id in image_ids for row in coco_results(image_id, rois, category_ids, scores, masks)]


def evaluate_coco(model, dataset, coco, eval_type="bbox", limit=0, image_ids=None, results_path=None, verbose=1):
    """Detects in the images of a data set, one at a time on each device, and scores that with pycocotools.

    Args:
        model: MaskRCNN in inference mode; anything with `detect(images, verbose=0)` will do.
        dataset: CocoDataset, prepared, whose images, those of source "coco", are listed once and whose categories are
            not merged; for any other there is `MaskRCNN.evaluate`.
        coco: pycocotools.coco.COCO that `load_coco` returned.
        eval_type: "bbox" for boxes, "segm" for masks, or "both".
        limit: int, only the first so many images; 0 = all.
        image_ids: indices of the images; all by default.
        results_path: of a JSON file to write the detections to, as COCO wants them.
        verbose: 0 prints nothing.

    Returns:
        dict of `mrcnn.engine.evaluation.evaluate`: "bbox" and "segm" with AP, AP50 and so on.

    Raises:
        ValueError: a wrong argument, images that `coco` does not have or that it cannot tell apart, or too many, or
            all, that cannot be read.
    """
    from mrcnn.distribution import processes
    from mrcnn.engine import evaluation, scoring

    started = time.perf_counter()
    scoring.check_arguments(eval_type, evaluation.COCO_DETECTIONS)
    check_ready(dataset)
    category_ids = coco_categories(dataset)
    chosen = evaluation.choose_images(dataset, image_ids, limit)
    coco_ids = check_images(dataset, coco, chosen)
    with evaluation.progress(len(chosen), "Evaluating", verbose) as advance:
        found = evaluation.collect(
            lambda images: model.detect(images, verbose=0), dataset, chosen, advance=advance, coco_ids=coco_ids,
            batch_size=getattr(getattr(model, "config", None), "GPU_COUNT", 1),
        )  # fmt: skip
    evaluation.report_left_out(found, verbose)
    rows = [row | {"category_id": category_ids[row["category_id"]]} for row in found.rows]
    if results_path and processes.is_first():
        write_json(results_path, rows)
    scored = [image["id"] for image in found.images]
    result = evaluation.score(coco, rows, scored, list(category_ids.values()), dataset.class_names[1:], eval_type,
                              verbose=verbose)  # fmt: skip
    seconds = time.perf_counter() - started
    if verbose:
        print(f"Prediction time: {found.seconds:.1f} s, {found.seconds / len(scored):.3f} s per image")
        print(f"Total time: {seconds:.1f} s")
    return result | {"seconds_detecting": found.seconds, "seconds": seconds, "left_out": found.left_out,
                     "confusion": evaluation.confusion(found, dataset, "bbox" if eval_type == "bbox" else "segm")}


def check_images(dataset, coco, chosen):
    """The ids of all images; raises a ValueError for chosen ones that the annotations lack or cannot tell apart."""
    times = Counter(info["id"] for info in dataset.image_info if info["source"] == "coco")
    for image_id in chosen:
        info, where = dataset.image_info[image_id], image_name(dataset, image_id)
        if info["source"] != "coco" or times[info["id"]] > 1:
            problem = "is not COCO's" if info["source"] != "coco" else f"is one of {times[info['id']]} with this id"
            raise ValueError(f"{where} {problem}: leave it out of image_ids, or use MaskRCNN.evaluate(dataset)")
        if info["id"] not in coco.imgs:
            raise ValueError(f"{where} is not in the annotations to score with: pass what load_coco(..., "
                             "return_coco=True) returned for it")
    return [info["id"] for info in dataset.image_info]


def coco_categories(dataset):
    """dict class id -> id of the COCO category, which must be the same classes one by one."""
    known = [key for key in dataset.class_from_source_map if key.startswith("coco.")]
    if len(known) != dataset.num_classes - 1:
        raise ValueError("evaluate_coco compares with COCO's own categories, but this data set merges some, or has "
                         "classes of other sources too; use MaskRCNN.evaluate(dataset), which knows the data set's")
    return {int(class_id): dataset.get_source_class_id(class_id, "coco") for class_id in dataset.class_ids[1:]}


def write_json(path, value):
    """Writes a file of JSON, which never replaces another one by half."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with atomic(path) as unfinished, open(unfinished, "w", encoding="utf-8") as file:
        json.dump(value, file)


def without_nan(value):
    """A result of an evaluation as JSON can hold it: null where there were no such objects."""
    if isinstance(value, dict):
        return {key: without_nan(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


# ---------------------------------------------------------------- command line

EXAMPLES = """\
  coco.py train --dataset=/path/to/coco/ --year=2017 --model=imagenet --download
  coco.py train --dataset=/path/to/coco/ --model=coco --epochs=1 --layers=heads
  coco.py evaluate --dataset=/path/to/coco/ --year=2017 --model=last --limit=0 --output=results/coco
  coco.py evaluate --dataset=/path/to/coco/ --model=coco --eval-type=segm --results=masks.json"""


def boolean(text):
    """An argument type: True or False."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be True or False; received {text!r}")
    return text.lower() == "true"


def parse_arguments(arguments=None):
    """Reads the command line, and refuses what cannot work."""
    from mrcnn.engine import command_line as shared

    commands = {"train": "train on COCO", "evaluate": "measure average precision on COCO's validation images"}
    parser = shared.make_parser("Mask R-CNN on COCO, or on data in its format.", commands, EXAMPLES,
                                "evaluate: folder for metrics.json and results.json")  # fmt: skip
    parser.add_argument("--dataset", required=True, metavar="/path/to/coco/", help="folder of the data")
    parser.add_argument("--year", type=shared.one_of(coco_files.YEARS), default=DEFAULT_DATASET_YEAR, metavar="<year>",
                        help="2014 or 2017 (default: 2014)")  # fmt: skip
    parser.add_argument("--logs", default=DEFAULT_LOGS_DIR, metavar="/path/to/logs/", help="folder of the checkpoints")
    parser.add_argument("--limit", type=shared.at_least(0), default=500, metavar="<image count>",
                        help="evaluate: so many images at most, 0 for all (default: 500)")  # fmt: skip
    parser.add_argument("--download", type=boolean, nargs="?", const=True, default=False, metavar="True|False",
                        help="fetch images, annotations and COCO weights that are not there")  # fmt: skip
    parser.add_argument("--eval-type", type=shared.one_of(("bbox", "segm", "both")), default="both", metavar="<type>",
                        help="evaluate: bbox (boxes), segm (masks) or both (default)")  # fmt: skip
    parser.add_argument("--results", metavar="<file>", help="evaluate: JSON file for the detections, in COCO's format")
    args = parser.parse_args(arguments)
    shared.check_arguments(parser, args, COCO_MODEL_PATH, download=args.download)
    if args.command == "train" and (args.results or args.output):
        parser.error("--results and --output are for evaluate; train writes to --logs")
    if args.results and os.path.isdir(args.results):
        parser.error(f"--results {args.results} is a folder; give the name of a file")
    if args.results:
        shared.check_writable(parser, "--results", os.path.dirname(os.path.abspath(args.results)))
    if args.download:
        shared.check_writable(parser, "--dataset", args.dataset)
    else:
        check_data(parser, args)
    return args


def check_data(parser, args):
    """Ends the program if annotations or images are not where they should be."""
    from mrcnn.engine.command_line import check_folder

    check_folder(parser, "--dataset", args.dataset)
    for subset in {EVALUATED_ON[args.year], *(TRAINED_ON[args.year] if args.command == "train" else ())}:
        try:
            coco_files.find_annotations(args.dataset, subset, args.year)
        except FileNotFoundError as error:
            parser.error(f"--dataset: {error}")
        images = os.path.join(args.dataset, f"{coco_files.FOLDERS[subset]}{args.year}")
        check_folder(parser, "--dataset: images of", images)


def run_train(args):
    """The command `train`."""
    from mrcnn.engine import command_line as shared

    shared.configure(CocoConfig, args)  # refuses what it can before the data is read
    train_set, _ = load_subsets(args.dataset, TRAINED_ON[args.year], args.year, args.download)
    val_set, _ = load_subsets(args.dataset, [EVALUATED_ON[args.year]], args.year, args.download)
    config = shared.configure(CocoConfig, args, NUM_CLASSES=train_set.num_classes)  # also of data of your own
    model = make_model("training", config, args)
    shared.train_in_stages(model, train_set, val_set, shared.choose_stages(args, SCHEDULE), augmentation=flip)
    print(f"Checkpoints and logs are in {model.log_dir}")


def run_evaluate(args):
    """The command `evaluate`."""
    from mrcnn.engine import command_line as shared

    shared.configure(CocoInferenceConfig, args)
    dataset, coco = load_subsets(args.dataset, [EVALUATED_ON[args.year]], args.year, args.download)
    config = shared.configure(CocoInferenceConfig, args, NUM_CLASSES=dataset.num_classes)
    model = make_model("inference", config, args)
    in_folder = args.output and os.path.join(args.output, "results.json")
    results = args.results or in_folder
    metrics = evaluate_coco(model, dataset, coco, args.eval_type, args.limit, results_path=results)
    if not shared.is_first_process():
        return
    if args.output:
        write_json(os.path.join(args.output, "metrics.json"), without_nan(metrics))
        if args.results:
            shutil.copyfile(args.results, in_folder)
    for path in filter(None, (args.results, args.output)):
        print(f"Saved to {path}")


def make_model(mode, config, args):
    """A model with its weights; Keras is imported here, so that mistakes show before that."""
    from mrcnn.engine.command_line import load_weights, quiet_import

    with quiet_import():
        from mrcnn import model as modellib

    model = modellib.MaskRCNN(mode, config, args.logs)
    load_weights(model, args.weights, COCO_MODEL_PATH, utils.download_trained_weights if args.download else None)
    return model


def main(arguments=None):
    from mrcnn.engine import command_line as shared

    args = parse_arguments(arguments)
    shared.announce(args, Dataset=f"{args.dataset}, {args.year}")
    with shared.exit_on_error("coco.py"):
        {"train": run_train, "evaluate": run_evaluate}[args.command](args)


if __name__ == "__main__":
    main()
