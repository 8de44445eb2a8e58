"""What is said to do about a failure: each kind has words of its own, and none that cannot help."""

import pytest

from bridge_tasks.cli.advice import about_failure
from bridge_tasks.errors import (
    BridgeError,
    ClientError,
    ContentUnavailable,
    InvalidRequest,
    JobCancelled,
    JobExpired,
    JobFailed,
    ServiceUnavailableError,
)
from bridge_tasks.ledger import DeadLetter, JobRecord

LETTER = DeadLetter(
    JobRecord.loads("j", {"state": "failed", "task": "t", "accepted": "1", "queue": "q"}), kept=True
)


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (JobCancelled("gone"), "if it is wanted after all"),
        (JobExpired("too old", "age"), "see that workers keep up"),
        (ServiceUnavailableError("down", 503), "once the service is well"),
        (ServiceUnavailableError("busy", 429), "once the service is well"),
        (ClientError("refused", 422), "put right what it says"),
        (ClientError("unknown", 404), "put right what it says"),
        (InvalidRequest("content", "is not there"), "put right what it says"),
        (ContentUnavailable("changed"), "put right what it says"),
        (ClientError("broke", 500), "see the workers' log"),
        (ClientError("nonsense"), "see the workers' log"),
        (JobFailed("ValueError", "ValueError"), "see the workers' log"),
    ],
)
def test_each_failure_has_advice_that_can_help(error: BridgeError, word: str) -> None:
    assert word in about_failure(error, LETTER)


@pytest.mark.parametrize(
    ("letter", "word"),
    [
        (None, "there is no message left"),
        (DeadLetter(LETTER.record, kept=False), "there is no message left"),
        (DeadLetter(LETTER.record, kept=True, joined=True), "a chord's member"),
    ],
)
def test_what_cannot_be_replayed_is_to_be_submitted_again(letter: DeadLetter | None, word: str) -> None:
    advice = about_failure(ClientError("nonsense"), letter)
    assert word in advice
    assert advice.endswith("submit the job again")
