"""Counts the multiply-adds of the network, part by part, from the layers of the model itself.

    python benchmarks/operations.py                                # a table
    python benchmarks/operations.py --network resnet50 --size 512 --instances 20

Counted are convolutions, transposed convolutions and dense layers, each with the shapes that it works on: for layers
that work on regions, times the number of regions. One multiply-add is two floating point operations.
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout runs without being installed

from common import (
    BACKENDS,
    NETWORKS,
    add_output_arguments,
    check_arguments,
    finish,
    instances,
    machine,
    number,
    side,
    table,
    versions,
)

PARTS = ("backbone", "pyramid", "proposals", "box head", "mask head")
PREFIXES = {"fpn_": "pyramid", "rpn_": "proposals", "mrcnn_mask": "mask head", "mrcnn_": "box head"}


def part_of(name):
    """The part of the network that the layer of this name belongs to."""
    return next((part for prefix, part in PREFIXES.items() if name.startswith(prefix)), "backbone")


def multiply_adds(layer, taken, given):
    """Multiply-adds of a layer that takes and gives arrays of these shapes; None if it is of no kind that counts.

    How many rows the mask head has in training depends on the objects found: what is open is left out.
    """
    import keras
    import numpy as np

    if None in (*taken, *given):
        return None
    if isinstance(layer, keras.layers.Conv2DTranspose):
        return int(np.prod(taken[:-1])) * int(np.prod(layer.kernel.shape))
    if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
        return int(np.prod(given)) * int(np.prod(layer.kernel.shape[:-1]))
    return None


def calls(model, shapes):
    """Every call of a layer that counts, those in nested models too.

    Args:
        model: functional keras.Model.
        shapes: list of shapes of the model's inputs, batch included.

    Returns:
        list of (layer, multiply-adds).
    """
    import keras

    found = []

    def follow(operation):
        def run(*args, **kwargs):
            if isinstance(operation, keras.Model):
                return walk(operation, keras.tree.flatten(args))
            result = operation.compute_output_spec(*args, **kwargs)
            if isinstance(operation, keras.layers.Layer) and getattr(result, "shape", None) is not None:
                count = multiply_adds(operation, args[0].shape, result.shape) if hasattr(args[0], "shape") else None
                if count is not None:
                    found.append((operation, count))
            return result

        return run

    def walk(network, inputs):
        return network._run_through_graph(inputs, operation_fn=follow)

    walk(model, [keras.KerasTensor(shape, tensor.dtype) for shape, tensor in zip(shapes, model.inputs, strict=True)])
    return found


def by_part(model, shapes):
    """{part: multiply-adds} of a model whose inputs have these shapes."""
    counts = dict.fromkeys(PARTS, 0)
    for layer, count in calls(model, shapes):
        counts[part_of(layer.name)] += count
    return counts


def detection_shapes(config, batch, anchors):
    """Shapes of the inputs of the model that detects: images, metas, anchors."""
    image = tuple(int(length) for length in config.IMAGE_SHAPE)
    return [(batch, *image), (batch, config.IMAGE_META_SIZE), (batch, anchors, 4)]


def detection(model, config, anchors, batch=1, instances=None):
    """{part: multiply-adds} of a detection.

    Args:
        model: keras.Model that detects.
        config: its Config.
        anchors: int, anchors of an image.
        batch: int, images.
        instances: int, per image: of the mask head only the part for these counts. None counts all that it computes.
    """
    counts = by_part(model, detection_shapes(config, batch, anchors))
    if instances is not None:
        counts["mask head"] = counts["mask head"] * instances // config.DETECTION_MAX_INSTANCES
    return counts


def training_gflop(model, shapes):
    """GFLOP of a training step, estimated: three times the forward pass where layers train, once where they do not."""
    return sum(2e-9 * count * (3 if layer.trainable else 1) for layer, count in calls(model, shapes))


def gflop(counts):
    """Floating point operations in 1e9 of {part: multiply-adds}."""
    return 2e-9 * sum(counts.values())


# ------------------------------------------------------------------ as a program
def run(args):
    """All figures, as `--json` writes them."""
    from networks import count_detection

    rows = [{"network": network, "multiply_adds": count_detection(network, args.size, args.instances)}
            for network in args.network]  # fmt: skip
    for row in rows:
        row["gflop"] = gflop(row["multiply_adds"])
    return {"input": {"size": args.size, "instances": args.instances}, "machine": machine(),
            "versions": versions(["keras"]), "rows": rows}  # fmt: skip


def report(figures, markdown=False):
    """The figures as lines of text."""
    given = figures["input"]
    rows = [[row["network"], *(f"{row['multiply_adds'][part] / 1e9:.2f}" for part in PARTS), number(row["gflop"])]
            for row in figures["rows"]]  # fmt: skip
    title = f"multiply-adds in 1e9 for one image of {given['size']} pixels with {given['instances']} instances"
    return [title, "", *table(["network", *PARTS, "GFLOP in all"], rows, markdown)]


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Count the multiply-adds of a detection, part by part.")
    parser.add_argument("--network", choices=NETWORKS, nargs="+", default=["resnet50", "resnet101"],
                        help="that of the Shapes sample, or a ResNet (default: both ResNets)")  # fmt: skip
    parser.add_argument("--size", type=side, default=1024, help="of the image, pixels (default: 1024)")
    parser.add_argument("--instances", type=instances, default=100, help="that get a mask, 1000 at most (default: 100)")
    parser.add_argument("--backend", choices=BACKENDS, help="of Keras (default: KERAS_BACKEND, or else tensorflow)")
    add_output_arguments(parser)
    args = parser.parse_args(arguments)
    check_arguments(parser, args)
    figures = run(args)
    finish(args, figures, report(figures, args.markdown))


if __name__ == "__main__":
    main()
