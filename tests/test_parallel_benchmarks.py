"""The benchmark of several devices on a small network, and the arithmetic of how they scale."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import scripts

scaling = scripts.load_benchmark("scaling")


@pytest.fixture(scope="module")
def parallel():
    return scripts.load_benchmark("parallel")


@pytest.mark.slow
def test_figures_are_printed_and_written(parallel, tmp_path, capsys):
    path = tmp_path / "parallel.json"
    parallel.main(["--size", "128", "--batch-size", "2", "--runs", "2", "--json", str(path)])
    printed, figures = capsys.readouterr().out, json.loads(path.read_text())
    assert printed.startswith("small network, 128 pixels, 2 images per step, 2 runs;")
    assert figures["first_losses"]["ParallelModel"] == pytest.approx(figures["first_losses"]["plain"], rel=1e-5)
    for row in figures["seconds"].values():
        assert 0 < row["least"] <= row["median"] <= row["most"]
    assert figures["ratio"] > 0 and f"{figures['ratio']:.3f}" in printed and "mrcnn" in figures["versions"]


@pytest.mark.parametrize("arguments, message", [
    (["--devices", "3"], "--batch-size 8 cannot be divided evenly between 3 devices"),
    (["--size", "100"], "must be a multiple of 64"),
    (["--size", "64"], "--size 64: must be 128 or more, so that there is room for a shape"),
    (["--runs", "0"], "must be a whole number of 1 or more"),
    (["--json", "none/x.json"], "there is no such folder"),
    (["--json", "."], "--json .: is a folder, not a file"),
])  # fmt: skip
def test_wrong_arguments(parallel, arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        parallel.main(arguments)
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_backend_that_is_not_there(parallel, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        parallel.main(["--backend", "jax"])
    assert "--backend jax: it is not installed" in " ".join(capsys.readouterr().err.split())


def test_a_backend_of_one_device(parallel, capsys, monkeypatch):
    monkeypatch.setattr(parallel.common, "check_arguments", lambda parser, args: None)
    with pytest.raises(SystemExit):
        parallel.main(["--backend", "torch"])
    assert "--backend torch: it runs on one device; choose tensorflow or jax" in capsys.readouterr().err


def test_help_imports_no_keras():
    code = "import sys, parallel\ntry: parallel.main(['--help'])\nfinally: sys.exit('keras' in sys.modules)"
    folders = os.pathsep.join([str(scripts.ROOT), str(scripts.ROOT / "benchmarks")])
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                            env=os.environ | {"PYTHONPATH": folders})  # fmt: skip
    assert result.returncode == 0 and "--devices" in result.stdout, result.stderr


@pytest.mark.parametrize("samples", ["inf", "nan", "0", "-1"])
def test_samples_that_are_no_rate(samples, capsys):
    with pytest.raises(SystemExit):
        scaling.main([f"--samples={samples}"])
    assert "--samples must be a number above 0; received" in capsys.readouterr().err


def test_a_ring_moves_nearly_twice_the_bytes():
    assert scaling.ring(1, 100e6, 50e9) == 0
    assert scaling.ring(2, 100e6, 50e9) == pytest.approx(2e-3)
    assert scaling.ring(512, 100e6, 50e9) == pytest.approx(4e-3, rel=0.01)


def test_one_host_needs_no_network_between_hosts():
    assert list(scaling.all_reduce(8, 180e6)) == ["NVLink"]
    times = scaling.all_reduce(64, 180e6)
    assert times["Ethernet"] > 3 * times["InfiniBand"] > 10 * scaling.all_reduce(8, 180e6)["NVLink"]


def test_rows_add_up():
    rows = [row.split(" | ") for row in scaling.table("resnet50", 45_000_000, images=2, samples_per_second=4.5)][3:]
    assert [row[0] for row in rows] == ["8", "64", "64", "512", "512"]
    for devices, images, _, time, share, rate, cores in rows:
        step = 2 / 28.6 + float(time.split()[0]) / 1000
        assert int(images) == 2 * int(devices)
        assert float(rate.replace(",", "")) == pytest.approx(int(images) / step, rel=0.01)
        assert int(share.rstrip("%")) == pytest.approx(100 * float(time.split()[0]) / (2000 / 28.6), abs=1)
        assert int(cores) == pytest.approx(int(images) / step / (int(devices) / 8) / 4.5, abs=1)


@pytest.mark.slow
def test_the_documents_table_is_what_the_program_prints(capsys):
    scaling.main([])
    printed = [line.strip() for line in capsys.readouterr().out.splitlines() if " | " in line or "million" in line]
    document = (scripts.ROOT / "docs" / "distributed.md").read_text()
    assert len(printed) == 16 and not [line for line in printed if line not in document]
