"""The program's own process: given to an interpreter as text, never imported to be run.

It says ``ready``, waits for the program, compiles it, says ``run`` right before the program's first
instruction, and runs it as ``python3 -`` does. A program that did not come whole never runs. The
program pipe carries eight bytes of length (big-endian) and the source.

Everything is local to its function and from modules that every interpreter has loaded at its start:
the program finds a ``__main__`` and a ``sys.modules`` as with ``python3 -``.
"""


def receive(program_pipe: int) -> bytes:
    """The whole program: eight bytes of length (big-endian), and the source.

    A program that does not come whole never runs: this ends the process.
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

    source = exactly(int.from_bytes(exactly(8), "big"))
    os.close(program_pipe)
    return source


def execute(program_pipe: int, status_pipe: int, warm: tuple | None) -> None:  # type: ignore[type-arg]
    """``warm``: the modules that were there before, what runs the handlers of ``atexit``, the
    module ``gc``, and what makes a weak reference; None: a fresh interpreter.

    A warm interpreter ends by itself, since the ordinary end frees everything that was loaded
    before; where that could make a difference, the interpreter's own end follows nevertheless.
    """
    import os
    import sys

    os.write(status_pipe, b"ready\n")
    source = receive(program_pipe)

    sys.argv = ["-", *sys.argv[1:]]
    sys.orig_argv = [sys.orig_argv[0], *sys.argv]
    ours = sys.modules["__main__"]
    names = {name: value for name, value in vars(ours).items() if name[:2] == "__"}
    main = type(sys)("__main__")
    vars(main).clear()
    vars(main).update(names, __doc__=None, __annotations__={})
    if warm is None:
        vars(ours).clear()
        vars(ours).update(vars(main))
        main = ours
    sys.modules["__main__"] = main
    namespace = vars(main)
    del main, ours, names

    code = None
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
        if threading is not None:
            threading._shutdown()
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

    try:
        code = compile(source, "<stdin>", "exec", dont_inherit=True)
        try:
            os.write(status_pipe, b"run\n")
        except OSError:
            os._exit(0)  # nobody is left who could say how it ended
        os.close(status_pipe)
        del source
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
        except Exception:
            pass  # such as a pipe that nobody reads: the interpreter says so in its own words
        if status:
            sys.exit(status)
