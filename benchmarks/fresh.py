"""Work that is to be measured in a process of its own: when each stage was done, and the most memory that it took.

`run` starts such a process. It imports nothing but what it measures.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIMIT = 1800  # seconds: far more than any task takes; a process that hangs is not waited for


def run(task, **arguments):
    """Does a task in a new process.

    Args:
        task: "utils", "detect" or "train", see the function of that name.
        arguments: its arguments, and `backend`.

    Returns:
        dict: `seconds` {stage: float}, `memory` in bytes, and `device_memory` in bytes on a GPU, else None.

    Raises:
        RuntimeError: the process failed, with the end of what it said; or it took longer than LIMIT.
    """
    environment = os.environ | {"KERAS_BACKEND": arguments.pop("backend"), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, __file__, json.dumps({"task": task, "started": time.time(), **arguments})]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{task} {arguments} was not done in its process after {LIMIT} s: ended it") from None
    if result.returncode:
        raise RuntimeError(f"{task} {arguments} failed in its process:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])


# ------------------------------------------------------------------ in the new process
class Stages:
    """Seconds of one stage after the other, the first from the start of the process on."""

    def __init__(self, started):
        self.seconds, self._last = {}, started

    def done(self, name):
        now = time.time()
        self.seconds[name], self._last = now - self._last, now


def utils(stages, contender):
    """Imports `mrcnn.utils`, or a peer's counterpart."""
    if contender == "mrcnn":
        import mrcnn.utils  # noqa: F401
    else:
        import torchvision.ops  # noqa: F401
    stages.done("import")


def load(stages, contender):
    """Imports a contender, and then its module here, as the next stage."""
    if contender == "mrcnn":
        import mrcnn.model  # noqa: F401
    else:
        import torchvision.models.detection  # noqa: F401
    stages.done("import")
    if contender == "mrcnn":
        import networks as module
    else:
        import peer as module
    return module


def detect(stages, contender, network, size, instances, photo, precision, masks="full"):
    """Detects twice in a photo of (width, height), after a first time where instances are forced."""
    module = load(stages, contender)
    from contenders import check_found
    from photos import make_photo

    photos = [make_photo(*photo)]
    stages.done("photo")
    arguments = {"masks": masks} if contender == "mrcnn" else {}
    detector = module.Detector(network, size, 1, instances, precision, **arguments)
    stages.done("build")
    boxes = detector.detect(photos)
    stages.done("first detection")
    detector.detect(photos)
    stages.done("second detection")
    check_found(contender, boxes, instances)


def train(stages, contender, network, size, batch, layers, precision):
    """Trains three steps on images with ten objects each."""
    module = load(stages, contender)
    from contenders import check_loss, training_case

    trainer = module.Trainer(*training_case(network, "objects", size, batch, precision), layers)
    stages.done("build")
    losses = [trainer.step() for _ in range(3)]
    stages.done("three steps")
    check_loss(contender, losses[-1])


def peak_memory():
    """The most memory that this process ever took, bytes."""
    try:  # what `resource` says may be that of the process that started this one
        with open("/proc/self/status") as file:
            return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def peak_device_memory():
    """The most memory of a GPU that was in use, bytes; None without one."""
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    if "jax" in sys.modules:
        devices = [device for device in sys.modules["jax"].local_devices() if device.platform != "cpu"]
        return devices[0].memory_stats()["peak_bytes_in_use"] if devices else None
    if "tensorflow" in sys.modules:
        config = sys.modules["tensorflow"].config
        return config.experimental.get_memory_info("GPU:0")["peak"] if config.list_physical_devices("GPU") else None
    return None


def main():
    given = json.loads(sys.argv[1])
    stages = Stages(given.pop("started"))
    stages.done("Python")
    sys.path.append(str(HERE.parent))
    {"utils": utils, "detect": detect, "train": train}[given.pop("task")](stages, **given)
    device_memory = peak_device_memory()
    print(json.dumps({"seconds": stages.seconds, "memory": peak_memory(), "device_memory": device_memory}))


if __name__ == "__main__":
    main()
