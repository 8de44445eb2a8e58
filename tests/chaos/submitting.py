"""A submitter that can be killed: submits one job, or one chain, and prints the job's id."""

import sys

from bridge_tasks import workflows
from bridge_tasks.bridge import Bridge
from bridge_tasks.models.content import InlineContent
from tests.chaos import dying
from tests.tasks.sending import inline


def main(kind: str, text: str) -> None:
    """Submit the job about a text; the same text is the same job."""
    content = InlineContent.model_validate(inline(text))
    build = workflows.stamp_file if kind == "chain" else workflows.stamp_file_job
    job = Bridge().submit(build(content, context=text, file_path=f"/{text}"))
    print(job.id, "stands" if job.stands else "new", flush=True)  # noqa: T201 - the parent reads it


if __name__ == "__main__":
    assert dying.POINTS
    main(*sys.argv[1:])
