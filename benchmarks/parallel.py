"""Times a training step on several devices beside a plain one, in one run.

    python benchmarks/parallel.py                  # what the code for several devices costs on one
    python benchmarks/parallel.py --devices 2      # two devices, into which the CPU is divided
    python benchmarks/parallel.py --gpus --devices 4 --network resnet50 --size 1024

The batch has the same images on any number of devices; plain steps and others take turns, so that both meet the machine
as it is.
"""

import argparse
import functools
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout runs without being installed

import common
from common import NETWORKS, positive

WARM_UP = 3
LEAST_SIDE = 128  # pixels: the multiple of 64 that has room for a shape


def make_config(network, size, batch_size):
    """The settings of a network: that of the Shapes sample, "small", or one with a ResNet."""
    from mrcnn.config import Config

    settings = {"IMAGES_PER_GPU": batch_size, "IMAGE_MIN_DIM": size, "IMAGE_MAX_DIM": size, "SEED": 0}
    if network == "small":
        return type("Timed", (common.load_sample("shapes").SmallShapesConfig,), settings)()
    return type("Timed", (Config,), settings | {"NAME": "network", "NUM_CLASSES": 4, "BACKBONE": network})()


def make_batch(config):
    """The first batch of drawn shapes."""
    from mrcnn.data.loader import DataGenerator

    dataset = common.load_sample("shapes").make_dataset(config.BATCH_SIZE, seed=0, side=config.IMAGE_MAX_DIM)
    return DataGenerator(dataset, config, shuffle=False)[0][0]


def make_model(config, devices):
    """A network ready to train, plain (`devices` 0) or as ParallelModel."""
    import keras

    from mrcnn.network.assemble import build_model
    from mrcnn.parallel_model import ParallelModel

    keras.utils.set_random_seed(0)
    model = build_model("training", config)
    if devices:
        model = ParallelModel(model, devices)
    model.compile(keras.optimizers.SGD(0.001, momentum=0.9, global_clipnorm=5.0))
    if not devices:
        model.optimizer.build(model.trainable_variables)
    return model


def run(args):
    """All figures, as `--json` writes them."""
    from mrcnn.parallel_model import found_devices

    config = make_config(args.network, args.size, args.batch_size)
    batch = make_batch(config)
    models = {"plain": make_model(config, 0), "ParallelModel": make_model(config, args.devices)}
    losses = {name: [] for name in models}

    def step(name):
        losses[name].append(float(models[name].train_on_batch(batch, return_dict=True)["loss"]))

    seconds = common.take_turns({name: functools.partial(step, name) for name in models}, args.runs, WARM_UP)
    return {
        "input": {"network": args.network, "size": args.size, "batch_size": args.batch_size, "devices": args.devices,
                  "runs": args.runs, "backend": args.backend, "found": found_devices()},
        "machine": common.machine(),
        "versions": common.versions(["keras", "numpy", args.backend]),
        "seconds": {name: common.summary(values) for name, values in seconds.items()},
        "ratio": common.ratio(seconds["ParallelModel"], seconds["plain"]),
        "first_losses": {name: values[0] for name, values in losses.items()},
    }  # fmt: skip


def report(figures, markdown=False):
    """The figures as lines of text."""
    given, losses = figures["input"], figures["first_losses"]
    title = (
        f"{given['network']} network, {given['size']} pixels, {given['batch_size']} images per step, "
        f"{given['runs']} runs; {given['backend']}, {given['devices']} of {', '.join(given['found'])}"
    )
    header = ["", "median", "least", "most", "times plain", "first loss"]
    ratios = {"plain": "", "ParallelModel": f"{figures['ratio']:.3f}"}
    rows = [[name, *common.spread(row), ratios[name], f"{losses[name]:.6f}"]
            for name, row in figures["seconds"].items()]  # fmt: skip
    return [title, "", *common.table(header, rows, markdown)]


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Time a training step on several devices beside a plain one.")
    parser.add_argument("--network", choices=NETWORKS, default="small",
                        help="that of the Shapes sample, or a ResNet (default: small)")  # fmt: skip
    parser.add_argument("--size", type=common.side, default=128, help="of the images, pixels (default: 128)")
    parser.add_argument("--batch-size", type=positive, default=8, help="images per step in all (default: 8)")
    parser.add_argument("--devices", type=positive, default=1, help="to share them (default: 1)")
    parser.add_argument("--gpus", action="store_true", help="GPUs, not a CPU that is divided into devices")
    common.add_arguments(parser, runs=20, peer=False, precision=False, peak=False)
    args = parser.parse_args(arguments)
    if args.size < LEAST_SIDE:
        parser.error(f"--size {args.size}: must be {LEAST_SIDE} or more, so that there is room for a shape")
    if args.batch_size % args.devices:
        parser.error(f"--batch-size {args.batch_size} cannot be divided evenly between {args.devices} devices")
    common.check_arguments(parser, args)
    if args.backend == "torch":
        parser.error("--backend torch: it runs on one device; choose tensorflow or jax")
    try:
        if args.devices > 1 and not args.gpus:
            from mrcnn.parallel_model import divide_cpu

            divide_cpu(args.devices)
        figures = run(args)
    except (ValueError, RuntimeError) as error:
        parser.error(str(error))
    common.finish(args, figures, report(figures, args.markdown))


if __name__ == "__main__":
    main()
