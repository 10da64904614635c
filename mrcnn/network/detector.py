"""The inference model reduced to what a detection needs."""

from __future__ import annotations

from keras import ops

from mrcnn.network import kernels, winograd
from mrcnn.network.compiled import compiled
from mrcnn.network.folding import folded
from mrcnn.network.rpn import in_strips


class Detector:
    """Detections and their masks, computed by one compiled function with the weights of an inference model.

    - Batch normalization is folded into the layer before it, and the RPN looks at some rows at a time.
    - Convolutions of 3 x 3 take fewer multiplications where that is faster, see `winograd`.
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
        self._model = model
        self._run = compiled(self._forward, model, model.jit_compile)

    def __call__(self, images, image_metas, anchors):
        return self._run(images, image_metas, anchors)

    def _forward(self, images, image_metas, anchors):
        found = {}

        def boxes(detections):
            found["rows"] = detections if kernels.fixed_shapes() else detections[:, :_most(detections)]
            return found["rows"][..., :4]

        def masks(features):
            return _class_masks(mask_layer, features, ops.cast(found["rows"][..., 4], "int32"))

        def rpn(feature_map):  # one level after the other, for less memory
            found["level"] = in_strips(rpn_model, feature_map, after=found.get("level", [None])[0])
            return found["level"]

        mask_layer = self._model.get_layer("mrcnn_mask")
        rpn_model = self._model.get_layer("rpn_model")
        instead = {**folded(self._model), rpn_model: rpn,
                   self._model.get_layer("detected_boxes"): boxes, mask_layer: masks}  # fmt: skip
        with winograd.preferred():
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
