"""From a metric of a real run back to the annotation files, through every artefact's own record."""

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from small_project import Project

from pipeline_lib.artefacts.digest import file_digest
from pipeline_lib.artefacts.sealing import write_sealed_json
from pipeline_lib.manifests.shard_lists import read_shard_list, write_shard_list

METRICS = "output/evaluations/rgb_flow_demo/1-0/two_clips/metrics.json"


def provenance(project: Project, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pipeline_lib", "provenance", *arguments]
    done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def links(link: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield link
    for source in link["inputs"]:
        yield from links(source)


def test_a_metric_leads_to_the_annotation_files_and_a_change_is_told(finished: Project, project: Project) -> None:
    # The copy's sidecar names the lists where the original lies: the copy gets lists of its own.
    sidecar = project.output / "manifests/generated/summary.json.run.json"
    moved = json.loads(sidecar.read_text().replace(str(finished.folder), str(project.folder)))
    write_sealed_json(sidecar, moved)
    status, text = provenance(project, METRICS, "--json")
    chain = list(links(json.loads(text)))
    assert status == 0 and not [link for link in chain if link["state"]]
    found = {link["name"].split(" (")[0]: link for link in chain}
    # The two members, and what each was made from.
    for name in (
        "evaluations/rgb_flow_demo/1-0/two_clips/metrics.json",
        "evaluations/baseline_demo/1-0/two_clips/scores.h5",
        "evaluations/teacher_demo/1-0/two_clips/scores.h5",
        "experiments/baseline_demo/1-0/weights.safetensors",
        "experiments/teacher_demo/1-0/weights.safetensors",
        "motion/generated/short64_native/tvl1_small/*.h5",
        "frames/generated/short64_native/*.h5",
        "manifests/generated/summary.json",
    ):
        assert name in found, sorted(found)
    # The end of the chain is the user's own file.
    for file in ("train.csv", "validation.csv"):
        path = project.folder / "data" / file
        assert found[str(path)]["facts"] == [f"sha256 {file_digest(path)}"]

    manifest = json.loads((project.output / "manifests/generated/summary.json").read_text())
    summary = {"manifests/generated/summary.json": manifest["digest"]}
    for name, link in found.items():
        room = name.split("/")[0]
        if name.endswith("metrics.json") or "/shards/" in name or room == "":
            continue
        record = link["record"]
        assert len(record["code"]) == 64 and record["parameters"] and record["python"] and record["inputs"], name
        assert any(fact.startswith("made on ") and " UTC, in " in fact for fact in link["facts"]), (name, link["facts"])
        if room in ("experiments", "evaluations"):
            assert summary.items() <= (record["inputs"] | record["beside"]).items(), name
        if room in ("frames", "motion"):
            assert record["counts"]["videos"] > 0
        if room == "manifests":
            assert record["counts"] == manifest["status"]
    versions: dict[str, set[str]] = defaultdict(set)
    for name, link in found.items():
        versions[name.split("/")[0]] |= set(link["record"].get("versions", {}))
    assert "ffmpeg" in versions["frames"]
    assert {"av", "libavcodec"} <= versions["manifests"]
    for room in ("motion", "experiments", "evaluations"):
        assert {"torch", "opencv-contrib-python-headless"} <= versions[room], room

    # A student's weights lead on to its teacher's.
    status, text = provenance(project, METRICS.replace("rgb_flow_demo", "d3d_demo"))
    assert status == 0
    assert text.index("experiments/d3d_demo") < text.index("experiments/teacher_demo")
    assert manifest["digest"] in text and str(project.folder / "data/train.csv") in text

    # One edit of the annotations after the run: the chain says which file is not what it was.
    with open(project.folder / "data/train.csv", "a", encoding="utf-8") as file:
        file.write("data/train/another.mp4,left\n")
    status, text = provenance(project, METRICS)
    assert status == 1
    assert f"{project.folder / 'data/train.csv'}   !! changed since" in text
    # Another video in the manifest, made again alone: the frames and all that follows are of the earlier one.
    path = project.output / "manifests/generated/shards/001.json"
    write_shard_list(path, "generated", "001", read_shard_list(path)[1:])
    assert "manifests/generated/shards/*.json (2 files)   !! changed since: 001.json" in provenance(project, METRICS)[1]
    # A report leads to all that it shows.
    status, text = provenance(project, "output/report/demo.html")
    assert status == 1 and "evaluations/rgb_flow_demo/1-0/two_clips/scores.h5" in text
