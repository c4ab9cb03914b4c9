# The two commands: `make demo` runs everything and writes runs/demo/report.html; `make test` passes the tests.
# Each sets up .venv by itself, with the exact versions and hashes of requirements.txt.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo smoke test check docs gpu lock audit clean

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

# Checks and measures on this machine's GPU, and writes gpu.json. requirements.txt takes PyPI's torch, which is a CUDA
# build on Linux. Without a network, from a folder of wheels: PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER make gpu;
# in an environment of one's own: make gpu GPU_PYTHON=python3.
GPU_PYTHON ?= $(BIN)/python
gpu: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),.venv/ready)
	PYTHONPATH=src $(GPU_PYTHON) benchmarks/gpu.py --out gpu.json

# Needs uv. torch: pytorch.org's CPU build for Python 3.11 on x86-64 Linux is no file of PyPI's.
TORCH_CPU := sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b
lock:
	uv pip compile requirements.in --no-deps --generate-hashes --python-version 3.11.0 \
	    --no-annotate --no-header --quiet --output-file requirements.txt
	sed -i 's|^torch==.*|&\n    --hash=$(TORCH_CPU) \\|' requirements.txt

# Needs uv and a network: faults that are known of the pinned versions, what a scanner of code finds, a bill
# of materials (CycloneDX) in dist/.
audit:
	mkdir -p dist
	uvx bandit --quiet --configfile pyproject.toml --recursive src
	uvx --from cyclonedx-bom cyclonedx-py requirements requirements.txt --output-reproducible -o dist/sbom.json
	uvx pip-audit --disable-pip --require-hashes -r requirements.txt

clean:
	rm -rf .venv runs site

.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is required, got " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch .venv/ready
