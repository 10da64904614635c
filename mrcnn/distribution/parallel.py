"""A keras.Model on several devices."""

from __future__ import annotations

import contextlib
import functools

import keras
import numpy as np

from mrcnn.distribution import devices

BATCH_SIZE = 32  # Keras' own, where none is given


def inner(model):
    """The model itself, or the one that a ParallelModel wraps."""
    return model.inner_model if isinstance(model, ParallelModel) else model


def scope(model):
    """A context in which Keras knows the devices of a ParallelModel; of any other model there is nothing to know."""
    return model.scope() if isinstance(model, ParallelModel) else contextlib.nullcontext()


def _are_arrays(x):
    """Whether Keras will make batches of this; it does not of a data set."""
    given = keras.tree.flatten(x)
    return bool(given) and all(hasattr(array, "shape") and hasattr(array, "dtype") for array in given)


def _on_all_devices(method):
    """A method of keras.Model that is to run where the devices are known to Keras."""

    @functools.wraps(method)
    def run(self, *args, **kwargs):
        with self.scope():
            return method(self, *args, **kwargs)

    return run


class ParallelModel(keras.Model):
    """A model that trains and predicts on several devices as it would on one.

    A batch is divided evenly between the devices. They hold the same weights, which are those of the wrapped model:
    what is trained here is trained there. Compile and fit this model; its weights are saved and loaded by the wrapped
    one. TensorFlow (`tf.distribute.MirroredStrategy`) and JAX (`keras.distribution.DataParallel`) can do it.

    A loss that is a mean per device, as Keras' own are, is averaged over the devices, so that batches of a data set
    should be even; those of Mask R-CNN are the means over the whole batch. On TensorFlow dropout is the same on all.

    Args:
        keras_model: the keras.Model to run, with symbolic inputs and outputs.
        gpu_count: int, number of devices of this process.
        across_processes: bool, whether the other processes of a cluster train it too, each on as many devices.

    Attributes:
        inner_model: the wrapped model.
        gpu_count: as given.

    Raises:
        ValueError: there are fewer devices, which the message lists, or the backend knows one device only.
    """

    def __init__(self, keras_model, gpu_count, across_processes=False):
        if isinstance(gpu_count, bool) or not isinstance(gpu_count, int | np.integer) or gpu_count < 1:
            raise ValueError(f"gpu_count must be a whole number of 1 or more; received {gpu_count!r}")
        if not isinstance(keras_model, keras.Model) or not getattr(keras_model, "inputs", None):
            raise ValueError("keras_model must be a keras.Model with inputs and outputs (a functional or a built "
                             f"Sequential model); received {type(keras_model).__name__}")
        # past Keras' own bookkeeping, which would count the wrapped model as a layer of this one
        self.__dict__.update(inner_model=keras_model, gpu_count=gpu_count)
        shared = self.__dict__["_devices"] = devices.share(gpu_count, across_processes)
        # not in its scope: TensorFlow's trainer would take the mean of the devices' first images, masks among them
        super().__init__(inputs=keras_model.inputs, outputs=self.make_parallel(), name=keras_model.name)
        self.jit_compile = keras_model.jit_compile
        self.inner_metrics = [] if keras_model.compiled else list(keras_model.metrics)
        shared.synchronize(keras_model._flatten_layers())
        shared.place([*keras_model.variables, *keras_model.metrics_variables])
        # What it has traced knows the variables where they were.
        keras_model.train_function = keras_model.test_function = keras_model.predict_function = None

    def __getattribute__(self, attrname):
        """Loading and saving are the wrapped model's."""
        if attrname.startswith(("load", "save")):
            return getattr(self.inner_model, attrname)
        return super().__getattribute__(attrname)

    def make_parallel(self):
        """The outputs of the wrapped model."""
        return self.inner_model.outputs

    def scope(self):
        """A context in which Keras knows the devices; what is made in it is made for all of them."""
        return self._devices.scope()

    @property
    def device_count(self):
        """Number of the devices that share a batch, those of other processes included."""
        return self._devices.count

    def summary(self, *args, **kwargs):
        """Prints on how many devices the model runs, and the wrapped model."""
        print_fn = kwargs.get("print_fn") or print
        count = self.device_count
        print_fn(f"ParallelModel on {count} device{'s' * (count > 1)}, of:")
        self.inner_model.summary(*args, **kwargs)

    # ---- the wrapped model's own ways

    def call(self, inputs, training=None, mask=None):
        return self.inner_model(inputs, training=training)

    def _overrides(self, method):
        return getattr(type(self.inner_model), method) is not getattr(keras.Model, method)

    def compute_loss(self, *args, **kwargs):
        owner = self.inner_model if self._overrides("compute_loss") else super()
        return owner.compute_loss(*args, **kwargs)

    def compute_metrics(self, *args, **kwargs):
        if not self._overrides("compute_metrics"):
            return super().compute_metrics(*args, **kwargs)
        self.inner_model.compute_metrics(*args, **kwargs)
        return self.get_metrics_result()

    # ---- on all devices

    @_on_all_devices
    def compile(self, *args, **kwargs):
        kwargs.setdefault("jit_compile", self.inner_model.jit_compile)
        super().compile(*args, **kwargs)
        given = keras.tree.flatten([args, kwargs.get("metrics"), kwargs.get("weighted_metrics")])
        metrics = [metric for metric in given if isinstance(metric, keras.metrics.Metric)]
        self._devices.place([variable for metric in metrics for variable in metric.variables])
        if self.optimizer is not None:
            self._devices.adopt(self.optimizer)

    def _build_optimizer(self):
        # TensorFlow cannot make a mirrored variable in a step of training
        if self.compiled and self.optimizer is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)

    @_on_all_devices
    def fit(self, x=None, y=None, batch_size=None, *args, **kwargs):
        self._check_batches(x, batch_size)
        self._build_optimizer()
        return super().fit(x, y, batch_size, *args, **kwargs)

    @_on_all_devices
    def evaluate(self, x=None, y=None, batch_size=None, *args, **kwargs):
        self._check_batches(x, batch_size)
        return super().evaluate(x, y, batch_size, *args, **kwargs)

    @_on_all_devices
    def predict(self, x, batch_size=None, *args, **kwargs):
        if not _are_arrays(x):  # a data set, which makes batches by itself
            return super().predict(x, batch_size, *args, **kwargs)
        devices.share_of(batch_size or BATCH_SIZE, self._devices.own_count)
        rows = devices.length(x)
        filled = keras.tree.map_structure(lambda array: self._fill(np.asarray(array)), x)
        found = super().predict(filled, batch_size, *args, **kwargs)
        return keras.tree.map_structure(lambda array: array[:rows], found)

    def _fill(self, array):
        """An array [rows, ...] whose last row is repeated until the devices can share the rows."""
        return np.concatenate([array, np.repeat(array[-1:], -len(array) % self._devices.own_count, axis=0)])

    def _check_batches(self, x, batch_size):
        """Raises a ValueError if the batches that Keras will make of arrays cannot be shared evenly."""
        if _are_arrays(x):
            rows = devices.length(x)
            size = min(batch_size or BATCH_SIZE, rows)
            for part in (size, rows % max(size, 1)):
                devices.share_of(part, self._devices.own_count)

    @_on_all_devices
    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, **kwargs):
        if class_weight is not None:
            raise ValueError("train_on_batch of a ParallelModel takes no class_weight: give sample_weight, or use fit")
        self._build_optimizer()
        return super().train_on_batch(*self._split(x, y, sample_weight), **kwargs)

    @_on_all_devices
    def test_on_batch(self, x, y=None, sample_weight=None, **kwargs):
        return super().test_on_batch(*self._split(x, y, sample_weight), **kwargs)

    @_on_all_devices
    def predict_on_batch(self, x):
        return super().predict_on_batch(self._devices.split(x))

    def _split(self, *given):
        return map(self._devices.split_for_training, given)
