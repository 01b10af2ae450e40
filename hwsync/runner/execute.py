"""The program's own process: given to an interpreter as text, never imported to be run.

It says ``ready``, waits for the program, puts it and the files beside it into the run's folder,
compiles it, says ``run`` before the program's first instruction, and runs it as ``python3 NAME``
does; one that does not compile is left to the interpreter itself, which says why. A program that
did not come whole, with all of its files, never runs. The program pipe carries the source, then the
number of files, and of each its path and its bytes; eight bytes (big-endian) of length come before
each text, and the number has as many. ``failed TEXT`` on the status pipe says why nothing was run.

A program with an instant says ``prepared`` where another says ``run``, and waits there;
``release.py`` decides when it begins. ``instant``: the descriptors of its page and its marks.

Everything is local to its function and from modules that every interpreter has loaded at its start:
the program finds a ``__main__`` and a ``sys.modules`` as with ``python3 NAME``.
"""


def load(
    program_pipe: int,
    status_pipe: int,
    name: str,
    mark: str,
    beside: str,
    instant: tuple[int, ...],
) -> tuple[bytes, str, object]:
    """The whole program, the path of its file, in the working directory or ``beside`` it, and what
    puts the files of a program with an instant where they belong (a call without arguments).

    A folder that is emptied is the program's alone, and has neither ``mark`` nor ``beside``. In one
    that is kept the file has a second name, ``mark``, by which hwsync knows it for its own to
    remove; where it cannot stand there, or another file of its name does, it is put into the folder
    ``beside``. Files stand in a folder of their own there until all of them are whole, and until
    the instant's grant: then each takes its place at one stroke. What does not come whole, or
    cannot be written, never runs: this ends the process.
    """
    import os

    def exactly(count: int) -> bytes:
        parts = []
        while count:
            part = os.read(program_pipe, min(count, 65536))
            if not part:
                os._exit(0)  # whoever sent it died in the middle
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def write(path: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        file, data = os.open(path, flags, 0o666), source
        while data:
            data = data[os.write(file, data) :]
        os.close(file)

    def fail(what: str, error: OSError) -> None:
        no_folder = error.errno in (20, 40)  # ENOTDIR, ELOOP: also a link to one
        why = "a part of its path is no folder" if no_folder else error.strerror
        said = f"{what} cannot be written in {os.getcwd()}: {why}"
        os.write(status_pipe, f"failed {said}\n".encode(errors="replace"))
        os._exit(0)

    def enter(path: str) -> tuple[int, str]:
        """The folder of a file below the working directory, made part by part, and its name."""
        no_link = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        *parts, last = path.split("/")
        here = os.open(".", no_link)
        for part in parts:
            try:
                os.mkdir(part, dir_fd=here)
            except FileExistsError:
                pass
            above, here = here, os.open(part, no_link, dir_fd=here)
            os.close(above)
        return here, last

    def receive(path: str) -> None:
        """The next file's bytes, as they come, into a file that was not there."""
        folder, last = enter(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(last, flags, 0o666, dir_fd=folder)
        left = int.from_bytes(exactly(8), "big")
        while left:
            data = exactly(min(left, 65536))
            left -= len(data)
            while data:
                data = data[os.write(file, data) :]
        os.close(file)
        os.close(folder)

    def install() -> None:
        """Each file that stands apart, to its place; what stood there is replaced."""
        try:
            for number, path in enumerate(paths):
                folder, last = enter(path)
                os.rename(f"{staged}/{number}", last, dst_dir_fd=folder)
                os.close(folder)
            if paths:
                os.rmdir(staged)
        except OSError as error:
            fail(path, error)

    os.write(status_pipe, b"ready\n")
    source = exactly(int.from_bytes(exactly(8), "big"))
    path, staged = name, ".hwsync-~files" if mark else ""  # ``workplace.STAGED``
    paths: list[str] = []  # of the files that stand apart
    try:
        if mark:
            try:
                write(mark)
                os.link(mark, name)
            except OSError:  # also where a file system knows no second names
                path = name = f"{beside}/{name}"
                write(name)
        else:
            write(name)
        for number in range(int.from_bytes(exactly(8), "big")):
            path = exactly(int.from_bytes(exactly(8), "big")).decode()
            if staged:
                if not paths:
                    os.mkdir(staged)
                paths.append(path)
            receive(f"{staged}/{number}" if staged else path)
    except OSError as error:
        fail(path, error)
    if instant:
        return source, name, install
    os.close(program_pipe)
    install()
    return source, name, None


def stand_by(
    program_pipe: int, status_pipe: int, instant: tuple[int, ...], patience: float
) -> None:
    """Be process 1 of a namespace: fork, and return in the child only.

    The parent collects whatever ends and says ``inner STATUS SECONDS`` of its child, as the fork
    server says of bubblewrap, which makes one number of exit codes and signals. What the child
    leaves may end by itself within ``patience`` seconds; with this process the namespace ends.
    """
    import _signal as signals
    import os
    import sys
    import time

    # Nobody may look into this process: its descriptors say how the program ended. What that takes
    # is not the program's, which may have left a module of that name, nor is it left for it.
    path, known = sys.path[:], set(sys.modules)
    sys.path[:] = [part for part in path if part]
    import _ctypes

    set_dumpable = 4
    prctl = _ctypes.dlsym(_ctypes.dlopen(None, 2), "prctl")  # type: ignore[arg-type]
    _ctypes.call_function(prctl, (set_dumpable, 0, 0, 0, 0))
    child = os.fork()
    if not child:
        _ctypes.call_function(prctl, (set_dumpable, 1, 0, 0, 0))
        sys.path[:] = path
        for module in set(sys.modules) - known:
            del sys.modules[module]
        return
    for number in signals.valid_signals():
        if signals.getsignal(number) not in (signals.SIG_DFL, signals.SIG_IGN, None):
            signals.signal(number, signals.SIG_IGN)
    for descriptor in (0, 1, 2, program_pipe, *instant):
        os.close(descriptor)
    while True:
        pid, status = os.waitpid(-1, 0)  # wait4 would import the module resource
        if pid == child:
            break
    try:
        used = os.times()
        seconds = used.children_user + used.children_system
        os.write(status_pipe, b"inner %d %.3f\n" % (status, seconds))
        until = time.monotonic() + patience
        while time.monotonic() < until:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.002)
    finally:
        os._exit(0)


def become(  # type: ignore[no-untyped-def]
    program_pipe: int,
    status_pipe: int,
    name: str,
    mark: str,
    beside: str,
    command: list[str],
    instant: tuple[int, ...] = (),
    hold=None,
):
    """Run the program with another interpreter: it gets the file's path, then the arguments."""
    import _signal as signals
    import os
    import sys

    _, path, install = load(program_pipe, status_pipe, name, mark, beside, instant)
    for number in (signals.SIGPIPE, signals.SIGXFSZ):  # which Python ignores
        signals.signal(number, signals.SIG_DFL)
    os.set_inheritable(status_pipe, False)
    if hold is None:
        os.write(status_pipe, b"run\n")
    else:
        wait = hold(*instant, program_pipe)
        os.write(status_pipe, b"prepared\n")
        begin = wait(install)
        del os.environ["HWSYNC_LAB_PAGE"]  # it ends with this interpreter
        begin()
    try:
        os.execv(command[0], [*command, path, *sys.argv[1:]])
    except OSError as error:
        os.write(status_pipe, f"failed {command[0]}: {error.strerror}\n".encode(errors="replace"))
    os._exit(0)


def execute(  # type: ignore[no-untyped-def]
    program_pipe: int,
    status_pipe: int,
    name: str,
    mark: str,
    beside: str,
    warm,
    instant=(),
    hold=None,
):
    """``warm``: the modules that were there before, what runs the handlers of ``atexit``, the
    module ``gc``, and what makes a weak reference; None: a fresh interpreter.

    A warm interpreter ends by itself, since the ordinary end frees everything that was loaded
    before; where that could make a difference, the interpreter's own end follows nevertheless.
    """
    import os
    import sys

    source, given, install = load(program_pipe, status_pipe, name, mark, beside, instant)
    wait = None if hold is None else hold(*instant, program_pipe)
    path = os.path.join(os.getcwd(), given)

    if sys.path[:1] == [""]:  # it is not where PYTHONSAFEPATH is set
        sys.path[:1] = dict.fromkeys((os.path.dirname(path), os.getcwd()))
    interpreter = sys.orig_argv[: sys.orig_argv.index("-c")]  # with its options
    sys.argv = [given, *sys.argv[1:]]
    sys.orig_argv = [*interpreter, *sys.argv]
    # What the compiler warns of is not said twice where the interpreter reads the file once more.
    stderr, sys.stderr = sys.stderr, sys.modules["io"].StringIO()
    try:
        code = compile(source, path, "exec", dont_inherit=True)
    except BaseException:
        code = None
    warned, sys.stderr = sys.stderr, stderr
    try:
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):
        pass  # there is none
    ours = sys.modules["__main__"]
    names = {name: value for name, value in vars(ours).items() if name[:2] == "__"}
    loader = sys.modules["_frozen_importlib_external"].SourceFileLoader("__main__", path)
    names.update(__doc__=None, __annotations__={}, __loader__=loader, __file__=path)
    names["__cached__"] = None
    main = type(sys)("__main__")
    vars(main).clear()
    vars(main).update(names)
    if warm is None:
        vars(ours).clear()
        vars(ours).update(names)
        main = ours
    sys.modules["__main__"] = main
    namespace = vars(main)
    del main, ours, names, loader, given

    display = sys.__excepthook__

    def clear(members):  # type: ignore[no-untyped-def]
        """What a module holds, as the interpreter does it: private names first."""
        for private in (True, False):
            for name in list(members):
                if (name[:1] == "_" != name[1:2]) is private and name != "__builtins__":
                    members[name] = None

    def end(status, ready, run_exit_handlers, gc, refer):  # type: ignore[no-untyped-def]
        """What the interpreter does at its end, to everything that was not there before."""
        threading = sys.modules.get("threading")
        try:
            if threading is not None:
                threading._shutdown()
        except BaseException as error:  # a signal: the interpreter says so and goes on
            print(f"Exception ignored in: {threading!r}", file=sys.stderr)
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            display(type(error), error, error.__traceback__)
        run_exit_handlers()
        if len(sys._current_frames()) > 1:
            return  # threads that nobody waits for: the interpreter knows how to stop them
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
        if gc.isenabled():
            # As the interpreter does while everything is held: this also brings whatever holds
            # something before that, so that a file which nobody closed is written before the
            # descriptor below it is closed.
            gc.collect()
        left = []
        for name in [name for name in sys.modules if name not in ready or name == "__main__"]:
            try:
                left.append(refer(sys.modules.pop(name)))
            except TypeError:
                pass  # anything may be put there
        gc.collect()
        for reference in reversed(left):
            alive = reference()
            if alive is not None:
                clear(alive.__dict__)  # type: ignore[no-untyped-call]
        # What a module holds outlives it where one of its functions is known to what was there
        # before, such as a signal's handler; that is never freed here.
        usual = {"__builtins__", "__name__", "__spec__"}
        dicts = [one for one in gc.get_objects() if type(one) is dict and one.keys() >= usual]
        while dicts:
            clear(dicts.pop())  # type: ignore[no-untyped-call]
        for stream in (sys.__stdout__, sys.__stderr__):
            if stream is not None and not stream.closed:
                stream.flush()
        os._exit(status & 255)

    said = "" if stderr is None or code is None else warned.getvalue()
    begin = None
    if wait is not None:
        os.write(status_pipe, b"prepared\n")
        begin = wait(install)
        os.close(status_pipe)
    del source, warned, wait, hold, install
    try:
        # From here on it has begun: whoever interrupts it now is answered in Python's words.
        if begin is None:
            try:
                os.write(status_pipe, b"run\n")
            except OSError:
                os._exit(0)  # nobody is left who could say how it ended
            os.close(status_pipe)
        else:
            begin()
        if code is None:
            os.execvp(interpreter[0], sys.orig_argv)  # which says in its own words what is wrong
        if said:
            stderr.write(said)
        del interpreter, stderr, said, begin
        exec(code, namespace)
        status = 0
    except SystemExit as leaving:
        status = 0 if leaving.code is None else leaving.code  # type: ignore[assignment]
        if warm is None or type(status) not in (int, bool) or abs(status) > 65535:
            raise  # the interpreter itself knows all its variants
        leaving.__traceback__ = None
    except BaseException:
        hook = sys.excepthook

        def report(kind, error, trace):  # type: ignore[no-untyped-def]
            """Stands in for the program's hook once: without the frames of this function."""
            sys.excepthook = hook
            while trace is not None and trace.tb_frame.f_code is not code:
                trace = trace.tb_next
            error.__traceback__ = sys.last_traceback = trace
            for stream in (sys.stderr, sys.stdout):
                try:
                    stream.flush()
                except Exception:
                    pass
            try:
                hook(kind, error, trace)
            except SystemExit:
                raise
            except BaseException as failure:
                inner = failure.__traceback__
                failure.__traceback__ = inner and inner.tb_next
                print("Error in sys.excepthook:", file=sys.stderr, flush=True)
                display(type(failure), failure, failure.__traceback__)
                print("\nOriginal exception was:", file=sys.stderr, flush=True)
                display(kind, error, trace)

        sys.excepthook = report
        raise  # the interpreter calls the hook, and ends itself by SIGINT where that is due
    if warm is not None:
        del namespace, code
        try:
            end(status, *warm)  # type: ignore[no-untyped-call]
        except BaseException:
            pass  # a signal, or a pipe that nobody reads: the interpreter ends in its own words
        if status:
            sys.exit(status)
