"""What a model writes, and what it answers, with an adapter and without. For made-up or public prompts only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from fedpriv.errors import TrainingError
from fedpriv.study.plan import LoraChoice
from fedpriv.training.adapter import AdapterState
from fedpriv.training.answering import yes_probabilities
from fedpriv.training.examples import Encoder, Example
from fedpriv.training.task_metrics import Float64


class Sampler:
    """A base model with an adapter that can be taken off.

    *Assumption*: prompts come from nobody's records. What a model writes is not protected in any way.

    Parameters
    ----------
    model_folder, lora
        The base model and the plan's section.
    adapter : AdapterState
        Of the layout that both give.
    encoder : Encoder
        Of the base model.
    threads : int
        Processor threads to use.
    """

    def __init__(
        self, model_folder: Path, lora: LoraChoice, adapter: AdapterState, encoder: Encoder, *, threads: int = 1
    ) -> None:
        import torch

        from fedpriv.training.model import load_model, put_adapter

        torch.set_num_threads(threads)
        self._encoder, self._model = encoder, load_model(model_folder, lora)
        put_adapter(self._model, adapter)
        self._model.eval()

    def write(self, prompt: Sequence[int], *, tokens: int, temperature: float, seed: int, adapted: bool) -> str:
        """Return how the model goes on after a prompt.

        Parameters
        ----------
        prompt : sequence of int
            Token ids.
        tokens : int
            The most to write; an end of the text ends it earlier.
        temperature : float
            0 takes the likeliest token each time; above, tokens are drawn from ``softmax(logits / temperature)``.
        seed : int
            Of the draws.
        adapted : bool
            With the adapter.

        Raises
        ------
        TrainingError
            If the model's output is not finite: nothing can be drawn from it.
        """
        import torch
        from transformers import GenerationConfig

        chosen = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
        end = self._model.generation_config.eos_token_id
        config = GenerationConfig(max_new_tokens=tokens, eos_token_id=end, pad_token_id=0, **chosen)
        start = torch.tensor([list(prompt)], device=self._model.device)
        torch.manual_seed(seed)
        with self._adapter(worn=adapted), torch.no_grad():
            try:
                written = self._model.generate(
                    input_ids=start, attention_mask=torch.ones_like(start), generation_config=config
                )
            except RuntimeError as error:  # what torch raises where a probability is not one
                raise TrainingError("The model's output cannot be drawn from", todo="choose another adapter") from error
        return self._encoder.decode(written[0, len(prompt) :].tolist())

    def answers(self, examples: Sequence[Example], *, adapted: bool) -> Float64:
        """Return the probability of yes at each question, (examples, questions); see :func:`yes_probabilities`."""
        with self._adapter(worn=adapted):
            return yes_probabilities(self._model, examples, self._encoder.answer_tokens)

    @contextlib.contextmanager
    def _adapter(self, *, worn: bool) -> Iterator[None]:
        with contextlib.nullcontext() if worn else self._model.disable_adapter():
            yield
