# The two commands: `make demo` runs everything and writes runs/demo/report.html; `make test` passes the tests.
# Each sets up .venv by itself, with the exact versions and hashes of requirements.txt.

# On Linux, PyPI's torch comes with CUDA. PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu takes the
# small build for processors instead.
TORCH := torch==2.13.0
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo smoke test check docs gpu soak mutants lock audit clean

install: .venv/ready

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

# Checks and measures on this machine's GPU, and writes gpu.json. Without a network, from a folder of wheels:
# PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER make gpu; in an environment of one's own: make gpu GPU_PYTHON=python3.
GPU_PYTHON ?= $(BIN)/python
gpu: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),.venv/ready)
	PYTHONPATH=src $(GPU_PYTHON) benchmarks/gpu.py --out gpu.json

# Hours: kills, hostile inputs, damaged folders, full disks, clients that come and leave. Stopped, it goes on.
# Another SEED, other inputs and other times of kills. Prints the table of docs/reliability.md.
SEED ?= 0
soak: .venv/ready
	PYTHONPATH=src:. $(BIN)/python benchmarks/soak.py --out soak.jsonl --seed $(SEED)

# Hours: small faults put into the method's modules, and which of them the tests notice. Stopped, it goes on.
mutants: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/mutation.py --write

# Needs uv.
lock:
	uv pip compile requirements.in --no-deps --generate-hashes --python-version 3.11.0 \
	    --no-annotate --no-header --quiet --output-file requirements.txt
	echo $(TORCH) | uv pip compile - --constraint requirements.in --generate-hashes --python-version 3.11.0 \
	    --python-platform x86_64-manylinux_2_28 --no-annotate --no-header --quiet --output-file requirements-cuda.txt

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
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch .venv/ready
