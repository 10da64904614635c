"""Times a training step on several devices beside a plain one, in one run.

    python benchmarks/parallel.py                  # what the code for several devices costs on one
    python benchmarks/parallel.py --devices 2      # two devices, into which the CPU is divided
    python benchmarks/parallel.py --gpus --devices 4 --network resnet50 --size 1024

The backend is that of KERAS_BACKEND. The batch has the same images on any number of devices; plain steps and others
take turns, so that both meet the machine as it is.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout runs without being installed

import keras
import numpy as np
from common import describe, machine, positive, versions

from mrcnn.config import Config
from mrcnn.data.loader import DataGenerator
from mrcnn.network.assemble import build_model
from mrcnn.parallel_model import ParallelModel, divide_cpu, found_devices

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("keras", "numpy")
FRAMEWORK = {"tensorflow": ("tensorflow",), "jax": ("jax",)}
WARM_UP = 3


def make_config(network, size, batch_size):
    """The settings of a network: that of the Shapes sample, "small", or one with a ResNet."""
    sys.path.append(str(ROOT / "samples" / "shapes"))
    import shapes

    if network == "small":
        settings = {"IMAGES_PER_GPU": batch_size, "IMAGE_MIN_DIM": size, "IMAGE_MAX_DIM": size}
        base = shapes.SmallShapesConfig
    else:
        settings = {"IMAGES_PER_GPU": batch_size, "IMAGE_MIN_DIM": size, "IMAGE_MAX_DIM": size, "BACKBONE": network}
        base = type("Network", (Config,), {"NAME": "network", "NUM_CLASSES": 4})
    return type("Timed", (base,), settings | {"SEED": 0})()


def make_batch(config):
    """The first batch of drawn shapes."""
    import shapes

    dataset = shapes.ShapesDataset()
    dataset.load_shapes(config.BATCH_SIZE, config.IMAGE_MAX_DIM, config.IMAGE_MAX_DIM, seed=0)
    dataset.prepare()
    return DataGenerator(dataset, config, shuffle=False)[0][0]


def make_model(config, devices):
    """A network ready to train, plain (`devices` 0) or as ParallelModel."""
    keras.utils.set_random_seed(0)
    model = build_model("training", config)
    if devices:
        model = ParallelModel(model, devices)
    model.compile(keras.optimizers.SGD(0.001, momentum=0.9, global_clipnorm=5.0))
    if not devices:
        model.optimizer.build(model.trainable_variables)
    return model


def run(network="small", size=128, batch_size=8, devices=1, runs=20):
    """All figures, as `--json` writes them."""
    config = make_config(network, size, batch_size)
    batch = make_batch(config)
    models = {"plain": make_model(config, 0), "ParallelModel": make_model(config, devices)}
    seconds, losses = {name: [] for name in models}, {name: [] for name in models}
    for _ in range(WARM_UP + runs):
        for name, model in models.items():
            started = time.perf_counter()
            losses[name].append(float(model.train_on_batch(batch, return_dict=True)["loss"]))
            seconds[name].append(time.perf_counter() - started)
    timed = {name: values[WARM_UP:] for name, values in seconds.items()}
    medians = {name: statistics.median(values) for name, values in timed.items()}
    return {
        "input": {"network": network, "size": size, "batch_size": batch_size, "devices": devices, "runs": runs,
                  "backend": keras.backend.backend(), "found": found_devices()},
        "machine": machine(),
        "versions": versions((*PACKAGES, *FRAMEWORK[keras.backend.backend()])),
        "seconds": {name: {"median": medians[name], "least": min(values), "most": max(values)}
                    for name, values in timed.items()},
        # of pairs that ran one after the other, which the machine's moods touch alike
        "ratio": statistics.median(np.divide(timed["ParallelModel"], timed["plain"]).tolist()),
        "first_losses": {name: values[0] for name, values in losses.items()},
    }  # fmt: skip


def report(figures):
    """The figures as a text."""
    given = figures["input"]
    lines = [f"{given['network']} network, {given['size']} pixels, {given['batch_size']} images per step, "
             f"{given['runs']} runs; {given['backend']}, {given['devices']} of {', '.join(given['found'])}", ""]
    lines.append(f"{'':16}{'median':>10}{'least':>10}{'most':>10}{'first loss':>14}")
    for name, row in figures["seconds"].items():
        cells = "".join(f"{row[key]:>8.3f} s" for key in ("median", "least", "most"))
        lines.append(f"{name:16}{cells}{figures['first_losses'][name]:>14.6f}")
    lines += [f"{'ratio':16}{figures['ratio']:>8.3f}", "", *describe(figures)]
    return "\n".join(lines)


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Time a training step on several devices beside a plain one.")
    parser.add_argument("--network", choices=("small", "resnet50", "resnet101"), default="small",
                        help="that of the Shapes sample, or a ResNet (default: small)")  # fmt: skip
    parser.add_argument("--size", type=positive, default=128, help="of the images, pixels (default: 128)")
    parser.add_argument("--batch-size", type=positive, default=8, help="images per step in all (default: 8)")
    parser.add_argument("--devices", type=positive, default=1, help="to share them (default: 1)")
    parser.add_argument("--gpus", action="store_true", help="GPUs, not a CPU that is divided into devices")
    parser.add_argument("--runs", type=positive, default=20, help="of each (default: 20)")
    parser.add_argument("--json", type=Path, metavar="<file>", help="write the figures to this file, too")
    args = parser.parse_args(arguments)
    if args.json and not args.json.resolve().parent.is_dir():
        parser.error(f"--json {args.json}: there is no such folder")
    if args.batch_size % args.devices:
        parser.error(f"--batch-size {args.batch_size} cannot be divided evenly between {args.devices} devices")
    if args.size % 64:
        parser.error(f"--size {args.size}: must be a multiple of 64")
    try:
        if args.devices > 1 and not args.gpus:
            divide_cpu(args.devices)
        figures = run(args.network, args.size, args.batch_size, args.devices, args.runs)
    except (ValueError, RuntimeError) as error:
        parser.error(str(error))
    print(report(figures))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
