"""The list of a shard: the accepted videos that it holds, as the manifest writes it and the frames stage reads it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline_lib.artefacts.atomic import write_bytes
from pipeline_lib.artefacts.digest import digest
from pipeline_lib.artefacts.sealing import CHECKSUM, read_sealed_json, sealed


def videos_digest(videos: Sequence[Mapping[str, Any]]) -> str:
    """Digest of everything in a shard's list that decides its frames.

    A video enters by the digest of its bytes and not by its path, so that moved files keep their frames. A manifest
    without probing has no digests; there the path is used.
    """
    return digest(
        [
            [video["id"], video.get("digest") or video["path"], video.get("start"), video.get("end")]
            # Only a video that is not the first in its file says which, and only a folder of images its rate.
            + ([video["stream"]] if "stream" in video else [])
            + ([{"images_per_second": video["images_per_second"]}] if "images_per_second" in video else [])
            for video in videos
        ]
    )


def write_shard_list(path: Path, dataset: str, shard: str, videos: Sequence[Mapping[str, Any]]) -> None:
    """Write a shard list, one video per line. A file with the same content is not touched and keeps its time stamp."""
    lines = ",\n".join(json.dumps(video, sort_keys=True, ensure_ascii=False) for video in videos)
    about = {"dataset": dataset, "shard": shard, "content": videos_digest(videos)}
    seal = sealed(about | {"videos": list(videos)})[CHECKSUM]
    head = json.dumps(about | {CHECKSUM: seal}, ensure_ascii=False)
    text = f'{head[:-1]}, "videos": [\n{lines}\n]}}\n'
    if path.is_file() and path.read_bytes() == text.encode():
        return
    write_bytes(path, text.encode())


def read_shard_list(path: Path) -> list[dict[str, Any]]:
    """The videos of ``shards/{shard}.json``.

    Raises:
        UserError: the file is missing.
        DamageError: it is not as it was written.
    """
    content = read_sealed_json(path, "`manifest build` makes it")
    videos: list[dict[str, Any]] = content["videos"]
    return videos
