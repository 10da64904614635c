"""This package's contenders: a network that detects and one that trains, with random weights.

Such a network finds nothing. To have it find as many instances as asked for, its last layers get weights that give
every region the same class and the same score, and boxes of the size that `BOX_SIDE` says.
"""

import math

import numpy as np
import operations
from common import PROPOSALS
from contenders import BOX_SIDE, LEARNING_RATE, geometric_mean, make_config
from photos import make_photo

from mrcnn.data.loader import DataGenerator
from mrcnn.engine.training import layer_regex
from mrcnn.model import MaskRCNN


# ------------------------------------------------------------------ detection
class Detector:
    """`MaskRCNN.detect`.

    Args:
        network: "small", "resnet50" or "resnet101".
        size: int, side of the molded images.
        batch: int, images per call.
        instances: int, to be found in every image; 0 for none.
        precision: "float32" or "bfloat16".
        masks: the argument of `detect`, "full", "box" or "rle".
    """

    name = "mrcnn"

    def __init__(self, network, size, batch, instances, precision="float32", masks="full"):
        self.instances, self.size, self.masks = instances, size, masks
        self.config = make_config(
            network, size, batch, precision, POST_NMS_ROIS_INFERENCE=PROPOSALS, DETECTION_NMS_THRESHOLD=1.0,
            DETECTION_MAX_INSTANCES=instances or 100, DETECTION_MIN_CONFIDENCE=0 if instances else 1,
        )  # fmt: skip
        self.net = MaskRCNN("inference", self.config, "logs")
        self._force()

    def _force(self):
        model = self.net.keras_model
        rpn_deltas = model.get_layer("rpn_model").get_layer("rpn_bbox_pred")
        classes, deltas = (model.get_layer(name) for name in ("mrcnn_class_logits", "mrcnn_bbox_fc"))
        for layer in (rpn_deltas, classes, deltas):
            layer.set_weights([np.zeros(array.shape, np.float32) for array in layer.get_weights()])
        kernel, bias = classes.get_weights()
        bias[1] = 10  # all regions get class 1, with a score just below 1
        classes.set_weights([kernel, bias])
        if self.instances:
            kernel, bias = deltas.get_weights()
            shift = math.log(BOX_SIDE / self._side_of_proposals()) / np.asarray(self.config.BBOX_STD_DEV)[2:]
            bias.reshape(-1, 4)[:, 2:] = shift
            deltas.set_weights([kernel, bias])

    def _side_of_proposals(self):
        """The geometric mean of the sides of the proposals that become instances, normalized.

        Without deltas they are what is detected; another function of the model would need memory of its own.
        """
        boxes = self.detect([make_photo(self.size, self.size)] * self.config.BATCH_SIZE)[0]
        return geometric_mean(boxes / self.size)

    def detect(self, photos):
        """Boxes [N, 4] of every photo, after a whole public call."""
        return [result["rois"] for result in self.net.detect(photos, masks=self.masks)]

    def gflop(self, photos):
        """GFLOP of a call."""
        anchors = len(self.net.get_anchors(self.config.IMAGE_SHAPE))
        model = self.net.keras_model
        return operations.gflop(operations.detection(model, self.config, anchors, len(photos), self.instances))


def count_detection(network, size, instances):
    """{part: multiply-adds} of a detection with so many instances; see `operations.detection`."""
    config = make_config(network, size, 1, POST_NMS_ROIS_INFERENCE=PROPOSALS, DETECTION_MAX_INSTANCES=max(instances, 1))
    net = MaskRCNN("inference", config, "logs")
    anchors = len(net.get_anchors(config.IMAGE_SHAPE))
    return operations.detection(net.keras_model, config, anchors, instances=instances)


# ------------------------------------------------------------------ training
class Trainer:
    """`keras_model.train_on_batch` of a MaskRCNN, set up as `MaskRCNN.train` does it; `fit` runs the same function.

    Args:
        config: Config.
        dataset: Dataset, prepared; its first images are the batch.
        layers: "heads", "all" or another of `MaskRCNN.train`.
    """

    name = "mrcnn"

    def __init__(self, config, dataset, layers):
        self.net = MaskRCNN("training", config, "logs")
        self.model = self.net.keras_model
        self.net.set_trainable(layer_regex(layers, self.model), verbose=0)
        self.net.compile(LEARNING_RATE, config.LEARNING_MOMENTUM)
        self.model.optimizer.build(self.model.trainable_variables)
        self.batch = DataGenerator(dataset, config, shuffle=False)[0][0]

    def step(self):
        """The loss, after a whole step."""
        return float(self.model.train_on_batch(self.batch, return_dict=True)["loss"])

    def gflop(self):
        """GFLOP of a step."""
        return operations.training_gflop(self.model, [array.shape for array in self.batch])
