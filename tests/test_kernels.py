import numpy as np
import pytest
from arrays import array
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import backend, ops

from mrcnn.network import kernels


# ------------------------------------------------------------------ order
def test_top_k_takes_the_lower_index_of_equal_values():
    values, indices = kernels.top_k(ops.convert_to_tensor(np.array([[1, 3, 3, 0, 3]], "float32")), 4)
    assert array(indices).tolist() == [[1, 2, 4, 0]]
    assert array(values).tolist() == [[3, 3, 3, 1]]


def test_gather_rows_stays_within_its_image():
    x = np.arange(24, dtype="float32").reshape(2, 4, 3)
    picked = kernels.gather_rows(ops.convert_to_tensor(x), ops.convert_to_tensor(np.array([[3, 0], [1, 1]], "int32")))
    np.testing.assert_array_equal(array(picked), [x[0, [3, 0]], x[1, [1, 1]]])


# ------------------------------------------------------------------ the compiler
@pytest.mark.parametrize(("flags", "expected"), [
    ("fpu avx512f avx512_bf16 amx_bf16 amx_tile", True), ("fpu avx512f avx512_bf16", False), (None, False),
])  # fmt: skip
def test_units_for_bfloat16(monkeypatch, tmp_path, flags, expected):
    file = tmp_path / "cpuinfo"
    if flags is not None:
        file.write_text(f"processor : 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(kernels, "Path", lambda path: file)
    assert kernels.multiplies_tiles.__wrapped__() is expected


def test_what_jit_means():
    name = backend.backend()
    if name != "tensorflow":  # there it is a matter of GPUs
        assert kernels.compiles("auto") is (name == "jax")
    assert kernels.compiles(False) is False and kernels.compiles(False, 2) is False
    if name == "torch":
        with pytest.raises(ValueError, match='JIT = True: torch has no XLA. Use JIT = "auto"'):
            kernels.compiles(True)
        return
    assert kernels.compiles(True) is True
    if name == "tensorflow":
        assert kernels.compiles("auto", 2) is False
        with pytest.raises(ValueError, match="one device only, and GPU_COUNT = 2. Use JIT"):
            kernels.compiles(True, 2)


# ------------------------------------------------------------------ all weights
def test_mean_square():
    x = np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")
    assert float(kernels.mean_square(ops.convert_to_tensor(x))) == pytest.approx(np.square(x).mean(), rel=1e-5)
    assert float(kernels.mean_square(ops.convert_to_tensor(x[:1, :1, 0]))) == pytest.approx(x[0, 0, 0] ** 2, rel=1e-5)


# ------------------------------------------------------------------ convolution
@pytest.mark.skipif(backend.backend() != "tensorflow", reason="the gradient is our own on TensorFlow only")
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 3), sides=st.tuples(*[st.integers(1, 12)] * 2),
       share=st.sampled_from([0.0, 0.02, 0.05, 0.5, 1.0]), compiled=st.booleans())  # fmt: skip
def test_the_gradient_of_few_places_is_that_of_all(seed, batch, sides, share, compiled):
    import tensorflow as tf

    rng = np.random.default_rng(seed)
    x = tf.constant(rng.normal(size=(batch, *sides, 3)).astype("float32"))
    kernel = tf.constant(rng.normal(size=(3, 3, 3, 4)).astype("float32"))
    weights = rng.normal(size=(batch, *sides, 4)) * (rng.random((batch, *sides, 1)) < share)

    def plain(x, kernel):
        return tf.nn.conv2d(x, kernel, 1, "SAME")

    def gradients(convolve):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            result = convolve(x, kernel)
            total = tf.reduce_sum(result * weights.astype("float32"))
        return result, *tape.gradient(total, [x, kernel])

    def ours(x, kernel):
        return kernels.convolve_where_needed(x, kernel, plain)

    got, want = (tf.function(gradients) if compiled else gradients)(ours), gradients(plain)
    for ours_, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours_, theirs, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------ memory
def test_memory_growth_without_a_gpu_does_nothing():
    assert kernels.enable_memory_growth() >= 0
