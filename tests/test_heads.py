import pytest

from mrcnn.network.heads import mask_upsampling


@pytest.mark.parametrize("pool, shape, times", [(14, [28, 28], 1), (14, [56, 56], 2), (7, (14, 14), 1)])
def test_mask_shape_sets_the_number_of_deconvolutions(pool, shape, times):
    assert mask_upsampling(pool, shape) == times


@pytest.mark.parametrize("shape", [[14, 14], [30, 30], [28, 56], [0, 0]])
def test_impossible_mask_shape(shape):
    with pytest.raises(ValueError, match="MASK_SHAPE must be MASK_POOL_SIZE times"):
        mask_upsampling(14, shape)
