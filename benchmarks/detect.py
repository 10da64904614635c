"""Times whole calls of `MaskRCNN.detect`: photos as arrays in, boxes and full-size masks out.

    python benchmarks/detect.py                                            # both ResNets at 1024 pixels, 16 cases
    python benchmarks/detect.py --network resnet50 --batch 1 --peer torchvision
    python benchmarks/detect.py --backend jax --precision bfloat16 --photo small --json detect.json

Weights are random; instances are forced (networks.py says how), and their number is checked. This package and a peer
take turns. GFLOP are what the result needs: the mask head for the instances found, not for rows that stay empty.
"""

import argparse
import functools
import itertools
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout runs without being installed

import common
from common import MASKS, NETWORKS, PEERS, positive

PHOTOS = ("small", "large")


def make_photos(kind, size, batch):
    """Photos of one kind: "small" ones are as large as the network takes them, "large" ones 3000 x 2000."""
    from photos import LARGE, make_photo

    width, height = (size, size) if kind == "small" else LARGE
    return [make_photo(width, height, seed) for seed in range(batch)]


def makers(args, setting):
    """What makes the contenders of a setting, {name: function}."""
    import networks

    made = {"mrcnn": functools.partial(networks.Detector, masks=args.masks, **setting)}
    if args.peer and setting["network"] != "small":
        import peer

        made[args.peer] = functools.partial(peer.Detector, **setting)
    return made


def measure(setting, detectors, kind, runs):
    """The rows of a case, one for each of the contenders that take turns."""
    import contenders

    photos = make_photos(kind, setting["size"], setting["batch"])
    for name, detector in detectors.items():
        contenders.check_found(name, detector.detect(photos), setting["instances"])
    calls = {name: functools.partial(detector.detect, photos) for name, detector in detectors.items()}
    seconds = common.take_turns(calls, runs)
    return [
        {**setting, "photo": kind, "contender": name, "seconds": common.summary(seconds[name]),
         "gflop": detector.gflop(photos)} for name, detector in detectors.items()
    ]  # fmt: skip


def run(args):
    """All figures, as `--json` writes them."""
    from peak import Peak, share

    frameworks = [args.backend, *([PEERS[args.peer]] if args.peer else [])]
    peak = Peak(frameworks, args.precision, args.peak_size)
    peak.measure()
    cases = {}
    choices = itertools.product(args.network, args.precision, args.batch, args.instances)
    for network, precision, batch, instances in choices:
        setting = {"network": network, "size": args.size, "batch": batch, "instances": instances,
                   "precision": precision}  # fmt: skip
        for detectors in common.together(makers(args, setting), args.apart):
            for kind in args.photo:
                key = (*setting.values(), kind)
                cases.setdefault(key, []).extend(measure(setting, detectors, kind, args.runs))
    peak.measure()
    rows, peaks = [], peak.figures()
    for case in cases.values():
        rows += common.add_ratios(case)
    for row in rows:
        row["share_of_peak"] = share(peaks, row["gflop"], row["seconds"]["median"], row["precision"])
    given = {"backend": args.backend, "size": args.size, "runs": args.runs, "masks": args.masks, "apart": args.apart}
    packages = ["keras", "numpy", *frameworks, *([args.peer] if args.peer else [])]
    return {"input": given, "machine": common.machine() | common.devices(), "versions": common.versions(packages),
            "peak": peaks, "cases": rows}  # fmt: skip


def report(figures, markdown=False):
    """The figures as lines of text."""
    from peak import describe_peak

    given = figures["input"]
    header = ["network", "batch", "instances", "photo", "precision", "", "median", "least", "most", "times mrcnn",
              "GFLOP", "of peak"]  # fmt: skip
    rows = [
        [*(row[key] for key in ("network", "batch", "instances", "photo", "precision", "contender")),
         *common.spread(row["seconds"]), f"{row['times_mrcnn']:.2f}" if "times_mrcnn" in row else "",
         common.number(row["gflop"]), f"{row['share_of_peak']:.0%}"] for row in figures["cases"]
    ]  # fmt: skip
    masks = "" if given["masks"] == "full" else f", masks {given['masks']}"
    title = f"detect at {given['size']} pixels on {given['backend']}, {given['runs']} runs{masks}"
    return [title, "", *common.table(header, rows, markdown), "", describe_peak(figures["peak"])]


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Time whole calls of MaskRCNN.detect.")
    parser.add_argument("--network", choices=NETWORKS, nargs="+", default=["resnet50", "resnet101"],
                        help="that of the Shapes sample, or a ResNet (default: both ResNets)")  # fmt: skip
    parser.add_argument("--size", type=common.side, default=1024, help="of the network's images (default: 1024)")
    parser.add_argument("--batch", type=positive, nargs="+", default=[1, 4], help="images per call (default: 1 4)")
    parser.add_argument("--instances", type=common.instances, nargs="+", default=[0, 100],
                        help="in every photo, 1000 at most (default: 0 100)")  # fmt: skip
    parser.add_argument("--photo", choices=PHOTOS, nargs="+", default=list(PHOTOS),
                        help="as large as the network's images, or 3000 x 2000 (default: both)")  # fmt: skip
    parser.add_argument("--masks", choices=MASKS, default="full", help="that are asked for (default: full)")
    parser.add_argument("--apart", action="store_true", help="one contender after the other, where memory is short")
    common.add_arguments(parser)
    args = parser.parse_args(arguments)
    common.check_networks(parser, args, "--network", args.network)
    common.check_masks(parser, args.masks)
    common.check_arguments(parser, args)
    common.complete(args, run, report)


if __name__ == "__main__":
    main()
