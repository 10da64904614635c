"""Building blocks: batch norm with the original's three modes, layers that work on every ROI, and their precision."""

from __future__ import annotations

import contextlib
import math

import keras
from keras import ops

from mrcnn.network import kernels, winograd

# What takes or gives coordinates, scores or masks computes in this, whatever the layers between do: coarser numbers
# would move boxes, and give many anchors the same score.
EXACT = "float32"


@contextlib.contextmanager
def precision(name):
    """Lets the layers made inside compute in "float32" or "bfloat16", if they are not told otherwise.

    Their weights, gradients and statistics are float32 either way. What Keras was set to before holds again afterwards.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if name == "bfloat16" else name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalization whose mode is chosen where it is called: `training=` False, None or True.

    False keeps the loaded statistics (small batches would spoil them), None follows the phase that the model runs in,
    True always normalizes with the batch. The affine part is trained in all three.
    """

    def call(self, inputs, training=None, mask=None):
        if (training and self.trainable) or not (self.center and self.scale and self.axis in (-1, inputs.ndim - 1)):
            return super().call(inputs, training=training, mask=mask)
        return kernels.normalize(
            inputs, self.moving_mean, self.moving_variance, self.beta, self.gamma, self.epsilon
        )


class Conv2D(keras.layers.Conv2D):
    """`Conv2D` that detects with fewer multiplications where that is faster, see `winograd`."""

    def takes_fewer(self, x):
        """Whether `x` [batch, H, W, channels] is convolved so, where this is called."""
        plain = self.strides == self.dilation_rate == (1, 1) and self.padding == "same" and self.groups == 1
        return plain and self.data_format == "channels_last" and winograd.pays(x, self.kernel)

    def convolution_op(self, inputs, kernel):
        if self.takes_fewer(inputs):
            return winograd.convolve(inputs, kernel)
        return super().convolution_op(inputs, kernel)


class SparselyLearned(Conv2D):
    """`Conv2D` of 3 x 3 for outputs of which few places are learned from at a time; the numbers are the same."""

    def convolution_op(self, inputs, kernel):
        if self.kernel_size != (3, 3) or self.strides != (1, 1) or self.padding != "same" or winograd.is_preferred():
            return super().convolution_op(inputs, kernel)
        return kernels.convolve_where_needed(inputs, kernel, super().convolution_op)


class _PerROI:
    """Folds [batch, N, h, w, c] into [batch * N, h, w, c] for a 2-D layer and unfolds the result."""

    def build(self, input_shape):
        super().build((None, *input_shape[2:]))
        self.input_spec = keras.layers.InputSpec(ndim=5, axes={-1: input_shape[-1]})

    def call(self, inputs):
        rois = ops.shape(inputs)[1]
        output = super().call(ops.reshape(inputs, (-1, *inputs.shape[2:])))
        return ops.reshape(output, (-1, rois, *output.shape[1:]))

    def compute_output_shape(self, input_shape):
        if len(input_shape) == 4:  # Keras checks the folded shape while it builds
            return super().compute_output_shape(input_shape)
        output_shape = super().compute_output_shape((None, *input_shape[2:]))
        return (*input_shape[:2], *output_shape[1:])


class ROIConv2D(_PerROI, keras.layers.Conv2D):
    """`Conv2D` on every ROI of [batch, N, h, w, channels]."""

    def convolution_op(self, inputs, kernel):
        if self.padding != "valid" or tuple(inputs.shape[1:3]) != self.kernel_size or self.groups > 1:
            return super().convolution_op(inputs, kernel)
        # A kernel as large as its input makes the convolution a matrix product; on a CPU with TensorFlow this runs
        # twice as fast, a 1 x 1 kernel on 1 x 1 regions seven times.
        size, filters = math.prod(kernel.shape[:-1]), kernel.shape[-1]
        product = ops.matmul(ops.reshape(inputs, (-1, size)), ops.reshape(kernel, (size, filters)))
        return ops.reshape(product, (-1, 1, 1, filters))


class ROIConv2DTranspose(_PerROI, keras.layers.Conv2DTranspose):
    """`Conv2DTranspose` on every ROI of [batch, N, h, w, channels]."""
