"""The training loop: one for every objective."""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipeline_lib.clips.batches import to_network_input
from pipeline_lib.clips.dataset import Batch
from pipeline_lib.clips.index import ClipIndex
from pipeline_lib.clips.sampling import DROPOUT, generator
from pipeline_lib.configuration.training import Recipe
from pipeline_lib.errors import UserError
from pipeline_lib.training import batch_norm
from pipeline_lib.training.distribution import Ranks, mean_in_rank_order
from pipeline_lib.training.inputs import MicroBatches
from pipeline_lib.training.metrics_log import Metrics
from pipeline_lib.training.objectives.base import EndpointForward, Forward, Outputs
from pipeline_lib.training.optimisers import averaged, build_optimiser
from pipeline_lib.training.saving import Saving
from pipeline_lib.training.schedules import learning_rate, scaled
from pipeline_lib.training.signals import StopRequest
from pipeline_lib.training.skipping import SkippedSteps
from pipeline_lib.training.timing import PhaseTimes
from pipeline_lib.training.validation import Score

Module = TypeVar("Module", bound=nn.Module)


def place(module: Module, device: torch.device) -> Module:
    """Move a network to a device, with its 3D convolutions channels last, as clips are."""
    placed: Module = module.to(device=device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return placed


class Losses(Protocol):
    """An objective with its teacher."""

    def __call__(self, student: Forward, batch: Outputs) -> Outputs:
        """Named losses, scalars; ``total`` is minimised, the others are logged."""
        ...


class Validation(Protocol):
    """Judges the network on the validation list now and then; it changes nothing of the training.

    Attributes:
        score: of the last time.
    """

    score: Score | None

    def is_due(self, step: int, num_steps: int) -> bool:
        """Whether the network is judged after ``step`` of ``num_steps`` steps."""
        ...

    def run(self, module: nn.Module, step: int, device: torch.device) -> dict[str, float]:
        """Figures over the list, of all processes together.

        Args:
            module: the trained module in eval mode, or its average; the network is its ``network``.
            step: steps done, for the score.
            device: where the module is.
        """
        ...


@dataclass(frozen=True)
class Machine:
    """What a training runs on.

    Attributes:
        device: of this process.
        ranks: this process among all.
        compile: whether the module is compiled.
        request: whether a signal asked for a stop.
    """

    device: torch.device
    ranks: Ranks
    compile: bool
    request: StopRequest


class Trainer:
    """Trains one module.

    Everything random is a function of (seed, step, micro-batch): the clips, their augmentation, and torch's generator,
    which is seeded before each forward pass. So a checkpoint needs no generator state. A run that was killed, or that
    continues with another number of processes, draws the same numbers as an uninterrupted one.

    Args:
        module: the network with what the objective adds, on its device.
        losses: the objective with its teacher.
        batches: the clips.
        index: the videos of the clips, to name them in messages.
        recipe: how the module is trained.
        seed: the run's.
        machine: what the training runs on.
        metrics: logs the losses.
        saving: saves the state.
        validation: None if the recipe does not validate.

    Attributes:
        step: steps done.
        schedule: the recipe's, scaled to its global batch.
        average: moving average of the module, if the recipe wants one.
        times: seconds per phase in this process.
    """

    def __init__(
        self,
        module: EndpointForward,
        losses: Losses,
        batches: MicroBatches,
        index: ClipIndex,
        recipe: Recipe,
        seed: int,
        machine: Machine,
        metrics: Metrics,
        saving: Saving,
        validation: Validation | None,
    ) -> None:
        self.module, self.losses, self.batches, self.index = module, losses, batches, index
        self.recipe, self.seed, self.machine = recipe, seed, machine
        self.metrics, self.saving, self.validation = metrics, saving, validation
        self.step = 0
        self.weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.schedule = scaled(recipe.schedule, recipe.global_batch)
        self.optimiser = build_optimiser(module, recipe.optimiser, self.schedule.base_rate, fused=True)
        self.average = None if recipe.ema_decay is None else averaged(module, recipe.ema_decay)
        self.skipped = SkippedSteps(module, recipe.maximum_skipped_steps)
        self.times = PhaseTimes(machine.device)
        self._earlier, self._began = 0.0, time.monotonic()

    def run(self) -> bool:
        """Train to the recipe's last step; after a signal save the state and return False.

        Raises:
            UserError: too many steps had a non-finite loss, or the weights are not finite.
        """
        num_steps = self.recipe.steps
        model = self._wrapped()
        model.train()
        batches = self.batches.of_rank(self.machine.ranks.rank, self.step, num_steps)
        with self.metrics.shown(self.step):
            while self.step < num_steps:
                rate = learning_rate(self.schedule, self.step, num_steps)
                stop = self._one_step(model, batches, rate)
                self.step += 1
                self.metrics.step_done(self.step, rate)
                validated = self._validate()
                if stop or validated or self.saving.is_due(self.step):
                    self._save()
                if stop and self.step < num_steps:
                    return False
        return True

    def _one_step(self, model: Any, batches: Iterator[Batch], rate: float) -> bool:
        """One step of the optimiser on the global batch; True if a process got a signal to stop."""
        plan = self.batches.plan
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.skipped.remember()
        self.module.begin_step()
        sums: dict[str, torch.Tensor] = {}
        videos: list[torch.Tensor] = []
        parts = plan.parts[self.machine.ranks.rank]
        for part in parts:
            with self.times.phase("data"):
                raw = next(batches)
                batch = to_network_input(raw, self.machine.device)
            videos.append(raw["videos"])
            # The processes exchange gradients once a step, each in its last backward pass. DDP pairs what they exchange
            # by order and not by pass, so the processes may have different numbers of passes; each needs one. DDP takes
            # the mean over the processes, so their weights sum to their number.
            waits = isinstance(model, DistributedDataParallel) and part is not parts[-1]
            weight = plan.weight(part)
            with model.no_sync() if waits else nullcontext():
                with self.times.phase("forward"):
                    losses = self._forward(model, batch, part.number)
                with self.times.phase("backward"):
                    torch.autograd.backward(losses["total"] * weight / (plan.total_weight / plan.num_ranks))
            for name, value in losses.items():
                value = value.detach().double() * weight
                sums[name] = sums[name] + value if name in sums else value
        with self.times.phase("communication"):
            means, all_finite, stop = self._mean_over_ranks(sums)
        with self.times.phase("optimiser"):
            if all_finite:
                self._update(means)
            elif not self.skipped.undo():
                raise self._not_finite(videos)
            self.optimiser.zero_grad(set_to_none=True)
        return stop

    def _forward(self, model: Any, batch: Outputs, group: int) -> Outputs:
        """Losses of one micro-batch, that of the step's pass ``group``."""
        random = generator(self.seed, DROPOUT, self.step, group)
        torch.manual_seed(int(random.integers(2**62)))
        mixed = self.machine.device.type == "cuda" and self.recipe.precision == "bfloat16"
        with torch.autocast("cuda", dtype=torch.bfloat16) if mixed else nullcontext():
            return self.losses(model, batch)

    def _mean_over_ranks(self, sums: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], bool, bool]:
        """The mean of each loss over the global batch; whether all are finite; whether a process got a signal to stop.

        One exchange carries all three, because the time goes into waiting for the other processes.
        """
        plan, machine, names = self.batches.plan, self.machine, sorted(sums)
        asked = torch.tensor(float(machine.request.signal > 0), dtype=torch.float64, device=machine.device)
        totals = machine.ranks.sum(torch.stack([sums[name] for name in names] + [asked]))
        means = totals[:-1] / plan.total_weight
        *losses, num_asked = totals.tolist()
        return dict(zip(names, means, strict=True)), all(map(math.isfinite, losses)), num_asked > 0.0

    def _update(self, means: dict[str, torch.Tensor]) -> None:
        """Update the weights, then what the objective and the average do after a step; count the losses."""
        if self.recipe.optimiser.clip_gradient_norm is not None:
            nn.utils.clip_grad_norm_(self.weights, self.recipe.optimiser.clip_gradient_norm)
        self.optimiser.step()
        self.module.end_step(self.machine.ranks)
        if self.average is not None:
            self.average.update_parameters(self.module)
        self.metrics.add(means)
        self.saving.add(means["total"])

    def _not_finite(self, videos: list[torch.Tensor]) -> UserError:
        ids = ", ".join(self.index.ids[row] for row in torch.cat(videos).tolist())
        return UserError(
            f"the loss is not finite at step {self.step} (recipe.maximum_skipped_steps: {self.skipped.allowed}). "
            f"Clips of the step are from {ids}. "
            f"Last good checkpoint: {self.saving.checkpoints.last_path or 'none'}. "
            "Lower recipe.schedule.base_rate, set recipe.optimiser.clip_gradient_norm, or look at those videos."
        )

    def _validate(self) -> bool:
        """Judge the network on the validation list if it is due; True if the figures may decide what is kept."""
        if self.validation is None or not self.validation.is_due(self.step, self.recipe.steps):
            return False
        module = self.kept
        # Set the mode of the whole module: it knows which of its parts stay in eval mode during training.
        was_training = module.training
        module.eval()
        # Each process judges its share by the statistics of the first one, because these are what is kept.
        self.machine.ranks.share(module.buffers())
        with self.times.phase("validation"):
            values = self.validation.run(module, self.step, self.machine.device)
        module.train(was_training)
        self.metrics.write(self.step, values)
        # A curve alone decides nothing, so that it needs no checkpoint.
        return bool(self.recipe.validation_steps)

    def _save(self) -> None:
        score = None if self.validation is None else self.validation.score
        with self.times.phase("checkpoint"):
            self.saving.save(self.step, self.weights, self.state, score)

    def _wrapped(self) -> Any:
        """The module, compiled if configured; with several processes its gradients are averaged over them."""
        machine = self.machine
        model: Any = torch.compile(self.module) if machine.compile else self.module
        if machine.ranks.num_ranks == 1:
            return model
        ids = [machine.ranks.local_rank] if machine.device.type == "cuda" else None
        distributed = DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)
        if machine.device.type == "cpu":
            distributed.register_comm_hook(None, mean_in_rank_order)
        return distributed

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, except the scores, which ``saving`` keeps."""
        return {
            "module": self.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "metrics": self.metrics.state(),
            "skipped": self.skipped.count,
            "elapsed": self.elapsed,
        }

    def resume(self) -> None:
        """Continue at the last good checkpoint, if there is one."""
        found = self.saving.checkpoints.latest()
        if found is None:
            return
        self.step, state = found
        self._load_weights(state)
        self.optimiser.load_state_dict(state["optimiser"])
        self.metrics.restore(state["metrics"])
        self.saving.restore(state["saving"])
        self.skipped.count = int(state["skipped"])
        self._earlier = float(state["elapsed"])

    def _load_weights(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])

    @property
    def elapsed(self) -> float:
        """Seconds since the first step, those of interrupted runs up to their last checkpoints included."""
        return self._earlier + time.monotonic() - self._began

    @property
    def kept(self) -> EndpointForward:
        """The module whose network is validated and kept: the average, if there is one."""
        return self.module if self.average is None else cast(EndpointForward, self.average.module)

    def final_network(self) -> nn.Module:
        """The network to keep after the last step, with the best or the last weights as the recipe says.

        Only one process calls it, after the others have ended.
        """
        if self.recipe.final_weights == "best":
            self._return_to_best()
        if self.recipe.reestimate_batch_norm:
            self._reestimate_batch_norm()
        return self.kept.finished()

    def _return_to_best(self) -> None:
        found = self.saving.checkpoints.best()
        if found is None:
            print("no readable best checkpoint: the last weights are kept", file=sys.stderr)
            return
        step, state = found
        self._load_weights(state)
        print(f"the best weights are those of step {step}", file=sys.stderr)

    def _reestimate_batch_norm(self) -> None:
        recipe, module = self.recipe, self.kept
        # This process is alone now.
        batch_norm.separate(module)
        # Clips after the last step, so that none of them is in the running statistics already.
        batches = self.batches.of_all_ranks(recipe.steps, recipe.reestimate_batch_norm)

        def forward(batch: Batch) -> None:
            torch.manual_seed(0)
            self.losses(module, to_network_input(batch, self.machine.device))

        batch_norm.reestimate(module, forward, batches)
