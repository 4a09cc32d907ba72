"""What domains' answers say together: the adapter they agree on, mean losses, mean seconds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from fedpriv.errors import StudyError, UntrustedError
from fedpriv.study import Result
from fedpriv.study.plan import MetricName


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
