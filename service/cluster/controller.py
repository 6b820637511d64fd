"""The reconciler: brings what SQL says and what Ray says together, one pass after another.

Decisions are taken from those two alone, so a controller may die at any point and the next pass goes on. Of several on
one database only the one that holds the lease changes anything; the others watch. Ray out of reach is a flag, never a
reason for a second attempt.

A pass costs the same however many jobs wait: it reads those that hold workers and the next to submit, and asks Ray for
all submissions at once.
"""

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from structlog.contextvars import bound_contextvars

from service.cluster.base import Capacity, Cluster, ClusterId, Overview, RayJobStatus, Submission
from service.cluster.hangs import FLOOR_S, HangWatch, answers_at
from service.cluster.lease import Lease, NotLeader
from service.cluster.losses import Place, last_words, lost_touch, place_of, reason_of_loss
from service.cluster.time_limits import RunningTimes, has_limit
from service.cluster.watch import PassWatch
from service.errors import ClusterUnreachable
from service.jobs import lifecycle as jobs
from service.jobs.deletion import Housekeeper
from service.jobs.lifecycle import Claim
from service.jobs.pause import confirm_paused
from service.jobs.quota import NO_QUOTA, Quota, owners_who_wait
from service.store.attempts import attempts_without_log, ended_submissions
from service.store.engine import DatabaseError, Store, trouble_of
from service.store.jobs import jobs_in, next_to_submit, workers_of
from service.store.records import Attempt, Job, JobWithAttempts
from service.wire.states import HOLDS_WORKERS, EndReason, JobState

log = logging.getLogger(__name__)

ENDED = frozenset({RayJobStatus.SUCCEEDED, RayJobStatus.FAILED, RayJobStatus.STOPPED})
SUBMIT_GRACE_S = 10.0  # a submit whose answer was lost may be under way yet
NODE_GRACE_S = 40.0  # Ray takes 10 to 30 s to notice that a node is gone
EXIT_GRACE_S = 30.0  # a Ray job that has reported its outcome takes a moment to exit
IDLE_S = 2.0  # between passes while nothing runs
GONE = "the Ray head that it ran under is gone"


@dataclass(frozen=True)
class Leadership:
    """Who leads: this service, or another whose API is at `url`; None: nobody is known to."""

    leads: bool
    url: str | None


class Controller:
    """The reconciler of jobs in SQL with Ray, which runs passes in a thread of its own.

    `environment` goes to every Ray job, beside its ticket. A job fails when `max_attempts` Ray jobs in a row were lost
    without a new epoch, for reasons of their own; one that does not get on for `hang_seconds`, or longer where its
    epochs are long, is ended (service.cluster.hangs). `lease`: this service's, on the same database; default: one of a
    service without a name. `monotonic` gives seconds by a clock that does not jump. `quota` is what one owner may take
    of the cluster. The `housekeeper` is called at the end of every pass that leads.
    """

    def __init__(
        self,
        db: Store,
        cluster: Cluster,
        environment: Mapping[str, str],
        *,
        lease: Lease | None = None,
        max_attempts: int = 3,
        poll_seconds: float = 0.5,
        hang_seconds: float = FLOOR_S,
        monotonic: Callable[[], float] = time.monotonic,
        quota: Quota = NO_QUOTA,
        housekeeper: Housekeeper | None = None,
    ) -> None:
        self._lease = lease or Lease(db)
        self._db, self._cluster, self._environment = self._lease.store, cluster, dict(environment)
        self._max_attempts, self._poll_seconds, self._monotonic = max_attempts, poll_seconds, monotonic
        self._quota = quota
        self._wake, self._stopping = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="controller", daemon=True)
        api_url = self._environment.get("FORERUN_API_URL", "")
        self._hangs = HangWatch(self._db, partial(answers_at, api_url), hang_seconds, monotonic)
        self._hung: dict[str, str] = {}  # submissions that are being ended, and why
        self._times, self._housekeeper = RunningTimes(monotonic), housekeeper
        self._capacity: Capacity | None = None
        self._here: ClusterId | None = None
        self._trouble: str | None = None
        self._watch = PassWatch()
        self._led: bool | None = None  # None: has not looked yet
        self._idle = False
        self._missing: dict[str, float] = {}  # submissions that Ray is not known to have, and since when
        self._unexplained: dict[str, float] = {}  # submissions that have ended for want of a peer, and since when
        self._left: set[str] = set()  # submissions on another cluster
        self._overdue: dict[str, float] = {}  # submissions that live though their attempt has ended, and since when

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

    @property
    def quota(self) -> Quota:
        """What one owner may take of the cluster."""
        return replace(self._quota, has_gpus=self._capacity is not None and self._capacity.gpus > 0)

    @property
    def leadership(self) -> Leadership:
        """Who led when last looked."""
        leader = self._lease.leader
        return Leadership(self._lease.leads, leader.url if leader and leader.holder is not None else None)

    def logs(self, submission_id: str) -> str:
        """What the Ray job of an attempt has printed so far. Raises ClusterUnreachable when Ray does not answer, or is
        another service's own."""
        leader = self._lease.leader
        if not self._lease.leads and leader is not None and leader.cluster is not None and self._here is not None:
            there = ClusterId.parse(leader.cluster)
            if there.session != self._here.session:
                raise ClusterUnreachable(f"its Ray is that of the service that leads; ask {leader.url}")
        return self._cluster.logs(submission_id)

    def wake(self) -> None:
        """Begin the next pass at once instead of at the next poll, because there is something new to do."""
        self._wake.set()

    # --- the loop ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread that runs passes, and the one that renews the lease."""
        self._lease.start(self._cluster.hold)
        self._thread.start()

    def stop(self) -> None:
        """End the thread that runs passes, and wait until it has ended; Ray jobs go on."""
        self._stopping = True
        self._wake.set()
        self._thread.join()

    def release(self) -> None:
        """Let every live attempt here end because Ray is about to end in order, which does not count as a loss; keep
        their logs. To be called after `stop`; the lease is given back by whoever made it, when Ray has ended."""
        if not self._lease.leads or self._here is None:
            return
        with self._db.read() as session:
            live = jobs_in(session, (JobState.SUBMITTING, JobState.RUNNING, JobState.PAUSING))
        with contextlib.suppress(NotLeader):
            for job in live:
                attempt = job.last_attempt
                if attempt is not None and place_of(attempt.cluster, self._here) is not Place.ELSEWHERE:
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
            except NotLeader:
                log.warning("another service has taken over; the next pass stands by")
            except ClusterUnreachable as error:
                if self._trouble is None:
                    log.warning("%s", error)
                self._trouble = error.detail
            except DatabaseError as error:  # of an outage the store tells
                self._trouble = trouble_of(error)
                if self._trouble is None:
                    log.exception("a pass of the controller failed")
                    self._trouble = f"{type(error).__name__}: {error}"
            except Exception as error:  # the loop must outlive whatever it meets; the next pass starts afresh
                trouble = f"{type(error).__name__}: {error}"
                if trouble != self._trouble:  # of what goes on, once
                    log.exception("a pass of the controller failed")
                self._trouble = trouble
            self._wake.wait(max(self._poll_seconds, IDLE_S) if self._idle else self._poll_seconds)

    def run_pass(self) -> None:
        """Look at every job that holds workers once, stop orphans, submit what fits, keep logs; or only look whether
        this service may take over. Raises ClusterUnreachable when Ray does not answer, and NotLeader when another
        service has taken over meanwhile."""
        self._idle = False
        self._capacity = self._cluster.capacity()
        overview = self._cluster.overview()
        self._here = overview.cluster
        if not self._lease.keep(str(self._here)):
            self._stand_by(overview)
            return
        if not self._led:
            log.info("this service leads")
            self._led = True
            self._cluster.hold(self._lease.must_end_within)
            overview = self._cluster.overview()  # who led before may have submitted something since the first
        with self._db.read() as session:
            live = jobs_in(session, HOLDS_WORKERS)
        self._find_hung(live, overview)
        failure = self._reconcile_each(live, overview)
        self._times.forget_all_but(job.last_attempt.submission_id for job in live if job.last_attempt is not None)
        self._stop_orphans(overview)
        claims = self._submit_what_fits()
        self._keep_logs(overview)
        if self._housekeeper is not None:
            self._housekeeper.look()
        self._idle = not live and not claims
        if failure is not None:
            raise failure

    def _stand_by(self, overview: Overview) -> None:
        """Let nothing run on a head of this service's own: who leads takes what it ran for lost with it."""
        if self._led is not False:
            log.warning("another service leads (%s); this one stands by", self.leadership.url)
        if self._led:
            self._cluster.hold(0.0)
        elif overview.cluster.address is None:
            for submission_id in overview.live():
                self._cluster.stop(submission_id)
        self._led, self._idle = False, True

    def _reconcile_each(self, live: Sequence[JobWithAttempts], overview: Overview) -> Exception | None:
        """Look at each of these jobs; one at which something goes wrong that nobody thought of holds up no other.
        Return what went wrong last."""
        failure = None
        for job in live:
            with bound_contextvars(job=job.id, attempt=job.attempt):
                try:
                    if not self._is_over_its_time(job):
                        self._reconcile(job, overview)
                except (ClusterUnreachable, DatabaseError, NotLeader):
                    raise
                except Exception as error:
                    error.add_note(f"while looking at job {job.id}")
                    failure = error
        return failure

    def _reconcile(self, job: JobWithAttempts, overview: Overview) -> None:
        attempt = job.last_attempt
        if attempt is None:
            return
        found = overview.submissions.get(attempt.submission_id)
        if found is not None:
            self._missing.pop(attempt.submission_id, None)
        place = Place.HERE if found else place_of(attempt.cluster, overview.cluster)
        match job.state:
            case JobState.CANCELLING:
                if found is None or found.status in ENDED:
                    jobs.confirm_cancelled(self._db, job.id)
                else:
                    self._cluster.stop(attempt.submission_id)
            case JobState.PAUSING if attempt.ended_at is not None or attempt.token_hash is None:
                if found is None or found.status in ENDED:
                    confirm_paused(self._db, job.id)
                elif attempt.ended_at is None:  # it has not begun to train
                    self._cluster.stop(attempt.submission_id)
            case _ if place is Place.GONE:
                self._lost(job, GONE, EndReason.CLUSTER_LOST)
            case _ if place is Place.ELSEWHERE:
                self._leave(job, attempt)
            case JobState.SUBMITTING if found is None:
                now = self._monotonic()
                if now - self._missing.setdefault(attempt.submission_id, now) > SUBMIT_GRACE_S:
                    claim = jobs.reissue_ticket(self._db, job.id, attempt.number)
                    if claim is not None:
                        self._submit(claim)
            case _ if found is None:
                self._lost(job, "Ray does not know its job any more (was the cluster restarted?)", EndReason.OWN)
            case _ if attempt.submission_id in self._hung:
                self._end_hung(job, found)
            case _ if found.status in ENDED:
                reason = self._why_ended(found)
                if reason is not None:
                    words = last_words(found.message)
                    message = f"its Ray job {found.status.lower()} without an outcome. {words}".strip()
                    self._lost(job, message, reason)

    def _why_ended(self, found: Submission) -> EndReason | None:
        """Why a submission ended without an outcome; None as long as it cannot be said yet."""
        reason = reason_of_loss(found)
        if reason is EndReason.OWN:
            nodes = self._cluster.nodes_of(found.submission_id)
            if not all(nodes.values()):
                reason = EndReason.NODE_LOST
            elif len(nodes) > 1 and lost_touch(found):
                now = self._monotonic()
                if now - self._unexplained.setdefault(found.submission_id, now) < NODE_GRACE_S:
                    return None
        self._unexplained.pop(found.submission_id, None)
        return reason

    def _is_over_its_time(self, job: JobWithAttempts) -> bool:
        """Whether a job has reached its time limit: then it has failed, and its Ray job is being ended."""
        attempt = job.last_attempt
        if attempt is None or not has_limit(job) or job.state is JobState.CANCELLING:
            return False
        at = jobs.now()
        if (noted := self._times.to_note(job, at)) is not None:
            jobs.note_seconds(self._db, job.id, attempt.number, noted)
        seconds = self._times.seconds(job, at)
        if not jobs.end_by_time_limit(self._db, job.id, attempt.number, seconds):
            return False
        log.warning("job %s: its time limit is reached", job.id)
        self._cluster.stop(attempt.submission_id)
        return True

    def _find_hung(self, live: Sequence[JobWithAttempts], overview: Overview) -> None:
        found = self._hangs.look(live, overview)
        for submission_id in found.keys() - self._hung.keys():
            log.warning("ending %s: %s", submission_id, found[submission_id])
        live_ids = {job.last_attempt.submission_id for job in live if job.last_attempt is not None}
        self._hung = {one: why for one, why in (dict(found) | self._hung).items() if one in live_ids}

    def _end_hung(self, job: Job, found: Submission) -> None:
        """End the Ray job of an attempt that hangs; it is lost when Ray confirms that nothing of it runs any more."""
        if found.status not in ENDED:
            self._cluster.stop(found.submission_id)
        else:
            self._lost(job, self._hung.pop(found.submission_id), EndReason.HUNG)

    def _lost(self, job: Job, message: str, reason: EndReason) -> None:
        log.warning("job %s: attempt %d lost (%s): %s", job.id, job.attempt, reason, message)
        jobs.attempt_lost(self._db, job.id, job.attempt, message, max_attempts=self._max_attempts, reason=reason)

    def _leave(self, job: Job, attempt: Attempt) -> None:
        """An attempt on another cluster than this service's, which may still run there: not to be started twice."""
        if attempt.submission_id not in self._left:
            self._left.add(attempt.submission_id)
            log.warning(
                "job %s: attempt %d was submitted to the cluster %s and is left alone until FORERUN_RAY_ADDRESS names "
                "that again or the job is cancelled",
                job.id,
                attempt.number,
                attempt.cluster,
            )

    def _stop_orphans(self, overview: Overview) -> None:
        """Ray jobs that still run though their attempt has ended: at once where it was superseded or cancelled."""
        live = overview.live()
        orphans: Mapping[str, bool] = {}
        if live:
            with self._db.read() as session:
                orphans = ended_submissions(session, live)
        now = self._monotonic()
        self._overdue = {submission_id: self._overdue.get(submission_id, now) for submission_id in orphans}
        for submission_id, since in self._overdue.items():
            if now - since > EXIT_GRACE_S or not orphans[submission_id]:
                log.warning("stopping %s, whose attempt has ended", submission_id)
                self._cluster.stop(submission_id)

    def _submit_what_fits(self) -> int:
        """Submit waiting jobs while the next one fits; how many there were."""
        claims, total = 0, self._workers()
        while True:
            with self._db.read() as session:  # first without a lock, which most passes have no use for
                free = total - workers_of(session, HOLDS_WORKERS)
                passed_over = owners_who_wait(session, self.quota, jobs.now())
                waiting = next_to_submit(session, total, passed_over, lock=False)
            if waiting is None or waiting.workers > free:
                return claims
            claim = jobs.claim_next(self._db, free=free, total=total, cluster=str(self._here), quota=self.quota)
            if claim is None:
                return claims
            self._times.begins(claim.submission_id)
            self._submit(claim)
            claims += 1

    def _keep_logs(self, overview: Overview) -> None:
        """Of attempts whose Ray job has printed its last."""
        with self._db.read() as session:
            ended = attempts_without_log(session)
        for submission_id in ended:
            found = overview.submissions.get(submission_id)
            if found is None or found.status in ENDED:
                self._keep_log(submission_id)

    def _keep_log(self, submission_id: str) -> None:
        jobs.keep_log(self._db, submission_id, self._cluster.logs(submission_id))

    def _submit(self, claim: Claim) -> None:
        with bound_contextvars(job=claim.job_id, attempt=claim.attempt):
            log.info("submitting %s", claim.submission_id)
        self._missing[claim.submission_id] = self._monotonic()  # until Ray is seen to know it
        self._cluster.submit(claim.submission_id, claim.job_id, {**self._environment, "FORERUN_TICKET": claim.ticket})

    def _workers(self) -> float:
        """Workers that the cluster can take at once."""
        return self._capacity.workers if self._capacity else math.inf
