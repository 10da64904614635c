"""The training and the inference model, put together from the stages (Mask R-CNN, figures 1 and 4)."""

from __future__ import annotations

import keras
from keras import layers, ops

from mrcnn.data.loader import config_anchors
from mrcnn.geometry.boxes import norm_boxes as norm_boxes_array
from mrcnn.network import kernels, losses
from mrcnn.network.backbone import resnet_graph
from mrcnn.network.detection import DetectionLayer
from mrcnn.network.fpn import build_fpn
from mrcnn.network.heads import build_fpn_mask_graph, fpn_classifier_graph, mask_upsampling
from mrcnn.network.layers import precision
from mrcnn.network.losses import LOSS_NAMES
from mrcnn.network.proposals import ProposalLayer
from mrcnn.network.rpn import Anchors, build_rpn_model
from mrcnn.network.sampling import DetectionTargetLayer, Positives, ZerosBelow
from mrcnn.network.tensors import norm_boxes, parse_image_meta

STATISTICS_AND_AFFINE = ("gamma", "beta")  # weight decay leaves batch norm alone


class MaskRCNNModel(keras.Model):
    """A functional model whose layers keep the `training` argument that they were called with.

    Keras would hand the phase of the whole model to every layer; here `BatchNorm(...)(x, training=False)` means it,
    also in a backbone that a user wrote. Layers called without the argument follow the phase as ever.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.jit_compile = kernels.compiles("auto")

    @property
    def jit_compile(self):
        """Whether XLA compiles what trains and predicts. It may, whatever layers say that could not on their own."""
        return self._jit_compile

    @jit_compile.setter
    def jit_compile(self, value):
        self._jit_compile = bool(value)

    def call(self, inputs, training=None, mask=None):
        with kernels.for_xla(self.jit_compile):
            return self.run_layers(self._standardize_inputs(inputs), training)

    def run_layers(self, inputs, training=None, instead=None):
        """Runs the layers on a list of tensors.

        Args:
            inputs: list of tensors, as the model takes them.
            training: bool, the phase of layers that were called without one.
            instead: dict, layer -> function of the layer's inputs that takes its place.

        Returns:
            list of tensors, the model's outputs.
        """
        instead = instead or {}

        def with_phase(operation):
            if operation in instead:
                return lambda given, *_, **__: instead[operation](given)

            def run(*args, **kwargs):
                if isinstance(operation, keras.layers.Layer) and len(args) < 2 and kwargs.get("training") is None:
                    kwargs["training"] = training
                return operation(*args, **kwargs)

            return run

        return self._run_through_graph(inputs, operation_fn=with_phase)

    def compile(self, *args, **kwargs):
        super().compile(*args, **{"jit_compile": self.jit_compile, **kwargs})


class TrainingModel(MaskRCNNModel):
    """A model whose last five outputs are its losses; the sum of them and the weight decay is minimized.

    Attributes:
        loss_weights: dict of factors by loss name.
        weight_decay: factor of the L2 term.
    """

    loss_weights: dict
    weight_decay = 0.0

    def set_losses(self, loss_weights, weight_decay):
        """Sets the factors of the losses and makes the trackers that report them."""
        self.loss_weights = {name: float(loss_weights.get(name, 1.0)) for name in LOSS_NAMES}
        self.weight_decay = weight_decay
        self.trackers = [keras.metrics.Mean(name=name) for name in LOSS_NAMES]
        # In the place of Keras' own, which weighs batches by their length; the parts are not weighed so.
        self.total_tracker = keras.metrics.Mean(name="loss")

    def weighted_losses(self, y_pred):
        """The five losses by name, each a scalar times its factor."""
        values = y_pred[-len(LOSS_NAMES) :]
        return {
            name: ops.mean(value) * self.loss_weights[name] for name, value in zip(LOSS_NAMES, values, strict=True)
        }

    def weight_penalty(self):
        """The original's L2 term: every trained kernel and bias adds the mean of its squares, not the sum."""
        decayed = [w for w in self.trainable_variables if w.name not in STATISTICS_AND_AFFINE]
        if not decayed:
            return 0.0
        return self.weight_decay * sum(kernels.mean_square(w) for w in decayed)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        # the gradients of replicas are added up: each replica's part of the losses, and its share of the weight decay
        loss = sum(self.weighted_losses(y_pred).values()) + self.weight_penalty() / kernels.replicas()
        self.total_tracker.update_state(loss * kernels.replicas())
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        for tracker, value in zip(self.trackers, self.weighted_losses(y_pred).values(), strict=True):
            tracker.update_state(value * kernels.replicas())  # Keras reports the mean over replicas, not the sum
        return self.get_metrics_result()


def _features(config, input_image):
    """Backbone and pyramid: image -> [P2 .. P6]."""
    with precision(config.PRECISION):
        if callable(config.BACKBONE):
            stages = config.BACKBONE(input_image, stage5=True, train_bn=config.TRAIN_BN)
        else:
            stages = resnet_graph(input_image, config.BACKBONE, stage5=True, train_bn=config.TRAIN_BN)
        return build_fpn(stages[1:], config.TOP_DOWN_PYRAMID_SIZE)


def _rpn(config, pyramid):
    """The RPN on every level, joined: [class logits, class probabilities, deltas]."""
    with precision(config.PRECISION):
        model = build_rpn_model(
            config.RPN_ANCHOR_STRIDE, len(config.RPN_ANCHOR_RATIOS), config.TOP_DOWN_PYRAMID_SIZE, config.RPN_CHANNELS
        )
    per_level = [model(level) for level in pyramid]
    names = ("rpn_class_logits", "rpn_class", "rpn_bbox")
    return [
        layers.Concatenate(axis=1, name=name)(list(outputs))
        for name, outputs in zip(names, zip(*per_level, strict=True), strict=True)
    ]


def _proposals(config, count, rpn_class, rpn_bbox, anchors):
    layer = ProposalLayer(
        count, config.RPN_NMS_THRESHOLD, config.PRE_NMS_LIMIT, config.RPN_BBOX_STD_DEV, name="ROI"
    )
    return layer([rpn_class, rpn_bbox, anchors])


def _box_head(config, rois, pyramid, image_meta):
    with precision(config.PRECISION):
        return fpn_classifier_graph(
            rois,
            pyramid[:4],
            image_meta,
            config.POOL_SIZE,
            config.NUM_CLASSES,
            train_bn=config.TRAIN_BN,
            fc_layers_size=config.FPN_CLASSIF_FC_LAYERS_SIZE,
        )


def _mask_head(config, rois, pyramid, image_meta):
    with precision(config.PRECISION):
        return build_fpn_mask_graph(
            rois,
            pyramid[:4],
            image_meta,
            config.MASK_POOL_SIZE,
            config.NUM_CLASSES,
            train_bn=config.TRAIN_BN,
            channels=config.MASK_CHANNELS,
            upsampling=mask_upsampling(config.MASK_POOL_SIZE, config.MASK_SHAPE),
        )


def build_inference_model(config):
    """The model that detects.

    Returns:
        keras.Model with inputs input_image [batch, H, W, C], input_image_meta and input_anchors, and outputs
        detections, mrcnn_class, mrcnn_bbox, mrcnn_mask, rpn_rois, rpn_class, rpn_bbox.
    """
    image = keras.Input((None, None, int(config.IMAGE_SHAPE[2])), name="input_image")
    image_meta = keras.Input((config.IMAGE_META_SIZE,), name="input_image_meta")
    anchors = keras.Input((None, 4), name="input_anchors")
    pyramid = _features(config, image)
    _, rpn_class, rpn_bbox = _rpn(config, pyramid)
    rois = _proposals(config, config.POST_NMS_ROIS_INFERENCE, rpn_class, rpn_bbox, anchors)
    _, mrcnn_class, mrcnn_bbox = _box_head(config, rois, pyramid, image_meta)
    detections = DetectionLayer(
        config.BBOX_STD_DEV,
        config.DETECTION_MIN_CONFIDENCE,
        config.DETECTION_NMS_THRESHOLD,
        config.DETECTION_MAX_INSTANCES,
        name="mrcnn_detection",
    )([rois, mrcnn_class, mrcnn_bbox, image_meta])
    mrcnn_mask = _mask_head(config, BoxPart(name="detected_boxes")(detections), pyramid, image_meta)
    return MaskRCNNModel(
        [image, image_meta, anchors],
        [detections, mrcnn_class, mrcnn_bbox, mrcnn_mask, rois, rpn_class, rpn_bbox],
        name="mask_rcnn",
    )


class BoxPart(layers.Layer):
    """The boxes of detections: [batch, N, 6] -> [batch, N, 4]."""

    def call(self, detections):
        return detections[..., :4]

    def compute_output_shape(self, input_shape):
        return (*input_shape[:2], 4)


class NormBoxes(layers.Layer):
    """Boxes [batch, N, 4] in pixels -> normalized by the size of the images [batch, H, W, C]."""

    def call(self, inputs):
        boxes, images = inputs
        return norm_boxes(boxes, ops.shape(images)[1:3])

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs[0].shape, "float32")


class ActiveClasses(layers.Layer):
    """The class flags of image metas: [batch, 12 + classes] -> [batch, classes]."""

    def call(self, image_meta):
        return parse_image_meta(image_meta)["active_class_ids"]

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[1] - 12)


def _training_inputs(config):
    """The seven inputs of the training model by name; unknown sizes are left open."""
    height, width, channels = (int(side) for side in config.IMAGE_SHAPE)
    mask_shape = tuple(config.MINI_MASK_SHAPE) if config.USE_MINI_MASK else (height, width)
    shapes = {
        "input_image": ((None, None, channels), "float32"),
        "input_image_meta": ((config.IMAGE_META_SIZE,), "float32"),
        "input_rpn_match": ((None, 1), "int32"),
        "input_rpn_bbox": ((None, 4), "float32"),
        "input_gt_class_ids": ((None,), "int32"),
        "input_gt_boxes": ((None, 4), "float32"),
        "input_gt_masks": ((*mask_shape, None), "bool"),
    }
    if not config.USE_RPN_ROIS:
        shapes["input_roi"] = ((config.POST_NMS_ROIS_TRAINING, 4), "int32")
    return {name: keras.Input(shape, dtype=dtype, name=name) for name, (shape, dtype) in shapes.items()}


def build_training_model(config):
    """The model that learns.

    Returns:
        `TrainingModel` with the seven inputs that the loader makes (eight with `USE_RPN_ROIS = False`) and outputs
        rpn_class_logits, rpn_class, rpn_bbox, mrcnn_class_logits, mrcnn_class, mrcnn_bbox, mrcnn_mask, rpn_rois,
        output_rois and the five losses. With `TRAIN_BN = False` the masks of ROIs that are no object are zeros.
    """
    inputs = _training_inputs(config)
    image, image_meta = inputs["input_image"], inputs["input_image_meta"]
    gt_class_ids, gt_masks = inputs["input_gt_class_ids"], inputs["input_gt_masks"]
    gt_boxes = NormBoxes()([inputs["input_gt_boxes"], image])
    pyramid = _features(config, image)
    rpn_class_logits, rpn_class, rpn_bbox = _rpn(config, pyramid)
    pixel_anchors = config_anchors(config, config.IMAGE_SHAPE)
    anchors = Anchors(norm_boxes_array(pixel_anchors, config.IMAGE_SHAPE[:2]), name="anchors")(image)
    rpn_rois = _proposals(config, config.POST_NMS_ROIS_TRAINING, rpn_class, rpn_bbox, anchors)
    candidates = rpn_rois if config.USE_RPN_ROIS else NormBoxes()([inputs["input_roi"], image])
    rois, class_ids, deltas, masks = DetectionTargetLayer(
        config.TRAIN_ROIS_PER_IMAGE,
        config.ROI_POSITIVE_RATIO,
        config.BBOX_STD_DEV,
        config.MASK_SHAPE,
        config.USE_MINI_MASK,
        seed=config.SEED,
        negatives_alone=config.USE_EMPTY_IMAGES,
        name="proposal_targets",
    )([candidates, gt_class_ids, gt_boxes, gt_masks])
    mrcnn_class_logits, mrcnn_class, mrcnn_bbox = _box_head(config, rois, pyramid, image_meta)
    # ROIs that are no object take no part in the loss; but where batches have statistics, these are those of all ROIs
    quota = None if config.TRAIN_BN in (None, True) else int(config.TRAIN_ROIS_PER_IMAGE * config.ROI_POSITIVE_RATIO)
    mask_rois, mask_ids, masks = Positives(quota)([rois, class_ids, masks])
    mrcnn_mask = _mask_head(config, mask_rois, pyramid, image_meta)
    output_rois = layers.Identity(name="output_rois")(rois)
    loss_inputs = {
        "rpn_class_loss": [inputs["input_rpn_match"], rpn_class_logits],
        "rpn_bbox_loss": [inputs["input_rpn_bbox"], inputs["input_rpn_match"], rpn_bbox],
        "mrcnn_class_loss": [class_ids, mrcnn_class_logits, ActiveClasses()(image_meta)],
        "mrcnn_bbox_loss": [deltas, class_ids, mrcnn_bbox],
        "mrcnn_mask_loss": [masks, mask_ids, mrcnn_mask],
    }
    loss_values = [losses.Loss(getattr(losses, name), name=name)(loss_inputs[name]) for name in LOSS_NAMES]
    all_masks = ZerosBelow(config.TRAIN_ROIS_PER_IMAGE)(mrcnn_mask)
    outputs = [rpn_class_logits, rpn_class, rpn_bbox, mrcnn_class_logits, mrcnn_class, mrcnn_bbox, all_masks]
    model = TrainingModel(list(inputs.values()), [*outputs, rpn_rois, output_rois, *loss_values], name="mask_rcnn")
    model.set_losses(config.LOSS_WEIGHTS, config.WEIGHT_DECAY)
    return model


def build_model(mode, config):
    """The Keras model of a config for `mode` "training" or "inference"."""
    build = build_training_model if mode == "training" else build_inference_model
    jit = kernels.compiles(config.JIT, config.GPU_COUNT)
    with precision("float32"), kernels.for_xla(jit):  # boxes, scores, losses are exact, whatever Keras was set to
        model = build(config)
    model.jit_compile = jit
    return model
