"""The machine's peak: how fast a framework multiplies large matrices, which bounds what a network can reach.

On an NVIDIA GPU float32 stands for what the frameworks take by default or are set to here, TF32.
"""

import statistics
import time

import numpy as np
from common import PRECISIONS

LEAST_SECONDS = 0.05  # of one measurement: on a fast device it holds many products


def products_tensorflow(size, precision):
    import tensorflow as tf

    a, b = (tf.cast(matrix, precision) for matrix in matrices(size))
    product = tf.function(tf.linalg.matmul)

    def run(count):
        for _ in range(count):
            result = product(a, b)
        tf.cast(result[0, 0], "float32").numpy()  # waits

    return run


def products_jax(size, precision):
    import jax
    import jax.numpy as jnp

    a, b = (jnp.asarray(matrix, precision) for matrix in matrices(size))
    product = jax.jit(jnp.matmul)

    def run(count):
        for _ in range(count):
            result = product(a, b)
        result.block_until_ready()

    return run


def products_torch(size, precision):
    import torch

    device = torch_device()
    a, b = (torch.tensor(matrix, device=device, dtype=getattr(torch, precision)) for matrix in matrices(size))

    def run(count):
        with torch.inference_mode():
            for _ in range(count):
                torch.mm(a, b)
            wait_for_torch()

    return run


PRODUCTS = {"tensorflow": products_tensorflow, "jax": products_jax, "torch": products_torch}


def torch_device():
    """ "cuda" if there is such a device; its float32 products then run as those of the other frameworks do."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    return "cuda"


def wait_for_torch():
    """Waits until a GPU has done what it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def matrices(size):
    return np.random.default_rng(0).random((2, size, size), np.float32)


class Peak:
    """Peaks of some frameworks in some precisions, measured several times in a run.

    Args:
        frameworks: list of "tensorflow", "jax", "torch".
        precisions: list of "float32", "bfloat16".
        size: int, side of the matrices.
        runs: int, measurements of each per call of `measure`.
    """

    def __init__(self, frameworks, precisions=PRECISIONS, size=4096, runs=5):
        self.frameworks, self.precisions = list(dict.fromkeys(frameworks)), list(dict.fromkeys(precisions))
        self.size, self.runs = size, runs
        self.rates = {(name, precision): [] for name in self.frameworks for precision in self.precisions}

    def measure(self):
        """Measures all, in addition to what was measured before."""
        for (framework, precision), rates in self.rates.items():
            run = PRODUCTS[framework](self.size, precision)
            run(1)
            started = time.perf_counter()
            run(1)
            count = max(1, round(LEAST_SECONDS / (time.perf_counter() - started)))
            for _ in range(self.runs):
                started = time.perf_counter()
                run(count)
                rates.append(count * 2e-9 * self.size**3 / (time.perf_counter() - started))

    def figures(self):
        """{framework: {precision: GFLOP/s, the median of all measurements}}, and the size."""
        medians = {name: {p: statistics.median(self.rates[name, p]) for p in self.precisions}
                   for name in self.frameworks}  # fmt: skip
        return {"size": self.size, "measurements": len(next(iter(self.rates.values()))), "gflops": medians}


def best(figures, precision):
    """The best peak in this precision of all frameworks of the run, GFLOP/s."""
    return max(rates[precision] for rates in figures["gflops"].values())


def share(figures, gflop, seconds, precision):
    """The share of the best peak in this precision that was reached."""
    return gflop / seconds / best(figures, precision)


def describe_peak(figures):
    """A line of text."""
    rates = (f"{name} {', '.join(f'{precision} {rate:,.0f}' for precision, rate in rates.items())}"
             for name, rates in figures["gflops"].items())  # fmt: skip
    return f"peak in GFLOP/s, products of {figures['size']} x {figures['size']}: {'; '.join(rates)}"
