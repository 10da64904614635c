"""Which images make which batch: order, replacements for images that cannot be used, and the bookkeeping of Keras."""

import itertools
import sys
import threading
import time
import traceback
from collections import OrderedDict

import keras
import numpy as np

from mrcnn.data.checks import ClassMismatch, NoObjects, Record, image_name

# What a random generator is for; each purpose, pass and position has one of its own.
_ORDER, _REPLACEMENT, _ITEM = range(3)
# How many batches `image_ids` and `ready_at` look back.
_REMEMBERED = 256
# How many orders are kept: workers may be at the end of one pass and at the start of the next.
_ORDERS = 4


class Items:
    """The arrays of single images; each a function of the seed and of a key (pass, position), nothing else.

    Args:
        dataset: Dataset, prepared.
        make_arrays: function of (image id, `numpy.random.Generator`) -> (arrays, number of lost objects). It raises
            `NoObjects` for an image that there is nothing to learn from.
        seed: int.
    """

    def __init__(self, dataset, make_arrays, seed):
        self.dataset, self.seed, self.record = dataset, seed, Record(len(dataset.image_ids))
        self._make_arrays = make_arrays
        self._orders, self._lock = OrderedDict(), threading.Lock()
        self._worked, self._first_error = False, None
        self.working_on = {}  # thread -> id of the image that it makes the arrays of

    def order(self, number, shuffle):
        """The image ids in the order of pass `number`; not to be changed."""
        ids = np.asarray(self.dataset.image_ids)
        if not shuffle:
            return ids
        key = (number, len(ids))  # the data set may have grown
        with self._lock:
            if key not in self._orders:
                self._orders[key] = self._rng(_ORDER, number).permutation(ids)
                self._orders[key].flags.writeable = False
                if len(self._orders) > _ORDERS:
                    self._orders.popitem(last=False)
            return self._orders[key]

    def fetch(self, image_id, key, strict=False):
        """(image id, arrays) of this image or, when it cannot be trained on, of another one."""
        for attempt, candidate in enumerate(self._candidates(image_id, key)):
            arrays = self.make(candidate, (*key, attempt), strict)
            if arrays is not None:
                return candidate, arrays
        raise self.nothing_to_train_on()

    def _candidates(self, image_id, key):
        yield image_id
        # With few images several tries each: another crop may show an object.
        others = self._rng(_REPLACEMENT, *key).permutation(self.dataset.image_ids).tolist()
        yield from itertools.islice(itertools.cycle(others), max(len(others), 50))

    def make(self, image_id, key, strict=False):
        """The arrays of an image; None if it has no objects or cannot be used.

        The fault of a second image, where none could be used before, is likely that of all: `strict` raises the first.
        """
        if image_id in self.record.empty:
            return None
        self.record.seen(image_id)
        self.working_on[threading.get_ident()] = image_id
        try:
            arrays, lost = self._make_arrays(image_id, self._rng(_ITEM, *key))
        except NoObjects as none:
            if none.always:
                self.record.empty.add(image_id)
            return None
        except (ClassMismatch, MemoryError):
            raise
        except Exception as error:
            if strict and not self._worked:
                where = image_name(self.dataset, image_id)
                if self._first_error and self._first_error[1] != where:
                    self._raise_named(*self._first_error)
                self._first_error = self._first_error or (error, where)  # one image may be tried again
            self.record.failed(image_id, self.reference(image_id), error)
            return None
        finally:
            self.working_on.pop(threading.get_ident(), None)
        self._worked = True
        if lost:
            self.record.lost(image_id, lost)
        return arrays

    @staticmethod
    def _raise_named(error, where):
        """Raises the error, as one of a kind that users may expect and with the image in its text."""
        if isinstance(error, ValueError | FileNotFoundError) and where in str(error):
            raise error
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"{where}: {type(error).__name__}: {error}") from error

    def reference(self, image_id):
        """What the data set calls the image, or its path and the like."""
        try:
            reference = self.dataset.image_reference(image_id)
        except Exception:  # a slip in a user's method must not hide the error that is to be reported
            reference = None
        return str(reference or image_name(self.dataset, image_id))

    def nothing_to_train_on(self):
        """The error for a data set of which no image can be used."""
        message = f"none of the {len(self.dataset.image_ids)} images of the data set can be trained on"
        if self.record.problems:
            return ValueError(f"{message}; problems:\n{self.record.summary()}")
        return ValueError(f"{message}: no image has objects (load_mask returns no masks, only crowds, or objects that "
                          "resizing, cropping or augmentation removed). USE_EMPTY_IMAGES = True trains on them as "
                          "background")

    def _rng(self, *key):
        return np.random.default_rng((self.seed, *key))


class Batches(keras.utils.PyDataset):
    """Batches of items, each a pure function of the seed and its number, so that threads do not matter.

    Args:
        items: Items.
        batch_size: int.
        shuffle: bool, a new order in each pass.
        workers: int, threads. Keras reads 1 like 0, without threads of its own.
        queue: int, largest number of batches made in advance.
        share: (index, count): of `count` processes that train together, each on `batch_size` images of every batch,
            this is number `index`.
        timeout: float, seconds after which a batch that is not ready raises a TimeoutError; 0 waits for ever. Each
            batch is made in a thread of its own, but with 0.

    Attributes:
        batch_size: images of a batch, those of all processes.
        ready_at: dict, number of a batch -> `time.monotonic()` when it was made, for the latest batches.
        failure: the exception that ended the making of a batch, or None. Keras may pass it on in another form.
    """

    def __init__(self, items, batch_size, shuffle, workers, queue, share=(0, 1), timeout=0):
        super().__init__(workers=workers, use_multiprocessing=False, max_queue_size=queue)
        self._items, self.batch_size, self.shuffle = items, int(batch_size) * share[1], shuffle
        self.timeout = timeout
        self._own = slice(share[0] * int(batch_size), (share[0] + 1) * int(batch_size))
        self.ready_at, self.failure = OrderedDict(), None
        self._used, self._lock, self._passes = OrderedDict(), threading.Lock(), 0

    def __len__(self):
        return -(-len(self._items.dataset.image_ids) // self.batch_size)

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(f"there is no batch {index}; the data set has {len(self)}")
        return self.batch(self._passes * len(self) + index)

    def on_epoch_end(self):
        """Goes on to the next pass."""
        self._passes += 1

    @property
    def problems(self):
        """List of (image reference, error text) of the images that could not be used."""
        return list(self._items.record.problems)

    def batch(self, k, strict=False):
        """Makes the k-th batch ever: batch k % len of pass k // len.

        Args:
            k: int.
            strict: bool, raise when neither of the first two images can be used, instead of trying more.

        Returns:
            `(inputs,)` or `(inputs, outputs)`, tuples of arrays.

        Raises:
            ValueError, FileNotFoundError: the first images cannot be used (`strict`), too many could not, or none has
                objects.
            TimeoutError: it takes longer than `timeout`; names the image and where its loading stands.
        """
        try:
            image_ids, inputs, outputs = self._in_time(k, strict)
        except Exception as error:
            self.failure = error
            raise
        # Where no image was scaled the meta data are whole numbers, but Keras wants one dtype in all batches.
        inputs = (inputs[0], inputs[1].astype(np.float64), *inputs[2:])
        with self._lock:
            for memory, value in ((self._used, image_ids), (self.ready_at, time.monotonic())):
                memory[k] = value
                while len(memory) > _REMEMBERED:
                    memory.popitem(last=False)
        return (inputs, outputs) if outputs else (inputs,)

    def _made(self, k, strict):
        image_ids, arrays = zip(*self._gather(k, strict))
        return image_ids, *stack(arrays)

    def _in_time(self, k, strict):
        """(image ids, inputs, outputs) of batch k, or a TimeoutError.

        Nothing ends a thread that hangs, so the work is done in one that nobody has to wait for.
        """
        if not self.timeout:
            return self._made(k, strict)
        answer = []

        def work():
            try:
                answer.append((self._made(k, strict), None))
            except Exception as error:
                answer.append((None, error))
            except BaseException as error:  # exit() would end a thread of Keras, and all would wait for it
                answer.append((None, RuntimeError(f"batch {k}: the data set raised {type(error).__name__}: {error}")))

        thread = threading.Thread(target=work, name=f"batch {k}", daemon=True)
        thread.start()
        # In steps, so that the time in which the whole process was stopped (or asleep) counts as one of them.
        left = self.timeout
        while left > 0 and thread.is_alive():
            thread.join(min(left, 1))
            left -= 1
        if not answer:
            raise self._hangs(k, thread)
        made, error = answer[0]
        if error is not None:
            raise error
        return made

    def _hangs(self, k, thread):
        """The TimeoutError for a thread that does not come to an end with batch k."""
        image_id = self._items.working_on.get(thread.ident)
        what = f"batch {k}" if image_id is None else image_name(self._items.dataset, image_id)
        frame = sys._current_frames().get(thread.ident)
        stands = "".join(traceback.format_stack(frame)[-4:]) if frame else ""
        return TimeoutError(f"{what}: not loaded in DATA_TIMEOUT = {self.timeout} s. Look at the image, at load_image, "
                            "load_mask and the augmentation, and at the disk or network that it lies on; if it only "
                            f"takes long, raise DATA_TIMEOUT. Its thread stands here:\n{stands}")

    def _gather(self, k, strict):
        """[(image id, arrays)] of batch k that are this process's."""
        return [self._items.fetch(image_id, key, strict) for image_id, key in self._planned(k)[self._own]]

    def _planned(self, k):
        """[(image id, key)] that batch k of all processes is to have; the last batch of a pass may be smaller."""
        number, index = divmod(k, len(self))
        order = self._items.order(number, self.shuffle)
        places = range(index * self.batch_size, min((index + 1) * self.batch_size, len(order)))
        return [(int(order[place]), (number, place)) for place in places]

    def check_first_batch(self):
        """Makes the first batch, so that errors of all images show at once and name one; returns it."""
        return self.batch(0, strict=True)

    def image_ids(self, k):
        """[(image id, reference)] of the images that batch k has here; of blank ones that fill it, nothing."""
        if k not in self._used:
            self.batch(k)
        return [(image_id, self._items.reference(image_id)) for image_id in self._used[k] if image_id is not None]


def stack(items):
    """(inputs, outputs) of a batch from the (inputs, outputs) of its images."""
    return tuple(tuple(map(_stack, zip(*part))) for part in zip(*items))


def _stack(arrays):
    return np.stack(arrays) if len(arrays) > 1 else np.asarray(arrays[0])[np.newaxis]  # without a copy
