"""What must agree: pyproject.toml, constraints.txt, environment.yml, bootstrap.sh, Makefile, .ci/run, imports."""

import ast
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SCRIPT = (ROOT / "bootstrap.sh").read_text(encoding="utf-8")

# In halves, so that this file does not name them.
REGISTRY_HOSTS = [
    "".join(halves)
    for halves in (
        ("pypi", ".org"),
        ("python", "hosted"),
        ("download.py", "torch.org"),
        ("hugging", "face.co"),
        ("hf", ".co/"),
        ("deb", ".debian.org"),
        ("registry.npm", "js"),
        ("anaconda", ".org/"),
        ("anaconda", ".com/"),
    )
]
HOME_OF_A_MACHINE = re.compile(r"/(?:home|Users)/(?!someone|you|me)[a-z]\w+|/root/\w")


def requirements(*extras):
    texts = list(PROJECT["dependencies"])
    for extra in extras:
        texts += PROJECT["optional-dependencies"][extra]
    return [Requirement(text) for text in texts if not text.startswith("fedpriv[")]


EXTRAS = ("tensorboard", "mlflow", "wandb", "postgresql", "quantized", "s3", "gcs", "azure", "webdav")
FILES = ("constraints.txt", "constraints-flower.txt")


def pins(name="constraints.txt"):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def tracked_files():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


# -- constraints.txt -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES)
def test_every_pin_is_exact_and_there_once(file):
    names = []
    for line in pins(file):
        match = re.fullmatch(r"([a-z0-9][a-z0-9.-]*)==([0-9][0-9a-z.]*)", line)
        assert match, f"{line!r} is not one name, == and one version without a local part"
        names.append(canonicalize_name(match[1]))
    assert len(set(names)) == len(names)
    assert names == sorted(names)


@pytest.mark.parametrize("requirement", requirements("lab", "docs", "dev", *EXTRAS), ids=str)
def test_every_direct_dependency_is_pinned_to_a_version_it_allows(requirement):
    versions = dict(line.split("==") for line in pins())
    version = versions.get(canonicalize_name(requirement.name))
    assert version, "not in constraints.txt: run `sh bootstrap.sh pins`"
    assert requirement.specifier.contains(version, prereleases=True), "run `sh bootstrap.sh pins`"


@pytest.mark.parametrize("requirement", requirements("flower"), ids=str)
def test_with_flower_every_direct_dependency_is_pinned_to_a_version_it_allows(requirement):
    version = dict(line.split("==") for line in pins("constraints-flower.txt")).get(canonicalize_name(requirement.name))
    assert version, "not in constraints-flower.txt: run `sh bootstrap.sh pins`"
    assert requirement.specifier.contains(version, prereleases=True), "run `sh bootstrap.sh pins`"


def test_flower_has_one_version():
    from fedpriv.experiments.flower.environment import flower_version

    assert f"flwr=={flower_version()}" in pins("constraints-flower.txt")


@pytest.mark.parametrize("name", ["uv", "hatchling", "editables"])
def test_what_builds_and_installs_is_pinned_too(name):
    assert any(line.startswith(f"{name}==") for line in pins())


@pytest.mark.parametrize("file", FILES)
def test_constraints_name_no_place_and_no_gpu_library(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^(-|nvidia-|cuda-|triton)", text, re.MULTILINE)


def test_the_environment_of_this_run_is_the_pinned_one():
    """Only a hint where someone runs the tests in an environment of their own."""
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("not the environment of bootstrap.sh")
    from importlib.metadata import version

    for line in pins():
        name, wanted = line.split("==")
        if any(
            canonicalize_name(requirement.name) == name for requirement in requirements("lab", "docs", "dev", *EXTRAS)
        ):
            assert version(name).split("+")[0] == wanted, name


# -- pyproject.toml --------------------------------------------------------------------------------------------------


def test_every_import_is_a_declared_dependency():
    declared = {canonicalize_name(requirement.name) for requirement in requirements("lab", "flower", *EXTRAS)}
    owners = packages_distributions()
    undeclared = set()
    for path in (ROOT / "fedpriv").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module or ""]
            else:
                continue
            for top in {module.split(".")[0] for module in modules} - {"fedpriv"} - sys.stdlib_module_names:
                distributions = {canonicalize_name(name) for name in owners.get(top, [top])}
                if not distributions & declared:
                    undeclared.add(f"{path.relative_to(ROOT)}: {top}")
    assert not undeclared


FLOORS = (
    ("errors",),
    ("files", "unforeseen"),
    ("scratch",),
    ("study",),
    ("protection", "clinical", "transport", "training", "flower"),
    ("aggregation", "domain", "leakage"),
    ("audit", "researcher"),
    ("widgets", "experiments", "doctor"),
    ("cli",),
    ("__main__",),
)


def parts_imported_by(path):
    """The packages and modules right below ``fedpriv`` that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (module.split(".")[1] for module in modules if module.startswith("fedpriv."))


def test_imports_go_down_only():
    floor_of = {part: number for number, parts in enumerate(FLOORS) for part in parts}
    wrong = []
    for path in (ROOT / "fedpriv").rglob("*.py"):
        here = path.relative_to(ROOT / "fedpriv").parts[0].removesuffix(".py")
        if here == "__init__":
            continue
        others = set(parts_imported_by(path)) - {here, "__version__"}
        wrong += [f"{path.relative_to(ROOT)}: {part}" for part in others if floor_of[part] >= floor_of[here]]
    assert not wrong


def test_the_extra_for_development_has_everything_for_demo_and_tests():
    assert "fedpriv[lab]" in PROJECT["optional-dependencies"]["dev"]
    assert "fedpriv[docs]" in PROJECT["optional-dependencies"]["dev"]
    assert f"fedpriv[{','.join(EXTRAS)}]" in PROJECT["optional-dependencies"]["dev"]
    assert {"pytest", "hypothesis", "ruff", "pyright"} <= {requirement.name for requirement in requirements("dev")}


def test_the_licence_of_the_metadata_is_the_one_in_the_tree():
    assert PROJECT["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_changelog_has_the_version():
    from fedpriv import __version__

    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


# -- environment.yml -------------------------------------------------------------------------------------------------


def test_conda_gets_the_same_python_and_packages():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    plain = [item for item in environment["dependencies"] if isinstance(item, str)]
    (by_pip,) = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]
    assert plain == ["python=3.11", "pip"]
    assert PROJECT["requires-python"] == ">=3.11,<3.12"
    assert by_pip == ["-c constraints.txt", "-e .[lab]"]


# -- scripts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bootstrap.sh", ".ci/run"])
def test_scripts_can_be_run_and_parsed(name):
    path = ROOT / name
    assert path.stat().st_mode & stat.S_IXUSR
    shell = "bash" if name == ".ci/run" else "sh"
    assert subprocess.run([shell, "-n", path], check=False).returncode == 0


def test_make_only_passes_on_to_the_script():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split()
    assert {"demo", "test", "setup", "lint", "lab", "docs", "site"} == set(targets)
    for target in targets:
        assert re.search(rf"^{target}( \|.*)?\)( setup ;;)?$", SCRIPT, re.MULTILINE)
    assert "@sh bootstrap.sh $@ $(ARGS)" in text


def test_ci_runs_the_command_of_the_readme():
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.fixture
def copy(tmp_path):
    """The files that bootstrap.sh needs, in a folder of their own with a fake Python first in PATH."""
    for name in ("bootstrap.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    return tmp_path


def fake(folder, name, text):
    path = folder / "bin" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def bootstrap(folder, *arguments, path=None):
    return subprocess.run(
        ["/bin/sh", "bootstrap.sh", *arguments],
        cwd=folder,
        env={"PATH": path or f"{folder / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_python_311_the_next_step_is_said(copy):
    for name in ("python3.11", "python3", "python"):
        fake(copy, name, "exit 1")
    done = bootstrap(copy, "setup")
    assert done.returncode == 2
    assert "No Python 3.11 with venv was found" in done.stderr
    assert "Next: " in done.stderr
    assert not (copy / ".venv").exists()


def test_without_disk_the_next_step_is_said(copy):
    fake(copy, "df", "echo 'Filesystem 1024-blocks Used Available Capacity Mounted'; echo 'x 1 1 1048576 50% /'")
    done = bootstrap(copy, "setup")
    assert done.returncode == 2
    assert "Only 1024 MB of disk are free here; the environment needs 4 GB" in done.stderr
    assert not (copy / ".venv").exists()


@pytest.mark.parametrize("arguments", [(), ("deploy",)])
def test_without_a_verb_the_verbs_are_shown(copy, arguments):
    done = bootstrap(copy, *arguments)
    assert done.returncode == 2
    for verb in ("demo", "test", "lab", "docs", "site", "lint", "setup"):
        assert f"sh bootstrap.sh {verb}" in done.stderr


def fake_venv(folder):
    """A ready environment whose programs only say how they were called."""
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "fedpriv"):
        path = programs / name
        path.write_text(f'#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.11.7" && exit\necho {name} "$@"\n')
        path.chmod(0o755)
    stamp = "{ cat pyproject.toml constraints.txt; .venv/bin/python -V; pwd -P; } | cksum > .venv/fedpriv-stamp"
    subprocess.run(["/bin/sh", "-c", stamp], cwd=folder, check=True)


def test_a_ready_environment_is_used_at_once_and_arguments_go_through(copy):
    fake_venv(copy)
    fake(copy, "nproc", "echo 1")
    assert bootstrap(copy, "test", "-k", "two words").stdout == "python -m pytest -k two words\n"
    done = bootstrap(copy, "demo", "--model", "tiny")
    assert done.stdout == "fedpriv demo --model tiny\n"
    assert done.stderr == ""


@pytest.mark.parametrize(("cores", "workers"), [(2, 3), (3, 4), (64, 4)])
def test_tests_run_on_several_cores(copy, cores, workers):
    fake_venv(copy)
    fake(copy, "nproc", f"echo {cores}")
    options = f"--numprocesses={workers} --dist=loadfile --no-loadscope-reorder"
    assert bootstrap(copy, "test", "-x").stdout == f"python -m pytest {options} -x\n"


@pytest.mark.parametrize("change", ["pyproject.toml", "constraints.txt", ".venv/fedpriv-unfinished"])
def test_a_changed_or_half_made_environment_is_set_up_again(copy, change):
    fake_venv(copy)
    with (copy / change).open("a") as stream:
        stream.write("\n# changed\n")
    fake(copy, "df", "echo; echo 'x 1 1 0 100% /'")  # stops it where it begins
    done = bootstrap(copy, "setup")
    assert done.returncode == 2
    assert "of disk are free" in done.stderr


def test_a_failed_installation_ends_with_a_sentence(copy):
    fake_venv(copy)
    (copy / "constraints.txt").write_text("")
    script = 'case "$*" in *"pip install"*) echo "no route to host" >&2; exit 1;; *-V*) echo "Python 3.11.7";; esac\n'
    (copy / ".venv" / "bin" / "python").write_text("#!/bin/sh\n" + script)
    done = bootstrap(copy, "setup")
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("then run the same command again.")
    assert not (copy / ".venv" / "fedpriv-unfinished").exists()


def test_setup_compiles_what_a_training_worker_may_not(copy):
    fake_venv(copy)
    (copy / "constraints.txt").write_text("")
    script = '[ "$1" = -V ] && echo "Python 3.11.7" && exit\necho "[$PYTHONDONTWRITEBYTECODE] $*" >>calls\n'
    for name in ("python", "uv"):
        (copy / ".venv" / "bin" / name).write_text(f"#!/bin/sh\n{script}")
        (copy / ".venv" / "bin" / name).chmod(0o755)
    fake(copy, "df", "echo; echo 'x 1 1 99999999 1% /'")
    environment = {"PATH": f"{copy / 'bin'}:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(["/bin/sh", "bootstrap.sh", "setup"], cwd=copy, env=environment, timeout=60, check=True)
    calls = (copy / "calls").read_text().splitlines()
    installed = next(number for number, call in enumerate(calls) if "pip install" in call and "-e .[dev]" in call)
    assert "[] -m fedpriv.training.worker" in calls[installed:]
    assert (copy / ".venv" / "fedpriv-stamp").exists()
    assert not (copy / ".venv" / "fedpriv-unfinished").exists()


# -- nothing of one machine ------------------------------------------------------------------------------------------


def test_no_tracked_file_names_a_registry_host_or_somebody_s_home():
    found = []
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", errors="replace").lower()
        found += [f"{path.relative_to(ROOT)}: {host}" for host in REGISTRY_HOSTS if host in text]
        if path != Path(__file__) and (home := HOME_OF_A_MACHINE.search(text)):
            found.append(f"{path.relative_to(ROOT)}: {home[0]}")
    assert not found


def test_no_lock_file_is_tracked():
    names = {path.name for path in tracked_files()}
    assert not names & {"uv.lock", "poetry.lock", "Pipfile.lock", "pdm.lock", "conda-lock.yml", "package-lock.json"}
