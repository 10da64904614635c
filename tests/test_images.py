import random
import re

import golden_files
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mrcnn.geometry import images

MEAN_PIXEL = np.array([123.7, 116.8, 103.9])
PIXELS = hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3)))


@pytest.mark.parametrize("case", golden_files.cases("utils", "resize", "resize_image"), ids=str)
def test_golden(case):
    case.check(images)


@pytest.mark.parametrize(
    "case", golden_files.cases("model_functions", "compose_image_meta", "parse_image_meta"), ids=str
)
def test_golden_meta(case):
    case.check(images)


@pytest.mark.parametrize("case", golden_files.cases("model_functions", "mold_image", "unmold_image"), ids=str)
def test_golden_molding(case):
    pixels = case.golden.value(case.entry["args"][0][1])
    mean_pixel = case.settings.get("MEAN_PIXEL", MEAN_PIXEL)
    (name, want), = case.outs().items()
    golden_files.assert_close(getattr(images, case.func)(pixels, mean_pixel), want, case.tol(name), str(case))


# ------------------------------------------------------------------ any image a user has
def ramp(dtype, top, shape=(4, 5)):
    return np.linspace(0, top, int(np.prod(shape))).reshape(shape).astype(dtype)


@pytest.mark.parametrize(
    ("image", "top"),
    [
        (ramp(np.uint8, 255), 255),
        (ramp(np.uint8, 255, (4, 5, 1)), 255),
        (ramp(np.uint16, 65535), 255),
        (ramp(">u2", 65535), 255),
        (ramp(np.int64, 255), 255),
        (ramp(np.float64, 1), 255),
        (ramp(np.float32, 1), 255),
        (ramp(np.uint8, 1).astype(bool), 255),
        (np.zeros((4, 5), np.float32), 0),
    ],
    ids=lambda value: f"{value.dtype}-{value.ndim}d" if isinstance(value, np.ndarray) else str(value),
)
def test_any_kind_of_pixels_becomes_rgb(image, top):
    made = images.standardize_image(image)
    assert made.shape == (4, 5, 3) and made.dtype == np.uint8
    assert made.max() == top and made.min() == 0
    assert (made == made[..., :1]).all()


def test_values_are_rounded_and_not_wrapped():
    assert images.standardize_image(np.array([[0, 128, 129, 65535]], np.uint16))[0, :, 0].tolist() == [0, 0, 1, 255]
    assert images.standardize_image(np.array([[0.0, 0.5, 1.0]]))[0, :, 0].tolist() == [0, 128, 255]


def test_twelve_bits_in_sixteen_are_warned_of():
    with pytest.warns(UserWarning, match=r"slide 3.*12 are used.*scale it to 0\.\.65535"):
        made = images.standardize_image(np.full((3, 4), 4000, np.uint16), where="slide 3")
    assert made.max() == 16


def test_floats_a_little_above_one_are_refused():
    with pytest.raises(ValueError, match=r"photo 7: floats .* these reach 1\.25"):
        images.standardize_image(np.full((3, 4), 1.25), where="photo 7")


def test_floats_up_to_255_keep_their_fractions():
    made = images.standardize_image(np.array([[0.25, 200.5]]))
    assert made.dtype == np.float32 and made[0, :, 0].tolist() == [0.25, 200.5]


@pytest.mark.parametrize(("found", "wanted"), [(4, 3), (3, 3), (2, 3), (1, 3), (1, 1), (2, 1), (5, 5)])
def test_channels_that_fit(found, wanted):
    image = np.arange(12 * found, dtype=np.uint8).reshape(3, 4, found)
    made = images.standardize_image(image, wanted)
    kept = image[..., :1] if found < 3 else image[..., :wanted]
    np.testing.assert_array_equal(made, np.broadcast_to(kept, (3, 4, wanted)))


@pytest.mark.parametrize(("found", "wanted"), [(5, 3), (3, 1), (5, 4), (3, 2), (3, 4)])
def test_channels_that_do_not_fit_name_the_image(found, wanted):
    with pytest.raises(ValueError, match=rf"photo 7.*{found} channels.*{wanted} are expected"):
        images.standardize_image(np.zeros((4, 5, found), np.uint8), wanted, "photo 7")


@pytest.mark.parametrize(
    "image",
    [
        np.full((4, 5, 3), -1),
        np.full((4, 5, 3), 256),
        np.full((4, 5, 3), 300.0),
        np.full((4, 5, 3), -0.1),
        np.full((4, 5, 3), np.nan),
        np.full((4, 5, 3), np.inf),
        np.full((4, 5, 3), 1j),
        np.full((4, 5, 3), "x"),
        np.zeros(7),
        np.zeros((1, 4, 5, 3)),
        np.zeros((0, 5, 3), np.uint8),
    ],
    ids=lambda image: f"{image.dtype}-{image.shape}-{image.flat[0] if image.size else ''}",
)
def test_impossible_pixels_name_the_image(image):
    with pytest.raises(ValueError, match="photo 7"):
        images.standardize_image(image, where="photo 7")


def test_rows_of_other_lengths_name_the_image():
    with pytest.raises(ValueError, match="photo 7: an image must be an array .*received a list that is none"):
        images.standardize_image([[1, 2], [3]], where="photo 7")


# ------------------------------------------------------------------ resizing
@given(PIXELS, st.integers(8, 64), st.integers(8, 64), st.sampled_from([None, 0, 1.7]))
def test_square(image, min_dim, max_dim, min_scale):
    made, window, scale, padding, crop = images.resize_image(image, min_dim, max_dim, min_scale, "square")
    y1, x1, y2, x2 = window
    assert made.shape == (max_dim, max_dim, 3) and made.dtype == np.uint8 and crop is None
    assert (y2 - y1, x2 - x1) == images.scaled_size(*image.shape[:2], scale)
    assert padding == [(y1, max_dim - y2), (x1, max_dim - x2), (0, 0)]
    assert 0 <= padding[0][1] - padding[0][0] <= 1 and 0 <= padding[1][1] - padding[1][0] <= 1
    outside = made.copy()
    outside[y1:y2, x1:x2] = 0
    assert not outside.any()
    inside = made[y1:y2, x1:x2]
    assert image.min() <= inside.min() and inside.max() <= image.max()


@given(PIXELS, st.sampled_from([0, 64, 128]))
def test_pad64(image, min_dim):
    made, (y1, x1, y2, x2), scale, padding, _ = images.resize_image(image, min_dim, None, 0, "pad64")
    assert made.shape[0] % 64 == made.shape[1] % 64 == 0
    assert made.shape[:2] == (y2 + padding[0][1], x2 + padding[1][1])
    assert min(y2 - y1, x2 - x1) >= min_dim
    assert scale == max(1, min_dim / min(image.shape[:2]))


@given(PIXELS, st.integers(0, 2**32))
def test_crop_draws_from_its_own_generator(image, seed):
    state = random.getstate()
    made, window, scale, _, (y, x, h, w) = images.resize_image(image, 32, mode="crop", rng=random.Random(seed))
    again = images.resize_image(image, 32, mode="crop", rng=random.Random(seed))
    assert random.getstate() == state
    np.testing.assert_array_equal(made, again[0])
    height, width = images.scaled_size(*image.shape[:2], scale)
    assert made.shape == (32, 32, 3) and window == (0, 0, 32, 32) and (h, w) == (32, 32)
    assert y + h <= height and x + w <= width


def test_none_leaves_the_image_alone():
    image = np.ones((30, 50, 3), np.uint8)
    made, window, scale, padding, crop = images.resize_image(image, 800, 1024, 2, "none")
    assert made is image and window == (0, 0, 30, 50) and scale == 1 and crop is None and padding == [(0, 0)] * 3


def test_a_plain_image_stays_plain():
    made, (y1, x1, y2, x2), *_ = images.resize_image(np.full((77, 101, 3), 200, np.uint8), 128, 192)
    assert (made[y1:y2, x1:x2] == 200).all()


def test_a_line_does_not_vanish():
    made, window, *_ = images.resize_image(np.ones((1, 500, 3), np.uint8), None, 64)
    assert made.shape == (64, 64, 3) and window == (31, 0, 32, 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((64, 128, 0, "wild"), "mode must be one of square, pad64, crop, none; received 'wild'"),
        ((64, None, 0, "square"), "max_dim"),
        ((100, 128, 0, "pad64"), "multiple of 64; received 100"),
        ((None, 128, 0, "pad64"), "multiple of 64; received None"),
        ((None, 128, 0, "crop"), "min_dim"),
        (("64", 128, 0, "square"), "min_dim must be a number of 0 or more, or None; received '64'"),
        ((-64, 128, 0, "pad64"), "min_dim must be .* received -64"),
        ((64, [128], 0, "square"), r"max_dim must be .* received \[128\]"),
        ((64, 128, float("nan"), "square"), "min_scale must be .* received nan"),
    ],
)
def test_impossible_sizes(arguments, message):
    with pytest.raises(ValueError, match=message):
        images.resize_image(np.zeros((20, 20, 3), np.uint8), *arguments)


@pytest.mark.parametrize("shape", [(20, 20), (0, 20, 3), (2, 20, 20, 3)])
def test_other_shapes_are_named(shape):
    with pytest.raises(ValueError, match=re.escape(str(shape))):
        images.resize_image(np.zeros(shape, np.uint8), 64, mode="crop")


@pytest.mark.parametrize(
    ("arguments", "scale"),
    [((64, 128, 0, "square"), 1.28), ((64, 96, 0, "square"), 0.96), ((64, 96, 3, "pad64"), 3), ((64, 9, 0, "none"), 1)],
)
def test_the_scale_is_known_without_resizing(arguments, scale):
    assert images.resize_scale((50, 100), *arguments) == scale
    assert images.resize_image(np.ones((50, 100, 3), np.uint8), *arguments)[2] == scale


@pytest.mark.parametrize("shape", [(0, 100), (50, 0, 3), (0, 0), (-1, 5)])
def test_an_image_without_pixels_has_no_scale(shape):
    for mode in ("square", "pad64", "crop"):
        for sides in ((64, 128), (None, 128)):
            with pytest.raises(ValueError, match=rf"image_shape must begin with.*received {re.escape(str(shape))}"):
                images.resize_scale(shape, *sides, mode=mode)
    assert images.resize_scale(shape, 64, 128, mode="none") == 1


# ------------------------------------------------------------------ molding and meta
@given(PIXELS)
def test_molding_is_undone_up_to_truncation(image):
    back = images.unmold_image(images.mold_image(image, MEAN_PIXEL), MEAN_PIXEL)
    assert back.dtype == np.uint8
    difference = image.astype(int) - back
    assert ((difference == 0) | (difference == 1)).all()


def test_unmolding_limits_and_does_not_wrap():
    made = images.unmold_image(np.array([[-999.0, 0, 999]]), MEAN_PIXEL)
    assert made.tolist() == [[0, 116, 255]]


def test_molding_names_other_channels():
    with pytest.raises(ValueError, match=r"\(4, 5\).*3 channels"):
        images.mold_image(np.zeros((4, 5)), MEAN_PIXEL)


@given(st.integers(0, 10**6), st.lists(st.integers(0, 1), min_size=1, max_size=81), st.floats(0.1, 9))
def test_meta_comes_back(image_id, active, scale):
    meta = images.compose_image_meta(image_id, (480, 640, 3), (1024, 1024, 3), (128, 0, 896, 1024), scale, active)
    assert meta.shape == (12 + len(active),)
    parsed = images.parse_image_meta(meta[None])
    assert {name: value.tolist()[0] for name, value in parsed.items() if name != "scale"} == {
        "image_id": image_id, "original_image_shape": [480, 640, 3], "image_shape": [1024, 1024, 3],
        "window": [128, 0, 896, 1024], "active_class_ids": active,
    }
    assert parsed["scale"][0] == pytest.approx(scale, rel=1e-6)


# ------------------------------------------------------------------ shorter ways to the same numbers
SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90))


@given(st.data(), SIZES, SIZES, st.integers(1, 4))
def test_bytes_are_resized_as_scikit_image_does(data, size, new_size, channels):
    """To the last bit, because fractions are cut off: 99.99999 and 100 differ."""
    low = data.draw(st.integers(0, 255))
    drawn = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    image = drawn.integers(low, data.draw(st.integers(low, 255)), (*size, channels), np.uint8, endpoint=True)
    if data.draw(st.booleans()):
        image = image[::-1, ::-1]  # not in one piece
    want = images.resize(image, new_size, preserve_range=True).astype(np.uint8)
    np.testing.assert_array_equal(images._resize_bytes(image, new_size), want)


@pytest.mark.parametrize("size", [(683, 1024), (500, 375), (201, 333)])
@pytest.mark.parametrize("new_size", [(128, 192), (800, 600), (683, 1024)])
def test_photos_are_resized_as_scikit_image_does(size, new_size):
    y, x = np.mgrid[: size[0], : size[1]]
    image = np.stack([y % 256, x % 256, (y * x // 7) % 200 + 56], axis=-1).astype(np.uint8)
    want = images.resize(image, new_size, preserve_range=True).astype(np.uint8)
    np.testing.assert_array_equal(images._resize_bytes(image, new_size), want)


@given(
    hnp.arrays(st.sampled_from([np.uint8, np.float32]), st.tuples(st.integers(1, 30), st.integers(1, 9), st.just(3)),
               elements=st.integers(0, 255)),
    st.sampled_from([MEAN_PIXEL, MEAN_PIXEL.astype(np.float32), np.array([1, 2, 3])]),
)  # fmt: skip
def test_molding_to_float32_rounds_once(image, mean_pixel):
    made = images.mold_image_float32(image, mean_pixel)
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made, images.mold_image(image, mean_pixel).astype(np.float32))


def test_molding_to_float32_checks_the_channels():
    with pytest.raises(ValueError, match="3 channels"):
        images.mold_image_float32(np.zeros((4, 4, 1), np.uint8), MEAN_PIXEL)


@given(PIXELS, st.sampled_from(["square", "pad64", "crop", "none"]), st.integers(0, 2**31))
def test_scaling_and_placing_are_resizing(image, mode, seed):
    settings = {"min_dim": 64, "max_dim": 128, "mode": mode}
    whole = images.resize_image(image, min_scale=1.3, rng=random.Random(seed), **settings)
    scaled, scale = images.scale_image(image, min_scale=1.3, **settings)
    placed, window, padding, crop = images.place_image(scaled, rng=random.Random(seed), **settings)
    np.testing.assert_array_equal(placed, whole[0])
    assert (window, scale, padding, crop) == whole[1:]
