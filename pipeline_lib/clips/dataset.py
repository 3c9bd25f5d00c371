"""Batches of clips: of given requests, and for the global sample indices of a training.

Both give uint8 batches, decoded in worker processes; ``pipeline_lib.clips.batches.to_network_input`` flips and
normalises them on the device.
"""

import re
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline_lib.clips.augmentations import draw_erased, draw_mixture, rand_augment
from pipeline_lib.clips.colours import draw_colours
from pipeline_lib.clips.decoding import decode_frames, decode_motion, read_encoded
from pipeline_lib.clips.index import FLOW_STORED, ClipIndex, OpenShards
from pipeline_lib.clips.sampling import (
    AUGMENTATION,
    COLOURS,
    ClipRequest,
    epoch_order,
    generator,
    num_uniform,
    random_request,
)
from pipeline_lib.clips.transport import ReceivedBatches, shared
from pipeline_lib.configuration.training import Mixing, Sampling
from pipeline_lib.errors import UserError

Batch: TypeAlias = dict[str, torch.Tensor]


class ClipReader:
    """Reads the clips of requests as one batch. Workers get it cheaply, because each opens its shards when it reads.

    Args:
        index: the videos.
        modalities: ``rgb``, ``flow`` or both. Both share frames, crop and flip.
    """

    def __init__(self, index: ClipIndex, modalities: Sequence[str]) -> None:
        self.index = index
        self.modalities = tuple(modalities)
        self._shards = OpenShards()

    def read(self, requests: Sequence[ClipRequest], modalities: Sequence[str] | None = None) -> Batch:
        """The requests' clips; all must agree in ``num_frames`` and ``crop``.

        Args:
            requests: which clips.
            modalities: some of the reader's; None reads all.

        Returns:
            ``rgb`` uint8 (B, T, H, W, 3) and ``flow`` uint8 (B, T, H, W, C; 2 channels with zero at 128 if it
            is flow) if wanted, neither of them mirrored yet; ``flow_scale`` float32 (B, 2), factors of u and v;
            ``flow_stored`` int64 (2,), zero and scale of motion that is not flow; ``flip`` bool (B,);
            ``rgb_padding`` and ``flow_padding`` bool (B, T), frames that a clip has not (``past_end: pad``), only
            if there are any;
            ``labels`` int64 (B,);
            ``videos`` int64 (B,), rows of the index; ``samples`` int64 (B,).

        Raises:
            UserError: a shard is unreadable.
        """
        index = self.index
        num_frames, crop = requests[0].num_frames, requests[0].crop
        batch: dict[str, torch.Tensor] = {
            "labels": torch.tensor([request.label for request in requests], dtype=torch.int64),
            "videos": torch.tensor([request.video for request in requests], dtype=torch.int64),
            "samples": torch.tensor([request.sample for request in requests], dtype=torch.int64),
            "flip": torch.tensor([request.flip for request in requests], dtype=torch.bool),
        }
        wanted = self.modalities if modalities is None else modalities
        padding = torch.zeros((len(requests), num_frames), dtype=torch.bool)
        if "rgb" in wanted:
            rgb = np.empty((len(requests), num_frames, crop, crop, 3), dtype=np.uint8)
            for position, request in enumerate(requests):
                path = index.frames_paths[index.shards[request.video]]
                first, video_frames = int(index.frames_first[request.video]), int(index.video_frames[request.video])
                encoded = read_encoded(self._shards[path], first, video_frames, request)
                padding[position] = torch.tensor([frame is None for frame in encoded])
                decode_frames(encoded, request, rgb[position], f"{path}: {index.ids[request.video]}")
            batch["rgb"] = torch.from_numpy(rgb)
        if "flow" in wanted:
            assert index.motion_first is not None, "the index was built without motion"
            num_channels, *stored = index.motion_stored
            flow = np.empty((len(requests), num_frames, crop, crop, num_channels), dtype=np.uint8)
            scale = np.empty((len(requests), 2), dtype=np.float32)
            for position, request in enumerate(requests):
                path = index.motion_paths[index.shards[request.video]]
                first, video_frames = int(index.motion_first[request.video]), int(index.video_frames[request.video])
                encoded = read_encoded(self._shards[path], first, video_frames, request)
                padding[position] = torch.tensor([frame is None for frame in encoded])
                height, width = int(index.heights[request.video]), int(index.widths[request.video])
                what = f"{path}: {index.ids[request.video]}"
                scale[position] = decode_motion(encoded, height, width, request, flow[position], what)
            batch["flow"] = torch.from_numpy(flow)
            batch["flow_scale"] = torch.from_numpy(scale)
            if index.motion_stored != FLOW_STORED:
                batch["flow_stored"] = torch.tensor(stored, dtype=torch.int64)
        if bool(padding.any()):
            batch |= {f"{name}_padding": padding for name in wanted}
        return batch


def directional_labels(classes: Sequence[str]) -> frozenset[int]:
    """Labels of the classes with the word left or right in their names, which are wrong for a mirrored clip."""
    return frozenset(
        label for label, name in enumerate(classes) if re.search(r"(?<![a-z])(left|right)(?![a-z])", name.lower())
    )


class TrainingClips(Dataset[Batch]):
    """Clips by global sample index: sample g lies in epoch g // N at place g mod N of that epoch's order.

    What sample g holds is a pure function of (seed, g) and the index. It does not depend on workers, on the number of
    processes or on where a run was resumed.

    Args:
        reader: the videos of the training list.
        sampling: which frames and pixels.
        seed: the run's seed.
        horizontal_flip: whether clips may be mirrored.
        unmirrored: labels whose clips may not be mirrored in any case (``directional_labels``).
        mixing: how the clips of a step are mixed; None leaves them.
        global_batch: clips of a step, for ``mixing``.
    """

    def __init__(
        self,
        reader: ClipReader,
        sampling: Sampling,
        seed: int,
        horizontal_flip: bool,
        unmirrored: frozenset[int] = frozenset(),
        mixing: Mixing | None = None,
        global_batch: int = 1,
    ) -> None:
        self.reader, self.sampling, self.seed = reader, sampling, seed
        self.mixing, self.global_batch = mixing, global_batch
        self.horizontal_flip, self.unmirrored = horizontal_flip, unmirrored

    def request(self, sample: int) -> ClipRequest:
        """The clip of a global sample index."""
        index = self.reader.index
        video = video_of_sample(self.seed, sample, len(index))
        uniform = generator(self.seed, AUGMENTATION, sample).random(num_uniform(self.sampling))
        labels = index.labels[video]
        # A clip with several labels (Sports-1M) teaches one of them, drawn again in each epoch.
        label = labels[int(uniform[5] * len(labels))] if labels else -1
        mirrored = self.horizontal_flip and self.unmirrored.isdisjoint(labels)
        return random_request(self.sampling, uniform, index.video(video), sample, label, mirrored)

    def __getitem__(self, sample: int) -> Batch:
        return self.__getitems__([sample])

    def __getitems__(self, samples: Sequence[int]) -> Batch:
        """A micro-batch of one step at once, so that nothing has to be copied together.

        Returns:
            As ``ClipReader.read``; besides, where the sampling asks for them: ``colours`` (B, 5); ``erased`` int64
            (B, 4), top, left, height and width. With ``mixing`` further clips follow the B of the samples: those of
            the same step that are mixed with them and lie in another pass. ``partners`` int64 (B,) is the place of
            each one's other clip, ``mixing`` float64 (5,) λ and the box of ``draw_mixture`` (−1 without one).
        """
        mixed = self._mixed(samples)
        partners = mixed.pop("partners", None)
        read = list(samples)
        if partners is not None:
            others = [int(sample) for sample in partners]
            read += [sample for sample in dict.fromkeys(others) if sample not in read]
            mixed["partners"] = torch.tensor([read.index(sample) for sample in others], dtype=torch.int64)
        batch = self.reader.read([self.request(sample) for sample in read])
        sampling = self.sampling
        if sampling.rand_augment is not None and "rgb" in batch:
            for clip, sample in zip(batch["rgb"].numpy(), read, strict=True):
                clip[:] = rand_augment(clip, sampling.rand_augment, self.seed, sample)
        if sampling.colours is not None and "rgb" in batch:
            drawn = [draw_colours(generator(self.seed, COLOURS, sample), sampling.colours) for sample in read]
            batch["colours"] = torch.tensor(drawn, dtype=torch.float32)
        if sampling.erasing is not None:
            rectangles = [draw_erased(sampling.erasing, sampling.crop, self.seed, sample) for sample in read]
            batch["erased"] = torch.tensor(rectangles, dtype=torch.int64)
        return batch | mixed

    def _mixed(self, samples: Sequence[int]) -> Batch:
        """How the clips of samples of one step are mixed, and the samples of the others; nothing if they are not.

        The other clip is the one before in the global batch, the last one for the first (torchvision's ``roll``). So a
        pass reads at most one clip more than it has.
        """
        if self.mixing is None:
            return {}
        size = self.global_batch
        step = samples[0] // size
        mixture = draw_mixture(self.mixing, self.sampling.crop, self.seed, step)
        if mixture is None:
            return {}
        others = [step * size + (sample - step * size - 1) % size for sample in samples]
        values = [mixture.share, *(mixture.box or (-1, -1, -1, -1))]
        return {"partners": torch.tensor(others), "mixing": torch.tensor(values, dtype=torch.float64)}


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, num_videos: int) -> np.ndarray:
    return epoch_order(seed, epoch, num_videos)


def video_of_sample(seed: int, sample: int, num_videos: int) -> int:
    """Row of the video of a global sample index."""
    epoch, place = divmod(sample, num_videos)
    return int(_order(seed, epoch, num_videos)[place])


class MicroBatchSampler(Sampler[list[int]]):
    """Global sample indices of one process's micro-batches, step after step.

    Step s holds the samples [s·G, (s + 1)·G) of the global batch G; each process takes the same places of it in every
    step.

    Args:
        first_step: step at which a resumed run continues.
        last_step: one past the last step.
        global_batch: clips per optimiser step over all processes.
        places: first place in the global batch and number of clips of each forward pass of this process.
    """

    def __init__(self, first_step: int, last_step: int, global_batch: int, places: Sequence[tuple[int, int]]) -> None:
        self.first_step, self.last_step = first_step, last_step
        self.global_batch, self.places = global_batch, places

    def __len__(self) -> int:
        return (self.last_step - self.first_step) * len(self.places)

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first_step, self.last_step):
            for place, num_clips in self.places:
                first = step * self.global_batch + place
                yield list(range(first, first + num_clips))


def _as_is(batch: Any) -> Any:
    return batch


class _Telling(Dataset[Batch]):
    """Gives an error for the user as a value: a worker process would wrap it in its traceback."""

    def __init__(self, dataset: Dataset[Batch]) -> None:
        self.dataset = dataset

    def __getitem__(self, place: Any) -> Any:
        return self.__getitems__([place])

    def __getitems__(self, places: Sequence[Any]) -> Any:
        try:
            return self.dataset.__getitems__(places)  # type: ignore[attr-defined]
        except UserError as error:
            return error


def _prepare_worker(_worker: int) -> None:
    """Prepare a worker: one thread, because OpenCV would start a thread per core in each worker.

    Workers ignore signals that go to the whole group of processes (Ctrl-C, a cluster). The main process handles them
    and finishes its step, for which it needs its workers. They end when it does.
    """
    import cv2

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)

    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def clip_loader(
    dataset: Dataset[Batch], batches: Sampler[Any], num_workers: int, pin_memory: bool = False
) -> ReceivedBatches:
    """A loader over given batches of indices; the number of workers does not change the batches.

    Args:
        dataset: ``TrainingClips`` or ``ProtocolClips``.
        batches: lists of indices.
        num_workers: processes that decode; 0 decodes in this process.
        pin_memory: page-locked batches, for a GPU.
    """
    # A forked worker would wait forever for locks of the threads that compiled flow has started in this process.
    context = "forkserver" if num_workers and "numba" in sys.modules else None
    loader = DataLoader(
        _Telling(dataset),
        batch_sampler=batches,
        multiprocessing_context=context,
        num_workers=num_workers,
        collate_fn=shared if num_workers else _as_is,
        pin_memory=pin_memory,
        persistent_workers=False,
        prefetch_factor=4 if num_workers else None,
        worker_init_fn=_prepare_worker if num_workers else None,
    )
    return ReceivedBatches(loader)
