"""Trains a job spec without a service and without Ray: every training that is no search, one after another, each epoch
checkpointed.

    python -m workers.local SPEC [--data DIR] [--checkpoints DIR]           one process
    torchrun --nproc-per-node 2 -m workers.local SPEC                       two

SPEC is a job spec as YAML or JSON. Each epoch is a line; the last line is one JSON object. Run again, it goes on from
the newest checkpoint in DIR.
"""

import argparse
import json
import logging
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from service.errors import InvalidInput, in_lines
from service.spec.file import read_spec_file
from service.spec.job import JobSpec
from service.validation.door import parse_spec
from service.validation.means import Means, check_means
from workers.datasets.load import load_data
from workers.engine.groups import PATIENCE, Workers
from workers.records_file import RecordsFile
from workers.trainings import train_job


def _read_spec(file: Path, data: Path, world_size: int) -> JobSpec:
    """The spec in the file, for as many workers as there are processes. Exits with status 2 where it is refused."""
    try:
        document = read_spec_file(file) | {"workers": world_size}
        spec = parse_spec(json.dumps(document).encode())
        check_means(spec, Means(data))
        return spec
    except InvalidInput as refusal:
        print(in_lines(refusal.title, refusal.errors), file=sys.stderr)
    except ValueError as error:
        print(error, file=sys.stderr)
    raise SystemExit(2)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m workers.local", description="Train a job spec without a service.")
    parser.add_argument("spec", type=Path)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the datasets")
    parser.add_argument(
        "--checkpoints", type=Path, default=Path("checkpoints"), help="folder to write to and resume from"
    )
    options = parser.parse_args(arguments)
    world_size, on_gpu = int(os.environ.get("WORLD_SIZE", 1)), torch.cuda.is_available()
    spec = _read_spec(options.spec, options.data, world_size)
    use_gpu = spec.device == "cuda" or (spec.device == "auto" and on_gpu)
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if use_gpu else torch.device("cpu")
    if use_gpu:
        torch.cuda.set_device(device)
    if world_size > 1:
        dist.init_process_group("nccl" if use_gpu else "gloo", timeout=PATIENCE)
    workers = Workers(device)
    options.checkpoints.mkdir(parents=True, exist_ok=True)
    records = RecordsFile(options.checkpoints)
    began, last = time.perf_counter(), None
    for last in train_job(
        spec,
        load_data(spec.dataset, options.data, device),
        workers,
        points=records.points(),
        trials=records.trials(spec),
        attempt=1,
        folder=options.checkpoints,
        recorder=records if workers.rank == 0 else None,
    ):
        if workers.rank == 0:
            val_loss = math.nan if last.val_loss is None else last.val_loss
            print(
                f"{last.label} {last.trial}, epoch {last.epoch}: learning rate {last.learning_rate:.4g}, "
                f"val_loss {val_loss:.4f}, val_accuracy {last.val_accuracy:.4f}, "
                f"test_accuracy {last.test_accuracy:.4f}, {last.seconds:.1f} s",
                flush=True,
            )
    if workers.rank == 0:
        seconds = round(time.perf_counter() - began, 1)
        print(json.dumps({"test_accuracy": last and last.test_accuracy, "seconds": seconds, "device": str(device)}))
    if world_size > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    main(sys.argv[1:])
