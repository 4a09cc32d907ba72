"""Arguments that several commands of ``fedpriv domain``, or of ``fedpriv study``, have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(help="The domain's folder, with domain.yaml in it.")]
StudyId = Annotated[str, typer.Argument(help="The request's id, or its first characters; see `requests`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

Name = Annotated[str, typer.Argument(help="The study's name.")]
Home = Annotated[Path, typer.Option(help="The researcher's home folder.")]
DEFAULT_HOME = Path(".fedpriv/researcher")
