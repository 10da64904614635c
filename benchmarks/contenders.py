"""What all contenders are given alike: numbers, settings, data; and the checks of what they return.

It imports no framework, so that the process of one contender does not hold that of another.
"""

import math

import numpy as np
from common import NotComparable, load_sample
from photos import Objects

from mrcnn.config import Config

LEARNING_RATE = 1e-6  # so small that the losses stay finite, whatever the weights
BOX_SIDE = 1 / 8  # of forced instances, the geometric mean of both sides, of the side of the image
CLASSES = 81


def base_of(network):
    """The Config of a network, and the settings that make it this network."""
    if network == "small":
        return load_sample("shapes").SmallShapesConfig, {}
    return Config, {"NUM_CLASSES": CLASSES, "BACKBONE": network}


def make_config(network, size, batch, precision="float32", **settings):
    """A Config for square images."""
    base, own = base_of(network)
    own |= {"NAME": "benchmark", "IMAGES_PER_GPU": batch, "IMAGE_MIN_DIM": size, "IMAGE_MAX_DIM": size,
            "PRECISION": precision, "SEED": 0}  # fmt: skip
    return type("Timed", (base,), own | settings)()


def training_case(network, images, size, batch, precision="float32"):
    """The Config and the data set of a case.

    Args:
        network: see `Detector`.
        images: "objects", or "shapes" for the sample of that name with its own settings.
        size, batch, precision: see `Detector`.
    """
    if images == "objects":
        config = make_config(network, size, batch, precision)
        return config, Objects(batch, size, config.NUM_CLASSES - 1)
    shapes = load_sample("shapes")
    own = {"IMAGES_PER_GPU": batch, "IMAGE_MIN_DIM": size, "IMAGE_MAX_DIM": size, "PRECISION": precision, "SEED": 0}
    base = shapes.SmallShapesConfig if network == "small" else shapes.ShapesConfig
    own |= {} if network == "small" else {"BACKBONE": network}
    return type("Timed", (base,), own)(), shapes.make_dataset(batch, seed=0, side=size)


# ------------------------------------------------------------------ what is checked
def geometric_mean(boxes):
    """Of the sides of boxes [N, (y1, x1, y2, x2)] that have an area."""
    boxes = np.asarray(boxes, np.float64)
    sides = boxes[:, 2:] - boxes[:, :2]
    return float(np.exp(np.log(sides[(sides > 0).all(axis=1)]).mean()))


def check_found(name, boxes, instances):
    """Raises a NotComparable unless every photo has so many boxes."""
    found = [len(rows) for rows in boxes]
    if any(count != instances for count in found):
        raise NotComparable(f"{name} was to find {instances} instances in each photo, but found "
                            f"{', '.join(map(str, found))}: its times would not be comparable")


def check_loss(name, loss):
    """Raises a NotComparable unless the loss is finite."""
    if not math.isfinite(loss):
        raise NotComparable(f"the loss of {name} is {loss}: its times would not be comparable")
