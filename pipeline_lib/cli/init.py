"""``init``: from a folder of videos to one commented configuration file for them."""

import argparse
from pathlib import Path

HELP = "look at a folder of videos and write a configuration for it: teacher, baseline, student, ensemble, report"
TEACHERS = ("flow", "tvl1", "farneback", "raft")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=Path, help="a folder per class, or a CSV (path,label[,group]) in it or beside it"
    )
    parser.add_argument("--out", type=Path, required=True, help="the file to write, for example my.yaml")
    parser.add_argument("--list", type=Path, dest="chosen", help="the CSV that lists the videos (default: looked for)")
    parser.add_argument("--name", help="of the data set and the target (default: the folder's)")
    parser.add_argument("--teacher", choices=TEACHERS, default="flow", help="what it sees (default: flow, by TV-L1)")
    parser.add_argument(
        "--start", default="random", help="of the student: random, imagenet, or public weights (torchvision/s3d, …)"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument("--project", type=Path, default=Path(), help="folder of config.yaml (default: here)")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.artefacts.atomic import write_bytes
    from pipeline_lib.errors import UserError
    from pipeline_lib.planning.own_videos import look, measure, motion_quantile
    from pipeline_lib.planning.plan import load_plan
    from pipeline_lib.planning.proposal import Machine, networks_for, propose
    from pipeline_lib.planning.proposal_file import name_for, names_of, overlay_text
    from pipeline_lib.planning.workload import Speeds, workload

    out: Path = options.out
    if out.exists() and (out.is_dir() or not options.force):
        more = "Name a file." if out.is_dir() else "It is not replaced; name another one, or say --force."
        raise UserError(f"--out {out}: this exists already. {more}")
    machine = Machine.here()
    # Refused before anything is measured.
    networks_for(options.start, machine)
    configuration = load_plan(options.project).configuration
    taken = {
        name
        for section in ("datasets", "frame_formats", "motions", "recipes", "experiments", "targets", "tables")
        for name in getattr(configuration, section)
    }
    name = options.name or name_for(options.folder, taken)
    clash = sorted(taken & set(names_of(name)))
    if clash:
        raise UserError(f"--name {name}: the configuration has {clash[0]} already; choose another name.")
    own = look(options.folder, options.chosen)
    measured, files = measure(own, machine.num_cores)
    proposal = propose(
        own,
        measured,
        lambda side, rate: motion_quantile(files, side, rate, machine.num_cores),
        options.teacher,
        options.start,
        machine,
    )
    text = overlay_text(name, own, measured, proposal, machine, out, options.project)
    before = out.read_bytes() if out.exists() else None
    write_bytes(out, text.encode())
    try:
        plan = load_plan(options.project, [out])
        plan.datasets_behind(name)
    except UserError:
        # Something of the project's own does not go with it: nothing half-valid is left behind.
        out.unlink() if before is None else write_bytes(out, before)
        raise
    stages = workload(plan, name, Speeds()) if not machine.has_gpu else []
    hours = sum(stage.cpu_hours or 0.0 for stage in stages if stage.stage == "training") / machine.num_cores
    split = own.grouping or ("the folder or the list names them" if own.is_divided else "none; each video by itself")
    where = "" if options.project == Path() else f"   # in {options.project}"
    print(f"{len(own.videos)} videos of {len(own.classes)} classes: {own.count('train')} training, ", end="")
    print(f"{own.count('validation')} validation; sources: {split}")
    if own.skipped:
        print(f"skipped: {', '.join(f'{count} × {reason}' for reason, count in own.skipped.items())}")
    print(
        f"frames of {proposal.short_side} px, clips of {proposal.num_frames} × {proposal.stride}, "
        f"{proposal.steps} steps of {proposal.batch} clips, {proposal.num_shards} shard(s); {machine}"
        + (f"; about {_duration(hours)} of training" if hours else "")
    )
    print(f"\nWritten: {out}. It says why each number is what it is. Next:{where}\n")
    print(f"  snakemake --cores all report --configfile {out}")
    print(f"  python -m pipeline_lib predict VIDEO --experiment d3d_{name} --root {plan.layout.root}")
    return 0


def _duration(hours: float) -> str:
    """A length of time, as people say it."""
    minutes = round(hours * 60)
    return "a minute" if minutes < 2 else f"{minutes} minutes" if minutes < 120 else f"{hours:.1f} hours"
