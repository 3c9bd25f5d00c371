"""Where a public checkpoint lies on this machine, whether it can be fetched, and fetching it.

Neither torch nor torchvision is imported, since the plan of a run asks.
"""

import sys
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.artefacts.atomic import atomic_path
from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.downloads.reachability import unreachable
from pipeline_lib.errors import UserError
from pipeline_lib.models.importing.sources import Source

BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Unfetchable:
    """Why a checkpoint cannot be fetched, and how to get it all the same."""

    reason: str
    fetch: str

    def with_ways_out(self, own: str, other: str) -> str:
        """The reason and three ways out: to fetch it elsewhere, ``own`` and ``other``."""
        return f"{self.reason}. There are three ways out: {self.fetch}; {own}; or {other}."


def download_place(source: Source, layout: Layout) -> Path | None:
    """Where the file of a source lies after it was fetched; None for a source without an address."""
    return None if source.url is None else layout.public_checkpoints() / source.url.rpartition("/")[2]


def unfetchable(name: str, source: Source, layout: Layout) -> Unfetchable | None:
    """Why a source's file, which is not imported yet, cannot be fetched; None if it is there or can be.

    Args:
        name: of the source.
        source: the source.
        layout: of the output root, where downloads lie.
    """
    by_hand = f"python -m pipeline_lib weights import {name} FILE --root {layout.root}"
    place = download_place(source, layout)
    if place is None or source.url is None:
        return Unfetchable("only a web page leads to them", f"get {source.about}, and run `{by_hand}`")
    host = urllib.parse.urlsplit(source.url).hostname or ""
    failure = None if place.is_file() else unreachable(host)
    if failure is None:
        return None
    return Unfetchable(
        f"{host} cannot be reached ({failure})", f"fetch {source.url} where there is a network, and run `{by_hand}`"
    )


def fetched(name: str, source: Source, layout: Layout, out: Path, offline: bool = False) -> Path:
    """The checkpoint of a source; it is downloaded below the output root unless it is there already.

    Args:
        name: of the source.
        source: the source.
        layout: of the output root.
        out: where its import will be written, for the message.
        offline: never use the network.

    Raises:
        UserError: it is not there and cannot be fetched; the message names the file and where to put it.
    """
    place = download_place(source, layout)
    if place is None or source.url is None:
        raise UserError(f"{name} cannot be fetched: get {source.about}, and give the file as FILE")
    if place.is_file():
        return place
    by_hand = (
        f"Fetch {source.url}\nput it at {place}\nand run again: python -m pipeline_lib weights import {name} "
        f"{place} --out {out}"
    )
    if offline:
        raise UserError(f"{place.name} is not here, and --offline forbids fetching it. {by_hand}")
    print(f"fetching {source.url}", file=sys.stderr)
    try:
        with atomic_path(place) as temporary:
            with urllib.request.urlopen(source.url, timeout=60) as response, temporary.open("wb") as file:
                while block := response.read(BLOCK_BYTES):
                    file.write(block)
    except (urllib.error.URLError, OSError) as error:
        raise UserError(f"{place.name} could not be fetched ({error}). {by_hand}") from error
    return place
