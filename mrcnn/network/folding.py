"""Batch normalization with fixed statistics as a part of the layer before it: one pass over memory instead of two."""

from __future__ import annotations

import math

import keras
from keras import layers, ops

from mrcnn.network import kernels
from mrcnn.network.layers import Conv2D, ROIConv2D

_LARGEST = 1_000_000  # numbers; a scaled copy of a larger kernel takes more memory than folding is worth
_FOLDED = (layers.Conv2D, layers.Dense, Conv2D, ROIConv2D)  # their kernels end with the axis that normalization scales


def folded(model):
    """What takes the place of layers for normalization to need no pass of its own.

    The kernel is scaled where the layer runs, at every call, so that weights may change; large ones are not. It is
    for detection: in training the last digits, which differ, may decide which of two equal proposals stays.

    Args:
        model: functional keras.Model.

    Returns:
        dict, layer -> function of its input.
    """
    instead = {}
    for normalization, layer in foldable(model).items():
        if math.prod(layer.kernel.shape) > _LARGEST:
            continue
        instead[layer] = _with_normalization(layer, normalization)
        instead[normalization] = _nothing
    return instead


def _nothing(x):
    return x


def foldable(model):
    """The batch normalizations that can be folded, and the layer before each.

    The layer must be linear, used once, and be seen by nothing but a normalization with fixed statistics.

    Args:
        model: functional keras.Model.

    Returns:
        dict, BatchNormalization -> Conv2D or Dense.
    """
    nodes = [node for nodes in model._nodes_by_depth.values() for node in nodes]
    uses = {}
    for tensor in [*(tensor for node in nodes for tensor in node.input_tensors), *model.outputs]:
        uses[id(tensor)] = uses.get(id(tensor), 0) + 1
    runs = {}
    for node in nodes:
        runs.setdefault(node.operation, []).append(node)
    found = {}
    for normalization, (node, *more) in runs.items():
        if not isinstance(normalization, layers.BatchNormalization) or more:
            continue
        source = node.input_tensors[0]
        layer = source._keras_history.operation
        alone = uses[id(source)] == 1 and len(runs.get(layer, ())) == 1
        phase = [*node.arguments.args[1:], node.arguments.kwargs.get("training")]
        fixed = not any(phase) and normalization.axis in (-1, len(source.shape) - 1)
        if alone and fixed and _is_linear(layer):
            found[normalization] = layer
    return found


def _is_linear(layer):
    # a subclass may compute anything
    return type(layer) in _FOLDED and layer.activation is keras.activations.linear


def _with_normalization(layer, normalization):
    """The layer as a function that normalizes, too: a * (x * kernel + bias) + b = x * (a * kernel) + (a * bias + b)."""

    def run(x):
        def value(variable, default):
            return ops.convert_to_tensor(default if variable is None else variable, dtype="float32")

        scale = value(normalization.gamma, 1.0) * ops.rsqrt(normalization.moving_variance + normalization.epsilon)
        bias = 0.0 if layer.bias is None else layer.bias
        shift = (bias - normalization.moving_mean) * scale + value(normalization.beta, 0.0)
        # TensorFlow would scale all kernels before the first is needed. Told to wait for the input, those of its own
        # convolutions make its graph optimizer, which fuses these with what follows, end with a cycle.
        with kernels.after(x if isinstance(layer, Conv2D) and layer.takes_fewer(x) else None):
            kernel = layer.kernel * scale
        weights = [(layer.kernel, kernel)]
        if layer.bias is not None:
            weights.append((layer.bias, shift))
        with keras.StatelessScope(state_mapping=weights):
            result = layer(x)
        return result if layer.bias is not None else result + ops.cast(shift, result.dtype)

    return run
