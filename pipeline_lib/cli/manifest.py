"""``manifest build`` makes a data set's manifest; ``manifest check`` shows what is usable and what is not, and why."""

import argparse
from pathlib import Path

HELP = "list a data set's videos, look for their files, and say which are usable and why the others are not"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    build = actions.add_parser("build", help="make manifest.parquet, summary.json and the shard lists")
    build.add_argument("--specification", required=True, help="ManifestSpecification as JSON")
    build.add_argument("--output", required=True, type=Path, help="folder manifests/{dataset}")
    build.add_argument("--threads", type=int, default=1, help="probing processes")
    check = actions.add_parser("check", help="print the table of a manifest: counts, reasons, examples")
    check.add_argument("manifest", type=Path, help="folder manifests/{dataset}")
    check.add_argument("--reason", help="list every video with this reason (e.g. 'truncated')")
    check.add_argument("--limit", type=int, default=3, help="examples per reason")


def run(options: argparse.Namespace) -> int:
    if options.action == "check":
        from pipeline_lib.manifests.check import check_table

        print(check_table(options.manifest, options.reason, options.limit))
        return 0
    from pipeline_lib.configuration.specification import ManifestSpecification
    from pipeline_lib.manifests.build import build_manifest

    specification = ManifestSpecification.model_validate_json(options.specification)
    summary = build_manifest(specification, options.output, options.threads)
    status = ", ".join(f"{count} {name}" for name, count in summary["status"].items())
    print(f"{specification.name}: {status}; digest {summary['digest'][:12]}; {options.output}")
    return 0
