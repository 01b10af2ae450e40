"""api.notebook: what a board says is shown as text, whatever it is."""

from __future__ import annotations

from typing import Any

from hwsync.api import notebook
from hwsync.api.run import Run
from hwsync.operator.run import RunRequest

EVIL = '<script>alert("&")</script>'


class Shown(Run):
    """A run that has ended with these."""

    def __init__(self, files: dict[str, bytes] | None = None, **record: Any) -> None:
        super().__init__(None, None, record.pop("board", "pi1"), RunRequest(program=""))  # type: ignore[arg-type]
        self._record = {"hw_response": "", "stderr": "", "outcome": "ok", **record}
        self._files = files or {}
        self.set_result(self)


def test_nothing_that_a_board_says_is_markup() -> None:
    files = {f'{EVIL}".png': b"x", "evil.svg": EVIL.encode(), "page.html": EVIL.encode()}
    run = Shown(files, hw_response=EVIL, stderr=EVIL, reason=EVIL, board=EVIL)
    for page in (run._repr_html_(), notebook.of_runs([run])):
        assert "<script" not in page
        assert page.count("<img ") == 2, "no page of the board's own"
        assert '".png"' not in page
        assert "&lt;script&gt;" in page


def test_a_terminals_steering_is_shown_and_a_long_output_cut() -> None:
    page = Shown(hw_response="\x1b[31mred\r\n\ttab" + "x" * 30_000)._repr_html_()
    assert "\x1b" not in page
    assert "[10,014 characters before]" in page
    assert "\\x1b[31mred\\r\n\ttab" in Shown(hw_response="\x1b[31mred\r\n\ttab")._repr_html_()


def test_how_it_ended_is_said_in_a_few_words() -> None:
    run = Shown(outcome="error", exit_code=3, duration=0.123)
    assert notebook.ending(run) == "error, exit code 3, 0.12 s"
    assert notebook.ending(Shown(outcome="timeout", reason="10 s")) == "timeout, 10 s"
    many = Shown(hw_response="".join(f"{number}\n" for number in range(30)))
    assert "[20 lines before]\n20\n" in notebook.of_runs([many])


def test_what_it_ran_on_is_a_mapping_whoever_said_it() -> None:
    said = {"board": "Raspberry Pi 4", "throttled": 0}
    assert Shown(ran_on=said).ran_on == said
    for nothing in (None, [1], "x", {"board": {"a": 1}}):
        assert Shown(ran_on=nothing).ran_on == {}
    assert Shown().ran_on == {}
