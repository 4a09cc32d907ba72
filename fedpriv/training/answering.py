"""The model's answers to questions: how likely it takes yes, each question after its own answers to those before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedpriv.training.examples import IGNORED, Example, collate
from fedpriv.training.task_metrics import Float64

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

AT_ONCE = 8
"""Examples whose attention's keys and values are in memory together."""


def loss_and_answers(
    model: PeftModel, batch: Sequence[Example], answer_tokens: tuple[int, int]
) -> tuple[float, Float64]:
    """Return a batch's summed loss on the answers, and what it says of yes at each: one pass for both.

    The first question of an example is asked before any answer is shown, so its probability is the one of
    :func:`yes_probabilities` (up to rounding); those of later ones were read after the true answers before them.

    Parameters
    ----------
    model : PeftModel
        With the adapter, in evaluation mode.
    batch : sequence of Example
        With as many questions each.
    answer_tokens : tuple of int
        The tokens of yes and no.

    Returns
    -------
    float and ndarray of float64, (examples, questions)
        The loss in nats, as :func:`fedpriv.training.model.batch_loss` has it, and the probability of yes against no.
    """
    import torch

    from fedpriv.training.model import base_of
    from fedpriv.training.packing import pack, segments
    from fedpriv.training.traits import traits_of

    base = base_of(model)
    with torch.no_grad():
        if traits_of(base).packable:
            packed = pack(batch).to(base.device)
            labels = packed.labels
            with segments(packed.lengths):
                logits, pair = _labelled_logits(base, packed.tokens, labels, packed.positions, answer_tokens)
        else:
            tokens, labels = (part.to(base.device) for part in collate(batch))
            logits, pair = _labelled_logits(base, tokens, labels, None, answer_tokens)
        loss = torch.nn.functional.cross_entropy(logits, labels[labels != IGNORED], reduction="sum")
        yes = torch.softmax(pair, 1)[:, 0]
    return float(loss), yes.view(len(batch), -1).double().cpu().numpy()


def _labelled_logits(
    base: Any,
    tokens: torch.Tensor,
    labels: torch.Tensor,
    positions: torch.Tensor | None,
    pair: tuple[int, int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits where there is a label, (labels, vocabulary), and those of two tokens, (labels, 2); float32."""
    from fedpriv.training.loss import wanted_logits
    from fedpriv.training.traits import hidden_states, traits_of

    wanted = labels != IGNORED
    if not traits_of(base).plain_head:
        logits = wanted_logits(base, tokens, wanted, positions)
        return logits, logits[:, list(pair)]
    hidden = hidden_states(base, tokens, positions)[wanted]
    return (hidden @ base.get_output_embeddings().weight.t()).float(), _pair_logits(base, hidden, pair)


def _pair_logits(base: Any, hidden: torch.Tensor, pair: tuple[int, int]) -> torch.Tensor:
    """Return two tokens' logits in float32, (rows, 2): as bfloat16 they are so coarse that examples would tie."""
    return hidden.float() @ base.get_output_embeddings().weight[list(pair)].float().t()


def yes_probabilities(model: PeftModel, examples: Sequence[Example], answer_tokens: tuple[int, int]) -> Float64:
    """Return the probability of yes against no at each question.

    No true answer is shown to the model: where an example has a later question, the answers before it are the model's
    own, yes where that is likelier. Where the model can be packed, a text is read once; its attention's keys and values
    are kept for the questions, which are the same of every text, and texts of similar length are read together, since
    what stands before a text's beginning changes nothing. Other models read each text anew for every question.

    Parameters
    ----------
    model : PeftModel
        With the adapter, in evaluation mode.
    examples : sequence of Example
        With the same questions each.
    answer_tokens : tuple of int
        The tokens of yes and no.

    Returns
    -------
    ndarray of float64, (examples, questions)
    """
    import torch

    from fedpriv.training.model import base_of
    from fedpriv.training.traits import traits_of

    base = base_of(model)
    together = AT_ONCE if traits_of(base).packable else 1
    order = sorted(range(len(examples)), key=lambda number: examples[number].answers[0])
    told = np.empty((len(examples), len(examples[0].answers)), np.float64)
    with torch.no_grad():
        for start in range(0, len(order), together):
            rows = order[start : start + together]
            told[rows] = _answers(base, [examples[row] for row in rows], answer_tokens)
    return told


def _answers(base: Any, group: Sequence[Example], answer_tokens: tuple[int, int]) -> Float64:
    """Answer the questions of some examples, padded on the left so that all answers stand at the same place."""
    import torch

    from fedpriv.training.traits import backbone_of, computing, traits_of

    plain, keeps = traits_of(base).plain_head, traits_of(base).packable  # others keep state of a kind of their own
    yes, no = answer_tokens
    longest = max(example.answers[0] for example in group)
    tokens = torch.zeros(len(group), longest, dtype=torch.long)
    seen = torch.zeros_like(tokens)
    for row, example in enumerate(group):
        tokens[row, longest - example.answers[0] :] = torch.tensor(example.ids[: example.answers[0]])
        seen[row, longest - example.answers[0] :] = 1
    told: list[torch.Tensor] = []
    cache = None
    for number in range(len(group[0].answers)):
        if number:
            own = torch.where(told[-1] > 0.5, yes, no).cpu().unsqueeze(1)
            following = torch.cat([own, _question(group, number)], dim=1)
            seen = torch.cat([seen, torch.ones_like(following)], dim=1)
            tokens = following if keeps else torch.cat([tokens, following], dim=1)
        where: Any = {}
        if len(group) > 1:
            positions = (seen.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
            where = {"attention_mask": seen.to(base.device), "position_ids": positions.to(base.device)}
        where |= {"past_key_values": cache, "use_cache": True} if keeps else {"use_cache": False}
        with computing(base):
            if plain:
                out = backbone_of(base)(input_ids=tokens.to(base.device), **where)
            else:
                out = base(input_ids=tokens.to(base.device), logits_to_keep=1, **where)
        pair = _pair_logits(base, out.last_hidden_state[:, -1], (yes, no)) if plain else out.logits[:, -1, [yes, no]]
        cache = out.past_key_values if keeps else None
        told.append(torch.softmax(pair.float(), 1)[:, 0])
    return torch.stack(told, dim=1).double().cpu().numpy()


def _question(group: Sequence[Example], number: int) -> torch.Tensor:
    """Return the tokens between two answers, (examples, length): the words of one question, the same in each."""
    import torch

    return torch.tensor([example.ids[example.answers[number - 1] + 1 : example.answers[number]] for example in group])
