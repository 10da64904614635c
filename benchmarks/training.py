"""Times training steps: forward pass, losses, gradients, clipping and the optimizer, on a batch that is ready.

    python benchmarks/training.py                                          # ResNet-50, nine cases
    python benchmarks/training.py --images objects --size 512 --batch 1 --peer torchvision
    python benchmarks/training.py --backend jax --precision bfloat16 --layers all --json training.json

Images are drawn, with ten objects each ("objects") or by the Shapes sample with its settings at 128 pixels and a batch
of eight ("shapes"). This package and a peer take turns. GFLOP are estimated as three times the forward pass for layers
that train and once for those that do not.
"""

import argparse
import functools
import itertools
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout runs without being installed

import common
from common import NETWORKS, PEERS, positive

IMAGES = ("objects", "shapes")
LAYERS = ("heads", "all")
SHAPES = {"size": 128, "batch": 8}
WARM_UP = 2


def settings(args):
    """What is timed: dicts of network, images, size, batch, layers and precision."""
    for images in args.images:
        sizes = itertools.product(args.size, args.batch) if images == "objects" else [SHAPES.values()]
        for (size, batch), precision, layers in itertools.product(sizes, args.precision, args.layers):
            yield {"network": args.network, "images": images, "size": size, "batch": batch, "layers": layers,
                   "precision": precision}  # fmt: skip


def makers(args, setting):
    """What makes the contenders of a setting, {name: function}."""
    import contenders
    import networks

    case = {key: value for key, value in setting.items() if key != "layers"}
    config, dataset = contenders.training_case(**case)
    made = {"mrcnn": functools.partial(networks.Trainer, config, dataset, setting["layers"])}
    if args.peer:
        import peer

        made[args.peer] = functools.partial(peer.Trainer, config, dataset, setting["layers"])
    return made


def measure(setting, trainers, runs):
    """The rows of a case, one for each of the contenders that take turns."""
    import contenders

    seconds = common.take_turns({name: trainer.step for name, trainer in trainers.items()}, runs, WARM_UP)
    rows = []
    for name, trainer in trainers.items():
        contenders.check_loss(name, trainer.step())
        row = {"contender": name, "seconds": common.summary(seconds[name]), "gflop": trainer.gflop()}
        rows.append(setting | row)
    return rows


def run(args):
    """All figures, as `--json` writes them."""
    from peak import Peak, share

    frameworks = [args.backend, *([PEERS[args.peer]] if args.peer else [])]
    peak = Peak(frameworks, args.precision, args.peak_size)
    peak.measure()
    rows = []
    for setting in settings(args):
        case = []
        for trainers in common.together(makers(args, setting), args.apart):
            case += measure(setting, trainers, args.runs)
        rows += common.add_ratios(case)
    peak.measure()
    peaks = peak.figures()
    for row in rows:
        row["share_of_peak"] = share(peaks, row["gflop"], row["seconds"]["median"], row["precision"])
    packages = ["keras", "numpy", *frameworks, *([args.peer] if args.peer else [])]
    return {"input": {"backend": args.backend, "runs": args.runs, "apart": args.apart},
            "machine": common.machine() | common.devices(), "versions": common.versions(packages),
            "peak": peaks, "cases": rows}  # fmt: skip


def report(figures, markdown=False):
    """The figures as lines of text."""
    from peak import describe_peak

    given = figures["input"]
    keys = ("network", "images", "size", "batch", "layers", "precision", "contender")
    header = [*keys[:-1], "", "median", "least", "most", "images/s", "times mrcnn", "GFLOP", "of peak"]
    rows = [
        [*(row[key] for key in keys), *common.spread(row["seconds"]), f"{row['batch'] / row['seconds']['median']:.2f}",
         f"{row['times_mrcnn']:.2f}" if "times_mrcnn" in row else "", common.number(row["gflop"]),
         f"{row['share_of_peak']:.0%}"] for row in figures["cases"]
    ]  # fmt: skip
    title = f"training steps on {given['backend']}, {given['runs']} runs"
    return [title, "", *common.table(header, rows, markdown), "", describe_peak(figures["peak"])]


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Time training steps.")
    parser.add_argument("--network", choices=NETWORKS, default="resnet50",
                        help="that of the Shapes sample, or a ResNet (default: resnet50)")  # fmt: skip
    parser.add_argument("--images", choices=IMAGES, nargs="+", default=list(IMAGES),
                        help="ten objects each, or the Shapes sample's (default: both)")  # fmt: skip
    parser.add_argument("--size", type=common.side, nargs="+", default=[512, 1024],
                        help="of the images with ten objects (default: 512 1024)")  # fmt: skip
    parser.add_argument("--batch", type=positive, nargs="+", default=[1, 2],
                        help="images per step, of those with ten objects (default: 1 2)")  # fmt: skip
    parser.add_argument("--layers", choices=LAYERS, nargs="+", default=list(LAYERS), help="that train (default: both)")
    parser.add_argument("--apart", action="store_true", help="one contender after the other, where memory is short")
    common.add_arguments(parser)
    args = parser.parse_args(arguments)
    common.check_networks(parser, args, "--network", [args.network])
    common.check_arguments(parser, args)
    common.complete(args, run, report)


if __name__ == "__main__":
    main()
