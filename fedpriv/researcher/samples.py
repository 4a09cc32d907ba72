"""What an adapter changed, for the eye: what the model writes or answers on made-up prompts, with and without it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedpriv.clinical import write_mock
from fedpriv.errors import StudyError, TrainingError
from fedpriv.researcher.sensitivity import MOCK_SEED
from fedpriv.researcher.study import Study
from fedpriv.study import CodeRequest
from fedpriv.training.adapter import AdapterState, adapter_digest, load_state, lora_layout
from fedpriv.training.base_model import LocalModel
from fedpriv.training.examples import Encoder, Example, example_order, read_lines
from fedpriv.training.sampling import Sampler

PEFT_WEIGHTS = "adapter_model.safetensors"
_NOT_RELEASED = "The domains have not released the adapter to you yet"


@dataclass(frozen=True, kw_only=True)
class Written:
    """How one made-up text goes on.

    Attributes
    ----------
    prompt : str
        Its beginning.
    base, adapted : str
        What the base model writes after it, and what it writes with the adapter.
    """

    prompt: str
    base: str
    adapted: str


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One question about one made-up text.

    Attributes
    ----------
    prompt : str
        The text, as far as the model reads it.
    question : str
        What is asked.
    answer : bool
        The made-up text's own: whether it is yes.
    base, adapted : float
        The probability of yes without the adapter, and with it.
    """

    prompt: str
    question: str
    answer: bool
    base: float
    adapted: float


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What an adapter changed.

    Attributes
    ----------
    written : tuple of Written
        Where texts are learned.
    answered : tuple of Answered
        Where questions are; those of one text one after the other.
    temperature, seed
        How it was written.
    """

    written: tuple[Written, ...]
    answered: tuple[Answered, ...]
    temperature: float
    seed: int

    def as_json(self) -> dict[str, Any]:
        """Return them for a program."""
        return {"samples_version": 1, "prompts": "made up (mock)", **asdict(self)}


def released_adapter(study: Study, model: LocalModel, folder: Path | None = None) -> AdapterState:
    """Return the adapter that the study's domains released, or the one of a PEFT folder, checked against the plan.

    Raises
    ------
    StudyError
        If none was released yet, or the folder has none.
    GatekeeperError, UntrustedError
        If it is not an adapter of the plan.
    """
    path = study.folder.state / "adapter.safetensors" if folder is None else folder / PEFT_WEIGHTS
    todo = f"run `fedpriv study release {study.folder.root.name}`, or give --adapter a PEFT folder"
    if not path.exists():
        raise StudyError(_NOT_RELEASED if folder is None else f"{folder} has no adapter", todo=todo)
    state = load_state(path, lora_layout(model.folder, study.plan.lora))
    if folder is None:  # the file is there before its digest is compared: only what ended well is in the history
        released = {r.get("adapter_sha256") for r in study.history.records() if r.get("event") == "AdapterReleased"}
        if adapter_digest(state) not in released:
            raise StudyError(_NOT_RELEASED, todo=todo)
    return state


def samples(
    request: CodeRequest,
    model: LocalModel,
    adapter: AdapterState,
    *,
    prompts: int = 3,
    tokens: int = 48,
    temperature: float = 0.0,
    seed: int = 0,
    threads: int = 1,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Samples:
    """Let a model write or answer on the mock examples of a request's task, without an adapter and with it.

    *Guarantee*: prompts are made up here, from the plan's task and template alone; nothing of a domain is read.

    Parameters
    ----------
    request : CodeRequest
        The study's.
    model : LocalModel
        The plan's base model.
    adapter : AdapterState
        From :func:`released_adapter`.
    prompts : int
        How many texts; ``seed`` chooses which.
    tokens : int
        The most that is written after the first half of a text.
    temperature : float
        0 takes the likeliest token each time.
    seed : int
        Of the choice and the draws.
    threads : int
        Processor threads to use.
    report : Callable[[int, int], None]
        Called with how much is done, and its total.

    Raises
    ------
    TrainingError
        If no mock example can be used.
    """
    plan = request.plan
    encoder = Encoder(model.folder, plan.training.max_tokens)
    with tempfile.TemporaryDirectory() as scratch:
        write_mock(Path(scratch) / "mock", seed=MOCK_SEED, task=plan.task, files=request.files)
        lines = read_lines(Path(scratch) / "mock" / "examples.jsonl")
    encoded = [example for example in encoder.encode(lines) if len(example) >= 2]
    if not encoded:
        raise TrainingError("The task has no made-up example", todo="check the template")
    order = example_order(len(encoded), seed, 0)
    chosen = [encoded[next(order)] for _ in range(min(prompts, len(encoded)))]
    sampler = Sampler(model.folder, plan.lora, adapter, encoder, threads=threads)
    if plan.task.is_predictive:
        answered = _answered(sampler, chosen, encoder, plan.task.questions, report)
        return Samples(written=(), answered=answered, temperature=temperature, seed=seed)
    written = []
    for number, example in enumerate(chosen):
        prompt, said = example.ids[: max(1, len(example) // 2)], []
        for adapted in (False, True):
            report(2 * number + adapted, 2 * len(chosen))
            said.append(
                sampler.write(prompt, tokens=tokens, temperature=temperature, seed=seed + number, adapted=adapted)
            )
        written.append(Written(prompt=encoder.decode(prompt), base=said[0], adapted=said[1]))
    report(2 * len(chosen), 2 * len(chosen))
    return Samples(written=tuple(written), answered=(), temperature=temperature, seed=seed)


def _answered(
    sampler: Sampler,
    examples: list[Example],
    encoder: Encoder,
    questions: tuple[str, ...],
    report: Callable[[int, int], None],
) -> tuple[Answered, ...]:
    """Ask each text all questions, each after the model's own answers to those before it."""
    yes, _ = encoder.answer_tokens
    found: list[Answered] = []
    for number, example in enumerate(examples):
        report(number, len(examples))
        base, adapted = (sampler.answers([example], adapted=adapted)[0] for adapted in (False, True))
        told = encoder.decode(example.ids[: example.answers[0]]).removesuffix(f"\n{questions[0]}")
        found += [
            Answered(
                prompt=told,
                question=question,
                answer=example.ids[place] == yes,
                base=float(base[place_number]),
                adapted=float(adapted[place_number]),
            )
            for place_number, (question, place) in enumerate(zip(questions, example.answers, strict=True))
        ]
    report(len(examples), len(examples))
    return tuple(found)
