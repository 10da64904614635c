"""Counts how many detections of trained weights stay the same in bfloat16.

    python benchmarks/agreement.py                                  # the weights that the Shapes sample ships
    python benchmarks/agreement.py --weights demo/mask_rcnn_shapes.h5
    python benchmarks/agreement.py --original golden/trained_slim   # a small network that the original trained

The same drawn shapes are detected in float32 and in the other precision. A detection is matched where the other run has
one of its class with an IoU of at least 0.9, each at most once; the share is of the longer of the two lists, so that
what one run finds alone counts against it, whichever run it is.
"""

import argparse
import contextlib
import importlib.util
import json
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout runs without being installed

import common
import numpy as np

from mrcnn.geometry.boxes import compute_overlaps

IMAGES, LEAST_IOU = 400, 0.9
SHIPPED = common.ROOT / "samples" / "shapes" / "mask_rcnn_shapes.h5"
ORIGINAL = ("slim_shapes.h5", "slim_backbone.py", "slim_val.json")  # weights, network and settings


# ------------------------------------------------------------------ the two runs
def original_settings(folder):
    """Weights and config class of the network that the original trained, from the files in this folder.

    Raises:
        ValueError: a file is not what it is to be.
    """
    from mrcnn.config import Config

    weights, backbone, settings = (folder / name for name in ORIGINAL)
    spec = importlib.util.spec_from_file_location(backbone.stem, backbone)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        network = {"BACKBONE": module.make_backbone(sys.modules["keras"].layers),
                   "COMPUTE_BACKBONE_SHAPE": module.compute_backbone_shape}  # fmt: skip
    except Exception as error:  # it is a program, which may fail in any way
        raise ValueError(f"{backbone.name} does not work ({type(error).__name__}: {error})") from error
    try:
        values = json.loads(settings.read_text())["config"]
        values = {name: value["tuple"] if isinstance(value, dict) else value for name, value in values.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{settings.name} holds no settings ({type(error).__name__}: {error})") from error
    return weights, type("OriginalConfig", (Config,), values | network)


def load(base, weights, precision):
    """A MaskRCNN with these weights and a config derived from `base`; a ValueError or OSError if they do not fit."""
    from mrcnn.model import MaskRCNN

    config = type("AgreementConfig", (base,), {"PRECISION": precision, "IMAGES_PER_GPU": 1})()
    with tempfile.TemporaryDirectory() as folder:
        model = MaskRCNN("inference", config, folder)
    with contextlib.redirect_stdout(sys.stderr):  # what was loaded is no part of the table
        model.load_weights(str(weights))
    return model


def load_exact(parser, args):
    """Config class, path of the weights, and the model in float32; ends with the parser's error if they do not fit."""
    try:
        if args.original:
            weights, base = original_settings(args.original)
        else:
            weights, base = args.weights, common.load_sample("shapes").SmallShapesConfig
        return base, weights, load(base, weights, "float32")
    except (OSError, ValueError) as error:
        if args.original:
            parser.error(f"--original {args.original}: {error}")
        parser.error(f"--weights {args.weights}: they are to be of the small network of the Shapes sample; --original "
                     f"takes the folder of a network that the original trained. {error}")  # fmt: skip


def detect(model, images):
    """The results of `MaskRCNN.detect`, image by image."""
    return [model.detect([image])[0] for image in images]


def draw(count, size=128):
    """A list of images of shapes, always the same."""
    dataset = common.load_sample("shapes").make_dataset(count, seed=0, side=size)
    return [dataset.load_image(image_id) for image_id in dataset.image_ids]


# ------------------------------------------------------------------ comparison
def match(one, other):
    """Pairs of indices of the detections of two results that are the same, best overlap first."""
    overlaps = compute_overlaps(one["rois"].astype(float), other["rois"].astype(float))
    overlaps = np.where(one["class_ids"][:, None] == other["class_ids"][None], overlaps, 0)
    pairs = []
    for index in np.argsort(-overlaps, axis=None, kind="stable"):
        a, b = np.unravel_index(index, overlaps.shape)
        if overlaps[a, b] < LEAST_IOU:
            break
        if all(a != x and b != y for x, y in pairs):
            pairs.append((a, b))
    return pairs


def compare(exact, coarse):
    """Numbers of detections and of matched ones, the largest change of a score, and the mean IoU of masks."""
    pairs = [(a, b, i, j) for a, b in zip(exact, coarse, strict=True) for i, j in match(a, b)]
    scores = [abs(float(a["scores"][i] - b["scores"][j])) for a, b, i, j in pairs]
    ious = []
    for a, b, i, j in pairs:
        one, other = a["masks"][:, :, i], b["masks"][:, :, j]
        ious.append(float((one & other).sum() / max((one | other).sum(), 1)))
    counts = [sum(len(result["rois"]) for result in results) for results in (exact, coarse)]
    return {"float32": counts[0], "other": counts[1], "matched": len(pairs), "share": len(pairs) / max(*counts, 1),
            "score": max(scores, default=0.0), "mask_iou": float(np.mean(ious)) if ious else 0.0}  # fmt: skip


def run(args, base, weights, model):
    """All figures, as `--json` writes them; the model is the one in float32."""
    images = draw(args.images)
    exact = detect(model, images)
    rows = [{"precision": name} | compare(exact, detect(load(base, weights, name), images)) for name in args.precision]
    chosen = {"weights": Path(weights).name, "images": args.images, "least_iou": LEAST_IOU}
    versions = common.versions(["keras", args.backend])
    return {"input": chosen, "machine": common.machine(), "versions": versions, "cases": rows}


def report(figures, markdown):
    """The table as lines of text."""
    header = ("weights", "precision", "in float32", "in it", "matched", "share", "score, at most", "masks, mean IoU")
    name = figures["input"]["weights"]
    rows = [
        (name, row["precision"], row["float32"], row["other"], row["matched"], f"{row['share']:.1%}",
         f"{row['score']:.3f}", f"{row['mask_iou']:.3f}")
        for row in figures["cases"]
    ]  # fmt: skip
    return common.table(header, rows, markdown)


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Count the detections that stay the same in another precision.")
    parser.add_argument("--weights", type=Path, default=SHIPPED,
                        help="of the small network of the Shapes sample (default: those that it ships)")  # fmt: skip
    parser.add_argument("--original", type=Path, metavar="<folder>",
                        help=f"that holds {', '.join(ORIGINAL)}, instead of --weights")  # fmt: skip
    parser.add_argument("--images", type=common.positive, default=IMAGES, help=f"to detect in (default: {IMAGES})")
    parser.add_argument("--precision", choices=common.PRECISIONS, nargs="+", default=["bfloat16"],
                        help="to compare with float32 (default: bfloat16)")  # fmt: skip
    parser.add_argument("--backend", choices=common.BACKENDS, help="of Keras (default: KERAS_BACKEND, or tensorflow)")
    common.add_output_arguments(parser)
    args = parser.parse_args(arguments)
    needed = [args.original / name for name in ORIGINAL] if args.original else [args.weights]
    for path in needed:
        if not path.is_file():
            parser.error(f"{path}: there is no such file")
    common.check_arguments(parser, args)
    figures = run(args, *load_exact(parser, args))
    common.finish(args, figures, report(figures, args.markdown))


if __name__ == "__main__":
    main()
