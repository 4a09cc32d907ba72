"""What all panels in a notebook share: a JSON value to be seen, and messages from the page to a queue of actions."""

from __future__ import annotations

import base64
import functools
import html
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets

from fedpriv.widgets.action_queue import ActionQueue, Answer

STATIC = Path(__file__).parent / "static"
_IMPORT = re.compile(r'from "\./([a-z_]+\.js)";')


@functools.cache
def bundled(name: str) -> str:
    """Return one of our JavaScript modules with those it imports inside it, as a notebook's front end wants it.

    A front end loads a widget's module from memory, where a relative import leads nowhere: it becomes a ``data:``
    address. The same module is the same address, and is therefore loaded once.
    """

    def inlined(found: re.Match[str]) -> str:
        text = base64.b64encode(bundled(found[1]).encode()).decode()
        return f'from "data:text/javascript;base64,{text}";'

    return _IMPORT.sub(inlined, (STATIC / name).read_text(encoding="utf-8"))


class Panel(anywidget.AnyWidget):
    """A panel: a thin view of a value that other code makes, in threads of its own.

    A subclass names its JavaScript module (:attr:`script`), calls :meth:`listen` with the queue that takes the page's
    messages, and sets :attr:`view` from any thread. *Guarantee*: a message from the page is only put on the queue,
    whatever thread it comes on; the kernel's own thread does nothing else here.

    Attributes
    ----------
    view : dict
        All that is to be seen, as JSON. Set as a whole; front ends draw what changed.
    answer : dict
        What came of the last click, see :class:`~fedpriv.widgets.action_queue.Answer`.
    """

    script: ClassVar[str]
    _is_live = False

    view = traitlets.Dict().tag(sync=True)
    answer = traitlets.Dict().tag(sync=True)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if "script" in cls.__dict__:  # traitlets makes a further class of each instance
            cls._esm = bundled(cls.script)
            cls._css = (STATIC / "panel.css").read_text(encoding="utf-8")
        super().__init_subclass__(**kwargs)

    def listen(self, actions: ActionQueue[Any]) -> None:
        """Pass what is asked for on the page to a queue."""
        self.on_msg(lambda _widget, content, _buffers: actions.ask(content))
        self._is_live = True

    def close(self) -> None:
        """End the threads behind the panel, and take it off the page; what runs elsewhere goes on."""
        if self._is_live:  # ipywidgets closes once more when a widget is collected as garbage, in whatever thread
            self._is_live = False
            self._end()
        super().close()

    def _end(self) -> None:
        """End the threads behind the panel."""

    def show_answer(self, answer: Answer) -> None:
        """Show what came of a click; called from the queue's thread."""
        self.answer = asdict(answer)

    def as_text(self) -> str:
        """Return what the panel shows in a few lines, for terminals and pages without scripts."""
        return type(self).__name__

    def as_html(self) -> str:
        """Return what the panel shows as still HTML, for pages without scripts."""
        return f"<pre>{html.escape(self.as_text())}</pre>"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        if data is not None:
            data["text/plain"] = self.as_text()
            data["text/html"] = self.as_html()  # for pages without a kernel: a notebook prefers the panel itself
        return bundle
