"""What artefacts say of how they were made, and the digests of what they hold."""

import json
from pathlib import Path

import h5py
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipeline_lib.artefacts.digest import file_digest
from pipeline_lib.artefacts.records import (
    ContentDigest,
    content_digest,
    contents_digest,
    make_record,
    read_record,
    torch_versions,
)
from pipeline_lib.artefacts.sealing import DamageError, sealed
from pipeline_lib.training.weights import save_weights

MODULES = ["pipeline_lib.artefacts.digest"]


def test_versions_name_cuda_where_it_computes() -> None:
    assert torch_versions("cpu") == {"torch": str(torch.__version__)}
    assert torch_versions("cuda") == {
        "torch": str(torch.__version__),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
    }


def test_what_stands_beside_a_record_does_not_change_its_digest() -> None:
    record = make_record("test", MODULES, {"rate": 1}, {"frames/a/b/*.h5": "c"}, {"torch": "2"}, {"manifests/a": "m"})
    assert set(record) == {
        "stage", "library", "python", "code", "parameters", "inputs", "versions", "digest", "beside",
    }  # fmt: skip
    other = make_record("test", MODULES, {"rate": 1}, {"frames/a/b/*.h5": "c"}, {"torch": "2"}, {"manifests/a": "n"})
    assert other["digest"] == record["digest"] and other["beside"] != record["beside"]
    for changed in (
        make_record("test", MODULES, {"rate": 2}, {"frames/a/b/*.h5": "c"}, {"torch": "2"}),
        make_record("test", MODULES, {"rate": 1}, {"frames/a/b/*.h5": "d"}, {"torch": "2"}),
        make_record("test", MODULES, {"rate": 1}, {"frames/a/b/*.h5": "c"}, {"torch": "3"}),
        make_record("test", ["pipeline_lib.flow.flow_edges"], {"rate": 1}, {"frames/a/b/*.h5": "c"}, {"torch": "2"}),
    ):
        assert changed["digest"] != record["digest"]


def _write(path: Path, record: dict[str, object]) -> None:
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file.attrs["provenance"] = json.dumps(sealed(record))
    elif path.suffix == ".parquet":
        pq.write_table(
            pa.table({"id": ["a"]}).replace_schema_metadata({"provenance": json.dumps(sealed(record))}), path
        )
    elif path.suffix == ".json":
        path.write_text(json.dumps(sealed({"provenance": record, "dataset": "x"})))
    elif path.suffix == ".html":
        text = json.dumps(record)
        path.write_text(f'<html><script type="application/json" id="provenance">{text}</script></html>')
    else:
        save_weights(path, {"w": torch.zeros(2)}, {"provenance": record})


@pytest.mark.parametrize("name", ["a.h5", "a.parquet", "a.json", "a.html", "a.safetensors"])
def test_every_kind_of_artefact_gives_its_record_back(tmp_path: Path, name: str) -> None:
    record = {"digest": "d", "stage": "test", "content": "c"}
    _write(tmp_path / name, record)
    found = read_record(tmp_path / name)
    assert found is not None
    # The digest of a weights file's content is of its tensors, whatever it was told.
    assert content_digest(tmp_path / name) == found["content"]
    assert found | {"content": "c"} == record
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:20])
    assert read_record(tmp_path / name) is None
    with pytest.raises(DamageError, match=f"{name} is damaged: it cannot be read"):
        content_digest(tmp_path / name)
    (tmp_path / name).unlink()
    assert read_record(tmp_path / name) is None
    with pytest.raises(OSError):
        content_digest(tmp_path / name)


def test_a_record_in_a_data_set_of_an_hdf5_file_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("provenance", data=json.dumps(sealed({"digest": "d" * 70000})))
    assert read_record(tmp_path / "a.h5") == {"digest": "d" * 70000}


def test_the_content_of_weights_is_their_tensors_and_what_a_follower_reads(tmp_path: Path) -> None:
    def content(name: str, tensor: torch.Tensor, **metadata: object) -> str:
        record = {"digest": name, "stage": "train"}
        save_weights(tmp_path / name, {"w": tensor}, {"provenance": record, **metadata})
        return content_digest(tmp_path / name)

    first = content("a.safetensors", torch.zeros(2), classes=["x"], specification={"seed": 1, "model": {"name": "s"}})
    # Another way to the same weights leaves what was made from them alone.
    again = content("b.safetensors", torch.zeros(2), classes=["x"], specification={"seed": 2, "model": {"name": "s"}})
    assert first == again
    assert file_digest(tmp_path / "a.safetensors") != file_digest(tmp_path / "b.safetensors")
    for name, tensor, metadata in (
        ("c.safetensors", torch.ones(2), {"classes": ["x"], "specification": {"model": {"name": "s"}}}),
        ("d.safetensors", torch.zeros(2), {"classes": ["y"], "specification": {"model": {"name": "s"}}}),
        ("e.safetensors", torch.zeros(2), {"classes": ["x"], "specification": {"model": {"name": "t"}}}),
        ("f.safetensors", torch.zeros(1, 2), {"classes": ["x"], "specification": {"model": {"name": "s"}}}),
    ):
        assert content(name, tensor, **metadata) != first, name


def test_several_artefacts_have_the_digest_of_their_contents_by_name(tmp_path: Path) -> None:
    paths = [tmp_path / "000.h5", tmp_path / "001.h5"]
    for number, path in enumerate(paths):
        _write(path, {"content": str(number)})
    assert content_digest(paths[1]) == "1"
    both = contents_digest(paths)
    assert both == contents_digest(paths[::-1])
    _write(paths[1], {"content": "2"})
    assert contents_digest(paths) != both


def test_a_content_digest_tells_names_and_borders_apart() -> None:
    def of(*parts: tuple[str, tuple[bytes, ...]]) -> str:
        content = ContentDigest()
        for name, pieces in parts:
            content.add(name, *pieces)
        return content.hexdigest()

    assert of(("a", (b"xy",))) == of(("a", (b"x", b"y")))
    values = [
        of(("a", (b"xy",)), ("b", (b"",))),
        of(("a", (b"x",)), ("b", (b"y",))),
        of(("b", (b"xy",)), ("a", (b"",))),
    ]
    assert len(set(values)) == 3
