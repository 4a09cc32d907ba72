"""``fedpriv domain init``: a domain of options, or of a domain.yaml that a person wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from fedpriv.cli.options import Folder
from fedpriv.domain import DataChoice, Domain, DomainConfig, PolicyChoice, ResourcesChoice, ServiceChoice
from fedpriv.domain.folder import CONFIG_FILE, STOCK_RECIPE, DomainFolder, SandboxMode
from fedpriv.errors import ConfigError, ExistsError
from fedpriv.protection import fingerprint_words
from fedpriv.study import validate_section
from fedpriv.study.plan import MemberChoice
from fedpriv.study.validation import in_words
from fedpriv.transport import checked_address

console = Console()


def init(
    folder: Folder,
    email: Annotated[str, typer.Option(help="The domain's address; lower case.")] = "",
    store: Annotated[str, typer.Option(help="Folder or URL of the store that all parties reach.")] = "",
    data: Annotated[
        str,
        typer.Option(help="Folder (CSV, csv.gz, Parquet), .duckdb file, or postgresql://user@host/database."),
    ] = "",
    mapping: Annotated[
        Path | None, typer.Option(metavar="FILE", help="mapping.yaml, where the tables have another schema.")
    ] = None,
    name: Annotated[str, typer.Option(help="Short name; by default the folder's name.")] = "",
    researcher: Annotated[
        list[str] | None, typer.Option(help="EMAIL=FINGERPRINT of a researcher who may send requests; repeatable.")
    ] = None,
    approve: Annotated[
        str, typer.Option(help="ask: a person decides; stock-recipe: the unchanged stock recipe within the policy.")
    ] = "",
    release: Annotated[str, typer.Option(help="ask, or after-study: hand over the final adapter.")] = "",
    sandbox: Annotated[
        str, typer.Option(help="required: no training without bubblewrap; preferred: what there is; off: none.")
    ] = "",
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Of 127.0.0.1, for health and metrics; by default neither.")
    ] = None,
) -> None:
    """Make a domain: its folder, its keys, its domain.yaml. Prints the fingerprint that others pin.

    --email, --store and --data are needed; or none of the options, where FOLDER holds a domain.yaml that you wrote or
    copied: then it stays as it is, and gets its keys.
    """
    given: dict[str, Any] = {"email": email, "store": store, "data": data, "mapping": mapping, "name": name}
    given |= {"researcher": researcher, "approve": approve, "release": release, "sandbox": sandbox}
    given = {option: value for option, value in (given | {"metrics_port": metrics_port}).items() if value}
    place = DomainFolder(folder.resolve())
    if place.config_path.exists():
        domain = _adopted(place, given)
    else:
        config = _config(place, given)
        _check_tables(config, mapping.expanduser() if mapping else None)
        domain = Domain.create(folder, config)
    config = domain.config
    console.print(f"Made the domain [bold]{escape(config.name)}[/] in {escape(str(folder))}.")
    console.print(f"Address:     {escape(config.email)}")
    console.print(f"Fingerprint: [bold]{domain.keys.fingerprint}[/]", soft_wrap=True)
    console.print(f"  by phone:  {fingerprint_words(domain.keys.fingerprint)}")
    shown = escape(str(folder))
    trust = "" if config.researchers else f"`fedpriv domain trust {shown} EMAIL=FINGERPRINT` for each researcher, "
    console.print(f"Next: read {escape(str(domain.folder.config_path))}, {trust}then `fedpriv domain serve {shown}`.")


def _adopted(place: DomainFolder, given: dict[str, Any]) -> Domain:
    """Make the keys of a domain whose configuration is there already: a person's, or ours before a kill."""
    is_made = place.state.exists() and not place.is_unfinished()
    if given and not is_made and not (place.state.exists() and _config(place, given) == place.load_config()):
        raise ExistsError(
            f"{place.config_path} is there already, and would not say what the options do",
            kept="It was left as it is",
            todo=f"run `fedpriv domain init {place.root}` without options to make its keys, or choose another folder",
        )
    if not is_made:
        config = place.load_config()
        checked_address(config.store)
        _check_tables(config, place.mapping_path(config.data))
    return Domain.adopt(place.root)


def _config(place: DomainFolder, given: dict[str, Any]) -> DomainConfig:
    """Return what the options say, checked as far as it can be before anything is made."""
    if missing := [f"--{option}" for option in ("email", "store", "data") if option not in given]:
        raise ConfigError(
            f"{', '.join(missing)} missing, and there is no {CONFIG_FILE} in {place.root}",
            kept="Nothing was made",
            todo=f"give {' and '.join(missing)}, or put a {CONFIG_FILE} there",
        )
    data, mapping = str(given["data"]), given.get("mapping")
    source = data if "://" in data else str(Path(data).expanduser().resolve())
    choice = DataChoice(source=source, mapping=mapping and _mapping_path(place.root, mapping))
    standing = _standing(given.get("approve", "ask"))
    policy = PolicyChoice().model_dump(mode="json") | {"standing": standing, "release": given.get("release", "ask")}
    resources = ResourcesChoice().model_dump(mode="json")
    sandbox = given.get("sandbox", resources["sandbox"])
    if sandbox not in get_args(SandboxMode):
        raise ConfigError(f"--sandbox {sandbox} means nothing", todo=f"say {', '.join(get_args(SandboxMode))}")
    return validate_section(
        DomainConfig,
        {
            "name": given.get("name") or place.root.name.lower(),
            "email": given["email"],
            "store": checked_address(given["store"]),
            "data": choice.model_dump(mode="json"),
            "researchers": [parse_pin(text).model_dump() for text in given.get("researcher", [])],
            "policy": policy,
            "resources": resources | {"sandbox": sandbox},
            "service": ServiceChoice(metrics_port=given.get("metrics_port", 0)).model_dump(mode="json"),
        },
        source="the options",
    )


def _mapping_path(root: Path, mapping: Path) -> str:
    """Return what domain.yaml says: a mapping in the domain's folder moves with it."""
    path = mapping.expanduser().resolve()
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _check_tables(config: DomainConfig, mapping: Path | None) -> None:
    """Raise DataError before a domain is made on tables that it could only fail on later."""
    from fedpriv.clinical import ClinicalTables, load_mapping

    ClinicalTables.open(config.data.location, mapping and load_mapping(mapping)).close()


def _standing(approve: str) -> list[dict[str, str]]:
    if approve not in ("ask", STOCK_RECIPE):
        raise ConfigError(f"--approve {approve} means nothing", todo=f"say ask or {STOCK_RECIPE}")
    return [] if approve == "ask" else [{"name": STOCK_RECIPE, "code": STOCK_RECIPE}]


def parse_pin(text: str) -> MemberChoice:
    """Read ``EMAIL=FINGERPRINT``.

    Raises
    ------
    ConfigError
        If it is not of that form.
    """
    email, _, fingerprint = text.partition("=")
    try:
        return MemberChoice(email=email.strip(), fingerprint=fingerprint.replace(" ", "").strip().lower())
    except ValidationError as error:
        raise ConfigError(
            f"{text!r} is not EMAIL=FINGERPRINT ({in_words(error)})",
            todo="write the address in lower case, and the 64 hex digits that the other party's init printed",
        ) from error
