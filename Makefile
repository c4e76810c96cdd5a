# Two commands for a fresh machine: `make demo` and `make test`. Both set up .venv first, with the pinned versions.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test lint bench bench-guard audit sbom clean

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --upgrade-deps $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/python -m uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev,lora,lite-medsam,onnx,dicom,itk,ray]'
	touch $@

demo: setup
	$(BIN)/vpt demo

# CI runs the slow tests too, and measures coverage, which takes a fifth of the time.
WHAT := $(if $(CI),--cov=vpt --cov-report=term --cov-fail-under=90,-m 'not slow')

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal $(WHAT)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Full sizes, then the quick ones that `bench-guard` compares, then the tables of docs/speed.md. Leave the machine idle.
BENCHMARKS := vit_step vit_inference cached_prefix sam encoders mask_head growth volumes
MENDED := vit_step vit_inference cached_prefix sam
QUICK := vit_step vit_inference cached_prefix sam

bench: setup
	set -e; for name in $(BENCHMARKS); do test ! -f benchmarks/$$name.py || $(BIN)/python benchmarks/$$name.py; done
	set -e; for name in $(MENDED); do $(BIN)/python benchmarks/$$name.py --mended; done
	set -e; for name in $(QUICK); do $(BIN)/python benchmarks/$$name.py --quick; done
	$(BIN)/python benchmarks/report.py

bench-guard: setup
	$(BIN)/python benchmarks/guard.py

# Known weaknesses of the pinned versions (asks the index's advisories; fails where it does not know a package, which is
# no word of its being safe), and what the installation is made of (CycloneDX).
audit: setup
	$(BIN)/python -m uv tool run --from pip-audit pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

sbom: setup
	$(BIN)/python -m uv tool run --from cyclonedx-bom cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-file sbom.json

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
