"""Sequence recovery: the very text that an update was computed from, word for word.

The inputs of deeper layers depend on all that stands before a position. So whoever knows the base model can compute
what a layer would have got for a guess at the text's beginning, and compare: does it lie in what the update of that
layer's ``lora_A`` spans? One position after the other, over all layers that are visible, in the manner of DAGER (Petrov
et al. 2024, arXiv 2405.15586), with a beam and with what public text says about which token follows which.

A token that stands somewhere further on speaks for itself at every position. So a guess is judged by how much better
the token fits where it is than it would after some public text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedpriv.leakage.evidence import Evidence
from fedpriv.leakage.known_layers import KnownLayers, known_layers
from fedpriv.leakage.language import Bigrams
from fedpriv.leakage.layer_inputs import Tree
from fedpriv.leakage.layered import presence, pursue_layers
from fedpriv.leakage.pursuit import Float64
from fedpriv.leakage.views import View
from fedpriv.study.plan import LoraChoice
from fedpriv.training.adapter import AdapterState
from fedpriv.training.examples import Example

_TRUST = 1.0
"""Part of the layers' mean log-likelihood that counts beside what public text says: all layers tell much the same."""

_CANDIDATES, _FOLLOWERS = 192, 32
"""Tokens that are tried everywhere, if none are given; and those that are tried after another one in addition."""

_STARTS, _EXPLAINED = 3, 1e-3
"""Beginnings that are tried, the likeliest first; and the share of the rows' energy that a passage may leave out
if nothing else is to be tried: after a wrong token what follows is wrong, too, and only the end shows it."""

BEAMS = (4, 16)
"""Texts that are kept at each position, first and then where that explained too little."""

_BRANCHES, _SIFTED, _EARLY = 3, 6, 6
"""Most texts that go on from the same one; for each that is kept, as many that all layers judge; and the number of
layers that sift them before."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """What an attacker knows before it sees an update.

    Attributes
    ----------
    layers : KnownLayers
        How the inputs of the model's layers look.
    language : Bigrams
        Which token follows which in public text.
    """

    layers: KnownLayers = field(repr=False)
    language: Bigrams = field(repr=False)


def sequence_reader(
    model_folder: Path, lora: LoraChoice, adapter: AdapterState, public: Sequence[Example], *, noise: float = 0.0
) -> Reader:
    """Make a reader; parameters and errors as of :func:`fedpriv.leakage.known_layers.known_layers`."""
    layers = known_layers(model_folder, lora, adapter, public, noise=noise)
    return Reader(layers=layers, language=Bigrams.of(public, layers.inputs.vocabulary))


@dataclass(frozen=True, kw_only=True)
class _Guess:
    """A beginning, and what is left of the rows without it."""

    tokens: tuple[int, ...]
    score: float
    evidence: dict[int, Evidence] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class _Step:
    """A token after the guess of this place in a beam, the score of both, and what layers get for it."""

    place: int
    token: int
    score: float
    inputs: dict[int, Float64] = field(repr=False)


def recover_sequences(
    view: View,
    reader: Reader,
    *,
    length: int,
    passages: int = 1,
    candidates: Sequence[int] = (),
    beams: Sequence[int] = BEAMS,
) -> list[tuple[int, ...]]:
    """Guess the texts behind an update, token for token.

    Parameters
    ----------
    view : View
        What a party holds of the update.
    reader : Reader
        What it knows beforehand.
    length : int
        How many tokens each passage has, without its last one, which no update shows.
    passages : int
        How many passages to look for, one after the other; each takes as long as the first.
    candidates : sequence of int
        Tokens that may be in them, such as twice as many as they have of those that
        :func:`fedpriv.leakage.tokens.recover_tokens` names; by default those that are likely by the first layers that
        are visible.
    beams : sequence of int
        How many texts to keep at each position; the next one is tried where a passage explains too little of a plain
        update. The time grows with each.

    Returns
    -------
    list of tuple of int
        Of ``length`` tokens each; empty if nothing is visible, for then there is nothing to judge a guess by.

    Raises
    ------
    InputError
        If a value that is visible is not finite.
    """
    evidence = reader.layers.evidence(view)
    if not evidence:
        return []
    tokens = list(candidates) or _likely(reader, evidence)
    found = []
    for _ in range(passages):
        best = _read(reader, evidence, tokens, length, beams)
        found.append(best.tokens)
        evidence = best.evidence
    return found


def _likely(reader: Reader, evidence: dict[int, Evidence]) -> list[int]:
    """Return tokens that the first visible layers speak for."""
    groups = sorted(evidence)[:_EARLY]
    prior = presence(reader.language.frequency, _CANDIDATES)
    return pursue_layers(reader.layers.typical(groups), evidence, _CANDIDATES, prior)


def _read(
    reader: Reader, evidence: dict[int, Evidence], tokens: Sequence[int], length: int, beams: Sequence[int]
) -> _Guess:
    """Return the passage that explains most, of those that the likeliest first tokens lead to."""
    nothing = _Guess(tokens=(), score=0.0, evidence=evidence)
    first = _judged(reader, [nothing], [list(tokens)], sorted(evidence))
    starts = _extended([nothing], sorted(first, key=lambda step: -step.score)[:_STARTS])
    best = nothing
    for beam in beams[:1] if reader.layers.noise else beams:  # under noise nothing is explained entirely
        for start in starts:
            found = _read_on(reader, start, tokens, length, beam)
            best = min(best, found, key=lambda guess: _left(guess, evidence))
            if _left(best, evidence) < _EXPLAINED:
                return best
    return best


def _read_on(reader: Reader, start: _Guess, tokens: Sequence[int], length: int, width: int) -> _Guess:
    """Return what a beam search makes of a beginning: the passage that explains most."""
    groups, beam = sorted(start.evidence), [start]
    for _ in range(length - len(start.tokens)):
        sifted = _judged(reader, beam, [_next(reader, guess, tokens) for guess in beam], groups[:_EARLY])
        best = sorted(sifted, key=lambda step: -step.score)[: _SIFTED * width]
        following = [[step.token for step in best if step.place == place] for place in range(len(beam))]
        beam = _extended(beam, _kept(_judged(reader, beam, following, groups), width))
    return min(beam, key=lambda guess: _left(guess, start.evidence))


def _left(guess: _Guess, evidence: dict[int, Evidence]) -> float:
    """Return the share of the energy of all rows that a guess does not explain."""
    return float(
        np.mean([np.square(guess.evidence[g].rows).sum() / np.square(evidence[g].rows).sum() for g in evidence])
    )


def _kept(judged: Sequence[_Step], width: int) -> list[_Step]:
    """Return the best of a judgement, not all of them from one guess if there are several: the first may be wrong."""
    most = _BRANCHES if len({step.place for step in judged}) > 1 else width
    kept, branches = [], Counter[int]()
    for step in sorted(judged, key=lambda step: -step.score):
        branches[step.place] += 1
        if branches[step.place] <= most:
            kept.append(step)
    return kept[:width]


def _next(reader: Reader, guess: _Guess, tokens: Sequence[int]) -> list[int]:
    before = guess.tokens[-1] if guess.tokens else None
    return list(dict.fromkeys([*tokens, *reader.language.after(before, _FOLLOWERS)]))


def _judged(
    reader: Reader, beam: Sequence[_Guess], following: Sequence[Sequence[int]], groups: Sequence[int]
) -> list[_Step]:
    """Judge by these layers each of the tokens that may follow each guess."""
    tree = Tree()
    ends = [tree.add_beginning(guess.tokens) for guess in beam]
    nodes = [[tree.add(token, end) for token in some] for end, some in zip(ends, following, strict=True)]
    inputs = reader.layers.whitened(tree, groups)
    found = []
    for place, (guess, some, at) in enumerate(zip(beam, following, nodes, strict=True)):
        if not some:
            continue
        elsewhere = reader.layers.elsewhere(some, groups)
        both = [guess.evidence[g].gains(np.vstack([inputs[g][at], elsewhere[g]])) for g in groups]
        nats = [gains.reshape(2, -1) * inputs[group].shape[1] / 2 for group, gains in zip(groups, both, strict=True)]
        here, there = np.mean(nats, axis=0)
        before = guess.tokens[-1] if guess.tokens else None
        scores = guess.score + _TRUST * (here - there) + reader.language.logarithm(before, some)
        for token, score, node in zip(some, scores, at, strict=True):
            seen = {group: inputs[group][node] for group in groups}
            found.append(_Step(place=place, token=token, score=float(score), inputs=seen))
    return found


def _extended(beam: Sequence[_Guess], steps: Sequence[_Step]) -> list[_Guess]:
    """Return the guesses that steps of all layers lead to, without what they explain."""
    return [
        _Guess(
            tokens=(*beam[step.place].tokens, step.token),
            score=step.score,
            evidence={group: beam[step.place].evidence[group].without(seen) for group, seen in step.inputs.items()},
        )
        for step in steps
    ]
