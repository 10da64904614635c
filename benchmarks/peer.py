"""The contender beside this package: torchvision's Mask R-CNN with random weights, at the same sizes and numbers.

It keeps what is its own: a region proposal network half as wide, padding to multiples of 32 pixels only (a photo that
is not square takes less work), four samples per bin of a pooled region; and when it trains, the mask head on regions
with objects alone, and the true boxes among those regions.
"""

import math

import numpy as np
import torch
from common import PROPOSALS
from contenders import BOX_SIDE, CLASSES, LEARNING_RATE, geometric_mean
from peak import torch_device, wait_for_torch
from photos import make_photo
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone


def build(network, size, **settings):
    """A MaskRCNN of torchvision, all of whose layers train."""
    torch.manual_seed(0)
    settings = {"num_classes": CLASSES, "min_size": size, "max_size": size} | settings
    if network == "resnet50":
        return detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, **settings).to(torch_device())
    backbone = resnet_fpn_backbone(backbone_name=network, weights=None, norm_layer=torch.nn.BatchNorm2d,
                                   trainable_layers=5)  # fmt: skip
    return detection.MaskRCNN(backbone, **settings).to(torch_device())


def autocast(precision):
    """The context in which the network computes in this precision, its weights being float32."""
    return torch.autocast(torch_device(), torch.bfloat16, enabled=precision == "bfloat16")


class Counter:
    """Counts the multiply-adds of a module while it runs, and how many of them are of layers that train."""

    def __init__(self, module):
        self.all = self.trained = 0
        kinds = (torch.nn.Conv2d, torch.nn.ConvTranspose2d, torch.nn.Linear)
        layers = (layer for layer in module.modules() if isinstance(layer, kinds))
        self._hooks = [layer.register_forward_hook(self._count) for layer in layers]

    def _count(self, layer, inputs, output):
        positions = inputs[0] if isinstance(layer, torch.nn.ConvTranspose2d) else output
        count = positions.numel() * math.prod(layer.weight.shape[1:])
        self.all += count
        self.trained += count if layer.weight.requires_grad else 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for hook in self._hooks:
            hook.remove()


# ------------------------------------------------------------------ detection
class Detector:
    """Photos in, boxes and masks as arrays out. Arguments as those of `networks.Detector`."""

    name = "torchvision"

    def __init__(self, network, size, batch, instances, precision="float32"):
        self.precision = precision
        self.model = build(
            network, size, rpn_pre_nms_top_n_test=PROPOSALS, rpn_post_nms_top_n_test=PROPOSALS,
            box_score_thresh=0.5 if instances else 1.1, box_nms_thresh=1.0, box_detections_per_img=instances or 100,
        ).eval()  # fmt: skip
        self._force(size, instances)

    @torch.no_grad()
    def _force(self, size, instances):
        classes, deltas = self.model.roi_heads.box_predictor.cls_score, self.model.roi_heads.box_predictor.bbox_pred
        for layer in (self.model.rpn.head.bbox_pred, classes, deltas):
            layer.weight.zero_()
            layer.bias.zero_()
        classes.bias[1] = 10  # all regions get class 1, with a score just below 1
        if instances:
            boxes = self.detect([make_photo(size, size)])[0]
            shift = math.log(BOX_SIDE * size / geometric_mean(boxes))
            weights = self.model.roi_heads.box_coder.weights
            deltas.bias.view(-1, 4)[:, 2] = shift * weights[2]
            deltas.bias.view(-1, 4)[:, 3] = shift * weights[3]

    @torch.inference_mode()
    def detect(self, photos):
        """Boxes [N, 4] of every photo, once its masks [H, W, N] bool are there, too."""
        device = torch_device()
        tensors = [torch.from_numpy(photo).to(device).permute(2, 0, 1).float() / 255 for photo in photos]
        with autocast(self.precision):
            found = self.model(tensors)
        results = [
            {"masks": (result["masks"][:, 0] > 0.5).cpu().numpy().transpose(1, 2, 0),
             **{key: result[key].float().cpu().numpy() for key in ("boxes", "labels", "scores")}}
            for result in found
        ]  # fmt: skip
        return [result["boxes"][:, [1, 0, 3, 2]] for result in results]

    def gflop(self, photos):
        """GFLOP of a call."""
        with Counter(self.model) as counter:
            self.detect(photos)
        return 2e-9 * counter.all


# ------------------------------------------------------------------ training
class Trainer:
    """A training step: losses, gradients, clipping, SGD. Arguments as those of `networks.Trainer`."""

    name = "torchvision"

    def __init__(self, config, dataset, layers):
        self.precision, self.clip = config.PRECISION, config.GRADIENT_CLIP_NORM
        anchors = AnchorGenerator(tuple((scale,) for scale in config.RPN_ANCHOR_SCALES),
                                  (tuple(config.RPN_ANCHOR_RATIOS),) * len(config.RPN_ANCHOR_SCALES))  # fmt: skip
        self.model = build(
            config.BACKBONE, config.IMAGE_MAX_DIM, num_classes=config.NUM_CLASSES, rpn_anchor_generator=anchors,
            rpn_batch_size_per_image=config.RPN_TRAIN_ANCHORS_PER_IMAGE,
            rpn_post_nms_top_n_train=config.POST_NMS_ROIS_TRAINING,
            box_batch_size_per_image=config.TRAIN_ROIS_PER_IMAGE, box_positive_fraction=config.ROI_POSITIVE_RATIO,
        ).train()  # fmt: skip
        if layers == "heads":
            self.model.backbone.body.requires_grad_(False)
        for module in self.model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()  # as TRAIN_BN = False: statistics are kept, the affine part trains
        trained = [weights for weights in self.model.parameters() if weights.requires_grad]
        self.optimizer = torch.optim.SGD(trained, LEARNING_RATE, momentum=config.LEARNING_MOMENTUM)
        self.images, self.targets = [], []
        for image_id in dataset.image_ids[: config.BATCH_SIZE]:
            self._add(dataset.load_image(image_id), *dataset.load_mask(image_id))

    def _add(self, image, masks, class_ids):
        from mrcnn.utils import extract_bboxes

        device, masks = torch_device(), masks[:, :, masks.any(axis=(0, 1))]
        self.images.append((torch.from_numpy(image).permute(2, 0, 1).float() / 255).to(device))
        self.targets.append({
            "boxes": torch.tensor(extract_bboxes(masks)[:, [1, 0, 3, 2]], dtype=torch.float32, device=device),
            "labels": torch.tensor(class_ids[: masks.shape[2]], dtype=torch.int64, device=device),
            "masks": torch.tensor(np.ascontiguousarray(masks.transpose(2, 0, 1)), dtype=torch.uint8, device=device),
        })  # fmt: skip

    def step(self):
        """The loss, after a whole step."""
        self.optimizer.zero_grad()
        with autocast(self.precision):
            loss = sum(self.model(self.images, self.targets).values())
        loss.backward()
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        wait_for_torch()
        return loss.item()

    def gflop(self):
        """GFLOP of a step, estimated: three times the forward pass where layers train, once where they do not."""
        with Counter(self.model) as counter:
            self.step()
        return 2e-9 * (counter.all + 2 * counter.trained)
