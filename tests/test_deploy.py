"""What deploy/ and the pages about running fedpriv say: recipes that fit the tree, and commands that exist."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from fedpriv import __version__
from fedpriv.cli.main import app

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
PAGES = sorted(
    ROOT / "docs" / name
    for name in (
        "checklist.md",
        "containers.md",
        "keys.md",
        "operating.md",
        "reviewing.md",
        "stores.md",
        "upgrading.md",
    )
)


# -- compose.yaml ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


class OverridingLoader(yaml.SafeLoader):
    """A loader that takes Compose's !override, which puts a list in the place of another file's."""


OverridingLoader.add_constructor("!override", lambda loader, node: ("in its place", loader.construct_sequence(node)))


SERVICE_KEYS = {
    *("image", "build", "user", "read_only", "tmpfs", "cap_drop", "security_opt", "mem_limit", "pids_limit"),
    *("stop_grace_period", "restart", "healthcheck", "volumes", "profiles", "ports"),
}


def test_every_service_is_as_small_as_it_can_be(compose):
    assert set(compose) == {"name", "x-domain", "services", "volumes"}
    for name, service in compose["services"].items():
        assert set(service) <= SERVICE_KEYS, name
        assert re.fullmatch(r"1000[12]:1000[12]", service["user"])
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges" in service["security_opt"]
        walls = {"unmask=ALL", "apparmor=unconfined"} if service["build"]["target"] == "domain" else set()
        assert set(service["security_opt"]) == {"no-new-privileges"} | walls
        assert service["image"] == f"{service['image'].split(':')[0]}:{__version__}"
        assert (DEPLOY / service["build"]["context"]).resolve() == ROOT
        assert (ROOT / service["build"]["dockerfile"]).is_file()


def test_docker_gets_its_own_options_for_every_domain_and_nothing_else(compose):
    other = yaml.load((DEPLOY / "compose.docker.yaml").read_text(), OverridingLoader)  # noqa: S506 - a safe loader
    assert set(other) == {"x-walls", "services"}
    domains = {name for name, service in compose["services"].items() if service["build"]["target"] == "domain"}
    assert set(other["services"]) == domains
    for service in other["services"].values():
        assert set(service) == {"security_opt"}
        how, options = service["security_opt"]
        assert how == "in its place"
        assert options[:3] == ["no-new-privileges", "systempaths=unconfined", "apparmor=unconfined"]
        assert re.fullmatch(r"seccomp=\$\{FEDPRIV_SECCOMP:-/\S+\.json\}", options[3])
        assert len(options) == 4


def test_compose_asks_for_health_as_the_image_does(compose):
    (said,) = [rest for word, rest in instructions() if word == "HEALTHCHECK"]
    options, command = said.split(" CMD ")
    for name, service in compose["services"].items():
        if service["build"]["target"] == "domain":
            asked = dict(service["healthcheck"])
            assert asked.pop("test") == ["CMD", *json.loads(command)], name
            assert {f"--{key.replace('_', '-')}={value}" for key, value in asked.items()} == set(options.split())


def test_no_port_is_open_but_on_the_loopback_address_and_a_domain_has_none(compose):
    for name, service in compose["services"].items():
        ports = service.get("ports", [])
        assert all(port.startswith("127.0.0.1:") for port in ports)
        assert bool(ports) == (name == "store")


def test_data_and_keys_are_mounted_to_be_read_and_every_other_volume_is_declared(compose):
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source = re.match(r"(\$\{[^}]*\}|[^:]*):(/[^:]*)(:ro)?$", volume)
            assert source, volume
            if source[1].startswith((".", "$")):
                assert source[3] == ":ro", volume
            else:
                assert source[1] in compose["volumes"]


def test_nothing_secret_is_written_down(compose):
    text = (DEPLOY / "compose.yaml").read_text().lower()
    assert "environment" not in text
    assert "env_file" not in text
    for word in ("password", "passphrase", "token", "secret", "begin openssh", "sha256:"):
        assert word not in text


def test_the_trial_has_three_hospitals_and_the_usual_start_one(compose):
    started = {name for name, service in compose["services"].items() if "profiles" not in service}
    assert started == {"domain"}
    assert len(compose["services"]) == 4


# -- Containerfile -----------------------------------------------------------------------------------------------------


def instructions():
    text = re.sub(r"\\\n", " ", (DEPLOY / "Containerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def test_the_recipe_copies_what_is_there_and_the_build_sees_nothing_else():
    ignored = (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
    seen = {line[1:] for line in ignored if line.startswith("!")}
    copied = set()
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from="):
            copied |= set(rest.split()[:-1])
    assert copied == seen
    assert all((ROOT / name).exists() for name in copied)
    assert "*" in ignored


def test_the_recipe_names_no_registry_runs_as_nobody_and_installs_the_pins():
    steps = instructions()
    assert {rest.split()[0] for word, rest in steps if word == "FROM"} == {"${BASE}"}
    assert ("ARG", "BASE=debian:bookworm-slim") in steps
    stages = {rest.split()[-1] for word, rest in steps if word == "FROM"}
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert {service["build"]["target"] for service in compose["services"].values()} <= stages
    users = [rest for word, rest in steps if word == "USER"]
    assert users == ["10001:10001", "10002:10002"]
    assert {service["user"] for service in compose["services"].values()} == set(users)
    installs = [rest for word, rest in steps if word == "RUN" and "pip install" in rest]
    assert len(installs) == 2
    assert all("-c constraints.txt" in step for step in installs)
    assert not any(word == "ADD" or "curl" in rest or "wget" in rest for word, rest in steps)
    # a mirror is named while building only: no default, one name a line (Buildah reads the first), in the first stage
    last_stage = [at for at, (word, _) in enumerate(steps) if word == "FROM"][1]
    for name in ("INDEX", "FIND_LINKS"):
        assert steps.index(("ARG", f"{name}=")) < last_stage
        assert all(f"${{{name}:+--" in step for step in installs)


@pytest.mark.skipif(not Path("/usr/sbin/sshd").exists(), reason="no sshd here")
def test_the_store_s_sshd_takes_its_configuration(tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "host"], check=True)
    text = (DEPLOY / "sshd_config").read_text().replace("/keys/host_ed25519", str(tmp_path / "host"))
    (tmp_path / "sshd_config").write_text(text)
    shown = subprocess.run(
        ["/usr/sbin/sshd", "-T", "-f", tmp_path / "sshd_config"], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    for line in (
        "passwordauthentication no",
        "disableforwarding yes",
        "permittty no",
        "authenticationmethods publickey",
    ):
        assert line in shown.stdout
    assert "forcecommand internal-sftp -d /store" in shown.stdout


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool (Debian's package prometheus) here")
def test_prometheus_takes_the_alerts():
    checked = subprocess.run(
        ["promtool", "check", "rules", DEPLOY / "prometheus-alerts.yaml"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


# -- the systemd unit --------------------------------------------------------------------------------------------------

UNIT = ROOT / "domains" / "fedpriv-domain@.service"


def test_the_unit_has_walls_of_its_own_and_none_that_keep_the_sandbox_from_being_built():
    lines = [line for line in UNIT.read_text().splitlines() if line and not line.startswith(("#", "["))]
    settings = dict(line.split("=", 1) for line in lines)
    assert len(settings) == len(lines)
    assert settings["User"] == "fedpriv"
    assert settings["ReadWritePaths"] == "/srv/fedpriv"
    assert settings["CapabilityBoundingSet"] == ""
    assert settings["NoNewPrivileges"] == "yes"
    assert "AF_NETLINK" in settings["RestrictAddressFamilies"]
    assert "@mount" not in settings["SystemCallFilter"]
    assert not settings.keys() & {
        *("RestrictNamespaces", "RestrictSUIDSGID", "PrivateNetwork", "ProcSubset"),
        *("ProtectHostname", "ProtectKernelTunables", "ProtectKernelLogs"),
    }


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_takes_the_unit(tmp_path):
    text = UNIT.read_text().replace("/opt/fedpriv/.venv/bin/fedpriv", sys.executable)
    (tmp_path / UNIT.name).write_text(text)
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", tmp_path / UNIT.name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert UNIT.name not in checked.stderr  # what it does not know or does not understand, it tells and goes on


# -- commands on pages -------------------------------------------------------------------------------------------------


def commands(path):
    """Every command of fedpriv in a page's blocks of shell, with what may stand before it taken off."""
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", path.read_text(), re.MULTILINE | re.DOTALL):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            words = shlex.split(line, comments=True)
            words = words[3:] if words[:3] == ["sudo", "-u", "fedpriv"] else words
            if words[:2] == ["podman", "run"] and words[-1:] == ["doctor"]:
                yield ["doctor"]
            elif "--entrypoint" in words:  # another program of the image
                assert words[words.index("--entrypoint") + 1] in ("cat", "tee", "rm")
            elif words[:2] == ["podman", "compose"] and "run" in words:
                named = next(at for at in range(words.index("run") + 1, len(words)) if not words[at].startswith("-"))
                assert words[named] in ("domain", "sicu", "ccu", "$party"), words
                assert words[named] == "domain" or words[2:4] == ["--profile", "trial"], words
                yield words[named + 1 :]
            elif words[:2] == ["podman", "compose"] and "exec" in words:
                yield words[words.index("fedpriv") + 1 :]
            elif words[:1] == ["fedpriv"]:
                yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_on_a_page_is_one_that_can_be_typed(page):
    found = list(commands(page))
    for words in found:
        command, rest = typer.main.get_command(app), list(words)
        while hasattr(command, "commands"):
            assert rest, words
            assert rest[0] in command.commands, f"there is no command {' '.join(words)}"
            command, rest = command.commands[rest[0]], rest[1:]
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        given = {word for word in rest if word.startswith("--")}
        assert given <= options, f"{' '.join(words)}: {given - options}"
        command.make_context("fedpriv", list(rest))  # all that must be given is, and of its kind


def test_the_checklist_has_the_commands_of_going_live_and_of_every_incident():
    said = {" ".join(words[:2]) for words in commands(ROOT / "docs" / "checklist.md")}
    assert said >= {
        f"domain {name}" for name in ("init", "trust", "keys", "status", "backup", "restore", "revoke", "try")
    }


def test_links_between_these_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_what_the_pages_name_in_the_tree_is_there():
    for page in PAGES:
        for name in re.findall(r"`((?:tests|deploy(?!/trial)|domains)/[\w./-]+)`", page.read_text()):
            assert (ROOT / name.rstrip("/")).exists(), f"{page.name}: {name}"
