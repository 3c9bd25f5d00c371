"""``report``: one self-contained HTML page about some experiments."""

import argparse
from pathlib import Path

HELP = "write the self-contained HTML report of some experiments"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--specification", required=True, help="ReportSpecification as JSON")
    parser.add_argument("--root", required=True, type=Path, help="output root")
    parser.add_argument("--output", type=Path, help="the page (default: report/NAME.html below the root)")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.artefacts.layout import Layout
    from pipeline_lib.configuration.specification import ReportSpecification
    from pipeline_lib.reporting.report import write_report
    from pipeline_lib.reporting.tables import results_text

    specification = ReportSpecification.model_validate_json(options.specification)
    output = options.output or Layout(options.root).report(specification.name)
    report = write_report(specification, options.root, output)
    print(results_text(report))
    print(f"\n{output}")
    return 0
