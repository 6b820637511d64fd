"""What saves a training from a bad choice, each provoked; and the audit, which only looks."""

import math
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch

from service.algorithms.selectors import BranchResult
from service.spec.stpt import Guards
from tests.unit.workers.ranks import make_stpt
from workers.engine.trainer import Measurement, Trainer
from workers.methods import guards
from workers.methods.stpt import Stpt

pytest_plugins = ["tests.unit.workers.ranks"]

OFF = {"extend": False, "skip_dead": False, "rollback": False, "rescale_momentum": False}
SHORT = {
    "global_batch_size": 48,
    "initial_learning_rate": 0.05,
    "pretrain": {"iterations": 2},
    "main_train": {"iterations": 4},
    "metric": "val_loss",
}


def only(**guards):
    return {"guards": OFF | guards}


def after(record):
    return [(branch.learning_rate, branch.state) for branch in record.branches]


# --- extension: no branch improves -------------------------------------------------------------------


def extended(changes):
    stpt = make_stpt("plain", **SHORT, **changes)
    return [(record.learning_rate, after(record), record.iterations) for record in stpt.epochs()]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_when_no_branch_improves_far_smaller_learning_rates_are_tried(ranks, workers):
    # trained well at 0.05 first; then 3 and 2 only do harm, and of 0.2 and 0.02 one does better
    changes = {"epochs": 2, "warmup": {"epochs": 1, "learning_rate": 0.05}, "lr_set": {"learning_rates": [3.0, 2.0]}}
    [told, *others] = ranks(workers, extended, changes | only(extend=True))
    assert others == [told] * (workers - 1)
    learning_rate, branches, iterations = told[1]
    assert [rate for rate, _ in branches] == pytest.approx([3.0, 2.0, 0.2, 0.02])
    assert learning_rate in (branches[2][0], branches[3][0])
    assert iterations == 4 * 2 + 4
    [without, *_] = ranks(workers, extended, changes | only())
    assert [rate for rate, _ in without[1][1]] == [3.0, 2.0]


def test_a_set_that_improves_is_not_extended():
    changes = {"epochs": 2, "warmup": {"epochs": 1, "learning_rate": 0.01}, "lr_set": {"learning_rates": [0.02, 0.01]}}
    _, (_, branches, _) = extended(changes | only(extend=True))
    assert len(branches) == 2


# --- rollback: Main-train comes to nothing ---------------------------------------------------------------


def collapses_above(limit, how):
    """Have every Main-train at a learning rate above the limit end in a net that has forgotten, or in NaN."""
    original = Trainer.train

    def collapsing(self, epoch, iterations, learning_rates, *arguments):
        measured = original(self, epoch, iterations, learning_rates, *arguments)
        if epoch == 1 or iterations.start == 0 or max(learning_rates) <= limit:
            return measured
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.fill_(0.0 if how == "forgets" else math.nan)
        return measured if how == "forgets" else replace(measured, loss_sum=math.nan)

    return patch.object(Trainer, "train", collapsing)


ROLLBACK = {
    "epochs": 2,
    "warmup": {"epochs": 1, "learning_rate": 0.05},
    "pretrain": {"iterations": 2},
    "selector": {"name": "tolerance", "tolerance": 1.0},  # the largest
}


def rolled_back(how, limit, learning_rates):
    changes = ROLLBACK | {"lr_set": {"learning_rates": learning_rates}} | only(rollback=True, max_accuracy_drop=0.1)
    stpt = make_stpt("plain", **{**SHORT, "main_train": {"iterations": 20}, **changes})
    with collapses_above(limit, how):
        record = list(stpt.epochs())[-1]
    return after(record), record.rollbacks, record.retries, record.iterations, stpt.trainer.state.digest()


@pytest.mark.parametrize("how", ["forgets", "diverges"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_main_train_that_comes_to_nothing_is_undone(ranks, workers, how):
    [told, *others] = ranks(workers, rolled_back, how, 0.0215, [0.022, 0.023, 0.021, 0.02])
    assert others == [told] * (workers - 1)
    branches, rollbacks, retries, iterations, digest = told
    states = dict(branches)
    assert (states[0.023], states[0.022], states[0.021]) == ("rolled_back", "rolled_back", "chosen")
    assert (rollbacks, retries) == (2, 0)
    assert iterations == 4 * 2 + 3 * 20
    # what was undone left no trace
    [(_, _, _, _, plain), *_] = ranks(workers, rolled_back, how, 1.0, [0.021, 0.02])
    assert plain == digest


def test_when_no_runner_up_is_left_all_are_tried_again_at_a_tenth():
    branches, rollbacks, retries, *_ = rolled_back("forgets", 0.006, [0.05, 0.04])
    assert [rate for rate, _ in branches] == pytest.approx([0.05, 0.04, 0.005, 0.004])
    assert [state for _, state in branches] == ["rolled_back", "rolled_back", "chosen", "lost"]
    assert (rollbacks, retries) == (2, 1)


def test_a_settled_learning_rate_is_halved():
    branches, rollbacks, retries, *_ = rolled_back("forgets", 0.03, [0.05])
    assert branches == [(0.05, "rolled_back"), (0.025, "chosen")]
    assert (rollbacks, retries) == (1, 1)


# --- a dead net ------------------------------------------------------------------------------------------


def test_a_branch_whose_last_weights_have_learned_nothing_is_not_chosen():
    """The mean of its weights may look fine: the learning rate that killed it is the largest, and is not taken."""
    original = Stpt.train_branch

    def dying(self, epoch, learning_rate, *arguments):
        end = original(self, epoch, learning_rate, *arguments)
        return end._replace(metric=0.1) if learning_rate == 30.0 else end

    changes = {"epochs": 1, "lr_set": {"learning_rates": [30.0, 0.05]}, "pretrain": {"iterations": 12}}
    chosen = {}
    for switches in (only(), only(skip_dead=True)):
        stpt = make_stpt("plain", **{**SHORT, **changes, **switches})
        with patch.object(Stpt, "train_branch", dying):
            [record] = stpt.epochs()
        chosen[switches["guards"]["skip_dead"]] = record.learning_rate
    assert chosen == {False: 30.0, True: 0.05}


# --- momentum ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rescaled", "factor"), [(True, 0.05), (False, 1.0)])
def test_a_rise_of_the_learning_rate_does_not_enlarge_what_momentum_carries_over(rescaled, factor):
    changes = {"epochs": 2, "warmup": {"epochs": 1, "learning_rate": 0.005}, "lr_set": {"learning_rates": [0.1]}}
    stpt = make_stpt("plain", **{**SHORT, **changes, **only(rescale_momentum=rescaled)})
    next(epochs := stpt.epochs())
    momentum = {name: tensor.clone() for name, tensor in stpt.trainer.tensors.items() if "momentum" in name}
    seen, original = [], Trainer.train

    def recorded(self, epoch, iterations, *arguments):
        if epoch == 2 and iterations.start == 0:
            seen.append({name: self.tensors[name].clone() for name in momentum})
        return original(self, epoch, iterations, *arguments)

    with patch.object(Trainer, "train", recorded):
        next(epochs)
    assert momentum
    for name, before in momentum.items():
        torch.testing.assert_close(seen[0][name], before * factor, rtol=1e-6, atol=0)


def test_a_fall_leaves_momentum_as_it_is():
    changes = {"epochs": 2, "warmup": {"epochs": 1, "learning_rate": 0.1}, "lr_set": {"learning_rates": [0.05]}}
    ends = set()
    for rescaled in (True, False):
        stpt = make_stpt("plain", **{**SHORT, **changes, **only(rescale_momentum=rescaled)})
        list(stpt.epochs())
        ends.add(stpt.trainer.state.digest())
    assert len(ends) == 1


# --- stages: wide, fine, settled -----------------------------------------------------------------------------


def staged(initial, changes):
    stages = [{"factors": [3.0, 1.0, 0.3], "pretrain_share": 0.5}, {"factors": [2.0, 1.0, 0.5]}]
    spec = {**SHORT, "epochs": 4, "initial_learning_rate": initial, "lr_set": {"stages": stages, **changes}}
    spec |= {"pretrain": {"iterations": 2, "weights": "averaged"}}
    stpt = make_stpt("batch-norm", **spec)
    return list(stpt.epochs())


def test_each_stage_has_its_candidates_and_length_and_then_the_learning_rate_stays():
    first, second, third, fourth = staged(0.05, {"max_extensions": 0})
    assert [branch.learning_rate for branch in first.branches] == pytest.approx([0.15, 0.05, 0.015])
    assert {branch.iterations for branch in first.branches} == {3}  # half of 6
    assert [branch.learning_rate for branch in second.branches] == pytest.approx(
        [2 * first.learning_rate, first.learning_rate, first.learning_rate / 2]
    )
    assert {branch.iterations for branch in second.branches} == {2}
    for settled in (third, fourth):
        assert after(settled) == [(second.learning_rate, "chosen")]
        assert (settled.iterations, settled.samples) == (6, 6 * 48)


@pytest.mark.parametrize("initial", [0.0005, 0.05])
def test_a_stage_whose_best_lies_at_an_end_goes_on_beyond_it(initial):
    first = staged(initial, {"max_extensions": 3})[0]
    tried = [branch.learning_rate for branch in first.branches]
    best = min((branch for branch in first.branches if branch.metric is not None), key=lambda branch: branch.metric)
    assert first.learning_rate == best.learning_rate
    extra = tried[3:]
    assert len(extra) <= 3
    assert min(tried) < best.learning_rate < max(tried) or len(extra) == 3
    if initial == 0.0005:
        assert extra == pytest.approx([0.0045, 0.0135, 0.0405])


# --- the audit -------------------------------------------------------------------------------------------------


def audited(changes):
    spec = {**SHORT, "epochs": 3, "lr_set": {"learning_rates": [0.2, 0.1, 0.05, 0.01]}, **only()}
    stpt = make_stpt("batch-norm", **spec, **changes)
    records = list(stpt.epochs())
    return records, stpt.trainer.state.digest()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_an_audit_tells_how_the_losers_would_have_ended_and_changes_nothing(ranks, workers):
    [(plain, end), *_] = ranks(workers, audited, {})
    [(records, its_end), *others] = ranks(workers, audited, {"audit": {"every": 2, "branches": 2}})
    assert its_end == end
    assert all(other_end == end for _, other_end in others)
    assert [record.audit is not None for record in records] == [True, False, True]
    for record, bare in zip(records, plain, strict=True):
        assert (record.samples, record.iterations) == (bare.samples, bare.iterations)
        if record.audit is None:
            assert all(branch.end_metric is None for branch in record.branches)
            continue
        ended = {branch.state: [] for branch in record.branches}
        for branch in record.branches:
            if branch.end_metric is not None:
                ended[branch.state].append(branch.end_metric)
        assert ended["chosen"] == [record.val_loss]
        assert len(ended["lost"]) == record.audit.branches == 2
        assert record.audit.samples == 2 * 4 * 48
        assert record.audit.regret == pytest.approx(max(0.0, record.val_loss - min(ended["lost"])), abs=1e-12)
        assert -1 <= record.audit.rank_correlation <= 1
        assert record.evaluation_samples == bare.evaluation_samples + 2 * 144


def test_an_audited_loser_ends_as_if_it_had_been_chosen():
    records, _ = audited({"audit": {"every": 3, "branches": 3}})
    ends = {branch.learning_rate: branch.end_metric for branch in records[0].branches}
    for learning_rate, end in ends.items():
        spec = {**SHORT, "epochs": 1, "lr_set": {"learning_rates": [learning_rate]}, **only()}
        [alone] = make_stpt("batch-norm", **spec).epochs()
        assert alone.val_loss == end


# --- what the guards decide by -----------------------------------------------------------------------------------


def results(*metrics):
    return [BranchResult(number, 0.1, metric) for number, metric in enumerate(metrics, start=1)]


@pytest.mark.parametrize(
    ("metrics", "start", "maximize", "improves"),
    [
        ([2.0, 1.0], 1.5, False, True),
        ([2.0, 1.5], 1.5, False, False),  # as good is not better
        ([0.5, 0.7], 0.6, True, True),
        ([0.5, math.nan], 0.6, True, False),
        ([math.nan, math.nan], 0.6, True, True),  # a retry's business
        ([2.0], None, False, True),
        ([2.0], math.nan, False, True),
    ],
)
def test_whether_any_branch_improves(metrics, start, maximize, improves):
    assert guards.improves(results(*metrics), start, maximize=maximize) is improves


@pytest.mark.parametrize(
    ("best", "largest", "beyond"),
    [(4.0, 10.0, 8.0), (1.0, 10.0, 0.5), (2.0, 10.0, None), (4.0, 8.0, 8.0), (4.0, 7.9, None)],
)
def test_one_beyond_the_largest_or_the_smallest(best, largest, beyond):
    assert guards.one_beyond(best, [2.0, 4.0, 1.0], largest) == beyond


def test_far_smaller_candidates():
    assert guards.extended([2.0, 0.5]) == [0.05, 0.005]


@pytest.mark.parametrize(("loss", "dead"), [(2.27, False), (2.28, True), (2.4, True), (math.nan, True)])
def test_a_branch_must_get_below_the_untrained_nets_loss(loss, dead):
    assert guards.is_dead(loss, 2.3) is dead  # 0.99 of it is 2.277


@pytest.mark.parametrize(
    ("correct", "accuracies", "rollback", "falls"),
    [(69, [0.9, 0.8], True, True), (71, [0.9, 0.8], True, False), (69, [0.9, 0.8], False, False), (0, [], True, False)],
)
def test_a_fall_is_against_the_epoch_before(correct, accuracies, rollback, falls):
    settings = Guards(rollback=rollback, max_accuracy_drop=0.1)
    assert guards.falls_too_far(settings, Measurement(100.0, correct, 100), accuracies) is falls
