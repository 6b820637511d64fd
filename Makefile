# Everything is set up on demand: a virtual environment in .venv with the pinned, hashed dependencies.
PYTHON ?= python3
UV_VERSION = 0.13.8
BIN = .venv/bin
# Ray starts many Pythons: byte code is compiled once, at installation, instead of by each of them.
SYNC = $(BIN)/python -m uv pip sync --quiet --python $(BIN)/python --compile-bytecode
# A file's tests stay together: they share what is slow to start. The long ones, which wait a lot, begin first.
PARALLEL = -n 2 --dist loadfile --no-loadscope-reorder
INSTALL_SELF = $(BIN)/python -m uv pip install --quiet --python $(BIN)/python --no-deps --editable .

.PHONY: demo run test test-long test-fast check format lock clean

demo: .venv/.installed  ## Run examples/digits.yaml through a service of its own
	@$(BIN)/forerun demo

run: .venv/.installed  ## Start the service and keep it up
	@exec $(BIN)/forerun serve

test: .venv/.installed-dev  ## Every test but the long ones, on a real service and Ray too
	$(BIN)/python -m pytest $(PARALLEL)

test-long: .venv/.installed-dev  ## The long ones: kills in mid-job, real data, an installation anew
	$(BIN)/python -m pytest $(PARALLEL) -m long

test-fast: .venv/.installed-dev  ## Without Ray
	$(BIN)/python -m pytest $(PARALLEL) tests/unit tests/contract

check: .venv/.installed-dev  ## Formatting, lint, types, and who may import whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: .venv/.installed-dev  ## Pin the newest versions that pyproject.toml allows
	$(BIN)/python -m uv pip compile -q --universal --python-version 3.11 --generate-hashes --upgrade \
		--no-emit-index-url --extra server --extra worker pyproject.toml -o requirements.lock
	$(BIN)/python -m uv pip compile -q --universal --python-version 3.11 --generate-hashes --upgrade \
		--no-emit-index-url --extra server --extra worker --extra tracing --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

.venv/.uv: Makefile
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 12) else "forerun: Python 3.11 or 3.12 is needed; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

.venv/.installed: .venv/.uv requirements.lock pyproject.toml
	@echo "installing (about 5 GB, PyTorch with it) …"
	$(SYNC) requirements.lock
	$(INSTALL_SELF)
	@touch $@

.venv/.installed-dev: .venv/.uv requirements-dev.lock pyproject.toml
	@echo "installing (about 5 GB, PyTorch with it) …"
	$(SYNC) requirements-dev.lock
	$(INSTALL_SELF)
	@touch $@ .venv/.installed

clean:  ## Remove the environment and caches; .forerun/ with its results stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
