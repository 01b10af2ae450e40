"""How a program's process waits for its instant: given to an interpreter as text, like execute.py.

The law: the daemon writes what it knows into a page (``page.py``), and may take the start back
until the last moment; here, in the process that will be the program, everything is looked at once
more when the instant has come. A mark is given before the first instruction: where it was given,
the program was released; where it was not, nothing of it has run.

The page is a file in memory that is read and written by its descriptor: nothing has to be imported
for that. It begins with the daemon's words, eight bytes each, signed, in the machine's order: a
number that grows with each writing; whether it is armed; the instant, in microseconds of lab time
and in nanoseconds of CLOCK_MONOTONIC_RAW; until which of these the knowledge is fresh; whether all
was heard that the coordinator had said by then; the bound of the clock and how much is allowed, in
microseconds; the clock's drift, in parts per thousand million; seconds of processor time, 0: no
limit; for a program that runs for long, lab time and when it was that, on both clocks, the bound
then, and by how many parts per thousand million it grows; how long this boot had been suspended by
then, in microseconds; the number again; and a sum over all of them.

The marks are a socket for this process's own words, of the same kind: 1, the mark; 2, and why it
was not released; 3, and ``started`` on both clocks and the bound then. It is closed before the
first instruction, so the program can take nothing back. The page stays open, for reading only:
``hwsync.lab_time`` reads it, too.
"""


def release(page: int, marks: int, orders: int):  # type: ignore[no-untyped-def]
    """What waits for the instant, and then gives the last thing to do, a call without arguments.

    It is given what puts the program's files into their places, once the grant is there.
    ``orders``: a pipe. One byte there says that the page is armed, its end that nothing will come.
    A program that is not released ends with its process, in the first of the calls.
    """
    import os
    import sys

    # What is imported is not the program's, which may have left a module of that name, nor is it
    # left for it.
    path, known = sys.path[:], set(sys.modules)
    sys.path[:] = [part for part in path if part]
    import time

    words, order = 17, sys.byteorder
    disarmed, spin, longest = 2, 2_000_000, 1.0  # a state; ns; s of one sleep
    unreadable, is_disarmed, late, stale, unheard, uncertain, suspended = 1, 2, 3, 4, 5, 6, 7
    awake, always = time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME
    apart = 5_000_000  # ns; more than two clocks differ that are read one after the other
    raw = time.CLOCK_MONOTONIC_RAW
    clock, sleep, pread, write = time.clock_gettime_ns, time.sleep, os.pread, os.write
    nothing, mark, refused, started_at = 0, 1, 2, 3  # what this process says

    def look() -> "list[int]":
        """The daemon's words, all of one writing."""
        for _ in range(1000):
            data = pread(page, 8 * words, 0)
            found = [
                int.from_bytes(data[at : at + 8], order, signed=True)
                for at in range(0, 8 * words, 8)
            ]
            total = sum(number * word for number, word in enumerate(found[:-1], 1))
            if found[0] == found[-2] and found[-1] == total % (1 << 62):
                return found
            sleep(0)
        refuse(unreadable)
        return []

    def slept(before: int) -> bool:
        """Whether this boot was suspended since: then the raw clock has stood still meanwhile."""
        return all(abs(clock(always) - clock(awake) - before * 1000) > apart for _ in range(10))

    def say(*found: int) -> None:
        data = b"".join([word.to_bytes(8, order, signed=True) for word in found])
        try:
            write(marks, data)
        except OSError:
            os._exit(0)  # nobody is left who could know of it

    def refuse(why: int) -> None:
        say(refused, why)
        os._exit(0)

    for descriptor in (page, marks):
        os.set_inheritable(descriptor, False)
    processor = look()[9]
    if processor:
        import resource
    for module in set(sys.modules) - known:
        del sys.modules[module]
    sys.path[:] = path

    def limit() -> None:
        """Of processor time, which counts from now on."""
        used = time.process_time()
        highest = resource.getrlimit(resource.RLIMIT_CPU)[1]
        most = processor + int(used + 0.9)
        if highest == resource.RLIM_INFINITY or most + 1 <= highest:
            resource.setrlimit(resource.RLIMIT_CPU, (most, most + 1))

    def tell_program(start_at: int, target: int, drift: int, bound: int) -> None:
        """What it may know of lab time."""

        def seconds(micros: int) -> str:
            sign = "-" if micros < 0 else ""
            return f"{sign}{abs(micros) // 1_000_000}.{abs(micros) % 1_000_000:06}"

        os.environ["HWSYNC_START_AT"] = seconds(start_at)
        os.environ["HWSYNC_LAB_OFFSET"] = seconds(start_at - target // 1000)
        os.environ["HWSYNC_LAB_DRIFT_PPM"] = f"{drift / 1000:.3f}"
        os.environ["HWSYNC_LAB_BOUND"] = seconds(bound)
        os.environ["HWSYNC_LAB_PAGE"] = str(page)

    def wait(install):  # type: ignore[no-untyped-def]
        if not os.read(orders, 1):
            os._exit(0)
        os.close(orders)
        install()
        told, limited = 0, not processor
        while True:
            found = look()
            number, state, start_at, target, fresh, heard, bound, within, drift = found[:9]
            now = clock(raw)
            if state == disarmed:
                refuse(is_disarmed)
            left = target - now
            if left > spin:
                # Not the whole at once: sleep counts on a clock that may be slewed.
                sleep(min(longest, max(0.9e-9 * (left - spin), 1e-4)))
                continue
            if not limited:
                limited = True
                limit()
            if told != number:
                told = number
                tell_program(start_at, target, drift, bound)
            if left > 0:
                say(nothing, 0, 0, 0)  # what is done the first time is slow,
                slept(found[14])  # and so is this
                while (now := clock(raw)) < target:
                    pass
                if pread(page, 8, 0) != number.to_bytes(8, order):
                    continue  # something was written meanwhile
            if now > target + within * 1000:
                refuse(late)
            if now > fresh:
                refuse(stale)
            if not heard:
                refuse(unheard)
            if bound > within:
                refuse(uncertain)
            if slept(found[14]):
                refuse(suspended)
            break

        def begin() -> None:
            say(mark)
            started = clock(raw)
            beyond = started - target
            since = (beyond + beyond * drift // 10**9) // 1000
            say(started_at, started, start_at + since, bound + beyond * found[13] // 10**12)
            os.close(marks)

        return begin

    return wait
