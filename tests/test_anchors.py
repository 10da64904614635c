import golden_files
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrcnn.geometry import anchors

SIDES = st.integers(1, 9)
SCALES = st.lists(st.floats(1, 500), min_size=1, max_size=3)
RATIOS = st.lists(st.floats(0.1, 10), min_size=1, max_size=3)


@pytest.mark.parametrize("case", golden_files.cases("utils", "generate_anchors", "generate_pyramid_anchors"), ids=str)
def test_golden(case):
    case.check(anchors)


@given(SCALES, RATIOS, SIDES, SIDES, st.integers(1, 64), st.integers(1, 3))
def test_centers_areas_and_ratios(scales, ratios, h, w, feature_stride, anchor_stride):
    made = anchors.generate_anchors(scales, ratios, (h, w), feature_stride, anchor_stride)
    per_place = len(scales) * len(ratios)
    rows, columns = -(-h // anchor_stride), -(-w // anchor_stride)
    assert made.shape == (rows * columns * per_place, 4)

    size, center = made[:, 2:] - made[:, :2], (made[:, 2:] + made[:, :2]) / 2
    step = feature_stride * anchor_stride
    wanted = [(y * step, x * step) for y in range(rows) for x in range(columns) for _ in range(per_place)]
    np.testing.assert_allclose(center, wanted, atol=1e-6)
    kinds = [(scale, ratio) for ratio in ratios for scale in scales] * (rows * columns)
    np.testing.assert_allclose(np.sqrt(size.prod(axis=1)), [scale for scale, _ in kinds], rtol=1e-6)
    np.testing.assert_allclose(size[:, 1] / size[:, 0], [ratio for _, ratio in kinds], rtol=1e-6)


def test_a_pyramid_is_its_levels_one_after_the_other():
    shapes = anchors.backbone_shapes((128, 192, 3), (4, 8))
    whole = anchors.generate_pyramid_anchors((32, 64), [0.5, 1], shapes, (4, 8), 1)
    levels = [anchors.generate_anchors(s, [0.5, 1], shape, t, 1) for s, shape, t in zip((32, 64), shapes, (4, 8))]
    np.testing.assert_array_equal(whole, np.concatenate(levels))


def test_backbone_shapes_round_up():
    shapes = anchors.backbone_shapes((800, 1333, 3), [4, 8, 16, 32, 64])
    assert shapes.tolist() == [[200, 334], [100, 167], [50, 84], [25, 42], [13, 21]]
    assert shapes.dtype == np.int64


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("scales", (0, [1], (2, 2), 4, 1)),
        ("ratios", (8, [1, -1], (2, 2), 4, 1)),
        ("feature_stride", (8, [1], (2, 2), 0, 1)),
        ("anchor_stride", (8, [1], (2, 2), 4, 0)),
    ],
)
def test_impossible_values_are_named(name, arguments):
    with pytest.raises(ValueError, match=name):
        anchors.generate_anchors(*arguments)


def test_levels_must_agree():
    with pytest.raises(ValueError, match="3, 2 and 2"):
        anchors.generate_pyramid_anchors((8, 16, 32), [1], [(4, 4), (2, 2)], [4, 8], 1)
