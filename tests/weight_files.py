"""Small models with the original's layer names, and files as Keras 2 wrote them; shared by the tests of weights."""

import zlib

import h5py
import keras
import numpy as np
from keras import layers


def small_model(classes=4, mode="inference", blocks="a", width=4):
    """Every kind of layer that the real network has, a few hundred numbers each."""
    image = keras.Input((16, 16, 3), name="input_image")
    x = layers.Conv2D(width, 3, padding="same", name="conv1")(image)
    x = layers.Activation("relu")(layers.BatchNormalization(name="bn_conv1")(x))
    for block in blocks:
        y = layers.BatchNormalization(name=f"bn2{block}_branch2a")(
            layers.Conv2D(width, 1, name=f"res2{block}_branch2a")(x))
        x = layers.Add(name=f"res2{block}_out")([y, x])
    x = layers.Dropout(0.5, seed=1)(x)         # brings the state of a random generator
    x = layers.Conv2D(width, 1, name="fpn_c5p5")(x)
    p5 = layers.Conv2D(width, 3, padding="same", name="fpn_p5")(x)
    p2 = layers.Conv2D(width, 3, padding="same", name="fpn_p2")(x)
    maps = keras.Input((None, None, width))
    shared = layers.Conv2D(6, 3, name="rpn_conv_shared")(maps)
    rpn = keras.Model(maps, [layers.Conv2D(2, 1, name="rpn_class_raw")(shared),
                             layers.Conv2D(3, 1, name="rpn_bbox_pred")(shared)], name="rpn_model")
    rpn_class, rpn_bbox = rpn(p2)
    pooled = layers.GlobalAveragePooling2D(name="pool_squeeze")(layers.Add()([p5, p2]))
    # Made in another order than saved: the original's order must not hang on this one.
    mask = layers.Conv2D(width, 3, padding="same", name="mrcnn_mask_conv1")(p2)
    mask = layers.BatchNormalization(name="mrcnn_mask_bn1")(mask)
    mask = layers.Conv2DTranspose(width, 2, name="mrcnn_mask_deconv")(mask)
    mask = layers.Conv2D(classes, 1, name="mrcnn_mask")(mask)
    box = layers.Dense(8, name="mrcnn_class_conv1")(pooled)
    box = layers.BatchNormalization(name="mrcnn_class_bn1")(box)
    bbox = layers.Reshape((classes, 4), name="mrcnn_bbox")(layers.Dense(4 * classes, name="mrcnn_bbox_fc")(box))
    logits = layers.Dense(classes, name="mrcnn_class_logits")(box)
    outputs = [logits, bbox, mask, rpn_class, rpn_bbox]
    if mode == "training":
        outputs.append(layers.Identity(name="rpn_class_loss")(logits))
    return keras.Model(image, outputs, name="mask_rcnn")


def variables(model):
    """{layer/weight: array} of all variables, those of nested models too."""
    found = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found |= variables(layer)
        else:
            found |= {f"{layer.name}/{v.name}": np.array(keras.ops.convert_to_numpy(v)) for v in layer.weights}
    return found


def seeded(name, shape):
    """An array that depends on name and shape alone."""
    return np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape).astype("float32")


def content(model, value=seeded):
    """{layer: {weight name: array}} as the original's Keras would save this model, nested models as one layer."""
    found = {}
    for layer in model.layers:
        parts = layer.layers if isinstance(layer, keras.Model) else [layer]
        found[layer.name] = {f"{part.name}/{v.name}:0": value(f"{part.name}/{v.name}", tuple(v.shape))
                             for part in parts for v in part.weights}
    return found


def expected(saved):
    """{layer/weight: array} out of `content`."""
    return {name.removesuffix(":0"): array for arrays in saved.values() for name, array in arrays.items()}


def write_keras2(path, saved, names="bytes", wrapped=False, chunks=1, userblock=0):
    """Writes a file as Keras 2 did, without the code under test."""

    def attribute(group, name, values):
        values = [value.encode() for value in values] if names == "bytes" else values
        kind = h5py.string_dtype() if names == "str" else None
        if chunks == 1:
            group.attrs[name] = np.array(values, dtype=kind) if values else np.zeros(0)
        else:
            for i, part in enumerate(np.array_split(np.array(values, dtype=kind), chunks)):
                group.attrs[f"{name}{i}"] = part

    with h5py.File(path, "w", userblock_size=userblock) as file:
        root = file.create_group("model_weights") if wrapped else file
        attribute(root, "layer_names", list(saved))
        for layer, arrays in saved.items():
            group = root.create_group(layer)
            attribute(group, "weight_names", list(arrays))
            for name, array in arrays.items():
                group.create_dataset(name, data=array)
    return path


def same(left, right):
    """True if two dicts of arrays are equal bit by bit."""
    return left.keys() == right.keys() and all(np.array_equal(left[key], right[key]) for key in left)
