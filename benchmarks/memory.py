"""Measures the most memory that a detection or a training takes, each in a fresh process.

    python benchmarks/memory.py
    python benchmarks/memory.py --cases import resnet50 large50 --peer torchvision --json memory.json

It is the largest resident set of the process (RSS), Python and all libraries included; on a GPU also the most of its
memory that was in use.
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout runs without being installed

import common
import fresh
from common import MASKS, PEERS
from photos import LARGE

DETECT = {"instances": 100}
CASES = {
    "import": ("nothing but the import of mrcnn.utils", "utils", {}),
    "small": ("detect, network of the Shapes sample", "detect", {"network": "small", **DETECT}),
    "resnet50": ("detect, ResNet-50", "detect", {"network": "resnet50", **DETECT}),
    "resnet101": ("detect, ResNet-101", "detect", {"network": "resnet101", **DETECT}),
    "large50": ("detect, ResNet-50, photo of 3000 x 2000", "detect", {"network": "resnet50", "photo": LARGE, **DETECT}),
    "large101": ("detect, ResNet-101, photo of 3000 x 2000", "detect",
                 {"network": "resnet101", "photo": LARGE, **DETECT}),
    "heads50": ("training of the heads, ResNet-50", "train", {"network": "resnet50", "layers": "heads"}),
    "all50": ("training of all layers, ResNet-50", "train", {"network": "resnet50", "layers": "all"}),
}  # fmt: skip
OF_SHAPES = "small"


def arguments_of(args, case, precision, contender):
    """The task of a case, and its arguments for `fresh.run`."""
    _, task, settings = CASES[case]
    given = {"contender": contender, "backend": args.backend, **settings}
    if task != "utils":
        given |= {"size": args.size, "precision": precision}
    if task == "train":
        given["batch"] = args.batch
    if task == "detect":
        given.setdefault("photo", (args.size, args.size))
        given["masks"] = args.masks
    return task, given


def run(args):
    """All figures, as `--json` writes them."""
    contenders = ["mrcnn", *([args.peer] if args.peer else [])]
    rows = []
    for case in args.cases:
        for precision in args.precision if CASES[case][1] != "utils" else args.precision[:1]:
            fit = contenders[:1] if case == OF_SHAPES else contenders
            found = {name: [] for name in fit}
            for _ in range(args.runs):
                for name in fit:
                    task, given = arguments_of(args, case, precision, name)
                    found[name].append(fresh.run(task, **given))
            new = [
                {"case": case, "what": CASES[case][0], "precision": precision, "contender": name,
                 "bytes": common.summary([result["memory"] for result in results]),
                 "device_bytes": results[0]["device_memory"]} for name, results in found.items()
            ]  # fmt: skip
            rows += common.add_ratios(new, "bytes")
    packages = ["keras", "numpy", args.backend, *([PEERS[args.peer], args.peer] if args.peer else [])]
    given = {"backend": args.backend, "size": args.size, "batch": args.batch, "runs": args.runs, "masks": args.masks}
    return {"input": given, "machine": common.machine(), "versions": common.versions(packages), "cases": rows}


def report(figures, markdown=False):
    """The figures as lines of text."""
    given = figures["input"]
    on_gpu = any(row["device_bytes"] is not None for row in figures["cases"])
    header = ["", "precision", "of", "median", "least", "most", "times mrcnn", *(["on the GPU"] if on_gpu else [])]
    rows = []
    for row in figures["cases"]:
        sizes = [f"{row['bytes'][key] / 1e9:.2f} GB" for key in ("median", "least", "most")]
        ratio = f"{row['times_mrcnn']:.2f}" if "times_mrcnn" in row else ""
        device = "" if row["device_bytes"] is None else f"{row['device_bytes'] / 1e9:.2f} GB"
        rows.append([row["what"], row["precision"], row["contender"], *sizes, ratio, *([device] if on_gpu else [])])
    title = (f"peak memory at {given['size']} pixels on {given['backend']}, {given['runs']} runs; one photo, 100 "
             f"instances; training with {given['batch']} images per step")  # fmt: skip
    return [title, "", *common.table(header, rows, markdown)]


def check(parser, args):
    """Refuses masks that cannot be made, and a peer that has nothing to compare."""
    common.check_masks(parser, args.masks)
    common.check_networks(parser, args, "--cases", args.cases)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description="Measure the peak memory of detection and training in fresh processes.",
        epilog="cases: " + "; ".join(f"{name}: {what}" for name, (what, _, _) in CASES.items()),
    )
    default = [name for name in CASES if name != OF_SHAPES]
    parser.add_argument("--cases", choices=list(CASES), nargs="+", default=default, metavar="<case>",
                        help="see below (default: all with a ResNet)")  # fmt: skip
    parser.add_argument("--size", type=common.side, default=1024, help="of the network's images (default: 1024)")
    parser.add_argument("--batch", type=common.positive, default=1, help="images per training step (default: 1)")
    parser.add_argument("--masks", choices=MASKS, default="full", help="of detect (default: full)")
    common.measure_processes(parser, arguments, run, report, check)


if __name__ == "__main__":
    main()
