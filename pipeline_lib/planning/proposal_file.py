"""The file that ``init`` writes: a proposal as one commented overlay of config.yaml."""

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml

from pipeline_lib.planning.own_videos import Measured, OwnVideos
from pipeline_lib.planning.proposal import Machine, Proposal

_GENERAL = frozenset({"videos", "video", "data", "dataset", "train", "clips", "files"})
"""Names of folders that say nothing about what lies in them."""
SCHEMA = Path("workflow") / "schemas" / "config.json"
DATA_FILES = ("own_videos.yaml.j2",)


def name_for(folder: Path, taken: Collection[str]) -> str:
    """A name for a data set by its folder: letters, digits and underscores, as the configuration wants it.

    Args:
        folder: with the videos.
        taken: names that the configuration has already.
    """
    folder = folder.resolve()
    stem = folder.parent.name if folder.name.lower() in _GENERAL and folder.parent.name else folder.name
    plain = re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_") or "own"
    name, number = plain, 2
    while any(one in taken for one in names_of(name)):
        name, number = f"{plain}_{number}", number + 1
    return name


def names_of(name: str) -> dict[str, str]:
    """Everything that the file names: name → what it is."""
    return {
        name: "data set, recipe, target",
        f"{name}_frames": "frame format",
        f"{name}_flow": "motion",
        f"teacher_{name}": "experiment",
        f"baseline_{name}": "experiment",
        f"d3d_{name}": "experiment",
        f"two_stream_{name}": "experiment",
    }


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000, sort_keys=False)
    return text.removesuffix("...\n").strip()


def _spread(values: np.ndarray) -> str:
    low, middle, high = np.quantile(values, [0.0, 0.5, 1.0])
    return f"{low:.3g} to {high:.3g} (median {middle:.3g})" if high > low else f"{low:.3g}"


def overlay_text(
    name: str, own: OwnVideos, measured: Measured, proposal: Proposal, machine: Machine, out: Path, project: Path
) -> str:
    """The file's text.

    Args:
        name: of the data set, the recipe and the target.
        own: the videos.
        measured: what a sample of them is like.
        proposal: the settings.
        machine: for which they are meant.
        out: where the file will lie.
        project: folder of config.yaml.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline_lib", "planning"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["flow"] = _flow
    return environment.get_template(DATA_FILES[0]).render(
        name=name,
        own=own,
        dataset=own.dataset,
        measured=measured,
        p=proposal,
        why=proposal.reason,
        machine=machine,
        out=out,
        schema=os.path.relpath((project / SCHEMA).resolve(), out.parent.resolve()),
        spread=_spread,
    )
