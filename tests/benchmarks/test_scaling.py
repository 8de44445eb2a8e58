"""That what docs/scaling.md tells is still measured: in a short form; only what no neighbour changes is judged."""

from benchmarks.report import figures_of


def test_a_file_in_a_run_costs_redis_less_than_a_message_and_a_message_less_than_a_chain() -> None:
    rows = {row["what"]: row for row in figures_of("job_cost", ["--files", "60", "--seconds", "1"])["rows"]}

    single, chain, run = (rows[f"{name}, a file"] for name in ("stamp_file", "chain", "run"))
    for figure in ("Redis commands", "KB in", "waiting MB"):
        assert 0 < run[figure] < single[figure] < chain[figure], figure
    assert rows["idle, a second"]["Redis commands"] > 0


def test_twice_the_workers_have_twice_the_connections() -> None:
    one, two = figures_of("worker_count", ["--files", "10", "--counts", "1,2", "--latencies", "0"])["rows"]

    assert one["connections"] > 0
    assert two["connections"] == 2 * one["connections"]
    assert two["MB"] > one["MB"] > 0


def test_jobs_go_on_after_each_failover_that_is_measured() -> None:
    (row,) = figures_of("failover", ["--rounds", "1", "--files", "20"])["rows"]

    assert row["failovers"] == 1
    assert 0 < row["promoted after s"] <= row["accepted after s"] <= row["done after s"]
    assert row["submit to 0 copies"] > 0
