"""What the API answers with, for the API itself and for the client: plain pydantic models, a module for each noun."""

from service.wire.answers.base import Answer
from service.wire.answers.catalog import Catalog, DatasetFacts, LrSetFacts, LrSetPhaseFacts
from service.wire.answers.comparison import COMPARISON_COLUMNS, ComparedRun, Comparison, CurvePoint, SeedComparison
from service.wire.answers.decisions import (
    Alternative,
    BranchPoint,
    Candidate,
    ChoiceWarning,
    Decision,
    Decisions,
    RatedRate,
    Rule,
)
from service.wire.answers.epoch import (
    Branch,
    BranchList,
    BranchOfEpoch,
    Epoch,
    EpochList,
    EpochValues,
    EpochWithBranches,
)
from service.wire.answers.event import (
    KNOWN_EVENT,
    EpochEvent,
    Event,
    EventBranch,
    KnownEvent,
    OtherEvent,
    StateEvent,
    TrialEvent,
    parse_event,
)
from service.wire.answers.experiment import ExperimentFacts, ExperimentJobs, ExperimentList
from service.wire.answers.health import Health, Leadership, Ray, Readiness
from service.wire.answers.history import HistoryPage, HistoryStep, LrHistory, LrStep
from service.wire.answers.job import Job, JobError, JobPage, Links
from service.wire.answers.key import ApiKey, ApiKeyList, Login, NewApiKey, Scope
from service.wire.answers.layers import LAYER_COLUMNS, LayerEpoch, LayerPage
from service.wire.answers.plan import Plan, RunCost, SearchArea
from service.wire.answers.problem import FieldProblem, Problem
from service.wire.answers.ramp import BatchRamp, BatchRamps, RampStep
from service.wire.answers.recommendation import Evidence, Recommendation
from service.wire.answers.schedule import JobSchedule, ReplayedEpoch, SelectorReplay
from service.wire.answers.statistic import Statistic, Statistics
from service.wire.answers.study import STUDY_COLUMNS, ExperimentStudy, Study, StudyRow
from service.wire.answers.trial import TrialList, TrialResult
from service.wire.answers.webhook import NewWebhook, Webhook, WebhookList, WebhookTest

__all__ = [
    "COMPARISON_COLUMNS",
    "KNOWN_EVENT",
    "LAYER_COLUMNS",
    "STUDY_COLUMNS",
    "Alternative",
    "Answer",
    "ApiKey",
    "ApiKeyList",
    "BatchRamp",
    "BatchRamps",
    "Branch",
    "BranchList",
    "BranchOfEpoch",
    "BranchPoint",
    "Candidate",
    "Catalog",
    "ChoiceWarning",
    "ComparedRun",
    "Comparison",
    "CurvePoint",
    "DatasetFacts",
    "Decision",
    "Decisions",
    "Epoch",
    "EpochEvent",
    "EpochList",
    "EpochValues",
    "EpochWithBranches",
    "Event",
    "EventBranch",
    "Evidence",
    "ExperimentFacts",
    "ExperimentJobs",
    "ExperimentList",
    "ExperimentStudy",
    "FieldProblem",
    "Health",
    "HistoryPage",
    "HistoryStep",
    "Job",
    "JobError",
    "JobPage",
    "JobSchedule",
    "KnownEvent",
    "LayerEpoch",
    "LayerPage",
    "Leadership",
    "Links",
    "Login",
    "LrHistory",
    "LrSetFacts",
    "LrSetPhaseFacts",
    "LrStep",
    "NewApiKey",
    "NewWebhook",
    "OtherEvent",
    "Plan",
    "Problem",
    "RampStep",
    "RatedRate",
    "Ray",
    "Readiness",
    "Recommendation",
    "ReplayedEpoch",
    "Rule",
    "RunCost",
    "Scope",
    "SearchArea",
    "SeedComparison",
    "SelectorReplay",
    "StateEvent",
    "Statistic",
    "Statistics",
    "Study",
    "StudyRow",
    "TrialEvent",
    "TrialList",
    "TrialResult",
    "Webhook",
    "WebhookList",
    "WebhookTest",
    "parse_event",
]
