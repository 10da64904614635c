"""Convolutions of 3 x 3 with a quarter of the multiplications: Winograd's F(4 x 4, 3 x 3) (Lavin and Gray 2015).

For each square of 4 x 4 pixels that come out, 6 x 6 pixels go in. Both these and the kernel are transformed into 36
numbers, which are multiplied one by one, and the products are transformed into 16 pixels: 36 multiplications where the
plain sum takes 9 * 16 = 144. With channels, each of the 36 is a matrix product of [squares, channels] and [channels,
filters]. The transforms add work that does not grow with channels * filters, so that it pays for many of both.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math

import numpy as np
from keras import backend, ops

from mrcnn.network import kernels

_OUT, _KERNEL = 4, 3
_IN = _OUT + _KERNEL - 1
_POINTS = (0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)  # and infinity; the usual 1 and 2 round three times as badly
_TILES = 512  # squares of an image that are computed at once: more need more memory, and are not faster
_CHANNELS, _PRODUCTS = 128, 2**25  # from which on it is faster; products are pixels * channels * filters
_TRANSFORMED = contextvars.ContextVar("transformed", default=None)  # kernels, while this way is preferred


@contextlib.contextmanager
def preferred():
    """Has convolutions that are traced inside computed this way where it is faster: on a CPU, if XLA compiles nothing.

    It is for detection: in training the last digits, which differ, may decide which of two equal proposals stays.
    """
    token = _TRANSFORMED.set(None if kernels.fixed_shapes() or kernels.has_gpu() else {})
    try:
        yield
    finally:
        _TRANSFORMED.reset(token)


def is_preferred():
    """Whether this is inside of `preferred`, on a machine where it may be faster."""
    return _TRANSFORMED.get() is not None


def pays(x, kernel):
    """Whether a convolution without strides is to be computed this way.

    A quarter of the products in float32 is faster than all in bfloat16, unless the CPU has units for these.

    Args:
        x: [batch, H, W, channels] float.
        kernel: [height, width, channels, filters] float tensor or variable.
    """
    if not is_preferred() or None in x.shape[1:] or tuple(kernel.shape[:2]) != (_KERNEL, _KERNEL):
        return False
    slower = {"float32"} if kernels.multiplies_tiles() else {"float32", "bfloat16"}
    if backend.standardize_dtype(x.dtype) not in slower or min(kernel.shape[2:]) < _CHANNELS:
        return False
    return math.prod((*x.shape[1:], kernel.shape[3])) >= _PRODUCTS


def convolve(x, kernel):
    """A convolution of 3 x 3 without strides, padded to keep its size, some rows after the other.

    Args:
        x: [batch, H, W, channels] float32 or bfloat16; H and W are known.
        kernel: [3, 3, channels, filters] tensor or variable, dtype of `x`.

    Returns:
        [batch, H, W, filters], dtype of `x`. What is computed is float32 in either case, and differs from the exact sum
        by about 2e-6 of the largest.
    """
    batch, height, width, _ = x.shape
    across = -(-width // _OUT)
    rows = _OUT * max(1, _TILES // (across * (batch or 1)))
    transformed, strips = _transformed(kernel, x), []
    for top in range(0, height, rows):
        down = -(-min(rows, height - top) // _OUT)
        # Squares overlap by two pixels: the first begins one before its output, and a square of 4 follows the last.
        first, last = max(top - 1, 0), min(top + _OUT * (down + 1) - 1, height)
        with kernels.after(strips[-1] if strips else x):
            seen = ops.cast(x[:, first:last], "float32")
        above = first - (top - 1)
        below = _OUT * (down + 1) - above - (last - first)
        beside = 1, _OUT * (across + 1) - 1 - width
        seen = ops.pad(seen, ((0, 0), (above, below), beside, (0, 0)))
        strips.append(ops.cast(_squares(seen, transformed, down, across), x.dtype))
    result = strips[0] if len(strips) == 1 else ops.concatenate(strips, axis=1)
    return result[:, :height, :width]


def _transformed(kernel, x):
    """The kernel as [36, channels, filters], made when `x` is there; once for uses that follow each other."""
    known = _TRANSFORMED.get()
    known = {} if known is None else known
    if id(kernel) not in known:
        known.clear()  # the RPN's is used again and again, others once, and on torch all of them would stay in memory
        channels, filters = kernel.shape[2:]
        with kernels.after(x):
            exact = ops.cast(ops.reshape(kernel, (_KERNEL**2, channels * filters)), "float32")
            product = ops.matmul(_matrices()[1], exact)
        known[id(kernel)] = kernel, ops.reshape(product, (_IN**2, channels, filters))  # kept, so that no id returns
    return known[id(kernel)][1]


def _squares(x, kernel, down, across):
    """Convolves padded rows [batch, 4 * (down + 1), 4 * (across + 1), channels] with a transformed kernel."""
    channels, filters = kernel.shape[1:]
    entering, _, leaving = _matrices()
    x = ops.reshape(x, (-1, down + 1, _OUT, across + 1, _OUT, channels))
    x = ops.transpose(x, (2, 4, 0, 1, 3, 5))  # the places in a square come first, then the squares
    more = _IN - _OUT  # rows and columns of a square that lie in the next one
    parts = [x[:, :, :, :-1, :-1], x[:, :more, :, :-1, 1:], x[:more, :, :, 1:, :-1], x[:more, :more, :, 1:, 1:]]
    seen = ops.concatenate([ops.reshape(part, (math.prod(part.shape[:2]), -1)) for part in parts], axis=0)
    values = ops.reshape(ops.matmul(entering, seen), (_IN**2, -1, channels))
    products = ops.reshape(ops.matmul(values, kernel), (_IN**2, -1))
    found = ops.reshape(ops.matmul(leaving, products), (_OUT, _OUT, -1, down, across, filters))
    return ops.reshape(ops.transpose(found, (2, 3, 0, 4, 1, 5)), (-1, down * _OUT, across * _OUT, filters))


@functools.cache
def _matrices():
    """What transforms 36 pixels that go in [36, 36], the kernel [36, 9], and 36 products into 16 pixels [16, 36].

    A product of two polynomials is known from its values at as many points as it has coefficients. Convolving with a
    kernel is the transpose of multiplying with the polynomial whose coefficients it holds.
    """

    def values(coefficients):
        at_infinity = np.eye(coefficients)[-1:]
        return np.concatenate([np.array(_POINTS)[:, None] ** np.arange(coefficients), at_infinity])

    in_one_axis = np.linalg.inv(values(_IN)).T, values(_KERNEL), values(_OUT).T
    entering, of_kernel, leaving = (np.kron(matrix, matrix) for matrix in in_one_axis)
    places, own, next_one = np.arange(_IN**2).reshape(_IN, _IN), slice(_OUT), slice(_OUT, None)
    # `_squares` collects the pixels of the square itself first, then those that lie in the squares beside and below
    collected = np.concatenate([places[i, j].ravel() for i in (own, next_one) for j in (own, next_one)])
    return tuple(matrix.astype("float32") for matrix in (entering[:, collected], of_kernel, leaving))
