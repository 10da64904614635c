"""What was read and scaled once, kept in memory for the next epoch, within a limit for the whole process."""

import threading
import weakref


class Memory:
    """Values of data sets, found again by a slot as long as their stamp is the same.

    When the limit is reached nothing more is taken: of a pass over more images than fit, a part is found in every
    pass, while dropping the oldest would drop each just before its turn. What belongs to a data set goes with it. The
    data sets themselves know nothing of this, and can be copied and pickled. For any number of threads.
    """

    def __init__(self):
        self._lock = threading.RLock()  # the end of a data set may come in the midst of anything
        self._stores = {}  # id of a data set -> (weak reference, {slot: (stamp, value, bytes)})
        self.used = 0

    def find(self, dataset, slot, stamp):
        """The value that was kept under this slot with this stamp, or None."""
        with self._lock:
            reference, values = self._stores.get(id(dataset), (None, {}))
            if reference is None or reference() is not dataset or slot not in values:
                return None
            known, value, _ = values[slot]
            return value if known == stamp else None

    def keep(self, dataset, slot, stamp, value, size, limit):
        """Keeps a value of `size` bytes in place of what was in the slot, if all together stays below the limit."""
        with self._lock:
            values = self._values(dataset)
            if values is None:
                return
            self.used -= values.pop(slot, (None, None, 0))[2]
            if self.used + size <= limit:
                values[slot] = (stamp, value, size)
                self.used += size

    def forget(self):
        """Lets go of everything."""
        with self._lock:
            self._stores.clear()
            self.used = 0

    def _values(self, dataset):
        key = id(dataset)
        reference, values = self._stores.get(key, (None, None))
        if reference is not None and reference() is dataset:
            return values
        try:
            reference = weakref.ref(dataset, lambda gone: self._drop(key, gone))
        except TypeError:  # a class with __slots__
            return None
        self._drop(key)  # of a data set that lay at this address
        self._stores[key] = (reference, {})
        return self._stores[key][1]

    def _drop(self, key, reference=None):
        with self._lock:
            if reference in (None, self._stores.get(key, (None,))[0]):
                _, values = self._stores.pop(key, (None, {}))
                self.used -= sum(size for _, _, size in values.values())


MEMORY = Memory()
