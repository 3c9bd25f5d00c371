"""MoDist: a visual pathway learns by contrast with itself and with a motion pathway, without labels.

Xiao, Tighe, Modolo, "MoDist: Motion Distillation for Self-supervised Video Representation Learning", section 3.1,
equations 1 to 3. Only the visual pathway is kept.
"""

import copy

import torch
from torch import Tensor, nn

from pipeline_lib.clips.views import MotionViews
from pipeline_lib.configuration.data import Motion
from pipeline_lib.configuration.objectives import MotionDistillation
from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.models.network import LOGITS, FeatureHead, ProjectionHead, VideoNetwork
from pipeline_lib.training.contrast import MemoryBank, embed, info_nce, update_momentum, vote
from pipeline_lib.training.distribution import Ranks
from pipeline_lib.training.networks import build_pathway
from pipeline_lib.training.objectives.base import EndpointForward, Forward, Outputs

VISUAL, MOTION = "visual", "motion"


class ContrastForward(EndpointForward):
    """The pathways, their momentum networks and the banks. Input are two views of a batch, output are named losses.

    Attributes:
        network: the visual trunk, which ends in pooled features; what is exported.
        projections: of the online pathways, by modality.
        motion: the motion trunk, or None without a motion pathway.
        momentum: the momentum networks, trunks and projections, by modality. No gradient reaches them.
        banks: by modality. Their rows change only after a step, so that the numbers of processes and of accumulated
            passes do not change what a query is compared with.
    """

    def __init__(self, network: VideoNetwork, settings: MotionDistillation, motion: VideoNetwork | None) -> None:
        super().__init__(network)
        self.settings = settings
        trunks: dict[str, VideoNetwork] = {VISUAL: network}
        if motion is not None:
            trunks[MOTION] = motion
        self.motion = motion
        self.projections = nn.ModuleDict()
        for name, trunk in trunks.items():
            trunk.head = FeatureHead()
            channels = trunk.endpoint_shapes([LOGITS])[LOGITS][0]
            self.projections[name] = ProjectionHead(
                channels,
                settings.dimension,
                settings.num_hidden,
                settings.hidden_width,
                settings.projection_norm,
            )
        self.momentum = nn.ModuleDict(
            {
                name: nn.ModuleDict(
                    {"trunk": copy.deepcopy(trunk), "projection": copy.deepcopy(self.projections[name])}
                ).requires_grad_(False)
                for name, trunk in trunks.items()
            }
        )
        self.banks = nn.ModuleDict({name: MemoryBank(settings.bank_size, settings.dimension) for name in trunks})
        self._pending: list[dict[str, Tensor]] = []
        # Every process fills its banks with the same rows, so DDP need not send them before each pass.
        self._ddp_params_and_buffers_to_ignore = [name for name, _ in self.named_buffers() if name.startswith("banks.")]

    def _online(self, name: str, clips: Tensor) -> Tensor:
        trunk = self.network if name == VISUAL else self.motion
        assert trunk is not None
        return embed(self.projections[name](trunk(clips)))

    @torch.no_grad()
    def _keys(self, name: str, clips: Tensor) -> Tensor:
        copies = self.momentum[name]
        return embed(copies["projection"](copies["trunk"](clips)))  # type: ignore[index]

    def forward(self, batch: Tensor | Outputs, names: tuple[str, ...] = ()) -> Outputs:
        """Losses of a batch as ``PairedClips`` gives it: the B queries before the B keys in ``rgb`` and ``flow``.

        Returns:
            ``total`` and its terms (``visual``, ``motion``, ``cross``); ``positive``, the mean cosine of a visual
            query and its visual key; ``knn_top1``, the share of visual queries whose class the bank's other videos
            vote for. All are scalars. Labels are used only for the last one, which is no part of the loss.
        """
        assert isinstance(batch, dict) and not names
        videos, clips = batch["videos"], {VISUAL: batch["rgb"]}
        if self.motion is not None:
            clips[MOTION] = batch["flow"]
        size = len(videos)
        queries = {name: self._online(name, both[:size]) for name, both in clips.items()}
        keys = {name: self._keys(name, both[size:]) for name, both in clips.items()}
        if torch.is_grad_enabled():
            own = {name: batch[name] for name in ("samples", "videos", "labels")}
            self._pending.append({**own, **keys})
        with torch.autocast(videos.device.type, enabled=False):
            bank = self.banks[VISUAL]
            assert isinstance(bank, MemoryBank)
            agrees = (vote(bank, queries[VISUAL], videos) == batch["labels"]) & (batch["labels"] >= 0)
            return {**self._losses(queries, keys, videos), "knn_top1": agrees.float().mean()}

    def _losses(self, queries: Outputs, keys: Outputs, videos: Tensor) -> Outputs:
        def contrast(query: str, key: str) -> Tensor:
            # Equation 2: the negatives come from the query's pathway, also if the key comes from the other.
            bank = self.banks[query]
            assert isinstance(bank, MemoryBank)
            allowed = bank.allowed(videos)
            return info_nce(queries[query], keys[key], bank.embeddings, allowed, self.settings.temperature)

        terms: Outputs = {}
        if "visual" in self.settings.losses:
            terms["visual"] = contrast(VISUAL, VISUAL)
        if "motion" in self.settings.losses:
            terms["motion"] = contrast(MOTION, MOTION)
        if "cross" in self.settings.losses:
            terms["cross"] = contrast(VISUAL, MOTION) + contrast(MOTION, VISUAL)
        total = torch.stack(list(terms.values())).sum()
        positive = (queries[VISUAL].detach() * keys[VISUAL]).sum(dim=1).mean()
        return {"total": total, **{name: term.detach() for name, term in terms.items()}, "positive": positive}

    def begin_step(self) -> None:
        """Move the momentum networks towards the trained ones, once a step and before its keys are computed."""
        self._pending.clear()
        update_momentum(self.network, self.momentum[VISUAL]["trunk"], self.settings.momentum)  # type: ignore[index]
        if self.motion is not None:
            update_momentum(self.motion, self.momentum[MOTION]["trunk"], self.settings.momentum)  # type: ignore[index]
        for name, projection in self.projections.items():
            slow = self.momentum[name]["projection"]  # type: ignore[index]
            update_momentum(projection, slow, self.settings.momentum)

    @torch.no_grad()
    def end_step(self, ranks: Ranks) -> None:
        """Put the step's keys of all processes into the banks, in the order of the global batch."""
        if not self._pending:
            return
        gathered = {
            name: torch.cat(ranks.gather_rows(torch.cat([passed[name] for passed in self._pending])))
            for name in self._pending[0]
        }
        order = gathered.pop("samples").argsort()
        gathered = {name: rows[order] for name, rows in gathered.items()}
        for name, bank in self.banks.items():
            assert isinstance(bank, MemoryBank)
            bank.enqueue(gathered[name], gathered["videos"], gathered["labels"])
        self._pending.clear()


class MotionDistillationObjective:
    """L = Lv + Lm + Lmv (equation 3), or some of its terms."""

    def __init__(self, settings: MotionDistillation, motion_kind: Motion | None) -> None:
        self.settings, self.motion_kind = settings, motion_kind
        self.modalities: tuple[str, ...] = ("rgb", "flow") if settings.reads_motion else ("rgb",)
        self.views: MotionViews | None = MotionViews(
            settings.motion_frames,
            settings.motion_stride,
            settings.threshold,
            settings.jitter,
            settings.threshold_of,
        )

    def attach(self, network: nn.Module) -> EndpointForward:
        """Both pathways with projections, momentum networks and banks; the network's classifier is removed.

        Raises:
            UserError: the motion pathway cannot be built.
        """
        assert isinstance(network, VideoNetwork)
        motion = None
        if self.settings.reads_motion:
            assert self.motion_kind is not None
            motion = build_pathway(self.settings.motion_network, len(self.motion_kind.channels))
        return ContrastForward(network, self.settings, motion)

    def losses(self, student: Forward, batch: Outputs, teacher: Forward | None = None) -> Outputs:
        """``total``, its terms, ``positive`` and ``knn_top1``; see ``ContrastForward.forward``."""
        assert teacher is None
        wanted = {name: batch[name] for name in (*self.modalities, "samples", "videos", "labels")}
        return student(wanted, ())  # type: ignore[arg-type]


def build(specification: TrainingSpecification) -> MotionDistillationObjective:
    """The objective of a specification."""
    assert isinstance(specification.objective, MotionDistillation)
    return MotionDistillationObjective(specification.objective, specification.motion_kind)
