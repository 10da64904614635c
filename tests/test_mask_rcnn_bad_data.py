"""Class MaskRCNN on data of which a part cannot be read: it says so before, during and after a training."""

import os
import re
import threading

import keras
import pytest
import tiny

from mrcnn.data import loader
from mrcnn.engine.mask_rcnn import MaskRCNN

TRAIN = tiny.Squares(7)


def make(mode, folder, **settings):
    return MaskRCNN(mode, tiny.config(**settings), folder)


def _first_batch(data):
    stream = loader.TrainingStream(data, tiny.config())
    return stream._items.order(0, True)[:2]


class Torn(tiny.Squares):
    """A data set one of whose images cannot be read."""

    torn = 0

    def load_image(self, image_id):
        if image_id == self.torn:
            raise OSError("truncated file")
        return super().load_image(image_id)


def test_bad_data_shows_before_training(model_dir):
    class AllTorn(tiny.Squares):
        def load_image(self, image_id):
            raise OSError("truncated file")

    model = make("training", model_dir)
    data = AllTorn(2)
    with pytest.raises(ValueError, match=r"squares/\d\.png.*truncated file"):
        model.train(data, None, 0.01, 1, "heads")
    with pytest.raises(ValueError, match=r"squares/\d\.png.*truncated file"):
        model.train(TRAIN, data, 0.01, 1, "heads")
    with pytest.raises(ValueError, match="the training data set has no images"):
        model.train(type(TRAIN)(0), None, 0.01, 1, "heads")
    four = tiny.Squares(2)
    four.add_class("squares", 9, "huge")
    four.prepare()
    with pytest.raises(ValueError, match="NUM_CLASSES is 4, but the validation data set has 5 classes"):
        model.train(TRAIN, four, 0.01, 1, "heads")
    assert os.listdir(model_dir) == []


@pytest.mark.slow
def test_bad_images_are_listed_at_the_end(model_dir, capsys):
    data = Torn(7)
    data.torn = int(next(k for k in data.image_ids if k not in _first_batch(data)))
    model = make("training", model_dir, STEPS_PER_EPOCH=4)
    model.train(data, None, 0.01, 1, "heads")
    assert re.search(rf"Left out: .*squares/{data.torn}\.png.*truncated file", capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_images_end_the_training(model_dir, workers, capsys):
    class MostlyTorn(tiny.Squares):
        def load_image(self, image_id):
            if image_id not in first:
                raise OSError("truncated file")
            return super().load_image(image_id)

    threads, data = set(threading.enumerate()), MostlyTorn(20)
    first = _first_batch(data)
    model = make("training", model_dir, STEPS_PER_EPOCH=20, DATA_WORKERS=workers)
    with pytest.raises(ValueError, match=r"images could not be used(.|\n)*squares/\d+\.png.*truncated file"):
        model.train(data, None, 0.01, 1, "heads")
    assert len(re.findall(r"Left out: .*truncated file", capsys.readouterr().out)) == 2
    for thread in set(threading.enumerate()) - threads:
        thread.join(5)
    assert set(threading.enumerate()) <= threads


@pytest.mark.slow
def test_bad_images_of_both_data_sets_are_listed_even_after_an_error(model_dir, capsys):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyError("stop")

    data, validation = Torn(7), Torn(4)
    data.torn = int(next(k for k in data.image_ids if k not in _first_batch(data)))
    validation.torn = 3
    model = make("training", model_dir, STEPS_PER_EPOCH=4, VALIDATION_STEPS=2)
    with pytest.raises(KeyError, match="stop"):
        model.train(data, validation, 0.01, 1, "heads", custom_callbacks=[Stop()])
    printed = capsys.readouterr().out
    assert re.search(rf"Left out: .*squares/{data.torn}\.png.*truncated file", printed)
    assert re.search(r"Left out of the validation: .*squares/3\.png.*truncated file", printed)
