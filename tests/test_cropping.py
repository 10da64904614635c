import numpy as np
import pytest
from arrays import array, random_boxes
from keras import backend, ops

from mrcnn.network import cropping


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
    crops = cropping.crop_and_resize(
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
    crops = array(cropping.pyramid_crop(tensors, ops.convert_to_tensor(boxes), ops.convert_to_tensor(levels), (5, 6)))
    assert crops.shape == (2, 50, 5, 6, 3)
    for b in range(2):
        one = [cropping.crop_and_resize(t[b : b + 1], ops.convert_to_tensor(boxes[b]), ops.zeros(50, "int32"), (5, 6))
               for t in tensors]
        want = np.stack([array(one[level])[n] for n, level in enumerate(levels[b])])
        np.testing.assert_array_equal(crops[b], want)


def test_gathered_crops_equal_those_of_the_backend():
    """Bit by bit: which sample falls just outside an image is a matter of the last digit."""
    maps, boxes, levels = pyramid(2)
    tensors = [ops.convert_to_tensor(np.ones_like(m)) for m in maps]
    args = [ops.convert_to_tensor(boxes), ops.convert_to_tensor(levels), (14, 14)]
    crops = array(cropping.pyramid_crop(tensors, *args))
    images = ops.convert_to_tensor(np.repeat([0, 1], 50).astype("int32"))
    gathered = cropping._pyramid_gathered(
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
    ours = gradients(lambda maps: cropping.pyramid_crop(maps, tf.constant(boxes), tf.constant(levels), (7, 7)))
    gathered = gradients(
        lambda maps: tf.reshape(
            cropping._pyramid_gathered(
                maps, tf.reshape(boxes, [-1, 4]), tf.reshape(levels, [-1]), images, (7, 7)
            ),
            upstream.shape,
        )
    )
    again = gradients(lambda maps: cropping.pyramid_crop(maps, tf.constant(boxes), tf.constant(levels), (7, 7)))
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
            total = tf.reduce_sum(cropping.pyramid_crop([image, image[:, ::2, ::2]], boxes, levels, (7, 7)))
        return total, tf.reduce_sum(tape.gradient(total, image) * image)

    # cropping is linear, so that the gradient times the image is the result
    total, product = (tf.function(run) if compiled else run)(image)
    np.testing.assert_allclose(product, total, rtol=1e-4)
