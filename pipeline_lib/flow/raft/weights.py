"""RAFT's weights: torchvision's by name, or a file in torchvision's or in princeton-vl's original format."""

import hashlib
import re
from pathlib import Path
from typing import Literal
from urllib.error import URLError

import torch
import torchvision

from pipeline_lib.artefacts.digest import file_digest
from pipeline_lib.errors import UserError

# SHA-256 of the checkpoints that princeton-vl/RAFT distributes (its download_models.sh).
ORIGINAL_CHECKPOINTS = {
    "fcfa4125d6418f4de95d84aec20a3c5f4e205101715a79f193243c186ac9a7e1": "raft-things.pth",
    "c7d41b9cc88442bb8aa911dbb33086dac55a226394b142937ff22d5578717332": "raft-small.pth",
}

# The original's names on the left; the first pattern that matches renames the key.
_RENAMES = [
    (r"^(fnet|cnet)\.(layer\d\.\d)\.conv(\d)\.", r"\1.\2.convnormrelu\3.0."),
    (r"^(fnet|cnet)\.(layer\d\.\d)\.norm(\d)\.", r"\1.\2.convnormrelu\3.1."),
    (r"^(fnet|cnet)\.conv1\.", r"\1.convnormrelu.0."),
    (r"^(fnet|cnet)\.norm1\.", r"\1.convnormrelu.1."),
    (r"^(fnet|cnet)\.conv2\.", r"\1.conv."),
    (r"^update_block\.encoder\.convc(\d)\.", r"update_block.motion_encoder.convcorr\1.0."),
    (r"^update_block\.encoder\.convf(\d)\.", r"update_block.motion_encoder.convflow\1.0."),
    (r"^update_block\.encoder\.conv\.", r"update_block.motion_encoder.conv.0."),
    (r"^update_block\.gru\.conv([zrq])(\d)\.", r"update_block.recurrent_block.convgru\2.conv\1."),
    (r"^update_block\.gru\.conv([zrq])\.", r"update_block.recurrent_block.convgru1.conv\1."),
    (r"^update_block\.mask\.0\.", r"mask_predictor.convrelu.0."),
    (r"^update_block\.mask\.2\.", r"mask_predictor.conv."),
]


def rename_key(key: str) -> str:
    """Torchvision's name of a parameter of princeton-vl's RAFT (core/raft.py, core/update.py, core/extractor.py)."""
    key = key.removeprefix("module.")
    for pattern, replacement in _RENAMES:
        key, count = re.subn(pattern, replacement, key)
        if count:
            break
    return re.sub(r"^cnet\.", "context_encoder.", re.sub(r"^fnet\.", "feature_encoder.", key))


def from_original(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A princeton-vl state dictionary under torchvision's names.

    The original holds the norm of a block's shortcut twice: as ``downsample.1`` and as the block's last ``norm``.
    """
    shortcuts = {key.removeprefix("module.").split(".downsample.")[0] for key in state if ".downsample.1." in key}
    renamed = {}
    for key, value in state.items():
        plain = key.removeprefix("module.")
        last_norm = re.match(r"^(.*layer\d\.\d)\.norm([34])\.", plain)
        if last_norm and last_norm[1] in shortcuts:
            continue
        renamed[rename_key(key)] = value
    return renamed


def _named(size: Literal["large", "small"], name: str) -> tuple[dict[str, torch.Tensor], str]:
    """Torchvision's weights by name, from torch's hub cache or downloaded."""
    models = torchvision.models.optical_flow
    enumeration = models.Raft_Large_Weights if size == "large" else models.Raft_Small_Weights
    known = list(enumeration.__members__)
    if name not in known:
        raise UserError(
            f"motion method raft: parameter `weights` is {name!r}: no file of that name, and torchvision's raft_{size} "
            f"has {', '.join(known)}"
        )
    weights = enumeration[name]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    try:
        state: dict[str, torch.Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"motion method raft: the weights raft_{size} {name} are not in {cached} and cannot be downloaded from "
            f"{weights.url} ({error}). Put the file there, or give its path as the parameter `weights`."
        ) from error
    return state, file_digest(cached)


def load_weights(
    model: torch.nn.Module, size: Literal["large", "small"], weights: str, sha256: str | None = None
) -> str:
    """Load weights into torchvision's RAFT.

    Args:
        model: ``raft_large`` or ``raft_small``.
        size: which of the two it is.
        weights: a name of torchvision's (``C_T_V2`` …) or the path of a file.
        sha256: digest that a file must have; None accepts any file in torchvision's format, and of princeton-vl's
            only the published ones.

    Returns:
        SHA-256 of the file.

    Raises:
        UserError: the file is absent, damaged, for the other size, or not what the digest says.
    """
    path = Path(weights).expanduser()
    if not path.is_file():
        if path.suffix or "/" in weights:
            raise UserError(f"motion method raft: parameter `weights` names {weights}, which does not exist")
        state, digest = _named(size, weights)
    else:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if sha256 is not None and digest != sha256:
            raise UserError(f"{path} has the SHA-256 {digest}, not {sha256}: download it again")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise UserError(f"{path} is not a PyTorch state dictionary ({type(error).__name__})") from error
        if any("fnet." in key for key in state):
            if sha256 is None and digest not in ORIGINAL_CHECKPOINTS:
                raise UserError(
                    f"{path} has the SHA-256 {digest}, which is none of princeton-vl's (raft-things.pth, "
                    "raft-small.pth): download it again, or set the parameter `sha256` to that digest to use this file"
                )
            state = from_original(state)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"the weights {weights} do not fit raft_{size}: is it the other size? ({error})") from error
    return digest
