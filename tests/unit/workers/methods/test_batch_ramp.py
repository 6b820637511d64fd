"""The batch ramp proposes one trial after another."""

from pathlib import Path

import pytest

from service.algorithms.batch_ramp import Step
from workers.methods.batch_ramp import BatchRamp


def test_a_ramp_proposes_one_trial_at_a_time_and_goes_on_from_its_file(tmp_path: Path) -> None:
    def make() -> BatchRamp:
        return BatchRamp(Step(64, 0.1, 0.9), tolerance=0.0, largest_batch=1000, admit=lambda key: True)

    searcher, path = make(), str(tmp_path / "searcher")
    proposed = []
    for key, accuracy in (("a", 0.8), ("b", 0.9), ("c", 0.7), ("d", 0.95), ("e", None)):
        proposed.append(searcher.suggest(key))
        assert searcher.suggest("other") is None  # while one trains
        searcher.save(path)
        searcher = make()
        searcher.restore(path)
        searcher.on_trial_complete(key, None if accuracy is None else {"val_accuracy": accuracy, "state": ""})
    assert [point["global_batch_size"] for point in proposed] == [64, 128, 256, 256, 512]
    assert [point["learning_rate"] for point in proposed] == pytest.approx(
        [0.1, *[0.1 * 2**0.5], 0.2, *[0.1 * 2**0.5] * 2]
    )
    assert [point["optimizer.momentum"] for point in proposed] == pytest.approx([0.9] * 3 + [1 - 0.1 / 2**0.5, 0.95])
    assert searcher.suggest("f") == BatchRamp.FINISHED


@pytest.mark.parametrize("state", ["diverged", "failed"])
def test_a_ramp_takes_what_diverged_or_failed_as_fallen_whatever_its_accuracy(state: str) -> None:
    ramp = BatchRamp(Step(64, 0.1, 0.9), tolerance=1.0, largest_batch=1000, admit=lambda key: True)
    for key, its_state in (("a", ""), ("b", state), ("c", "")):
        proposed = ramp.suggest(key)
        ramp.on_trial_complete(key, {"val_accuracy": 0.1, "state": its_state})
    assert (proposed["global_batch_size"], proposed["learning_rate"]) == (128, 0.1)
    assert proposed["optimizer.momentum"] == pytest.approx(1 - 0.1 / 2**0.5)
