"""Times single convolutions of 3 x 3, as the plain sum and with fewer multiplications, as detection has them.

    python benchmarks/convolutions.py
    python benchmarks/convolutions.py --backend torch --maps pyramid masks --precision float32 bfloat16

Both take turns, and have to come to the same result. Detection chooses for each convolution, from its size and its
channels; the column "detection" says what.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # a checkout runs without being installed

import common

MAPS = {  # batch, side, channels, filters, with a ResNet-50 at 1024 pixels
    "pyramid": (1, 256, 256, 256), "proposals": (1, 128, 256, 512), "stage4": (1, 64, 256, 256),
    "stage5": (1, 32, 512, 512), "stage3": (1, 128, 128, 128), "stage2": (1, 256, 64, 64),
    "masks": (100, 14, 256, 256),
}  # fmt: skip
DIFFERENT = {"float32": 1e-5, "bfloat16": 0.01}  # at most, of the largest number


def make(shape, precision):
    """One convolution in both ways, {name: function}, and whether detection would take the second."""
    from keras import layers, ops

    from mrcnn.network import winograd
    from mrcnn.network.compiled import compiled
    from mrcnn.network.layers import precision as computing_in

    batch, side, channels, filters = shape
    with computing_in(precision):
        layer = layers.Conv2D(filters, 3, padding="same", use_bias=False)
    layer.build((batch, side, side, channels))
    image = np.random.default_rng(0).normal(size=(batch, side, side, channels)).astype("float32")
    dtype = layer.compute_dtype

    def plain(x):
        return (shown(layer(x)),)

    def shorter(x):
        with winograd.preferred():
            return (shown(winograd.convolve(ops.cast(x, dtype), ops.cast(layer.kernel, dtype))),)

    def shown(result):  # what leaves the program would take time, too
        return ops.cast(result[:, ::13, ::13], "float32")

    ways = {name: compiled(way, layer, jit=False) for name, way in (("plain", plain), ("shorter", shorter))}
    with winograd.preferred():
        chosen = winograd.pays(ops.cast(ops.zeros(image.shape), dtype), layer.kernel)
    return {name: lambda way=way: way(image)[0] for name, way in ways.items()}, chosen


def run(args):
    """All figures, as `--json` writes them.

    Raises:
        common.NotComparable: both ways come to different results.
    """
    rows = []
    for precision in args.precision:
        for name in args.maps:
            ways, chosen = make(MAPS[name], precision)
            results = {way: function() for way, function in ways.items()}
            error = np.abs(results["plain"] - results["shorter"]).max() / np.abs(results["plain"]).max()
            if not error <= DIFFERENT[precision]:
                raise common.NotComparable(f"{name}, {precision}: the results differ by {error:.1e} of the largest")
            seconds = common.take_turns(ways, args.runs)
            rows.append({
                "map": name, "shape": MAPS[name], "precision": precision, "chosen": bool(chosen),
                "seconds": common.summary(seconds["shorter"]), "plain_seconds": common.summary(seconds["plain"]),
                "times": common.ratio(seconds["plain"], seconds["shorter"]), "difference": float(error),
            })  # fmt: skip
    given = {"backend": args.backend, "runs": args.runs}
    versions = common.versions(["keras", "numpy", args.backend])
    return {"input": given, "machine": common.machine(), "versions": versions, "cases": rows}


def report(figures, markdown=False):
    """The figures as lines of text."""
    header = ["of", "map", "channels", "precision", "plain", "least", "most", "shorter", "least", "most", "times",
              "detection"]  # fmt: skip
    rows = []
    for row in figures["cases"]:
        batch, side, channels, filters = row["shape"]
        cells = [f"{1e3 * row[key][which]:.1f} ms" for key in ("plain_seconds", "seconds")
                 for which in ("median", "least", "most")]  # fmt: skip
        rows.append([row["map"], f"{batch} x {side} x {side}", f"{channels} to {filters}", row["precision"], *cells,
                     f"{row['times']:.2f}", "shorter" if row["chosen"] else "plain"])  # fmt: skip
    given = figures["input"]
    return [f"convolutions of 3 x 3 on {given['backend']}, {given['runs']} runs", "",
            *common.table(header, rows, markdown)]  # fmt: skip


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Time convolutions of 3 x 3 in two ways.")
    parser.add_argument("--maps", choices=MAPS, nargs="+", default=list(MAPS), help="(default: all)")
    common.add_arguments(parser, runs=15, peer=False, peak=False)
    args = parser.parse_args(arguments)
    common.check_arguments(parser, args)
    if args.backend == "jax":
        parser.error("--backend jax: XLA compiles all convolutions, none is computed with fewer multiplications")
    common.complete(args, run, report)


if __name__ == "__main__":
    main()
