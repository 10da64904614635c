import keras
import pytest

from mrcnn.network.backbone import resnet_graph
from mrcnn.network.fpn import build_fpn


@pytest.mark.parametrize("architecture, blocks", [("resnet50", "abcdef"), ("resnet101", "abcdefghijklmnopqrstuvw")])
def test_stages_and_names(architecture, blocks):
    image = keras.Input((64, 96, 3))
    stages = resnet_graph(image, architecture, stage5=True, train_bn=False)
    assert [tuple(s.shape[1:]) for s in stages] == [
        (16, 24, 64), (16, 24, 256), (8, 12, 512), (4, 6, 1024), (2, 3, 2048),
    ]
    names = {layer.name for layer in keras.Model(image, stages).layers}
    assert {f"res4{b}_branch2a" for b in blocks} | {"conv1", "bn_conv1", "res5c_out", "bn2a_branch1"} <= names
    assert {n for n in names if n.startswith("res4") and n.endswith("_out")} == {f"res4{b}_out" for b in blocks}


def test_stage5_can_be_left_out():
    stages = resnet_graph(keras.Input((64, 64, 3)), "resnet50")
    assert stages[4] is None and stages[3].shape[-1] == 1024


def test_unknown_architecture():
    with pytest.raises(ValueError, match="architecture must be one of.*received 'resnet18'"):
        resnet_graph(keras.Input((64, 64, 3)), "resnet18")


def test_pyramid():
    sizes = [(32, 8), (16, 16), (8, 32), (4, 64)]
    stages = [keras.Input((side, side, channels)) for side, channels in sizes]
    pyramid = build_fpn(stages, 24)
    assert [p.shape[1:] for p in pyramid] == [(side, side, 24) for side in (32, 16, 8, 4, 2)]
    names = {layer.name for layer in keras.Model(stages, pyramid).layers}
    assert {"fpn_c5p5", "fpn_p5upsampled", "fpn_p4add", "fpn_p2", "fpn_p6"} <= names
