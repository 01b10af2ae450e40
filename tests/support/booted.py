"""A machine that systemd boots: this one's files under an overlay, in namespaces of its own.

What the units do on a real systemd cannot be seen by reading them. It takes root and a kernel that
lets us mount; where something is missing the test is skipped, and says what. It has no network but
its own loopback, a /proc over which nothing is mounted, as on a real machine (a container manager
would hide parts of it), and nothing of it is left on the disk.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

import pytest

from tests.support.processes import CHECKOUT
from tests.support.waiting import wait_until

BOOT_S: Final = 60.0
CALL_S: Final = 60.0
ENVIRONMENT: Final = "/opt/hwsync"
PACKAGES: Final = "/opt/packages"  # what this interpreter has, to be read
SYSTEM_PYTHON: Final = "/usr/bin/python3"  # the services do not see root's own
UNWANTED: Final = ("mosquitto", "postgresql", "systemd-networkd", "systemd-timesyncd", "rsyslog")

# A cgroup of its own, since systemd takes the one that it finds itself in for the root.
BEGIN: Final = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/cgroup"
mount -t cgroup2 cgroup2 "$1/cgroup"
mkdir "$1/cgroup/hwsync-booted-$$"
echo $$ >"$1/cgroup/hwsync-booted-$$/cgroup.procs"
exec unshare -p -f -i -u -n -C --kill-child bash -c "$BOOT" bash "$@"
"""

BOOT: Final = """
set -e
cd "$1"
mkdir upper work root
mount -t overlay overlay -o "lowerdir=$5,upperdir=upper,workdir=work" root
cd root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for folder in run dev tmp; do mount -t tmpfs tmpfs $folder; done
for device in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod -m 666 "dev/${device%:*}" c 1 "${device#*:}"
done
mknod -m 666 dev/tty c 5 0
mkdir run/lock dev/pts dev/shm
mount -t devpts devpts -o newinstance,ptmxmode=0666 dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
echo 0123456789abcdef0123456789abcdef >etc/machine-id
rm -f etc/systemd/system/*.wants/*
ln -sf /lib/systemd/system/multi-user.target etc/systemd/system/default.target
for unit in UNWANTED; do ln -sf /dev/null "etc/systemd/system/$unit.service"; done
rm -rf etc/hwsync opt/hwsync
if [ "$6" = empty ]; then
    mount -t tmpfs -o mode=700 tmpfs root
    mkdir -p opt/packages
    mount --bind "$3" opt/packages
    mount -o remount,bind,ro opt/packages
else
    mkdir -p opt/hwsync/bin "opt/hwsync/lib/$4/site-packages" opt/checkout/hwsync
    mount --bind "$2" opt/checkout/hwsync
    mount --bind "$3" "opt/hwsync/lib/$4/site-packages"
fi
mkdir oldroot
pivot_root . oldroot
umount -l /oldroot
mount --make-rshared /
exec env -i container=hwsync PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    /lib/systemd/systemd --log-target=console
""".replace("UNWANTED", " ".join(UNWANTED))

END: Final = """
mount -t cgroup2 cgroup2 "$1"
find "$1/hwsync-booted-$2" -depth -type d -exec rmdir '{}' +
"""

COMMAND: Final = """#!{environment}/bin/python3
import sys
sys.path.insert(0, "/opt/checkout")
from {module} import main
sys.exit(main())
"""


class Booted:
    """One such machine, with hwsync in /opt/hwsync. Skips the test where it cannot be.

    ``empty``: hwsync is not there, but the packages that it needs are in ``PACKAGES``; ``files``:
    another machine's instead of this one's.
    """

    def __init__(self, folder: Path, *, empty: bool = False, files: Path = Path("/")) -> None:
        self._log = folder / "boot.log"
        for program in ("/lib/systemd/systemd", "nsenter", "unshare"):
            if shutil.which(program) is None:
                pytest.skip(f"{program} is missing (apt-get install systemd util-linux)")
        if os.geteuid() != 0 or os.path.isdir("/run/systemd/system"):
            pytest.skip("to boot a machine here takes root, and one without a systemd of its own")
        major_minor = f"python{sys.version_info.major}.{sys.version_info.minor}"
        if Path(SYSTEM_PYTHON).resolve().name != major_minor:
            pytest.skip(f"{SYSTEM_PYTHON} is no {major_minor}: it cannot use this one's packages")
        inside = folder / "inside"
        inside.mkdir()
        self._folder = str(inside)
        what = [self._folder, f"{CHECKOUT}/hwsync", sysconfig.get_path("purelib"), major_minor]
        what += [str(files), "empty" if empty else ""]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["unshare", "-m", "bash", "-c", BEGIN, "bash", *what],
                env={**os.environ, "BOOT": BOOT},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._leader = 0
        try:
            wait_until(self._up, BOOT_S, lambda: f"a booted machine: {self.log}")
        except BaseException:
            self.stop()
            raise
        if not empty:
            self._install()

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")[-4_000:]

    def _up(self) -> bool:
        if self._process.poll() is not None:
            pytest.skip(f"no machine can be booted here: {self.log}")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        below = children.read_text().split()
        if not below:
            return False
        self._leader = int(below[0])
        state = self.call("systemctl", "is-system-running", check=False).strip()
        return state in ("running", "degraded")

    def _install(self) -> None:
        """The environment: this one's packages, and the checkout."""
        binaries = f"{ENVIRONMENT}/bin"
        made = f"printf 'home = /usr/bin\\n' >{ENVIRONMENT}/pyvenv.cfg\n"
        made += f"ln -s {SYSTEM_PYTHON} {binaries}/python3\n"
        for name, module in (("hwsync", "hwsync.cli"), ("hwsync-device", "hwsync.device.service")):
            text = COMMAND.format(environment=ENVIRONMENT, module=module)
            made += f"cat >{binaries}/{name} <<'END'\n{text}END\nchmod 755 {binaries}/{name}\n"
        self.call("bash", "-ec", made)

    def call(
        self, *command: str, check: bool = True, stdin: str = "", within: float = CALL_S
    ) -> str:
        """What a command says there, with its errors."""
        done = subprocess.run(
            ["nsenter", "-t", str(self._leader), "-a", "--", *command],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=within,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}"
        return done.stdout

    def hwsync(self, *words: str, check: bool = True) -> str:
        return self.call(f"{ENVIRONMENT}/bin/hwsync", *words, check=check)

    def copy(self, folder: Path, to: str) -> None:
        """A folder of this machine, into one of that."""
        packed = subprocess.run(["tar", "-cf", "-", "-C", folder, "."], stdout=subprocess.PIPE,
                                check=True).stdout  # fmt: skip
        unpack = ["bash", "-c", f"mkdir -p '{to}' && tar -xf - --no-same-owner -C '{to}'"]
        inside = ["nsenter", "-t", str(self._leader), "-a", "--", *unpack]
        subprocess.run(inside, input=packed, check=True)

    def write(self, path: str, text: str, mode: str = "0644") -> None:
        self.call("install", "-D", "-m", mode, "/dev/stdin", path, stdin=text)

    def stop(self) -> None:
        """With its first process everything in it ends."""
        if self._leader:
            subprocess.run(["kill", "-KILL", str(self._leader)], check=False)
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        end = ["unshare", "-m", "bash", "-c", END, "bash", self._folder, str(self._process.pid)]
        subprocess.run(end, check=False)
