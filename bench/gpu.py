"""All that is measured on one GPU, part after part. Started by `bench/gpu.sh`, which says how.

Each part is a process of its own with its share of the time: what one part breaks, or does not get
done, the others do not miss. Results are lines of JSON, one file a part, and a table of all.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click
import torch

from bench.gpu_commands import commands
from bench.gpu_counts import ROOT, Finding, Setup, peaks
from bench.gpu_extraction import compiled, equal_batch, extraction
from bench.gpu_finetune import finetune
from bench.gpu_heads import equal_steps, training_step
from bench.gpu_search import search

NO_DEVICE = 2
HOURS, SMALL_HOURS = 2.0, 0.02
TABLE = "gpu.md"


def device(setup: Setup) -> Iterator[Finding]:
    """What it is, and what it reaches at most."""
    flops, bandwidth = peaks(setup.device)
    name = "a CPU (toy sizes)" if setup.device == "cpu" else torch.cuda.get_device_name()
    yield Finding(
        "the device",
        f"{name}, torch {torch.__version__}; a large product reaches {flops / 1e12:.3g} TFLOP/s, "
        f"a copy reads and writes {bandwidth / 1e9:,.0f} GB/s",
        {"flops": flops, "bandwidth": bandwidth},
    )


Part = Callable[[Setup], Iterator[Finding]]
# In this order, with the most seconds of each. The search comes last and takes what is left.
PARTS: dict[str, tuple[tuple[Part, ...], float]] = {
    "heads": ((device, training_step, equal_steps), 90.0),
    "extraction": ((equal_batch, extraction), 200.0),
    "compiled": ((compiled,), 120.0),
    "finetune": ((finetune,), 100.0),
    "commands": ((commands,), 200.0),
    "search": ((search,), float("inf")),
}


def findings(measures: Sequence[Part], setup: Setup) -> Iterator[Finding]:
    """Of one measure after the other; one that raises is a finding, and the others go on."""
    for measure in measures:
        try:
            yield from measure(setup)
        except Exception as error:  # noqa: BLE001 - whatever it is, the rest is to be measured
            last = "".join(traceback.format_exception(error)).splitlines()[-12:]
            yield Finding(f"FAILED: {measure.__name__}", "\n".join(last), {"failed": True})


def run_part(name: str, setup: Setup, out: Path) -> bool:
    """Say and keep each finding as it is made; whether none is a failure."""
    failed = False
    with (out / f"{name}.jsonl").open("w", encoding="utf-8") as file:
        for finding in findings(PARTS[name][0], setup):
            click.echo(f"* {finding.what}: {finding.found}")
            file.write(json.dumps(asdict(finding), default=str) + "\n")
            file.flush()
            failed = failed or bool(finding.figures.get("failed"))
    return not failed


def run_parts(names: Sequence[str], setup: Setup, out: Path) -> list[str]:
    """Each part in a process of its own; those that failed, or were not done in time."""
    ends, failed = time.monotonic() + setup.seconds, []
    for name in names:
        seconds = min(PARTS[name][1], ends - time.monotonic())
        click.echo(f"== {name}, at most {max(0.0, seconds):.0f} s", err=True)
        command = [sys.executable, "-m", "bench.gpu", name, "--alone", "--out", str(out)]
        command += ["--folder", str(setup.folder), "--hours", str(setup.hours)]
        command += ["--minutes", str(seconds / 60), *(["--toy"] if setup.small else [])]
        try:
            status = subprocess.run(command, cwd=ROOT, check=False, timeout=seconds).returncode
        except subprocess.TimeoutExpired:
            click.echo(f"* FAILED: {name}: not done in {seconds:.0f} s")
            status = 1
        if status:
            failed.append(name)
        (out / TABLE).write_text(table(out, failed), encoding="utf-8")
    return failed


def table(out: Path, failed: Sequence[str]) -> str:
    """What was found so far, as Markdown."""
    lines = ["| what | found |", "| --- | --- |"]
    for name in PARTS:
        path = out / f"{name}.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            found = json.loads(line)
            cells = (found["what"], found["found"].replace("\n", "<br>").replace("|", "\\|"))
            lines.append(f"| {cells[0]} | {cells[1]} |")
    if failed:
        lines += ["", f"Failed or not done in time: {', '.join(failed)}."]
    return "\n".join(lines) + "\n"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option("--toy", is_flag=True, help="Try the script: small, and on the CPU.")
@click.option("--hours", type=float, help=f"Of audio to extract.  [default: {HOURS:g}]")
@click.option("--minutes", default=8.8, show_default=True, help="For all parts together.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for results.")
@click.option("--folder", type=click.Path(path_type=Path), hidden=True)
@click.option("--alone", is_flag=True, hidden=True, help="One part, in this process.")
def main(
    parts: Sequence[str],
    toy: bool,
    hours: float | None,
    minutes: float,
    out: Path | None,
    folder: Path | None,
    alone: bool,
) -> None:
    """Measure what a GPU does with each stage; all PARTS by default."""
    if not toy and not torch.cuda.is_available():
        click.echo(
            "No CUDA device here (PyTorch finds none): the GPU figures stay open. "
            "--toy tries the script on a CPU.",
            err=True,
        )
        raise click.exceptions.Exit(NO_DEVICE)
    hours = hours or (SMALL_HOURS if toy else HOURS)
    with tempfile.TemporaryDirectory(prefix="emopool-gpu-") as made:
        out, folder = out or Path(made) / "results", folder or Path(made)
        out.mkdir(parents=True, exist_ok=True)
        place = "cpu" if toy else "cuda"
        setup = Setup(folder, place, toy, hours, 60 * minutes)
        if alone:
            good = run_part(parts[0], setup, out)
        else:
            good = not run_parts(parts or list(PARTS), setup, out)
    if not good:
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    main()
