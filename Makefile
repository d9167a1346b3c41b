# setup   a virtual environment with everything, once per change of the dependencies
# demo    the whole chain on one task
# test    all tests, with coverage
# lint    style and types
# docs    the site, into build/site; a broken link is an error
# wheel   wheel and source archive work where nothing else is installed
# bench   speed against plain robosuite and Stable-Baselines3
# bench-truth   the study behind the README's claim, resumable
# bench-policies   comparisons of policies, resumable
# bench-deploy  success over ROS 2, kills, regularity, fuzzing, soak
# bench-pixels  the chain on pictures of a camera, sized for two cores
# bench-gpu  the same sized for a graphics processor, with a Meta-World task beside lift
# bench-scale  how time and memory grow, and that it does not matter where the work is done
# matrix  the wheel with each extra, alone and together, on each Python
# faults  what can go wrong, whether each guard is needed, and 200 kills at random moments
export OMP_NUM_THREADS := 1

VENV := .venv
BIN := $(VENV)/bin
PACKAGES := robopolicy world_models sim ros_nodes
STAMP := $(VENV)/.setup-$(shell cat requirements.lock pyproject.toml | cksum | cut -d' ' -f1)
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: setup demo test lint docs wheel bench bench-truth bench-policies bench-deploy bench-pixels bench-gpu bench-scale matrix faults clean
TRUTH ?= runs/truth
# Tasks of which other ways of steering are tried, and other world models.
PARTS ?= push coffee-pull
WORLDS ?= push
# Tasks with a reference in the real simulator, by the seed that it has.
SOON ?= push coffee-pull lever-pull soccer lift
LATE ?= door stack can

setup: $(STAMP)

# A pyenv shim may exist and still not run, so each candidate has to prove itself.
# Compiled here once: where PYTHONDONTWRITEBYTECODE is set, as in many images, each process would do it again.
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
	$(BIN)/uv pip install --python $(BIN)/python --compile-bytecode -r requirements.lock; \
	$(BIN)/uv pip install --python $(BIN)/python --no-deps -e .; \
	rm -f $(VENV)/.setup-*; \
	echo $$(($$(date +%s) - began)) > $(VENV)/setup-seconds; \
	touch $(STAMP)

demo: setup
	$(BIN)/robopolicy demo

# Real-time tests have the machine to themselves: beside other work they would measure that.
test: setup
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m "not realtime" $(PACKAGES:%=--cov=%) --cov-report=
	$(BIN)/python -m pytest -m realtime $(PACKAGES:%=--cov=%) --cov-append --cov-report=term --cov-fail-under=85

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: setup
	$(BIN)/zensical build -f mkdocs.yml --strict

# In clean environments: what is imported without any extra, and what the source archive holds.
wheel: setup
	$(BIN)/python -m benchmarks.matrix --only plain "source archive" --check

bench: setup
	mkdir -p benchmarks/results
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.updates

# Hours on two cores; what is finished is skipped.
bench-truth: setup
	$(BIN)/python -m benchmarks.truth --runs $(TRUTH)
	$(BIN)/python -m benchmarks.truth --runs $(TRUTH) --what reference --seeds 38 --tasks $(SOON)
	$(BIN)/python -m benchmarks.truth --runs $(TRUTH) --what reference --seeds 39 --tasks $(LATE)
	$(BIN)/python -m benchmarks.truth --runs $(TRUTH) --what refreshed --seeds 38
	$(BIN)/python -m benchmarks.truth --runs $(TRUTH) --what steering --seeds 38 --tasks $(PARTS)
	$(BIN)/python -m benchmarks.truth --runs $(TRUTH) --what worlds --seeds 40 --tasks $(WORLDS)
	$(BIN)/python -m benchmarks.multi_task --runs $(TRUTH) --units push-40 coffee-pull-40 soccer-40
	$(BIN)/python -m benchmarks.sensitivity --runs $(TRUTH) --units soccer-38 lever-pull-38
	$(BIN)/python -m benchmarks.truth --summary
	$(BIN)/python -m benchmarks.readme

# Hours on two cores; what is finished is skipped, but for the speed.
bench-policies: setup
	for part in memory levels sampling realtime language steered speed summary; do \
		$(BIN)/python -m benchmarks.policies.$$part || exit 1; \
	done
	$(BIN)/python -m benchmarks.readme

# What a deployment does over ROS 2: an hour of soak, so some two hours in all.
bench-deploy: setup
	for part in episodes kill gate laws fuzz soak; do \
		$(BIN)/python -m benchmarks.deploy.$$part || exit 1; \
	done
	$(BIN)/python -m benchmarks.faults
	$(BIN)/python -m benchmarks.deploy.summary
	$(BIN)/python -m benchmarks.readme

bench-pixels: setup
	$(BIN)/python -m benchmarks.pixels

bench-scale: setup
	$(BIN)/python -m benchmarks.scale

bench-gpu: setup
	$(BIN)/python -m benchmarks.pixels --preset full --tasks lift push --seeds 45 46 47

matrix: setup
	$(BIN)/python -m benchmarks.matrix

faults: setup
	$(BIN)/python -m benchmarks.faults
	$(BIN)/python -m benchmarks.kills

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* .bootstrap
	find $(PACKAGES) tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
