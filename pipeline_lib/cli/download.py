"""``python -m pipeline_lib download``: fetch the videos of a data set."""

import argparse
import json
import signal
import sys
import threading
from pathlib import Path

from pipeline_lib.planning.by_name import add_configuration_arguments, plan_of

HELP = "fetch a data set's videos from mirrors, tar archives or YouTube (optional)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="a key under `downloads` of the configuration")
    add_configuration_arguments(parser)
    parser.add_argument("--specification", help="the resolved specification as JSON, as the rule passes it")
    parser.add_argument("--output", type=Path, help="the summary (default: below the configuration's output root)")
    parser.add_argument("--retry-failed", action="store_true", help="try again what failed in earlier runs")


def run(options: argparse.Namespace) -> int:
    from pipeline_lib.configuration.specification import DownloadSpecification
    from pipeline_lib.downloads.stage import run_download
    from pipeline_lib.errors import UserError
    from pipeline_lib.media.ffmpeg import ffmpeg_executable

    if options.specification is not None:
        if options.output is None:
            raise UserError("--specification needs --output, the path of the summary.")
        specification = DownloadSpecification.model_validate_json(options.specification)
        output = options.output
    else:
        from pipeline_lib.configuration.messages import nearest

        plan = plan_of(options)
        configuration = plan.configuration
        if options.name not in configuration.downloads:
            known = list(configuration.downloads)
            raise UserError(
                f"downloads.{options.name}: there is no such key in the configuration. "
                + (nearest(options.name or "", known) if known else "docs/download.md says what to write there.")
            )
        specification = DownloadSpecification(name=options.name, download=configuration.downloads[options.name])
        output = options.output or plan.layout.download_summary(options.name)

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    summary = run_download(
        specification.name, specification.download, output, ffmpeg_executable, options.retry_failed, stop
    )
    counts = {key: summary[key] for key in ("items", "done", "failed", "causes")}
    print(json.dumps(counts, indent=2, ensure_ascii=False), file=sys.stderr)
    if summary["failed"]:
        print(
            f"{output} lists what failed. Once more: python -m pipeline_lib download {specification.name} "
            "--retry-failed, with the same --configfile",
            file=sys.stderr,
        )
    return 0
