"""An asyncio program that orchestrates, on real workers: jobs of every kind, and bulk runs as they go on."""

import asyncio
from pathlib import Path

import pytest
from celery import chord, group

from bridge_tasks import AsyncBridge, workflows
from bridge_tasks.errors import ContentUnavailable, JobUnknown
from bridge_tasks.tasks import check_health, generate_hash
from tests.tasks.sending import inline
from tests.workers import PATIENCE, Pool


async def test_jobs_of_every_kind_are_awaited_together(prefork: Pool, documents: Path) -> None:
    page = documents / "awaited.md"
    page.write_text("# Awaited\n")
    works = [
        generate_hash.s(content=inline("a")),
        workflows.stamp_file(page, context="c", correlation_id="together"),
        group(generate_hash.s(content=inline(text)) for text in ("b", "bb")),
        group([generate_hash.s(content=inline("bbb"))]),
        chord([generate_hash.s(content=inline("c")), generate_hash.s(content=inline("cc"))], check_health.si()),
    ]
    async with AsyncBridge() as bridge, asyncio.timeout(PATIENCE):
        jobs = await asyncio.gather(*(bridge.submit(work, correlation_id="together") for work in works))
        hashed, stamped, both, (only,), healthy = await asyncio.gather(*jobs)

        assert hashed["file_size_bytes"] == 1
        assert stamped["path"] == str(page)
        assert [each["file_size_bytes"] for each in both] == [1, 2]
        assert only["file_size_bytes"] == 3
        assert healthy["metadata"]["healthy"]
        assert {await job.state() for job in jobs} == {"succeeded"}
        assert {job.id for job in await bridge.find(correlation_id="together")} == {job.id for job in jobs}
        assert [job.id for job in await bridge.find(file=page)] == [jobs[1].id]
        assert (await bridge.health()).workers
    asked = prefork.sandbox.asked(path="/hash")
    assert {record["headers"].get("x-correlation-id") for record in asked} == {"together"}


@pytest.mark.usefixtures("prefork")
async def test_the_error_of_a_step_is_raised_where_the_job_is_awaited(documents: Path) -> None:
    stale = {"kind": "file", "path": str(documents / "guide.md"), "size": 1}
    async with AsyncBridge() as bridge, asyncio.timeout(PATIENCE):
        job = await bridge.submit(generate_hash.si(content=stale) | generate_hash.si(content=inline("x")))
        with pytest.raises(ContentUnavailable):
            await job
        (ended,) = [ended async for ended in bridge.as_completed([job])]
        assert isinstance(ended.error, ContentUnavailable)


@pytest.mark.usefixtures("prefork")
async def test_a_bulk_run_is_followed_to_its_end(documents: Path) -> None:
    pages = [documents / f"followed-{number}.md" for number in range(30)]
    for page in pages:
        page.write_text(page.name)
    async with AsyncBridge() as bridge, asyncio.timeout(PATIENCE):
        run = await bridge.submit(workflows.stamp_files(pages, context="c"), correlation_id="followed")
        seen = [progress.over async for progress in run]

        assert seen == sorted(seen), "it only goes on"
        assert seen[-1] == 30
        assert (await run).state == "succeeded"
        assert (await bridge.run(run.id)).correlation_id == "followed"
        await run.cancel()
        with pytest.raises(JobUnknown):
            await bridge.run("nobody")
