# setup   a virtual environment with everything, once per change of the dependencies
# demo    the whole chain on one task
# test    all tests, with coverage
# lint    style and types
# bench   speed against plain robosuite and Stable-Baselines3
# results the demos and ablations behind the README's numbers, resumable
export OMP_NUM_THREADS := 1

VENV := .venv
BIN := $(VENV)/bin
PACKAGES := robopolicy world_models sim ros_nodes
STAMP := $(VENV)/.setup-$(shell cat requirements.lock pyproject.toml | cksum | cut -d' ' -f1)
PYTEST_ARGS ?= -n 2 --dist loadfile

.PHONY: setup demo test lint bench results clean
# Seeds 0 to 9 were looked at while this was built.
SEEDS ?= 10 11 12

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

results: setup bench
	for seed in $(SEEDS); do \
		$(BIN)/robopolicy demo --seed $$seed --out runs/demo-$$seed || exit $$?; \
		cp runs/demo-$$seed/result.json benchmarks/results/demo-$$seed.json; \
	done
	$(BIN)/robopolicy deploy --policy runs/demo-$(firstword $(SEEDS))/policy --seed $(firstword $(SEEDS)) \
		--steerer runs/demo-$(firstword $(SEEDS))/steerer --episodes 20 --out runs/deploy
	cp runs/deploy/result.json benchmarks/results/deploy-$(firstword $(SEEDS)).json
	for seed in $(SEEDS); do \
		$(BIN)/python -m benchmarks.world_ablation --run runs/demo-$$seed || exit $$?; \
	done

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* .bootstrap
	find $(PACKAGES) tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
