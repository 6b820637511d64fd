"""The driver's side of a search, without Ray: what it admits, what it tells, in which order."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from service.spec.job import JobSpec
from service.spec.methods.study import StudyMethod
from service.wire.worker import TrialRecord
from tests.builders import spec_document
from workers.records_file import RecordsFile
from workers.tune.budget import Ledger
from workers.tune.search import Search

PLAIN = {"name": "plain", "method": "fixed"}


def make_search(folder: Path, told: list[TrialRecord], **study: Any) -> Search:
    """A search of a study, in a job with the optimizer LARS. SQL has the trials a, b and c; what else it hears goes to
    `told`."""
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
