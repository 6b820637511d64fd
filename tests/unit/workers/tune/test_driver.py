"""The driver's side of a search, without Ray: what it admits, what it tells, in which order."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.search import Searcher

from service.algorithms.batch_ramp import Step
from service.algorithms.search_space import most_trials
from service.spec.job import JobSpec
from service.spec.methods.grid import GridMethod
from service.spec.methods.hyperband import HyperbandMethod
from service.spec.methods.search import Distribution
from service.spec.methods.study import StudyMethod
from service.wire.worker import TrialRecord
from tests.builders import spec_document
from workers.methods.batch_ramp import BatchRamp
from workers.methods.hyperband import HyperBand
from workers.methods.smac import Smac
from workers.records_file import RecordsFile
from workers.tune.budget import Ledger
from workers.tune.search import Search
from workers.tune.searchers import hyperparameters, tune_space
from workers.tune.tuner import make_scheduler, make_searcher


def test_a_ledger_promises_no_more_than_there_is() -> None:
    ledger = Ledger(budget=250)
    assert ledger.admit("a", 100)
    assert ledger.admit("b", 100)
    assert not ledger.admit("c", 100)
    ledger.took("a", 100)
    assert not ledger.admit("c", 100)  # 100 spent, 100 promised
    assert ledger.admit("c", 50)
    ledger.took("b", 100)
    ledger.took("c", 50)
    assert (ledger.spent, ledger.promised) == (250, {})


PLAIN = {"name": "plain", "method": "fixed"}


def make_search(folder: Path, told: list[TrialRecord], **study: Any) -> Search:
    """Of a study in a job with the optimizer LARS. SQL has the trials a, b and c; what else it hears goes to `told`."""
    document = spec_document(methods=[{"name": "study", "batch_sizes": [32, 64, 128]} | study], optimizer="lars")
    spec = JobSpec.model_validate(document)
    return Search(
        spec=spec,
        method=cast(StudyMethod, spec.methods[0]),
        seed=0,
        samples=1280,
        epochs=3,
        most_trials=3,
        ledger=Ledger(None),
        recorder=RecordsFile(folder),
        service=cast(Any, SimpleNamespace(trial=told.append)),
        numbers={"a": 1, "b": 2, "c": 3},
        next_number=4,
    )


def test_trials_that_a_crash_has_lost_are_begun_again(tmp_path: Path) -> None:
    """Three points; the attempt died before Tune's snapshot had c."""
    search = make_search(tmp_path, [], variants=[PLAIN])
    search.resumed({"a", "b"})
    assert search.admit_trial("d")
    search.resumed({"a", "b", "d"})  # every step says so
    assert not search.admit_trial("e")
    assert search.numbers == {"a": 1, "b": 2, "c": 3, "d": 4}


@pytest.mark.parametrize(("place", "optimizer"), [(0, "lars"), (1, "adam")])
def test_a_trial_of_a_study_tells_the_optimizer_of_its_variant(tmp_path: Path, place: int, optimizer: str) -> None:
    told: list[TrialRecord] = []
    search = make_search(tmp_path, told, variants=[PLAIN, PLAIN | {"name": "other", "optimizer": "adam"}])
    search.began("a", {"global_batch_size": 2, "variant": place})  # places among the choices
    assert told[0].config == {"global_batch_size": 128, "variant": ("plain", "other")[place], "optimizer": optimizer}


def test_the_end_of_a_trial_that_an_earlier_attempt_did_not_tell_has_its_config(tmp_path: Path) -> None:
    told: list[TrialRecord] = []
    search = make_search(tmp_path, told, variants=[PLAIN])
    search.knew("b", {"global_batch_size": 1, "variant": 0})
    search.end("b", "completed", "")
    search.tell_ends()
    config = {"global_batch_size": 64, "variant": "plain", "optimizer": "lars"}
    assert [(record.trial, record.state, record.config) for record in told] == [(2, "completed", config)]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=60), st.integers(0, 1000))
def test_a_ledger_never_overdraws(moves: list[tuple[str, bool]], budget: int) -> None:
    ledger = Ledger(budget)
    for key, take in moves:
        if take and key in ledger.promised:
            ledger.took(key, ledger.promised[key])
        elif key not in ledger.promised:
            ledger.admit(key, 70)
        assert ledger.spent + sum(ledger.promised.values()) <= budget


def test_choices_of_any_kind_come_back_as_they_were() -> None:
    options = [{"name": "sgd", "momentum": 0.5}, "adam"]
    space = {"optimizer": Distribution(choice=options), "learning_rate": Distribution(loguniform=[0.1, 1.0])}
    assert list(tune_space(space)["optimizer"].categories) == [0, 1]
    assert hyperparameters(space, {"optimizer": 0, "learning_rate": 0.2, "other": 1}) == {
        "optimizer": options[0],
        "learning_rate": 0.2,
    }


@pytest.mark.parametrize(
    ("eta", "epochs", "brackets"),
    [
        (3, 9, [(9, 1), (5, 3), (3, 9)]),
        (3, 81, [(81, 1), (34, 3), (15, 9), (8, 27), (5, 81)]),  # Li et al. 2018, table 1
        (2, 4, [(4, 1), (3, 2), (3, 4)]),
    ],
)
def test_hyperbands_brackets_in_the_papers_order(eta: int, epochs: int, brackets: list[tuple[int, int]]) -> None:
    """Trials and epochs of each bracket's first rung."""
    scheduler = make_scheduler(HyperbandMethod(reduction_factor=eta), {}, epochs)
    assert isinstance(scheduler, HyperBand)
    made = [scheduler._create_bracket(s) for s in range(len(brackets))]
    assert [(bracket._n0, bracket._r0) for bracket in made] == brackets
    assert [bracket._halves for bracket in made] == list(reversed(range(len(brackets))))


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


def test_a_grid_of_whole_numbers_is_searched_as_it_was_planned() -> None:
    grid = {"name": "grid", "search_space": {"optimizer.delay_epochs": {"lograndint": [1, 10]}}, "max_trials": 9}
    spec = JobSpec.model_validate(spec_document(methods=[grid], optimizer="tvlars"))
    method = cast(GridMethod, spec.methods[0])
    searcher = make_searcher(spec, method, seed=0, samples=100, budget=None, admit=lambda key: True)
    assert isinstance(searcher, Searcher)
    proposed = [searcher.suggest(str(number)) for number in range(most_trials(spec, method, 100, None))]
    assert [config["optimizer.delay_epochs"] for config in proposed] == [1, 2, 3, 4, 5, 6, 8]


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
