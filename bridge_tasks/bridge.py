"""What a synchronous orchestrator imports: submit canvases, wait for jobs, see how they do.

What is submitted is on record before `submit` returns: it is done once, whoever dies, and the same work submitted
again is the same job.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from typing import Any, overload
from uuid import UUID

from celery.canvas import Signature
from kombu.exceptions import OperationalError

from bridge_tasks import correlation, operations, runs, tracing
from bridge_tasks.app import app
from bridge_tasks.broker import recording
from bridge_tasks.chunking import BulkRun
from bridge_tasks.driver import BlockingRedis
from bridge_tasks.errors import BridgeError, InvalidRequest, JobUnknown
from bridge_tasks.ledger import JobLedger, JobRecord, Submission
from bridge_tasks.ledger.waiting import outcomes_of
from bridge_tasks.models.requests import CheckHealth
from bridge_tasks.models.stamping import ServiceHealth
from bridge_tasks.resilience.state.circuit_script import Asker
from bridge_tasks.runs import Run
from bridge_tasks.runtime import Runtime, current
from bridge_tasks.sending import AT_ONCE, Prepared, batches, carried, prepared, send, send_together
from bridge_tasks.settings import load
from bridge_tasks.submissions import address, fresh, in_one_message, planned
from bridge_tasks.vitals import SystemHealth, look


@dataclass(frozen=True, slots=True)
class Job:
    """A submitted piece of work: a task, a chain (whose id is its last task's), a chord or a group.

    Attributes:
        id: what `bridge-tasks status` takes.
        correlation_id: finds all its tasks; None where the members of a group carry different ones.
        parts: the tasks whose results are the job's.
        stands: whether it was there before: the same work had been submitted, and this is that job.
    """

    id: str
    correlation_id: str | None
    parts: tuple[str, ...] = ()
    stands: bool = False

    @property
    def record(self) -> JobRecord:
        """All that is known of it.

        Raises:
            JobUnknown: there is no record, or no longer.
        """
        runtime = current()
        found = runtime.run(runtime.ledger.find(self.id))
        if found is None:
            raise JobUnknown(f"there is no record of job {self.id}")
        return found

    @property
    def state(self) -> str:
        """waiting, running, succeeded, failed or cancelled."""
        return self.record.state

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the job and return its result; a group's is the list of its members'.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            BridgeError: the job failed, or was cancelled.
            TimeoutError: it has not ended yet.
        """
        try:
            outcome = next(Bridge().as_completed([self], timeout))
        except TimeoutError:
            raise TimeoutError(f"job {self.id} has not ended after {timeout} s") from None
        if outcome.error is not None:
            raise outcome.error
        return outcome.result

    def cancel(self) -> bool:
        """Have what has not begun never begin; of a chain, every step to come. Whether there was any."""
        runtime = current()
        return runtime.run(runtime.ledger.cancel(self.id)) == "cancelled"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended: with a `result`, or with an `error`."""

    job: Job
    result: Any = None
    error: BridgeError | None = None


class Bridge:
    """The door for synchronous programs."""

    @overload
    def submit(self, work: BulkRun, *, correlation_id: UUID | str | None = None, force: bool = False) -> Run: ...

    @overload
    def submit(
        self, work: Signature[Any], *, correlation_id: UUID | str | None = None, force: bool = False
    ) -> Job: ...

    def submit(
        self, work: Signature[Any] | BulkRun, *, correlation_id: UUID | str | None = None, force: bool = False
    ) -> Job | Run:
        """Send a signature or canvas to the queue.

        Args:
            work: what `bridge_tasks.workflows` or a task's `.s(...)` built; a bulk run, too.
            correlation_id: for every step. By default steps keep what they carry, and those that carry none get
                the one bound here, else a new one.
            force: do it even if the same work is under way or was done already.

        Returns:
            The job; the one that stands already, where the same work was submitted before. Of a bulk run, the run.

        Raises:
            InvalidRequest: an argument of what can begin now is wrong; nothing was sent. (Of a later step in a
                chain only its turn can tell: it fails then, and the job with it.)
            kombu.exceptions.OperationalError: the broker is out of reach.
        """
        if isinstance(work, BulkRun):
            options = replace(work.options, force=work.options.force or force)
            with tracing.span("submit run", attributes={"bridge.run": work.id}):
                return runs.submit(
                    replace(work, options=options, correlation_id=correlation_id or work.correlation_id)
                )
        return self._submit_traced(work, correlation_id, force=force)

    def _submit_traced(
        self,
        work: Signature[Any],
        correlation_id: UUID | str | None,
        *,
        force: bool,
        carrier: tracing.Carrier | None = None,
    ) -> Job:
        with tracing.span("submit", carried=carrier) as span:
            job = self._submit(work, correlation_id, force=force)
            span.tell({"bridge.job": job.id, "bridge.correlation_id": job.correlation_id or ""})
        return job

    def _submit(self, work: Signature[Any], correlation_id: UUID | str | None, *, force: bool) -> Job:
        work = fresh(work)
        _check_members(work)
        address(work, correlation_id)
        known = set(carried(work))
        default = correlation_id or correlation.current() or next(filter(None, known), correlation.ensure())
        plan = planned(work, force=force)
        with correlation.bound(default) as bound, recording.submitting(plan) as under_way:
            send(work)
        if under_way.stands is None and not plan.whole:
            runtime = current()
            runtime.run(runtime.submitted.whole(plan.job))
        ids = {cid or bound for cid in known}
        return self._job(plan, under_way.stands, ids.pop() if len(ids) == 1 else None)

    def submit_all(
        self, works: Iterable[Signature[Any]], *, correlation_id: UUID | str | None = None, force: bool = False
    ) -> list[Job]:
        """Send much work, up to 50 jobs in one round trip to Redis: faster than one by one, and as durable.

        The first goes alone, and twice as many each time: workers begin while the others are prepared. Only what
        is sent as one message: tasks, and chains that begin with one. Of groups and chords, `submit` each.

        Returns:
            The jobs, in order, when all are on record.

        Raises:
            InvalidRequest, kombu.exceptions.OperationalError: as `submit`. What came before was sent, and stands:
                submit all again, and nothing is done twice.
        """
        jobs: list[Job] = []
        with correlation.bound(correlation_id or correlation.current() or correlation.ensure()):
            for some in batches(works):
                if load().redis_broker:
                    ready = [prepared(work, correlation_id=correlation_id, force=force) for work in some]
                    jobs += self._sent_together(ready)
                else:
                    jobs += (self.submit(work, correlation_id=correlation_id, force=force) for work in some)
        return jobs

    def submit_each(
        self, works: Sequence[tuple[Signature[Any], str | None, bool]], carriers: Iterable[tracing.Carrier] = ()
    ) -> list[Job | InvalidRequest | OperationalError]:
        """Submit several, each for itself and as many as can be in one round trip.

        Args:
            works: what to submit, the correlation id for steps that carry none (None: a new one), and whether to
                do it in any case.
            carriers: of each, the trace that it belongs to.

        Returns:
            Of each its job, or why it was not sent.
        """
        answers: dict[int, Job | InvalidRequest | OperationalError] = {}
        together: dict[int, Prepared] = {}
        for index, ((work, cid, force), carrier) in enumerate(zip_longest(works, carriers)):
            try:
                with correlation.bound(cid or correlation.ensure()):
                    if load().redis_broker and in_one_message(work):
                        together[index] = prepared(work, force=force, carrier=carrier)
                    else:
                        answers[index] = self._submit_traced(work, None, force=force, carrier=carrier)
            except (InvalidRequest, OperationalError) as error:
                answers[index] = error
        waiting = iter(together.items())
        while some := dict(islice(waiting, AT_ONCE)):
            try:
                answers |= zip(some, self._sent_together(list(some.values())), strict=True)
            except OperationalError as error:
                answers |= dict.fromkeys(some, error)
        return [answers[index] for index in range(len(works))]

    def _sent_together(self, messages: Sequence[Prepared]) -> Iterator[Job]:
        for one, stands in send_together(messages):
            yield self._job(one.plan, stands, one.correlation_id)

    @staticmethod
    def _job(plan: Submission, stands: str | None, correlation_id: str | None) -> Job:
        if stands is None:
            return Job(plan.job, correlation_id, plan.parts)
        runtime = current()
        record = runtime.run(runtime.ledger.find(stands))
        if record is None:
            return Job(stands, correlation_id, (), stands=True)
        return Job(stands, record.correlation_id, record.parts or (stands,), stands=True)

    def resume(self, name: str, work: BulkRun) -> Run:
        """Go on submitting a run whose submitter died; what was sent is not sent again.

        Raises:
            InvalidRequest: it has had other files.
            JobUnknown: there is no record of it.
        """
        return runs.submit(work, resume=name)

    def run(self, name: str) -> Run:
        """Return the run with this id.

        Raises:
            JobUnknown: there is no record, or no longer.
        """
        return Run(name, Run(name, "").progress().correlation_id)

    def job(self, name: str) -> Job:
        """Return the job with this id.

        Raises:
            JobUnknown: there is no record, or no longer.
        """
        record = Job(name, None).record
        return Job(name, record.correlation_id, record.parts or (name,))

    def find(self, *, correlation_id: UUID | str | None = None, file: str | os.PathLike[str] = "") -> list[Job]:
        """Return the jobs with a correlation id, oldest first, or the latest job about a file; none may be known.

        What a bulk run did with a file is the run's to tell (`bridge-tasks status FILE`).
        """
        runtime = current()
        records = runtime.run(found(runtime.ledger, correlation_id, file))
        return [Job(record.id, record.correlation_id, record.parts or (record.id,)) for record in records]

    def health(self, *, services: bool = False) -> SystemHealth:
        """Say how all of it is: Redis, workers, queues, circuits, dead letters; never raises because one is down.

        Args:
            services: ask both services as well, which may take seconds.
        """
        runtime = current()
        seen = runtime.run(look(BlockingRedis(runtime.ledger_redis), runtime.shared, **what_to_look_at(runtime)))
        return replace(seen, services=ask_services(runtime)) if services else seen

    def as_completed(self, jobs: Iterable[Job], timeout: float | None = None) -> Iterator[Ended]:
        """Give each job's end as it comes; one subscription serves all.

        Raises:
            TimeoutError: some have not ended after `timeout` seconds.
        """
        waiting = {job.id: job for job in jobs}
        runtime = current()
        for name, outcome in outcomes_of(runtime.ledger_redis, runtime.ledger, waiting, timeout):
            job = waiting[name]
            whole = runtime.run(runtime.ledger.all_of_it(job.id, job.parts, outcome))
            yield Ended(job, whole.result, whole.error)


async def found(
    ledger: JobLedger, correlation_id: UUID | str | None, file: str | os.PathLike[str]
) -> list[JobRecord]:
    """Return the records of the jobs with a correlation id, or of the latest job about a file."""
    if correlation_id is not None:
        names = await ledger.by_correlation(correlation.parse(correlation_id))
    else:
        latest = await ledger.by_file(_real(file)) if file else None
        names = [] if latest is None else [latest]
    return list((await ledger.records(names)).values())


def _real(file: str | os.PathLike[str]) -> str:
    return os.path.realpath(file)


def what_to_look_at(runtime: Runtime) -> dict[str, Any]:
    """Name the parts of this deployment, for `vitals.look`."""
    breakers = {"metadata": runtime.metadata.circuit_breaker, "onextree": runtime.onextree.circuit_breaker}
    return {
        "queues": [queue.name for queue in app.conf.task_queues],
        "circuits": {service: Asker(breaker.name, breaker.config) for service, breaker in breakers.items()},
        "broker": runtime.settings.broker_kind,
    }


def ask_services(runtime: Runtime) -> dict[str, ServiceHealth]:
    """Ask both services how they are, from this process."""
    return runtime.run(operations.check_health(runtime.services, CheckHealth()))


def _check_members(work: Signature[Any]) -> None:
    """Check all that a group begins with, before its first member is sent. Alone, a task checks itself."""
    members = getattr(work, "tasks", None) or []
    for member in members[:1] if work.task == "celery.chain" else members:
        task: Any = app.tasks.get(member.task)
        if getattr(member, "tasks", None):
            _check_members(member)
        elif hasattr(task, "check"):
            task.check(member.args, member.kwargs)
