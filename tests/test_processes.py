"""Processes that work together: how they find each other, train as one, end together and go on."""

import csv
import json
import re
import signal
import socket
from pathlib import Path

import pytest
from clusters import Cluster, free_port

from mrcnn.distribution import processes

ADDRESS, NUMBER, OWN = processes.KERAS_VARIABLES


def tensorflow_cluster(workers):
    return {"TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": 0}})}


# ---- what describes a cluster


@pytest.mark.parametrize("environment", [
    {}, {ADDRESS: ""}, {"SLURM_STEP_NUM_TASKS": "1"}, {"SLURM_JOB_ID": "7"}, {"OMPI_COMM_WORLD_SIZE": "1"},
    {"TF_CONFIG": ""}, tensorflow_cluster(["here:1"]),
])  # fmt: skip
def test_alone(environment):
    assert processes.described(environment) is None


def test_descriptions():
    keras = {ADDRESS: "host:1234,other:1234", NUMBER: "2", OWN: "1"}
    assert processes.described(keras | {"SLURM_STEP_NUM_TASKS": "8"}) == (
        "Keras' variables",
        {"coordinator_address": "host:1234", "num_processes": 2, "process_id": 1,
         "cluster_detection_method": "deactivate"},
    )  # fmt: skip
    assert processes.described({"SLURM_STEP_NUM_TASKS": "4"}) == ("SLURM", {})
    assert processes.described({"OMPI_COMM_WORLD_SIZE": "4"}) == ("Open MPI", {})
    assert processes.described(tensorflow_cluster(["a:1", "b:1"])) == ("TF_CONFIG", {"num_processes": 2})


@pytest.mark.parametrize("environment, message", [
    ({ADDRESS: "host:1"}, f"{NUMBER}, {OWN} must be set too"),
    ({ADDRESS: "host:1", NUMBER: "two", OWN: "0"}, f"{NUMBER} must be a whole number; it is 'two'"),
    ({ADDRESS: "host:1", NUMBER: "2", OWN: "-1"}, f"{OWN} must be a whole number; it is '-1'"),
    ({ADDRESS: "host:1", NUMBER: "2", OWN: "2"}, f"{OWN} = 2, but with 2 processes the last is 1"),
    ({ADDRESS: "host", NUMBER: "2", OWN: "1"}, "must be HOST:PORT"),
    ({"TF_CONFIG": "{"}, "TF_CONFIG is no description"),
    ({"TF_CONFIG": "[]"}, "TF_CONFIG is no description"),
])  # fmt: skip
def test_wrong_descriptions(environment, message):
    with pytest.raises(ValueError, match=message):
        processes.described(environment)


@pytest.mark.skipif(processes.BACKEND != "tensorflow", reason="TF_CONFIG is for TensorFlow")
def test_tensorflow_says_what_to_use(monkeypatch):
    for name, value in tensorflow_cluster(["a:1", "b:1"]).items():
        monkeypatch.setenv(name, value)
    said = r"by TF_CONFIG several processes are to train.*KERAS_BACKEND=jax.*distributed\.md"
    with pytest.raises(ValueError, match=said):
        processes.join()


@pytest.mark.skipif(processes.BACKEND == "jax", reason="JAX would join them")
def test_processes_of_a_scheduler_may_work_for_themselves(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.warns(UserWarning, match="SLURM started several processes; on .* each works for itself"):
        processes.join()
    assert processes.count() == 1


# ---- a process alone


def test_a_process_alone_is_the_first_and_only_one():
    assert (processes.count(), processes.index(), processes.is_first()) == (1, 0, True)
    assert processes.from_first("value") == "value"
    assert processes.gather({"a": 1}) == [{"a": 1}]
    assert processes.arrays_from_first([1, 2]) == [1, 2]


def test_errors_of_a_process_alone_stay_as_they_are():
    with pytest.raises(KeyError, match="my own"), processes.together():
        raise KeyError("my own")


# ---- a cluster on this machine


def answer(text):
    """The JSON in the last line that has some."""
    return json.loads([line for line in text.splitlines() if line.startswith("{")][-1])


def losses(folder):
    (path,) = Path(folder).glob("*/log.csv")
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: float(value) for name, value in row.items() if name != "data_wait"} for row in rows]


@pytest.mark.slow
@pytest.mark.backend
def test_two_processes_train_and_evaluate_as_one(tmp_path):
    results = {}
    for count in (1, 2):
        arguments = (tmp_path / f"runs{count}", 4 // count, 2, 1, 7)
        with Cluster(count, tmp_path, "cluster_worker.py", *arguments) as cluster:
            results[count] = cluster.finish(300)
    (alone,), (first, second) = results[1], results[2]
    assert "2 processes work together" in first
    for what in ("Start epoch", "2/2 - ", "Average Precision"):
        assert what in first and what not in second  # one speaks
    (one_epoch,), (shared_epoch,) = losses(tmp_path / "runs1"), losses(tmp_path / "runs2")
    assert shared_epoch == pytest.approx(one_epoch, rel=1e-5, abs=1e-7)
    one, two, other = answer(alone), answer(first), answer(second)
    assert two == other and two["epoch"] == 1
    assert two["weights"] == pytest.approx(one["weights"], rel=1e-6)
    assert two["images"] == one["images"] == 9 and two["detections"] == one["detections"]
    assert two["scores"] == pytest.approx(one["scores"], abs=1e-6)
    (run,) = (tmp_path / "runs2").iterdir()
    assert sorted(path.name for path in run.iterdir()) == ["log.csv", "mask_rcnn_tiny_0001.h5", "optimizer_0001.h5"]


def kill_in_the_second_epoch(folder, number, count=2):
    """Starts a training without a seed, kills one process in its second epoch; exit codes, seconds, texts."""
    with Cluster(count, folder, "cluster_worker.py", folder / "runs", 1, 6, 3, "none", 0.5) as cluster:
        cluster.wait_for(0, "Epoch 2/3", 300)
        cluster.processes[number].send_signal(signal.SIGKILL)
        codes, seconds = cluster.join(100)
        return codes, seconds, [cluster.text(n) for n in range(count)]


def check_that_it_goes_on(folder, count=2):
    with Cluster(count, folder, "cluster_worker.py", folder / "runs", 1, 6, 3, "none") as cluster:
        texts = cluster.finish(300)
    assert "resuming at epoch 2 of 3" in texts[0]
    assert {answer(text)["epoch"] for text in texts} == {3} and len({answer(text)["weights"] for text in texts}) == 1
    assert [row["epoch"] for row in losses(folder / "runs")] == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.backend
def test_when_a_process_is_killed_the_others_end_and_all_can_go_on(tmp_path):
    codes, seconds, texts = kill_in_the_second_epoch(tmp_path, 1)
    assert codes == [1, -signal.SIGKILL] and seconds < 60
    said = r"process 0 of 2 stops, because another one has ended.*go on from .*mask_rcnn_tiny_0001\.h5"
    assert re.search(said, texts[0]), texts[0]
    check_that_it_goes_on(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("count, number", [(2, 0), (4, 0), (4, 2)])
def test_killed_processes_of_two_and_four(tmp_path, count, number):
    codes, seconds, texts = kill_in_the_second_epoch(tmp_path, number, count)
    assert all(codes) and codes[number] == -signal.SIGKILL and seconds < 60
    for other in set(range(count)) - {number}:  # that of the first is noticed by JAX itself
        assert "another one has ended" in texts[other] or "another task died" in texts[other]
    check_that_it_goes_on(tmp_path, count)


@pytest.mark.slow
@pytest.mark.backend
def test_a_process_that_fails_ends_the_others(tmp_path):
    """Data that only one of them cannot read."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nimport tiny\nfrom mrcnn.distribution import processes\n"
        "from mrcnn.model import MaskRCNN\nmodel = MaskRCNN('training', tiny.config(), sys.argv[1])\n"
        "data = tiny.Squares(20)\nif processes.index():\n    data.load_mask = lambda image_id: 1 / 0\n"
        "model.train(data, None, 0.001, 1, 'all')\n"
    )
    with Cluster(2, tmp_path, program, tmp_path / "runs") as cluster:
        codes, seconds = cluster.join(200)
        assert codes[1] == 1 and "division by zero" in cluster.text(1)
        assert codes[0] == 1 and "process 0 of 2 stops, because another one has ended" in cluster.text(0)
    assert seconds < 120 and not list((tmp_path / "runs").glob("*/*.h5"))


@pytest.mark.slow
@pytest.mark.backend
def test_processes_with_other_settings(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nimport tiny\nfrom mrcnn.distribution import processes\nfrom mrcnn.model import MaskRCNN\n"
        "processes.join()\nconfig = tiny.config(TRAIN_ROIS_PER_IMAGE=8 + processes.index())\n"
        "model = MaskRCNN('training', config, 'runs')\n"
        "model.train(tiny.Squares(20 + processes.index()), None, 0.001, 1, 'all')\n"
    )
    with Cluster(2, tmp_path, program) as cluster:
        codes, seconds = cluster.join(200)
        said = "differ in TRAIN_ROIS_PER_IMAGE, training_images (process 0: 8; process 1: 9)"
        assert all(codes) and seconds < 100 and said in cluster.text(0) and said in cluster.text(1)


@pytest.mark.slow
@pytest.mark.backend
def test_a_process_that_is_told_to_end_does(tmp_path):
    """SIGTERM, which schedulers send; the other one ends at its next exchange."""
    program = tmp_path / "program.py"
    program.write_text("import time\nfrom mrcnn.distribution import processes\nprocesses.join()\n"
                       "with processes.together():\n    for step in range(600):\n        processes.gather(step)\n"
                       "        time.sleep(0.1)\n        print('step', step)\n")  # fmt: skip
    with Cluster(2, tmp_path, program) as cluster:
        cluster.wait_for(0, "step 3", 100)
        cluster.processes[1].terminate()
        codes, seconds = cluster.join(60)
        assert codes == [1, -signal.SIGTERM] and seconds < 45
        assert "process 0 of 2 stops, because another one has ended" in cluster.text(0)


@pytest.mark.slow
@pytest.mark.backend
def test_a_port_that_is_taken(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("from mrcnn.distribution import processes\nprocesses.join()\n")
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("", 0))
        taken.listen()
        environment = {ADDRESS: f"localhost:{taken.getsockname()[1]}", NUMBER: "2", OWN: "0"}
        with Cluster(1, tmp_path, program, environment=environment) as cluster:
            (code,), _ = cluster.join(60)
            assert code == 1 and "ConnectionError: process 0 cannot listen at localhost" in cluster.text(0)


@pytest.mark.slow
@pytest.mark.backend
def test_processes_that_do_not_come(tmp_path):
    """A cluster of which only one process was started: JAX ends it, and it has said whom it waits for."""
    program = tmp_path / "program.py"
    program.write_text("from mrcnn.distribution import processes\n"
                       "processes.TIMEOUTS['initialization_timeout'] = 3\nprocesses.join()\n")  # fmt: skip
    address = f"localhost:{free_port()}"
    environment = {ADDRESS: address, NUMBER: "2", OWN: "1"}
    with Cluster(1, tmp_path, program, environment=environment) as cluster:
        (code,), seconds = cluster.join(100)
        assert f"Process 1 of 2 joins the others, at {address}" in cluster.text(0)
        assert code != 0 and "DEADLINE_EXCEEDED" in cluster.text(0) and seconds < 60
