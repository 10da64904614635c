"""Times the start: import, building the network, and the first detection, each time in a fresh process.

    python benchmarks/startup.py                                           # both ResNets at 1024 pixels
    python benchmarks/startup.py --network resnet50 --peer torchvision --json startup.json

The second detection stands beside the first: the difference is what tracing and the like cost once. The import of
`mrcnn.utils` alone is timed as well; that is all that a program needs which only reads data. The machine's peak is
measured before and after: how many GFLOP it could have done meanwhile compares machines of unlike speed.
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout runs without being installed

import common
import fresh
from common import NETWORKS, PEERS

STAGES = ("Python", "import", "build", "first detection", "second detection")
ALONE = "import alone"  # of mrcnn.utils, or of torchvision.ops


def measure(args, contenders, task, **arguments):
    """{contender: {stage: seconds of all runs}}; the first run of each is not counted, as it reads files anew."""
    seconds = {name: [] for name in contenders}
    for _ in range(1 + args.runs):
        for name in contenders:
            seconds[name].append(fresh.run(task, backend=args.backend, contender=name, **arguments)["seconds"])
    return {name: {stage: [run[stage] for run in runs[1:]] for stage in runs[0]} for name, runs in seconds.items()}


def rows_of(case, stages):
    """A row per contender with a summary of each stage, and of all up to the first detection together."""
    rows = []
    for name, seconds in case.items():
        counted = [seconds[stage] for stage in stages if stage != "second detection"]
        whole = [sum(values) for values in zip(*counted)]
        summaries = {stage: common.summary(seconds[stage]) for stage in stages}
        rows.append({"contender": name, "stages": summaries, "seconds": common.summary(whole)})
    return common.add_ratios(rows)


def run(args):
    """All figures, as `--json` writes them."""
    from peak import Peak, best

    contenders = ["mrcnn", *([args.peer] if args.peer else [])]
    frameworks = [args.backend, *([PEERS[args.peer]] if args.peer else [])]
    peak = Peak(frameworks, args.precision, args.peak_size)
    peak.measure()
    rows = [{"what": ALONE} | row for row in rows_of(measure(args, contenders, "utils"), STAGES[:2])]
    for network in args.network:
        for precision in args.precision:
            fit = [name for name in contenders if name == "mrcnn" or network != "small"]
            case = measure(args, fit, "detect", network=network, size=args.size, instances=0,
                           photo=(args.size, args.size), precision=precision)  # fmt: skip
            what = f"{network}, {precision}"
            rows += [{"what": what, "precision": precision} | row for row in rows_of(case, STAGES)]
    peak.measure()
    peaks = peak.figures()
    for row in rows:
        if "precision" in row:
            row["gflop_meanwhile"] = row["seconds"]["median"] * best(peaks, row["precision"])
    packages = ["keras", "numpy", *frameworks, *([args.peer] if args.peer else [])]
    return {"input": {"backend": args.backend, "size": args.size, "runs": args.runs},
            "machine": common.machine() | common.devices(), "versions": common.versions(packages),
            "peak": peaks, "cases": rows}  # fmt: skip


def report(figures, markdown=False):
    """The figures as lines of text."""
    from peak import describe_peak

    given = figures["input"]
    header = ["", "of", *STAGES[:4], "in all", "least", "most", "times mrcnn", STAGES[4]]

    def cell(row, stage):
        return f"{row['stages'][stage]['median']:.2f} s" if stage in row["stages"] else ""

    rows = [
        [row["what"], row["contender"], *(cell(row, stage) for stage in STAGES[:4]), *common.spread(row["seconds"], 2),
         f"{row['times_mrcnn']:.2f}" if "times_mrcnn" in row else "", cell(row, STAGES[4])] for row in figures["cases"]
    ]  # fmt: skip
    title = (f"from the start of Python to the first result at {given['size']} pixels on {given['backend']}, medians "
             f"of {given['runs']} runs")  # fmt: skip
    note = f"{ALONE}: mrcnn.utils" + (", torchvision.ops" if "torchvision" in figures["versions"] else "")
    meanwhile = [
        f"{row['what']}: {row['contender']} took as long as {common.number(row['gflop_meanwhile'])} GFLOP of products"
        for row in figures["cases"]
        if "gflop_meanwhile" in row
    ]
    peak = describe_peak(figures["peak"])
    return [title, peak, "", *common.table(header, rows, markdown), "", note, *meanwhile]


def check(parser, args):
    """Refuses a peer that has nothing to compare."""
    common.check_networks(parser, args, "--network", args.network)


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Time import, build and first detection in fresh processes.")
    parser.add_argument("--network", choices=NETWORKS, nargs="+", default=["resnet50", "resnet101"],
                        help="that of the Shapes sample, or a ResNet (default: both ResNets)")  # fmt: skip
    parser.add_argument("--size", type=common.side, default=1024, help="of the photo, pixels (default: 1024)")
    common.measure_processes(parser, arguments, run, report, check, peak=True)


if __name__ == "__main__":
    main()
