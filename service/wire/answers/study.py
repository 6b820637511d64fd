"""Answers with the tables of studies: test accuracy by variant and batch size."""

from pydantic import Field

from service.wire.answers.base import JOB_ID, Answer, example
from service.wire.answers.statistic import Statistic, Statistics

# An example: three seeds of one variant.
_STUDY_ROW = {
    "variant": "linear",
    "global_batch_size": 1024,
    "seeds": 3,
    "diverged": 0,
    "final_test_accuracy": {"mean": 0.9883, "spread": 0.0007},
    "best_test_accuracy": {"mean": 0.9891, "spread": 0.0005},
}


class StudyRow(Statistics):
    """A variant of a study at a batch size: statistics over the seeds whose trial has ended."""

    model_config = example(_STUDY_ROW)

    variant: str = Field(description="Name of the variant.")
    global_batch_size: int = Field(description="Samples of an iteration, over all workers.")
    seeds: int = Field(description="Seeds whose trial has ended, completed or diverged.")
    diverged: int = Field(description="How many of these trials diverged.")
    final_test_accuracy: Statistic = Field(description="Test accuracy of the last epoch; 0 for a trial that diverged.")
    best_test_accuracy: Statistic = Field(
        description="The highest of all epochs, as papers' tables often have it: selected by the test images."
    )


STUDY_COLUMNS = tuple(next(StudyRow.model_validate(_STUDY_ROW).table_rows()))


class Study(Answer):
    """The table of a job's study: every variant at every batch size, in the study's order."""

    model_config = example({"job_id": JOB_ID, "items": [_STUDY_ROW]})

    job_id: str = Field(description="Id of the job.")
    items: list[StudyRow] = Field(description="The variants at their batch sizes, in the study's order.")


class ExperimentStudy(Answer):
    """The studies of an experiment's jobs as one: every variant at every batch size that it was trained at."""

    model_config = example({"experiment": "layer-wise-optimizers-01234567", "items": [_STUDY_ROW]})

    experiment: str = Field(description="Name of the experiment, which its jobs share.")
    items: list[StudyRow] = Field(description="The variants at their batch sizes.")
