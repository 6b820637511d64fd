"""What the client promises of the answers is what the service gives."""

from typing import Any, get_type_hints

import pytest

from api import schemas, schemas_comparison, schemas_layers
from forerun import answers
from service.wire.states import TERMINAL
from service.wire.worker import AuditRecord, EpochRecord


@pytest.mark.parametrize(
    ("promised", "given"),
    [
        (answers.Job, schemas.Job),
        (answers.JobError, schemas.JobError),
        (answers.Links, schemas.Links),
        (answers.Epoch, schemas.Epoch),
        (answers.Branch, schemas.Branch),
        (answers.BranchOfEpoch, schemas.BranchOfEpoch),
        (answers.LrStep, schemas.LrStep),
        (answers.LayerEpoch, schemas_layers.LayerEpoch),
        (answers.Audit, AuditRecord),
        (answers.Schedule, schemas.JobSchedule),
        (answers.SelectorReplay, schemas.SelectorReplay),
        (answers.ReplayedEpoch, schemas.ReplayedEpoch),
        (answers.Plan, schemas.Plan),
        (answers.RunCost, schemas.RunCost),
        (answers.SearchArea, schemas.SearchArea),
        (answers.ExperimentFacts, schemas.ExperimentFacts),
        (answers.ExperimentJobs, schemas.ExperimentJobs),
        *(
            (getattr(answers, name), getattr(schemas_comparison, name))
            for name in (
                *("TrialResult", "Statistic", "CurvePoint", "SeedComparison", "ComparedRun"),
                *("StudyRow", "RampStep", "BatchRamp"),
                *("HistoryStep", "Evidence", "Recommendation"),
            )
        ),
    ],
)
def test_keys_are_those_of_the_api(promised: Any, given: Any) -> None:
    assert set(get_type_hints(promised)) == set(given.model_fields)


def test_an_epoch_event_is_the_record_with_its_attempt() -> None:
    about_the_event = {"number", "kind", "created_at"}
    of_the_record = EpochRecord.model_fields.keys() - {"checkpoint", "layers"}
    assert set(get_type_hints(answers.EpochEvent)) == {*of_the_record, "attempt", *about_the_event}


def test_terminal_states_are_those_of_the_service() -> None:
    assert answers.TERMINAL == TERMINAL
