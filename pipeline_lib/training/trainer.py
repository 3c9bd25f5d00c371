"""The training loop: one for every objective."""

import copy
import errno
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipeline_lib.artefacts.progress import Progress
from pipeline_lib.clips.batches import to_network_input
from pipeline_lib.clips.dataset import Batch, MicroBatchSampler, clip_loader
from pipeline_lib.clips.index import ClipIndex
from pipeline_lib.clips.sampling import DROPOUT, generator
from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.training import batch_norm
from pipeline_lib.training.batch_plan import BatchPlan
from pipeline_lib.training.checkpoints import Checkpoints
from pipeline_lib.training.distribution import Ranks, mean_in_rank_order
from pipeline_lib.training.inputs import training_clips
from pipeline_lib.training.metrics_log import Means, MetricsLog
from pipeline_lib.training.objectives.base import Outputs, TrainingObjective
from pipeline_lib.training.optimisers import build_optimiser
from pipeline_lib.training.schedules import learning_rate
from pipeline_lib.training.signals import StopRequest
from pipeline_lib.training.timing import PhaseTimes
from pipeline_lib.training.validation import Score, Validation


class TrainingInterruptedError(Exception):
    """A signal asked for a stop; the state is saved."""


Module = TypeVar("Module", bound=nn.Module)


def place(module: Module, device: torch.device) -> Module:
    """Move a network to a device, its 3D convolutions channels last: the layout that clips arrive in."""
    placed: Module = module.to(device=device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return placed


@dataclass
class Trainer:
    """Trains one network.

    Everything random is a function of (seed, step, micro-batch): the clips, their augmentation, and torch's generator,
    which is seeded anew before each forward pass. So a checkpoint needs no generator state, and a run that was
    killed, or that goes on with another number of processes, draws what an uninterrupted one draws.
    """

    specification: TrainingSpecification
    index: ClipIndex
    network: nn.Module
    objective: TrainingObjective
    teacher: nn.Module | None
    device: torch.device
    ranks: Ranks
    plan: BatchPlan
    checkpoints: Checkpoints
    num_workers: int
    request: StopRequest
    step: int = 0
    skipped: int = 0
    means: Means = field(default_factory=Means)
    validation: Validation | None = None
    judged: Means = field(default_factory=Means)
    """The total loss since the last checkpoint that was compared with the best."""
    best: Score | None = None

    def __post_init__(self) -> None:
        recipe = self.specification.recipe
        self.module = self.objective.attach(self.network)
        if recipe.synchronise_batch_norm and self.ranks.num_ranks > 1:
            batch_norm.synchronise(self.module)
        self.module = place(self.module, self.device)
        if recipe.batch_norm_momentum is not None:
            batch_norm.set_momentum(self.module, recipe.batch_norm_momentum)
        on_gpu = self.device.type == "cuda"
        rate = learning_rate(recipe.schedule, 0, recipe.steps)
        self.optimiser = build_optimiser(self.module, recipe.optimiser, rate, fused=True)
        self.average = copy.deepcopy(self.module).requires_grad_(False) if recipe.ema_decay is not None else None
        self.bfloat16 = on_gpu and recipe.precision == "bfloat16"
        self.times = PhaseTimes(self.device)
        self._buffers = list(self.module.buffers()) if recipe.maximum_skipped_steps else []
        self._saved_buffers = [buffer.clone() for buffer in self._buffers]
        self._parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]

    def _wrapped(self) -> Any:
        """The trained module, compiled and distributed as the hardware section and torchrun say."""
        module: Any = self.module
        if self.specification.hardware.compile:
            module = torch.compile(module)
        if self.ranks.num_ranks > 1:
            ids = [self.ranks.local_rank] if self.device.type == "cuda" else None
            module = DistributedDataParallel(module, device_ids=ids, gradient_as_bucket_view=True)
            if self.device.type == "cpu":
                module.register_comm_hook(None, mean_in_rank_order)
        return module

    # Checkpoints

    def state(self, log_size: int) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "module": self.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "means": self.means.state(),
            "judged": self.judged.state(),
            "best": None if self.best is None else list(self.best),
            "skipped": self.skipped,
            "log_size": log_size,
        }

    def restore(self, step: int, state: dict[str, Any]) -> int:
        """Go on behind ``step`` steps; returns the size of the log at that step, bytes."""
        self.module.load_state_dict(state["module"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.means.restore(state["means"], self.device)
        self.judged.restore(state["judged"], self.device)
        self.best = None if state["best"] is None else Score(*state["best"])
        self.skipped = int(state["skipped"])
        self.step = step
        return int(state["log_size"])

    def _is_best(self) -> bool:
        """Compare with the best; at fixed steps only, so that the answer does not depend on when a run was stopped."""
        recipe = self.specification.recipe
        if self.validation is not None:
            fresh = self.validation.score
        elif self.step % recipe.checkpoint_steps == 0 or self.step == recipe.steps:
            taken = self.judged.take() if self.judged.count else {}
            fresh = Score(taken["total"], self.step) if taken else None
        else:
            return False
        if fresh is None or fresh.step != self.step or (self.best is not None and fresh.loss >= self.best.loss):
            return False
        self.best = fresh
        return True

    def _check_weights(self) -> None:
        """Never keep weights that a finite loss has thrown to infinity: no later run could go on from them."""
        weights: list[torch.Tensor] = list(self._parameters)
        largest = torch.stack(list(torch._foreach_norm(weights, float("inf"))))
        if not bool(largest.isfinite().all()):
            raise UserError(
                f"experiment {self.specification.experiment}: the weights are not finite after step {self.step}. "
                f"Last good checkpoint: {self._last_checkpoint()}. "
                "Lower recipe.schedule.base_rate or set recipe.optimiser.clip_gradient_norm."
            )

    def _last_checkpoint(self) -> str:
        saved = self.checkpoints.paths()
        return str(saved[-1]) if saved else "none"

    def _save(self, log: MetricsLog | None) -> None:
        self._check_weights()
        earlier, best = self.best, self._is_best()
        if log is None:
            return
        with self.times.phase("checkpoint"):
            try:
                self.checkpoints.save(self.step, self.state(log.size()), best)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self.best = earlier
                saved = self.checkpoints.paths()
                print(
                    f"no room on the disk for the checkpoint of step {self.step} ({error}); the last good one is "
                    f"{saved[-1].name if saved else 'none'}. The training goes on: make room under "
                    f"{self.checkpoints.folder}.",
                    file=sys.stderr,
                )

    # The loop

    def batches(self, first_step: int, last_step: int, alone: bool = False) -> Iterator[Batch]:
        """Micro-batches of this rank, uint8, from the loader's workers; ``alone`` gives those of all ranks.

        Alone, a synchronised normalisation's batch comes as one.
        """
        ranks = Ranks() if alone else self.ranks
        together = alone and self.specification.recipe.synchronise_batch_norm
        micro_batch = self.plan.micro_batch * (self.plan.num_ranks if together else 1)
        specification = self.specification
        dataset = training_clips(self.index, self.objective, specification)
        sampler = MicroBatchSampler(
            first_step, last_step, self.plan.global_batch, micro_batch, ranks.rank, ranks.num_ranks
        )
        return iter(clip_loader(dataset, sampler, self.num_workers, pin_memory=self.device.type == "cuda"))

    def run(self, log: MetricsLog | None) -> None:
        """Train to the recipe's last step.

        Args:
            log: where the metrics go; None on all processes but the first.

        Raises:
            TrainingInterruptedError: a signal asked for a stop; the state is saved.
            UserError: too many steps had a non-finite loss.
        """
        recipe = self.specification.recipe
        wrapped = self._wrapped()
        wrapped.train()
        batches = self.batches(self.step, recipe.steps)
        label = f"train {self.specification.experiment} {self.specification.split}-{self.specification.seed}"
        last_saved = last_logged = time.monotonic()
        steps_logged = self.step
        with Progress(label, recipe.steps, "steps", initial=self.step) if log else nullcontext() as progress:
            while self.step < recipe.steps:
                rate = learning_rate(recipe.schedule, self.step, recipe.steps)
                stop = self._one_step(wrapped, batches, rate)
                self.step += 1
                note = ""
                if self.step % recipe.log_steps == 0 or self.step == recipe.steps:
                    values = self.means.take()
                    if log is not None:
                        now = time.monotonic()
                        clips = (self.step - steps_logged) * recipe.global_batch / max(now - last_logged, 1e-9)
                        last_logged, steps_logged = now, self.step
                        timed = {"clips_per_second": clips}
                        if self.device.type == "cuda":
                            timed["gigabytes"] = torch.cuda.max_memory_allocated(self.device) / 2**30
                        log.write(self.step, {"rate": rate, **values}, timed)
                        shown = {
                            "rate": rate,
                            **values,
                            "clips/s": clips,
                            **{k: v for k, v in timed.items() if k == "gigabytes"},
                        }
                        note = " ".join(f"{name} {value:.4g}" for name, value in shown.items())
                if progress is not None:
                    progress.advance(1, note)
                validated = self.validation is not None and self._validate(log)
                due = time.monotonic() - last_saved >= 60.0 * recipe.checkpoint_minutes
                if stop or due or validated or self.step % recipe.checkpoint_steps == 0 or self.step == recipe.steps:
                    self._save(log)
                    last_saved = time.monotonic()
                if stop and self.step < recipe.steps:
                    raise TrainingInterruptedError

    def _validate(self, log: MetricsLog | None) -> bool:
        """Look at the validation list if it is time to."""
        assert self.validation is not None
        if not self.validation.is_due(self.step, self.specification.recipe.steps):
            return False
        module = self.average if self.average is not None else self.module
        with self.times.phase("validation"):
            values = self.validation.run(module.network, self.step, self.device)  # type: ignore[arg-type]
        if log is not None:
            log.write(self.step, values, {})
        return True

    def _one_step(self, wrapped: Any, batches: Iterator[Batch], rate: float) -> bool:
        """One optimiser step over the global batch; True if some process was asked to stop."""
        recipe, plan = self.specification.recipe, self.plan
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        if self._buffers:
            torch._foreach_copy_(self._saved_buffers, self._buffers)
        self.module.begin_step()
        sums: dict[str, torch.Tensor] = {}
        videos: list[torch.Tensor] = []
        for accumulated in range(plan.num_accumulated):
            with self.times.phase("data"):
                raw = next(batches)
                batch = to_network_input(raw, self.device)
            videos.append(raw["videos"])
            last = accumulated == plan.num_accumulated - 1
            waits = isinstance(wrapped, DistributedDataParallel) and not last
            with wrapped.no_sync() if waits else nullcontext():
                with self.times.phase("forward"):
                    losses = self._forward(wrapped, batch, accumulated * plan.num_ranks + self.ranks.rank)
                with self.times.phase("backward"):
                    torch.autograd.backward(losses["total"] / plan.num_accumulated)
            for name, value in losses.items():
                value = value.detach().double()
                sums[name] = sums[name] + value if name in sums else value
        names = sorted(sums)
        with self.times.phase("communication"):
            stopping = torch.tensor(float(self.request.signal > 0), dtype=torch.float64, device=self.device)
            total = self.ranks.sum(torch.stack([sums[name] for name in names] + [stopping]))
            mean = total[:-1] / (plan.num_accumulated * plan.num_ranks)
            checked = total.tolist()
        with self.times.phase("optimiser"):
            if not all(value - value == 0.0 for value in checked):
                self._skip(videos)
            else:
                if recipe.optimiser.clip_gradient_norm is not None:
                    nn.utils.clip_grad_norm_(self._parameters, recipe.optimiser.clip_gradient_norm)
                self.optimiser.step()
                self.module.end_step(self.ranks)
                if self.average is not None:
                    self._update_average()
                values = dict(zip(names, mean, strict=True))
                self.means.add(values)
                self.judged.add({"total": values["total"]})
            self.optimiser.zero_grad(set_to_none=True)
        return bool(checked[-1] > 0.0)

    def _forward(self, wrapped: Any, batch: Outputs, group: int) -> Outputs:
        random = generator(self.specification.seed, DROPOUT, self.step, group)
        torch.manual_seed(int(random.integers(2**62)))
        with torch.autocast("cuda", dtype=torch.bfloat16) if self.bfloat16 else nullcontext():
            return self.objective.losses(wrapped, batch, self.teacher)

    def _update_average(self) -> None:
        """Exponential moving average of the weights; batch-norm buffers are taken as they are."""
        decay = self.specification.recipe.ema_decay
        assert self.average is not None and decay is not None
        own, averaged = list(self.module.parameters()), list(self.average.parameters())
        torch._foreach_lerp_([p.data for p in averaged], [p.data for p in own], 1.0 - decay)
        for buffer, source in zip(self.average.buffers(), self.module.buffers(), strict=True):
            buffer.copy_(source)

    def _skip(self, videos: list[torch.Tensor]) -> None:
        """Leave a step with a non-finite loss out, or stop if there were too many."""
        self.skipped += 1
        allowed = self.specification.recipe.maximum_skipped_steps
        if self.skipped <= allowed:
            torch._foreach_copy_(self._buffers, self._saved_buffers)
            return
        ids = ", ".join(str(self.index.ids[row]) for row in torch.cat(videos).tolist())
        raise UserError(
            f"experiment {self.specification.experiment}: the loss is not finite at step {self.step} "
            f"(recipe.maximum_skipped_steps: {allowed}). Clips of the step are from {ids}. "
            f"Last good checkpoint: {self._last_checkpoint()}. "
            "Lower recipe.schedule.base_rate, set recipe.optimiser.clip_gradient_norm, or look at those videos."
        )

    # The end

    def _return_to_best(self) -> None:
        found = self.checkpoints.best()
        if found is None:
            print("no readable best checkpoint: the last weights are kept", file=sys.stderr)
            return
        step, state = found
        self.module.load_state_dict(state["module"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        print(f"the best weights are those of step {step}", file=sys.stderr)

    def final_network(self) -> nn.Module:
        """The network to keep: averaged if the recipe says so, its batch-norm statistics computed anew if so."""
        recipe = self.specification.recipe
        if recipe.final_weights == "best":
            self._return_to_best()
        module = self.average if self.average is not None else self.module
        if recipe.reestimate_batch_norm:
            # Clips behind the last step, so that none of them was in the last running statistics.
            groups = self.plan.num_accumulated * (1 if recipe.synchronise_batch_norm else self.plan.num_ranks)
            num_steps = -(-recipe.reestimate_batch_norm // groups)
            batches = self.batches(recipe.steps, recipe.steps + num_steps, alone=True)

            def forward(batch: Any) -> object:
                torch.manual_seed(0)
                return self.objective.losses(module, to_network_input(batch, self.device), self.teacher)

            batch_norm.reestimate(module, forward, batches)
        network: nn.Module = module.finished()  # type: ignore[operator, union-attr]
        return network
