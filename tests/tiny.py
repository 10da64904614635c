"""A Mask R-CNN that builds in half a second and trains a step in milliseconds, and data for it."""

import keras
import numpy as np
from keras import layers

from mrcnn.config import Config
from mrcnn.utils import Dataset


def backbone(input_image, stage5=True, train_bn=None):
    """Five stages with a convolution and a normalisation each, named as the original's."""
    outputs, x = [], input_image
    for stage, channels in enumerate((4, 8, 8, 16, 16), start=1):
        conv, norm = ("conv1", "bn_conv1") if stage == 1 else (f"res{stage}a_branch2a", f"bn{stage}a_branch2a")
        x = layers.Conv2D(channels, 3, strides=2, padding="same", name=conv)(x)
        x = layers.BatchNormalization(name=norm)(x, training=train_bn)
        x = layers.Activation("relu")(x)
        outputs.append(x)
    return outputs


def backbone_shape(image_shape):
    return [[-(-side // stride) for side in image_shape[:2]] for stride in (4, 8, 16, 32, 64)]


class TinyConfig(Config):
    """64 pixels, three classes, two images per batch, two steps per epoch."""

    NAME = "tiny"
    SEED = 7
    BACKBONE = backbone
    COMPUTE_BACKBONE_SHAPE = backbone_shape
    NUM_CLASSES = 1 + 3
    IMAGES_PER_GPU = 2
    IMAGE_MIN_DIM = 64
    IMAGE_MAX_DIM = 64
    STEPS_PER_EPOCH = 2
    VALIDATION_STEPS = 1
    DATA_WORKERS = 2
    TOP_DOWN_PYRAMID_SIZE = 8
    RPN_CHANNELS = 8
    RPN_ANCHOR_SCALES = (8, 16, 24, 32, 48)
    RPN_TRAIN_ANCHORS_PER_IMAGE = 32
    POST_NMS_ROIS_TRAINING = 32
    POST_NMS_ROIS_INFERENCE = 16
    TRAIN_ROIS_PER_IMAGE = 8
    FPN_CLASSIF_FC_LAYERS_SIZE = 16
    MASK_CHANNELS = 8
    MINI_MASK_SHAPE = (16, 16)
    MAX_GT_INSTANCES = 4
    DETECTION_MAX_INSTANCES = 6
    DETECTION_MIN_CONFIDENCE = 0


def config(**settings):
    """A TinyConfig with other settings."""
    return type("Tiny", (TinyConfig,), settings)()


class Squares(Dataset):
    """Bright squares on a dark ground; each image has two, and knows them by its number."""

    def __init__(self, count, size=64, start=0):
        super().__init__()
        for class_id, name in enumerate(("small", "medium", "large"), start=1):
            self.add_class("squares", class_id, name)
        for number in range(start, start + count):
            self.add_image("squares", number, path=f"squares/{number}.png", size=size)
        self.prepare()

    def boxes(self, image_id):
        size = self.image_info[image_id]["size"]
        draw = np.random.default_rng(self.image_info[image_id]["id"])
        class_ids = draw.integers(1, 4, 2)
        sides = class_ids * size // 8
        corners = draw.integers(0, size // 2, (2, 2))
        return class_ids.astype(np.int32), np.concatenate([corners, corners + sides[:, None]], axis=1)

    def load_image(self, image_id):
        size = self.image_info[image_id]["size"]
        image = np.full((size, size, 3), 40, np.uint8)
        for class_id, (y1, x1, y2, x2) in zip(*self.boxes(image_id), strict=True):
            image[y1:y2, x1:x2] = 90 + 50 * class_id
        return image

    def load_mask(self, image_id):
        size = self.image_info[image_id]["size"]
        class_ids, boxes = self.boxes(image_id)
        masks = np.zeros((size, size, 2), bool)
        for n, (y1, x1, y2, x2) in enumerate(boxes):
            masks[y1:y2, x1:x2, n] = True
        return masks, class_ids


def photo(height, width, seed=0):
    """A uint8 image of noise in blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]


def weights_of(model):
    """{path: array} of a keras.Model."""
    return {variable.path: np.array(keras.ops.convert_to_numpy(variable)) for variable in model.weights}


def draw_statistics(model, seed=0):
    """Gives every batch normalization statistics and an affine part that matter."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            for variable in layer.weights:
                variable.assign(rng.uniform(0.5, 1.5, variable.shape))
