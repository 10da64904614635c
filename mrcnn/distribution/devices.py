"""The devices that share a batch: which there are, and how variables and images get onto them.

TensorFlow has `tf.distribute.MirroredStrategy`, JAX `keras.distribution.DataParallel`; torch runs on one device.
"""

from __future__ import annotations

import functools

import keras
import numpy as np

from mrcnn.distribution import processes

BACKEND = keras.backend.backend()
if BACKEND == "tensorflow":
    import tensorflow as tf
elif BACKEND == "jax":
    import jax


def found_devices():
    """Names of the devices of this process, such as "gpu:0": the GPUs (or TPUs), or the CPUs where there are none."""
    if BACKEND == "torch":
        return ["torch's current device"]
    if BACKEND == "jax":
        return [f"{device.platform}:{device.id}" for device in jax.local_devices()]
    return keras.distribution.list_devices()


def check_devices(gpu_count):
    """Raises a ValueError that lists the devices found if there are fewer than a config asks for."""
    if gpu_count == 1:
        return
    found = found_devices()
    listed = f"GPU_COUNT = {gpu_count}: found {len(found)} ({', '.join(found)})"
    if BACKEND == "torch":
        raise ValueError(f"{listed}. The torch backend runs on one device: use GPU_COUNT = 1, or the backend "
                         "tensorflow or jax")
    if len(found) < gpu_count:
        kind = found[0].split(":")[0]
        remedy = f"Use GPU_COUNT = {len(found)}, and IMAGES_PER_GPU for the batch size"
        if kind == "cpu":
            remedy += ("; no GPU was found, and a CPU counts as one device unless it is divided, see `divide_cpu` in "
                       "mrcnn.parallel_model")
        raise ValueError(f"{listed}. {remedy}")


def divide_cpu(count):
    """Lets the CPU count as several devices, to try on one machine what is meant for several GPUs.

    It leaves GPUs out of use. Call it before anything is computed: TensorFlow and JAX choose their devices once.

    Args:
        count: int, number of devices that the CPU is to be.

    Raises:
        RuntimeError: it is too late, or the backend cannot.
    """
    try:
        if BACKEND == "tensorflow":
            tf.config.set_visible_devices([], "GPU")
            cpu = tf.config.list_physical_devices("CPU")[0]
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
        elif BACKEND == "jax":
            jax.config.update("jax_num_cpu_devices", count)
            jax.config.update("jax_platforms", "cpu")
    except RuntimeError as error:
        raise RuntimeError(f"divide_cpu({count}) must come before {BACKEND} computes anything") from error
    if BACKEND == "torch":
        raise RuntimeError("torch runs on one device: choose the backend tensorflow or jax")


def share(gpu_count, across_processes):
    """The devices that a model is to run on.

    Args:
        gpu_count: int, number of devices of this process.
        across_processes: bool, whether those of all other processes belong to them.

    Returns:
        `Mirrored` or `Divided`.
    """
    check_devices(gpu_count)
    if BACKEND == "tensorflow":
        return Mirrored(gpu_count)
    if BACKEND == "jax":
        return Divided(gpu_count, across_processes)
    raise ValueError("ParallelModel needs the backend tensorflow or jax: torch runs on one device")


def share_of(rows, count):
    """The number of images that each of `count` devices gets of a batch of `rows`; a ValueError if that is uneven."""
    if rows % count:
        raise ValueError(f"a batch of {rows} images cannot be divided evenly between {count} devices: use a multiple "
                         f"of {count}")
    return rows // count


def length(arrays):
    """The number of rows of arrays [batch, ...], in whatever structure."""
    return len(keras.tree.flatten(arrays)[0])


@functools.cache
def _strategy(names):
    """One strategy for all models on these devices: TensorFlow mixes up the messages of two on the same ones."""
    on_cpus = names[0].startswith("CPU")
    return tf.distribute.MirroredStrategy(names, tf.distribute.ReductionToOneDevice() if on_cpus else None)


class Mirrored:
    """Devices that TensorFlow runs a model on as replicas, each with its own images and a copy of all variables.

    Args:
        count: int.

    Attributes:
        count, own_count: number of all devices, and of those of this process: as given.
        strategy: tf.distribute.Strategy.
    """

    def __init__(self, count):
        self.count = self.own_count = count
        self.strategy = _strategy(tuple(name.upper() for name in found_devices()[:count]))

    def scope(self):
        """A context in which variables are made for all devices, and training uses them."""
        return self.strategy.scope()

    def place(self, variables):
        """Moves Keras variables, which keep their identity and values, onto all devices."""
        for variable in variables:
            value = keras.ops.convert_to_numpy(variable)
            if variable.aggregation == "none" and not variable.trainable:
                # Replicas come to the same values; TensorFlow wants to know which of them counts.
                is_float = keras.backend.is_float_dtype(variable.dtype)
                variable._aggregation = "mean" if is_float else "only_first_replica"
            with self.scope():
                variable._initialize(value)

    def adopt(self, optimizer):
        """Moves an optimizer onto all devices; it gets to see the gradients of all of them before it clips.

        Keras (3.15) clips what each replica has for itself, and adds up afterwards.
        """
        if optimizer._distribution_strategy is self.strategy:
            return  # it has been here before
        self.place(optimizer.variables)
        optimizer._distribution_strategy = self.strategy
        clip = optimizer._clip_gradients
        optimizer._clip_gradients = lambda gradients: clip(_sum_over_replicas(gradients))
        optimizer._all_reduce_sum_gradients = list  # they are summed already

    def synchronize(self, layers):
        """Lets batch normalization that learns use the statistics of all devices."""
        for layer in layers if self.count > 1 else ():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True

    def split(self, arrays):
        """Divides arrays [batch, ...], or None, between the devices."""
        if arrays is None:
            return None
        size = share_of(length(arrays), self.count)

        def part(array):
            return self.strategy.experimental_distribute_values_from_function(
                lambda context: tf.convert_to_tensor(array[context.replica_id_in_sync_group * size :][:size])
            )

        return keras.tree.map_structure(part, arrays)

    split_for_training = split


def _sum_over_replicas(gradients):
    context, there = tf.distribute.get_replica_context(), [g for g in gradients if g is not None]
    summed = iter(context.all_reduce("SUM", there))
    return [None if g is None else next(summed) for g in gradients]


class Divided:
    """Devices between which JAX divides the images of a batch; it runs the model as if there were one device.

    Args:
        count: int, devices of this process.
        across_processes: bool, whether those of the other processes, as many of each, belong to them.

    Attributes:
        count, own_count: number of all devices, and of those of this process.
        distribution: keras.distribution.DataParallel.
    """

    def __init__(self, count, across_processes):
        self.own_count = count
        chosen = jax.local_devices()[:count]
        if across_processes and processes.count() > 1:
            everywhere = [[d for d in jax.devices() if d.process_index == p] for p in range(processes.count())]
            chosen = [device for theirs in everywhere for device in theirs[:count]]
        self.count = len(chosen)
        mesh = keras.distribution.DeviceMesh((self.count,), ["batch"], np.array(chosen))
        self.distribution = keras.distribution.DataParallel(device_mesh=mesh, auto_shard_dataset=False)

    def scope(self):
        """A context in which variables are made for all devices, and training uses them."""
        return self.distribution.scope()

    def place(self, variables):
        """Moves Keras variables, which keep their identity and values, onto all devices.

        Those of the first process count.
        """
        values = processes.arrays_from_first([keras.ops.convert_to_numpy(variable) for variable in variables])
        mesh = self.distribution.device_mesh.backend_mesh
        everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        for variable, value in zip(variables, values, strict=True):
            variable._layout = self.distribution.get_variable_layout(variable)
            variable._value = jax.make_array_from_process_local_data(everywhere, value, value.shape)

    def adopt(self, optimizer):
        """Moves an optimizer onto all devices."""
        self.place(optimizer.variables)

    def synchronize(self, layers):
        """Nothing: all statistics are those of the whole batch."""

    def split(self, arrays):
        """Divides arrays [batch, ...] between the devices, the batch being that of this process."""
        share_of(length(arrays), self.own_count)

        def part(array):
            layout = self.distribution.get_data_layout(np.shape(array)).backend_layout
            return jax.make_array_from_process_local_data(layout, np.asarray(array))

        return keras.tree.map_structure(part, arrays)

    def split_for_training(self, arrays):
        """Keras divides them itself; this says clearly if it will not be able to."""
        if arrays is not None:
            share_of(length(arrays), self.own_count)
        return arrays
