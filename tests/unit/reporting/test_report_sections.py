"""The sections of the report: motion, mistakes, costs beside the page, and curves."""

import base64
import json
import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import simplejpeg
from report_tree import SPECIFICATION, copy_folder, text_of

from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.artefacts.records import read_record
from pipeline_lib.artefacts.sealing import write_sealed_json
from pipeline_lib.media.shards import Shard
from pipeline_lib.reporting.collect import Curve, collect, read_curve
from pipeline_lib.reporting.compare import compare
from pipeline_lib.reporting.costs import costs, costs_text
from pipeline_lib.reporting.figures import smoothed, training_accuracy, training_curves
from pipeline_lib.reporting.flow_pictures import colour_wheel_picture, galleries, motion_picture
from pipeline_lib.reporting.mistake_pictures import NUM_MISTAKES, mistake_galleries
from pipeline_lib.reporting.report import page, write_report
from pipeline_lib.tasks.classification.mistakes import confident_mistakes, recognised
from pipeline_lib.tasks.classification.scores import ScoreFile


def test_flow_pictures_show_the_stored_flow(tree: Layout) -> None:
    (gallery,) = galleries(collect(SPECIFICATION, tree.root))
    assert len(gallery.strips) == 4
    assert len({strip.labels for strip in gallery.strips}) == 3
    strip = next(strip for strip in gallery.strips if strip.id == "v08")
    # u = 18 and v = −20 of 127 steps to 20 px.
    assert strip.longest == pytest.approx(np.hypot(18, 20) * 20 / 127, rel=0.02)
    right = motion_picture(np.stack([np.full((4, 4), 5.0), np.zeros((4, 4))]), 5.0)
    assert right[0, 0].tolist() == pytest.approx([255, 0, 0], abs=12)
    assert colour_wheel_picture().uri.startswith("data:image/png;base64,")


def test_without_shards_there_are_no_pictures_but_a_page(tree: Layout, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "copy")
    for folder in ("manifests", "evaluations", "experiments"):
        copy_folder(tree, layout, folder)
    content = page(collect(SPECIFICATION, layout.root))
    assert 'id="motion"' not in content
    assert "d3d" in content


def wrong_videos(path: Path) -> list[tuple[float, str, str, str]]:
    """Confidence (negative), id, truth and prediction of the mistakes of a score file, read with h5py alone."""
    with h5py.File(path) as file:
        logits, video = file["clips/logits"][:].astype(np.float64), file["clips/video"][:]
        classes, ids = json.loads(file["classes"].asstr()[()]), file["videos/id"].asstr()[:]
        labels = file["videos/label_indices"][:]
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares = exponents / exponents.sum(axis=1, keepdims=True)
    found = []
    for row, id in enumerate(ids):
        mean = shares[video == row].mean(axis=0)
        if mean.argmax() != labels[row]:
            found.append((-mean.max(), id, classes[labels[row]], classes[mean.argmax()]))
    return sorted(found)


def test_the_most_confident_mistakes_are_shown_with_pictures(tree: Layout, tmp_path: Path) -> None:
    report = collect(SPECIFICATION, tree.root)
    comparisons = compare(report)
    (gallery,) = mistake_galleries(report, comparisons)
    scores = tree.scores("d3d", "1", "0", "two_clips")
    wrong = wrong_videos(scores)
    assert wrong and gallery.result.name == "d3d" and gallery.run == "1-0"
    assert (gallery.found.num_wrong, gallery.found.num_videos) == (len(wrong), 8)
    shown = [(one.mistake.id, one.mistake.truth, one.mistake.prediction) for one in gallery.shown]
    assert shown == [entry[1:] for entry in wrong][:NUM_MISTAKES]
    np.testing.assert_allclose([one.mistake.confidence for one in gallery.shown], [-entry[0] for entry in wrong])
    for name in ("baseline", "teacher", "rgb_flow"):
        missed = {entry[1] for entry in wrong_videos(tree.scores(name, "1", "0", "two_clips"))}
        for one in gallery.shown:
            assert (name in one.recognised_by) == (one.mistake.id not in missed), (name, one.mistake.id)
    assert confident_mistakes(ScoreFile(scores), 1).most_confident == [gallery.shown[0].mistake]
    assert recognised(ScoreFile(scores), ["unknown", wrong[0][1]]) == set()

    # The middle picture is the video's middle frame.
    one = gallery.shown[0]
    number, middle = one.moments[1]
    assert one.shard is not None
    shard = Shard(one.shard)
    row = shard.index[one.mistake.id]
    assert number == (shard.videos[row].num_frames - 1) // 2
    stored = simplejpeg.decode_jpeg(shard.read(row, number, number + 1)[0], colorspace="RGB")
    shard.close()
    drawn = simplejpeg.decode_jpeg(base64.b64decode(middle.uri.partition(",")[2]), colorspace="RGB")
    enlarged = cv2.resize(stored, (middle.width, middle.height), interpolation=cv2.INTER_CUBIC)
    assert np.abs(drawn.astype(int) - enlarged).mean() < 6

    # The page names what it read for them, and without frames it shows the list and says why.
    write_report(SPECIFICATION, tree.root, tmp_path / "demo.html")
    content = (tmp_path / "demo.html").read_text("utf-8")
    record = read_record(tmp_path / "demo.html")
    assert record is not None and middle.uri in content and "no longer on the disk" not in content
    assert {tree.key(one.shard) for one in gallery.shown if one.shard} <= set(record["inputs"])
    copy = Layout(tmp_path / "copy")
    for folder in ("manifests", "evaluations", "experiments"):
        copy_folder(tree, copy, folder)
    without = collect(SPECIFICATION, copy.root)
    bare = text_of(page(without, mistakes=mistake_galleries(without, compare(without))))
    assert "There are no pictures, because the frames of the videos are no longer on the disk." in bare
    assert f"taken for {wrong[0][3]} {-100 * wrong[0][0]:.1f} % is {wrong[0][2]}" in bare


def test_costs_are_beside_the_page_and_never_in_it(tree: Layout, tmp_path: Path) -> None:
    layout = Layout(shutil.copytree(tree.root, tmp_path / "output"))
    output = layout.report("demo")

    def write_sidecars(seconds: float) -> None:
        for seed in (0, 1):
            figures = {
                "seconds": {"forward": 3.0, "validation": 1.0}, "training_seconds": seconds * (1 + seed),
                "device": "cuda:0", "processes": 2, "peak_gigabytes": 3.5 + seed,
            }  # fmt: skip
            sidecar = {"gpu": "NVIDIA H100", "seconds": 1.0, "figures": figures}
            weights = layout.weights("baseline", "1", str(seed))
            write_sealed_json(weights.with_name("weights.safetensors.run.json"), sidecar)
        figures = {"device": "cpu", "processes": 2}
        weights = layout.weights("d3d", "1", "0")
        write_sealed_json(weights.with_name("weights.safetensors.run.json"), {"seconds": 90, "figures": figures})

    write_sidecars(60.0)
    write_report(SPECIFICATION, layout.root, output)
    rows = {row.name: row for row in costs(collect(SPECIFICATION, layout.root))}
    # Two runs of 60 and 120 seconds on two GPUs are 360 seconds of one.
    assert rows["baseline"].hours == pytest.approx(0.1)
    assert " ".join(rows["baseline"].cells[:7]) == "baseline 2 1:30 min 2 × NVIDIA H100 0.1 GPU h 4.5 GiB 25.0 %"
    assert rows["d3d"].cells[2:6] == ("1:30 min", "2 CPU threads", "0.05 core h", "–")
    assert rows["teacher"].cells[1:6] == ("0 of 1", "–", "–", "–", "–")
    assert rows["rgb_flow"].cells[1] == "–" and rows["rgb_flow"].evaluation_seconds is not None
    beside = output.with_name("demo.cost.html")
    first, shown = output.read_bytes(), text_of(beside.read_text("utf-8"))
    assert "demo.cost.html" in text_of(first.decode()) and "H100" not in first.decode()
    assert "baseline 2 1:30 min 2 × NVIDIA H100 0.1 GPU h 4.5 GiB 25.0 %" in shown
    assert "0.1 GPU h" in costs_text(collect(SPECIFICATION, layout.root))
    write_sidecars(6000.0)
    output.unlink()
    write_report(SPECIFICATION, layout.root, output)
    assert output.read_bytes() == first
    assert "2:30 h 2 × NVIDIA H100 10 GPU h" in text_of(beside.read_text("utf-8"))


def test_curves_show_the_validation_and_no_empty_panel(tmp_path: Path) -> None:
    def curve(*lines: dict[str, float]) -> Curve:
        (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        found = read_curve(tmp_path / "log.jsonl", "")
        assert found is not None
        return found

    steps = [{"step": n, "rate": 0.1, "total": 1 / n, "top1": n / 9} for n in range(1, 9)]
    judged = [{"step": n, "validation_loss": 2 / n, "validation_top1": n / 10} for n in (4, 8)]
    full, short = curve(*steps, *judged), curve({"step": 1, "total": 2.0, "rate": 0.1, "top1": 0.5})
    drawn = training_curves({"whole": [full], "one_line": [short]})
    assert drawn is not None and "validation" in drawn and ">whole<" in drawn and "one_line" not in drawn
    assert "validation" not in str(training_curves({"whole": [curve(*steps)]}))
    assert training_curves({"one_line": [short]}) is None and training_curves({}) is None
    accuracy = training_accuracy({"whole": [full], "one_line": [short]}, "validation_top1", "validation videos, %")
    assert accuracy is not None and "whole" in accuracy and "one_line" not in accuracy
    assert training_accuracy({"one_line": [short]}, "top1", "training clips, %") is None


def test_a_training_log_becomes_a_curve(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "total": 2.0}\n{"step": 2, "total": 1.0, "logits_mse": 0.5}\n')
    curve = read_curve(path, "")
    assert curve is not None
    assert curve.steps.tolist() == [1, 2]
    assert curve.values["total"].tolist() == [2.0, 1.0]
    assert np.isnan(curve.values["logits_mse"][0])
    assert read_curve(tmp_path / "absent.jsonl", "") is None


def test_smoothing_is_a_moving_mean() -> None:
    values = np.array([1.0, 2.0, 3.0, np.nan, 5.0])
    np.testing.assert_allclose(smoothed(values, 3), [1.5, 2.0, 2.5, 4.0, 5.0])
    np.testing.assert_allclose(smoothed(values[:3], 1), values[:3])
