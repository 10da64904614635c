"""Arithmetic, not a measurement: how long devices take to add up their gradients, beside the step that makes them.

    python benchmarks/scaling.py            # the tables of docs/distributed.md

A ring all-reduce sends 2 (n - 1) / n times the gradient's bytes through each link. Within a host it runs over NVLink,
between hosts over each GPU's own InfiniBand port or over the host's one Ethernet link; the slowest link counts.
"""

import argparse
import math
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout runs without being installed

from common import check_arguments, positive

GPUS_PER_HOST = 8
GRADIENT_BYTES = 4  # float32, also with PRECISION = "bfloat16"
# Bytes per second in one direction, from the vendors' data sheets.
NVLINK = 900e9 / 2  # NVLink 4 with NVSwitch, of both directions together
INFINIBAND = 50e9  # NDR, a port for each GPU
ETHERNET = 12.5e9  # 100 Gbit/s, one link for all GPUs of a host
DEVICES = (8, 64, 512)
# Images per second of one A100 in training, ResNet-50, mixed precision, batch 4, as NVIDIA published it; ResNet-101 by
# the operations of one image, in 1e9.
IMAGES_PER_SECOND = 28.6
OPERATIONS = {"resnet50": 622, "resnet101": 777}


def parameters(backbone):
    """Number of values that the network for COCO trains."""
    import numpy as np

    from mrcnn.config import Config
    from mrcnn.network.assemble import build_training_model

    settings = {"NAME": "coco", "NUM_CLASSES": 81, "BACKBONE": backbone, "IMAGE_MIN_DIM": 128, "IMAGE_MAX_DIM": 128}
    model = build_training_model(type("CocoConfig", (Config,), settings)())
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def ring(count, size, bandwidth):
    """Seconds to add up `size` bytes on each of `count` members of a ring."""
    return 2 * (count - 1) / count * size / bandwidth


def all_reduce(devices, size):
    """Seconds by kind of network between hosts; one host needs none."""
    hosts = devices // GPUS_PER_HOST
    if hosts <= 1:
        return {"NVLink": ring(devices, size, NVLINK)}
    inside = ring(GPUS_PER_HOST, size, NVLINK)
    return {
        "InfiniBand": ring(devices, size, INFINIBAND),  # as slow as its slowest link, NVLink not being it
        "Ethernet": inside + ring(hosts, size, ETHERNET),  # the sums of whole hosts
    }


def table(backbone, count, images, samples_per_second):
    """The rows for one network.

    Args:
        backbone: "resnet50" or "resnet101".
        count: int, trained values.
        images: int, per device and step.
        samples_per_second: float, training images that one core prepares.
    """
    size = count * GRADIENT_BYTES
    rate = IMAGES_PER_SECOND * OPERATIONS["resnet50"] / OPERATIONS[backbone]
    step = images / rate
    yield (f"{backbone}: {count / 1e6:.1f} million values, {size / 1e6:.0f} MB of gradients per step; a step of "
           f"{images} images takes {1000 * step:.0f} ms")
    yield "devices | images per step | network | all-reduce | of a step | images/s | cores per host for the data"
    yield ":-- | :-- | :-- | --: | --: | --: | --:"
    for devices in DEVICES:
        for kind, seconds in all_reduce(devices, size).items():
            total = devices * images / (step + seconds)
            cores = total / max(devices // GPUS_PER_HOST, 1) / samples_per_second
            yield (f"{devices} | {devices * images} | {kind} | {1000 * seconds:.1f} ms | {seconds / step:.0%} | "
                   f"{total:,.0f} | {cores:.0f}")


def main(arguments=None):
    parser = argparse.ArgumentParser(description="How long devices take to add up their gradients, by arithmetic.")
    parser.add_argument("--images", type=positive, default=2, help="per device and step (default: 2)")
    parser.add_argument("--samples", type=float, default=4.5,
                        help="images per second that a core prepares (default: 4.5, balloons at 1024)")  # fmt: skip
    args = parser.parse_args(arguments)
    if not (math.isfinite(args.samples) and args.samples > 0):
        parser.error(f"--samples must be a number above 0; received {args.samples}")
    check_arguments(parser, args)
    for backbone in OPERATIONS:
        print("\n".join(table(backbone, parameters(backbone), args.images, args.samples)), end="\n\n")


if __name__ == "__main__":
    main()
