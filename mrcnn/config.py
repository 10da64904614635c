"""The settings of a model, its training and its data.

The file is long because a setting's meaning stands beside its default; below them is what checks and prints them.
"""

import copy
import difflib
import inspect
import re
import warnings
from pathlib import Path

import numpy as np

import mrcnn
from mrcnn.data.checks import did_you_mean


class Config:
    """All settings, as class attributes; derive a class and override what differs.

    Making an instance checks the type of every setting and adds three computed ones: `BATCH_SIZE` (images per
    training step), `IMAGE_SHAPE` ([height, width, channels] of a molded image) and `IMAGE_META_SIZE` (length of the
    vector that travels with each image). Building a model checks how the settings fit together (`check_model`).

    Raises:
        ValueError: a setting is of the wrong type.
    """

    # ---- the experiment
    # Name of the task, as in "balloon": letters, digits, "_" and "-". Log folders and checkpoints are called after it,
    # so a model needs one.
    NAME = None
    # Any int seeds initial weights, data order, sampling and augmentation, and the global generators of Python, numpy
    # and Keras when a model is built; None draws anew each time.
    SEED = None

    # ---- batches and epochs
    # Devices to train and detect on (docs/distributed.md), and images per device and step. A batch has IMAGES_PER_GPU *
    # GPU_COUNT images. As a guide, 12 GB of memory take two images of 1024 x 1024; smaller images leave room for more.
    GPU_COUNT = 1
    IMAGES_PER_GPU = 2
    # Training steps (batches) per epoch. A checkpoint is written and validation runs after each epoch, whatever the
    # size of the data set.
    STEPS_PER_EPOCH = 1000
    # Steps whose gradients are averaged into one change of the weights: as of a batch so many times as large, in the
    # memory of a small one. STEPS_PER_EPOCH counts the small steps, and must be a multiple of this. For one device;
    # several share a large batch.
    GRADIENT_ACCUMULATION = 1
    # Validation batches after each epoch, always the same ones. More are steadier and take longer.
    VALIDATION_STEPS = 50
    # Threads that prepare batches while the model trains. With 0 and, as Keras has it, 1 each batch is made when it is
    # asked for: by the training loop, on TensorFlow by a thread of tf.data.
    DATA_WORKERS = 2
    # Batches that may wait, ready, in memory.
    DATA_QUEUE = 8
    # Seconds that a batch may take to make; a training whose data hangs then ends, with the image's name. 0 waits for
    # ever. (A debugger sees the first batch in the main thread if this and DATA_WORKERS are 0.)
    DATA_TIMEOUT = 600.0
    # Mebibytes of memory for images and masks that need not be read and scaled again in the next epoch; 0 keeps none.
    DATA_CACHE = 512

    # ---- backbone and feature pyramid
    # "resnet50", "resnet101", or a callable f(input_image, stage5=True, train_bn=...) that returns the five feature
    # maps C1 to C5, of strides 2, 4, 8, 16 and 32. A plain function in the class body is fine.
    BACKBONE = "resnet101"
    # Only for a callable BACKBONE: f(image_shape) that returns [[height, width], ...] of P2 to P6 in cells.
    COMPUTE_BACKBONE_SHAPE = None
    # Pixels of the image per cell of P2 to P6. The ResNets have these.
    BACKBONE_STRIDES = [4, 8, 16, 32, 64]
    # Channels of every pyramid level.
    TOP_DOWN_PYRAMID_SIZE = 256
    # "float32", or "bfloat16": convolutions and dense layers then compute with numbers of half the size, faster where
    # the hardware has them. Weights, boxes, scores and losses stay float32, and the weights files are the same.
    PRECISION = "float32"
    # Whether XLA compiles the network: True, False, or "auto" for where it is faster: on JAX, and on TensorFlow with a
    # GPU, but not with several. It makes a program for each size of image: a minute of waiting or more on a CPU.
    # On JAX, False is for finding errors: each operation then runs by itself, many times slower, the first call most.
    JIT = "auto"

    # ---- region proposals (first stage)
    # Side of the anchors in pixels, one per level P2 to P6. Fit them to the size of your objects after resizing.
    RPN_ANCHOR_SCALES = (32, 64, 128, 256, 512)
    # Width / height of the anchors at each place: 1 is square, 0.5 upright.
    RPN_ANCHOR_RATIOS = [0.5, 1, 2]
    # Cells from one anchor to the next: 1 puts anchors on every cell, 2 on every second.
    RPN_ANCHOR_STRIDE = 1
    # Channels of the convolution that the two outputs of the RPN share. The original's weights need 512.
    RPN_CHANNELS = 512
    # Anchors kept before non-maximum suppression, best first.
    PRE_NMS_LIMIT = 6000
    # Of two proposals with a higher IoU than this the weaker one is dropped: a higher threshold, more proposals.
    RPN_NMS_THRESHOLD = 0.7
    # Proposals kept after it, per image, in training and in detection.
    POST_NMS_ROIS_TRAINING = 2000
    POST_NMS_ROIS_INFERENCE = 1000
    # Anchors per image that enter the RPN's losses, at most half of them on objects.
    RPN_TRAIN_ANCHORS_PER_IMAGE = 256
    # Box deltas (dy, dx, log dh, log dw) are divided by these, so that the network learns numbers near 1.
    RPN_BBOX_STD_DEV = np.array([0.1, 0.1, 0.2, 0.2])

    # ---- heads (second stage)
    # Classes, the background among them: two kinds of objects make 3.
    NUM_CLASSES = 1
    # False trains the heads on regions that the data loader draws at random, not on the RPN's proposals.
    USE_RPN_ROIS = True
    # Regions per image that train the heads, and the share of them that should lie on objects.
    TRAIN_ROIS_PER_IMAGE = 200
    ROI_POSITIVE_RATIO = 0.33
    # Cells per side to which a region is pooled, for class and box, and for the mask.
    POOL_SIZE = 7
    MASK_POOL_SIZE = 14
    # Height and width of a predicted mask: MASK_POOL_SIZE times 2, 4, 8, ...; each doubling is one more deconvolution.
    MASK_SHAPE = [28, 28]
    # Width of the class and box head's two dense layers.
    FPN_CLASSIF_FC_LAYERS_SIZE = 1024
    # Channels of the mask head's convolutions. The original's weights need 256.
    MASK_CHANNELS = 256
    # As RPN_BBOX_STD_DEV, for the deltas of the second stage.
    BBOX_STD_DEV = np.array([0.1, 0.1, 0.2, 0.2])

    # ---- images
    # How an image becomes IMAGE_SHAPE: "square" scales it to fit and pads with zeros, "pad64" pads both sides to a
    # multiple of 64, "crop" cuts out a random square of IMAGE_MIN_DIM (training only), "none" leaves it as it is. With
    # "pad64" and "none" a model trains only if every image comes out as IMAGE_SHAPE.
    IMAGE_RESIZE_MODE = "square"
    # Pixels: the shorter side is enlarged to MIN (None or 0: never), the longer side limited to MAX, which wins. The
    # side of the molded image, MAX for "square" and MIN for "crop", must be a multiple of 64, as must pad64's MIN. MAX
    # may be None but for "square", as no other mode uses it.
    IMAGE_MIN_DIM = 800
    IMAGE_MAX_DIM = 1024
    # Images are enlarged by at least this factor, whatever IMAGE_MIN_DIM says; 0 asks for nothing.
    IMAGE_MIN_SCALE = 0
    # Channels of an image: 3 for RGB, 1 for grey. MEAN_PIXEL needs as many values.
    IMAGE_CHANNEL_COUNT = 3
    # Mean of each channel over the data, 0 to 255, in RGB order; it is subtracted.
    MEAN_PIXEL = np.array([123.7, 116.8, 103.9])

    # ---- ground truth
    # True trains on images without objects, too: all of such an image is background, for the first stage and the heads.
    # False leaves them out; an image of which no proposal covers an object then trains no region, as in the original.
    USE_EMPTY_IMAGES = False
    # Objects of one image that are used in training; of more, a random choice.
    MAX_GT_INSTANCES = 100
    # True stores masks cut to their boxes at MINI_MASK_SHAPE (height, width), which saves much memory at high
    # resolution and costs a little detail.
    USE_MINI_MASK = True
    MINI_MASK_SHAPE = (56, 56)

    # ---- detections
    # Objects returned per image, best first.
    DETECTION_MAX_INSTANCES = 100
    # Least score of a detection, 0 to 1; 0 or None keeps all, as AP over a data set wants it.
    DETECTION_MIN_CONFIDENCE = 0.7
    # Of two detections of one class with a higher IoU than this only the better one is kept.
    DETECTION_NMS_THRESHOLD = 0.3

    # ---- optimiser
    # Rate and momentum of SGD. The paper's 0.02 is for larger batches; here it tends to diverge.
    LEARNING_RATE = 0.001
    LEARNING_MOMENTUM = 0.9
    # L2 penalty: the mean square of each trained array, times this, joins the loss; normalisation layers do not count.
    WEIGHT_DECAY = 0.0001
    # Factors of the five losses in the total; 0 turns one off.
    LOSS_WEIGHTS = {
        "rpn_class_loss": 1.0,
        "rpn_bbox_loss": 1.0,
        "mrcnn_class_loss": 1.0,
        "mrcnn_bbox_loss": 1.0,
        "mrcnn_mask_loss": 1.0,
    }
    # Batch normalisation: False keeps the loaded statistics (right for small batches), None trains statistics in
    # training and uses them in detection, True uses the batch's wherever the layer is trainable, in detection too.
    TRAIN_BN = False
    # Largest norm of all gradients together; a larger one is scaled down to it. 0 or None turns clipping off.
    GRADIENT_CLIP_NORM = 5.0

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        # A function in a class body would become a method and receive the config as its first argument.
        for name in ("BACKBONE", "COMPUTE_BACKBONE_SHAPE"):
            value = vars(cls).get(name)
            if inspect.isroutine(value) and not isinstance(value, (staticmethod, classmethod)):
                setattr(cls, name, staticmethod(value))

    def __init__(self):
        self._check_types()
        self._warn_of_typos()
        self.BATCH_SIZE = self.IMAGES_PER_GPU * self.GPU_COUNT
        self.IMAGE_SHAPE = self._image_shape()
        self.IMAGE_META_SIZE = self._meta_size()

    def to_dict(self):
        """All settings, computed ones and the user's own among them, as a dict from name to value (copies)."""
        values = {name: getattr(self, name) for name in dir(self) if not name.startswith("_")}
        return {
            name: copy.copy(value) if isinstance(value, (list, dict, np.ndarray)) else value
            for name, value in values.items()
            if name in SETTINGS or not callable(value)
        }

    def display(self):
        """Prints every setting, an estimate of the memory needed, and which copy of the package is in use."""
        print("\nConfiguration:")
        for name, value in self.to_dict().items():
            print(f"{name:30} {getattr(value, '__name__', value) if callable(value) else value}")
        training, detection = (f"{gigabytes:.1f} GB" for gigabytes in self.estimate_memory())
        print(f"{'memory (estimate)':30} training {training}, detection {detection}")
        print(f"{'mrcnn':30} {mrcnn.__version__} from {Path(mrcnn.__file__).parent}\n")

    def estimate_memory(self):
        """The memory that a batch needs, roughly: a figure to choose `IMAGES_PER_GPU` by, not a promise.

        Counted are the weights (float32; four times in training, for gradients, momentum and workspace) and, in
        PRECISION, the trunk's activations per pixel of the image (all of them in training, a few layers at a time in
        detection), and the pooled regions with what the heads make of them. A callable BACKBONE counts as a ResNet-50.

        Returns:
            (training, detection): float, gigabytes for one device.
        """
        weights, activations = (64e6, 1150) if self.BACKBONE == "resnet101" else (45e6, 850)
        height, width, _ = (int(side) for side in self.IMAGE_SHAPE)
        pooled = self.POOL_SIZE**2 * self.TOP_DOWN_PYRAMID_SIZE + 3 * self.FPN_CLASSIF_FC_LAYERS_SIZE
        mask = 8 * self.MASK_POOL_SIZE**2 * self.MASK_CHANNELS
        mask += int(np.prod(self.MASK_SHAPE)) * (2 * self.MASK_CHANNELS + self.NUM_CLASSES)
        training = height * width * activations + self.TRAIN_ROIS_PER_IMAGE * (pooled + mask)
        detection = height * width * activations / 5 + self.POST_NMS_ROIS_INFERENCE * pooled
        detection += self.DETECTION_MAX_INSTANCES * mask / 2
        images = self.IMAGES_PER_GPU / (2 if self.PRECISION == "bfloat16" else 1)
        return 4e-9 * (4 * weights + images * training), 4e-9 * (weights + images * detection)

    def check_model(self):
        """Checks that the settings make sense together; called when a model is built.

        Raises:
            ValueError: naming the setting, its value and the remedy.
        """
        self._check_types()
        self._check_ranges()
        self._check_images()
        self._check_network()

    # ---- the checks

    def _fail(self, name, remedy):
        raise ValueError(f"{type(self).__name__}.{name} = {getattr(self, name)!r}: {remedy}")

    def _check_choice(self, name, choices, otherwise=""):
        if (value := getattr(self, name)) not in choices:
            self._fail(name, f"must be one of {choices}{otherwise}.{did_you_mean(value, filter(_is_text, choices))}")

    def _image_shape(self):
        largest = self.IMAGE_MAX_DIM or self.IMAGE_MIN_DIM or Config.IMAGE_MAX_DIM
        side = self.IMAGE_MIN_DIM if self.IMAGE_RESIZE_MODE == "crop" else largest
        return np.array([side, side, self.IMAGE_CHANNEL_COUNT])

    def _meta_size(self):
        """Image id, original shape, molded shape, window, scale, and a flag per class."""
        return 1 + 3 + 3 + 4 + 1 + self.NUM_CLASSES

    def _check_types(self):
        for name in SETTINGS:
            fits, wanted = _EXPECTED[name]
            if not fits(getattr(self, name)):
                self._fail(name, f"must be {wanted}.")

    def _warn_of_typos(self):
        own = {name for cls in type(self).__mro__ if issubclass(cls, Config) for name in vars(cls)} - set(vars(Config))
        for name in sorted(name for name in own if name.isupper()):
            setting = f"{type(self).__name__}.{name}"
            if name in COMPUTED:
                warnings.warn(f"{setting} has no effect: it is computed from {COMPUTED[name]}.", stacklevel=3)
            elif close := difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0.8):
                warnings.warn(f"{setting} is no setting of mrcnn. Did you mean {close[0]}?", stacklevel=3)

    def _check_ranges(self):
        for name in SETTINGS:
            value = getattr(self, name)
            if not _is_number(value) or name == "SEED":
                continue
            may_be_zero = name in _MAY_BE_ZERO or isinstance(getattr(Config, name), float)
            if value < 0 or (value == 0 and not may_be_zero):
                self._fail(name, f"must be {'0 or more' if may_be_zero else 'greater than 0'}.")
            if name in _SHARES and value > 1:
                self._fail(name, "must lie between 0 and 1.")
        if int(self.TRAIN_ROIS_PER_IMAGE * self.ROI_POSITIVE_RATIO) < 1:
            rois = f"of TRAIN_ROIS_PER_IMAGE = {self.TRAIN_ROIS_PER_IMAGE} regions"
            self._fail("ROI_POSITIVE_RATIO", f"this share {rois} is less than one, but the heads learn from positive "
                       "regions. Raise one of the two.")
        if self.STEPS_PER_EPOCH % self.GRADIENT_ACCUMULATION:
            self._fail("GRADIENT_ACCUMULATION", f"must divide STEPS_PER_EPOCH = {self.STEPS_PER_EPOCH}: of steps left "
                       "over at the end nothing would be learned.")
        for name in self.LOSS_WEIGHTS:
            if name not in Config.LOSS_WEIGHTS:
                self._fail("LOSS_WEIGHTS", f"{name!r} is no loss.{did_you_mean(name, Config.LOSS_WEIGHTS)}")
        # Resuming reads epoch and folder back from a checkpoint's path, which has the name in it.
        if self.NAME is None or not re.fullmatch(r"[\w-]+", self.NAME):
            self._fail("NAME", 'must be a text of letters, digits, "_" and "-", as in NAME = "balloon".')

    def _check_images(self):
        mode = self.IMAGE_RESIZE_MODE
        self._check_choice("IMAGE_RESIZE_MODE", RESIZE_MODES)
        name = {"square": "IMAGE_MAX_DIM", "crop": "IMAGE_MIN_DIM", "pad64": "IMAGE_MIN_DIM"}.get(mode)
        side = getattr(self, name) if name else 64
        if not side or side % 64:
            lower = 64 * max(1, (side or 0) // 64)
            needed = f'the mode "{mode}" needs a multiple of 64, because the pyramid halves the image six times.'
            self._fail(name, f"{needed} Use {lower} or {lower + 64}.")
        if len(self.MEAN_PIXEL) != self.IMAGE_CHANNEL_COUNT:
            self._fail("MEAN_PIXEL", f"must have IMAGE_CHANNEL_COUNT = {self.IMAGE_CHANNEL_COUNT} values.")
        if self.USE_MINI_MASK and self.MINI_MASK_SHAPE is None:
            self._fail("MINI_MASK_SHAPE", "must be (height, width), or set USE_MINI_MASK = False.")
        # The other two modes have no fixed shape; there a user may set IMAGE_SHAPE by hand, to train on one size.
        fresh_values = {"IMAGE_SHAPE": self._image_shape()} if mode in ("square", "crop") else {}
        for computed, fresh in (fresh_values | {"IMAGE_META_SIZE": self._meta_size()}).items():
            if not np.array_equal(getattr(self, computed), fresh):
                misfit = f"does not fit {COMPUTED[computed]}, which would give {fresh}."
                self._fail(computed, f"{misfit} Set these in the class, not after the config was made.")

    def _check_network(self):
        self._check_choice("PRECISION", PRECISIONS)
        self._check_choice("JIT", JIT_CHOICES)
        if isinstance(self.BACKBONE, str):
            self._check_choice("BACKBONE", BACKBONES, " or a callable")
            if list(self.BACKBONE_STRIDES) != Config.BACKBONE_STRIDES:
                self._fail("BACKBONE_STRIDES", f"{self.BACKBONE} has the strides {Config.BACKBONE_STRIDES}.")
        elif self.COMPUTE_BACKBONE_SHAPE is None:
            self._fail("COMPUTE_BACKBONE_SHAPE", "a callable BACKBONE needs a function of the image's shape that "
                       "returns [[height, width], ...] of the five levels P2 to P6.")
        for name in ("BACKBONE_STRIDES", "RPN_ANCHOR_SCALES"):
            if len(getattr(self, name)) != 5:
                self._fail(name, "must have five values, one for each level P2 to P6.")
        for name in ("RPN_BBOX_STD_DEV", "BBOX_STD_DEV"):
            if len(getattr(self, name)) != 4:
                self._fail(name, "must have four values: dy, dx, log(dh), log(dw).")
        for name in _POSITIVE_LISTS:
            if getattr(self, name) is not None and min(getattr(self, name), default=0) <= 0:
                self._fail(name, "must hold values greater than 0.")
        shapes = [[self.MASK_POOL_SIZE * 2**n] * 2 for n in range(1, 8)]
        if list(self.MASK_SHAPE) not in shapes:
            self._fail("MASK_SHAPE", f"must be MASK_POOL_SIZE = {self.MASK_POOL_SIZE} doubled once or more: "
                       f"{shapes[0]}, {shapes[1]}, ...")


# ---- what the checks know

RESIZE_MODES = ("square", "pad64", "crop", "none")
BACKBONES = ("resnet50", "resnet101")
PRECISIONS = ("float32", "bfloat16")
JIT_CHOICES = ("auto", True, False)
SETTINGS = tuple(name for name in vars(Config) if name.isupper())
# Settings that are made from others, and which.
COMPUTED = {
    "BATCH_SIZE": "IMAGES_PER_GPU and GPU_COUNT",
    "IMAGE_SHAPE": "IMAGE_RESIZE_MODE, IMAGE_MIN_DIM, IMAGE_MAX_DIM and IMAGE_CHANNEL_COUNT",
    "IMAGE_META_SIZE": "NUM_CLASSES",
}
_MAY_BE_ZERO = ("DATA_CACHE", "DATA_WORKERS", "IMAGE_MIN_DIM", "IMAGE_MIN_SCALE")
_SHARES = ("RPN_NMS_THRESHOLD", "ROI_POSITIVE_RATIO", "DETECTION_MIN_CONFIDENCE", "DETECTION_NMS_THRESHOLD")
_POSITIVE_LISTS = (
    "BACKBONE_STRIDES", "RPN_ANCHOR_SCALES", "RPN_ANCHOR_RATIOS", "MINI_MASK_SHAPE", "RPN_BBOX_STD_DEV", "BBOX_STD_DEV",
)  # fmt: skip


def _is_int(value):
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_number(value):
    return _is_int(value) or (isinstance(value, (float, np.floating)) and bool(np.isfinite(value)))


def _is_bool(value):
    return isinstance(value, (bool, np.bool_))


def _is_text(value):
    return isinstance(value, str)


def _is_list_of(fits, length=None):
    def check(value):
        is_list = isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim == 1)
        return is_list and all(map(fits, value)) and length in (None, len(value))

    return check


def _or_none(fits):
    return lambda value: value is None or fits(value)


def _expected(default):
    """Test and description for a setting whose type is that of its default."""
    kinds = (
        (_is_bool, "True or False"),
        (_is_int, "a whole number (an int; divide with //)"),
        (_is_number, "a finite number"),
        (_is_list_of(_is_number), "a list of finite numbers"),
        (_is_text, "a text"),
    )
    return next(((fits, wanted) for fits, wanted in kinds if fits(default)), (None, None))


def _is_loss_weights(value):
    return isinstance(value, dict) and all(_is_number(weight) and weight >= 0 for weight in value.values())


_PAIR = "two whole numbers, (height, width)"
_EXPECTED = {name: _expected(getattr(Config, name)) for name in SETTINGS} | {
    "NAME": (_or_none(_is_text), "a text"),
    "SEED": (_or_none(lambda value: _is_int(value) and 0 <= value < 2**32), "None or an int from 0 to 2**32 - 1"),
    "BACKBONE": (lambda value: _is_text(value) or callable(value), "a text or a callable"),
    "COMPUTE_BACKBONE_SHAPE": (_or_none(callable), "None or a callable"),
    "BACKBONE_STRIDES": (_is_list_of(_is_int), "a list of whole numbers"),
    "MASK_SHAPE": (_is_list_of(_is_int, 2), _PAIR),
    "MINI_MASK_SHAPE": (_or_none(_is_list_of(_is_int, 2)), _PAIR),
    **dict.fromkeys(("IMAGE_MIN_DIM", "IMAGE_MAX_DIM"), (_or_none(_is_int), "None or a whole number")),
    "IMAGE_MIN_SCALE": (_or_none(_is_number), "None or a number"),
    "DETECTION_MIN_CONFIDENCE": (_or_none(_is_number), "None or a number"),
    "GRADIENT_CLIP_NORM": (_or_none(_is_number), "None or a number"),
    "TRAIN_BN": (_or_none(_is_bool), "None, False or True"),
    "JIT": (lambda value: _is_text(value) or _is_bool(value), '"auto", True or False'),
    "LOSS_WEIGHTS": (_is_loss_weights, "a dict from the names of losses to numbers of 0 or more"),
}
