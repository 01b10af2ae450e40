"""An analyst: a process that judges results with the analysers of a teacher's folder.

The law: it is a member of the protocol like any other, and keeps nothing: what is to be judged is
what statuses and the history say, and a judgement is said until the coordinator has it. So it may
die at any point, and there may be several (docs/protocol.md, section 7).

``service`` is the process, ``life`` its loop, ``work`` what is judged next, ``catching_up`` what
was missed, ``judging`` one run from its id to its judgement, for who judges again, too.
"""
