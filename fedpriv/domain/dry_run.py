"""A dry run: a data owner tries a request's code on made-up patients before anybody approves it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from fedpriv.clinical import write_mock
from fedpriv.domain import sandbox
from fedpriv.domain.domain import Domain
from fedpriv.domain.requests import StoredRequest
from fedpriv.domain.trial import MOST_LOG_LINES, DryRun, OnStep, Trial, model_of, shorter, trial_folder
from fedpriv.errors import ExistsError, RefusedError
from fedpriv.files import write_json
from fedpriv.study import CodeRequest, TaskChoice

__all__ = ["MOST_LOG_LINES", "MOST_SECONDS", "MOST_STEPS", "DryRun", "OnStep", "dry_run", "last_dry_run"]

MOST_STEPS = 2
MOST_SECONDS = 300


def dry_run(
    domain: Domain,
    stored: StoredRequest,
    on_step: OnStep,
    *,
    without_sandbox: bool = False,
    cache: Path | None = None,
    max_seconds: int = MOST_SECONDS,
) -> DryRun:
    """Run a request's code for at most two steps on mock data, as a real round would, and keep what it showed.

    Guarantee: the code gets copies of mock examples, which depend on no patient, the base model and a new adapter.
    Inside bubblewrap it can read nothing else of the domain, and has no network.
    Assumption: without bubblewrap there are no walls; therefore this refuses then, unless ``without_sandbox``.

    Parameters
    ----------
    on_step : Callable[[int, int], None]
        Called with (step, steps).
    without_sandbox : bool, default False
        Run even where the domain's setting and machine give no sandbox.
    cache : Path, optional
        Where base models are; by default fedpriv's cache. A missing one is fetched.
    max_seconds : int, default 300
        The plan's time limit, or this one if it is less, in seconds.

    Raises
    ------
    RefusedError
        If there would be no sandbox, or the base model has other weights than the plan names.
    ModelError
        If the base model cannot be had.
    LockError
        If another dry run of this domain is going on.
    """
    setting = domain.config.resources.sandbox
    if not without_sandbox and (setting == "off" or sandbox.bubblewrap() is None):
        raise RefusedError(
            "There is no sandbox here, so the code could read everything that you can",
            kept="Nothing was run",
            todo="install bubblewrap (see `fedpriv doctor`), set resources.sandbox to required, and try again",
        )
    request = stored.request
    plan = shorter(request.plan, steps=MOST_STEPS, max_seconds=max_seconds)
    model = model_of(plan, cache)
    with trial_folder(domain.folder.state, "The dry run of this domain") as root:
        result = Trial(
            request=request,
            plan=plan,
            resources=domain.config.resources,
            model=model,
            root=root,
            mock=_mock_side(domain, request),
        ).run(on_step)
    write_json(domain.requests.dry_run_path(result.study), result.model_dump(mode="json"))
    domain.ledger.append(
        "request.tried", study=result.study, outcome=result.outcome, walls=result.walls, tried=list(result.tried)
    )
    return result


def last_dry_run(domain: Domain, study: str) -> DryRun | None:
    """Return what the last dry run of a request showed, or None if there was none that can be read."""
    with contextlib.suppress(OSError, ValueError):
        result = DryRun.model_validate_json(domain.requests.dry_run_path(study).read_bytes())
        return result if result.study == study else None
    return None


def _mock_side(domain: Domain, request: CodeRequest) -> Path | None:
    """Return the mock data that the domain shows, where the request's task is the one they are of."""
    if request.plan.task != TaskChoice():
        return None
    mock = domain.folder.state / "mock"
    if not (mock / "schema.json").exists():
        with contextlib.suppress(ExistsError):  # the service may just have made it
            write_mock(mock, seed=0)
    return mock
