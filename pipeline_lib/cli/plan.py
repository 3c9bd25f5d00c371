"""``plan``: what a target will cost."""

import argparse
import json
from pathlib import Path
from typing import Any

from pipeline_lib.planning.by_name import add_configuration_arguments, plan_of

HELP = "estimate a target's jobs, disk, CPU and GPU hours per stage, and the days that a profile needs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overlays", nargs="*", type=Path, metavar="CONFIGFILE", help="overlays, as given to snakemake")
    parser.add_argument("--target", default="distill_k400", help="a target (default: distill_k400)")
    add_configuration_arguments(parser)
    parser.add_argument("--profile", type=Path, help="a profile, e.g. profiles/slurm: its limits give the days")
    parser.add_argument(
        "--cores", type=int, default=None, help="cores of this machine (default: all; not with --profile)"
    )
    parser.add_argument(
        "--gpu-teraflops", type=float, help="what a training reaches on one GPU (10¹² operations/s, e.g. 150)"
    )
    parser.add_argument("--gpu-pairs", type=float, help="pairs of 340×256 per second of flow on one GPU")
    parser.add_argument("--core-gigaflops", type=float, default=60.0, help="what a training reaches on one core")
    parser.add_argument("--json", action="store_true", help="print a list of objects instead of the table")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.configuration.messages import nearest
    from pipeline_lib.errors import UserError
    from pipeline_lib.planning.limits import Limits
    from pipeline_lib.planning.workload import Speeds, as_rows, workload

    options.configfile = [*options.overlays, *options.configfile]
    plan = plan_of(options)
    names = [*plan.targets, *plan.configuration.experiments]
    if options.target not in names:
        raise UserError(f"There is no target `{options.target}`. {nearest(options.target, names)}")
    speeds = Speeds(options.gpu_teraflops, options.gpu_pairs, options.core_gigaflops)
    stages = workload(plan, options.target, speeds)
    threads = plan.configuration.hardware.num_threads
    limits = Limits.of_profile(options.profile) if options.profile else Limits.of_machine(options.cores, threads)
    for stage in stages:
        stage.days = limits.days(stage)
    rows = as_rows(stages)
    if options.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return 0
    _print(rows)
    gpu_known = speeds.gpu_teraflops is not None
    if plan.configuration.hardware.device != "cpu" and not gpu_known:
        print("\nTrainings are counted on CPU cores: --gpu-teraflops (and --gpu-pairs for flow) counts them on GPUs.")
    print(
        f"Days: {limits.about}; one line after the other, the jobs of a line side by side as far as the limits allow."
    )
    return 0


def _print(rows: list[dict[str, Any]]) -> None:
    from pipeline_lib.text_table import text_table

    head = ("stage", "what", "jobs", "GB", "CPU hours", "GPU hours", "days", "from")

    def number(value: float | None) -> str:
        return "?" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"

    def total(key: str) -> float:
        return float(sum(row[key] or 0 for row in rows))

    cells: list[tuple[str, ...]] = []
    for row in rows:
        figures = tuple(number(row[key]) for key in ("gigabytes", "cpu_hours", "gpu_hours", "days"))
        cells.append((row["stage"], row["what"], str(row["jobs"]), *figures, row["basis"]))
    sums = tuple(number(total(key)) for key in ("gigabytes", "cpu_hours", "gpu_hours", "days"))
    cells.append(("all", "", str(int(total("jobs"))), *sums, ""))
    print(text_table(head, cells, left=(0, 1, 7)))
