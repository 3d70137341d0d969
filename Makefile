# A machine with Python 3.10-3.12 and make is enough; `make install` puts everything into .venv.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed-$(shell cat setup.cfg pyproject.toml | cksum | cut -d' ' -f1)

.PHONY: install demo study test test-unit test-large lint bench chaos fuzz coverage

install: $(INSTALLED)

$(INSTALLED):
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(not (3, 10) <= v < (3, 13) and "Python 3.10-3.12 is needed, this is %d.%d; try make PYTHON=python3.12" % v[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[train,dev]'
	rm -f .venv/.installed-*
	touch $@

demo: install
	$(BIN)/arvis-scale demo

# docs/studies/cifar10 again, from IMAGES, CIFAR-10 as a folder or an archive of images: hours on two cores. Started
# again it goes on.
study: install
	PATH="$(CURDIR)/$(BIN):$$PATH" sh docs/studies/cifar10/run.sh "$(or $(IMAGES),$(error give IMAGES=FOLDER_OR_ARCHIVE))"

# Every test has one thread, so that two fill two cores; those that start processes take up to 6 GB each. The tests on
# Slurm have the machine to themselves.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --dist loadfile

test: lint
	$(PYTEST) -n 2 --ignore tests/slurm
	$(PYTEST) tests/slurm

test-unit: install
	$(PYTEST) -n auto -m 'not processes and not browser'

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	@for script in $$(grep -l __main__ benchmarks/*.py); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

# A run killed 100 times, at the points of a save and at random: a quarter of an hour on two free cores.
chaos: install
	rm -rf runs/chaos
	OMP_NUM_THREADS=1 $(BIN)/python tests/distributed/kill_runs.py runs/chaos/one --kills 70
	OMP_NUM_THREADS=1 $(BIN)/python tests/distributed/kill_runs.py runs/chaos/two --kills 30 --processes 2

# Ten minutes of broken tars, indices and images, on one core; `make test` runs half a minute of the same.
fuzz: install
	OMP_NUM_THREADS=1 FUZZ_SECONDS=600 $(BIN)/python -m pytest tests/data/test_fuzz.py

# XTRA and D-iGPT at B, L and H really train: an hour and 22 GB on two free cores.
test-large: install
	$(BIN)/python tests/large/train_large.py

# How often the 95% intervals of every law hold the truth, over 200 repeats: about half an hour.
coverage: install
	$(BIN)/python -m scaling_studies.coverage
