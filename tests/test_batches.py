"""Which images come when, what replaces those that cannot be used, and how Keras reads the batches."""

import copy
import time
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from keras import layers
from tiny import Squares, config

from mrcnn.data.batches import Items
from mrcnn.data.loader import DataGenerator, TrainingStream, ValidationData


class Holes(Squares):
    """Squares; images of some numbers have no objects, others cannot be read."""

    def __init__(self, count, empty=(), bad=(), error=OSError):
        super().__init__(count)
        self.empty, self.bad, self.error = set(empty), set(bad), error
        self.read = []

    def load_image(self, image_id):
        self.read.append(image_id)
        if image_id in self.bad:
            raise self.error(f"cannot read {image_id}")
        return super().load_image(image_id)

    def load_mask(self, image_id):
        if image_id in self.empty:
            return np.empty((0, 0, 0)), np.empty(0, np.int32)
        return super().load_mask(image_id)

    def image_reference(self, image_id):
        return f"link to {image_id}"


def ids(batch):
    """Image ids of a batch, from its meta data."""
    return batch[0][1][:, 0].astype(int).tolist()


def all_ids(batches, numbers):
    return [image_id for k in numbers for image_id in ids(batches.batch(k))]


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a[0], b[0], strict=True))


# ------------------------------------------------------------------ order
def test_fixed_order():
    generator = DataGenerator(Squares(5), config(), shuffle=False)
    assert len(generator) == 3 and generator.num_batches == 3
    assert [ids(batch) for batch in generator] == [[0, 1], [2, 3], [4]]
    generator.on_epoch_end()
    assert [ids(generator[i]) for i in range(3)] == [[0, 1], [2, 3], [4]]
    with pytest.raises(IndexError, match="batch 3.*has 3"):
        generator[3]


def test_each_pass_has_an_order_of_its_own():
    generator = DataGenerator(Squares(9), config())
    orders = []
    for _ in range(3):
        orders.append([image_id for batch in generator for image_id in ids(batch)])
        generator.on_epoch_end()
    assert all(sorted(order) == [*range(9)] for order in orders)
    assert len(set(map(tuple, orders))) == 3
    assert [all_ids(generator, range(5 * p, 5 * p + 5)) for p in range(3)] == orders


def test_stream_is_endless_and_of_full_batches():
    stream = TrainingStream(Squares(5), config())
    assert stream.num_batches is None
    seen = all_ids(stream, range(10))
    assert all(sorted(seen[5 * p:5 * p + 5]) == [*range(5)] for p in range(4))
    assert all(len(ids(stream[i])) == 2 for i in range(6))
    assert all_ids(TrainingStream(Squares(5), config(), shuffle=False), range(5)) == [*range(5)] * 2


def test_orders_are_drawn_once(monkeypatch):
    """Not for each batch: with many images that takes longer than reading some."""
    drawn, rng = [], Items._rng
    monkeypatch.setattr(Items, "_rng", lambda self, *key: drawn.append(key) or rng(self, *key))
    items = Items(Squares(5), None, 7)
    first, second = items.order(0, True), items.order(1, True)
    with ThreadPoolExecutor(8) as pool:
        orders = list(pool.map(lambda n: items.order(n % 2, True), range(40)))
    assert all(order is (first, second)[n % 2] for n, order in enumerate(orders)) and len(drawn) == 2
    for number in range(2, 20):
        items.order(number, True)
    assert len(items._orders) < 10  # however long the training
    np.testing.assert_array_equal(items.order(0, True), first)


def test_orders_take_in_images_that_were_added():
    dataset = Squares(5)
    items = Items(dataset, None, 7)
    assert len(items.order(0, True)) == 5
    dataset.add_image("squares", 5, path=None, size=64)
    dataset.prepare()
    assert sorted(items.order(0, True)) == [*range(6)]


def test_stream_smaller_than_a_batch():
    assert ids(TrainingStream(Squares(1), config())[0]) == [0, 0]


def test_stream_goes_on():
    whole, rest = TrainingStream(Squares(5), config()), TrainingStream(Squares(5), config(), start=7)
    assert equal(rest[0], whole[7]) and equal(rest[4], whole[11])
    rest.on_epoch_end()
    assert equal(rest[0], whole[7])
    assert equal(rest.check_first_batch(), whole[7])


@pytest.mark.parametrize(
    ("images", "steps", "want"),
    [(7, 2, [[0, 1], [2, 3]]), (3, 5, [[0, 1], [2]]), (1, 1, [[0]])],
)
def test_validation_takes_the_first_images_once(images, steps, want):
    validation = ValidationData(Squares(images), config(VALIDATION_STEPS=steps))
    for _ in range(2):
        assert [ids(batch) for batch in validation] == want
        validation.on_epoch_end()


def test_validation_is_the_same_in_every_epoch():
    validation = ValidationData(Squares(4), config(VALIDATION_STEPS=2))
    first = validation[1]
    validation.on_epoch_end()
    assert equal(first, validation[1])


# ------------------------------------------------------------------ a function of the seed
def noise(image, masks, rng):
    return rng.integers(0, 255, image.shape, np.uint8), masks


def test_batches_follow_from_seed_and_number():
    first, second = (TrainingStream(Squares(5), config(), augmentation=noise) for _ in range(2))
    backwards = [first.batch(k) for k in reversed(range(6))][::-1]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(second.batch, range(6)))
    assert all(map(equal, backwards, threaded))
    assert not equal(threaded[0], TrainingStream(Squares(5), config(SEED=8), augmentation=noise).batch(0))


def test_the_same_image_differs_from_pass_to_pass():
    stream = TrainingStream(Squares(1), config(IMAGES_PER_GPU=1), augmentation=noise)
    assert not np.array_equal(stream[0][0][0], stream[1][0][0])


def test_without_a_seed_numpy_draws_one():
    def make():
        return TrainingStream(Squares(50), config(SEED=None))[0]

    np.random.seed(1)
    first, second = make(), make()
    np.random.seed(1)
    assert equal(first, make()) and not equal(first, second)


def test_imgaug_in_threads():
    """Augmenters keep a state; each image works with a copy of its own."""
    augmenters = pytest.importorskip("imgaug").augmenters
    flips = augmenters.Sequential([augmenters.Fliplr(0.5), augmenters.Affine(rotate=(-20, 20))])
    streams = [TrainingStream(Squares(4), config(), augmentation=copy.deepcopy(flips)) for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(streams[0].batch, range(8)))
    assert all(equal(streams[1].batch(k), threaded[k]) for k in range(8))


# ------------------------------------------------------------------ images without objects
def test_images_without_objects_are_replaced():
    empty = {1, 3, 4}
    stream = TrainingStream(Holes(6, empty), config())
    seen = all_ids(stream, range(9))
    assert len(seen) == 18 and not empty & set(seen)
    assert seen == all_ids(TrainingStream(Holes(6, empty), config()), range(9))


def test_knowing_which_images_are_empty_changes_nothing():
    dataset = Holes(6, {1, 3, 4})
    stream = TrainingStream(dataset, config())
    last = stream.batch(8)
    all_ids(stream, range(8))
    dataset.read.clear()
    assert equal(stream.batch(8), last)
    assert dataset.read == ids(last)


def test_no_image_has_objects():
    for make in (TrainingStream, DataGenerator, ValidationData):
        with pytest.raises(ValueError, match="none of the 4 images .* no image has objects.*USE_EMPTY_IMAGES"):
            make(Holes(4, range(4)), config())[0]


def test_few_images_are_tried_with_other_crops():
    """An object that most crops miss."""

    def hide(image, masks, rng):
        return image, masks * np.uint8(rng.random() < 0.2)

    stream = TrainingStream(Squares(1), config(), augmentation=hide)
    assert all(batch[0][4].any(axis=1).all() for batch in (stream[0], stream[1], stream[2]))


def test_validation_leaves_images_without_objects_out():
    validation = ValidationData(Holes(8, {1, 4, 5}, {6}), config(VALIDATION_STEPS=4))
    batches = [ids(batch) for batch in validation]
    assert batches[0] == [0] and batches[1] == [2, 3] and batches[3] == [7]
    assert len(batches[2]) == 1 and batches[2][0] not in (1, 4, 5, 6)


def test_images_without_objects_train_the_background_where_that_is_wanted():
    class Crowds(Holes):
        def load_mask(self, image_id):
            masks, class_ids = super().load_mask(image_id)
            return masks, -class_ids if image_id == 2 else class_ids

    wanted = config(USE_EMPTY_IMAGES=True, VALIDATION_STEPS=4)
    flips = lambda image, masks: (image[:, ::-1], masks[:, ::-1])  # noqa: E731
    stream = TrainingStream(Crowds(6, {1, 3, 4}), wanted, augmentation=flips)
    assert sorted(all_ids(stream, range(3))) == [*range(6)]
    assert [ids(batch) for batch in ValidationData(Crowds(6, {1, 3, 4}), wanted)] == [[0, 1], [2, 3], [4, 5]]
    fixed = DataGenerator(Crowds(6, {1, 3, 4}), wanted, shuffle=False)
    _, meta, match, deltas, class_ids, gt_boxes, masks = (array[1] for array in fixed[0][0])
    assert (match == -1).sum() == wanted.RPN_TRAIN_ANCHORS_PER_IMAGE and not (match == 1).any()
    assert meta[12:].all() and not any(array.any() for array in (deltas, class_ids, gt_boxes, masks))
    crowd = fixed[1][0]
    assert (crowd[4][0] < 0).sum() == 2 and (crowd[2][0] == 0).any() and not (crowd[2][0] == 1).any()


def test_random_regions_of_images_without_objects_are_background():
    generator = DataGenerator(Holes(2, {1}), config(USE_EMPTY_IMAGES=True), False, None, 30, True)
    inputs, (class_ids, deltas, masks) = generator[0]
    assert class_ids[0].any() and not class_ids[1].any() and not deltas[1].any() and not masks[1].any()
    rows = inputs[8][1]
    assert rows.shape == (8, 4) and (rows[:, :2] < rows[:, 2:]).all()


# ------------------------------------------------------------------ images that cannot be used
def test_the_first_batch_names_the_bad_image():
    stream = TrainingStream(Holes(4, bad=range(4)), config(), shuffle=False)
    with pytest.raises(ValueError, match=r"image 0 of source 'squares' \(squares/0.png\): OSError: cannot read 0"):
        stream.check_first_batch()
    missing = DataGenerator(Holes(4, bad=range(4), error=FileNotFoundError), config(), shuffle=False)
    with pytest.raises(FileNotFoundError, match=r"squares/0.png.*cannot read 0"):
        missing.check_first_batch()


@pytest.mark.parametrize("batch_size", [1, 2])
def test_one_bad_image_in_the_first_batch_is_replaced(batch_size):
    stream = TrainingStream(Holes(40, bad={0}), config(IMAGES_PER_GPU=batch_size), shuffle=False)
    stream.check_first_batch()
    assert 0 not in all_ids(stream, range(3)) and [name for name, _ in stream.problems] == ["link to 0"]


@pytest.mark.parametrize("seed", range(6))
def test_one_bad_image_that_is_tried_twice_counts_once(seed):
    """What replaces it is drawn from all images, itself included; validation begins with the first image again."""
    for make in (TrainingStream, ValidationData):
        batches = make(Holes(3, bad={0}), config(IMAGES_PER_GPU=1, SEED=seed))
        batches.check_first_batch()
        assert 0 not in all_ids(batches, range(3))


def test_a_clear_error_stays_as_it_is():
    class Named(Squares):
        def load_image(self, image_id):
            raise ValueError("image 0 of source 'squares' (squares/0.png) is upside down")

    with pytest.raises(ValueError, match="^image 0 of source 'squares' .squares/0.png. is upside down$"):
        ValidationData(Named(2), config()).check_first_batch()


def test_bad_images_are_replaced_and_reported(caplog):
    stream = TrainingStream(Holes(40, bad={2, 5}), config())
    seen = all_ids(stream, range(30))
    assert len(seen) == 60 and not {2, 5} & set(seen)
    assert sorted(stream.problems) == [(f"link to {i}", f"OSError: cannot read {i}") for i in (2, 5)]
    assert "link to 2: OSError: cannot read 2" in caplog.text


def test_too_many_bad_images_end_the_training():
    stream = TrainingStream(Holes(40, bad=range(0, 40, 2)), config())
    with pytest.raises(ValueError, match=r"3 of 40 images could not be used(.|\n)*link to \d+: OSError") as caught:
        all_ids(stream, range(40))
    assert stream.failure is caught.value and len(stream.problems) == 3


def test_all_of_a_few_images_are_bad():
    with pytest.raises(ValueError, match=r"2 of 3 images(.|\n)*link to \d: OSError: cannot read \d"):
        TrainingStream(Holes(3, bad=range(3)), config())[0]
    with pytest.raises(ValueError, match=r"none of the 1 images(.|\n)*link to 0: OSError: cannot read 0"):
        TrainingStream(Holes(1, bad=range(1)), config())[0]


def test_class_ids_out_of_range_end_the_training_at_once():
    class Wrong(Squares):
        def load_mask(self, image_id):
            masks, class_ids = super().load_mask(image_id)
            return masks, class_ids * 0 + 7

    with pytest.raises(ValueError, match="class id 7"):
        TrainingStream(Wrong(3), config())[0]


def test_a_reference_that_fails_hides_nothing():
    class NoReference(Holes):
        def image_reference(self, image_id):
            raise TypeError("super")

    stream = TrainingStream(NoReference(4, bad={0}), config(), shuffle=False)
    stream.batch(0)
    assert stream.problems == [("image 0 of source 'squares' (squares/0.png)", "OSError: cannot read 0")]


# ------------------------------------------------------------------ bookkeeping
def test_image_ids_of_a_batch():
    stream = TrainingStream(Holes(6, {0, 1}), config())
    batch = stream.batch(3)
    want = [(image_id, f"link to {image_id}") for image_id in ids(batch)]
    assert stream.image_ids(3) == want
    assert TrainingStream(Holes(6, {0, 1}), config()).image_ids(3) == want


def test_ready_at(monkeypatch):
    monkeypatch.setattr("mrcnn.data.batches._REMEMBERED", 3)
    stream = TrainingStream(Squares(3), config(IMAGES_PER_GPU=1))
    before = time.monotonic()
    for k in range(5):
        stream.batch(k)
    assert list(stream.ready_at) == [2, 3, 4]
    assert before <= stream.ready_at[2] <= stream.ready_at[4] <= time.monotonic()
    assert stream.image_ids(0) == TrainingStream(Squares(3), config(IMAGES_PER_GPU=1)).image_ids(0)


def test_tiny_objects_are_counted():
    class Tiny(Squares):
        def load_mask(self, image_id):
            masks, class_ids = super().load_mask(image_id)
            masks[..., 0] = False
            return masks, class_ids

    stream = TrainingStream(Tiny(10), config(), shuffle=False)
    with pytest.warns(UserWarning) as caught:
        for k in range(50):
            stream.batch(k)
    assert [str(w.message)[:22] for w in caught] == ["1 objects in 1 images ", "10 objects in 10 image"]


# ------------------------------------------------------------------ Keras
class Recorder(keras.Model):
    """Takes the seven inputs and notes which images it was trained on."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        self.seen.append(keras.ops.convert_to_numpy(x[1])[:, 0].astype(int).tolist())
        return keras.ops.mean(y_pred)


@pytest.fixture
def recorder():
    shapes = [((64, 64, 3), "float32"), ((16,), "float32"), ((None, 1), "int32"), ((32, 4), "float32"), ((4,), "int32"),
              ((4, 4), "int32"), ((16, 16, 4), "bool")]
    inputs = [keras.Input(shape, dtype=dtype) for shape, dtype in shapes]
    model = Recorder(inputs, layers.Dense(1)(layers.GlobalAveragePooling2D()(inputs[0])))
    model.seen = []
    model.compile("sgd", run_eagerly=True)
    return model


def fit(model, stream, validation=None):
    model.fit(
        stream, steps_per_epoch=3, epochs=4, initial_epoch=1, validation_data=validation, shuffle=False, verbose=0
    )


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_fit_trains_on_every_batch_in_order(recorder, workers):
    """Also those that were made ahead when an epoch ended."""
    settings = config(DATA_WORKERS=workers, DATA_QUEUE=2, VALIDATION_STEPS=2)
    stream = TrainingStream(Squares(7), settings, start=3)
    validation = ValidationData(Squares(3, start=100), settings)
    assert (stream.workers, stream.max_queue_size, stream.use_multiprocessing) == (workers, 2, False)
    fit(recorder, stream, validation)
    epochs = [recorder.seen[i:i + 5] for i in range(0, len(recorder.seen), 5)]
    assert len(epochs) == 3
    trained = [batch for epoch in epochs for batch in epoch[:3]]
    assert trained == [[image_id for image_id, _ in stream.image_ids(3 + i)] for i in range(9)]
    assert all(epoch[3:] == [[0, 1], [2]] for epoch in epochs)


def test_fit_with_data_generator(recorder):
    recorder.fit(DataGenerator(Squares(5), config()), epochs=3, verbose=0)
    assert len(recorder.seen) == 9
    epochs = [[image_id for batch in recorder.seen[i:i + 3] for image_id in batch] for i in (0, 3, 6)]
    assert all(sorted(epoch) == [*range(5)] for epoch in epochs) and len(set(map(tuple, epochs))) > 1


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_ends_fit_and_can_be_told(recorder, workers):
    stream = TrainingStream(Holes(60, bad=range(4, 60)), config(DATA_WORKERS=workers), shuffle=False)
    stream.check_first_batch()
    with pytest.raises(Exception, match="images could not be used"):
        fit(recorder, stream)
    assert isinstance(stream.failure, ValueError) and "link to 4: OSError" in str(stream.failure)
