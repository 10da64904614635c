"""The few primitives that need speed or care per backend; everything else is plain `keras.ops`.

TensorFlow has fast CPU kernels for non-maximum suppression (`network/suppression.py` has what JAX and torch do instead)
and for cropping (`network/cropping.py`).
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from pathlib import Path

from keras import backend, distribution, ops, random

BACKEND = backend.backend()
if BACKEND == "tensorflow":
    import tensorflow as tf
elif BACKEND == "jax":
    import jax

_FEW = 3  # a gradient is computed place by place where at most one of so many places has any; it wins below a half
_FOR_XLA = contextvars.ContextVar("for_xla", default=BACKEND == "jax")

# ------------------------------------------------------------------------------------------------ the compiler


@contextlib.contextmanager
def for_xla(wanted=True):
    """Has what is traced inside made of operations that XLA knows, if `wanted`; on JAX that is always so."""
    token = _FOR_XLA.set(wanted or _FOR_XLA.get())
    try:
        yield
    finally:
        _FOR_XLA.reset(token)


def fixed_shapes():
    """Whether a program serves one shape, as XLA's do: then no tensor is as long as something that was found."""
    return _FOR_XLA.get()


def has_own_kernels():
    """Whether TensorFlow's own kernels may be used, which XLA does not know."""
    return BACKEND == "tensorflow" and not _FOR_XLA.get()


def has_gpu():
    """Whether the backend computes on a GPU that it may use; for JAX and torch, on anything but a CPU."""
    if BACKEND == "tensorflow":
        return bool(tf.config.get_visible_devices("GPU"))
    return jax.default_backend() != "cpu" if BACKEND == "jax" else ops.zeros(()).device.type != "cpu"


@functools.cache
def multiplies_tiles():
    """Whether the CPU has units for matrices of bfloat16 (AMX), many times as fast as its float32.

    AVX-512's products of bfloat16 are at best twice as fast as those of float32, on some machines half.
    """
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    except OSError:  # no Linux
        return False


def compiles(jit, devices=1):
    """What `Config.JIT` means here: whether XLA compiles the model.

    Args:
        jit: True, False, or "auto" for where it wins: on JAX, and on TensorFlow where there is a GPU.
        devices: int, how many share a batch.

    Raises:
        ValueError: it is True, and the backend cannot do it.
    """
    if BACKEND == "jax":
        return bool(jit)
    several = BACKEND == "tensorflow" and devices > 1
    if jit != "auto" and jit and (several or BACKEND == "torch"):
        where = f"TensorFlow compiles for one device only, and GPU_COUNT = {devices}" if several else "torch has no XLA"
        raise ValueError(f'JIT = True: {where}. Use JIT = "auto", or set KERAS_BACKEND=jax')
    if jit == "auto":
        return BACKEND == "tensorflow" and not several and has_gpu()
    return bool(jit)


# ------------------------------------------------------------------------------------------------ several devices
# TensorFlow runs the model once per device on that device's images, as a "replica". JAX runs it once on all images and
# divides the work itself, so that nothing is to be done here; torch knows one device.


def replicas():
    """The number of replicas that share the batch, of which this is one; 1 outside of them."""
    context = tf.distribute.get_replica_context() if BACKEND == "tensorflow" else None
    return 1 if context is None else context.num_replicas_in_sync


def total(x):
    """The sum of a tensor over all replicas; gradients pass."""
    return tf.distribute.get_replica_context().all_reduce("SUM", x) if replicas() > 1 else x


def uniform(shape, seed):
    """Random numbers in [0, 1) of a shape [batch, ...]; replicas draw for the batch of all, and keep their part."""
    count = replicas()
    if count == 1:
        return random.uniform(shape, seed=seed)
    drawn = random.uniform((count, *shape), seed=seed)
    return tf.gather(drawn, tf.distribute.get_replica_context().replica_id_in_sync_group)


# ----------------------------------------------------------------------------------------------------------- memory


def after(x):
    """A context: what is traced inside is computed when the tensor `x` is there, not before. None: it makes no demand.

    TensorFlow computes as early as it can, and so holds results that are needed much later only.
    """
    return tf.control_dependencies([x]) if has_own_kernels() and x is not None else contextlib.nullcontext()


def enable_memory_growth():
    """Lets TensorFlow take GPU memory as it needs it instead of all at once.

    Call it before the first model is built. JAX reads `XLA_PYTHON_CLIENT_PREALLOCATE=false` instead and torch needs
    nothing: on these backends, and without a GPU, the call does nothing.

    Returns:
        The number of GPUs that were set.
    """
    if BACKEND != "tensorflow":
        return 0
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    return len(gpus)


# ---------------------------------------------------------------------------------------------------- rows of tensors


def per_device(function, *tensors):
    """`function` of tensors [batch, ...], each image for itself; under JAX every device works on its own images.

    XLA divides most operations itself, but for these it would send the rows of all images to all devices.
    """
    shared = distribution.distribution() if BACKEND == "jax" else None
    if shared is None:
        return function(*tensors)
    images = jax.sharding.PartitionSpec(shared.batch_dim_name)
    mesh = shared.device_mesh.backend_mesh
    return jax.shard_map(function, mesh=mesh, in_specs=images, out_specs=images, check_vma=False)(*tensors)


def top_k(x, k):
    """The `k` largest values along the last axis of [batch, N], best first; of equal ones the lower index comes first.

    Returns:
        values and int32 indices, each [batch, k].
    """
    return per_device(lambda rows: local_top_k(rows, k), x)


def local_top_k(x, k):
    """As `top_k`, where one device has all rows, as within `per_device`."""
    if BACKEND == "torch":  # torch.topk leaves the order of equal values open
        indices = ops.argsort(-x, axis=-1)[..., :k]
        return ops.take_along_axis(x, indices, axis=-1), ops.cast(indices, "int32")
    values, indices = ops.top_k(x, k)
    return values, ops.cast(indices, "int32")


def per_image(function):
    """A function of the tensors of one image as one of [batch, ...], so that JAX sees that images do not meet.

    It divides such work between devices by itself; where all images lay in one table it would gather that table first.
    """
    return jax.vmap(function)


def gather_rows(x, indices):
    """Picks rows of each batch entry: [batch, N, ...] and int [batch, K] -> [batch, K, ...]."""
    if BACKEND == "jax":
        return per_image(lambda rows, chosen: ops.take(rows, chosen, axis=0))(x, ops.cast(indices, "int32"))
    batch, rows = ops.shape(x)[0], ops.shape(x)[1]
    offsets = ops.arange(batch, dtype="int32")[:, None] * rows
    flat = ops.reshape(x, (-1, *x.shape[2:]))
    return ops.take(flat, ops.cast(indices, "int32") + offsets, axis=0)


def normalize(x, mean, variance, beta, gamma, epsilon):
    """Batch normalization with fixed statistics over the last axis of x [..., channels]."""
    if BACKEND != "tensorflow":
        return ops.batch_normalization(x, mean, variance, axis=-1, offset=beta, scale=gamma, epsilon=epsilon)
    # TensorFlow's graph optimizer reorders the plain formula, which costs the last digits; this kernel stays as it is
    shape = tf.shape(x)
    folded = tf.reshape(x, [-1, 1, 1, x.shape[-1]]) if x.shape.rank != 4 else x
    names = {"scale": gamma, "offset": beta, "mean": mean, "variance": variance}
    values = {name: tf.convert_to_tensor(value) for name, value in names.items()}
    result = tf.raw_ops.FusedBatchNormV3(x=folded, **values, epsilon=epsilon, is_training=False)
    return tf.reshape(result.y, shape)


# ---------------------------------------------------------------------------------------- convolution


def convolve_where_needed(x, kernel, plain):
    """A convolution of 3 x 3, stride 1 and equal size, whose gradient is computed at the pixels that have one.

    Of the RPN's outputs a few hundred places enter the losses; everywhere else the gradient is zero, and so is what it
    would add to the gradients of the kernel and of `x`.

    Args:
        x: [batch, H, W, channels] float.
        kernel: [3, 3, channels, filters], dtype of `x`.
        plain: function of `x` and `kernel`, the convolution.

    Returns:
        [batch, H, W, filters], as `plain`.
    """
    if not has_own_kernels():
        return plain(x, kernel)

    @tf.custom_gradient
    def convolve(x, kernel):
        def gradient(upstream):
            places = tf.where(tf.reduce_any(upstream != 0, axis=-1))  # [K, (image, y, x)]

            def everywhere():
                common = {"out_backprop": upstream, "strides": [1, 1, 1, 1], "padding": "SAME"}
                for_x = tf.raw_ops.Conv2DBackpropInput(input_sizes=tf.shape(x), filter=kernel, **common)
                return for_x, tf.raw_ops.Conv2DBackpropFilter(input=x, filter_sizes=tf.shape(kernel), **common)

            few = tf.shape(places)[0] * _FEW <= tf.size(upstream) // upstream.shape[-1]
            return tf.cond(few, lambda: _gradients_at(places, x, kernel, upstream), everywhere)

        return plain(x, kernel), gradient

    return convolve(x, tf.convert_to_tensor(kernel))


def _gradients_at(places, x, kernel, upstream):
    """Gradients of a 3 x 3 convolution for its input and its kernel, from the upstream gradient at `places` alone."""
    shape, (channels, filters) = tf.shape(x), kernel.shape[2:]
    places = tf.cast(places, "int32")
    steps = tf.constant([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)])
    around = places[:, None, 1:] + steps  # [K, 9, (y, x)]
    inside = tf.reduce_all((around >= 0) & (around < shape[1:3]), axis=-1)
    around = tf.clip_by_value(around, 0, shape[1:3] - 1)
    pixels = (places[:, :1] * shape[1] + around[..., 0]) * shape[2] + around[..., 1]
    weights = tf.cast(inside, x.dtype)[..., None]

    arrived = tf.gather_nd(upstream, places)
    patches = tf.gather(tf.reshape(x, [-1, channels]), pixels) * weights
    for_kernel = tf.matmul(tf.reshape(patches, [-1, 9 * channels]), arrived, transpose_a=True)
    spread = tf.matmul(arrived, tf.reshape(kernel, [9 * channels, filters]), transpose_b=True)
    spread = tf.reshape(spread, [-1, 9, channels]) * weights
    for_x = tf.math.unsorted_segment_sum(spread, pixels, shape[0] * shape[1] * shape[2])
    return tf.reshape(for_x, shape), tf.reshape(for_kernel, tf.shape(kernel))


# ---------------------------------------------------------------------------------------- what reads all weights


def mean_square(x):
    """The mean of the squares of a tensor or variable of known shape, in one pass over memory, as is its gradient."""
    if BACKEND != "tensorflow":
        return ops.mean(ops.square(x))
    x = tf.convert_to_tensor(x)
    return tf.nn.l2_loss(x) * (2 / max(x.shape.num_elements(), 1))


def clip_together(gradients, most):
    """Gradients, scaled so that the norm of all together is `most` at the most; None where there is no kernel."""
    return tf.clip_by_global_norm(gradients, most)[0] if BACKEND == "tensorflow" else None


def momentum_step(variable, velocity, gradient, rate, momentum):
    """velocity = momentum * velocity - rate * gradient, then variable += velocity: in one pass, where that can be.

    Returns:
        bool; False where there is no kernel for it, and nothing was done.
    """
    if BACKEND != "tensorflow" or tf.distribute.has_strategy() or isinstance(gradient, tf.IndexedSlices):
        return False
    variable, velocity = (getattr(v, "value", v) if not isinstance(v, tf.Variable) else v for v in (variable, velocity))
    numbers = {"lr": tf.cast(rate, variable.dtype), "grad": tf.cast(gradient, variable.dtype),
               "momentum": tf.cast(momentum, variable.dtype)}  # fmt: skip
    tf.raw_ops.ResourceApplyKerasMomentum(var=variable.handle, accum=velocity.handle, **numbers)
    return True


# ---------------------------------------------------------------------------------------- non-maximum suppression


def suppress_by_tensorflow(boxes, max_output, iou_threshold, groups, valid):
    """As `suppression.non_max_suppression`, by TensorFlow's batched kernel.

    It returns scores, so each box carries its rank as a score and is found by it.
    """
    batch, count = tf.shape(boxes)[0], tf.shape(boxes)[1]
    rank = tf.cast(count - tf.range(count), "float32")
    scores = tf.broadcast_to(rank, [batch, count])
    if valid is not None:
        scores = tf.where(valid, scores, 0.0)
    if groups is None:
        scores = scores[:, :, None]
    else:
        ids, depth = groups
        scores = scores[:, :, None] * tf.one_hot(ids, depth)
    result = tf.image.combined_non_max_suppression(
        boxes[:, :, None, :], scores, max_output, max_output, iou_threshold, score_threshold=0.5, clip_boxes=False
    )
    indices = count - tf.cast(result.nmsed_scores, "int32")
    return tf.where(tf.range(max_output) < result.valid_detections[:, None], indices, -1)
