"""Files from elsewhere: read without running anything in them, or refused in one message."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipeline_lib.errors import UserError
from pipeline_lib.models.importing.checkpoint_files import read_checkpoint
from pipeline_lib.models.importing.publishers import check_digest


class Malicious:
    """What a pickle with code in it looks like."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (eval, ("open('/tmp/pipeline_lib_was_here', 'w')",))


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def saved(value: Any, **how: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **how)
    return buffer.getvalue()


def object_array() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, weights=np.array([Malicious()], dtype=object))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(pickle.dumps({"blobs": Malicious()}), id="bare pickle"),
        pytest.param(pickle.dumps({"blobs": {"w": Malicious()}}, 0), id="text pickle"),
        pytest.param(pickle.dumps(np.load), id="a function"),
        pytest.param(saved({"w": Malicious()}), id="torch zip"),
        pytest.param(saved({"w": Malicious()}, _use_new_zipfile_serialization=False), id="torch stream"),
        pytest.param(saved(nn.Linear(1, 1)), id="a whole module"),
        pytest.param(object_array(), id="object array"),
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>404</html>", id="a web page"),
        pytest.param(b"\x80\x02nonsense", id="broken pickle"),
        pytest.param(zipped({"readme.txt": b"hello"}), id="another zip"),
        pytest.param(saved({"w": torch.zeros(1000)})[:-900], id="truncated zip"),
        pytest.param(saved({"w": torch.zeros(1000)}, _use_new_zipfile_serialization=False)[:-900], id="truncated"),
        pytest.param(saved([1, 2, 3]), id="no names"),
        pytest.param(saved({"epoch": 3}), id="no tensors"),
        pytest.param((100).to_bytes(8, "little") + b'{"a": 1', id="truncated safetensors"),
    ],
)
def test_what_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    mark = Path("/tmp/pipeline_lib_was_here")
    mark.unlink(missing_ok=True)
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"file\.pth"):
        read_checkpoint(tmp_path / "file.pth")
    assert not mark.exists()


def test_tensorflows_own_files_are_answered_with_the_way_to_npz(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt.index").write_bytes(b"anything")
    with pytest.raises(UserError, match=r"numpy\.savez"):
        read_checkpoint(tmp_path / "model.ckpt.index")
    with pytest.raises(UserError, match="no such file"):
        read_checkpoint(tmp_path / "absent.pth")
    # A name with digits is compared with the file's before the file is read.
    with pytest.raises(UserError, match="no such file"):
        check_digest(tmp_path / "s3d-d76dad2f.pth")


def test_torchs_older_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "old.pth").write_bytes(saved({"w": torch.arange(3.0)}, _use_new_zipfile_serialization=False))
    assert read_checkpoint(tmp_path / "old.pth")["w"].tolist() == [0, 1, 2]


def test_a_cut_download_is_noticed_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "s3d-d76dad2f.pth").write_bytes(b"half")
    with pytest.raises(UserError, match="d76dad2f"):
        check_digest(tmp_path / "s3d-d76dad2f.pth")
