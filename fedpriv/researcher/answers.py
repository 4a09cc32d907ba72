"""What domains' answers say together: the adapter they agree on, mean losses, mean seconds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from fedpriv.errors import StudyError, UntrustedError
from fedpriv.study import Result
from fedpriv.study.plan import ANSWER_METRICS, MetricName

_LEAST_ERROR, _NORMAL_95 = 0.01, 1.96
_LOSSES: frozenset[MetricName] = frozenset({"train_loss", "heldout_loss"})
_LARGEST_LOSS, _LARGEST_COUNT, _LONGEST_SECONDS = 1000.0, 2.0**53, 1e7
_SHORTEST_SECONDS = 1e-6
"""What took less is told as 0; rates and steps are divided by it."""
_MOST_TIMES = 64
_F1: dict[str, MetricName] = {"micro_f1": "heldout_micro_f1", "macro_f1": "heldout_macro_f1"}


def require_possible(result: Result) -> None:
    """Refuse an answer whose numbers cannot be so, before anything is made of it: a mean over them would be none.

    Raises
    ------
    UntrustedError
        Naming the domain and the number.
    """
    for name, value in result.metrics.items():
        count = name not in _LOSSES and name not in ANSWER_METRICS
        most = _LARGEST_LOSS if name in _LOSSES else 1.0 if name in ANSWER_METRICS else _LARGEST_COUNT
        if not 0 <= value <= most or (count and value != int(value)):
            raise _impossible(result, name)
    link = result.link
    moved = {"up_bytes": link.up_bytes, "down_bytes": link.down_bytes} if link else {}
    took = {"up_s": link.up_s, "down_s": link.down_s, "small_put_s": link.small_put_s} if link else {}
    if len(result.seconds) > _MOST_TIMES:
        raise _impossible(result, "number of times")
    for values, least, most in (
        (moved, 0, _LARGEST_COUNT),
        (took | result.seconds, _SHORTEST_SECONDS, _LONGEST_SECONDS),
    ):
        for name, value in values.items():
            if value and not least <= value <= most:
                raise _impossible(result, name)


def _impossible(result: Result, name: str) -> UntrustedError:
    return UntrustedError(
        f"{result.member} answered with a {name} that cannot be",
        kept="Its answer was not used",
        todo=f"ask its data owner what it runs; `fedpriv study exclude` goes on without {result.member}",
    )


def require_same_adapter(results: Mapping[str, Result]) -> str:
    """Return the digest of the adapter that all answers name.

    Raises
    ------
    StudyError
        If they name different ones.
    """
    digests = {email: result.adapter_sha256 for email, result in results.items()}
    counted = Counter(digests.values()).most_common()
    digest = counted[0][0] if len(counted) == 1 else None
    if digest is None:
        odd = sorted(email for email, held in digests.items() if counted and held != counted[0][0])
        raise StudyError(
            f"The domains do not hold the same adapter ({', '.join(odd)} against the others)",
            kept="Nothing further was run",
            todo="compare the ledgers: one domain opened another aggregate, or was put back to an old state",
        )
    return digest


def mean_loss(results: Mapping[str, Result]) -> float:
    """Return the held-out loss over all domains' examples: each domain's mean weighted by its tokens."""
    tokens = {email: metric(result, "heldout_tokens") for email, result in results.items()}
    return sum(metric(results[e], "heldout_loss") * n for e, n in tokens.items()) / sum(tokens.values())


def quality(results: Mapping[str, Result]) -> dict[str, float]:
    """Return how well questions are answered over all domains; empty where no domain reports it.

    The AUROC is the mean of the domains' weighted by the inverse of their variances, as a fixed-effect meta-analysis
    has it (an error of 0 counts as 0.01): pairs of patients are compared within a domain only, as no scores leave one.
    F1 is the mean weighted by held-out examples.

    Returns
    -------
    dict of str to float
        ``auroc``, ``auroc_low`` and ``auroc_high`` (its 95 % interval, cut to 0 and 1), ``micro_f1``, ``macro_f1``.
    """
    found: dict[str, float] = {}
    areas = [
        (r.metrics["heldout_auroc"], max(r.metrics["heldout_auroc_se"], _LEAST_ERROR) ** -2)
        for r in results.values()
        if "heldout_auroc" in r.metrics and "heldout_auroc_se" in r.metrics
    ]
    if areas:
        total = sum(weight for _, weight in areas)
        mean, reach = sum(area * weight for area, weight in areas) / total, _NORMAL_95 / math.sqrt(total)
        found |= {"auroc": mean, "auroc_low": max(0.0, mean - reach), "auroc_high": min(1.0, mean + reach)}
    for name, source in _F1.items():
        told = [r.metrics for r in results.values() if source in r.metrics]
        given = [(metrics[source], metrics.get("heldout_examples", 1.0)) for metrics in told]
        if examples := sum(weight for _, weight in given):
            found[name] = sum(value * weight for value, weight in given) / examples
    return {name: round(value, 6) for name, value in found.items()}


def mean_train_loss(results: Iterable[Result]) -> float | None:
    """Return the training loss over the domains that give one, each weighted by its tokens; None if none does."""
    given = [r.metrics for r in results if "train_loss" in r.metrics]
    tokens = sum(metrics.get("train_tokens", 1.0) for metrics in given)
    return sum(m["train_loss"] * m.get("train_tokens", 1.0) for m in given) / tokens if tokens else None


def metric(result: Result, name: MetricName) -> float:
    """Return a metric that every domain must report, a finite number over zero.

    Raises
    ------
    UntrustedError
        If it is missing, or none.
    """
    value = result.metrics.get(name)
    if value is None or not 0 < value < math.inf:
        raise UntrustedError(f"{result.member} answered without a usable {name}", kept="The round was not aggregated")
    return value


def mean_seconds(results: Mapping[str, Result]) -> dict[str, float]:
    """Return the mean wall clock of each part over the domains."""
    names = sorted({name for result in results.values() for name in result.seconds})
    return {name: sum(r.seconds.get(name, 0.0) for r in results.values()) / len(results) for name in names}
