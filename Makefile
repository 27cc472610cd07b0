# Two commands: `make demo` runs the whole chain on a CPU, `make test` runs the tests. Both set up .venv/ first.
#
#   PYTHON=python3.12     another interpreter, 3.10 to 3.13
#   PIP_ARGS=…            further arguments for pip, such as the index of PyTorch's CPU builds, which spares a large download
#   EXTRAS=onnxruntime,dev  fewer capabilities: tests of what is missing are skipped
#   JOBS=4                how many processes run the tests; each needs about a core and 2 GB
#   THREADS=2             how many threads PyTorch has in each of them; more than there are cores wait for each other

PYTHON ?= python3
PIP_ARGS ?=
EXTRAS ?= train,onnxruntime,tensorrt-rtx,dev
JOBS ?= 2
THREADS ?= 1

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: demo test lint wheel clean

demo: $(READY)
	$(BIN)/dlv3deploy demo

test: $(READY)
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

wheel: $(READY)
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist .

clean:
	rm -rf $(VENV) build dist *.egg-info

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
	    { echo "$(PYTHON) is not Python 3.10 to 3.13; give another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo "$(PYTHON) cannot make environments; on Debian: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@$(BIN)/python -c 'import cv2' 2>/dev/null || \
	    { echo "this machine lacks the libraries of OpenCV's windows; taking the build without windows"; \
	      $(BIN)/python -m pip uninstall --quiet --yes opencv-python; \
	      $(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints.txt opencv-python-headless; }
	@touch $(READY)
