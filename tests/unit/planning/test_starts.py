"""Imported first weights: what does not fit, and what cannot be fetched, is said before anything runs."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline_lib.downloads.reachability import unreachable
from pipeline_lib.errors import UserError
from pipeline_lib.models.importing import availability
from pipeline_lib.planning import starts
from pipeline_lib.planning.plan import Plan
from pipeline_lib.training.weights import load_metadata, save_weights

GOOGLENET = "torchvision/googlenet"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "unreachable", lambda host: "no network")
    starts._warn.cache_clear()


def starting(start: str, name: str = "baseline_demo", **more: Any) -> dict[str, Any]:
    return {"experiments": {name: {"start": start, **more}}}


def full(**options: Any) -> dict[str, Any]:
    """The demo's network at full width."""
    return {"name": "s3dg_slim", "options": {"depth_multiplier": 1.0, **options}}


def imported(plan: Plan, name: str, **metadata: Any) -> Path:
    path = plan.layout.imported(name)
    save_weights(path, {"stages.conv1.conv.weight": torch.zeros(1)}, metadata)
    return path


def test_a_public_source_is_compared_with_the_network_before_it_is_fetched(planned: Any) -> None:
    with pytest.raises(
        UserError, match=r"experiments\.baseline_demo\.start: .*norm_scale is True there and False here"
    ):
        planned(starting(GOOGLENET, model=full())).datasets_behind("baseline_demo")
    with pytest.raises(UserError, match=r"depth_multiplier is 1\.0 there and 0\.25 here"):
        planned(starting("imagenet")).datasets_behind("baseline_demo")
    with pytest.raises(UserError, match="no relative of an image network of the kind ResNet"):
        planned(starting("torchvision/resnet50", model=full())).datasets_behind("baseline_demo")
    with pytest.raises(UserError, match="modist_r50 is of another family than s3dg_slim"):
        planned(starting("maclr/slow_r50", model=full())).datasets_behind("baseline_demo")
    planned(starting(GOOGLENET, model=full(norm_scale=True))).datasets_behind("baseline_demo")
    planned(starting("imagenet", model=full())).datasets_behind("baseline_demo")


def test_what_starts_from_a_network_that_started_from_imagenet_has_its_scale(planned: Any) -> None:
    own = {"name": "s3dg_predicted_flow", "options": {"depth_multiplier": 1.0}}
    overlay = starting("imagenet", "teacher_demo", model=full())
    overlay["experiments"] |= starting("teacher_demo", model=own)["experiments"]
    plan = planned(overlay)
    plan.datasets_behind("baseline_demo")
    for name in ("teacher_demo", "baseline_demo"):
        assert plan.run(name).training.model.options["norm_scale"] is True
    assert plan.run("teacher_demo").first_weights == f"imported/{GOOGLENET}"


def test_a_file_that_is_there_is_judged_by_its_header(planned: Any, tmp_path: Path) -> None:
    plan = planned(starting("imported/mine", model=full()) | {"output": str(tmp_path / "output")})
    image = {"two_dimensional": True, "input": {"modality": "rgb"}}
    for model, words in (
        ({"name": "i2d", "options": {"norm_scale": True}}, "norm_scale is True there and False here"),
        ({"name": "i2d", "options": {"depth_multiplier": 0.5}}, "depth_multiplier is 0.5 there and 1.0 here"),
        ({"name": "resnet_50", "options": {}}, "no relative of an image network of the kind ResNet"),
        ({"name": "s3dg_old", "options": {}}, "s3dg_old, which is no network of this version"),
    ):
        imported(plan, "mine", model=model, **image)
        with pytest.raises(UserError, match=words):
            plan.datasets_behind("baseline_demo")
    imported(plan, "mine", model={"name": "i2d", "options": {}}, **image)
    plan.datasets_behind("baseline_demo")
    imported(plan, "mine", model={"name": "s3dg_slim", "options": {}}, input={"modality": "flow"})
    with pytest.raises(UserError, match="it sees flow, not rgb"):
        plan.datasets_behind("baseline_demo")
    path = imported(plan, "mine", model={"name": "s3dg_slim", "options": {}}, input={"modality": "rgb"})
    plan.datasets_behind("baseline_demo")
    assert starts.read_metadata(path) == load_metadata(path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(UserError, match=r"mine\.safetensors is damaged"):
        plan.datasets_behind("baseline_demo")


def test_the_switch_for_all_starts_is_the_key_that_is_named(planned: Any, tmp_path: Path) -> None:
    plan = planned(starting("imagenet", model=full()), changes={"start": "imported/mine", "output": str(tmp_path)})
    imported(plan, "mine", model={"name": "resnet_50", "options": {}}, two_dimensional=True)
    with pytest.raises(UserError, match=r"start: the weights of `imported/mine`") as caught:
        plan.datasets_behind("baseline_demo")
    assert "experiments.baseline_demo.start" not in str(caught.value)


def test_without_a_network_a_real_run_is_refused_with_three_ways_out(
    planned: Any, tmp_path: Path, offline: None, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = planned(starting("imagenet", model=full()) | {"output": str(tmp_path)})
    with pytest.raises(UserError) as caught:
        plan.check_fetchable("baseline_demo", is_dry=False)
    text = str(caught.value)
    for words in (
        "experiments.baseline_demo.start",
        "download.pytorch.org cannot be reached (no network)",
        "https://download.pytorch.org/models/googlenet-1378be20.pth",
        f"python -m pipeline_lib weights import torchvision/googlenet FILE --root {tmp_path}",
        "--config start=imported/NAME",
        "--config start=random",
    ):
        assert words in text
    for _ in range(2):
        plan.check_fetchable("baseline_demo", is_dry=True)
    assert capsys.readouterr().err.count("warning: experiments.baseline_demo.start") == 1
    # A target that does not need the file, a file that lies where it would be downloaded, and an imported one.
    plan.check_fetchable("teacher_demo", is_dry=False)
    place = plan.layout.public_checkpoints() / "googlenet-1378be20.pth"
    place.parent.mkdir(parents=True)
    place.touch()
    plan.check_fetchable("baseline_demo", is_dry=False)
    place.unlink()
    imported(plan, GOOGLENET, model={"name": "i2d", "options": {"norm_scale": True}}, two_dimensional=True)
    plan.check_fetchable("baseline_demo", is_dry=False)


def test_a_file_that_no_address_leads_to_is_said_to_be_absent(planned: Any, tmp_path: Path, offline: None) -> None:
    for start, words in (
        (
            "slim/inception_v1",
            "only a web page leads to them.*inception_v1_2016_08_28.*`start: imported/NAME` in the exp",
        ),
        ("imported/mine", r"mine\.safetensors is to be made: .*weights import SOURCE FILE --out"),
    ):
        plan = planned(starting(start, model=full()) | {"output": str(tmp_path)})
        with pytest.raises(UserError, match=words):
            plan.check_fetchable("baseline_demo", is_dry=False)


def test_one_message_names_all_that_read_an_absent_file(planned: Any, tmp_path: Path, offline: None) -> None:
    both = starting("imagenet", model=full())
    both["experiments"] |= starting("imagenet", "teacher_demo", model=full())["experiments"]
    plan = planned(both | {"output": str(tmp_path)})
    with pytest.raises(UserError) as caught:
        plan.check_fetchable("rgb_flow_demo", is_dry=False)
    assert "experiments.baseline_demo.start, experiments.teacher_demo.start: the weights" in str(caught.value)
    assert str(caught.value).count("three ways out") == 1


def test_a_file_of_an_older_version_is_to_be_imported_again(planned: Any, tmp_path: Path) -> None:
    plan = planned(starting("imported/mine", model=full()) | {"output": str(tmp_path)})
    imported(plan, "mine", model={"name": "s3dg_slim", "options": {"gating": True}})
    with pytest.raises(UserError, match=r"another version made it .*import it again"):
        plan.datasets_behind("baseline_demo")


def test_a_host_is_reached_through_the_proxy_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        unreachable.cache_clear()
        assert unreachable("weights.example.org") is None
    unreachable.cache_clear()
    assert "refused" in str(unreachable("weights.example.org"))
    unreachable.cache_clear()


def test_a_plan_imports_neither_torch_nor_torchvision() -> None:
    code = "import sys, pipeline_lib.planning.plan; print([m for m in ('torch', 'torchvision') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
