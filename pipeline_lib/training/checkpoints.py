"""Checkpoints: atomic, self-checking, tied to what they were made from."""

import errno
import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline_lib.artefacts.atomic import atomic_path, write_bytes
from pipeline_lib.plain_data import parse_json


def _sha256(header: Mapping[str, Any], content: bytes | memoryview) -> str:
    """SHA-256 of what a header says, and of the state."""
    hasher = hashlib.sha256(json.dumps([header["step"], header["digest"], header["size"]]).encode())
    hasher.update(content)
    return hasher.hexdigest()


class Checkpoints:
    """The checkpoints of one run, in one folder.

    A file is one line of JSON (step, digest, size of the rest, and SHA-256 of these three and the rest), then the
    state. So a half-written or damaged file is noticed before any of it is used.

    Args:
        folder: where they lie; it is made if it does not exist.
        digest: of specification, code and inputs. A training does not continue from checkpoints of another digest,
            because with a changed λ it would "finish" at once from an old one; they are set aside.
        keep: how many of the last ones are kept; the best one is kept as well.
    """

    def __init__(self, folder: Path, digest: str, keep: int) -> None:
        self.folder, self.digest, self.keep = folder, digest, keep

    def path(self, step: int) -> Path:
        """File of the checkpoint after ``step`` steps."""
        return self.folder / f"step_{step:09d}.pt"

    def paths(self) -> list[Path]:
        """Complete-looking checkpoints, oldest first."""
        return sorted(self.folder.glob("step_*.pt"))

    @property
    def last_path(self) -> Path | None:
        """File of the last complete-looking checkpoint."""
        return max(self.paths(), default=None)

    @property
    def best_path(self) -> Path:
        """File of the best checkpoint so far: a second name, which stays when the first is removed."""
        return self.folder / "best.pt"

    def save(self, step: int, state: dict[str, Any], best: bool = False) -> Path:
        """Write the state after ``step`` steps; remove what is older than the last ``keep``.

        Args:
            step: steps done.
            state: what ``torch.save`` takes.
            best: whether it is the best so far, which is kept even if it is not among the last.

        Raises:
            OSError: the disk is full; the earlier checkpoints are untouched.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getbuffer()
        header: dict[str, Any] = {"step": step, "digest": self.digest, "size": len(content)}
        header["sha256"] = _sha256(header, content)
        with atomic_path(self.path(step)) as temporary, open(temporary, "wb") as file:
            file.write(json.dumps(header).encode() + b"\n")
            file.write(content)
            file.flush()
            if best:
                # The best goes first: if the process is killed between the two, the step is done again with the same
                # result.
                self._keep_best(temporary)
        for old in self.paths()[: -self.keep]:
            old.unlink()
        return self.path(step)

    def _keep_best(self, written: Path) -> None:
        with atomic_path(self.best_path) as temporary:
            temporary.unlink()
            try:
                os.link(written, temporary)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                # A file system without hard links.
                shutil.copyfile(written, temporary)

    def set_aside_others(self) -> None:
        """Move a folder whose checkpoints have another digest out of the way, to ``{folder}.aside`` (one is kept)."""
        digests = {header["digest"] for path in self.paths() if (header := self._header(path)) is not None}
        marker = self.folder / "digest"
        if marker.is_file():
            digests.add(marker.read_text())
        if digests - {self.digest}:
            aside = self.folder.with_name(self.folder.name + ".aside")
            shutil.rmtree(aside, ignore_errors=True)
            self.folder.rename(aside)
            print(f"specification, code or inputs changed: earlier checkpoints set aside in {aside}", file=sys.stderr)
        # Written atomically, because a half-written marker would look like another origin.
        if not marker.is_file():
            write_bytes(marker, self.digest.encode())

    def latest(self) -> tuple[int, dict[str, Any]] | None:
        """Step and state of the last undamaged checkpoint, or None. Damaged ones are removed and named."""
        for path in reversed(self.paths()):
            found = self.read(path)
            if found is not None:
                return found
            print(f"{path} is damaged; going back to the checkpoint before it", file=sys.stderr)
            path.unlink()
        return None

    def best(self) -> tuple[int, dict[str, Any]] | None:
        """Step and state of the best checkpoint, or None if there is none or it is damaged."""
        return self.read(self.best_path)

    def read(self, path: Path) -> tuple[int, dict[str, Any]] | None:
        """Step and state of a checkpoint; None if it is not as it was written."""
        header = self._header(path)
        if header is None:
            return None
        with open(path, "rb") as file:
            file.readline()
            content = file.read()
        if _sha256(header, content) != header["sha256"]:
            return None
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return int(header["step"]), state

    @staticmethod
    def _header(path: Path) -> dict[str, Any] | None:
        try:
            with open(path, "rb") as file:
                header = parse_json(file.readline(4096))
        except (OSError, ValueError):
            return None
        complete = isinstance(header, dict) and {"step", "digest", "sha256", "size"} <= set(header)
        return header if complete else None

    def remove(self) -> None:
        """Remove the folder; the final weights are written."""
        shutil.rmtree(self.folder, ignore_errors=True)
