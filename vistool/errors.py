"""Errors that a user can mend, told in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input: a wrong argument, file, config, checkpoint or name.

    ``str(error)`` is one line that names the argument, what was given, what is accepted and the next step. The command
    line prints it after ``error: `` and exits with 2; from Python it is an ordinary ``ValueError``.

    Args:
        problem: What is wrong, with the value as given.
        accepted: What would be accepted instead.
        hint: The next step, in the imperative.
        argument: The command-line argument or parameter at fault, as the user writes it.
    """

    def __init__(self, problem: str, *, accepted: str = '', hint: str = '', argument: str = '') -> None:
        self.problem, self.accepted, self.hint, self.argument = problem, accepted, hint, argument
        parts = [f'{argument}: {problem}' if argument else problem]
        if accepted:
            parts.append(f'accepted: {accepted}')
        if hint:
            parts.append(hint)
        super().__init__(' '.join('; '.join(parts).split()))

    def under(self, argument: str) -> InputError:
        """The same error, naming the argument it came from (kept if one is named already)."""
        return InputError(self.problem, accepted=self.accepted, hint=self.hint, argument=self.argument or argument)


def close_matches(name: str, candidates: Iterable[str], count: int = 5) -> str:
    """``'did you mean a, b?'`` for the candidates nearest to ``name``, or ``''`` where none is near."""
    pool = list(dict.fromkeys(candidates))
    lowered: dict[str, str] = {candidate.lower(): candidate for candidate in pool}
    near = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=count, cutoff=0.5)]
    near += [candidate for candidate in pool if name and name.lower() in candidate.lower() and candidate not in near]
    return f'did you mean {", ".join(near[:count])}?' if near else ''
