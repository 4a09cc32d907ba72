"""What bandit contributes to the static check: its rules over text in memory. Nothing is run, fetched or written."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

from fedpriv.domain.finding import Category, Severity
from fedpriv.domain.static_rules import Rule

_WANTED: dict[str, tuple[Severity, Category, str]] = {
    **dict.fromkeys(("B102", "B307"), ("danger", "dynamic-code", "makes or loads code while it runs")),
    **dict.fromkeys(("B301", "B302", "B403"), ("danger", "dynamic-code", "loads objects that can hold code")),
    **dict.fromkeys(("B506", "B614", "B202"), ("danger", "dynamic-code", "loads objects that can hold code")),
    **dict.fromkeys(("B103", "B108", "B306"), ("warning", "file-write", "works with files outside its folder")),
    **dict.fromkeys(
        ("B104", "B113", "B310", "B312", "B321", "B323", "B401", "B402", "B411", "B412"),
        ("danger", "network", "can open a network connection"),
    ),
    **dict.fromkeys(
        ("B501", "B502", "B503", "B504", "B507", "B508", "B509", "B601", "B612"),
        ("danger", "network", "can open a network connection"),
    ),
    **dict.fromkeys(
        ("B404", "B602", "B603", "B604", "B605", "B606", "B607", "B609"),
        ("danger", "subprocess", "can start another program or process"),
    ),
    **dict.fromkeys(
        ("B405", "B406", "B407", "B408", "B409", "B410"),
        ("warning", "unknown-import", "reads XML"),
    ),
    "B613": ("danger", "obfuscation", "holds characters that turn the direction of text around"),
}
"""bandit's rules that mean something for training code. Left out: rules about passwords, assertions, random numbers,
hashes and web frameworks, and B615, which takes the model's folder on this machine for a download."""


def bandit_findings(text: str) -> Iterator[tuple[int, Rule, str]]:
    """Yield line, meaning and bandit's rule for each of its findings in a file that parses.

    Comments that tell bandit to be silent (``# nosec``) have no effect. A rule that breaks on the file is a finding.

    Raises
    ------
    RecursionError
        If the file is nested too deeply.
    """
    visitor, broken = _visitor(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        visitor.process(text)
    for issue in visitor.tester.results:
        wanted = _WANTED.get(issue.test_id)
        if wanted is not None:
            yield max(1, int(issue.lineno or 1)), Rule(*wanted), f"bandit {issue.test_id}"
    for line in sorted(set(broken)):
        yield line, Rule("warning", "unreadable", "makes a rule of bandit fail"), "bandit"


def _visitor(text: str) -> tuple[Any, list[int]]:
    """Return bandit's visitor for one file, and a list that gets the lines at which one of its rules breaks."""
    node_visitor, test_set, metrics = _bandit()
    counts = metrics.Metrics()
    counts.begin("request")
    visitor = node_visitor.BanditNodeVisitor(
        fname="request/file.py",  # only a name: no such file is looked for
        fdata=io.BytesIO(text.encode("utf-8", "backslashreplace")),
        metaast=None,
        testset=test_set,
        debug=False,
        nosec_lines={},
        metrics=counts,
    )
    broken: list[int] = []
    visitor.tester.report_error = lambda _test, context, _error: broken.append(
        int(getattr(context, "_context", {}).get("lineno", 1))
    )
    return visitor, broken


_loaded: list[Any] = []


def _bandit() -> tuple[Any, Any, Any]:
    """Import bandit once, and undo what its import does to the process: a cache on disk, the format of warnings."""
    if not _loaded:
        formatting = warnings.formatwarning
        from stevedore import _cache

        _cache._c._disable_caching = True  # it would write the names of all installed plugins below the home folder
        logging.getLogger("bandit").setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # bandit calls its plugin loader in a way that is deprecated
            from bandit.core import config, metrics, node_visitor, test_set
        warnings.formatwarning = formatting
        chosen = test_set.BanditTestSet(config.BanditConfig(), {"include": sorted(_WANTED), "exclude": []})
        _loaded.extend((node_visitor, chosen, metrics))
    return _loaded[0], _loaded[1], _loaded[2]
