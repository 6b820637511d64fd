"""The audit of STPT: how losing branches would have ended, had they been chosen. It tells what the choice of an epoch
has cost."""

import math
from collections.abc import Sequence

import numpy as np

from service.spec.stpt import Audit
from service.wire.worker import AuditRecord
from workers.engine.seeds import derived_seed
from workers.methods.branches import Branch


def is_due(audit: Audit, epoch: int, first: int) -> bool:
    """Whether `epoch` is audited; `first` is the number of the first epoch that has a Pre-train."""
    return (epoch - first) % audit.every == 0


def draw(losers: Sequence[Branch], audit: Audit, *, seed: int, epoch: int) -> list[Branch]:
    """The losing branches to train to the end of the epoch: `audit.branches` of them at random, in the order of
    `losers`, the same ones on every worker."""
    generator = np.random.default_rng(derived_seed(seed, epoch))
    count = min(audit.branches, len(losers))
    return [losers[index] for index in sorted(generator.choice(len(losers), size=count, replace=False).tolist())]


def audit_record(chosen: Branch, audited: Sequence[Branch], *, maximize: bool, samples: int) -> AuditRecord:
    """The record of an audit: what the ends of the chosen branch and of the audited ones tell.

    Its `regret` is by how much the best end beats that of the chosen branch, in the metric. Its `rank_correlation` is
    Spearman's, between the metrics after alpha iterations and those at the epoch's end; None where either are all
    equal. `samples` are those that the audit trained on.
    """
    from scipy.stats import spearmanr  # type: ignore[import-untyped]  # a second to import, and only used here

    ended = [branch for branch in (chosen, *audited) if math.isfinite(_end(branch))]
    early, late = [branch.result.metric for branch in ended], [_end(branch) for branch in ended]
    gains = [end - _end(chosen) if maximize else _end(chosen) - end for end in late]
    ranked = len(set(early)) > 1 and len(set(late)) > 1
    return AuditRecord(
        branches=len(audited),
        samples=samples,
        regret=max(gains),
        rank_correlation=float(spearmanr(early, late).statistic) if ranked else None,
    )


def _end(branch: Branch) -> float:
    return branch.end_metric or 0.0
