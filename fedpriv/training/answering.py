"""The model's answers to questions: how likely it takes yes, each question after its own answers to those before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedpriv.training.examples import Example
from fedpriv.training.task_metrics import Float64

if TYPE_CHECKING:
    from peft import PeftModel


def yes_probabilities(model: PeftModel, examples: Sequence[Example], answer_tokens: tuple[int, int]) -> Float64:
    """Return the probability of yes against no at each question.

    No true answer is shown to the model: where an example has a later question, the answers before it are the model's
    own, yes where that is likelier. A text is read once; its attention's keys and values are kept for the questions.

    Parameters
    ----------
    model : PeftModel
        With the adapter, in evaluation mode.
    examples : sequence of Example
        With as many questions each.
    answer_tokens : tuple of int
        The tokens of yes and no.

    Returns
    -------
    ndarray of float64, (examples, questions)
    """
    import torch

    with torch.no_grad():
        return np.array([_answers(model, example, answer_tokens) for example in examples], dtype=np.float64)


def _answers(model: PeftModel, example: Example, answer_tokens: tuple[int, int]) -> list[float]:
    import torch

    from fedpriv.training.model import base_of
    from fedpriv.training.traits import computing

    base: Any = base_of(model)
    yes, no = answer_tokens
    told: list[float] = []
    cache, start = None, 0
    ids = list(example.ids)
    for position in example.answers:
        tokens = torch.tensor([ids[start:position]], device=base.device)
        with computing(base):
            out = base(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache, start = out.past_key_values, position
        pair = out.logits[0, -1, [yes, no]].float()
        told.append(float(torch.softmax(pair, 0)[0]))
        ids[position] = yes if told[-1] > 0.5 else no
    return told
