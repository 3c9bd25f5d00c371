"""Figures against scikit-learn, scipy and closed forms."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from sklearn import metrics as reference
from whole_scores import replaced, whole

from pipeline_lib.errors import UserError
from pipeline_lib.tasks.classification import combination, comparison, metrics
from pipeline_lib.tasks.classification import scores as score_files
from pipeline_lib.tasks.classification.metrics import (
    Evaluation,
    expected_calibration_error,
    hits,
    log_softmax,
    softmax,
    wilson_interval,
)
from pipeline_lib.tasks.classification.scores import (
    Clips,
    LabelledVideo,
    MemoryScores,
    ScoreFile,
    Scores,
    label_indices,
    pieces,
    same_clips,
)


def random_scores(
    seed: int, num_videos: int = 60, num_classes: int = 7, clips: int = 3, labels: str = "same", signal: float = 1.0
) -> Scores:
    generator = np.random.default_rng(seed)
    names = tuple(f"class {index}" for index in range(num_classes))
    truth = np.random.default_rng(99 if labels == "same" else seed).integers(num_classes, size=num_videos)
    videos = tuple(LabelledVideo(f"v{row:04d}", "validation", (names[truth[row]],)) for row in range(num_videos))
    video = np.repeat(np.arange(num_videos, dtype=np.int32), clips)
    logits = generator.normal(size=(num_videos * clips, num_classes)).astype(np.float32) * 2
    logits[np.arange(len(video)), truth[video]] += signal
    starts = np.tile(np.arange(clips, dtype=np.int64) * 8, num_videos)
    record = {"inputs": {"manifests/x/summary.json": "m" * 64}}
    return MemoryScores(videos, names, Clips(video, starts, np.zeros(len(video), np.int8), logits), record)


def combine(members: dict[str, Scores], folder: Path) -> ScoreFile:
    files = {name: folder / f"{name}.h5" for name in members}
    for name, scores in members.items():
        score_files.write_scores(
            files[name], scores.videos, scores.classes, scores.counts, pieces(scores), scores.record
        )
    combination.combine(files, folder / "scores.h5", {})
    return ScoreFile(folder / "scores.h5")


def truth_of(scores: Scores) -> np.ndarray:
    return np.array([labels[0] for labels in label_indices(scores)])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), num_classes=st.integers(2, 12), clips=st.integers(1, 4))
def test_accuracies_equal_scikit_learn(seed: int, num_classes: int, clips: int) -> None:
    scores = random_scores(seed, num_classes=num_classes, clips=clips)
    evaluation = Evaluation(scores)
    truth = truth_of(scores)
    mean = special.softmax(whole(scores).logits.astype(float), axis=1).reshape(-1, clips, num_classes).mean(axis=1)
    labels = np.arange(num_classes)
    assert evaluation.video_top1 == pytest.approx(reference.accuracy_score(truth, mean.argmax(axis=1)))
    if num_classes > 5:
        expected = reference.top_k_accuracy_score(truth, mean, k=5, labels=labels)
        assert evaluation.video_top5 == pytest.approx(expected)
    assert evaluation.clip_top1 == pytest.approx(
        reference.accuracy_score(np.repeat(truth, clips), whole(scores).logits.argmax(axis=1))
    )
    present = np.unique(truth)
    recall = reference.recall_score(truth, mean.argmax(axis=1), labels=present, average="macro", zero_division=0)
    assert evaluation.mean_class_accuracy == pytest.approx(recall)
    matrix = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(matrix, (truth, mean.argmax(axis=1)), 1)
    np.testing.assert_array_equal(evaluation.confusion, matrix)
    assert evaluation.log_likelihood == pytest.approx(reference.log_loss(truth, mean, labels=labels), rel=1e-6)


def test_pieces_do_not_change_a_figure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, second = random_scores(1, clips=3), random_scores(2, clips=3)
    figures, clip_top1, probabilities = (
        Evaluation(first).summary(),
        Evaluation(first).clip_top1,
        whole(first).video_probabilities,
    )
    combined = whole(combine({"a": first, "b": second}, tmp_path))
    for module in (metrics, score_files):
        monkeypatch.setattr(module, "CLIPS_AT_A_TIME", 7)
    np.testing.assert_array_equal(whole(first).video_probabilities, probabilities)
    assert Evaluation(first).summary() == figures
    assert Evaluation(first).clip_top1 == clip_top1
    np.testing.assert_array_equal(whole(combine({"a": first, "b": second}, tmp_path)).logits, combined.logits)


def test_ties_are_broken_by_the_class_order() -> None:
    scores = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    assert hits(scores, [[1], [2]], 1).tolist() == [False, False]
    assert hits(scores, [[0], [1]], 1).tolist() == [True, True]
    assert hits(scores, [[1], [0, 2]], 2).tolist() == [True, True]
    assert hits(scores, [[2], [0]], 9).tolist() == [True, True]


def test_the_video_score_averages_probabilities_not_logits() -> None:
    # Two clips vote mildly for class 1, one is sure of class 0: the mean of the logits says 0, that of softmax 1.
    scores = random_scores(0, num_videos=1, num_classes=2, clips=3)
    logits = np.array([[0, 2.0], [0, 2.0], [30.0, 0]], dtype=np.float32)
    scores = replaced(scores, logits=logits)
    assert logits.mean(axis=0).argmax() == 0
    assert Evaluation(scores).predictions.tolist() == [1]


def test_several_labels_count_once_when_one_is_hit() -> None:
    videos = (LabelledVideo("a", "validation", ("x", "y")), LabelledVideo("b", "validation", ("z",)))
    logits = np.array([[0, 5, 0], [0, 5, 0]], dtype=np.float32)
    clips = Clips(np.array([0, 1]), np.zeros(2, int), np.zeros(2, np.int8), logits)
    scores = MemoryScores(videos, ("x", "y", "z"), clips, {})
    evaluation = Evaluation(scores)
    assert evaluation.video_top1 == 0.5
    assert [entry.accuracy for entry in evaluation.per_class] == [0.0, 1.0, 0.0]
    assert evaluation.confusion.tolist() == [[0, 1, 0], [0, 1, 0], [0, 1, 0]]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), bins=st.integers(1, 20))
def test_calibration_error_equals_its_definition(seed: int, bins: int) -> None:
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(0, 1, size=200)
    correct = generator.uniform(size=200) < confidence
    expected = 0.0
    for index in range(bins):
        inside = (confidence > index / bins) & (confidence <= (index + 1) / bins)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(confidence, correct, bins) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("correct", "trials"), [(0, 10), (7, 10), (160, 160), (83, 160)])
def test_the_interval_holds_the_shares_that_a_score_test_does_not_reject(correct: int, trials: int) -> None:
    low, high = wilson_interval(correct, trials)
    for bound in {low, high} - {0.0, 1.0}:
        distance = abs(correct / trials - bound) / np.sqrt(bound * (1 - bound) / trials)
        assert distance == pytest.approx(stats.norm.ppf(0.975))
    assert (low == 0.0) == (correct == 0) and (high == 1.0) == (correct == trials)


def test_softmax_survives_large_logits() -> None:
    logits = np.array([[1e4, 0.0, -1e4]], dtype=np.float32)
    np.testing.assert_allclose(softmax(logits), [[1, 0, 0]])
    np.testing.assert_allclose(log_softmax(logits), special.log_softmax(logits.astype(float), axis=1))


def test_bootstrap_agrees_with_scipy_and_covers_the_normal_interval() -> None:
    values = np.random.default_rng(1).choice([-1.0, 0.0, 1.0], p=[0.1, 0.6, 0.3], size=400)
    ours, theirs = np.maximum(values, 0)[None], np.maximum(-values, 0)[None]
    low, high = comparison.bootstrap_difference(ours, theirs, True)
    expected = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", random_state=2)
    assert low == pytest.approx(expected.confidence_interval.low, abs=0.008)
    assert high == pytest.approx(expected.confidence_interval.high, abs=0.008)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)
    assert comparison.bootstrap_difference(ours, theirs, True) == (low, high)


def test_paired_difference_is_the_difference_of_the_accuracies() -> None:
    first, second = random_scores(1, signal=3.0), random_scores(2, signal=0.5)
    result = comparison.paired_difference([first], [second])
    assert result.mean == pytest.approx(Evaluation(first).video_top1 - Evaluation(second).video_top1)
    assert result.low < result.mean < result.high
    assert result.low > 0
    same = comparison.paired_difference([first, second], [first, second])
    assert (same.mean, same.low, same.high) == (0, 0, 0)


def test_several_runs_count_in_the_difference_and_in_its_interval() -> None:
    # Three runs that differ much from each other, on many videos: what is left is the variance over runs.
    random = np.random.default_rng(0)
    shares = [0.2, 0.5, 0.8]
    ours = np.stack([random.random(20_000) < share for share in shares]).astype(float)
    theirs = np.zeros((1, 20_000))
    low, high = comparison.bootstrap_difference(ours, theirs, False)
    # 27 equally likely draws of three runs: the least (all the first) has 1/27 > 2.5 %.
    assert (low, high) == pytest.approx((0.2, 0.8), abs=0.02)
    paired = comparison.bootstrap_difference(ours, np.clip(ours - 0.1, 0, None), True)
    apart = comparison.bootstrap_difference(ours, np.clip(ours - 0.1, 0, None), False)
    assert paired[1] - paired[0] < (apart[1] - apart[0]) / 3
    one = comparison.bootstrap_difference(ours[:1], theirs, True)
    assert one[1] - one[0] < 0.02


def test_the_difference_is_that_of_the_means_over_all_runs() -> None:
    runs = [random_scores(seed, signal=signal) for seed, signal in ((1, 3.0), (2, 1.0), (3, 0.5))]
    result = comparison.paired_difference(runs[:1], runs[1:], paired=False)
    accuracies = [Evaluation(one).video_top1 for one in runs]
    assert result.mean == pytest.approx(accuracies[0] - np.mean(accuracies[1:]))
    assert (result.num_first, result.num_second) == (1, 2)
    assert result.over == "videos and the 2 training runs of one; one run of the other"
    with pytest.raises(ValueError, match="1 runs beside 2"):
        comparison.paired_difference(runs[:1], runs[1:])


def test_pairing_is_narrower_than_independent_samples() -> None:
    # Two networks that agree on nearly all videos: pairing removes what they share.
    first = random_scores(3, num_videos=400, signal=1.0)
    logits = whole(first).logits.copy()
    logits[:30] = 0
    second = replaced(first, logits=logits)
    result = comparison.paired_difference([first], [second])
    share = Evaluation(first).video_top1
    assert result.high - result.low < 2 * 1.96 * np.sqrt(2 * share * (1 - share) / 400) / 2


def test_different_manifests_are_refused(tmp_path: Path) -> None:
    first, second = random_scores(1), random_scores(2)
    other = replaced(second, record={"inputs": {"manifests/x/summary.json": "n" * 64}})
    with pytest.raises(UserError, match="different manifests"):
        comparison.paired_difference([first], [other])
    with pytest.raises(UserError, match="different manifests"):
        combine({"a": first, "b": other}, tmp_path)


def without(scores: Scores, lacking: set[str]) -> MemoryScores:
    """The scores of the other videos, computed apart from the library."""
    kept = [row for row, video in enumerate(scores.videos) if video.id not in lacking]
    clips = whole(scores)
    chosen = np.isin(clips.video, kept)
    new = {row: place for place, row in enumerate(kept)}
    video = np.array([new[row] for row in clips.video[chosen].tolist()], np.int32)
    columns = (clips.starts[chosen], clips.crops[chosen], clips.logits[chosen])
    return MemoryScores([scores.videos[row] for row in kept], scores.classes, Clips(video, *columns), scores.record)


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(0, 59), max_size=30), st.sets(st.integers(0, 59), max_size=28))
def test_an_ensemble_and_a_difference_take_the_videos_that_all_have(
    first_lacks: set[int], second_lacks: set[int]
) -> None:
    first, second = random_scores(1), random_scores(2)
    lacks = [{f"v{row:04d}" for row in rows} for rows in (first_lacks, second_lacks)]
    one, other = without(first, lacks[0]), without(second, lacks[1])
    common = [without(scores, lacks[0] | lacks[1]) for scores in (first, second)]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "whole").mkdir()
        found = combine({"a": one, "b": other}, Path(folder))
        expected = combine(dict(zip("ab", common, strict=True)), Path(folder) / "whole")
        assert found.videos == expected.videos
        np.testing.assert_array_equal(whole(found).logits, whole(expected).logits)
        np.testing.assert_array_equal(whole(found).video, whole(expected).video)
    assert comparison.paired_difference([one], [other]) == comparison.paired_difference(*([each] for each in common))


@given(st.sets(st.integers(0, 59), min_size=1), st.integers(0, 179), st.integers(0, 179))
def test_some_videos_are_read_from_any_place(kept: set[int], a: int, b: int) -> None:
    scores = random_scores(1)
    expected = without(scores, {f"v{row:04d}" for row in set(range(60)) - kept})
    some = score_files.SomeVideos(scores, {f"v{row:04d}" for row in kept})
    first, last = sorted(min(place, 3 * len(kept)) for place in (a, b))
    for ours, theirs in zip(some.read(first, last), expected.read(first, last), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_no_common_video_is_an_error(tmp_path: Path) -> None:
    first, second = random_scores(1), random_scores(2)
    one = without(first, {f"v{row:04d}" for row in range(30)})
    other = without(second, {f"v{row:04d}" for row in range(30, 60)})
    with pytest.raises(UserError, match="no video in common"):
        combine({"a": one, "b": other}, tmp_path)


def test_per_class_differences_add_up() -> None:
    first, second = random_scores(1, signal=3.0), random_scores(2, signal=0.5)
    rows = comparison.per_class_differences([first], [second])
    weights = np.array([row.num_videos for row in rows])
    total = (np.array([row.difference for row in rows]) * weights).sum() / weights.sum()
    assert total == pytest.approx(Evaluation(first).video_top1 - Evaluation(second).video_top1)
    assert [row.difference for row in rows] == sorted((row.difference for row in rows), reverse=True)
    table = {entry.name: entry.accuracy for entry in Evaluation(first).per_class}
    assert all(table[row.name] == pytest.approx(row.first) for row in rows)


def test_distance_equals_scipy() -> None:
    student, teacher = random_scores(1), random_scores(2)
    distance = comparison.student_teacher_distance(student, teacher)
    ours, theirs = (special.softmax(whole(s).logits.astype(float), axis=1) for s in (student, teacher))
    assert distance.kl == pytest.approx(stats.entropy(theirs, ours, axis=1).mean())
    assert distance.mse == pytest.approx(
        reference.mean_squared_error(whole(student).logits, whole(teacher).logits), rel=1e-5
    )
    assert distance.agreement == pytest.approx(np.mean(ours.argmax(axis=1) == theirs.argmax(axis=1)))
    assert comparison.student_teacher_distance(teacher, teacher).kl == pytest.approx(0, abs=1e-12)


def test_ensemble_is_the_mean_of_softmax(tmp_path: Path) -> None:
    first, second = random_scores(1), random_scores(2)
    ensemble = combine({"a": first, "b": second}, tmp_path)
    expected = np.mean([special.softmax(whole(one).logits.astype(float), 1) for one in (first, second)], axis=0)
    np.testing.assert_allclose(softmax(whole(ensemble).logits), expected, atol=1e-6)
    assert same_clips(ensemble, first)
    videos = (whole(first).video_probabilities + whole(second).video_probabilities) / 2
    np.testing.assert_allclose(whole(ensemble).video_probabilities, videos, atol=1e-6)


def test_ensemble_of_different_clips_and_class_orders(tmp_path: Path) -> None:
    first, second = random_scores(1, clips=3), random_scores(2, clips=2)
    order = np.argsort([5, 3, 0, 1, 6, 2, 4])
    classes = tuple(second.classes[i] for i in order)
    shuffled = replaced(second, classes=classes, logits=whole(second).logits[:, order])
    ensemble = combine({"a": first, "b": shuffled}, tmp_path)
    videos = (whole(first).video_probabilities + whole(second).video_probabilities) / 2
    np.testing.assert_allclose(whole(ensemble).video_probabilities, videos, atol=1e-6)
    assert whole(ensemble).starts.tolist() == [-1] * 60


def test_ensemble_of_sure_members_does_not_underflow(tmp_path: Path) -> None:
    first = random_scores(1, num_videos=1, num_classes=2, clips=1)
    sure = replaced(first, logits=np.array([[500.0, -500.0]], dtype=np.float32))
    ensemble = combine({"a": sure, "b": sure}, tmp_path)
    np.testing.assert_allclose(whole(ensemble).logits, [[0, -1000]])
    with pytest.raises(UserError, match="at least two"):
        combine({"a": sure}, tmp_path)


def test_an_unknown_label_is_refused() -> None:
    scores = random_scores(1, num_videos=1)
    other = replaced(scores, videos=(LabelledVideo("v0000", "validation", ("juggling",)),))
    with pytest.raises(UserError, match="'juggling'"):
        Evaluation(other)
