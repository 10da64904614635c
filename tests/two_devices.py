"""A program of its own, because devices are chosen once: the same work on one device and on two, compared.

    python tests/two_devices.py FOLDER

prints JSON with what both came to.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import tiny
from scripts import load_script

from mrcnn.data import loader
from mrcnn.model import MaskRCNN
from mrcnn.parallel_model import ParallelModel, divide_cpu, found_devices

ROOT = Path(__file__).resolve().parents[1]
TRAIN, VALIDATION = tiny.Squares(20), tiny.Squares(7, start=20)
IMAGES = 4


def config(devices, **settings):
    return tiny.config(GPU_COUNT=devices, IMAGES_PER_GPU=IMAGES // devices, **settings)


def train(devices, folder):
    """Losses and weights of two steps and a validation whose second batch has three images."""
    model = MaskRCNN("training", config(devices, VALIDATION_STEPS=2, TRAIN_BN=None), folder / f"train{devices}")
    model.train(TRAIN, VALIDATION, 0.001, 1, "all")
    log = (Path(model.log_dir) / "log.csv").read_text().split()
    losses = dict(zip(log[0].split(","), map(float, log[1].split(",")), strict=True))
    losses.pop("data_wait")
    weights = {name: w.tolist() for name, w in tiny.weights_of(model.keras_model).items() if "seed" not in name}
    return {"losses": [losses], "weights": weights}


def on_batch(devices, folder):
    """Losses that `train_on_batch` and `test_on_batch` report; of random ROIs, too."""
    model = MaskRCNN("training", config(devices, USE_RPN_ROIS=False), folder)
    model.compile(0.001, 0.9)
    stream = loader.TrainingStream(TRAIN, model.config, random_rois=model.config.POST_NMS_ROIS_TRAINING)
    logs = [model.keras_model.train_on_batch(stream[k][0], return_dict=True) for k in range(2)]
    logs.append(model.keras_model.test_on_batch(stream[2][0], return_dict=True))
    return {"losses": [{name: float(value) for name, value in log.items()} for log in logs]}


def detect(devices, folder):
    """What `detect`, `evaluate` and `run_graph` find with the weights of the Shapes sample."""
    shapes = load_script(ROOT / "samples" / "shapes", "shapes")
    settings = {"GPU_COUNT": devices, "IMAGES_PER_GPU": 2 // devices, "DETECTION_MIN_CONFIDENCE": 0}
    model = MaskRCNN("inference", type("Config", (shapes.CONFIGS["small"],), settings)(), folder)
    model.load_weights(ROOT / "samples" / "shapes" / "mask_rcnn_shapes.h5", by_name=True)
    dataset = shapes.ShapesDataset()
    dataset.load_shapes(9, 128, 128, seed=3)
    dataset.prepare()
    images = [dataset.load_image(k) for k in range(5)]
    found, scores = model.detect(images), model.evaluate(dataset, verbose=0)
    looked_at = model.run_graph(images[:1], ["rpn_class"])
    return {
        "rois": [result["rois"].tolist() for result in found],
        "scores": [result["scores"].tolist() for result in found],
        "pixels": [int(result["masks"].sum()) for result in found],
        "AP": [scores[kind]["AP"] for kind in ("bbox", "segm")],
        "rpn_class": float(looked_at["rpn_class"][..., 1].sum()),
    }


def keras_model(devices):
    """Weights of a model with Keras' own loss, a metric object, and an optimizer that was compiled with twice."""
    keras.utils.set_random_seed(5)
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="tanh"), keras.layers.Dense(1)])
    inner.predict(np.zeros((2, 4)), verbose=0)  # used before it is wrapped
    model = ParallelModel(inner, devices) if devices > 1 else inner
    optimizer, metric = keras.optimizers.Adam(0.01, global_clipnorm=0.1), keras.metrics.MeanAbsoluteError(name="mae")
    for _ in range(2):
        model.compile(optimizer, "mse", metrics=[metric])
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    history = model.fit(x, x[:, :1] * 3, batch_size=8, epochs=2, verbose=0, shuffle=False).history
    return {"losses": [{name: values[-1] for name, values in history.items()}],
            "weights": {str(k): w.tolist() for k, w in enumerate(inner.get_weights())},
            "predicted": inner.predict(x, verbose=0).tolist()}  # fmt: skip


def errors(folder):
    """The messages of what cannot work."""
    model = ParallelModel(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), 2)
    model.compile("sgd", "mse")
    calls = {
        "three devices": lambda: MaskRCNN("training", tiny.config(GPU_COUNT=3), folder),
        "accumulation": lambda: MaskRCNN("training", tiny.config(GPU_COUNT=2, GRADIENT_ACCUMULATION=2), folder),
        "uneven batch": lambda: model.train_on_batch(np.zeros((3, 2)), np.zeros((3, 1))),
        "uneven last batch": lambda: model.fit(np.zeros((5, 2)), np.zeros((5, 1)), batch_size=2, verbose=0),
        "too late": lambda: divide_cpu(3),
    }
    rows = np.arange(10.0).reshape(5, 2)
    apart = np.abs(model.predict(rows, batch_size=2, verbose=0) - rows @ model.get_weights()[0]).max()
    messages = {"uneven prediction": float(apart)}  # no error: rows fill it up
    for name, call in calls.items():
        try:
            call()
        except (ValueError, RuntimeError) as error:
            messages[name] = f"{type(error).__name__}: {error}"
    return messages


def collectives():
    """The kinds of messages between devices in a step of training that JAX compiled."""
    import re

    import jax

    model = MaskRCNN("training", config(2), "unused")
    model.compile(0.001, 0.9)
    parallel, batch = model.keras_model, loader.TrainingStream(TRAIN, model.config)[0][0]
    parallel.train_on_batch(batch)
    with parallel.scope():
        state = parallel._get_jax_state(
            trainable_variables=True, non_trainable_variables=True, optimizer_variables=True, metrics_variables=True
        )
        text = jax.jit(parallel.train_step).lower(state, (parallel._devices.split(tuple(batch)),)).compile().as_text()
    return sorted(set(re.findall(r"\b(all-[a-z]+|collective-[a-z]+|reduce-scatter)(?:-start)?\(", text)))


def main(folder):
    folder = Path(folder)
    divide_cpu(2)
    results = {"devices": found_devices()}
    for work in (train, on_batch, detect):
        results[work.__name__] = {count: work(count, folder) for count in (1, 2)}
    results["keras_model"] = {count: keras_model(count) for count in (1, 2)}
    results["errors"] = errors(folder)
    if keras.backend.backend() == "jax":
        results["collectives"] = collectives()
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1])
