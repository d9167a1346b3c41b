# setup   a virtual environment with everything, once per change of the dependencies
# demo    the whole chain on one task
# test    all tests, with coverage
# lint    style and types
# bench   speed against plain robosuite and Stable-Baselines3
# bench-truth   the study behind the README's claim, resumable
# bench-policies   comparisons of policies, resumable
# bench-deploy  success over ROS 2
# faults  what can go wrong on a robot, and whether each guard is needed
export OMP_NUM_THREADS := 1

VENV := .venv
BIN := $(VENV)/bin
PACKAGES := robopolicy world_models sim ros_nodes
STAMP := $(VENV)/.setup-$(shell cat requirements.lock pyproject.toml | cksum | cut -d' ' -f1)
PYTEST_ARGS ?= -n 2 --dist loadfile

.PHONY: setup demo test lint bench bench-truth bench-policies bench-deploy faults clean
SEED ?= 7
TRUTH ?= runs/truth
# Tasks whose parts are taken away one by one.
PARTS ?= push coffee-pull

setup: $(STAMP)

# A pyenv shim may exist and still not run, so each candidate has to prove itself.
# Without any Python 3.12, uv (in a throw-away environment of some other Python) brings one.
$(STAMP):
	@set -eu; began=$$(date +%s); \
	runs() { "$$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null; }; \
	if ! runs $(BIN)/python; then \
		rm -rf $(VENV); \
		for python in python3.12 "$$HOME"/.pyenv/versions/3.12*/bin/python3.12; do \
			if runs "$$python"; then "$$python" -m venv $(VENV); break; fi; \
		done; \
	fi; \
	if [ ! -x $(BIN)/python ]; then \
		echo "no Python 3.12 here: fetching one"; \
		python3 -m venv .bootstrap; \
		.bootstrap/bin/python -m pip install --quiet uv; \
		.bootstrap/bin/uv venv --quiet --seed --python 3.12 $(VENV); \
		rm -rf .bootstrap; \
	fi; \
	[ -x $(BIN)/uv ] || $(BIN)/python -m pip install --quiet uv; \
	$(BIN)/uv pip install --python $(BIN)/python -r requirements.lock; \
	$(BIN)/uv pip install --python $(BIN)/python --no-deps -e .; \
	rm -f $(VENV)/.setup-*; \
	echo $$(($$(date +%s) - began)) > $(VENV)/setup-seconds; \
	touch $(STAMP)

demo: setup
	$(BIN)/robopolicy demo

# Real-time tests over ROS have the machine to themselves: beside other work they would measure that.
test: setup
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m "not ros" $(PACKAGES:%=--cov=%) --cov-report=
	$(BIN)/python -m pytest -m ros $(PACKAGES:%=--cov=%) --cov-append --cov-report=term --cov-fail-under=85

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: setup
	mkdir -p benchmarks/results
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.updates

# Hours on two cores; what is finished is skipped.
bench-truth: setup
	$(BIN)/python -m benchmarks.truth --runs $(TRUTH)
	$(BIN)/python -m benchmarks.truth --runs $(TRUTH) --what reference --seeds 38
	$(BIN)/python -m benchmarks.truth --runs $(TRUTH) --what refreshed --seeds 38
	$(BIN)/python -m benchmarks.truth --runs $(TRUTH) --what steering --seeds 38 --tasks $(PARTS)
	$(BIN)/python -m benchmarks.truth --runs $(TRUTH) --what worlds --seeds 38 --tasks $(PARTS)
	$(BIN)/python -m benchmarks.sensitivity --runs $(TRUTH) --units soccer-38 lever-pull-38
	$(BIN)/python -m benchmarks.truth --summary
	$(BIN)/python -m benchmarks.readme

# Hours on two cores; what is finished is skipped, but for the speed.
bench-policies: setup
	for part in memory sampling realtime language steered speed summary; do \
		$(BIN)/python -m benchmarks.policies.$$part || exit 1; \
	done
	$(BIN)/python -m benchmarks.readme

# A steered policy on the simulated arm, over ROS 2 in real time.
bench-deploy: setup
	$(BIN)/robopolicy demo --seed $(SEED) --out runs/demo-$(SEED)
	$(BIN)/robopolicy deploy --policy runs/demo-$(SEED)/policy --seed $(SEED) \
		--steerer runs/demo-$(SEED)/steerer --episodes 20 --out runs/deploy-$(SEED)
	cp runs/deploy-$(SEED)/result.json benchmarks/results/deploy-$(SEED).json

faults: setup
	$(BIN)/python -m benchmarks.faults

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* .bootstrap
	find $(PACKAGES) tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
