"""What the benchmarks have in common: the machine, the versions, arguments, taking turns, and tables."""

import argparse
import contextlib
import gc
import importlib.util
import json
import logging
import os
import platform
import statistics
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from mrcnn import __version__
from mrcnn.data.files import atomic, kind_of_no_file, write_whole
from mrcnn.engine.command_line import at_least, quiet_import

ROOT = Path(__file__).resolve().parents[1]
BACKENDS = ("tensorflow", "jax", "torch")
PRECISIONS = ("float32", "bfloat16")
PEERS = {"torchvision": "torch"}  # and the framework that each runs on
NETWORKS = ("small", "resnet50", "resnet101")
MASKS = ("full", "box", "rle")
PROPOSALS = 1000  # that a network which detects goes on with
LEAST_PEAK_SIDE = 256  # the product of smaller matrices is over before it is fast
MOST_PEAK_SIDE = 32768  # two such matrices and their product take 13 GB


class NotComparable(RuntimeError):
    """A contender did other work than it was to do, so that its figures would say nothing."""


class Tried(Exception):
    """Ends an attempt at a file before it replaces the one that is there."""


# ------------------------------------------------------------------ the machine
def machine():
    """What the figures depend on, {name: text}."""
    model = platform.processor() or platform.machine()
    if os.path.isfile("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), model)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": model, "cores": usable, "system": f"{platform.system()} {platform.machine()}"}


def devices():
    """What Keras computes on where that is no CPU, {"devices": text}."""
    found = sys.modules["keras"].backend.backend()
    if found == "tensorflow":
        import tensorflow as tf

        names = [tf.config.experimental.get_device_details(device).get("device_name", device.name)
                 for device in tf.config.list_physical_devices("GPU")]  # fmt: skip
    elif found == "jax":
        import jax

        names = [device.device_kind for device in jax.local_devices() if device.platform != "cpu"]
    else:
        import torch

        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"devices": " + ".join(names)} if names else {}


def versions(packages):
    """{name: version} of Python, mrcnn and those of these packages that are installed."""
    found = {"mrcnn": __version__, "Python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # as of a module that lies in the path
            found[name] = "unknown"
    return found


def describe(figures):
    """Two lines of text about the machine and the versions in {"machine": ..., "versions": ...}."""
    return [
        ", ".join(f"{value} {key}" if key == "cores" else value for key, value in figures["machine"].items()),
        ", ".join(f"{name} {number}" for name, number in figures["versions"].items()),
    ]


# ------------------------------------------------------------------ arguments
positive, natural = at_least(1), at_least(0)  # argument types


def side(text):
    """An argument type: the side of an image, a multiple of 64 pixels."""
    number = positive(text)
    if number % 64:
        raise argparse.ArgumentTypeError(f"must be a multiple of 64; received {text}")
    return number


def instances(text):
    """An argument type: how many instances are to be found in a photo."""
    number = natural(text)
    if number > PROPOSALS:
        limit = f"a network of {PROPOSALS} proposals finds {PROPOSALS} at most"
        raise argparse.ArgumentTypeError(f"{limit}; received {text}")
    return number


def peak_side(text):
    """An argument type: the side of matrices whose product shows a peak, and which fit into memory."""
    number = at_least(LEAST_PEAK_SIDE)(text)
    if number > MOST_PEAK_SIDE:
        raise argparse.ArgumentTypeError(f"must be {MOST_PEAK_SIDE} or less; received {text}")
    return number


def add_output_arguments(parser):
    """Adds --json and --markdown."""
    parser.add_argument("--json", type=Path, metavar="<file>", help="write the figures to this file, too")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")


def add_arguments(parser, runs=5, peer=True, precision=True, peak=True):
    """Adds the arguments that most programs share."""
    parser.add_argument("--backend", choices=BACKENDS, help="of Keras (default: KERAS_BACKEND, or else tensorflow)")
    if precision:
        parser.add_argument("--precision", choices=PRECISIONS, nargs="+", default=["float32"],
                            help="that convolutions and dense layers compute in (default: float32)")  # fmt: skip
    if peer:
        parser.add_argument("--peer", choices=sorted(PEERS), help="an implementation to measure beside this one")
    parser.add_argument("--runs", type=positive, default=runs, help=f"of each (default: {runs})")
    if peak:
        parser.add_argument("--peak-size", type=peak_side, default=4096, metavar="<n>",
                            help="side of the matrices whose product sets the peak (default: 4096)")  # fmt: skip
    add_output_arguments(parser)


def check_output(parser, args):
    """Ends with the parser's error if the file of --json cannot be written; leaves all as it was."""
    if not getattr(args, "json", None):
        return
    if not Path(os.path.realpath(args.json)).parent.is_dir():
        parser.error(f"--json {args.json}: there is no such folder")
    if kind := kind_of_no_file(args.json):
        parser.error(f"--json {args.json}: is {kind}, not a file")
    try:
        if os.path.exists(args.json):
            open(args.json, "ab").close()  # one that is protected against writing is not to be replaced
        with contextlib.suppress(Tried), atomic(args.json) as temporary:
            temporary.touch()
            raise Tried
    except OSError as error:
        parser.error(f"--json {args.json}: it cannot be written ({error.strerror})")


def check_arguments(parser, args, load=True):
    """Checks what `add_arguments` added, sets the backend, and then imports Keras, unless `load` is False.

    A program that lacks some of these arguments has the others checked.
    """
    check_output(parser, args)
    chosen = getattr(args, "backend", None)
    args.backend = chosen or os.environ.get("KERAS_BACKEND") or BACKENDS[0]
    said = f"--backend {chosen}" if chosen else f"KERAS_BACKEND={args.backend}"
    if args.backend not in BACKENDS:
        parser.error(f"{said}: must be one of {', '.join(BACKENDS)}")
    if importlib.util.find_spec(args.backend) is None:
        parser.error(f'{said}: it is not installed; pip install -e ".[{args.backend}]" in this repository brings it')
    if "keras" in sys.modules and sys.modules["keras"].backend.backend() != args.backend:
        parser.error(f"{said}: Keras runs on {sys.modules['keras'].backend.backend()} already")
    set_environment(args.backend)
    if getattr(args, "peer", None):
        check_peer(parser, args.peer)
    if load:
        with quiet_import():
            importlib.import_module("keras")


def set_environment(backend):
    """The variables that Keras and its backends read when they are imported."""
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel("ERROR")  # it remarks on every new model of a process
    # on a GPU, leave memory to the others that take turns
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def check_peer(parser, peer):
    """Ends with the parser's error if the peer cannot be imported."""
    framework = PEERS[peer]
    for name in (framework, peer):
        if importlib.util.find_spec(name) is None:
            parser.error(f"--peer {peer}: {name} is not installed; pip install -c constraints.txt {framework} {peer} "
                         "in this repository brings both, in versions that belong together")
    try:
        importlib.import_module(peer)
    except (ImportError, OSError, RuntimeError) as error:
        parser.error(f"--peer {peer}: it is installed, but cannot be imported ({error}); install the release of {peer} "
                     f"that was built for the {framework} here; docs/speed.md says where it lies")


def check_networks(parser, args, flag, chosen):
    """Ends with the parser's error if the peer has nothing of what was chosen; says so if it lacks a part of it.

    Args:
        parser: argparse.ArgumentParser.
        args: parsed arguments; a peer is None where none was asked for.
        flag: str, the argument that was chosen with.
        chosen: list of str, "small" for the network that only this package has.
    """
    if not args.peer or "small" not in chosen:
        return
    if set(chosen) == {"small"}:
        parser.error(f"--peer {args.peer}: it has ResNets only, but {flag} small was given")
    print(f"{args.peer} has no small network: it is left out there")


def check_masks(parser, masks):
    """Ends with the parser's error if masks of this form need a package that is not installed."""
    if masks == "rle":
        from mrcnn.engine.scoring import load_pycocotools

        try:
            load_pycocotools()
        except ImportError as error:
            parser.error(f"--masks rle: {error}")


def load_sample(name):
    """The module samples/{name}/{name}.py."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "samples" / name / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------ taking turns
def together(makers, apart=False):
    """Yields what the makers make, {name: contender}: all in one, or one after the other, and lets go of them."""
    for names in [[name] for name in makers] if apart else [list(makers)]:
        made = {name: makers[name]() for name in names}
        yield made
        made.clear()
        if "keras" in sys.modules:
            sys.modules["keras"].utils.clear_session()
        gc.collect()


def take_turns(functions, runs, warm_up=1):
    """Seconds of each of some runs of each function; they take turns, so that all meet the machine as it is.

    Args:
        functions: dict of functions without arguments.
        runs: int.
        warm_up: int, runs before these that are not counted.

    Returns:
        dict of lists.
    """
    seconds = {name: [] for name in functions}
    for _ in range(warm_up + runs):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - started)
    return {name: values[warm_up:] for name, values in seconds.items()}


def summary(values):
    """Median, least and most of some numbers, and the numbers."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values), "all": list(values)}


def ratio(values, others):
    """The median of the ratios of runs that followed each other."""
    return statistics.median(np.divide(values, others).tolist())


def add_ratios(rows, key="seconds"):
    """Gives every row but the first its ratio to the first, `times_mrcnn`."""
    for row in rows[1:]:
        row["times_mrcnn"] = ratio(row[key]["all"], rows[0][key]["all"])
    return rows


# ------------------------------------------------------------------ tables
def table(header, rows, markdown=False):
    """A table as lines of text; columns of text to the left, those of figures to the right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    if markdown:
        lines = [f"| {' | '.join(row)} |" for row in cells]
        return [lines[0], "|---" * len(header) + "|", *lines[1:]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    text = [all(not row[column][:1].isdigit() for row in cells[1:]) for column in range(len(header))]
    return [
        "  ".join(cell.ljust(w) if left else cell.rjust(w) for cell, w, left in zip(row, widths, text)).rstrip()
        for row in cells
    ]


def number(value):
    """Three digits at least: 622, 1.75, 12,345."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def spread(row, digits=3, unit="s"):
    """Three cells, median, least and most."""
    return [f"{row[key]:.{digits}f} {unit}" for key in ("median", "least", "most")]


def finish(args, figures, lines):
    """Prints the lines, and the machine and the versions; writes the figures where --json says so.

    Ends the program with a message if they cannot be written; a file that was there stays as it was.
    """
    print("\n".join([*lines, "", *describe(figures)]), flush=True)
    if args.json:
        try:
            write_whole(args.json, (json.dumps(figures, indent=2) + "\n").encode())
        except OSError as error:
            sys.exit(f"--json {args.json}: the figures were not written: {error}")


def complete(args, run, report):
    """Measures, prints and writes; ends with the message alone where contenders cannot be compared.

    Args:
        args: parsed arguments.
        run: function of them that returns the figures; a NotComparable where they would say nothing.
        report: function of the figures and of whether Markdown is wanted that returns lines of text.
    """
    try:
        figures = run(args)
    except NotComparable as error:
        sys.exit(str(error))
    finish(args, figures, report(figures, args.markdown))


def measure_processes(parser, arguments, run, report, check=None, peak=False):
    """The whole of a program that measures in processes of their own, once its parser has the arguments it alone has.

    Args:
        parser: argparse.ArgumentParser.
        arguments: list of str, or None for those of the command line.
        run: function of the parsed arguments that returns the figures; a RuntimeError for a process that failed.
        report: function of the figures and of whether Markdown is wanted that returns lines of text.
        check: function of the parser and the parsed arguments that refuses what does not fit together.
        peak: bool, whether this process measures the machine's peak, and imports Keras for it.
    """
    add_arguments(parser, runs=3, peak=peak)
    args = parser.parse_args(arguments)
    if check:
        check(parser, args)
    check_arguments(parser, args, load=peak)
    try:
        figures = run(args)
    except RuntimeError as error:
        sys.exit(str(error))
    finish(args, figures, report(figures, args.markdown))
