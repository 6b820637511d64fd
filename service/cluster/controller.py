"""The reconciler: brings what SQL says and what Ray says together, one pass after another.

Decisions are taken from those two alone, so a controller may die at any point and the next pass goes on. Ray out of
reach is a flag, never a reason for a second attempt.
"""

import contextlib
import logging
import math
import re
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from structlog.contextvars import bound_contextvars

from service.cluster.base import Capacity, Cluster, RayJobStatus
from service.cluster.watch import PassWatch
from service.errors import ClusterUnreachable
from service.jobs import lifecycle as jobs
from service.jobs.lifecycle import Claim
from service.store.attempts import attempts_without_log, ended_submissions
from service.store.engine import Store
from service.store.jobs import live_jobs
from service.store.records import Job, JobWithAttempts
from service.wire.states import JobState

log = logging.getLogger(__name__)

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
EXCEPTION = re.compile(r"\w[\w.]*(Error|Exception|Exit)\b")  # at the beginning of a line
ENDED = frozenset({RayJobStatus.SUCCEEDED, RayJobStatus.FAILED, RayJobStatus.STOPPED})
HOLDS_WORKERS = frozenset({JobState.SUBMITTING, JobState.RUNNING, JobState.CANCELLING})
SUBMIT_GRACE = timedelta(seconds=10)  # another controller may be between its claim and its submit
EXIT_GRACE = timedelta(seconds=30)  # a Ray job that has reported its outcome takes a moment to exit


class Controller:
    """The reconciler of jobs in SQL with Ray, which runs passes in a thread of its own.

    `environment` goes to every Ray job, beside its ticket. A job fails when `max_attempts` Ray jobs in a row were lost
    without a new epoch.
    """

    def __init__(
        self,
        db: Store,
        cluster: Cluster,
        environment: Mapping[str, str],
        *,
        max_attempts: int = 3,
        poll_seconds: float = 0.5,
    ) -> None:
        self._db, self._cluster, self._environment = db, cluster, dict(environment)
        self._max_attempts, self._poll_seconds = max_attempts, poll_seconds
        self._wake, self._stopping = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="controller", daemon=True)
        self._capacity: Capacity | None = None
        self._trouble: str | None = None
        self._watch = PassWatch()

    # --- what the API sees ---------------------------------------------------------------------------

    @property
    def dashboard_url(self) -> str:
        """The address of Ray's dashboard."""
        return self._cluster.dashboard_url

    @property
    def capacity(self) -> Capacity | None:
        """The CPUs and GPUs that the cluster had when last asked; None while Ray has never answered."""
        return self._capacity

    @property
    def trouble(self) -> str | None:
        """Why the last pass could not be finished, in a sentence; None when it was."""
        return self._trouble

    def logs(self, submission_id: str) -> str:
        """What the Ray job of an attempt has printed so far. Raises ClusterUnreachable when Ray does not answer."""
        return self._cluster.logs(submission_id)

    def wake(self) -> None:
        """Begin the next pass at once instead of at the next poll, because there is something new to do."""
        self._wake.set()

    # --- the loop ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread that runs passes."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread that runs passes, and wait until it has ended; Ray jobs go on."""
        self._stopping = True
        self._wake.set()
        self._thread.join()

    def release(self) -> None:
        """Let every live attempt end because Ray is about to end in order, which does not count as a loss; keep their
        logs. To be called after `stop`."""
        with self._db.read() as session:
            live = live_jobs(session)
        for job in live:
            attempt = job.last_attempt
            if attempt is not None and job.state in (JobState.SUBMITTING, JobState.RUNNING):
                jobs.attempt_interrupted(self._db, job.id, attempt.number)
                with contextlib.suppress(ClusterUnreachable):
                    self._keep_log(attempt.submission_id)

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                with self._watch.watched():
                    self.run_pass()
                self._trouble = None
            except ClusterUnreachable as error:
                if self._trouble is None:
                    log.warning("%s", error)
                self._trouble = error.detail
            except Exception as error:  # the loop must outlive a database that is away; the next pass starts afresh
                log.exception("a pass of the controller failed")
                self._trouble = f"{type(error).__name__}: {error}"
            self._wake.wait(self._poll_seconds)

    def run_pass(self) -> None:
        """Look at every live job once, stop orphans, submit what fits, keep logs. Raises ClusterUnreachable when Ray
        does not answer."""
        self._capacity = self._cluster.capacity()
        with self._db.read() as session:
            live = live_jobs(session)
        for job in live:
            with bound_contextvars(job=job.id, attempt=job.attempt):
                self._reconcile(job)
        self._stop_orphans()
        while (claim := jobs.claim_next(self._db, free=self._free_workers(), total=self._workers())) is not None:
            self._submit(claim)
        self._keep_logs()

    def _reconcile(self, job: JobWithAttempts) -> None:
        attempt = job.last_attempt
        if attempt is None or job.state not in HOLDS_WORKERS:
            return
        found = self._cluster.find(attempt.submission_id)
        match job.state:
            case JobState.CANCELLING:
                if found is None or found.status in ENDED:
                    jobs.confirm_cancelled(self._db, job.id)
                else:
                    self._cluster.stop(attempt.submission_id)
            case JobState.SUBMITTING if found is None:
                if datetime.now(UTC) - attempt.created_at > SUBMIT_GRACE:
                    claim = jobs.reissue_ticket(self._db, job.id, attempt.number)
                    if claim is not None:
                        self._submit(claim)
            case _ if found is None:
                self._lost(job, "Ray does not know its job any more (was the cluster restarted?)")
            case _ if found.status in ENDED:
                words = _last_words(found.message)
                self._lost(job, f"its Ray job {found.status.lower()} without an outcome. {words}".strip())

    def _lost(self, job: Job, message: str) -> None:
        log.warning("job %s: attempt %d lost: %s", job.id, job.attempt, message)
        jobs.attempt_lost(self._db, job.id, job.attempt, message, max_attempts=self._max_attempts)

    def _stop_orphans(self) -> None:
        """Ray jobs of attempts that ended (superseded, cancelled) and yet still run."""
        submissions = self._cluster.live()
        if not submissions:
            return
        with self._db.read() as session:
            orphans = ended_submissions(session, submissions, datetime.now(UTC) - EXIT_GRACE)
        for submission_id in orphans:
            log.warning("stopping %s, whose attempt has ended", submission_id)
            self._cluster.stop(submission_id)

    def _keep_logs(self) -> None:
        """Of attempts whose Ray job has printed its last."""
        with self._db.read() as session:
            ended = attempts_without_log(session)
        for submission_id in ended:
            found = self._cluster.find(submission_id)
            if found is None or found.status in ENDED:
                self._keep_log(submission_id)

    def _keep_log(self, submission_id: str) -> None:
        jobs.keep_log(self._db, submission_id, self._cluster.logs(submission_id))

    def _submit(self, claim: Claim) -> None:
        with bound_contextvars(job=claim.job_id, attempt=claim.attempt):
            log.info("submitting %s", claim.submission_id)
        self._cluster.submit(claim.submission_id, claim.job_id, {**self._environment, "FORERUN_TICKET": claim.ticket})

    def _workers(self) -> float:
        """Workers that the cluster can take at once: one for each CPU, or GPU where it has more of those."""
        return max(self._capacity.cpus, self._capacity.gpus) if self._capacity else math.inf

    def _free_workers(self) -> float:
        with self._db.read() as session:
            return self._workers() - sum(j.workers for j in live_jobs(session) if j.state in HOLDS_WORKERS)


def _last_words(message: str) -> str:
    """Why a driver ended, of Ray's message with the end of its log: the last exception named, else the last line."""
    lines = [line.rstrip() for line in COLOURS.sub("", message).splitlines() if line.strip()]
    named = [line for line in lines if EXCEPTION.match(line)]
    return (named or lines or [""])[-1].strip()[-1000:]
