# Everything here needs Python 3.11 or newer, make and pip; packages go into .venv. `make` lists the targets.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
PY := $(VENV)/bin/python
PIP_INSTALL := $(PY) -m pip install $(if $(CI),--quiet) --disable-pip-version-check -c constraints.txt
# The original's numbers that are not in tests/golden, if there are any, and the script that compares with them.
MRCNN_GOLDEN ?=
# Two test files at a time, each in a process of its own: most tests keep one core busy.
PYTEST := $(PY) -m pytest -n 2 --dist loadfile
CHECK := $(abspath $(PY)) $(abspath $(MRCNN_GOLDEN))/check.py $(CURDIR) $(abspath $(MRCNN_GOLDEN))
OTHER_BACKENDS := jax torch
# Where the parts of `make long` keep how their tests ended.
FIGURES = docs/reliability/$@.json
LONG_TESTS = MRCNN_FIGURES=$(FIGURES) $(PY) -m pytest
ON_ALL_BACKENDS := forward_inference_r50.npz model_functions.npz trained_slim/slim_val.npz
TRAINING := training_step_r50.npz

export TF_CPP_MIN_LOG_LEVEL ?= 3
export KERAS_BACKEND ?= tensorflow

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
LONG := long-kills long-core long-cases long-fuzz long-soak long-repeat long-devices long-balloon long-nucleus long-jax \
	long-torch
.PHONY: help demo notebooks pictures test check long $(LONG) data golden backends lint clean

help:  ## list the targets
	@grep -hE '^[a-z -]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z -]+):.*## /  make \1\t/' | expand -t 30

demo: $(VENV)/.core  ## train a small network on drawn shapes, evaluate it, write pictures to demo/
	$(PY) samples/shapes/demo.py

notebooks: $(VENV)/.dev  ## execute all notebooks anew, and keep their outputs in them
	$(PY) notebooks/refresh.py

pictures: $(VENV)/.core  ## make the pictures of the README anew
	$(PY) docs/pictures.py

test: $(VENV)/.dev lint  ## all tests on TensorFlow, but the long ones
	$(PYTEST) -m "not long and not data and not backend" --durations=20

check: $(VENV)/.dev lint  ## the quick tests, under 3 minutes
	$(PYTEST) -m "not slow and not long and not data and not backend" -x -q

long: $(LONG)  ## all that takes long, part by part; each of them takes under an hour

long-kills: $(VENV)/.dev  ## long: trainings and downloads that are killed, full disks, data that hangs
	$(LONG_TESTS) -m long $(addprefix tests/faults/test_,kills.py killed_downloads.py full_disk.py data_faults.py)

long-core: $(VENV)/.dev  ## long: the demo with other seeds, further training steps of the original
	$(LONG_TESTS) -m "long and not data" --ignore=tests/faults \
		$(addprefix --ignore=tests/test_,devices.py processes.py soak.py repeatability.py)

long-cases: $(VENV)/.dev  ## long: 12,960 cases of bad input; their outcomes go to docs/reliability/cases.json
	MRCNN_CASES=10000 MRCNN_CASES_REPORT=docs/reliability/cases.json $(PY) -m pytest tests/faults/test_cases_*.py \
		tests/test_security.py

long-fuzz: $(VENV)/.fuzz  ## long: ten minutes of coverage-guided fuzzing; its figures go to docs/reliability/fuzz.json
	$(PY) tests/faults/fuzz.py --seconds 600 --report docs/reliability/fuzz.json

long-soak: $(VENV)/.dev  ## long: 2,000 steps and 2,000 detections in one process, on a machine that is idle
	$(PY) -m pytest -m long tests/test_soak.py -s

long-repeat: $(VENV)/.dev  ## long: trainings of one seed give the same bits, whatever the settings
	$(PY) -m pytest -m long tests/test_repeatability.py -s

long-devices: $(VENV)/.backends  ## long: two and four devices and processes beside one, and killed processes
	$(LONG_TESTS) -m long tests/test_devices.py tests/test_processes.py -s

long-balloon: $(VENV)/.dev photos  ## long: a small network learns balloons from nothing
	$(LONG_TESTS) -m long -k balloons_are_learned -s

long-nucleus: $(VENV)/.dev photos  ## long: a small network learns nuclei from nothing
	$(LONG_TESTS) -m long -k nuclei_are_learned -s

long-jax long-torch: long-%: $(VENV)/.backends  ## long: all training steps of the original, on this backend
	@test -f "$(MRCNN_GOLDEN)/check.py" || { echo "make $@: set MRCNN_GOLDEN to the folder of check.py"; exit 2; }
	KERAS_BACKEND=$* $(PY) tests/reliability.py $(FIGURES) $(CHECK)/$(TRAINING) --fail-only

data: $(VENV)/.dev photos  ## the tests on real photos in the folder MRCNN_DATA
	$(PYTEST) -m "data and not long"

.PHONY: photos
photos:
	@test -d "$(MRCNN_DATA)" || { echo "set MRCNN_DATA to the folder of the photos"; exit 2; }

golden: $(VENV)/.dev  ## compare with all the original's numbers in the folder MRCNN_GOLDEN
	@test -f "$(MRCNN_GOLDEN)/check.py" || { echo "make golden: set MRCNN_GOLDEN to the folder of check.py"; exit 2; }
	$(CHECK) --fail-only

backends: $(VENV)/.backends  ## the golden tests, and those of cropping and of extreme numbers, on JAX and on torch
	@set -e; for backend in $(OTHER_BACKENDS); do \
		echo "--- KERAS_BACKEND=$$backend"; \
		KERAS_BACKEND=$$backend $(PYTEST) -k "golden or cropping or (numerical and not teach)" -m "not data" -q; \
		if [ -f "$(MRCNN_GOLDEN)/check.py" ]; then for numbers in $(ON_ALL_BACKENDS); do \
			KERAS_BACKEND=$$backend $(CHECK)/$$numbers --fail-only; done; \
			KERAS_BACKEND=$$backend $(CHECK)/$(TRAINING) --only all_lr1 --fail-only; fi; \
	done
	$(PYTEST) -m "backend and not long and not data" -q

lint: $(VENV)/.dev
	$(PY) -m ruff check .

clean:  ## remove the virtual environment and what tests and builds left
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.core: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found; name one with: make PYTHON=/path/to/python"; exit 2; }
	@echo "Setting up $(VENV) with $(PYTHON) (TensorFlow is a download of about 600 MB; once)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(PIP_INSTALL) -e ".[dev,augment,coco,video]"
	@touch $@

$(VENV)/.fuzz: $(VENV)/.dev
	$(PIP_INSTALL) -e ".[fuzz]"
	@touch $@

$(VENV)/.backends: $(VENV)/.dev
	$(PIP_INSTALL) -e ".[jax,torch]"
	@touch $@
