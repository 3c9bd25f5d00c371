"""Checkpoints: atomic, self-checking, tied to what they were made from."""

import hashlib
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from pipeline_lib.artefacts.atomic import atomic_path


class Checkpoints:
    """The checkpoints of one run, in one folder.

    A file is one line of JSON (step, digest, SHA-256 and size of the rest) and the state behind it, so that a
    half-written or damaged one is known before anything of it is used.

    Args:
        folder: where they lie; made if need be.
        digest: of specification, code and inputs. Checkpoints of another digest are set aside, not resumed: a
            changed λ would otherwise "finish" at once from an old checkpoint.
        keep: how many of the last ones stay.
    """

    def __init__(self, folder: Path, digest: str, keep: int) -> None:
        self.folder, self.digest, self.keep = folder, digest, keep

    def path(self, step: int) -> Path:
        """File of the checkpoint after ``step`` steps."""
        return self.folder / f"step_{step:09d}.pt"

    def paths(self) -> list[Path]:
        """Complete-looking checkpoints, oldest first."""
        return sorted(self.folder.glob("step_*.pt"))

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write the state after ``step`` steps; remove what is older than the last ``keep``.

        Raises:
            OSError: the disk is full; the earlier checkpoints are untouched.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getbuffer()
        header = {
            "step": step,
            "digest": self.digest,
            "sha256": hashlib.sha256(content).hexdigest(),
            "size": len(content),
        }
        with atomic_path(self.path(step)) as temporary, open(temporary, "wb") as file:
            file.write(json.dumps(header).encode() + b"\n")
            file.write(content)
        for old in self.paths()[: -self.keep]:
            old.unlink()
        return self.path(step)

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
        self.folder.mkdir(parents=True, exist_ok=True)
        marker.write_text(self.digest)

    def latest(self) -> tuple[int, dict[str, Any]] | None:
        """Step and state of the last undamaged checkpoint, or None. Damaged ones are removed and named."""
        for path in reversed(self.paths()):
            header = self._header(path)
            if header is not None:
                with open(path, "rb") as file:
                    file.readline()
                    content = file.read()
                if len(content) == header["size"] and hashlib.sha256(content).hexdigest() == header["sha256"]:
                    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
                    return int(header["step"]), state
            print(f"{path} is damaged; going back to the checkpoint before it", file=sys.stderr)
            path.unlink()
        return None

    @staticmethod
    def _header(path: Path) -> dict[str, Any] | None:
        try:
            with open(path, "rb") as file:
                header = json.loads(file.readline(4096))
        except (OSError, ValueError):
            return None
        complete = isinstance(header, dict) and {"step", "digest", "sha256", "size"} <= set(header)
        return header if complete else None

    def remove(self) -> None:
        """Remove the folder; the final weights are written."""
        shutil.rmtree(self.folder, ignore_errors=True)
