"""Functions of tensors, compiled on each backend, to be called with arrays and without what surrounds `predict`."""

from __future__ import annotations

import collections

import keras
import numpy as np

from mrcnn.network.kernels import BACKEND, for_xla

if BACKEND == "tensorflow":
    import tensorflow as tf
elif BACKEND == "jax":
    import jax
elif BACKEND == "torch":
    import torch

_SHAPES = 16  # programs of XLA that are kept; it needs one for each shape
_FIXED, _OFTEN = 4, 5  # TensorFlow's graphs of one shape, and the calls after which making one is worth its time


def compiled(function, model, jit):
    """Compiles a function of tensors that runs layers of a model; weights assigned later count at the next call.

    TensorFlow makes a graph for the shapes of the first call, which are all there are as long as images are molded to
    one size, one for each of a few others that come often, and one for the rest, which is slower; XLA, which JAX is,
    one program for each shape; torch runs step by step.

    Args:
        function: of float tensors; it returns a tuple of tensors.
        model: keras.Model whose variables the function reads.
        jit: bool, whether XLA compiles it.

    Returns:
        A function of float32 arrays that returns a tuple of arrays; not to be called by several threads at once.
    """
    if BACKEND == "tensorflow":
        return _XLAGraphs(function) if jit else _Graphs(function)
    return _Programs(function, model, jit) if BACKEND == "jax" else _Steps(function)


class _Graphs:
    """TensorFlow: a graph of fixed shapes, whose fusions need them, and one in which the sides that vary are open."""

    def __init__(self, function):
        self._function, self._fixed, self._calls = function, {}, collections.Counter()
        self._open = self._signature = None

    def __call__(self, *arrays):
        graph = self._graph_for(tuple(np.shape(array) for array in arrays))
        return tuple(result.numpy() for result in graph(*map(tf.convert_to_tensor, arrays)))

    def _graph_for(self, shapes):
        if shapes in self._fixed:
            return self._fixed[shapes]
        self._calls[shapes] += 1
        if not self._fixed or (self._calls[shapes] > _OFTEN and len(self._fixed) < _FIXED):
            self._fixed[shapes] = self._graph(shapes)
            return self._fixed[shapes]
        known = self._signature or next(iter(self._fixed))
        needed = [tuple(a if a == b else None for a, b in zip(*pair, strict=True)) for pair in zip(known, shapes)]
        if needed != self._signature:
            self._signature, self._open = needed, self._graph(needed)
        return self._open

    def _graph(self, shapes):
        signature = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
        return tf.function(self._function, input_signature=signature, autograph=False)


class _XLAGraphs:
    """TensorFlow: graphs that XLA compiles, one for each shape."""

    def __init__(self, function):
        self._function, self._graphs = function, {}

    def __call__(self, *arrays):
        shapes = tuple(np.shape(array) for array in arrays)
        if shapes not in self._graphs:
            for old in list(self._graphs)[: 1 - _SHAPES]:
                del self._graphs[old]
            self._graphs[shapes] = tf.function(self._traced, jit_compile=True, autograph=False)
        return tuple(result.numpy() for result in self._graphs[shapes](*map(tf.convert_to_tensor, arrays)))

    def _traced(self, *tensors):
        with for_xla():
            return self._function(*tensors)


class _Programs:
    """JAX: the weights are arguments, so that they are neither copied into the program nor frozen."""

    def __init__(self, function, model, jit):
        self._variables, self._shapes, self._jit = model.variables, set(), jit

        def run(weights, *tensors):
            with keras.StatelessScope(state_mapping=list(zip(self._variables, weights, strict=True))):
                return function(*tensors)

        self._run = jax.jit(run) if jit else run

    def __call__(self, *arrays):
        self._shapes.add(tuple(np.shape(array) for array in arrays))
        if self._jit and len(self._shapes) > _SHAPES:
            self._run.clear_cache()
            self._shapes.clear()
        results = self._run([variable.value for variable in self._variables], *arrays)
        return tuple(map(np.asarray, results))


class _Steps:
    """torch: nothing is compiled, and nothing kept for gradients."""

    def __init__(self, function):
        self._function = function

    def __call__(self, *arrays):
        with torch.no_grad():
            results = self._function(*map(keras.ops.convert_to_tensor, arrays))
        return tuple(map(keras.ops.convert_to_numpy, results))
