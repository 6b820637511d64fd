"""SMAC3, asked and told."""

from pathlib import Path
from typing import Any

from service.spec.methods.search import Distribution
from workers.methods.smac import Smac


def test_smac_learns_and_goes_on_where_it_was(tmp_path: Path) -> None:
    space = {
        "learning_rate": Distribution(loguniform=[1e-3, 1.0]),
        "lr_schedule": Distribution(choice=["linear", "cosine"]),
    }

    def told(config: dict[str, Any]) -> dict[str, Any]:
        return {"val_accuracy": 0.9 - abs(config["learning_rate"] - 0.1)}

    smac = Smac(space, seed=3, trials=8)
    for number in range(6):
        config = smac.suggest(f"t{number}")
        assert 1e-3 <= config["learning_rate"] <= 1.0
        assert config["lr_schedule"] in (0, 1)
        smac.on_trial_complete(f"t{number}", told(config))
    pending = smac.suggest("t6")
    smac.save(str(tmp_path / "state.json"))
    again = Smac(space, seed=3, trials=8)
    again.restore(str(tmp_path / "state.json"))
    again.on_trial_complete("t6", told(pending))
    again.on_trial_complete(("t7", again.suggest("t7"))[0], error=True)  # crashed: the worst there is
    assert len(again._told) == 8
    assert again._told[-1][2] == 1.0
