import golden_files
import numpy as np
import pytest
from arrays import array, tensor

from mrcnn import model
from mrcnn.config import Config
from mrcnn.network.proposals import ProposalLayer


@pytest.mark.parametrize("case", golden_files.cases("model_functions", "ProposalLayer"), ids=str)
def test_golden(case):
    case.check(model, config=Config)


def proposal_inputs(count=300, seed=0):
    rng = np.random.default_rng(seed)
    fg = rng.permutation(np.linspace(0.01, 0.99, count))[None]
    corner = rng.uniform(0, 0.7, (1, count, 2))
    anchors = np.concatenate([corner, corner + rng.uniform(0.05, 0.3, (1, count, 2))], -1)
    return [tensor(x) for x in (np.stack([1 - fg, fg], -1), rng.normal(0, 1, (1, count, 4)), anchors)]


def test_proposals_show_their_steps():
    layer = ProposalLayer(40, 0.5, 100, [0.1, 0.1, 0.2, 0.2])
    inputs = proposal_inputs()
    steps = {name: array(x) for name, x in layer.steps(*inputs).items()}
    rois = array(layer(inputs))
    assert tuple(steps) == layer.step_names
    assert steps["pre_nms_anchors"].shape == (1, 100, 4)
    assert steps["refined_anchors_clipped"].min() >= 0 and steps["refined_anchors_clipped"].max() <= 1
    keep = steps["rpn_non_max_suppression"][0]
    np.testing.assert_array_equal(rois[0, keep >= 0], steps["refined_anchors_clipped"][0, keep[keep >= 0]])
    assert (rois[0, keep < 0] == 0).all()


def test_fewer_anchors_than_proposals_end_in_zeros():
    rois = array(ProposalLayer(50, 0.7, 6000, [0.1, 0.1, 0.2, 0.2])(proposal_inputs(count=7)))
    assert rois.shape == (1, 50, 4) and (rois[0, 7:] == 0).all() and rois[0, 0].any()
