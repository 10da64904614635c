"""From a data set to batches, by the settings of a config: the only place of this room that sees one."""

import functools
import itertools
import random
import warnings

import numpy as np

from mrcnn.data.augment import augment as apply_augmentation
from mrcnn.data.augment import check_augmentation, warn_of_unmoved_masks
from mrcnn.data.batches import Batches, Items, stack
from mrcnn.data.checks import ClassMismatch, NoObjects, check_classes, check_ready, image_name
from mrcnn.data.scaled import Resizing, load_scaled
from mrcnn.data.targets import build_detection_targets, build_rpn_targets, generate_random_rois
from mrcnn.geometry import anchors as pyramid
from mrcnn.geometry.boxed import BoxedMasks
from mrcnn.geometry.images import compose_image_meta, mold_image_float32, place_image


def compute_backbone_shapes(config, image_shape):
    """Computes the size of each feature map of the pyramid.

    Args:
        config: Config; a callable BACKBONE brings its COMPUTE_BACKBONE_SHAPE.
        image_shape: (H, W, channels) of a molded image.

    Returns:
        [levels, (height, width)] int, cells.
    """
    if callable(config.BACKBONE):
        return np.asarray(config.COMPUTE_BACKBONE_SHAPE(image_shape))
    return pyramid.backbone_shapes(image_shape, config.BACKBONE_STRIDES)


def config_anchors(config, image_shape):
    """Pixel anchors [anchors, (y1, x1, y2, x2)] of all levels for an image of this shape, by the config's settings."""
    return pyramid.generate_pyramid_anchors(
        config.RPN_ANCHOR_SCALES, config.RPN_ANCHOR_RATIOS, compute_backbone_shapes(config, image_shape),
        config.BACKBONE_STRIDES, config.RPN_ANCHOR_STRIDE,
    )  # fmt: skip


def config_grid(config, image_shape):
    """The `AnchorGrid` of the config's settings for an image of this shape; the latest ones are kept."""
    scales = tuple(tuple(np.ravel(scale).tolist()) for scale in config.RPN_ANCHOR_SCALES)
    shapes = tuple(map(tuple, np.asarray(compute_backbone_shapes(config, image_shape)).tolist()))
    return _grid(scales, tuple(config.RPN_ANCHOR_RATIOS), shapes, tuple(config.BACKBONE_STRIDES),
                 config.RPN_ANCHOR_STRIDE)  # fmt: skip


_grid = functools.lru_cache(maxsize=4)(pyramid.AnchorGrid)


def check_dataset(dataset, config, role="the data set"):
    """Checks that a data set can be trained on with a config.

    Args:
        dataset: Dataset.
        config: Config.
        role: str, what to call the data set in messages, such as "the training data set".

    Raises:
        ValueError: it is empty or not prepared, or has another number of classes than the config.
    """
    check_ready(dataset, role)
    check_classes(dataset, config.NUM_CLASSES, role)


def load_image_gt(dataset, config, image_id, augment=False, augmentation=None, use_mini_mask=False, rng=None):
    """Loads an image with its ground truth, resized, augmented, with boxes made from the masks.

    Objects without a pixel left after resizing, cropping and augmentation are dropped.

    Args:
        dataset: Dataset, prepared.
        config: Config.
        image_id: int, index of the image.
        augment: deprecated; mirrors every second image. Use `augmentation`.
        augmentation: see `mrcnn.data.augment.augment`.
        use_mini_mask: bool, makes mini masks of `config.MINI_MASK_SHAPE`.
        rng: `random.Random` for cropping and augmentation; by default the module `random`, and the augmenter's state.

    Returns:
        image: [H, W, channels] uint8, or float32 if the data set has float images; 0..255.
        image_meta: [12 + classes] number, see `compose_image_meta`.
        class_ids: [N] int32, negative for crowds.
        bbox: [N, (y1, x1, y2, x2)] int32, pixels of the resized image.
        mask: [H, W, N] bool, or [mini height, mini width, N].

    Raises:
        ValueError, FileNotFoundError: the image cannot be read, its masks do not fit it, or the augmentation changed a
            shape; the message names the image.
    """
    if augment:
        _warn_of_augment()
    check_ready(dataset)
    loaded = _load(dataset, config, image_id)
    ground_truth, lost = _prepare(dataset, config, image_id, loaded, augmentation, use_mini_mask, rng, augment)
    if lost:
        warnings.warn(f"{image_name(dataset, image_id)}: {lost} objects are smaller than a pixel after resizing, or "
                      "have no pixels at all; they are left out", stacklevel=2)
    return ground_truth


def _warn_of_augment():
    warnings.warn("augment=True is deprecated; use augmentation=, with an imgaug or albumentations augmenter or a "
                  "function f(image, masks)", FutureWarning, stacklevel=3)


def _load(dataset, config, image_id):
    """The image with its masks and class ids, `Scaled`: all of it that is not random."""
    resizing = Resizing(config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM, config.IMAGE_MIN_SCALE, config.IMAGE_RESIZE_MODE,
                        config.IMAGE_CHANNEL_COUNT)  # fmt: skip
    return load_scaled(dataset, image_id, resizing, int(config.DATA_CACHE) * 2**20)


def _prepare(dataset, config, image_id, loaded, augmentation, use_mini_mask, rng, flip=False):
    """What `load_image_gt` returns, and the number of objects that resizing made vanish."""
    image, window, padding, crop = place_image(
        loaded.image, config.IMAGE_MIN_DIM, config.IMAGE_MAX_DIM, config.IMAGE_RESIZE_MODE, rng
    )
    if not image.flags.writeable:
        image = image.copy()  # nothing may be written into what is kept
    masks = loaded.masks.placed(padding, crop)
    # Objects outside a crop are no loss: another crop will show them.
    lost = np.count_nonzero(masks.boxes[:, 2] == 0) if crop is None else 0

    flip = flip and (rng or random).randint(0, 1)
    if flip or augmentation is not None:
        mask = masks.full()
        if flip:
            image, mask = np.ascontiguousarray(image[:, ::-1]), mask[:, ::-1]
        if augmentation is not None:
            image, mask = apply_augmentation(image, mask, augmentation, rng, image_name(dataset, image_id))
        masks = BoxedMasks.cut(mask)
    visible = masks.boxes[:, 2] > 0
    masks, class_ids = masks.chosen(visible), loaded.class_ids[visible]
    mask = masks.mini(config.MINI_MASK_SHAPE) if use_mini_mask else masks.full()
    active = _active_class_ids(dataset, image_id)
    meta = compose_image_meta(image_id, loaded.original_shape, image.shape, window, loaded.scale, active)
    return (image, meta, class_ids, masks.boxes, mask), lost


def _active_class_ids(dataset, image_id):
    """[classes] int32, 1 for the classes that the image's source knows."""
    source = dataset.image_info[image_id]["source"]
    if source not in dataset.source_class_ids:
        raise ClassMismatch(f"{image_name(dataset, image_id)}: no class belongs to source {source!r}: call "
                            f"add_class({source!r}, ...) for each, then prepare()")
    active = np.zeros(dataset.num_classes, np.int32)
    active[dataset.source_class_ids[source]] = 1
    return active


class _ArrayMaker:
    """Makes the arrays that one image adds to a batch; the arguments are those of `data_generator`."""

    def __init__(self, dataset, config, augmentation, random_rois, detection_targets, no_augmentation_sources,
                 flip=False):
        check_dataset(dataset, config)
        check_augmentation(augmentation)
        warn_of_unmoved_masks(augmentation)
        if detection_targets and not random_rois:
            raise ValueError("detection_targets=True needs random_rois, the number of regions to take targets for")
        self.dataset, self.config, self.augmentation, self.flip = dataset, config, augmentation, flip
        self.random_rois, self.detection_targets = random_rois, detection_targets
        sources = no_augmentation_sources or ()
        self.plain_sources = {sources} if isinstance(sources, str) else set(sources)
        self.backbone_shapes = compute_backbone_shapes(config, config.IMAGE_SHAPE)
        self.grid = config_grid(config, config.IMAGE_SHAPE)
        self.anchors = self.grid.anchors

    def items(self, seed=None):
        """All images, drawn by this seed, else by the config's or by one from numpy's global generator."""
        if seed is None:
            seed = np.random.randint(2**31) if self.config.SEED is None else self.config.SEED
        return Items(self.dataset, self, int(seed))

    def __call__(self, image_id, rng):
        loaded = _load(self.dataset, self.config, image_id)
        needs_objects = not self.config.USE_EMPTY_IMAGES
        if needs_objects and not (loaded.class_ids > 0).any():
            raise NoObjects(always=True)
        is_plain = self.dataset.image_info[image_id]["source"] in self.plain_sources
        (image, meta, class_ids, bbox, mask), lost = _prepare(
            self.dataset, self.config, image_id, loaded, None if is_plain else self.augmentation,
            self.config.USE_MINI_MASK, random.Random(int(rng.integers(2**63))), self.flip,
        )  # fmt: skip
        if image.shape != tuple(self.config.IMAGE_SHAPE):
            raise ValueError(
                f"{image_name(self.dataset, image_id)} has the shape {image.shape} after resizing, but the network is "
                f"trained on {tuple(map(int, self.config.IMAGE_SHAPE))}: use IMAGE_RESIZE_MODE 'square' or 'crop'"
            )
        if needs_objects and not (class_ids > 0).any():
            raise NoObjects(always=False)
        return self._arrays(image, meta, class_ids, bbox, mask, rng), lost

    def _arrays(self, image, meta, class_ids, bbox, mask, rng):
        config = self.config
        rpn_match, rpn_bbox = build_rpn_targets(
            image.shape, self.grid, class_ids, bbox, config.RPN_TRAIN_ANCHORS_PER_IMAGE, config.RPN_BBOX_STD_DEV, rng
        )
        further, outputs = self._regions(image.shape, class_ids, bbox, mask, rng)
        limit = config.MAX_GT_INSTANCES
        if len(class_ids) > limit:
            kept = rng.choice(len(class_ids), limit, replace=False)
            class_ids, bbox, mask = class_ids[kept], bbox[kept], mask[..., kept]
        missing = limit - len(class_ids)
        inputs = (
            mold_image_float32(image, config.MEAN_PIXEL), meta, rpn_match[:, np.newaxis], rpn_bbox,
            np.pad(class_ids, (0, missing)), np.pad(bbox, ((0, missing), (0, 0))),
            np.pad(mask, ((0, 0), (0, 0), (0, missing))), *further,
        )  # fmt: skip
        return inputs, outputs

    def _regions(self, image_shape, class_ids, bbox, mask, rng):
        """Random regions as further inputs, and the heads' targets for them as outputs; empty where not wanted."""
        if not self.random_rois:
            return (), ()
        rois = generate_random_rois(image_shape, self.random_rois, class_ids, bbox, rng)
        if not self.detection_targets:
            return (rois,), ()
        config = self.config
        chosen, labels, deltas, masks = build_detection_targets(
            rois, class_ids, bbox, mask, config.NUM_CLASSES, config.TRAIN_ROIS_PER_IMAGE, config.ROI_POSITIVE_RATIO,
            config.BBOX_STD_DEV, config.MASK_SHAPE, image_shape if config.USE_MINI_MASK else None, rng,
            negatives_alone=config.USE_EMPTY_IMAGES,
        )  # fmt: skip
        return (rois, chosen), (labels[:, np.newaxis], deltas, masks)


# ------------------------------------------------------------------ batches
class DataGenerator(Batches):
    """Batches for training; each is a pure function of the seed, the pass over the data and the position in it.

    Item i is `(inputs,)` with a tuple of seven arrays, padded with zeros:

    - images: [batch, H, W, channels] float32, minus the mean pixel;
    - image_meta: [batch, 12 + classes] float64;
    - rpn_match: [batch, anchors, 1] int32;
    - rpn_bbox: [batch, RPN_TRAIN_ANCHORS_PER_IMAGE, (dy, dx, log(dh), log(dw))] float64;
    - gt_class_ids: [batch, MAX_GT_INSTANCES] int32;
    - gt_boxes: [batch, MAX_GT_INSTANCES, (y1, x1, y2, x2)] int32, pixels;
    - gt_masks: [batch, h, w, MAX_GT_INSTANCES] bool.

    `random_rois` adds rpn_rois, [batch, random_rois, 4] int32, pixels. `detection_targets` adds the rois chosen of
    these and makes the item `(inputs, outputs)`, outputs being class ids [batch, rois, 1], deltas and masks as
    `build_detection_targets` returns them.

    Images that cannot be used are replaced by others, and so are images without objects unless `USE_EMPTY_IMAGES`.

    Args:
        dataset: Dataset, prepared.
        config: Config. `SEED` makes the batches reproducible; without it numpy's global generator draws a seed.
            `DATA_WORKERS` threads make the batches; Keras reads 1 like 0, without threads of its own.
        shuffle: bool, a new order in each pass; otherwise that of the data set.
        augmentation: see `mrcnn.data.augment.augment`.
        random_rois: int, number of random regions per image for training the heads without an RPN.
        detection_targets: bool, also make the heads' targets for those regions.
        no_augmentation_sources: list of str, sources whose images are not augmented.
        share: (index, count) of this process among those that train together, see `Batches`; `config.BATCH_SIZE` is
            the number of images of each.
        seed: int, instead of the config's; processes that train together need the same.

    Attributes:
        anchors: [anchors, (y1, x1, y2, x2)] float64, pixels.
        backbone_shapes: [levels, (height, width)] int.
        ready_at, failure: see `Batches`, as for `batch`, `image_ids`, `problems` and `check_first_batch`.

    Raises:
        ValueError: the data set is empty, not prepared or has another number of classes than the config.
    """

    def __init__(self, dataset, config, shuffle=True, augmentation=None, random_rois=0, detection_targets=False,
                 no_augmentation_sources=None, share=(0, 1), seed=None):
        maker = _ArrayMaker(dataset, config, augmentation, random_rois, detection_targets, no_augmentation_sources)
        super().__init__(
            maker.items(seed), config.BATCH_SIZE, shuffle, config.DATA_WORKERS, config.DATA_QUEUE, share,
            config.DATA_TIMEOUT,
        )
        self.anchors, self.backbone_shapes = maker.anchors, maker.backbone_shapes


class TrainingStream(DataGenerator):
    """Endless batches for `fit(steps_per_epoch=...)`, all of full size; one pass over the images follows another.

    An endless PyDataset is asked for 0, 1, 2, ... through all epochs of a `fit`, in any number of threads: what is
    prepared when an epoch ends is kept for the next. TensorFlow asks for 0 and 1 once more beforehand, to learn the
    shapes, and `on_epoch_end` is called before the first epoch too; therefore neither is counted here.

    Args:
        start: int, the first batch, for a training that goes on; item i is batch `start` + i.
        others: as for `DataGenerator`.
    """

    def __init__(self, dataset, config, shuffle=True, augmentation=None, random_rois=0, detection_targets=False,
                 no_augmentation_sources=None, start=0, **sharing):
        super().__init__(
            dataset, config, shuffle, augmentation, random_rois, detection_targets, no_augmentation_sources, **sharing
        )
        self.start = start

    @property
    def num_batches(self):
        """None: endless."""
        return None

    def __getitem__(self, index):
        return self.batch(self.start + index)

    def check_first_batch(self):
        return self.batch(self.start, strict=True)

    def _planned(self, k):
        size = len(self._items.dataset.image_ids)
        keys = [divmod(n, size) for n in range(k * self.batch_size, (k + 1) * self.batch_size)]
        return [(int(self._items.order(number, self.shuffle)[place]), (number, place)) for number, place in keys]


class ValidationData(DataGenerator):
    """The first `VALIDATION_STEPS` batches of images (or all images) in order; the same in every epoch.

    None comes twice. Images that cannot be used, or without objects (but for `USE_EMPTY_IMAGES`), are left out of their
    batch; a batch that would be empty takes one other image.

    Args:
        fill: bool, bring all batches to full size with blank images, which add nothing to any loss: where several
            devices share a batch each needs as many images.
        others: as for `DataGenerator`.
    """

    def __init__(self, dataset, config, random_rois=0, detection_targets=False, fill=False, **sharing):
        super().__init__(dataset, config, False, None, random_rois, detection_targets, **sharing)
        self.steps, self.fill = config.VALIDATION_STEPS, fill

    def __len__(self):
        return min(super().__len__(), self.steps)

    def on_epoch_end(self):
        """The next epoch sees the same batches."""

    def _gather(self, k, strict):
        planned = self._planned(k)
        own = self._make(planned[self._own], strict)
        anyones = own or self._make(planned, strict)
        if not anyones:
            anyones = [self._items.fetch(*planned[0], strict)]
            own = anyones if self._own.start == 0 else []  # the first process has it
        missing = self._own.stop - self._own.start - len(own)
        return own + [_blank(*anyones[0])] * missing if self.fill else own

    def _make(self, planned, strict):
        """[(image id, arrays)] of those that can be used."""
        made = [(image_id, self._items.make(image_id, (*key, 0), strict)) for image_id, key in planned]
        return [entry for entry in made if entry[1] is not None]


def _blank(image_id, arrays):
    """(None, arrays) of the same form without an object, an anchor or a class: nothing to learn from."""
    return None, tuple(tuple(np.zeros_like(array) for array in part) for part in arrays)


def data_generator(dataset, config, shuffle=True, augment=False, augmentation=None, random_rois=0, batch_size=1,
                   detection_targets=False, no_augmentation_sources=None):
    """Makes batches one after the other, endlessly, as lists; `DataGenerator` is the one that Keras can read.

    Images without objects are skipped unless `USE_EMPTY_IMAGES`; so are images that cannot be used, until they are too
    many.

    Args:
        dataset, config, shuffle, augmentation, random_rois, detection_targets, no_augmentation_sources: as for
            `DataGenerator`.
        augment: deprecated; mirrors every second image.
        batch_size: int.

    Returns:
        A generator of `(inputs, outputs)`: a list of the arrays that `DataGenerator` describes, and a list that is
        empty without `detection_targets`.

    Raises:
        ValueError: the data set is empty, not prepared or has another number of classes than the config; while batches
            are made: too many images could not be used, or none has objects.
    """
    if augment:
        _warn_of_augment()
    maker = _ArrayMaker(
        dataset, config, augmentation, random_rois, detection_targets, no_augmentation_sources, augment
    )
    return _batches(maker.items(), shuffle, batch_size)


def _batches(items, shuffle, batch_size):
    batch = []
    for number in itertools.count():
        made = 0
        for place, image_id in enumerate(items.order(number, shuffle)):
            arrays = items.make(int(image_id), (number, place, 0))
            if arrays is None:
                continue
            made += 1
            batch.append(arrays)
            if len(batch) == batch_size:
                inputs, outputs = stack(batch)
                yield list(inputs), list(outputs)
                batch = []
        if not made:
            raise items.nothing_to_train_on()
