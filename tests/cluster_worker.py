"""A process of a cluster, or one alone, that trains and evaluates the tiny network.

    python tests/cluster_worker.py MODEL_DIR IMAGES_EACH STEPS EPOCHS SEED [SECONDS_PER_STEP]

goes on with the last checkpoint in MODEL_DIR if there is one, and prints JSON with what it came to.
"""

import json
import sys
import time
from pathlib import Path

import keras
import numpy as np
import tiny

from mrcnn.model import MaskRCNN


class Slow(keras.callbacks.Callback):
    """Takes its time after each step."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def on_train_batch_end(self, batch, logs=None):
        time.sleep(self.seconds)


def main(model_dir, images_each, steps, epochs, seed, seconds="0"):
    settings = {"IMAGES_PER_GPU": int(images_each), "STEPS_PER_EPOCH": int(steps), "VALIDATION_STEPS": 2}
    model = MaskRCNN("training", tiny.config(SEED=None if seed == "none" else int(seed), **settings), model_dir)
    if list(Path(model_dir).glob("*/mask_rcnn_*.h5")):
        model.load_weights(model.find_last(), by_name=True)
    model.train(tiny.Squares(20), tiny.Squares(7, start=20), 0.001, int(epochs), "all",
                custom_callbacks=[Slow(float(seconds))])  # fmt: skip
    weights = tiny.weights_of(model.keras_model)
    inference = MaskRCNN("inference", tiny.config(**settings), model_dir)
    inference.load_weights(model.find_last(), by_name=True)
    scores = inference.evaluate(tiny.Squares(9, start=40), verbose=1)
    print(json.dumps({
        "epoch": model.epoch,
        "log_dir": model.log_dir,
        "weights": float(sum(np.abs(w).sum() for w in weights.values())),
        "scores": {kind: scores[kind]["AP"] for kind in ("bbox", "segm")},
        "images": scores["images"],
        "detections": scores["detections"],
    }), flush=True)  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
