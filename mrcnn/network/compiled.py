"""Functions of tensors, compiled on each backend, to be called with arrays and without what surrounds `predict`."""

from __future__ import annotations

import keras
import numpy as np

from mrcnn.network.kernels import BACKEND

if BACKEND == "tensorflow":
    import tensorflow as tf
elif BACKEND == "jax":
    import jax
elif BACKEND == "torch":
    import torch

_SHAPES = 16  # compiled programs that are kept on JAX, which needs one for each shape


def compiled(function, model):
    """Compiles a function of tensors that runs layers of a model; weights assigned later count at the next call.

    TensorFlow makes one graph for the shapes of the first call, which are all there are as long as images are molded
    to one size, and one for all others; JAX one program for each shape; torch runs step by step.

    Args:
        function: of float tensors; it returns a tuple of tensors.
        model: keras.Model whose variables the function reads.

    Returns:
        A function of float32 arrays that returns a tuple of arrays; not to be called by several threads at once.
    """
    return {"tensorflow": _Graphs, "jax": _Programs, "torch": _Steps}[BACKEND](function, model)


class _Graphs:
    """TensorFlow: a graph of fixed shapes, whose fusions need them, and one in which the sides that vary are open."""

    def __init__(self, function, model):
        self._function = function
        self._fixed = self._open = self._first = self._signature = None

    def __call__(self, *arrays):
        shapes = [np.shape(array) for array in arrays]
        if self._first is None:
            self._first, self._fixed = shapes, self._graph(shapes)
        return tuple(result.numpy() for result in self._graph_for(shapes)(*map(tf.convert_to_tensor, arrays)))

    def _graph_for(self, shapes):
        if shapes == self._first:
            return self._fixed
        known = self._signature or self._first
        needed = [tuple(a if a == b else None for a, b in zip(*pair, strict=True)) for pair in zip(known, shapes)]
        if needed != self._signature:
            self._signature, self._open = needed, self._graph(needed)
        return self._open

    def _graph(self, shapes):
        signature = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
        return tf.function(self._function, input_signature=signature, autograph=False)


class _Programs:
    """JAX: the weights are arguments, so that they are neither copied into the program nor frozen."""

    def __init__(self, function, model):
        self._variables, self._shapes = model.variables, set()

        def run(weights, *tensors):
            with keras.StatelessScope(state_mapping=list(zip(self._variables, weights, strict=True))):
                return function(*tensors)

        self._run = jax.jit(run)

    def __call__(self, *arrays):
        self._shapes.add(tuple(np.shape(array) for array in arrays))
        if len(self._shapes) > _SHAPES:
            self._run.clear_cache()
            self._shapes.clear()
        results = self._run([variable.value for variable in self._variables], *arrays)
        return tuple(map(np.asarray, results))


class _Steps:
    """torch: nothing is compiled, and nothing kept for gradients."""

    def __init__(self, function, model):
        self._function = function

    def __call__(self, *arrays):
        with torch.no_grad():
            results = self._function(*map(keras.ops.convert_to_tensor, arrays))
        return tuple(map(keras.ops.convert_to_numpy, results))
