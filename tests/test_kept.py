"""The memory for what was read and scaled once."""

import gc
import threading

from mrcnn.data.dataset import Dataset
from mrcnn.data.kept import Memory


def test_found_again_as_long_as_the_stamp_is_the_same():
    memory, dataset = Memory(), Dataset()
    assert memory.find(dataset, "slot", 1) is None
    memory.keep(dataset, "slot", 1, "value", 10, 100)
    assert memory.find(dataset, "slot", 1) == "value"
    assert memory.find(dataset, "slot", 2) is None and memory.find(dataset, "other", 1) is None
    assert memory.find(Dataset(), "slot", 1) is None
    memory.keep(dataset, "slot", 2, "new", 20, 100)
    assert memory.find(dataset, "slot", 2) == "new" and memory.find(dataset, "slot", 1) is None
    assert memory.used == 20
    memory.forget()
    assert memory.used == 0 and memory.find(dataset, "slot", 2) is None


def test_what_does_not_fit_is_not_taken_and_drops_nothing():
    memory, first, second = Memory(), Dataset(), Dataset()
    memory.keep(first, 0, 0, "a", 60, 100)
    memory.keep(second, 0, 0, "b", 50, 100)  # one limit for all data sets
    assert memory.find(first, 0, 0) == "a" and memory.find(second, 0, 0) is None and memory.used == 60
    memory.keep(second, 0, 0, "b", 40, 100)
    assert memory.find(second, 0, 0) == "b" and memory.used == 100


def test_a_data_set_takes_its_own_along():
    memory, dataset, other = Memory(), Dataset(), Dataset()
    memory.keep(dataset, 0, 0, "a", 60, 100)
    memory.keep(other, 0, 0, "b", 30, 100)
    del dataset
    gc.collect()
    assert memory.used == 30 and memory.find(other, 0, 0) == "b"


def test_data_sets_that_call_themselves_equal_are_two():
    class Same(Dataset):
        def __eq__(self, other):
            return True

        __hash__ = None

    memory, first, second = Memory(), Same(), Same()
    memory.keep(first, 0, 0, "a", 1, 100)
    assert memory.find(first, 0, 0) == "a" and memory.find(second, 0, 0) is None


def test_an_object_without_weak_references_is_left_alone():
    class Slots:
        __slots__ = ()

    memory, dataset = Memory(), Slots()
    memory.keep(dataset, 0, 0, "a", 1, 100)
    assert memory.find(dataset, 0, 0) is None and memory.used == 0


def test_threads_count_together():
    memory, datasets = Memory(), [Dataset() for _ in range(4)]

    def work(dataset):
        for i in range(500):
            memory.keep(dataset, i % 50, i, str(i), 1, 150)
            memory.find(dataset, i % 50, i)

    threads = [threading.Thread(target=work, args=[dataset]) for dataset in datasets]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert memory.used == 150 == sum(len(values) for _, values in memory._stores.values())
