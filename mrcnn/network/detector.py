"""The inference model reduced to what a detection needs: fewer passes over memory, and no work without a use."""

from __future__ import annotations

import keras
from keras import layers, ops

from mrcnn.network import kernels
from mrcnn.network.compiled import compiled
from mrcnn.network.layers import ROIConv2D

_FOLDED = (layers.Conv2D, layers.Dense)  # their kernels end with the axis that batch normalization scales


class Detector:
    """Detections and their masks, computed by one compiled function with the weights of an inference model.

    - Batch normalization is folded into the convolution before it, at each call, so that weights may change.
    - The mask head sees the detections that exist (JAX, whose shapes are fixed: all rows), and its last layer makes the
      mask of the detected class alone.
    - What only a look into the model needs is left out.

    Args:
        model: what `build_inference_model` returned.

    Args (call):
        images: [batch, H, W, channels] float32, molded.
        image_metas: [batch, 12 + classes] float32.
        anchors: [batch, anchors, (y1, x1, y2, x2)] float32, normalized.

    Returns:
        detections [batch, max_instances, (y1, x1, y2, x2, class_id, score)] float32, normalized, zero padded; and masks
        [batch, N, height, width] float32, probabilities of the detected class. N is at least the number of detections.
    """

    def __init__(self, model):
        self._model, self._instead = model, {}
        for normalization, layer in foldable(model).items():
            self._instead[layer] = _with_normalization(layer, normalization)
            self._instead[normalization] = lambda x: x
        self._run = compiled(self._forward, model)

    def __call__(self, images, image_metas, anchors):
        return self._run(images, image_metas, anchors)

    def _forward(self, images, image_metas, anchors):
        found = {}

        def boxes(detections):
            found["rows"] = detections if kernels.FIXED_SHAPES else detections[:, :_most(detections)]
            return found["rows"][..., :4]

        def masks(features):
            return _class_masks(mask_layer, features, ops.cast(found["rows"][..., 4], "int32"))

        mask_layer = self._model.get_layer("mrcnn_mask")
        instead = self._instead | {self._model.get_layer("detected_boxes"): boxes, mask_layer: masks}
        outputs = self._model.run_layers([images, image_metas, anchors], training=False, instead=instead)
        return outputs[0], outputs[3]


def _most(detections):
    """The largest number of detections in an image of the batch, and 1 if there are none."""
    counts = ops.sum(ops.cast(detections[..., 4] > 0, "int32"), axis=1)
    return ops.maximum(ops.max(counts), 1)


def _class_masks(layer, features, class_ids):
    """What a convolution of 1 x 1 with sigmoid makes of [batch, N, h, w, c], for one class of each row: [..., h, w]."""
    shape = ops.shape(features)
    pixels = ops.reshape(ops.cast(features, "float32"), (shape[0], shape[1], -1, features.shape[-1]))
    kernel = ops.take(ops.transpose(layer.kernel[0, 0]), class_ids, axis=0)
    logits = ops.matmul(pixels, kernel[..., None])[..., 0] + ops.take(layer.bias, class_ids)[..., None]
    return ops.reshape(ops.sigmoid(logits), (shape[0], shape[1], *features.shape[2:4]))


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
    return type(layer) in (*_FOLDED, ROIConv2D) and layer.activation is keras.activations.linear


def _with_normalization(layer, normalization):
    """The layer as a function that normalizes, too: a * (x * kernel + bias) + b = x * (a * kernel) + (a * bias + b)."""

    def run(x):
        def value(variable, default):
            return ops.convert_to_tensor(default if variable is None else variable, dtype="float32")

        scale = value(normalization.gamma, 1.0) * ops.rsqrt(normalization.moving_variance + normalization.epsilon)
        bias = 0.0 if layer.bias is None else layer.bias
        shift = (bias - normalization.moving_mean) * scale + value(normalization.beta, 0.0)
        weights = [(layer.kernel, layer.kernel * scale)]
        if layer.bias is not None:
            weights.append((layer.bias, shift))
        with keras.StatelessScope(state_mapping=weights):
            result = layer(x)
        return result if layer.bias is not None else result + ops.cast(shift, result.dtype)

    return run
