"""What jobs there are and what became of them: one record per message, in Redis, written with the message itself.

A record is what makes a job durable: a message that gets lost is put back from it, one that comes twice is
answered from it. Nothing here knows Celery or a service.
"""

from bridge_tasks.ledger.jobs import Claim, JobLedger
from bridge_tasks.ledger.records import OVER, DeadLetter, JobRecord, Outcome, State, Submission

__all__ = ["OVER", "Claim", "DeadLetter", "JobLedger", "JobRecord", "Outcome", "State", "Submission"]
