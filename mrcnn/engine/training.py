"""Which layers train, the optimizer, and what goes around `fit`."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Container

import keras
import numpy as np

from mrcnn.data.checks import did_you_mean
from mrcnn.data.files import is_no_room
from mrcnn.distribution.parallel import scope
from mrcnn.engine.checkpoints import load_optimizer, training_stage
from mrcnn.network import kernels

MEMORY_SETTINGS = ("IMAGES_PER_GPU", "IMAGE_MAX_DIM", "USE_MINI_MASK")
_HEADS = r"(mrcnn|rpn|fpn)_.*"
LAYER_PRESETS = {
    "heads": _HEADS,
    **{f"{first}+": rf"(res|bn)[{first}-5].*|{_HEADS}" for first in (3, 4, 5)},
    "all": ".*",
}


def layer_regex(layers, model):
    """Reads the `layers` argument of `train`.

    Args:
        layers: a preset (heads, 3+, 4+, 5+, all) or a regular expression of whole layer names.
        model: keras.Model whose layers are meant.

    Returns:
        The regular expression, str.

    Raises:
        ValueError: no preset, no expression, or no layer of the model fits; proposes the nearest name.
    """
    wanted = f"layers must be one of {', '.join(LAYER_PRESETS)} or one regular expression; received {layers!r}"
    if not isinstance(layers, str):
        raise ValueError(wanted)
    regex = LAYER_PRESETS.get(layers, layers)
    names = [layer.name for layer in weighted_layers(model)]
    try:
        if any(re.fullmatch(regex, name) for name in names):
            return regex
    except re.error as error:
        raise ValueError(f"{wanted} ({error})") from error
    hint = did_you_mean(layers, [*LAYER_PRESETS, *names])
    raise ValueError(f"layers = {layers!r} fits no layer of the model" + (f".{hint}" if hint else
                     f"; it must be one of {', '.join(LAYER_PRESETS)} or a regular expression of whole layer names"))


def weighted_layers(model):
    """All layers that have weights, those of nested models one by one."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from weighted_layers(layer)
        elif layer.weights:
            yield layer


def set_trainable(model, regex, indent=0, verbose=1):
    """Lets the layers train whose whole name fits a regular expression, and freezes the others.

    Args:
        model: keras.Model; models inside it are entered, whatever their name.
        regex: str.
        indent: number of blanks before printed lines.
        verbose: 1 prints the layers that train.

    Raises:
        ValueError: `regex` is no regular expression; no layer was changed.
    """
    try:
        re.fullmatch(regex, "")
    except (re.error, TypeError) as error:
        raise ValueError(f"layer_regex must be a regular expression of whole layer names; received {regex!r} "
                         f"({error})") from error
    if not model.trainable:
        model.trainable = True  # a frozen model hides the layers in it
    if verbose and indent == 0:
        print("Layers that train:")
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            if verbose:
                print(f"{' ' * indent}In model: {layer.name}")
            set_trainable(layer, regex, indent + 4, verbose)
        elif layer.weights:
            layer.trainable = bool(re.fullmatch(regex, layer.name))
            if verbose and layer.trainable:
                print(f"{' ' * indent}{layer.name:20}   ({type(layer).__name__})")


def _is_schedule(learning_rate):
    return isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule)


def check_learning_rate(learning_rate):
    """Raises a ValueError unless the rate is a finite number above 0 or a Keras schedule."""
    is_number = np.isscalar(learning_rate) and np.isreal(learning_rate)
    if not _is_schedule(learning_rate) and not (is_number and 0 < learning_rate < np.inf):
        raise ValueError(f"learning_rate must be a number above 0 or a Keras LearningRateSchedule; received "
                         f"{learning_rate!r}")


def check_arguments(learning_rate, epochs, custom_callbacks, no_augmentation_sources=None):
    """Raises a ValueError for arguments of `train` that would fail only after the work has begun."""
    check_learning_rate(learning_rate)
    if isinstance(epochs, bool) or not isinstance(epochs, int | np.integer):
        raise ValueError(f"epochs must be a whole number, the total to train up to; received {epochs!r}")
    is_list = custom_callbacks is None or isinstance(custom_callbacks, list | tuple)
    wrong = [c for c in custom_callbacks or () if not isinstance(c, keras.callbacks.Callback)] if is_list else None
    if not is_list or wrong:
        raise ValueError("custom_callbacks must be a list of keras.callbacks.Callback objects; received "
                         f"{wrong[0] if wrong else custom_callbacks!r}")
    if no_augmentation_sources is not None and not isinstance(no_augmentation_sources, Container):
        raise ValueError("no_augmentation_sources must be a list of names of sources; received "
                         f"{no_augmentation_sources!r}")


def check_writable(model_dir):
    """Makes the folder of the runs; a ValueError says why that cannot be."""
    try:
        os.makedirs(model_dir, exist_ok=True)
    except OSError as error:
        raise ValueError(f"model_dir = {model_dir!r} cannot be made ({error.strerror}): choose another") from error
    if not os.access(model_dir, os.W_OK):
        raise ValueError(f"model_dir = {model_dir!r} cannot be written to: choose another")


class SGD(keras.optimizers.SGD):
    """Keras' own, which on TensorFlow clips all gradients in one pass, and changes a weight and its momentum in one."""

    def _clip_gradients(self, grads):
        clipped = kernels.clip_together(grads, self.global_clipnorm) if self.global_clipnorm else None
        return super()._clip_gradients(grads) if clipped is None else clipped

    def update_step(self, gradient, variable, learning_rate):
        if self.momentums and not self.nesterov:
            velocity = self.momentums[self._get_variable_index(variable)]
            if kernels.momentum_step(variable, velocity, gradient, learning_rate, self.momentum):
                return
        super().update_step(gradient, variable, learning_rate)


def make_optimizer(learning_rate, momentum, clip_norm, accumulation=1):
    """Stochastic gradient descent with the norm of all gradients together limited, as the original's Keras did.

    Args:
        learning_rate: float or keras.optimizers.schedules.LearningRateSchedule.
        momentum: float.
        clip_norm: float; 0 or None does not clip.
        accumulation: int, steps whose gradients are averaged, then clipped, for one change of the weights.

    Returns:
        keras.optimizers.SGD.

    Raises:
        ValueError: the learning rate is no positive number and no schedule.
    """
    check_learning_rate(learning_rate)
    rate = learning_rate if _is_schedule(learning_rate) else float(learning_rate)
    steps = accumulation if accumulation > 1 else None
    clip = clip_norm or None
    return SGD(rate, momentum=momentum, global_clipnorm=clip, gradient_accumulation_steps=steps)


def build_optimizer(model):
    """Makes the optimizer's variables now: made in the first step, they would have TensorFlow trace it twice."""
    with scope(model):
        model.optimizer.build(model.trainable_variables)


def restore_optimizer(model, path):
    """Gives a run that was resumed from disk its momentum back; a new stage starts with none.

    Args:
        model: keras.Model, compiled, its optimizer built; what trains is what trained.
        path: of the optimizer's state.
    """
    optimizer, variables = model.optimizer, model.trainable_variables
    load_optimizer(optimizer, path, training_stage(optimizer, variables))


def seed_draws(model, seed, epoch):
    """Sets the random generators inside a model as they are at the start of an epoch.

    Thus a resumed run draws what an uninterrupted one does.

    Args:
        model: keras.Model.
        seed: int, or None to leave them as they are.
        epoch: int, epochs done.
    """
    if seed is None:
        return
    layers = [layer for layer in model.layers if hasattr(layer, "seed_generator")]
    for position, layer in enumerate(layers):
        state = np.random.SeedSequence([seed, epoch, position]).generate_state(2)
        layer.seed_generator.state.assign(state >> 1)  # fits the signed integers that some backends take


def tracing_seconds(model):
    """A guess of how long the first step takes longer than the others, in seconds; 0 where nothing is traced."""
    if keras.backend.backend() == "torch":
        return 0
    per_layer = 0.2 if keras.backend.backend() == "jax" else 0.1
    return 4 + round(per_layer * sum(1 for _ in weighted_layers(model)))


def announce(model, learning_rate, epoch, epochs, checkpoint_path):
    """Prints where a training starts, after `epoch` of `epochs` epochs, and where its checkpoints go."""
    resuming = f", resuming at epoch {epoch + 1} of {epochs}" if epoch else ""
    rate = f"by {type(learning_rate).__name__}" if _is_schedule(learning_rate) else learning_rate
    print(f"Start epoch: {epoch}, learning rate: {rate}{resuming}")
    print(f"Checkpoint path: {checkpoint_path}")
    if seconds := tracing_seconds(model):
        print(f"Tracing the graph, this takes about {seconds} s", flush=True)


def list_problems(stream, validation=None):
    """Prints the images that a training could not use, and why."""
    for data, where in ((stream, ""), (validation, " of the validation")):
        for reference, problem in data.problems if data is not None else ():
            print(f"Left out{where}: {reference}: {problem}")


@contextlib.contextmanager
def clear_errors(sizes, *data):
    """Says what is meant: errors of a data thread as they were raised there, and what helps when memory runs out.

    Args:
        sizes: dict of the settings that memory depends on, by name.
        data: data sets of the loader, which keep the error that ended them in `failure`; or None.
    """
    try:
        yield
    except Exception as error:
        failure = next((part.failure for part in data if part is not None and part.failure is not None), None)
        if failure is not None:
            raise failure from None  # the framework's own account of it is long and says nothing more
        if not _is_out_of_memory(error):
            raise
        settings = ", ".join(f"{name} = {value}" for name, value in sizes.items())
        raise MemoryError(
            f"The device has too little memory for {settings}. Use fewer IMAGES_PER_GPU (GRADIENT_ACCUMULATION makes "
            "up for it), a smaller IMAGE_MAX_DIM, USE_MINI_MASK = True, or a smaller BACKBONE; config.display() "
            "estimates what is needed."
        ) from error


def stop_threads(*data):
    """Ends the threads that Keras started for data sets of the loader.

    After an exception Keras leaves them running, with the batches that they have prepared.
    """
    for thread in threading.enumerate():
        owner = getattr(getattr(thread, "_target", None), "__self__", None)
        if any(part is not None and getattr(owner, "py_dataset", None) is part for part in data):
            with contextlib.suppress(Exception):  # of batches that nobody waits for any more
                owner.stop()


def _is_out_of_memory(error):
    if is_no_room(error):  # TensorFlow has one name for both
        return False
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & {"ResourceExhaustedError", "OutOfMemoryError"}) or "RESOURCE_EXHAUSTED" in str(error)
