"""Weights that depend on nothing but their names and shapes: the original's golden models were filled with them."""

import re
import zlib

import numpy as np
from keras import ops

# layer name -> gain; a kernel's spread is gain / sqrt(fan in), and gain is that of He where nothing matches
GAINS = {
    r"conv1": 1.4142135 / 48,  # raw pixels spread by about 50
    r"fpn_c[2-5]p[2-5]|fpn_p[2-5]": 1.0,
    r"rpn_class_raw": 1.2,
    r"rpn_bbox_pred|mrcnn_bbox_fc": 0.9,
    r"mrcnn_class_logits": 2.6,
    r"mrcnn_mask": 3.0,
}
HE_GAIN = 1.4142135


def value(layer, weight, shape):
    """The float32 array that belongs to the weight `weight` ("kernel", "gamma", ...) of a layer."""
    rng = np.random.RandomState(zlib.crc32(f"{layer}/{weight}".encode()))
    match weight:
        case "kernel":
            return kernel(rng, layer, shape)
        case "gamma":  # the last normalization of a residual branch keeps the branch small
            center = 0.2 if re.fullmatch(r"bn\d\w_branch2c", layer) else 1.0
            values = center * (1 + 0.1 * rng.uniform(-1, 1, shape))
        case "beta" | "moving_mean":
            values = 0.1 * rng.uniform(-1, 1, shape)
        case "moving_variance":
            values = rng.uniform(0.8, 1.2, shape)
        case "bias":
            values = 0.05 * rng.standard_normal(shape)
        case _:
            raise ValueError(f"no rule for {layer}/{weight}")
    return values.astype("float32")


def kernel(rng, layer, shape):
    values = rng.standard_normal(shape)
    transposed = "deconv" in layer
    if not transposed and np.prod(shape[:-1]) >= 64:
        values = values - values.mean(axis=tuple(range(len(shape) - 1)), keepdims=True)
    fan_in = shape[-1] if transposed else np.prod(shape[:-1])
    gain = next((g for name, g in GAINS.items() if re.fullmatch(name, layer)), HE_GAIN)
    return (values * (gain / float(np.sqrt(fan_in)))).astype("float32")


def weights(model):
    """{(layer name, weight name): variable} of a model and of the models in it."""
    found = {}
    for layer in model.layers:
        if hasattr(layer, "layers"):
            found |= weights(layer)
        else:
            found |= {(layer.name, w.name): w for w in layer.weights if "seed_generator" not in w.path}
    return found


def fill(model):
    """Gives every weight of a model its seeded value."""
    for (layer, weight), variable in weights(model).items():
        variable.assign(value(layer, weight, tuple(variable.shape)))


def snapshot(model):
    """{(layer name, weight name): array} as float64."""
    return {key: np.array(ops.convert_to_numpy(w), "float64") for key, w in weights(model).items()}
