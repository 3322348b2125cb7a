PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
TWO := -n 2 --dist loadfile   # two processes of one thread each; the tests of published results use both cores by themselves

.PHONY: help demo clip results-camvid results-streets test quick published check format docs
.DEFAULT_GOAL := help

help:           ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 25

demo: $(READY)  ## train a teacher, a baseline and a distilled student on synthetic street scenes; print a table, save a picture
	$(STUDY) plan=demo $(MORE)

FRAMES ?= 62
STUDENTS = runs/study/demo
ifdef CAMVID
CLIP ?= runs/clip/camvid
WEIGHTS ?= weights/skd-authors/camvid
NETWORKS = model=espnet_c 'checkpoint=[$(WEIGHTS)/espnet_c_base_56.7.pth,$(WEIGHTS)/espnet_c_kd_sd_60.3.pth]' \
  dataset=camvid dataset.root=$(CAMVID) sequence=0001TP fps=8
else
CLIP ?= runs/clip/streets
NETWORKS = 'run=[$(STUDENTS)/baseline/0,$(STUDENTS)/distilled/0]' fps=1
endif
COMPARE = $(BIN)/python -m segkd.predict $(NETWORKS) split=test limit=$(FRAMES) overwrite=true

clip: $(READY)  ## two students side by side, as video and GIF: of the demo, or CAMVID=DIR with the authors' weights
	@test -n "$(CAMVID)" -o -f $(STUDENTS)/distilled/0/summary.json || $(MAKE) demo
	$(COMPARE) output=$(CLIP).mp4
	$(COMPARE) output=$(CLIP).gif width=600

PARALLEL ?= 1
STUDY = $(BIN)/python -m segkd.study parallel=$(PARALLEL)

results-camvid: $(READY)  ## ESPNet on CamVid over seeds, for the table of docs/results/camvid.md: CAMVID=DIR, PARALLEL=N trainings at once, on a GPU
	@test -n "$(CAMVID)" || { echo "make results-camvid needs CAMVID=DIR, the folder of CamVid (python -m segkd.download what=camvid)"; exit 2; }
	$(STUDY) plan=camvid dataset.root=$(CAMVID) page=docs/results/camvid.md $(MORE)

results-streets: $(READY) ## the same on synthetic street scenes, on a CPU
	$(STUDY) plan=streets $(MORE)

test: $(READY)  ## the whole suite, except what needs the authors' data or takes minutes
	env -u SEGKD_TRUTH $(BIN)/pytest $(TWO) -m "not slow"

quick: $(READY) ## the unit tests: those that run no command
	env -u SEGKD_TRUTH $(BIN)/pytest $(TWO) -m "not slow and not process and not command" tests

published: $(READY) ## the tests against published results, and the slow ones: SEGKD_TRUTH=DIR make published
	@test -n "$(SEGKD_TRUTH)" || { echo "make published needs SEGKD_TRUTH=DIR, the folder of the authors' data, weights and values (CONTRIBUTING.md)"; exit 2; }
	SEGKD_TRUTH=$(SEGKD_TRUTH) $(BIN)/pytest -m "published or slow" tests

check: $(READY) ## lint, types and import layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(READY) ## build the documentation into site/, strictly and without a network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "segkd needs Python 3.11 to 3.13, and $(PYTHON) is another; choose one: make PYTHON=python3.11 …"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@
