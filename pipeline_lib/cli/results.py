"""``results``: the result table of a target, and where its report lies."""

import argparse
from pathlib import Path

from pipeline_lib.planning.by_name import add_configuration_arguments, plan_of

HELP = "print the result table of a target and where its report lies"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", help="a target, a table such as d3d_table2, an experiment, or selected")
    add_configuration_arguments(parser)
    parser.add_argument("--root", type=Path, help="output root (default: the configuration's)")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.artefacts.layout import Layout
    from pipeline_lib.configuration.messages import nearest
    from pipeline_lib.errors import UserError
    from pipeline_lib.planning.plan import SELECTED
    from pipeline_lib.reporting.collect import collect
    from pipeline_lib.reporting.compare import compare
    from pipeline_lib.reporting.costs import costs_text
    from pipeline_lib.reporting.paper_tables import paper_text, paper_views
    from pipeline_lib.reporting.tables import differences_text, results_text

    plan = plan_of(options)
    target = plan.selected if options.target == SELECTED else options.target
    if target not in plan.report_names:
        raise UserError(f"There is no target `{target}`. {nearest(target, plan.report_names)}")
    layout = Layout(options.root) if options.root else plan.layout
    if not options.root and not layout.root.is_absolute():
        layout = Layout(options.project / layout.root)
    report = collect(plan.report(target), layout.root)
    for view in paper_views(report):
        print(paper_text(view) + "\n")
    print(results_text(report))
    differences = differences_text(compare(report))
    if differences:
        print(f"\n{differences}")
    costs = costs_text(report)
    if costs:
        print(f"\n{costs}")
    page = layout.report(target)
    print(f"\nReport: {page if page.is_file() else f'{page} (not yet written: snakemake writes it)'}")
    return 0
