"""ParallelModel: a Keras model on several devices, for training and for detection.

    python -m mrcnn.parallel_model

trains a small network on drawn digits on two devices, into which the CPU is divided, and compares it with one device.
`MaskRCNN` uses ParallelModel by itself where `GPU_COUNT` is more than 1, or several processes train together; then
docs/distributed.md is the place to read on.
"""

import mrcnn.engine.requirements  # noqa: F401 - before the imports that need a new Keras
from mrcnn.distribution.devices import divide_cpu, found_devices
from mrcnn.distribution.parallel import ParallelModel

__all__ = ["ParallelModel", "divide_cpu", "found_devices"]

if __name__ == "__main__":
    import sys

    from mrcnn.distribution.digits import main

    sys.exit(0 if main() else 1)
