PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
TWO := -n 2 --dist loadfile   # two processes of one thread each; the truth tests use both cores by themselves

.PHONY: help demo clip results-camvid results-streets test quick truth check format
.DEFAULT_GOAL := help

help:           ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 25

demo: $(READY)  ## train a teacher, a student alone and a distilled student on drawn streets; a table and a picture
	$(BIN)/python -m segkd.demo

CLIP ?= runs/clip
FRAMES ?= 62
WEIGHTS ?= weights/skd-authors/camvid
BEFORE ?= $(WEIGHTS)/espnet_c_base_56.7.pth
AFTER ?= $(WEIGHTS)/espnet_c_kd_sd_60.3.pth

clip: $(READY)  ## the student before and after distillation as a film, on drawn streets; or CAMVID=DIR with the authors' weights
ifdef CAMVID
	$(BIN)/python -m segkd.clip dataset=camvid dataset.root=$(CAMVID) sequence=0001TP frames=$(FRAMES) fps=8 \
	  model=espnet_c before=$(BEFORE) after=$(AFTER) output=$(CLIP)/camvid
else
	@test -f $(CLIP)/demo.json || $(BIN)/python -m segkd.demo output_dir=$(CLIP)
	$(BIN)/python -m segkd.clip before=$(CLIP)/alone after=$(CLIP)/distilled frames=$(FRAMES) output=$(CLIP)/streets
endif

PARALLEL ?= 1
LADDER = $(BIN)/python -m segkd.ladder parallel=$(PARALLEL)

results-camvid: $(READY)  ## ESPNet on CamVid over seeds, for the table of docs/camvid.md: CAMVID=DIR, PARALLEL=N trainings at once, on a GPU
	@test -n "$(CAMVID)" || { echo "make results-camvid needs CAMVID=DIR, the folder of CamVid (python -m segkd.download what=camvid)"; exit 2; }
	$(LADDER) plan=camvid dataset.root=$(CAMVID) page=README.md $(MORE)

results-streets: $(READY) ## the same on drawn streets, on a CPU
	$(LADDER) plan=streets $(MORE)

test: $(READY)  ## the whole suite, but what needs the authors' data or takes minutes
	env -u SEGKD_TRUTH $(BIN)/pytest $(TWO) -m "not slow"

quick: $(READY) ## the part of the suite that starts no command
	env -u SEGKD_TRUTH $(BIN)/pytest $(TWO) -m "not slow and not process" tests

truth: $(READY) ## against the authors' figures: SEGKD_TRUTH=DIR make truth
	@test -n "$(SEGKD_TRUTH)" || { echo "make truth needs SEGKD_TRUTH=DIR, the folder of the authors' data, weights and values (CONTRIBUTING.md)"; exit 2; }
	SEGKD_TRUTH=$(SEGKD_TRUTH) $(BIN)/pytest -m "truth or slow" tests

check: $(READY) ## lint, types, and who imports whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## rewrite the code in the house's format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || \
	  { echo "segkd needs Python 3.11 or 3.12, and $(PYTHON) is another; say which: make PYTHON=python3.11 …"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@
