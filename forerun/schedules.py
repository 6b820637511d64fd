"""A job's schedule of learning rates in your own training loop. The only module of the package that needs torch.

schedule = forerun.Client().schedule("job-…")
scheduler = Replay(optimizer, schedule)
for batch in …:
    …
    optimizer.step()
    scheduler.step()   # after every iteration, not every epoch
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from service.algorithms.lr_schedules import schedule_learning_rate
from service.spec.methods.base import Schedule


class Replay(LRScheduler):
    """Sets the learning rate that the job applied at each iteration; after the last one, that of the last.

    `schedule` is what `Client.schedule` or `forerun results schedule JOB` gave: a model, a mapping, or a file. Other
    batch sizes have other iterations an epoch: say `iterations_per_epoch`, and the schedule is stretched to them.
    Parameter groups keep the ratio of the learning rates that they begin with. Raises ValueError where the schedule is
    none of these, or iterations are not a whole number of 1 or more.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule | Mapping[str, Any] | str | Path,
        *,
        iterations_per_epoch: int | None = None,
        last_epoch: int = -1,
    ) -> None:
        if isinstance(schedule, Schedule):
            schedule = schedule.model_dump()
        document = schedule if isinstance(schedule, Mapping) else json.loads(Path(schedule).read_text())
        if not isinstance(document, Mapping):
            raise ValueError("schedule: must be an object, as `forerun results schedule JOB` prints it")
        iterations = document.get("iterations_per_epoch") if iterations_per_epoch is None else iterations_per_epoch
        if not isinstance(iterations, int) or iterations < 1:
            raise ValueError(f"iterations_per_epoch: must be a whole number, 1 at least, not {iterations!r}")
        self.iterations_per_epoch = iterations
        self.schedule = Schedule.model_validate(
            {key: document[key] for key in Schedule.model_fields if key in document}
        )
        groups = optimizer.param_groups
        first = groups[0].get("initial_lr", groups[0]["lr"])
        self._ratios = [float(group.get("initial_lr", group["lr"])) / float(first) for group in groups]
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | torch.Tensor]:
        """The learning rate of each parameter group at the iteration at hand."""
        rate = schedule_learning_rate(self.schedule, self.last_epoch, self.iterations_per_epoch)
        return [rate * ratio for ratio in self._ratios]

    def state_dict(self) -> dict[str, Any]:
        """The state as plain values: the iteration at hand and the learning rates. The schedule itself is given again
        when a Replay is made."""
        return {"last_epoch": self.last_epoch, "_last_lr": [float(rate) for rate in self.get_last_lr()]}
