# make demo        set up, then lip-sync a drawn video with the shipped model
# make test        set up, then run the tests
# make check       format, lint, layers, types
# make bench       every script of bench/ but bench_wild.py, which wants labelled clips
# make train-demo  draw, prepare, train all networks of the demo, infer, evaluate; goes on where it
#                  was stopped. make -n train-demo shows what is left
# make clean       remove the virtual environment and caches; data and experiments stay
# Nothing here is an absolute path, so the repository may lie in a folder with spaces.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SET_UP := $(VENV)/.set-up
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test check bench train-demo clean set-up face-models
.DELETE_ON_ERROR:

demo: face-models
	$(BIN)/python infer.py

test: face-models
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

check: set-up
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

bench: face-models
	for script in $(filter-out bench/bench_wild.py,$(wildcard bench/*.py)); do $(BIN)/python "$$script" || exit 1; done

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache

set-up: $(SET_UP)

# Made once, and again when what it is made from changes.
$(SET_UP): pyproject.toml constraints.txt hatch_build.py
	@echo "Setting up $(VENV): 7 GB, several minutes the first time."
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	@test -x $(BIN)/python || "$(PYTHON)" -c 'import shutil, sys; free = shutil.disk_usage(".").free / 1e9; sys.exit(free < 8 and f"8 GB of free disk are needed here, there are {free:.1f}")'
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(PIP) install -c constraints.txt -e ".[train,prepare,sweep,wandb,dev]"
	touch $@

# The face models' files, once, into the user's cache; their checksums are compared.
face-models: set-up
	$(BIN)/python -m latentsync.faces.fetch

# The demo, trained again. Every step is a file, so a stopped run goes on from the last one, and a
# stopped training from its last checkpoint.
DRAWN := data/drawn
RUN := experiments/train-demo
TRAIN := $(BIN)/python train.py ckpt_path=auto
MODELS := $(foreach net,autoencoder mouth_reader syncnet unet_stage1 unet_stage2,$(RUN)/$(net)/model/config.json)
SETS := $(DRAWN)/train/manifest.jsonl $(DRAWN)/val/manifest.jsonl
.PRECIOUS: $(MODELS) $(SETS) $(DRAWN)/%/manifest.jsonl $(DRAWN)/%_raw.drawn

train-demo: face-models $(RUN)/evaluate/metrics.json

$(DRAWN)/train_raw.drawn: WORLD := num_speakers=360 seconds=4 seed=0
$(DRAWN)/val_raw.drawn: WORLD := num_speakers=24 seconds=4 seed=500000
$(DRAWN)/%_raw.drawn: | set-up
	$(BIN)/latentsync-synthesize output=$(basename $@) $(WORLD)
	touch $@

$(DRAWN)/%/manifest.jsonl: $(DRAWN)/%_raw.drawn | face-models
	$(BIN)/python prepare.py input=$(DRAWN)/$*_raw output=$(DRAWN)/$* resolution=128

$(RUN)/autoencoder/model/config.json: $(SETS)
	$(TRAIN) experiment=demo/autoencoder paths.run_dir=$(RUN)/autoencoder

$(RUN)/mouth_reader/model/config.json: $(SETS)
	$(TRAIN) experiment=demo/mouth_reader paths.run_dir=$(RUN)/mouth_reader

$(RUN)/syncnet/model/config.json: $(SETS)
	$(TRAIN) experiment=demo/syncnet paths.run_dir=$(RUN)/syncnet

$(RUN)/latents.done: $(RUN)/autoencoder/model/config.json
	$(BIN)/python prepare.py stage=latents dtype=bfloat16 output=$(DRAWN)/train vae=$(RUN)/autoencoder/model
	$(BIN)/python prepare.py stage=latents dtype=bfloat16 output=$(DRAWN)/val vae=$(RUN)/autoencoder/model
	touch $@

$(RUN)/unet_stage1/model/config.json: $(RUN)/latents.done
	$(TRAIN) experiment=demo/unet_stage1 paths.run_dir=$(RUN)/unet_stage1 vae=$(RUN)/autoencoder/model

$(RUN)/unet_stage2/model/config.json: $(RUN)/unet_stage1/model/config.json $(RUN)/syncnet/model/config.json
	$(TRAIN) experiment=demo/unet_stage2 paths.run_dir=$(RUN)/unet_stage2 \
	  stage1=$(RUN)/unet_stage1/model syncnet=$(RUN)/syncnet/model

$(RUN)/infer/out.mp4: $(RUN)/unet_stage2/model/config.json
	$(BIN)/python infer.py ckpt=$(RUN)/unet_stage2/model folder=$(RUN)/infer overwrite=true

$(RUN)/evaluate/metrics.json: $(RUN)/infer/out.mp4 $(RUN)/mouth_reader/model/config.json
	$(BIN)/python evaluate.py ckpt=$(RUN)/unet_stage2/model out=$(RUN)/evaluate \
	  num_clips=12 max_frames=48 \
	  evaluator.reader=$(RUN)/mouth_reader/model evaluator.syncnet=$(RUN)/syncnet/model
