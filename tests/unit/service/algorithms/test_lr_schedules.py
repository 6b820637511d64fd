"""Expected learning rates are written out, or worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.algorithms.candidates import first_candidates
from service.algorithms.lr_schedules import (
    epoch_lr_factors,
    fixed_learning_rates,
    lr_factor,
    reference_learning_rate,
    scaled_learning_rate,
    scaled_optimizer,
    schedule_learning_rate,
    schedule_learning_rates,
    warmup_factor,
    wsd_factors,
)
from service.spec.job import JobSpec
from service.spec.methods.base import Schedule
from service.spec.methods.fixed import FixedMethod
from service.spec.methods.reference import ReferenceMethod
from service.spec.methods.wsd import WsdMethod
from tests.unit.service.specs import small

KINDS = ["constant", "linear", "cosine"]


@pytest.mark.parametrize(
    ("kind", "values"),  # at 0, 1/3, 1/2, 2/3 and 1
    [("constant", [1, 1, 1, 1, 1]), ("linear", [1, 2 / 3, 0.5, 1 / 3, 0]), ("cosine", [1, 0.75, 0.5, 0.25, 0])],
)
def test_lr_factors(kind, values):
    assert [lr_factor(kind, x) for x in (0, 1 / 3, 0.5, 2 / 3, 1)] == pytest.approx(values, abs=1e-15)


def test_lr_factors_go_on_from_epoch_to_epoch():
    assert epoch_lr_factors("linear", epoch=1, epochs=2, iterations=2) == [1.0, 0.75]
    assert epoch_lr_factors("linear", epoch=2, epochs=2, iterations=2) == [0.5, 0.25]
    cosine = [epoch_lr_factors("cosine", epoch=epoch, epochs=3, iterations=1) for epoch in (1, 2, 3)]
    assert cosine == [[1.0], pytest.approx([0.75]), pytest.approx([0.25])]


@pytest.mark.parametrize(
    ("whole", "share", "factors"),
    [
        (6, 0.0, [1, 1, 1, 1, 1, 1]),
        (6, 0.05, [1, 1, 1, 1, 1, 1]),  # 0.3 iterations are none
        (6, 0.5, [1 / 4, 2 / 4, 3 / 4, 1, 1, 1]),
        (20, 0.1, [1 / 3, 2 / 3, 1, 1, 1, 1]),
        (6, 0.99, [1 / 7, 2 / 7, 3 / 7, 4 / 7, 5 / 7, 6 / 7]),
    ],
)
def test_a_linear_warm_up_of_a_share_of_the_training(whole, share, factors):
    assert [warmup_factor(iteration, whole, share) for iteration in range(6)] == pytest.approx(factors)


def test_a_warm_up_and_an_lr_schedule_multiply():
    """10 iterations, the first 2 of which rise to a third and two thirds of what they would be."""
    first, second = (
        epoch_lr_factors("linear", epoch=epoch, epochs=2, iterations=5, warmup_share=0.2) for epoch in (1, 2)
    )
    assert first == pytest.approx([1.0 / 3, 0.9 * 2 / 3, 0.8, 0.7, 0.6])
    assert second == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1])


def test_a_warm_up_may_go_on_in_the_second_epoch():
    halves = [epoch_lr_factors("constant", epoch=epoch, epochs=2, iterations=3, warmup_share=0.7) for epoch in (1, 2)]
    assert halves == [pytest.approx([0.2, 0.4, 0.6]), pytest.approx([0.8, 1.0, 1.0])]


@given(kind=st.sampled_from(KINDS), epochs=st.integers(1, 20), iterations=st.integers(1, 20))
def test_an_envelope_begins_at_one_never_rises_and_stays_above_zero(kind, epochs, iterations):
    whole = [
        factor
        for epoch in range(1, epochs + 1)
        for factor in epoch_lr_factors(kind, epoch=epoch, epochs=epochs, iterations=iterations)
    ]
    assert len(whole) == epochs * iterations
    assert whole[0] == 1.0
    assert whole == sorted(whole, reverse=True)
    assert whole[-1] > 0


WARM = Schedule(learning_rates=[0.005, 0.3, 0.6], lr_schedule="linear", warmup_epochs=1)


def test_learning_rates_of_a_schedule():
    assert schedule_learning_rates(WARM, epoch=1, iterations=2) == [0.005, 0.005]
    assert schedule_learning_rates(WARM, epoch=2, iterations=2) == pytest.approx([0.2, 0.15])  # 4/6 and 3/6 of 0.3
    assert schedule_learning_rates(WARM, epoch=3, iterations=2) == pytest.approx([0.2, 0.1])  # 2/6 and 1/6 of 0.6


def test_after_its_end_a_schedule_stays_where_it_is():
    rates = [schedule_learning_rate(WARM, iteration, 2) for iteration in (0, 1, 2, 3, 4, 5, 6, 100)]
    assert rates == pytest.approx([0.005, 0.005, 0.2, 0.15, 0.2, 0.1, 0.1, 0.1])


def test_a_schedule_that_warms_up_over_a_share_of_it():
    """Of 8 iterations the first 2 rise: 8/8 of 0.3 to a third, 7/8 to two thirds."""
    risen = Schedule(learning_rates=[0.3, 0.6], lr_schedule="linear", warmup_share=0.25)
    assert schedule_learning_rates(risen, epoch=1, iterations=4) == pytest.approx([0.1, 0.175, 0.225, 0.1875])
    assert schedule_learning_rates(risen, epoch=2, iterations=4) == pytest.approx([0.3, 0.225, 0.15, 0.075])
    assert schedule_learning_rate(risen, 100, 4) == pytest.approx(0.075)


def test_a_share_leaves_epochs_of_warm_up_as_they_are():
    """The share counts from the first iteration: the third of 6 has 3/4, and 4/6 by the linear schedule."""
    risen = Schedule(learning_rates=[0.005, 0.3, 0.3], lr_schedule="linear", warmup_epochs=1, warmup_share=0.5)
    assert schedule_learning_rates(risen, epoch=1, iterations=2) == [0.005, 0.005]
    assert schedule_learning_rates(risen, epoch=2, iterations=2) == pytest.approx([0.3 * 4 / 6 * 3 / 4, 0.3 * 3 / 6])


@pytest.mark.parametrize(
    ("val_accuracies", "learning_rate"),
    [
        ([], 0.1),
        ([0.5], 0.1),
        ([0.5, 0.5], 0.1),
        ([0.5, 0.5, 0.4], 0.01),  # two epochs without a new best
        ([0.5, 0.5, 0.4, 0.5], 0.01),
        ([0.5, 0.5, 0.4, 0.5, 0.5], 0.001),
        ([0.5, 0.5, 0.6, 0.6], 0.1),  # a new best in time
        ([0.5, 0.5, 0.4, 0.6, 0.6, 0.6], 0.001),
    ],
)
def test_the_reference_divides_when_accuracy_saturates(val_accuracies, learning_rate):
    method = ReferenceMethod(learning_rate=0.1, factor=10.0, patience=2)
    assert reference_learning_rate(method, val_accuracies) == pytest.approx(learning_rate, rel=1e-12)


def test_the_reference_never_reaches_zero():
    assert reference_learning_rate(ReferenceMethod(patience=1), [0.5] * 1000) == 1e-12


def test_warmup_stable_decay():
    """Of 20 iterations the first 2 rise, the last 4 fall by 1 - sqrt(0), sqrt(1/4), sqrt(2/4), sqrt(3/4)."""
    method = WsdMethod(warmup=0.1, decay=0.2)
    first, second = (wsd_factors(method, epoch=epoch, epochs=2, iterations=10) for epoch in (1, 2))
    assert first == [0.5] + [1.0] * 9
    assert second == pytest.approx([1.0] * 7 + [0.5, 0.2928932188134524, 0.1339745962155614])


def test_warmup_and_decay_may_be_left_out():
    assert wsd_factors(WsdMethod(warmup=0, decay=0), epoch=1, epochs=1, iterations=3) == [1.0, 1.0, 1.0]
    assert wsd_factors(WsdMethod(warmup=0.5, decay=0.5), epoch=1, epochs=1, iterations=4) == pytest.approx(
        [0.5, 1.0, 1.0, 0.2928932188134524]
    )


# --- the method `schedule` -----------------------------------------------------------------------------


def written_out(*, iterations: int, epochs: int, batch: int = 64, **method) -> list[list[float]]:
    """Learning rates epoch by epoch of a job with initial learning rate 0.01."""
    spec = JobSpec.model_validate(small(epochs=epochs, global_batch_size=batch, initial_learning_rate=0.01))
    schedule = FixedMethod.model_validate(method)
    return [fixed_learning_rates(schedule, spec, epoch=epoch, iterations=iterations) for epoch in range(1, epochs + 1)]


def test_by_itself_it_is_the_initial_learning_rate():
    assert written_out(iterations=2, epochs=2) == [[0.01, 0.01], [0.01, 0.01]]
    assert written_out(iterations=1, epochs=2, learning_rate=0.3) == [[0.3], [0.3]]


def test_gradual_warm_up_to_the_scaled_learning_rate():
    """Signer & Barbier, Fig. 4, with 2 epochs of warm-up: k = 256 / 64 = 4."""
    scaling = {"rule": "linear", "base_batch_size": 64}
    warmup = {"kind": "gradual", "epochs": 2}
    rates = written_out(iterations=2, epochs=4, batch=256, scaling=scaling, warmup=warmup)
    assert rates == [[0.01] * 2, pytest.approx([0.025] * 2), [0.04] * 2, [0.04] * 2]
    rates = written_out(iterations=1, epochs=3, batch=256, scaling=scaling, warmup={"kind": "constant", "epochs": 2})
    assert rates == [[0.01], [0.01], [0.04]]


def test_a_decay_begins_behind_the_warm_up():
    warmup = {"kind": "constant", "epochs": 1}
    rates = written_out(iterations=2, epochs=3, warmup=warmup, lr_schedule={"kind": "polynomial", "power": 1})
    assert rates == [[0.01, 0.01], pytest.approx([0.01, 0.0075]), pytest.approx([0.005, 0.0025])]
    rates = written_out(iterations=1, epochs=5, warmup=warmup, lr_schedule={"kind": "step", "milestones": [0.5, 0.75]})
    assert rates == [[0.01], [0.01], [0.01], pytest.approx([0.001]), pytest.approx([0.0001])]
    rates = written_out(iterations=1, epochs=4, lr_schedule="cosine")
    assert [rate for [rate] in rates] == pytest.approx([0.01, 0.008535533905932738, 0.005, 0.0014644660940672624])


def test_lars_warm_is_that_of_the_third_paper():
    """Do et al., appendix A: learning rate 3 at batch 512 goes to 6 over 20 epochs, then along a cosine to 0.006."""
    schedule = {"defaults": "lars-warm", "learning_rate": 3.0}
    rates = [rate for rates in written_out(iterations=2, epochs=100, batch=512, **schedule) for rate in rates]
    assert [rates[i] for i in (0, 1, 20, 39, 40)] == pytest.approx([0, 0.15, 3, 5.85, 6])
    assert rates[120] == pytest.approx((6 + 0.006) / 2)  # in the middle of the other 160 iterations
    assert 0.006 < rates[-1] < 0.0066
    assert max(rates) == 6
    # what is said besides goes before it
    shorter = written_out(iterations=1, epochs=3, batch=512, **schedule, warmup={"kind": "linear", "epochs": 1})
    assert [rate for [rate] in shorter] == pytest.approx([0, 6, 3.003])
    inside = {"warmup": {"epochs": 1}, "scaling": {"base_batch_size": 128}, "lr_schedule": {"final": 0.5}}
    rates = written_out(iterations=1, epochs=3, batch=512, **schedule, **inside)
    assert [rate for [rate] in rates] == pytest.approx([0, 12, 9])
    other = written_out(
        iterations=1, epochs=22, batch=512, **schedule, lr_schedule={"kind": "polynomial", "power": 1.0}
    )
    assert [rate for [rate] in other[20:]] == pytest.approx([6, 3])


@pytest.mark.parametrize(
    ("rule", "momentum"), [("none", 0.9), ("sqrt", 0.95), ("linear", 0.975)]
)  # 1 / (1 - m) is 10 x 1, 2, 4
def test_momentum_in_place_of_the_learning_rate(rule, momentum):
    scaling = {"rule": rule, "base_batch_size": 64, "momentum": True}
    method = FixedMethod.model_validate({"scaling": scaling})
    spec = JobSpec.model_validate(small(global_batch_size=256, optimizer={"name": "sgd", "weight_decay": 0.1}))
    optimizer = scaled_optimizer(method.scaling, spec)
    assert optimizer.model_dump() == {"name": "sgd", "momentum": pytest.approx(momentum), "nesterov": False} | {
        "weight_decay": 0.1
    }
    assert scaled_learning_rate(method, spec) == spec.initial_learning_rate
    assert scaled_optimizer(FixedMethod().scaling, spec) is spec.optimizer


@pytest.mark.parametrize(
    ("momentum", "learning_rate", "scaled"), [(False, 0.04, 0.9), (True, 0.01, pytest.approx(0.975))]
)
def test_a_search_may_begin_at_a_scaled_learning_rate(momentum, learning_rate, scaled):
    scaling = {"rule": "linear", "base_batch_size": 64, "momentum": momentum}
    search = {"name": "stpt", "scaling": scaling}
    spec = JobSpec.model_validate(
        small(
            global_batch_size=256, initial_learning_rate=0.01, methods=["tpe", search], lr_set={"factors": [3, 1, 0.3]}
        )
    )
    method = spec.methods[1]
    assert method.first_learning_rate(spec) == learning_rate
    assert scaled_optimizer(method.scaling, spec).momentum == scaled
    # what stands beside it searches the same learning rates
    assert first_candidates(spec) == pytest.approx([learning_rate * factor for factor in (3, 1, 0.3)])
