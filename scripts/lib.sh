# Shell functions of scripts/check, scripts/test, scripts/soak and scripts/demo; read with `. scripts/lib.sh`, never run.
#
# What they share is how a bare machine gets what the project needs: the project's own environment in
# .venv, and mosquitto where it may be installed. They speak on standard error and say what to do.
# The caller sets `root` to the checkout.

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "$(basename "$0"): $*"
    exit 1
}

# The interpreter that makes the environment: $PYTHON, else python3. Ends the script when it is too old or cannot.
find_python() {
    python="${PYTHON:-python3}"
    command -v "$python" >/dev/null 2>&1 ||
        fail "no $python here; hwsync needs Python 3.11 or later (on Debian: apt-get install python3 python3-venv)"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$("$python" --version 2>&1) is too old; hwsync needs 3.11 or later (PYTHON=/path/to/python3.11 $0 takes another)"
    # Debian keeps ensurepip in a package of its own: without it `python3 -m venv` ends half-way.
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$python cannot make an environment: python3-venv is missing. On Debian: apt-get install python3-venv"
}

# environment [EXTRA]: makes .venv (or $VENV) and installs the project into it, editable, with the extra (`dev`).
# Does nothing when neither setup.cfg nor pyproject.toml has changed since. Puts its bin first in PATH
# and /usr/sbin last (Debian keeps mosquitto there, outside the PATH of an ordinary user).
environment() {
    extra="${1:-}"
    venv="${VENV:-$root/.venv}"
    # Two of these scripts at the same time must not build one environment together.
    if command -v flock >/dev/null 2>&1; then
        exec 9<"$root"
        flock 9
    fi
    if [ -e "$venv" ] && ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
        say "$venv is broken (its Python has gone, or it was half made): making it again"
        rm -rf "$venv"
    fi
    if [ ! -e "$venv" ]; then
        find_python
        say "making $venv"
        "$python" -m venv "$venv" || {
            rm -rf "$venv"
            fail "$python -m venv $venv failed, see above"
        }
    fi
    # The path belongs to the stamp: an environment does not survive a move of the checkout.
    wanted="$venv $(cat "$root/setup.cfg" "$root/pyproject.toml" | cksum)"
    if [ "$(cat "$venv/installed-dev" 2>/dev/null)" != "$wanted" ] &&
        [ "$(cat "$venv/installed-${extra:-base}" 2>/dev/null)" != "$wanted" ]; then
        say "installing hwsync${extra:+ with [$extra]} into $venv"
        # `compat`: a line in a .pth file. The usual way has every interpreter load a finder first, which
        # doubles the time of its start.
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            --config-settings editable_mode=compat --editable "$root${extra:+[$extra]}" ||
            fail "pip could not install this checkout into $venv, see above (is there a network?)"
        printf '%s\n' "$wanted" >"$venv/installed-${extra:-base}"
    fi
    if command -v flock >/dev/null 2>&1; then
        exec 9>&-
    fi
    PATH="$venv/bin:$PATH:/usr/sbin:/sbin"
    export PATH
}

# Installs mosquitto and its clients where this may be done; otherwise says what is left out.
# In CI (CI set) their absence is an error: a test that is skipped there proves nothing.
mosquitto_where_possible() {
    if command -v mosquitto >/dev/null 2>&1 && command -v mosquitto_pub >/dev/null 2>&1; then
        return
    fi
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing mosquitto and mosquitto-clients (Debian's package may start a broker on 127.0.0.1:1883; no test uses it)"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
            --no-install-recommends mosquitto mosquitto-clients; } >&2 || say "apt-get failed, see above"
    fi
    if command -v mosquitto >/dev/null 2>&1 && command -v mosquitto_pub >/dev/null 2>&1; then
        return
    fi
    if [ -n "${CI:-}" ]; then
        fail "mosquitto or mosquitto-clients is missing, and CI is set: nothing may be skipped there"
    fi
    say "mosquitto or mosquitto-clients is missing: its tests are skipped (apt-get install mosquitto mosquitto-clients)"
}

# pytest with these arguments, WORKERS tests at a time. With --pdb, `-n 0` or `-p no:xdist` among them: one at a
# time, in one process, as plain `pytest` does. Two thirds of a test's time is waiting for other processes or the
# disk, so that four keep two cores busy. A fixed number: the deadlines of the tests are made for it.
WORKERS=4
run_pytest() {
    local spread=(-n auto --dist loadgroup)
    case " $* " in
        *no:xdist*) spread=() ;;
    esac
    # `-n auto` and not `-n 3`: pytest-xdist refuses a number together with --pdb.
    PYTEST_XDIST_AUTO_NUM_WORKERS="${PYTEST_XDIST_AUTO_NUM_WORKERS:-$WORKERS}" \
        python -m pytest ${spread[@]+"${spread[@]}"} "$@"
}
