"""Class MaskRCNN: one object that builds, loads, trains and detects.

The file is long for its docstrings: this class is what users read. Its methods are short and call the files beside it.
"""

from __future__ import annotations

import datetime
import functools
import os
import threading

import keras
import numpy as np

from mrcnn.data import loader
from mrcnn.data.checks import did_you_mean
from mrcnn.data.files import is_no_room
from mrcnn.distribution import processes
from mrcnn.distribution.devices import check_devices
from mrcnn.distribution.parallel import ParallelModel, inner
from mrcnn.engine import callbacks, evaluation, inference, training, weights
from mrcnn.engine.inspect import Inspector, log
from mrcnn.geometry.boxes import norm_boxes
from mrcnn.network.assemble import MaskRCNNModel, build_model, config_anchors
from mrcnn.network.detector import Detector
from mrcnn.network.seeding import set_random_seed

MODES = ("training", "inference")
_CACHED_SHAPES = 16  # anchors of more image shapes than these are made anew


class MaskRCNN:
    """A Mask R-CNN model (He et al. 2017) for training or for detection.

    Where the environment describes a cluster, the process joins it (docs/distributed.md): then a batch of training has
    `BATCH_SIZE` images of each process, the first process writes the files, and `evaluate` shares the images out.

    Args:
        mode: "training" or "inference".
        config: an instance of a class derived from Config.
        model_dir: folder of the training runs; each makes a folder `{name}{YYYYMMDD}T{HHMM}` in it.

    Attributes:
        mode, config, model_dir: as given.
        keras_model: the keras.Model; its layers have the original's names. On several devices it is a `ParallelModel`
            with the model itself in `inner_model`.
        epoch: epochs done.
        log_dir: folder of this run; it is made by the first `train`.
        checkpoint_path: path of the weights files, with `{epoch:04d}`.

    Raises:
        ValueError: unknown mode, settings that are impossible, or more devices than there are.
        ConnectionError: the other processes of the cluster did not come.
    """

    def __init__(self, mode, config, model_dir):
        if mode not in MODES:
            raise ValueError(f"mode must be one of {MODES}; received {mode!r}.{did_you_mean(mode, MODES)}")
        if isinstance(config, type):
            raise ValueError(f"config must be an instance; received the class {config.__name__}: {config.__name__}()")
        if not hasattr(config, "check_model"):
            raise ValueError(f"config must be an instance of a class derived from Config; received {config!r}")
        weights.check_path(model_dir, "model_dir", may_be_empty=True)  # "" is where the program runs
        config.check_model()
        processes.join()
        check_devices(config.GPU_COUNT)
        self.mode, self.config = mode, config
        self.model_dir = os.fspath(model_dir)
        self.set_log_dir()
        self.keras_model = self.build(mode, config)
        self._anchor_cache = {}
        self._anchor_shape = tuple(config.IMAGE_SHAPE)
        self._inspector = Inspector(inner(self.keras_model))
        self._running = threading.Lock()
        self._resume_from = self._detector_of = None
        self._sizes = {name: getattr(config, name) for name in training.MEMORY_SETTINGS}

    def build(self, mode, config):
        """Builds the Keras model; called by the constructor.

        Returns:
            keras.Model named `mask_rcnn`; a `ParallelModel` where several devices or processes share the work.
        """
        if config.SEED is not None:
            set_random_seed(config.SEED)
        model = weights.speak_layout(build_model(mode, config))
        across_processes = mode == "training" and processes.count() > 1
        if config.GPU_COUNT > 1 or across_processes:
            if mode == "training" and config.GRADIENT_ACCUMULATION > 1:
                raise ValueError(f"GRADIENT_ACCUMULATION = {config.GRADIENT_ACCUMULATION} is for one device; here "
                                 "several share a batch. Raise IMAGES_PER_GPU instead")
            model = ParallelModel(model, config.GPU_COUNT, across_processes)
        return model

    # ---- weights and folders

    def find_last(self):
        """Finds the last whole checkpoint of the newest run in `model_dir`.

        Returns:
            Path of the weights file.

        Raises:
            FileNotFoundError: there is none.
        """
        return weights.find_last(self.model_dir, self.config.NAME)

    def load_weights(self, filepath, by_name=False, exclude=None, skip_mismatch=False):
        """Loads weights, and goes on with the run that they are a checkpoint of.

        A new run starts instead if the file is a checkpoint of another NAME, or if a part of it was left out.

        Args:
            filepath: of an .h5 file of this package, of the original, or of an ImageNet backbone.
            by_name: match layers by name, not by their order in the file.
            exclude: list of names of layers to leave alone, or "heads" for those that depend on the number of classes.
            skip_mismatch: leave arrays of another shape alone instead of raising an error.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged or does not fit; says what to do.
        """
        weights.check_path(filepath, "filepath")
        report = weights.load_weights(inner(self.keras_model), filepath, by_name, exclude, skip_mismatch)
        reason = weights.why_new_run(filepath, self.config.NAME, report)
        self.set_log_dir(None if reason else filepath)
        self._resume_from = os.fspath(filepath) if self.epoch else None
        if reason and self.mode == "training":
            print(f"A new run starts at epoch 0: {reason}")

    def get_imagenet_weights(self):
        """Downloads the ImageNet weights of the configured backbone, unless Keras has them.

        Returns:
            Path for `load_weights(path, by_name=True)`.

        Raises:
            ValueError: there are none for this backbone.
            ConnectionError: they cannot be fetched.
        """
        return weights.imagenet_weights(self.config.BACKBONE)

    def set_log_dir(self, model_path=None):
        """Names the folder of the run and the number of epochs done, without touching the disk.

        Args:
            model_path: path of a checkpoint, whose run is continued; of anything else, or None, for a new run.
        """
        resumed = weights.parse_checkpoint(model_path) if model_path else None
        started, self.epoch = resumed or (datetime.datetime.now(), 0)
        self._has_folder = resumed is not None
        self._name_run(started)

    def _name_run(self, started):
        name, self._started = self.config.NAME.lower(), started
        self.log_dir = os.path.join(self.model_dir, f"{name}{started:%Y%m%dT%H%M}")
        self.checkpoint_path = os.path.join(self.log_dir, f"mask_rcnn_{name}_{{epoch:04d}}.h5")

    def _make_log_dir(self):
        """Makes the folder of the run; a new run takes the next minute that no other run has."""
        if processes.is_first():
            training.check_writable(self.model_dir)
            while not self._has_folder:
                try:
                    os.mkdir(self.log_dir)
                    self._has_folder = True
                except FileExistsError:
                    self._name_run(self._started + datetime.timedelta(minutes=1))
            os.makedirs(self.log_dir, exist_ok=True)
        self._name_run(processes.from_first(self._started))
        self._has_folder = True

    # ---- training

    def set_trainable(self, layer_regex, keras_model=None, indent=0, verbose=1):
        """Lets the layers train whose whole name fits a regular expression, and freezes the others.

        Args:
            layer_regex: regular expression.
            keras_model: the model to set; this one's by default.
            indent, verbose: blanks before printed lines; 1 prints the layers that train.

        Raises:
            ValueError: `layer_regex` is no regular expression.
        """
        training.set_trainable(keras_model or inner(self.keras_model), layer_regex, indent, verbose)

    def find_trainable_layer(self, layer):
        """The layer that holds the weights: the one inside, for a wrapper such as TimeDistributed."""
        return self.find_trainable_layer(layer.layer) if isinstance(layer, keras.layers.Wrapper) else layer

    def get_trainable_layers(self):
        """All layers of the model that have weights, as a list; `rpn_model` counts as one."""
        return [layer for layer in map(self.find_trainable_layer, inner(self.keras_model).layers) if layer.weights]

    def compile(self, learning_rate, momentum):
        """Prepares the model for training with SGD and the config's clipping; what trains now enters the weight decay.

        Args:
            learning_rate: float, or a Keras LearningRateSchedule.
            momentum: float.

        Raises:
            ValueError: the model is for inference, or the learning rate is impossible.
        """
        self._require("training")
        c = self.config
        optimizer = training.make_optimizer(learning_rate, momentum, c.GRADIENT_CLIP_NORM, c.GRADIENT_ACCUMULATION)
        self.keras_model.compile(optimizer=optimizer)

    def train(self, train_dataset, val_dataset, learning_rate, epochs, layers, augmentation=None, custom_callbacks=None,
              no_augmentation_sources=None):
        """Trains up to a total number of epochs; a resumed run does those that are left.

        Args:
            train_dataset: prepared Dataset.
            val_dataset: prepared Dataset, or None for no validation.
            learning_rate: float, or a Keras LearningRateSchedule.
            epochs: total number of epochs, those already done included.
            layers: "heads", "3+", "4+", "5+" (that stage of the backbone and all above), "all", or a regular expression
                of layer names.
            augmentation: imgaug augmenter, albumentations transform or callable; see the documentation of the data.
            custom_callbacks: list of keras.callbacks.Callback, run after the built-in ones.
            no_augmentation_sources: list of sources whose images are never augmented.

        Raises:
            ValueError: the model is for inference, an argument is misspelt, or the data does not fit.
            FloatingPointError: a loss is not finite; names the loss, the images and the last good checkpoint.
            MemoryError: the device has too little memory.
            ConnectionError: another process of the cluster has gone; names the last checkpoint.
        """
        self._require("training")
        with processes.together(self._newest_checkpoint):
            regex = training.layer_regex(layers, inner(self.keras_model))
            training.check_arguments(learning_rate, epochs, custom_callbacks, no_augmentation_sources)
            if epochs <= self.epoch:
                print(f"Nothing left to do: epochs = {epochs} is the total, and {self.epoch} done already")
                return
            self._check_same(train_dataset, val_dataset, layers=layers, epochs=epochs, epochs_done=self.epoch)
            stream, validation = self._data(train_dataset, val_dataset, augmentation, no_augmentation_sources)
            self._make_log_dir()
            self.set_trainable(regex, verbose=int(processes.is_first()))
            self.compile(learning_rate, self.config.LEARNING_MOMENTUM)
            with training.clear_errors(self._sizes):
                training.build_optimizer(self.keras_model)
            if processes.is_first():
                training.announce(self.keras_model, learning_rate, self.epoch, epochs, self.checkpoint_path)
            if self._resume_from:
                training.restore_optimizer(self.keras_model, callbacks.optimizer_path(self._resume_from))
                self._resume_from = None
            try:
                self._fit(stream, validation, epochs, custom_callbacks)
            finally:
                training.list_problems(stream, validation)
            processes.from_first(None)  # which has written the last checkpoint by then

    def _check_same(self, train_dataset, val_dataset, **arguments):
        """Raises a ValueError if the other processes that train with this one have other settings or data."""
        settings = {name: getattr(self.config, name) for name in dir(self.config) if name.isupper()}
        settings = {name: value for name, value in settings.items() if not callable(value)}
        images = {"training_images": train_dataset, "validation_images": val_dataset}
        numbers = {name: len(getattr(dataset, "image_ids", ())) for name, dataset in images.items()}
        processes.check_same(**settings, **arguments, **numbers)

    def _newest_checkpoint(self):
        path = self.checkpoint_path.format(epoch=self.epoch)
        return path if os.path.exists(path) else None

    def _data(self, train_dataset, val_dataset, augmentation, no_augmentation_sources):
        """The batches to train and to validate on; the first of each is made, so that errors in the data show now."""
        config = self.config
        loader.check_dataset(train_dataset, config, "the training data set")
        rois = 0 if config.USE_RPN_ROIS else config.POST_NMS_ROIS_TRAINING
        seed = processes.from_first(np.random.randint(2**31)) if config.SEED is None else config.SEED
        sharing = {"share": (processes.index(), processes.count()), "seed": seed}
        stream = loader.TrainingStream(
            train_dataset, config, augmentation=augmentation, random_rois=rois,
            no_augmentation_sources=no_augmentation_sources, start=self.epoch * config.STEPS_PER_EPOCH, **sharing,
        )  # fmt: skip
        stream.check_first_batch()
        if val_dataset is None:
            return stream, None
        loader.check_dataset(val_dataset, config, "the validation data set")
        fill = isinstance(self.keras_model, ParallelModel)
        validation = loader.ValidationData(val_dataset, config, random_rois=rois, fill=fill, **sharing)
        validation.check_first_batch()
        return stream, validation

    def _fit(self, stream, validation, epochs, custom_callbacks):
        config, steps = self.config, self.config.STEPS_PER_EPOCH
        checkpoint = callbacks.Checkpoint(self.checkpoint_path, self.epoch, writes=processes.is_first())
        built_in = [
            callbacks.EpochStart(lambda epoch: training.seed_draws(self.keras_model, config.SEED, epoch)),
            callbacks.DataWait(lambda epoch, step: stream.ready_at.get(epoch * steps + step)),
            callbacks.NonFiniteGuard(lambda epoch, step: stream.image_ids(epoch * steps + step), checkpoint),
        ]
        try:
            log_files = callbacks.log_files(self.log_dir, writes=processes.is_first())
            with training.clear_errors(self._sizes, stream, validation), log_files as files:
                self.keras_model.fit(
                    stream, validation_data=validation, initial_epoch=self.epoch, epochs=epochs, steps_per_epoch=steps,
                    # the checkpoint after the logs: an epoch that it has is one that they have
                    callbacks=[*built_in, *files, checkpoint, *(custom_callbacks or [])], shuffle=False,
                    verbose=callbacks.verbosity(processes.is_first()),
                )  # fmt: skip
        except KeyboardInterrupt:
            raise KeyboardInterrupt(callbacks.interrupted(checkpoint)) from None
        except Exception as error:
            if is_no_room(error):
                raise callbacks.no_room(error, checkpoint) from error
            raise
        finally:
            self.epoch = checkpoint.epoch  # a run that ended early goes on from its last checkpoint
            training.stop_threads(stream, validation)

    # ---- detection

    def mold_inputs(self, images):
        """Resizes images and subtracts the mean pixel, see `inference.mold_inputs`.

        Args:
            images: list of [H, W, channels] arrays that become equally large.

        Returns:
            molded_images [batch, H, W, channels] float64, image_metas [batch, 12 + classes] and windows
            [batch, (y1, x1, y2, x2)] in pixels of the molded images.
        """
        return inference.mold_inputs(images, self._molding())

    def _molding(self):
        c = self.config
        return inference.Molding(
            c.IMAGE_CHANNEL_COUNT, c.IMAGE_MIN_DIM, c.IMAGE_MAX_DIM, c.IMAGE_MIN_SCALE, c.IMAGE_RESIZE_MODE,
            c.MEAN_PIXEL, c.NUM_CLASSES, int(c.BACKBONE_STRIDES[-2]),
        )  # fmt: skip

    def unmold_detections(self, detections, mrcnn_mask, original_image_shape, image_shape, window):
        """Turns the network's rows for one image into boxes and masks in the pixels of the original image.

        Args:
            detections: [N, (y1, x1, y2, x2, class_id, score)] float, normalized; the first class 0 ends the list.
            mrcnn_mask: [N, height, width, classes] float, probabilities.
            original_image_shape, image_shape: (H, W, channels) before and after resizing and padding.
            window: (y1, x1, y2, x2) pixels of the resized image that are no padding.

        Returns:
            boxes [M, (y1, x1, y2, x2)] int32 in pixels, class_ids [M] int32, scores [M] float32, masks [H, W, M] bool.
        """
        planes = inference.class_planes(detections, mrcnn_mask)
        return inference.unmold_detections(detections, planes, original_image_shape, image_shape, window)

    def detect(self, images, verbose=0, masks="full"):
        """Detects objects in any number of images of any sizes; may be called from several threads.

        Args:
            images: list of [H, W, channels] arrays, RGB; grey, alpha, 16 bits and floats are understood.
            verbose: 1 prints what goes into the network.
            masks: "full" for masks as large as the image; "box" for a list of [y2 - y1, x2 - x1] bool, the part of each
                mask within its box; "rle" for a list of COCO's compressed RLE dicts (needs pycocotools).

        Returns:
            list of dicts, one per image in order: `rois` [N, (y1, x1, y2, x2)] int32 in pixels, `class_ids` [N] int32,
            `scores` [N] float32 and `masks` [H, W, N] bool, or as `masks` says; best first.

        Raises:
            ValueError: the model is for training, an image cannot be used, `masks` is unknown, or the weights hold NaN.
            ImportError: `masks` is "rle", and pycocotools is not installed.
            MemoryError: the device has too little memory.
        """
        self._require("inference")
        batch_size, predict = self.config.BATCH_SIZE, self._predictor(verbose)
        return inference.detect(images, self._molding(), batch_size, predict, verbose, masks)

    def detect_molded(self, molded_images, image_metas, verbose=0, masks="full"):
        """Detects objects in images that went through `mold_inputs`; results are in pixels of the molded images.

        Args:
            molded_images: [batch, H, W, channels] float, any number.
            image_metas: [batch, 12 + classes] number.
            verbose: 1 prints what goes into the network.
            masks: see `detect`.

        Returns:
            list of dicts as `detect`.

        Raises:
            ValueError: the model is for training, images and metas do not fit, or the weights hold NaN.
        """
        self._require("inference")
        predict = self._predictor(verbose)
        return inference.detect_molded(molded_images, image_metas, predict, verbose, masks, self._molding())

    def _predictor(self, verbose):
        """The network as a function of molded images and metas: for each image its detections and their masks."""

        def run(images, metas):
            anchors = np.stack([self.get_anchors(images.shape[1:])] * len(images))
            for name, array in (("molded_images", images), ("image_metas", metas), ("anchors", anchors)):
                if verbose:
                    log(name, array)
            with self._running, training.clear_errors(self._sizes):  # one at a time: memory is for one
                return self._detector()(images, metas, anchors)

        return lambda images, metas: inference.in_batches(images, metas, self.config.BATCH_SIZE, run)

    def _detector(self):
        """The network as a function of arrays, made at the first detection."""
        model = self.keras_model
        if self._detector_of is None or self._detector_of[0] is not model:
            if isinstance(model, MaskRCNNModel):
                run = Detector(model)
            else:  # several devices share the work, or it is the user's own
                run = functools.partial(inference.predict, model)
            self._detector_of = model, inference.Watched(run, inner(model))
        return self._detector_of[1]

    def evaluate(self, dataset, image_ids=None, limit=0, eval_type="both", verbose=1):
        """Measures how well the objects of a data set are found, as COCO does; docs/evaluation.md explains the numbers.

        Args:
            dataset: prepared Dataset.
            image_ids: indices of the images to evaluate; all by default.
            limit: int, only the first so many of them; 0 = all.
            eval_type: "bbox" for boxes, "segm" for masks, or "both".
            verbose: 1 shows progress and prints pycocotools' summary and a table per class; 0 prints nothing.

        Returns:
            dict, see `evaluation.evaluate`; `["segm"]["AP50"]` is the average precision of masks at an IoU of 0.5.

        Raises:
            ValueError: the model is for training, an argument is wrong, or the data does not fit or cannot be read.
            ImportError: pycocotools is not installed.
        """
        self._require("inference")
        c = self.config
        loader.check_dataset(dataset, c)
        if verbose and c.DETECTION_MIN_CONFIDENCE:
            print(f"DETECTION_MIN_CONFIDENCE = {c.DETECTION_MIN_CONFIDENCE} keeps objects of lower scores out of the "
                  "AP: set it to 0 for figures to compare")
        most = max(evaluation.COCO_DETECTIONS, c.DETECTION_MAX_INSTANCES)
        detect = self.detect
        if getattr(detect, "__func__", None) is MaskRCNN.detect:  # whose masks nobody will see at full size
            detect = functools.partial(detect, masks="box" if eval_type == "bbox" else "rle")
        return evaluation.evaluate(detect, dataset, image_ids, limit, eval_type, c.BATCH_SIZE, most, verbose,
                                   c.IMAGE_CHANNEL_COUNT)  # fmt: skip

    def get_anchors(self, image_shape):
        """The anchors for an image of this shape.

        Args:
            image_shape: (H, W, channels) of a molded image.

        Returns:
            [anchors, (y1, x1, y2, x2)] float32, normalized. The attribute `anchors` has them in pixels.

        Raises:
            ValueError: an image of this shape has no pixels.
        """
        shape = tuple(int(side) for side in image_shape)
        if len(shape) < 2 or min(shape[:2]) < 1:
            raise ValueError(f"image_shape must be (height, width, channels) of a molded image; received {shape}")
        anchors = self._anchor_cache.get(shape)
        if anchors is None:
            anchors = norm_boxes(config_anchors(self.config, shape), shape[:2])
            for old in list(self._anchor_cache)[: 1 - _CACHED_SHAPES]:
                self._anchor_cache.pop(old, None)
            self._anchor_cache[shape] = anchors
        self._anchor_shape = shape
        return anchors

    @property
    def anchors(self):
        """Anchors of the last `get_anchors` call, [anchors, (y1, x1, y2, x2)] float64 in pixels."""
        return config_anchors(self.config, self._anchor_shape)

    # ---- looking inside

    def ancestor(self, tensor, name, checked=None):
        """Finds the tensor of a name, such as `ROI/refined_anchors`, that another KerasTensor is computed from.

        Returns:
            KerasTensor for `run_graph`, or None; see `Inspector.ancestor`.
        """
        return self._inspector.ancestor(tensor, name, checked)

    def run_graph(self, images, outputs, image_metas=None):
        """Computes any tensors of the model.

        Args:
            images: list of [H, W, channels] arrays, or molded images if `image_metas` is given.
            outputs: list of (name, tensor | layer | name of a tensor), or names alone.
            image_metas: [batch, 12 + classes] of molded images.

        Returns:
            OrderedDict of arrays by name; each is logged.

        Raises:
            ValueError: an output is unknown, or is computed from more than images.
        """
        if image_metas is None:
            images, image_metas, _ = self.mold_inputs(images)
        images, image_metas = np.asarray(images, np.float32), np.asarray(image_metas, np.float32)
        anchors = np.stack([self.get_anchors(images[0].shape)] * len(images))
        inputs = {"input_image": images, "input_image_meta": image_metas, "input_anchors": anchors}
        with self._running:
            return self._inspector.run(outputs, inputs)

    def _require(self, mode):
        if self.mode != mode:
            raise ValueError(f'this needs a model of mode "{mode}", but it was made with mode "{self.mode}": '
                             f'MaskRCNN("{mode}", config, model_dir)')
