"""How good an adapter is at one domain: numbers over many texts, never one a patient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedpriv.errors import TrainingError
from fedpriv.training.answering import loss_and_answers, yes_probabilities
from fedpriv.training.examples import IGNORED, Encoder, Example, labels_of
from fedpriv.training.local_round import LocalContext
from fedpriv.training.shard import ExampleSource, heldout_source
from fedpriv.training.task_metrics import Float64, answer_metrics

if TYPE_CHECKING:
    from peft import PeftModel

BATCH = 8
LEAST = 32
"""Held-out lines that are always looked at. Of texts without questions no more: each has hundreds of tokens to tell."""

MOST = 256
"""Held-out lines that are looked at where questions are asked, each of which is one answer a question."""

MOST_WORK = 2 * 10**12
"""Tokens times the base model's parameters: beyond :data:`LEAST` lines a processor gets no more (20 s of two cores)."""


def evaluate_local(context: LocalContext, max_examples: int | None = None) -> dict[str, float]:
    """Return the loss of ``context.adapter`` on held-out examples, the first of the file.

    They are the same ones in every round: how many depends on the file, ``max_tokens`` and the base model alone. Texts
    are :data:`LEAST`; with questions, where every example tells little, up to :data:`MOST`, on a processor as far as
    :data:`MOST_WORK` goes. So the time has a bound, and no clock decides which examples they are.

    Parameters
    ----------
    context : LocalContext
        As for training.
    max_examples : int, optional
        So many lines instead.

    Returns
    -------
    dict[str, float]
        ``heldout_loss`` (mean over all predicted tokens, nats), ``heldout_tokens`` (how many those are) and
        ``heldout_examples``. Where the texts are asked questions, the tokens are the answers, and there are the metrics
        of :func:`fedpriv.training.task_metrics.answer_metrics`, too.

    Raises
    ------
    TrainingError
        If there is no usable held-out text.
    """
    import torch

    from fedpriv.training.model import base_of, load_model, put_adapter
    from fedpriv.training.traits import traits_of

    torch.set_num_threads(context.threads)
    model = load_model(context.model_folder, context.lora, context.training.precision)
    base = base_of(model)
    parameters = base.num_parameters() if base.device.type == "cpu" else 0
    anew = not traits_of(base).packable
    examples = heldout_examples(heldout_source(context), parameters, max_examples, anew=anew)
    if not examples:
        raise TrainingError("There is no held-out example of two tokens or more", todo="prepare the shard again")
    put_adapter(model, context.adapter)
    model.eval()
    if examples[0].answers:
        encoder = Encoder(context.model_folder, context.training.max_tokens)
        loss_sum, answered = _asked(model, examples, encoder.answer_tokens)
    else:
        loss_sum, answered = _told(model, examples), {}
    tokens = sum(label != IGNORED for example in examples for label in labels_of(example))
    return answered | {
        "heldout_loss": loss_sum / tokens,
        "heldout_tokens": float(tokens),
        "heldout_examples": float(len(examples)),
    }


def heldout_examples(
    source: ExampleSource, parameters: int, max_examples: int | None = None, *, anew: bool = False
) -> list[Example]:
    """Return the examples that an adapter is measured on, shortest first; see :func:`evaluate_local`.

    Parameters
    ----------
    source : ExampleSource
        The held-out file.
    parameters : int
        How many the base model has; 0 where they cost nothing to speak of.
    max_examples : int, optional
        So many lines, however long they are.
    anew : bool
        Whether a text is read anew for each of several questions.
    """
    least, most = (LEAST, MOST) if max_examples is None else (max_examples, max_examples)
    found: list[Example] = []
    work = 0
    for start in range(0, min(len(source), most), LEAST):
        if start >= least and not any(example.answers for example in found):
            break
        indices = range(start, min(start + LEAST, len(source), most))
        for index, example in zip(indices, source.read(list(indices)), strict=True):
            several = len(example.answers) > 1
            reads = 1 + (len(example.answers) if anew else 1) if several else 1  # see _asked
            work += len(example) * parameters * reads
            if index >= least and work > MOST_WORK:
                return sorted(found, key=len)
            if len(example) >= 2:
                found.append(example)
    return sorted(found, key=len)


def _told(model: PeftModel, examples: Sequence[Example]) -> float:
    """Return the summed loss of texts (nats)."""
    import torch

    from fedpriv.training.model import batch_loss

    loss_sum = 0.0
    with torch.no_grad():
        for start in range(0, len(examples), BATCH):
            with batch_loss(model, examples[start : start + BATCH]) as loss:
                loss_sum += float(loss)
    return loss_sum


def _asked(
    model: PeftModel, examples: Sequence[Example], answer_tokens: tuple[int, int]
) -> tuple[float, dict[str, float]]:
    """Return the summed loss of the true answers (nats), and how good the model's own are."""
    passes = [
        loss_and_answers(model, examples[start : start + BATCH], answer_tokens)
        for start in range(0, len(examples), BATCH)
    ]
    truth = np.array([[example.ids[place] == answer_tokens[0] for place in example.answers] for example in examples])
    if truth.shape[1] == 1:  # no answer before it: what the loss was read from is what the model says
        told: Float64 = np.concatenate([probabilities for _, probabilities in passes])
    else:
        told = yes_probabilities(model, examples, answer_tokens)
    return sum(loss for loss, _ in passes), answer_metrics(told, truth)
