"""A power cut: the last writes of whatever can be continued come to the disk as zeros, cut, in parts, or not at all.

What continues after it ends with the bytes of an undisturbed run.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packed_set import PackedSet, make_packed_set, tiny_training

from pipeline_lib.artefacts.sealing import sealed
from pipeline_lib.configuration.data import Generated
from pipeline_lib.configuration.download import Download
from pipeline_lib.downloads.stage import run_download
from pipeline_lib.generation.stage import generate
from pipeline_lib.media.shards import ShardPart
from pipeline_lib.tasks.classification.scores import LabelledVideo, ScoresPart
from pipeline_lib.training.metrics_log import MetricsLog
from pipeline_lib.training.run import train
from pipeline_lib.training.saving import Saving

IDS = [f"v{number}" for number in range(6)]
QUIETLY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def cut(content: bytes, safe: int, data: st.DataObject) -> bytes:
    """What a power cut leaves of a file of which ``safe`` bytes are on the disk: zeros, a cut, a late part."""
    late = content[safe:]
    how = data.draw(st.sampled_from(["zero", "cut", "reorder", "nothing", "longer"]), label="how")
    middle = data.draw(st.integers(0, len(late)), label="where")
    if how == "zero":
        return content[: safe + middle] + bytes(len(late) - middle)
    if how == "reorder":
        return content[:safe] + bytes(middle) + late[middle:]
    if how == "longer":
        return content + bytes(4096)
    return content[: safe + middle] if how == "cut" else content[:safe]


def frames(final: Path, ids: Iterable[str], finish: bool) -> None:
    with ShardPart(final, "origin") as part:
        for id in ids:
            if id not in part.done:
                number = IDS.index(id)
                if number == 4:
                    part.reject(id, "torn")
                else:
                    part.append(id, [bytes([number, frame]) * 9 for frame in range(3 + number)], 4, 4, 25.0)
        if finish:
            part.finish({"stage": "test"}, IDS)


def scores(final: Path, ids: Iterable[str], finish: bool) -> None:
    with ScoresPart(final, "origin", 3) as part:
        for id in ids:
            if id not in part.done:
                logits = np.arange(6, dtype=np.float32).reshape(2, 3) + IDS.index(id)
                part.append(id, np.array([0, 5]), np.zeros(2, np.int8), logits)
        if finish:
            part.finish([LabelledVideo(id, "validation", ("a",)) for id in IDS], ("a", "b", "c"), {"stage": "test"})


@pytest.mark.parametrize("make", [frames, scores])
def test_parts_of_frames_motion_and_scores_go_on_to_the_same_bytes(
    make: Callable[[Path, Iterable[str], bool], None], tmp_path: Path
) -> None:
    make(tmp_path / "whole.h5", IDS, True)
    whole = (tmp_path / "whole.h5").read_bytes()

    @QUIETLY
    @given(st.data())
    def check(data: st.DataObject) -> None:
        with tempfile.TemporaryDirectory() as name:
            final = Path(name) / "whole.h5"
            num_safe = data.draw(st.integers(0, 5), label="items on the disk")
            make(final, IDS[:num_safe], False)
            folder = final.parent / ".whole.h5.part"
            safe = {file: (folder / file).stat().st_size for file in ("blob", "journal")}
            make(final, IDS[:5], False)
            for file, size in safe.items():
                path = folder / file
                path.write_bytes(cut(path.read_bytes(), size, data))
            make(final, IDS, True)
            assert final.read_bytes() == whole and not folder.exists()

    check()


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    return make_packed_set(tmp_path_factory.mktemp("set"), num_train=8, num_validation=4, num_shards=1)


def test_a_training_goes_on_from_any_ruin_of_its_checkpoints_and_log(
    packed: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specification = tiny_training(packed, recipe={"steps": 4, "checkpoint_steps": 1, "keep_checkpoints": 2})
    assert train(specification, packed.root, tmp_path / "whole", 0) == 0

    class LostPowerError(Exception):
        pass

    save = Saving.save

    def lose_power(self: Saving, step: int, *rest: object) -> None:
        save(self, step, *rest)  # type: ignore[arg-type]
        if step == 3:
            raise LostPowerError

    monkeypatch.setattr(Saving, "save", lose_power)
    with pytest.raises(LostPowerError):
        train(specification, packed.root, tmp_path / "cut", 0)
    monkeypatch.undo()
    last, log = "checkpoints/step_000000003.pt", "checkpoints/metrics.jsonl"
    size = (tmp_path / "cut" / last).stat().st_size
    ruins: dict[str, Callable[[bytes], bytes]] = {
        last: lambda content: content[: size // 2] + bytes(size - size // 2),
        log: lambda content: content[:30] + bytes(len(content) - 30),
    }
    for number, ruined in enumerate(((last,), (log,), (last, log))):
        folder = tmp_path / f"cut{number}"
        shutil.copytree(tmp_path / "cut", folder)
        for name in ruined:
            path = folder / name
            path.write_bytes(ruins[name](path.read_bytes()))
        if number == 2:
            # The header of the one before says another step: it is not believed either, and the training starts again.
            path = folder / "checkpoints/step_000000002.pt"
            path.write_bytes(path.read_bytes().replace(b'"step": 2', b'"step": 3', 1))
        assert train(specification, packed.root, folder, 0) == 0
        for name in ("weights.safetensors", "metrics.jsonl"):
            assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), (ruined, name)


@QUIETLY
@given(st.data())
def test_a_log_is_what_the_checkpoint_holds(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "metrics.jsonl"
        log = MetricsLog(path, None, b"", 0)
        log.write(1, {"total": 2.0}, {})
        held = log.flush()
        log.write(2, {"total": 1.0}, {})
        log.flush()
        path.write_bytes(cut(path.read_bytes(), 0, data))
        resumed = MetricsLog(path, None, held, 1)
        resumed.write(2, {"total": 1.5}, {})
        assert resumed.flush() == path.read_bytes()
        assert [json.loads(line) for line in path.read_text().splitlines()] == [
            {"step": 1, "total": 2.0},
            {"step": 2, "total": 1.5},
        ]


def test_a_generated_set_is_made_again_from_any_ruin(tmp_path: Path) -> None:
    small = Generated(num_train=3, num_validation=1, num_frames=4, short_side=32)
    generate("whole", small, tmp_path / "whole")

    def files(folder: Path) -> dict[str, bytes]:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.name[0] != "." and not path.name.endswith(".run.json")
        }

    for ruined in ("generated.json", "train.csv", "train/train_000000.mp4"):
        folder = tmp_path / f"ruin of {Path(ruined).name}"
        shutil.copytree(tmp_path / "whole", folder)
        # The mark of a finished set is written last; what came before it may be zeros.
        (folder / "generated.json").write_bytes(bytes(100))
        (folder / ruined).write_bytes(bytes(100))
        generate("again", small, folder)
        assert files(folder) == files(tmp_path / "whole")


@QUIETLY
@given(st.data())
def test_a_ledger_of_downloads_believes_whole_lines_alone(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        urls = [f"http://127.0.0.1:9/{id}.tar" for id in IDS]
        (folder / "urls.txt").write_text("\n".join(urls))
        (folder / "out").mkdir()
        lines = [
            f"\n{json.dumps(sealed({'key': f'{id}.tar', 'url': url, 'status': 'failed', 'cause': 'HTTP 404'}))}\n"
            for id, url in zip(IDS, urls, strict=True)
        ]
        content = "".join(lines).encode()
        num_safe = data.draw(st.integers(0, len(IDS)), label="lines on the disk")
        ruined = cut(content, len("".join(lines[:num_safe])), data)
        (folder / "out/outcomes.jsonl").write_bytes(ruined)
        download = Download.model_validate(
            {
                "kind": "archives", "destination": str(folder / "videos"), "urls": str(folder / "urls.txt"),
                "timeout_seconds": 0.1, "retries": 0, "workers": 1, "backoff_seconds": 0.001,
                "minimum_free_gigabytes": 0.0,
            }
        )  # fmt: skip
        # Nothing listens there: what the ledger does not hold is tried, and fails with another cause.
        summary = run_download("test", download, folder / "out/summary.json", str)
        told = {failure["path"]: failure["cause"] for failure in summary["failures"]}
        assert list(told) == [f"{id}.tar" for id in IDS]
        assert all(told[f"{id}.tar"] == "HTTP 404" for id in IDS[:num_safe])
        assert all(cause == "HTTP 404" or "attempts" in cause for cause in told.values())
