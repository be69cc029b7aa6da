"""What our own processes say, told apart from the lines that the libraries below them print whenever they like."""

import re


def own_lines(text):
    """What follows `pmc-jax: ` in an output, wherever in a line a library left it."""
    return re.findall(r"pmc-jax: (.*)", text)


def refused(said, *words):
    """A mistake of the user: exit code 2 and one line of ours that holds all the words.

    said: what `cli` returns, or a CompletedProcess.
    """
    code, err = (said.code, said.err) if hasattr(said, "err") else (said.returncode, said.stderr)
    lines = own_lines(err)
    assert code == 2 and len(lines) == 1 and "Traceback" not in err, (code, err)
    assert all(word in lines[0] for word in words), lines[0]
    return True
