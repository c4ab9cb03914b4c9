# The two commands: `make demo` runs everything and writes runs/demo/report.html; `make test` passes the tests.
# Each sets up .venv by itself, with the exact versions of requirements.txt.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo smoke test check docs clean

demo: .venv/ready
	$(BIN)/medcare run --out runs/demo

smoke: .venv/ready
	$(BIN)/medcare run --preset smoke --out runs/smoke

test: .venv/ready
	$(BIN)/python -m pytest -n auto --dist loadgroup --no-loadscope-reorder

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/ready
	$(BIN)/mkdocs build --quiet

clean:
	rm -rf .venv runs site

.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is required, got " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch .venv/ready
