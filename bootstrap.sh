#!/bin/sh
# Sets fedpriv up in .venv and runs something in it. Works without make, and again after a kill.
#
#   sh bootstrap.sh demo  [arguments of `fedpriv demo`]
#   sh bootstrap.sh test  [arguments of pytest]
#   sh bootstrap.sh lab   [options of `fedpriv lab`, such as --demo]
#   sh bootstrap.sh docs         run the notebooks and write them as pages, to build/docs
#   sh bootstrap.sh site         write the documentation site, to build/site; with the notebooks' pages if docs wrote them
#   sh bootstrap.sh lint         ruff and pyright
#   sh bootstrap.sh setup        set up only
#   sh bootstrap.sh pins         write constraints.txt and constraints-flower.txt anew (needs the network)
#   sh bootstrap.sh flower       install Flower apart, for the tests and benchmarks that run it
#
# pip's variables PIP_FIND_LINKS, PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_NO_INDEX, PIP_CERT, PIP_PROXY,
# PIP_TRUSTED_HOST and PIP_DEFAULT_TIMEOUT count for uv too, unless uv's own are set.
set -eu

NEED_GB=4
VENV=.venv
STAMP=$VENV/fedpriv-stamp
UNFINISHED=$VENV/fedpriv-unfinished

say() { printf 'fedpriv: %s\n' "$*" >&2; }

stop() {
    code=$1
    shift
    for line in "$@"; do say "$line"; done
    exit "$code"
}

usage() { sed -n 's/^#   sh /  sh /p' "$0" >&2; }

find_python() {
    for name in python3.11 python3 python; do
        if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    return 1
}

no_python() {
    if command -v apt-get >/dev/null 2>&1; then
        next='sudo apt-get install python3.11 python3.11-venv'
    elif command -v dnf >/dev/null 2>&1; then
        next='sudo dnf install python3.11'
    elif command -v zypper >/dev/null 2>&1; then
        next='sudo zypper install python311'
    elif [ "$(uname -s)" = Darwin ]; then
        next='brew install python@3.11'
    else
        next='install Python 3.11 with its venv module'
    fi
    stop 2 'No Python 3.11 with venv was found (as python3.11, python3 or python). Nothing was changed.' \
        "Next: $next, or use conda with environment.yml; then run this again."
}

check_disk() {
    free_kb=$(df -Pk . | awk 'NR == 2 { print $4 }')
    case $free_kb in '' | *[!0-9]*) return ;; esac
    if [ "$free_kb" -lt $((NEED_GB * 1024 * 1024)) ]; then
        stop 2 "Only $((free_kb / 1024)) MB of disk are free here; the environment needs $NEED_GB GB. Nothing was changed." \
            'Next: free some space or move this folder to a larger disk, then run this again.'
    fi
}

# What the environment is made from: a change in any of it installs again.
fingerprint() {
    { cat pyproject.toml constraints.txt && "$VENV/bin/python" -V 2>&1 && pwd -P; } 2>/dev/null | cksum
}

is_ready() {
    [ -f "$STAMP" ] && [ ! -e "$UNFINISHED" ] && [ "$(fingerprint)" = "$(cat "$STAMP")" ]
}

is_sound() {
    [ ! -e "$UNFINISHED" ] && "$VENV/bin/python" -c 'import sys, pip; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null
}

honour_pip() {
    spaces_to_commas() { printf '%s' "$1" | tr -s ' \n' ',,'; }
    if [ -n "${PIP_FIND_LINKS:-}" ] && [ -z "${UV_FIND_LINKS:-}" ]; then
        UV_FIND_LINKS=$(spaces_to_commas "$PIP_FIND_LINKS")
        export UV_FIND_LINKS
    fi
    [ -z "${PIP_INDEX_URL:-}" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}"
    [ -z "${PIP_EXTRA_INDEX_URL:-}" ] || export UV_INDEX="${UV_INDEX:-$PIP_EXTRA_INDEX_URL}"
    [ -z "${PIP_TRUSTED_HOST:-}" ] || export UV_INSECURE_HOST="${UV_INSECURE_HOST:-$PIP_TRUSTED_HOST}"
    [ -z "${PIP_DEFAULT_TIMEOUT:-}" ] || export UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-$PIP_DEFAULT_TIMEOUT}"
    [ -z "${PIP_CERT:-}" ] || export SSL_CERT_FILE="${SSL_CERT_FILE:-$PIP_CERT}"
    [ -z "${PIP_PROXY:-}" ] || export ALL_PROXY="${ALL_PROXY:-$PIP_PROXY}"
    case ${PIP_NO_INDEX:-} in '' | 0 | no | false) no_index= ;; *) no_index=--no-index ;; esac
}

hint_about_cuda() {
    [ "$(uname -s)" = Linux ] && [ -z "${UV_FIND_LINKS:-}${UV_TORCH_BACKEND:-}" ] && ! command -v nvidia-smi >/dev/null 2>&1 || return 0
    say 'There seems to be no NVIDIA GPU here. UV_TORCH_BACKEND=cpu in front of the command spares 3 GB of download.'
}

make_venv() {
    python=$(find_python) || no_python
    if [ -e "$VENV" ]; then
        say "$VENV is not complete (an earlier run was stopped, or its Python is gone); making it again"
    else
        say "making $VENV with $("$python" -V 2>&1)"
    fi
    "$python" -m venv --clear "$VENV" || stop 1 "$VENV could not be made; the reason stands above." \
        "Next: correct it (often the disk, or the package python3.11-venv), then run this again."
}

install_failed() {
    code=$1
    [ "$code" -gt 128 ] || rm -f "$UNFINISHED" # nothing was half-written, unless a signal ended it
    stop "$code" 'The packages could not be installed; the reason stands above. What was downloaded is kept.' \
        'Next: if it is the network, check the connection, the proxy and pip.conf, then run the same command again.'
}

# Writes the bytecode of what fedpriv imports, as pip would and uv does not. A training worker may write nothing: it
# would compile torch and transformers each time it starts, which doubles the time of a first demo and of the tests.
compile_bytecode() {
    : | PYTHONDONTWRITEBYTECODE='' "$VENV/bin/python" -m fedpriv.training.worker >/dev/null 2>&1 &
    PYTHONDONTWRITEBYTECODE='' "$VENV/bin/python" -c 'import fedpriv.cli.main, fedpriv.experiments.demo
import fedpriv.domain.service, fedpriv.researcher.orchestrator, fedpriv.transport.datasite, fedpriv.protection.ckks
import dp_accounting, opacus, plotly.graph_objects, tenseal' >/dev/null 2>&1 || :
    wait
}

setup() {
    is_ready && return
    begun=$(date +%s)
    check_disk
    honour_pip
    is_sound || make_venv
    : >"$UNFINISHED"
    rm -f "$STAMP"
    say 'installing fedpriv and its packages (the first time takes one to five minutes)'
    hint_about_cuda
    # shellcheck disable=SC2086 # $no_index is empty or one word
    {
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt uv || install_failed $?
        VIRTUAL_ENV=$PWD/$VENV "$VENV/bin/uv" pip install $no_index --python "$VENV/bin/python" \
            -c constraints.txt --build-constraints constraints.txt -e '.[dev]' || install_failed $?
    }
    compile_bytecode
    fingerprint >"$STAMP.new"
    mv "$STAMP.new" "$STAMP"
    rm -f "$UNFINISHED"
    say "ready after $(($(date +%s) - begun)) s"
}

# Writes one file of pins: pins_of FILE EXTRA [what else uv reads from its standard input].
pins_of() {
    comment=$(sed '/^[^#]/,$d' "$1")
    # For Linux and macOS at once ([tool.uv] in pyproject.toml): one version of each package, so that markers are not
    # needed. CUDA's libraries are left to torch, and torch's local version (+cpu) to whoever installs.
    pinned=$(printf "%b" "${3:-}" | "$VENV/bin/uv" pip compile --quiet --upgrade --universal \
        --fork-strategy fewest --python-version 3.11 --extra "$2" --no-annotate --no-header --no-emit-index-url \
        --no-emit-find-links pyproject.toml -) || install_failed $?
    {
        printf '%s\n' "$comment"
        printf '%s\n' "$pinned" | sed -e 's/ *;.*//' -e 's/+cpu$//' -e '/^nvidia-/d' -e '/^cuda-/d' -e '/^triton==/d' | uniq
    } >"$1.new"
    mv "$1.new" "$1"
}

pins() {
    setup
    honour_pip
    pins_of constraints.txt dev 'uv\nhatchling\neditables\n'
    pins_of constraints-flower.txt flower
    say "constraints.txt and constraints-flower.txt are new; run sh bootstrap.sh test before they are committed"
}

# One worker of pytest more than there are cores, for tests wait for processes and browsers; at most four, as each may run a
# federation of ten processes, which take 3 GB. A file stays with one worker, for its costly fixtures; the order is kept, so
# that the slow files do not come last.
workers() {
    cores=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
    [ "$cores" -lt 2 ] || echo "--numprocesses=$((cores < 4 ? cores + 1 : 4)) --dist=loadfile --no-loadscope-reorder"
}

cd "$(dirname "$0")"
[ $# -gt 0 ] || { usage; exit 2; }
verb=$1
shift
case $verb in
demo)
    setup
    exec "$VENV/bin/fedpriv" demo "$@"
    ;;
test)
    setup
    # shellcheck disable=SC2046 # options without spaces, or none
    exec "$VENV/bin/python" -m pytest $(workers) "$@"
    ;;
lab)
    setup
    exec "$VENV/bin/fedpriv" lab "$@"
    ;;
docs)
    setup
    exec "$VENV/bin/python" docs/notebook_pages.py "$@"
    ;;
site)
    setup
    # The makers of the theme announce its successor at each start.
    NO_MKDOCS_2_WARNING=1 exec "$VENV/bin/python" -m mkdocs build --strict "$@"
    ;;
lint)
    setup
    "$VENV/bin/ruff" check .
    "$VENV/bin/ruff" format --check .
    exec "$VENV/bin/pyright" --pythonpath "$VENV/bin/python"
    ;;
setup) setup ;;
pins) pins ;;
flower)
    setup
    exec "$VENV/bin/python" -m fedpriv.experiments.flower.environment
    ;;
-h | --help | help) usage ;;
*)
    say "there is no verb '$verb'"
    usage
    exit 2
    ;;
esac
