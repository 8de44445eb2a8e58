"""The plots of docs/performance.md, drawn from what benchmarks found. Nothing is measured or judged here."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # to a file, on a machine without a screen

from matplotlib import pyplot as plt

from benchmarks.harness import Figures

OURS, OTHERS, QUIET, ALARM = "#2a6f97", "#adb5bd", "#495057", "#c1121f"


def call_overhead(figures: Figures, path: Path) -> None:
    """Draw what a call costs against a bare one."""
    rows = figures["rows"][::-1]
    names = [row["peer"] for row in rows]
    colours = [OURS if name.startswith("guarded") else OTHERS for name in names]
    picture, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    bars = axes.barh(names, [row["to bare"] for row in rows], color=colours)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.axvline(1.0, color=QUIET, linewidth=1)
    axes.set_xlabel("time of a call, bare httpx.Client.post = 1")
    axes.spines[["top", "right"]].set_visible(False)
    picture.savefig(path, dpi=110)
    plt.close(picture)


def processes(figures: Figures, path: Path) -> None:
    """Draw the guarded call against the bare one over the number of processes."""
    counts = [str(row["processes"]) for row in figures["rows"]]
    picture, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    axes.plot(counts, [row["to bare"] for row in figures["rows"]], color=OURS, marker="o", label="by the clock")
    axes.plot(
        counts,
        [row["processor to bare"] for row in figures["rows"]],
        color=OURS,
        marker="o",
        linestyle=":",
        label="of the processor",
    )
    axes.axhline(1.0, color=QUIET, linewidth=1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("processes that call at the same time")
    axes.set_ylabel("guarded to bare")
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    picture.savefig(path, dpi=110)
    plt.close(picture)


def recovery(figures: Figures, path: Path) -> None:
    """Draw what both fleets sent through the outage, and what the circuit did."""
    drawn = figures["drawn"]
    picture, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    calm = drawn["guarded"]["calm"]
    axes.step(
        *zip(*calm, strict=True), where="post", color=QUIET, linewidth=0.6, label="a service that stays well"
    )
    for who, colour in (("unprotected", OTHERS), ("guarded", OURS)):
        axes.step(*zip(*drawn[who]["sent"], strict=True), where="post", color=colour, label=who)
    axes.axvspan(0, figures["outage"], color=ALARM, alpha=0.12, linewidth=0, label="the service fails")
    top = axes.get_ylim()[1] * 1.12
    axes.set_ylim(0, top)
    for place, (at, state) in enumerate(drawn["guarded"]["changes"]):
        axes.axvline(at, color=QUIET, linewidth=0.8, linestyle="--")
        height = top * (0.97 - 0.05 * (place % 3))  # several changes follow one another closely
        axes.annotate(state, (at, height), fontsize=8, xytext=(3, -4), textcoords="offset points")
    axes.set_xlabel("seconds since the outage began")
    axes.set_ylabel("requests a second")
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    picture.savefig(path, dpi=110)
    plt.close(picture)
