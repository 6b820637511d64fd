"""The registry of methods: the one place that names them all.

To add one: a module here with its fields and rules, a module in `workers.methods` that builds it, and a line in each of
the two lists below; one that a study may vary stands in the two lists of `study` as well.
"""

from typing import Annotated, Literal, get_args

from pydantic import Field

from service.spec.methods.asha import AshaMethod
from service.spec.methods.autolrs import AutoLrsMethod
from service.spec.methods.batch_ramp import RampMethod
from service.spec.methods.bohb import BohbMethod
from service.spec.methods.cosine import CosineMethod
from service.spec.methods.d_adaptation import DAdaptationMethod
from service.spec.methods.dog import DogMethod
from service.spec.methods.fixed import FixedMethod
from service.spec.methods.grid import GridMethod
from service.spec.methods.hyperband import HyperbandMethod
from service.spec.methods.linear import LinearMethod
from service.spec.methods.lr_range_test import LrRangeTestMethod
from service.spec.methods.mechanic import MechanicMethod
from service.spec.methods.one_cycle import OneCycleMethod
from service.spec.methods.pb2 import Pb2Method
from service.spec.methods.pbt import PbtMethod
from service.spec.methods.polling import PollingMethod
from service.spec.methods.prodigy import ProdigyMethod
from service.spec.methods.prodigy_schedule_free import ProdigyScheduleFreeMethod
from service.spec.methods.random import RandomMethod
from service.spec.methods.reference import ReferenceMethod
from service.spec.methods.replay import ReplayMethod
from service.spec.methods.schedule_free import ScheduleFreeMethod
from service.spec.methods.smac import SmacMethod
from service.spec.methods.stpt import StptMethod
from service.spec.methods.study import StudyMethod
from service.spec.methods.sweep import SweepMethod
from service.spec.methods.tpe import TpeMethod
from service.spec.methods.wsd import WsdMethod
from service.spec.types import named

_Methods = Annotated[
    StptMethod
    | SweepMethod
    | ReferenceMethod
    | ReplayMethod
    | CosineMethod
    | LinearMethod
    | WsdMethod
    | OneCycleMethod
    | LrRangeTestMethod
    | AutoLrsMethod
    | ScheduleFreeMethod
    | ProdigyMethod
    | ProdigyScheduleFreeMethod
    | DogMethod
    | DAdaptationMethod
    | MechanicMethod
    | PollingMethod
    | FixedMethod
    | RandomMethod
    | GridMethod
    | TpeMethod
    | SmacMethod
    | HyperbandMethod
    | AshaMethod
    | BohbMethod
    | PbtMethod
    | Pb2Method
    | StudyMethod
    | RampMethod,
    Field(discriminator="name"),
]
# by a name alone, where nothing else needs to be said
MethodName = Literal[
    "stpt",
    "sweep",
    "reference",
    "cosine",
    "linear",
    "wsd",
    "one-cycle",
    "lr-range-test",
    "autolrs",
    "schedule-free",
    "prodigy",
    "prodigy-schedule-free",
    "dog",
    "d-adaptation",
    "mechanic",
    "polling",
    "fixed",
    "random",
    "grid",
    "tpe",
    "smac",
    "hyperband",
    "asha",
    "bohb",
    "pbt",
    "pb2",
    "study",
    "batch-ramp",
]
Method = Annotated[_Methods, named(MethodName, _Methods)]
METHODS = {method.model_fields["name"].default: method for method in get_args(get_args(_Methods)[0])}
