"""The child's side of a run: given to the interpreter as text, never imported to be run.

It becomes two processes. The keeper is the program's parent, so that the daemon is not: it waits
for the program's end and reports it, outside the program's session and without its streams. The
program's process makes its own session, reports its number, waits for the program, and runs it
only if it came whole. The status pipe carries lines, ``pid N``, ``run`` right before the program's
first instruction, and ``end CODE STATUS`` (as ``waitid``); the program pipe eight bytes of length
(big-endian) and the source.

Everything is local to one function and from modules that every interpreter has loaded at its start:
the program finds a ``__main__`` and a ``sys.modules`` as with ``python3 -``.
"""


def bootstrap(program_pipe: int, status_pipe: int) -> None:
    import os
    import sys

    signals = __import__("_signal")  # the module signal would load a dozen others
    for number in signals.valid_signals():
        # A daemon started by nohup ignores SIGHUP; its programs must not. SIGPIPE and SIGXFSZ are
        # ignored by Python itself.
        ignored = signals.getsignal(number) == signals.SIG_IGN
        if ignored and number not in (signals.SIGPIPE, signals.SIGXFSZ):
            interrupt = number == signals.SIGINT
            signals.signal(number, signals.default_int_handler if interrupt else signals.SIG_DFL)
    signals.pthread_sigmask(signals.SIG_SETMASK, ())

    child = os.fork()
    if child:
        try:
            for standard in (0, 1, 2):
                os.close(standard)
            # Not collected yet: as long as it is a zombie its number belongs to nobody else.
            end = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
            if end is not None:
                os.write(status_pipe, b"end %d %d\n" % (end.si_code, end.si_status))
            while os.read(program_pipe, 65536):
                pass  # end of file: the runner has ended the rest of the session, or is gone
            os.waitpid(child, 0)
        finally:
            os._exit(0)

    os.setsid()
    os.write(status_pipe, b"pid %d\n" % os.getpid())

    def receive(count: int) -> bytes:
        parts = []
        while count:
            part = os.read(program_pipe, min(count, 65536))
            if not part:
                os._exit(0)  # whoever sent it died in the middle
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    source = receive(int.from_bytes(receive(8), "big"))
    os.close(program_pipe)

    sys.argv = ["-", *sys.argv[1:]]
    sys.orig_argv = [sys.orig_argv[0], *sys.argv]
    namespace = sys.modules["__main__"].__dict__
    del namespace["bootstrap"]
    namespace["__doc__"] = None

    code = None
    display = sys.__excepthook__

    try:
        code = compile(source, "<stdin>", "exec", dont_inherit=True)
        try:
            os.write(status_pipe, b"run\n")
        except OSError:
            os._exit(0)  # nobody is left who could say how it ended
        os.close(status_pipe)
        exec(code, namespace)
    except SystemExit:
        raise  # the interpreter itself knows all its variants
    except BaseException:
        hook = sys.excepthook

        def report(kind, error, trace):  # type: ignore[no-untyped-def]
            """Stands in for the program's hook once: without the frames of this function."""
            sys.excepthook = hook
            while trace is not None and trace.tb_frame.f_code is not code:
                trace = trace.tb_next
            error.__traceback__ = sys.last_traceback = trace
            for stream in (sys.stderr, sys.stdout):
                try:  # noqa: SIM105 (contextlib is not loaded at the start)
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
