"""The fork server: given to an interpreter as text, never imported to be run.

One small process that stands between the daemon and its programs. It has the interpreter and the
configured modules ready; for each run it forks the program's process, tells who it is, ends it when
told to or when it exceeds a limit, and says how it ended only after everything below it is gone:
as a subreaper it is the parent of whatever escapes. One program at a time. When the daemon is gone,
so is everything here.

The control socket carries ``run`` with the program's name, its arguments and the descriptors of
standard input, output, error, program and status, and where there is an instant those of the page
and of the marks (see ``release.py``); ``signal N`` for the program's foreground group; and ``end``;
it answers ``warm`` once, with its version and its paths. The status pipe of a run carries lines:
``pid N``, ``ready``, ``run`` or ``prepared``, ``failed TEXT``, ``exit STATUS SECONDS`` when the
program has ended, with its wait status and processor time, and ``end WHY`` when nothing is left
below it, with the limit that was exceeded, ``asked``, or ``-``.

The program's own process sees nothing of this: no module that only the server needs is left.
"""


def serve(control_descriptor, given, become, release):  # type: ignore[no-untyped-def]
    """``given``: the same for every run (``launcher.py``); ``become`` and ``release``: those of
    ``execute.py`` and ``release.py``.

    Returns in a program's process only, for ``execute`` to follow. ``given`` has, by its key:

    preload       modules that are imported before the first program
    directory     where a program runs
    command       of a fresh Python, with its options; empty: the program's process is forked
    interpreter   of another language, with its options; empty: it is a Python program
    isolated      whether ``command`` begins a namespace, whose process 1 stands by
    execute       the text of ``execute.py``, for a fresh Python
    release       the text of ``release.py``, likewise
    beside        a folder for the program's file where it cannot stand in ``directory``; or empty
    mark          what the second name of that file begins with; empty: ``directory`` is emptied
    uid, gid      whose a program is
    groups        the other groups of that account; None: it is that of this process
    cgroup        the folder of the programs' control group; empty: there is none
    cpu           seconds of processor time, of each process; here and below 0: no limit
    memory        bytes, resident, of all together
    processes     with their threads, at the same time
    open_files    of each process
    file_size     bytes, of each file
    free_disk     bytes that must stay free
    others        processes of the same account that may begin while a program runs
    look          seconds between two looks at what the kernel does not limit
    looks         that still find somebody new at the end, before the cgroup is ended
    patience      seconds that what a program leaves may take to end by itself
    kill_limit    seconds for what was ended to be gone
    sweep_limit   seconds for all of that together
    """
    import _signal as signals  # the module signal would load a dozen others
    import os
    import sys

    for number in signals.valid_signals():
        # A daemon started by nohup ignores SIGHUP; its programs must not. SIGPIPE and SIGXFSZ are
        # ignored by Python itself.
        ignored = signals.getsignal(number) == signals.SIG_IGN
        if ignored and number not in (signals.SIGPIPE, signals.SIGXFSZ):
            interrupt = number == signals.SIGINT
            signals.signal(number, signals.default_int_handler if interrupt else signals.SIG_DFL)
    signals.pthread_sigmask(signals.SIG_SETMASK, ())

    # Not from the working directory: a program could have left a module of that name there, and
    # it would run as whoever runs this.
    first = sys.path[:1] == [""]
    if first:
        del sys.path[0]

    def refuse(why: str) -> None:
        """At once: the interpreter's own end would wait for threads."""
        sys.stderr.write(f"{why}\n")
        sys.stderr.flush()
        os._exit(1)

    for module in given["preload"]:
        try:
            __import__(module)
        except ImportError as error:
            refuse(f"{type(error).__name__}: {error}")
        threading = sys.modules.get("threading")
        threads = [] if threading is None else threading.enumerate()[1:]
        for thread in threads:
            thread.join(0.5)
        if len(sys._current_frames()) > 1:
            # A fork copies no thread, but the locks that it holds.
            left = ", ".join(one.name for one in threads if one.is_alive()) or "without a name"
            refuse(f"the module {module} leaves threads running ({left})")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # else each program would print it once more
    if signals.getsignal(signals.SIGCHLD) == signals.SIG_IGN:
        signals.signal(signals.SIGCHLD, signals.SIG_DFL)
    wanted = set(sys.modules)

    import _ctypes
    import _socket
    import _weakref
    import atexit
    import gc
    import resource
    import select
    import time

    if first:
        sys.path.insert(0, "")

    # _ctypes itself, since ctypes is half a megabyte.
    itself = _ctypes.dlopen(None, 2)  # type: ignore[arg-type]
    prctl_address = _ctypes.dlsym(itself, "prctl")

    def prctl(option: int, value: int) -> None:
        if _ctypes.call_function(prctl_address, (option, value, 0, 0, 0)):
            raise OSError(f"prctl {option} failed")

    set_subreaper, set_death_signal, set_dumpable = 36, 1, 4
    prctl(set_subreaper, 1)
    control = _socket.socket(fileno=control_descriptor)
    server = os.getpid()
    has_children_file = os.path.exists("/proc/thread-self/children")
    page = os.sysconf("SC_PAGE_SIZE")
    counted = [0, float("-inf")]  # tasks of the programs' account, and when that was seen

    # -- who is below us ------------------------------------------------------------------------

    def read(path: str, most: int = 65536) -> bytes:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            return os.read(descriptor, most)
        except OSError:
            return b""
        finally:
            os.close(descriptor)

    def stat(pid: int) -> list[bytes]:
        """From the state on; empty where it is gone."""
        line = read(f"/proc/{pid}/stat")
        return line[line.rfind(b")") + 2 :].split()

    def names(path: str) -> list[int]:
        try:
            return [int(name) for name in os.listdir(path) if name.isdecimal()]
        except OSError:
            return []

    def below(thorough: bool) -> list[int]:
        """Every process under this one, zombies too; no snapshot.

        The files of children are quick where there are few; one of a number is quick always.
        """
        found: list[int] = []
        waiting = [server]
        if has_children_file and not thorough:
            while waiting:
                parent = waiting.pop()
                for task in names(f"/proc/{parent}/task"):
                    new = [int(n) for n in read(f"/proc/{parent}/task/{task}/children").split()]
                    found += new
                    waiting += new
            return found
        parents: dict[int, list[int]] = {}
        for pid in names("/proc"):
            fields = stat(pid)
            if len(fields) > 1:
                parents.setdefault(int(fields[1]), []).append(pid)
        while waiting:
            new = parents.pop(waiting.pop(), [])
            found += new
            waiting += new
        return found

    def send(number: int, pids: list[int]) -> None:
        for pid in pids:
            try:
                os.kill(pid, number)
            except OSError:
                pass  # it is gone, or is another account's: it stays in the list

    def write(name: str, text: bytes) -> bool:
        """To a file of the programs' cgroup."""
        try:
            descriptor = os.open(f"{given['cgroup']}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return os.write(descriptor, text) > 0
        except OSError:
            return False
        finally:
            os.close(descriptor)

    def strike() -> None:
        """End the whole cgroup but this process; nothing in it can fork away."""
        if given["cgroup"] and write("../cgroup.procs", b"0"):
            write("cgroup.kill", b"1")
            if not write("cgroup.procs", b"0"):
                given["cgroup"] = ""  # what is forked from now on is not born in it

    def collect(child: int, status_pipe: int) -> bool:
        """Take what has ended, and say of the child how; False: nothing is below us."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not pid:
                return True
            if pid == child:
                tell(status_pipe, b"exit %d %.3f" % (status, usage.ru_utime + usage.ru_stime))

    def tell(status_pipe: int, line: bytes) -> None:
        try:
            os.write(status_pipe, line + b"\n")
        except OSError:
            pass  # nobody wants to know any more

    def sweep(child: int, status_pipe: int) -> bool:
        """End everything below us.

        False where something is left when the limits are over: that is the daemon's to end.
        """
        pause, looks = 0.0005, 0
        began = time.monotonic()
        deadline = began + given["kill_limit"]
        stopped: set[int] = set()
        while collect(child, status_pipe):
            if time.monotonic() > deadline:
                return False
            # What is stopped cannot fork: first nobody moves, then all are ended.
            pids = below(True)
            while new := [pid for pid in pids if pid not in stopped]:
                send(signals.SIGSTOP, new)
                stopped.update(new)
                pids = below(True)
                looks += 1
                if looks == given["looks"]:
                    strike()
                deadline = min(time.monotonic() + given["kill_limit"], began + given["sweep_limit"])
            send(signals.SIGKILL, pids)
            time.sleep(pause)
            pause = min(pause * 2, 0.02)
        return True

    def wait_for_helpers(child: int, status_pipe: int) -> None:
        """What the program leaves may end by itself, as Python's resource tracker does."""
        until, pause = time.monotonic() + given["patience"], 0.0005
        while collect(child, status_pipe) and time.monotonic() < until:
            time.sleep(pause)
            pause = min(pause * 2, 0.005)

    def signal_group(child: int, number: int) -> None:
        """As a terminal does: everybody in the program's own process group; and who is stopped goes
        on, to heed it.

        bubblewrap and process 1 in it are passed over: with them all would end. There a program can
        leave the group, so it is looked for by its parent too.
        """
        pids = [-child]
        if given["isolated"]:
            fields = {pid: stat(pid)[1:3] for pid in below(True)}
            known = {pid: both for pid, both in fields.items() if len(both) == 2}
            leader = str(child).encode()
            first = [pid for pid, (parent, _) in known.items() if parent == leader]
            parents = {str(pid).encode() for pid in first}
            pids = [
                pid
                for pid, (parent, group) in known.items()
                if pid not in (child, *first) and (group == leader or parent in parents)
            ]
        send(number, pids)
        send(signals.SIGCONT, pids)

    # -- limits ---------------------------------------------------------------------------------

    def exceeded() -> str:
        """The limit that the processes below us exceed together, or nothing."""
        free = given["free_disk"]
        if free:
            try:
                disk = os.statvfs(given["directory"])
            except OSError:
                disk = None  # the program has taken it away
            if disk is not None and disk.f_bavail * disk.f_frsize < free:
                return "disk"
        if not given["memory"] and not given["processes"]:
            return ""
        allowed = given["processes"]
        if allowed and given["cgroup"]:
            # One file, also when there are so many that hardly a process gets to do anything.
            tasks_and_us = read(f"{given['cgroup']}/cgroup.threads", 16 * allowed).count(b"\n")
            if tasks_and_us > allowed + 1:
                return "processes"
        pages = tasks = 0
        pids = below(False)
        for pid in pids:
            fields = read(f"/proc/{pid}/statm").split()
            if len(fields) > 2 and fields[1] != b"0":
                pages += int(fields[1])
                tasks += int((stat(pid) + [b"0"] * 18)[17])
        # First: many processes share pages that are counted for each of them.
        if allowed and tasks > allowed:
            return "processes"
        # Quick and too much, since what is shared is counted for each: then looked at closely.
        if 0 < given["memory"] < pages * page and sum(map(memory, pids)) > given["memory"]:
            return "memory"
        return ""

    def memory(pid: int) -> int:
        """Bytes of a process, of what it shares its part; files that it maps are none of them."""
        parts = read(f"/proc/{pid}/smaps_rollup") or read(f"/proc/{pid}/status")
        wanted = b"Pss_Anon:", b"Pss_Shmem:", b"RssAnon:", b"RssShmem:"
        lines = [line.split() for line in parts.splitlines()]
        return sum(int(line[1]) * 1024 for line in lines if line and line[0] in wanted)

    def tasks_of_account() -> int:
        """How many processes and threads its account has already."""
        if time.monotonic() - counted[1] > 60:
            counted[:] = [0, time.monotonic()]
            for pid in names("/proc"):
                try:
                    if os.stat(f"/proc/{pid}").st_uid == given["uid"]:
                        counted[0] += len(names(f"/proc/{pid}/task"))
                except OSError:
                    pass
        return int(counted[0])

    def limit() -> None:
        """In the program's process: what the kernel itself enforces, for each process."""
        for name, value, more in (
            ("RLIMIT_CPU", 0 if instant else given["cpu"], 1),  # it sets that itself
            ("RLIMIT_DATA", given["memory"], 0),
            ("RLIMIT_NOFILE", given["open_files"], 0),
            ("RLIMIT_FSIZE", given["file_size"], 0),
            ("RLIMIT_NPROC", given["processes"] and given["processes"] + others, 0),
        ):
            kind = getattr(resource, name)
            highest = resource.getrlimit(kind)[1]
            if value and (highest == resource.RLIM_INFINITY or value + more <= highest):
                resource.setrlimit(kind, (value, value + more))
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))

    # -- one run --------------------------------------------------------------------------------

    def until_instant(page: int) -> float:
        """Seconds until the instant of a program that is armed (``page.py``); 0: none, or past."""
        if page < 0:
            return 0.0
        words = os.pread(page, 32, 0)
        state, target = (
            int.from_bytes(words[at : at + 8], sys.byteorder, signed=True) for at in (8, 24)
        )
        left = target - time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        return max(0.0, left / 1e9) if state == 1 else 0.0

    def oversee(child: int, status_pipe: int, page: int) -> None:
        """Until it has ended, or is to be ended, and nothing is left below us.

        Nobody looks at a program that is armed until its instant is past: nothing of it runs, and
        who wakes up then disturbs it.
        """
        handle = os.pidfd_open(child)
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.register(control, select.POLLIN)
        looks = given["memory"] or given["processes"] or given["free_disk"]
        why = ""
        signalled = False
        while not why:
            ready = dict(poll.poll((until_instant(page) + given["look"]) * 1000 if looks else None))
            if handle in ready:
                why = "-"
            elif control.fileno() in ready:
                message = control.recv(64)
                if message[:7] == b"signal ":
                    signalled = True
                    signal_group(child, int(message[7:]))
                else:
                    why = "asked" if message else "gone"
            elif looks and not until_instant(page):
                why = exceeded()
                if why and signalled:
                    why = "asked"  # it had been told to end before
        os.close(handle)
        if why == "-":
            wait_for_helpers(child, status_pipe)
        else:
            strike()
        if not sweep(child, status_pipe):
            tell(status_pipe, b"left")
        tell(status_pipe, b"end " + why.encode())
        os.close(status_pipe)
        if why == "gone":
            os._exit(0)

    def reseeding():  # type: ignore[no-untyped-def]
        """What gives each generator of random numbers that was made here another state."""
        random, numpy = sys.modules.get("random"), sys.modules.get("numpy.random")
        python, numpys = getattr(random, "Random", ()), getattr(numpy, "BitGenerator", ())
        if seed := getattr(numpy, "seed", None):
            yield seed
        for one in gc.get_objects() if random or numpy else ():
            if issubclass(type(one), python):
                yield one.seed
            elif issubclass(type(one), numpys):
                yield lambda one=one: setattr(one, "state", type(one)().state)

    if given["cgroup"] and not write("cgroup.procs", b"0"):
        given["cgroup"] = ""
    gc.collect()
    seeds = list(reseeding())  # type: ignore[no-untyped-call]
    gc.freeze()
    paths = b"\0".join(os.fsencode(path) for path in sys.path)[:60000]
    control.send(b"warm %d.%d.%d\0%b" % (*sys.version_info[:3], paths))
    try:
        while True:
            message, ancillary, _, _ = control.recvmsg(
                1 << 20, _socket.CMSG_SPACE(28), _socket.MSG_CMSG_CLOEXEC
            )
            if not message:
                os._exit(0)
            if not ancillary:
                continue  # an "end" that came too late
            raw = ancillary[0][2]
            files = [int.from_bytes(raw[i : i + 4], sys.byteorder) for i in range(0, len(raw), 4)]
            stdin, stdout, stderr, program_pipe, status_pipe = files[:5]
            instant = tuple(files[5:])  # the descriptors of page and marks, or none
            others = tasks_of_account() + given["others"] if given["processes"] else 0
            child = os.fork()
            if not child:
                break
            for file in (*files[:4], *instant[1:]):
                os.close(file)
            oversee(child, status_pipe, *(instant[:1] or (-1,)))
            for file in instant[:1]:
                os.close(file)
    except BaseException as error:
        if os.getpid() == server:
            sweep(0, -1)
            refuse(f"the fork server failed: {type(error).__name__}: {error}")
        raise

    # -- the program's process ------------------------------------------------------------------

    try:
        prctl(set_death_signal, signals.SIGKILL)
        if os.getppid() != server:
            os._exit(0)
        os.setsid()
        os.write(status_pipe, b"pid %d\n" % os.getpid())
        parts = [part.decode("utf-8", "surrogateescape") for part in message.split(b"\0")]
        name, *arguments = parts[1:]
        mark = given["mark"] + name if given["mark"] else ""
        control.close()
        for number, file in enumerate((stdin, stdout, stderr)):
            os.dup2(file, number)
            os.close(file)
        if given["groups"] is not None:
            os.setgroups(given["groups"])
            os.setgid(given["gid"])
            os.setuid(given["uid"])
            prctl(set_dumpable, 1)
            prctl(set_death_signal, signals.SIGKILL)  # a change of account clears it
        limit()
        try:
            os.chdir(given["directory"])
        except OSError as error:
            where = f"the working directory {given['directory']} cannot be entered"
            raise OSError(error.errno, f"{where}: {error.strerror}") from error
        place = program_pipe, status_pipe, name, mark, given["beside"]
        sys.argv = ["-c", *arguments]
        if given["command"]:
            # A fresh interpreter: of Python, or one of Python that becomes another.
            os.set_inheritable(program_pipe, True)
            os.set_inheritable(status_pipe, True)
            last = given["interpreter"] or None
            more, waiting = "", ""
            if instant:
                for file in instant:
                    os.set_inheritable(file, True)
                more, waiting = f", {instant}, release", given["release"]
            then = f"{'become' if last else 'execute'}(*{place}, {last}{more})"
            before = ""
            if given["isolated"]:
                before = f"stand_by(*{place[:2]}, {instant}, {given['patience']})\n"
            text = f"{given['execute']}\n\n{waiting}\n\n{before}{then}\n"
            os.execv(given["command"][0], [*given["command"], "-c", text, *arguments])
        hold = release if instant else None
        if given["interpreter"]:
            become(*place, given["interpreter"], instant, hold)
    except BaseException as error:
        said = getattr(error, "strerror", None) or str(error)
        os.write(status_pipe, f"failed {said}\n".encode(errors="replace"))
        os._exit(0)

    # Out of sight, not freed: to free a module writes to pages that are shared until then.
    hidden = [sys.modules.pop(name) for name in set(sys.modules) - wanted]
    for seed in seeds:
        try:
            seed()  # else each run would draw the same numbers
        except Exception:
            pass  # one that needs more than the system's own dice
    namespace = sys.modules["__main__"].__dict__
    namespace["hidden"] = hidden
    at_end = atexit._run_exitfuncs, gc, _weakref.ref
    namespace["task"] = (*place, (frozenset(wanted), *at_end), instant, hold)
