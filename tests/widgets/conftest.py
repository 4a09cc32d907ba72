"""The fixtures of both sides: a study that was not submitted, and a domain with a request to it."""

import threading

import pytest

from tests.domain.conftest import ada, code_request, domain, plan
from tests.researcher.conftest import members, researcher, study

__all__ = ["ada", "code_request", "domain", "members", "plan", "researcher", "study"]


class Told:
    """What was told from other threads, to be waited for."""

    def __init__(self):
        self.said, self._changed = [], threading.Condition()

    def __call__(self, value):
        with self._changed:
            self.said.append(value)
            self._changed.notify_all()

    def wait(self, until, timeout=60):
        """Wait until something was said that ``until`` holds for, and return it."""
        with self._changed:
            assert self._changed.wait_for(lambda: any(map(until, self.said)), timeout), self.said[-3:]
            return next(value for value in reversed(self.said) if until(value))


@pytest.fixture
def told():
    return Told()
