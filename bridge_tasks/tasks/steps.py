"""Tasks of the application that are not ours, as steps of a job: run once, and on record, whatever replaces them.

What they do, and whether they are tried again, is their own affair.
"""

from typing import Any

from celery import Task, group
from celery.canvas import _chain
from celery.exceptions import InvalidTaskError

from bridge_tasks.ledger.envelope import JOINED
from bridge_tasks.messages import JOB, PART
from bridge_tasks.submissions import heirs
from bridge_tasks.tasks import claiming


class Step(Task):  # type: ignore[type-arg] # celery-types makes Task generic, Celery does not
    """The base of every task of the application; outside a job it is Celery's own.

    A task that names another base (`base=`) is not known to the ledger before it has ended.
    """

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run, unless the ledger knows how it ended."""
        request = self.request
        if request.called_directly or request.is_eager or not request.get(JOB) or request.get(_CLAIMED):
            return super().__call__(*args, **kwargs)
        request.update({_CLAIMED: True})  # what it calls directly, itself perhaps, is no message
        claim = claiming.claim(request)
        if claim.outcome is not None:
            return claim.outcome.result
        return self.run(*args, **kwargs)

    def start_strategy(self, app: Any, consumer: Any, **options: Any) -> Any:
        """Return what makes a request of a message; one of which it cannot is invalid, and ends no consumer."""
        strategy = super().start_strategy(app, consumer, **options)

        def guarded(*arguments: Any, **keywords: Any) -> Any:
            try:
                return strategy(*arguments, **keywords)
            except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
                raise InvalidTaskError(type(error).__name__) from error

        return guarded

    def replace(self, sig: Any) -> Any:
        """Put a canvas in this task's place, as Celery does; the ledger hears of it first."""
        job = self.request.get(JOB)
        if job and not self.request.is_eager:
            sig = _with_one_end(sig, self.app.tasks["celery.accumulate"])
            joined = bool(self.request.get(JOINED))
            steps = heirs(sig, str(self.request.id), job, self.request.get(PART) or "", joined=joined)
            claiming.hand_over(str(self.request.id), steps)
        return super().replace(sig)


_CLAIMED = "bridge_claimed"


def _with_one_end(sig: Any, accumulate: Any) -> Any:
    """Have what ends in several tasks end in one, as Celery's `replace` would do after us."""
    if isinstance(sig, group):
        return sig | accumulate.s(index=0)
    if isinstance(sig, _chain) and isinstance(sig.tasks[-1], group):
        sig.kwargs["tasks"] = [*sig.tasks[:-1], sig.tasks[-1] | accumulate.s(index=0)]
    return sig
