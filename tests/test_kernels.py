import numpy as np
import pytest
from arrays import array
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import backend, ops

from mrcnn.geometry import boxes as pixel_boxes
from mrcnn.network import kernels


def random_boxes(rng, *shape):
    center, size = rng.uniform(0, 1, (*shape, 2)), rng.uniform(0.02, 0.5, (*shape, 2))
    return np.concatenate([center - size / 2, center + size / 2], axis=-1).clip(0, 1).astype("float32")


# ------------------------------------------------------------------ order
def test_top_k_takes_the_lower_index_of_equal_values():
    values, indices = kernels.top_k(ops.convert_to_tensor(np.array([[1, 3, 3, 0, 3]], "float32")), 4)
    assert array(indices).tolist() == [[1, 2, 4, 0]]
    assert array(values).tolist() == [[3, 3, 3, 1]]


def test_gather_rows_stays_within_its_image():
    x = np.arange(24, dtype="float32").reshape(2, 4, 3)
    picked = kernels.gather_rows(ops.convert_to_tensor(x), ops.convert_to_tensor(np.array([[3, 0], [1, 1]], "int32")))
    np.testing.assert_array_equal(array(picked), [x[0, [3, 0]], x[1, [1, 1]]])


# ------------------------------------------------------------------ convolution
@pytest.mark.skipif(backend.backend() != "tensorflow", reason="the gradient is our own on TensorFlow only")
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 3), sides=st.tuples(*[st.integers(1, 12)] * 2),
       share=st.sampled_from([0.0, 0.02, 0.05, 0.5, 1.0]), compiled=st.booleans())  # fmt: skip
def test_the_gradient_of_few_places_is_that_of_all(seed, batch, sides, share, compiled):
    import tensorflow as tf

    rng = np.random.default_rng(seed)
    x = tf.constant(rng.normal(size=(batch, *sides, 3)).astype("float32"))
    kernel = tf.constant(rng.normal(size=(3, 3, 3, 4)).astype("float32"))
    weights = rng.normal(size=(batch, *sides, 4)) * (rng.random((batch, *sides, 1)) < share)

    def plain(x, kernel):
        return tf.nn.conv2d(x, kernel, 1, "SAME")

    def gradients(convolve):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            result = convolve(x, kernel)
            total = tf.reduce_sum(result * weights.astype("float32"))
        return result, *tape.gradient(total, [x, kernel])

    def ours(x, kernel):
        return kernels.convolve_where_needed(x, kernel, plain)

    got, want = (tf.function(gradients) if compiled else gradients)(ours), gradients(plain)
    for ours_, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours_, theirs, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------ suppression
def greedy(boxes, threshold, ids, valid, limit):
    """The definition: walk down the list, keep what no survivor of its group overlaps too much."""
    iou, kept = pixel_boxes.compute_overlaps(boxes, boxes), []
    for i in range(len(boxes)):
        if valid[i] and all(iou[i, j] <= threshold or ids[i] != ids[j] for j in kept):
            kept.append(i)
    return (kept + [-1] * limit)[:limit]


@pytest.mark.parametrize("count, limit", [(40, 20), (700, 400), (5, 9)])
@pytest.mark.parametrize("grouped", [False, True])
def test_non_max_suppression_is_greedy(count, limit, grouped):
    rng = np.random.default_rng(count)
    boxes = random_boxes(rng, 2, count)
    ids = rng.integers(1, 4, (2, count)).astype("int32") if grouped else np.ones((2, count), "int32")
    valid = rng.uniform(size=(2, count)) < 0.8 if grouped else np.ones((2, count), bool)
    extra = {"groups": (ops.convert_to_tensor(ids), 4), "valid": ops.convert_to_tensor(valid)} if grouped else {}
    keep = array(kernels.non_max_suppression(ops.convert_to_tensor(boxes), limit, 0.4, **extra))
    assert keep.tolist() == [greedy(boxes[i], 0.4, ids[i], valid[i], limit) for i in range(2)]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_both_suppressions_agree(seed, threshold):
    boxes = ops.convert_to_tensor(random_boxes(np.random.default_rng(seed), 2, 60))
    keep = array(kernels.non_max_suppression(boxes, 30, threshold))
    np.testing.assert_array_equal(keep, array(kernels._nms_tiled(boxes, 30, threshold, None, None)))


def test_equal_overlap_survives():
    boxes = np.array([[[0, 0, 1, 1], [0, 0, 0.5, 1], [0, 0, 1, 1]]], "float32")
    keep = kernels.non_max_suppression(ops.convert_to_tensor(boxes), 3, 0.5)
    assert array(keep).tolist() == [[0, 1, -1]]


# ------------------------------------------------------------------ crops
def crop_by_definition(image, box, shape):
    height, width = image.shape[:2]
    result = np.zeros((*shape, image.shape[2]))
    for i in range(shape[0]):
        for j in range(shape[1]):
            y = np.float64(box[0] + i * (box[2] - box[0]) / (shape[0] - 1)) * (height - 1)
            x = np.float64(box[1] + j * (box[3] - box[1]) / (shape[1] - 1)) * (width - 1)
            if 0 <= y <= height - 1 and 0 <= x <= width - 1:
                top, left = int(y), int(x)
                bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
                dy, dx = y - top, x - left
                upper = image[top, left] * (1 - dx) + image[top, right] * dx
                lower = image[bottom, left] * (1 - dx) + image[bottom, right] * dx
                result[i, j] = upper * (1 - dy) + lower * dy
    return result


BOXES = np.array(
    [[0.1, 0.2, 0.6, 0.9], [0.3, -0.4, 0.8, 0.5], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 1.5, 0.75]], "float32"
)


def test_crop_and_resize_follows_its_definition():
    images = np.random.default_rng(0).normal(size=(2, 9, 13, 3)).astype("float32")
    which = np.array([0, 1, 1, 0], "int32")
    crops = kernels.crop_and_resize(
        ops.convert_to_tensor(images), ops.convert_to_tensor(BOXES), ops.convert_to_tensor(which), (4, 5)
    )
    want = [crop_by_definition(images[k], box, (4, 5)) for k, box in zip(which, BOXES)]
    np.testing.assert_allclose(array(crops), want, atol=1e-5)


def pyramid(seed=1):
    rng = np.random.default_rng(seed)
    maps = [rng.normal(size=(2, side, side + 4, 3)).astype("float32") for side in (32, 16, 8, 4)]
    boxes = random_boxes(rng, 2, 50)
    return maps, boxes, rng.integers(0, 4, (2, 50)).astype("int32")


def test_pyramid_crop_takes_each_box_from_its_level():
    maps, boxes, levels = pyramid()
    tensors = [ops.convert_to_tensor(m) for m in maps]
    crops = array(kernels.pyramid_crop(tensors, ops.convert_to_tensor(boxes), ops.convert_to_tensor(levels), (5, 6)))
    assert crops.shape == (2, 50, 5, 6, 3)
    for b in range(2):
        one = [kernels.crop_and_resize(t[b : b + 1], ops.convert_to_tensor(boxes[b]), ops.zeros(50, "int32"), (5, 6))
               for t in tensors]
        want = np.stack([array(one[level])[n] for n, level in enumerate(levels[b])])
        np.testing.assert_array_equal(crops[b], want)


def test_gathered_crops_equal_those_of_the_backend():
    """Bit by bit: which sample falls just outside an image is a matter of the last digit."""
    maps, boxes, levels = pyramid(2)
    tensors = [ops.convert_to_tensor(np.ones_like(m)) for m in maps]
    args = [ops.convert_to_tensor(boxes), ops.convert_to_tensor(levels), (14, 14)]
    crops = array(kernels.pyramid_crop(tensors, *args))
    images = ops.convert_to_tensor(np.repeat([0, 1], 50).astype("int32"))
    gathered = kernels._pyramid_gathered(
        tensors, ops.reshape(args[0], (-1, 4)), ops.reshape(args[1], (-1,)), images, (14, 14)
    )
    np.testing.assert_array_equal(crops.reshape(-1, 14, 14, 3) > 0, array(gathered) > 0)


@pytest.mark.skipif(backend.backend() != "tensorflow", reason="the gradient is our own on TensorFlow only")
def test_gradient_of_the_crops_is_right_on_every_run():
    import tensorflow as tf

    maps, boxes, levels = pyramid(3)
    upstream = tf.constant(np.random.default_rng(4).normal(size=(2, 50, 7, 7, 3)), "float32")

    def gradients(crop):
        tensors = [tf.constant(m) for m in maps]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            total = tf.reduce_sum(crop(tensors) * upstream)
        return [g.numpy() for g in tape.gradient(total, tensors)]

    images = tf.constant(np.repeat([0, 1], 50).astype("int32"))
    ours = gradients(lambda maps: kernels.pyramid_crop(maps, tf.constant(boxes), tf.constant(levels), (7, 7)))
    gathered = gradients(
        lambda maps: tf.reshape(
            kernels._pyramid_gathered(
                maps, tf.reshape(boxes, [-1, 4]), tf.reshape(levels, [-1]), images, (7, 7)
            ),
            upstream.shape,
        )
    )
    again = gradients(lambda maps: kernels.pyramid_crop(maps, tf.constant(boxes), tf.constant(levels), (7, 7)))
    for one, other, repeat in zip(ours, gathered, again):
        np.testing.assert_allclose(one, other, atol=1e-4)
        np.testing.assert_array_equal(one, repeat)


@pytest.mark.skipif(backend.backend() != "tensorflow", reason="the gradient is our own on TensorFlow only")
@pytest.mark.parametrize("compiled", [False, True])
def test_gradient_and_crops_agree_on_what_lies_outside(compiled):
    """At the border that is decided by the last digit, and a graph may compute it in another order."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    corners = np.pad(rng.uniform(0, 0.5, (4000, 2)), ((0, 0), (0, 2)), constant_values=1).astype("float32")
    image = tf.constant(rng.normal(size=(1, 37, 53, 4)).astype("float32"))

    def run(image):
        boxes, levels = tf.clip_by_value(corners * 1.7, 0.0, 1.0)[None], tf.zeros([1, len(corners)], tf.int32)
        with tf.GradientTape() as tape:
            tape.watch(image)
            total = tf.reduce_sum(kernels.pyramid_crop([image, image[:, ::2, ::2]], boxes, levels, (7, 7)))
        return total, tf.reduce_sum(tape.gradient(total, image) * image)

    # cropping is linear, so that the gradient times the image is the result
    total, product = (tf.function(run) if compiled else run)(image)
    np.testing.assert_allclose(product, total, rtol=1e-4)


def test_memory_growth_without_a_gpu_does_nothing():
    assert kernels.enable_memory_growth() >= 0
