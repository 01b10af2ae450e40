"""For tests of labs: worlds in which everything goes wrong, and a checker of the promises.

    world        World: the real coordinator and devices in one thread, driven by one seed
    faults       what goes wrong in it
    checker      check: the promises of docs/protocol.md, held against a history
    history      what is seen from outside; a test of real processes can write one too
    mutants      safeguards, switched off one at a time

docs/reliability.md says how they are used, and what was found with them.
"""
