"""``weights``: lists and imports public weights."""

import argparse
from pathlib import Path
from typing import Any

from pipeline_lib.errors import UserError

HELP = "import public weights (torchvision, TF-slim, PySlowFast, MaCLR, kylemin; ImageNet for inflation)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    importing = actions.add_parser("import", help="convert a public checkpoint to weights that experiments start from")
    importing.add_argument(
        "source",
        metavar="SOURCE",
        help="what the file is; `weights list` names all",
    )
    importing.add_argument("file", metavar="FILE", type=Path, nargs="?", help="the checkpoint (default: fetch it)")
    importing.add_argument("--out", type=Path, help="where to write (default: OUTPUT_ROOT/imported/SOURCE.safetensors)")
    importing.add_argument("--root", type=Path, default=Path("output"), help="the output root (default: output)")
    importing.add_argument("--model", help="video network to fill (default: the source's own)")
    importing.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="option of the network, VALUE in JSON"
    )
    importing.add_argument(
        "--modality",
        choices=("rgb", "flow"),
        default="rgb",
        help="flow averages a video network's stem over its input channels (image networks serve both)",
    )
    importing.add_argument("--offline", action="store_true", help="never use the network")
    actions.add_parser("list", help="list the sources")


def run(options: argparse.Namespace) -> int:
    if options.action == "list":
        return _list()
    return _import(options)


def _list() -> int:
    from pipeline_lib.models.importing.sources import SOURCES

    for name, source in SOURCES.items():
        how = "image network" if source.two_dimensional else "video network"
        print(f"{name:24}{source.model:24}{how:16}{source.about}")
    return 0


def _import(options: argparse.Namespace) -> int:
    from pipeline_lib.artefacts.layout import Layout
    from pipeline_lib.models.importing.availability import fetched
    from pipeline_lib.models.importing.sources import find_source
    from pipeline_lib.training.public_weights import import_checkpoint

    source, layout = find_source(options.source), Layout(options.root)
    out: Path = options.out or layout.imported(options.source)
    file: Path = options.file or fetched(options.source, source, layout, out, options.offline)
    about, count = import_checkpoint(
        options.source, file, out, options.model, _options(options.option), options.modality
    )
    head = f"{about['num_classes']} classes" if about["num_classes"] else "no classifier"
    print(f"{out}: {about['model']['name']}, {count:,} numbers in {about['tensors']} tensors, {head}")
    return 0


def _options(pairs: list[str]) -> dict[str, Any]:
    from pipeline_lib.configuration.settings import value_of

    chosen: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--option {pair}: write KEY=VALUE")
        chosen[key] = value_of(text)
    return chosen
