"""One domain's part of one round with record-level differential privacy: DP-SGD (Abadi et al. 2016) on LoRA.

The record is the patient. This is fedpriv's own code and takes the place of a request's recipe: a recipe that is not
trusted could return anything and call it private.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from pydantic import Field

from fedpriv.errors import TrainingError
from fedpriv.study.section import Section
from fedpriv.training import noise
from fedpriv.training.examples import IGNORED, Example, collate
from fedpriv.training.local_round import LocalContext, LocalOutcome
from fedpriv.training.shard import training_patients

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

Patient = list[Example]

MOST_ROWS = 16
"""Notes whose gradients are computed at a time; fewer where the adapter is large, see :data:`MOST_NUMBERS`."""

MOST_NUMBERS = 64 * 2**20
"""Numbers of single notes' gradients in memory at a time: 256 MiB of float32."""


class PrivateSteps(Section):
    """The mechanism of one private round, as the domain accounts for it."""

    noise_multiplier: float = Field(ge=0, le=1e6, description="sigma: standard deviation of the noise over the clip")
    sampling: float = Field(gt=0, le=1, description="q: probability that a patient is in a step")
    patients: int = Field(ge=1, description="n: patients of the training file")
    clip: float = Field(gt=0, le=1e6, description="C: largest L2 norm of one patient's gradient")
    notes_per_patient: int = Field(ge=1, le=1024)


def train_private(context: LocalContext, private: PrivateSteps) -> LocalOutcome:
    """Train the adapter's ``lora_B`` for ``training.steps`` steps of DP-SGD, at the most, and return it.

    A step draws every patient for itself with probability ``q`` (Poisson sampling), and of each one drawn at most
    ``notes_per_patient`` notes. A patient's loss is the mean over the tokens of these notes; its gradient is scaled
    down to L2 norm ``C`` if it is longer. To the sum of these gradients comes noise ``N(0, (sigma C)^2)`` for each
    parameter; divided by ``q n``, the expected number of patients, that is the step's direction. A draw of nobody is a
    step of noise alone.

    The step is as long as a parameter moving by the learning rate in the root mean square. That needs no knowledge of
    the clip or of the noise, and where noise is most of the direction it loses less than Adam, which scales every
    parameter for itself and weighs the noise of the first steps most. ``lora_A`` stays as it is (FFA-LoRA, Sun et al.
    2024): half of the noise is spared, and none of it is multiplied by other noise.

    *Guarantee*: seen together, all steps are the Poisson-sampled Gaussian mechanism with ``sigma`` and ``q``, composed
    as often as there are steps, followed by computations that read no note. Neighbours are two shards that differ in
    one patient: all of that patient's notes are there, or count nothing. Fewer steps, when time is up, are less. No
    failure depends on notes: a gradient that is not finite counts as nothing.
    *Assumption*: the noise and the draws are unpredictable (:mod:`fedpriv.training.noise`). A patient's gradient does
    not depend on who else is in the step: there is no dropout (the plan refuses it) and no layer looks across examples;
    rounding in float32, which does depend on the batch, is taken as negligible beside the noise. How long a step takes
    is not hidden.

    Parameters
    ----------
    context : LocalContext
        As for the stock recipe; ``train`` must say which patient each example is of. ``seed`` is not used.
    private : PrivateSteps
        The mechanism.

    Returns
    -------
    LocalOutcome
        The only metric is ``examples``: a loss of training patients has no noise on it.

    Raises
    ------
    TrainingError
        If the file has other patients than ``private`` says, or no usable example.
    ModelError
        If the base model cannot be loaded.
    """
    import torch

    from fedpriv.training.model import adapter_parameters, load_model, put_adapter, take_adapter

    started = time.monotonic()
    torch.set_num_threads(context.threads)
    choice = context.training
    patients = training_patients(context)
    examples = sum(map(len, patients))
    if len(patients) != private.patients or not examples:
        raise TrainingError(
            "The shard has no usable example, or other patients than are accounted for",
            todo="prepare the shard again",
        )
    model = load_model(context.model_folder, context.lora)
    put_adapter(model, context.adapter)
    trained = {name: p for name, p in adapter_parameters(model).items() if name.endswith(".lora_B.weight")}
    with per_note_gradients(model, trained):
        for step in range(1, choice.steps + 1):
            drawn = [patients[index] for index in noise.sampled(len(patients), private.sampling)]
            total = clipped_sum(model, trained, drawn, clip=private.clip, most=private.notes_per_patient)
            move(trained, noisy_mean(total, private), choice.learning_rate)
            context.report(step, choice.steps)
            if time.monotonic() - started >= choice.max_seconds:
                break
    return LocalOutcome(adapter_after=take_adapter(model), metrics={"examples": float(examples)})


@contextlib.contextmanager
def per_note_gradients(model: PeftModel, trained: dict[str, torch.nn.Parameter]) -> Iterator[None]:
    """Let a backward pass leave each row's gradient in ``grad_sample`` (opacus), for the parameters ``trained`` only.

    In the block, nothing else of the model has gradients; afterwards all is as before.
    """
    from opacus.grad_sample import GradSampleModule

    from fedpriv.training.model import adapter_parameters

    wanted = {parameter: parameter.requires_grad for parameter in adapter_parameters(model).values()}
    ours = set(trained.values())
    for parameter in wanted:
        parameter.requires_grad_(parameter in ours)
    model.train()  # opacus looks at modules in training mode only
    hooked = GradSampleModule(model, loss_reduction="sum", strict=False)
    try:
        with warnings.catch_warnings():
            # The first layer's input needs no gradient: opacus gets what it needs of it nonetheless.
            warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
            yield
    finally:
        hooked.to_standard_module()
        for parameter, requires in wanted.items():
            parameter.requires_grad_(requires)
            parameter.grad = None


def clipped_sum(
    model: PeftModel, trained: dict[str, torch.nn.Parameter], drawn: Sequence[Patient], *, clip: float, most: int
) -> dict[str, torch.Tensor]:
    """Return the sum of the drawn patients' gradients, each scaled down to L2 norm ``clip`` if it is longer.

    *Guarantee*: adding or removing one patient changes the result by at most ``clip`` in L2 norm, over all parameters
    together. *Assumption*: as for :func:`train_private`, whose block :func:`per_note_gradients` this is called in.

    Parameters
    ----------
    drawn : sequence of patients
        Each a list of notes; of each, ``most`` notes at random are used.

    Returns
    -------
    dict of Tensor of float64
        For each trained parameter, in its shape.
    """
    import torch

    total = {name: torch.zeros(p.shape, dtype=torch.float64, device=p.device) for name, p in trained.items()}
    rows = max(1, min(MOST_ROWS, MOST_NUMBERS // max(1, sum(p.numel() for p in trained.values()))))
    notes = [[patient[index] for index in noise.chosen(len(patient), most)] for patient in drawn]
    for group in _groups([patient for patient in notes if patient], rows):
        gradients = _patient_gradients(model, trained, group)
        norms = torch.sqrt(torch.stack([g.flatten(1).double().square().sum(1) for g in gradients.values()]).sum(0))
        finite = torch.isfinite(norms)
        factors = torch.clamp(clip / norms[finite], max=1.0)  # a norm of 0 gives infinity, hence 1
        for name, gradient in gradients.items():
            total[name] += torch.einsum("p,p...->...", factors, gradient[finite].double())
    return total


def _groups(patients: Sequence[Patient], rows: int) -> Iterator[list[Patient]]:
    """Divide patients, whole ones, into groups of about ``rows`` notes of similar length."""
    group: list[Patient] = []
    for patient in sorted(patients, key=lambda notes: max(map(len, notes))):
        if group and sum(map(len, group)) + len(patient) > rows:
            yield group
            group = []
        group.append(patient)
    if group:
        yield group


def _patient_gradients(
    model: PeftModel, trained: dict[str, torch.nn.Parameter], group: Sequence[Patient]
) -> dict[str, torch.Tensor]:
    """Return each patient's gradient of the mean loss of a token: float32, shape (patients, *parameter)."""
    import torch

    from fedpriv.training.model import next_token_loss

    inputs, labels = collate([note for patient in group for note in patient])
    owner = torch.tensor([number for number, patient in enumerate(group) for _ in patient])
    tokens = torch.zeros(len(group)).index_add(0, owner, (labels != IGNORED).sum(1).float())
    device = next(iter(trained.values())).device
    owner, tokens = owner.to(device), tokens.to(device)
    for parameter in trained.values():
        parameter.grad = None
    next_token_loss(model, inputs, labels).backward()
    gradients = {}
    for name, parameter in trained.items():
        of_note = cast("torch.Tensor", parameter.grad_sample)  # type: ignore[attr-defined] # opacus puts it there
        of_patient = torch.zeros(len(group), *parameter.shape, device=device).index_add(0, owner, of_note)
        gradients[name] = of_patient / tokens.view(-1, *[1] * parameter.dim())
        parameter.grad_sample = None  # type: ignore[attr-defined] # the next backward pass would add to it
    return gradients


def noisy_mean(total: Mapping[str, torch.Tensor], private: PrivateSteps) -> dict[str, torch.Tensor]:
    """Return ``(sum + N(0, (sigma C)^2)) / (q n)`` for each parameter, in float64."""
    import torch

    expected, deviation = private.sampling * private.patients, private.noise_multiplier * private.clip
    return {
        name: (summed + torch.from_numpy(deviation * noise.gaussian(summed.numel())).to(summed).view_as(summed))
        / expected
        for name, summed in total.items()
    }


def move(trained: Mapping[str, torch.nn.Parameter], direction: Mapping[str, torch.Tensor], rate: float) -> None:
    """Move the parameters against ``direction``, by ``rate`` in the root mean square over all of them."""
    import torch

    count = sum(part.numel() for part in direction.values())
    length = float(torch.sqrt(torch.stack([part.square().sum() for part in direction.values()]).sum() / count))
    if not length > 0:
        return  # without noise, a draw of nobody
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.sub_((direction[name] * (rate / length)).to(parameter.dtype))
