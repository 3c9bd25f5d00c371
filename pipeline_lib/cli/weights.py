"""``weights``: lists and imports public weights."""

import argparse
import sys
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
    from pipeline_lib.artefacts.digest import file_digest
    from pipeline_lib.artefacts.layout import Layout
    from pipeline_lib.models.importing.checkpoint_files import read_checkpoint
    from pipeline_lib.models.importing.publishers import check_digest, classes, convert
    from pipeline_lib.models.importing.sources import find_source
    from pipeline_lib.training.weights import save_weights

    source = find_source(options.source)
    out: Path = options.out or Layout(options.root).imported(options.source)
    file: Path = options.file or _fetched(options, source.url, out, source.about)
    check_digest(file)
    state, about = convert(
        source,
        read_checkpoint(file),
        model=options.model,
        options=_options(options.option),
        in_channels=3 if options.modality == "rgb" else 2,
    )
    labels = classes(source)
    metadata: dict[str, Any] = about | {
        "source": options.source,
        "source_digest": file_digest(file),
        "about": source.about,
        "classes": labels if labels is not None and len(labels) == about["num_classes"] else None,
        "input": {"range": [-1, 1], "modality": options.modality},
    }
    save_weights(out, state, metadata)
    parameters = sum(tensor.numel() for tensor in state.values())
    head = f"{about['num_classes']} classes" if about["num_classes"] else "no classifier"
    print(f"{out}: {about['model']['name']}, {parameters:,} numbers in {len(state)} tensors, {head}")
    return 0


def _options(pairs: list[str]) -> dict[str, Any]:
    from pipeline_lib.planning.by_name import value_of

    chosen: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--option {pair}: write KEY=VALUE")
        chosen[key] = value_of(text)
    return chosen


def _fetched(options: argparse.Namespace, url: str | None, out: Path, about: str) -> Path:
    """The checkpoint; it is downloaded beside the imported weights unless it is there already.

    Raises:
        UserError: it is not there and cannot be fetched; the message names the file and where to put it.
    """
    if url is None:
        raise UserError(f"{options.source} cannot be fetched: get {about}, and give the file as FILE")
    name = url.rpartition("/")[2]
    from pipeline_lib.artefacts.layout import Layout

    place = Layout(options.root).public_checkpoints() / name
    if place.is_file():
        return Path(place)
    by_hand = (
        f"Fetch {url}\nput it at {place}\nand run again: python -m pipeline_lib weights import {options.source} "
        f"{place} --out {out}"
    )
    if options.offline:
        raise UserError(f"{name} is not here, and --offline forbids fetching it. {by_hand}")
    import urllib.error
    import urllib.request

    from pipeline_lib.artefacts.atomic import atomic_path

    print(f"fetching {url}", file=sys.stderr)
    try:
        with atomic_path(place) as temporary:
            with urllib.request.urlopen(url, timeout=60) as response, temporary.open("wb") as file:
                while block := response.read(1 << 20):
                    file.write(block)
    except (urllib.error.URLError, OSError) as error:
        raise UserError(f"{name} could not be fetched ({error}). {by_hand}") from error
    return Path(place)
