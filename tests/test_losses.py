import golden_files
import pytest
from arrays import array, tensor
from keras import ops

from mrcnn import model
from mrcnn.config import Config
from mrcnn.network import losses

FUNCTIONS = [
    "smooth_l1_loss", "rpn_class_loss_graph", "rpn_bbox_loss_graph", "mrcnn_class_loss_graph",
    "mrcnn_bbox_loss_graph", "mrcnn_mask_loss_graph",
]

def cases():
    """All but the one that holds a fault which is mended here: the class flags of the first image served the batch."""
    return [c for c in golden_files.cases("model_functions", *FUNCTIONS) if not c.entry.get("soft")]


@pytest.mark.parametrize("case", cases(), ids=str)
def test_golden(case):
    case.check(model, config=Config)


def test_class_flags_belong_to_their_image():
    logits = tensor([[[0, 9, 0]], [[0, 0, 9]]])
    flags = tensor([[1, 1, 0], [1, 0, 1]])
    ids = tensor([[1], [2]], "int32")
    assert float(array(losses.mrcnn_class_loss(ids, logits, flags))) < 1e-3
    nothing_active = ops.flip(flags, axis=0)
    assert float(array(losses.mrcnn_class_loss(ids, logits, nothing_active))) == 0  # not 0/0
