"""What is wrong with a configuration file: where, what, and the cure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake; *key* is its path as people write it, or empty when the whole file is meant."""

    file: str
    key: str
    wrong: str
    cure: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.key, self.wrong, self.cure) if part)


class ConfigError(Exception):
    """The configuration cannot be used; its text is one line for each problem."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class RefusedError(Exception):
    """One value is refused; raised by whoever reads it, who does not know where it stands."""

    def __init__(self, wrong: str, cure: str) -> None:
        super().__init__(f"{wrong}: {cure}")
        self.wrong = wrong
        self.cure = cure


@dataclass(slots=True)
class Report:
    """The problems found so far in one file."""

    file: str
    problems: list[Problem]

    def add(self, key: str, wrong: str, cure: str) -> None:
        """Note one more problem."""
        self.problems.append(Problem(file=self.file, key=key, wrong=wrong, cure=cure))

    def refuse(self, key: str, error: RefusedError) -> None:
        """Note a refused value."""
        self.add(key, error.wrong, error.cure)

    def knows(self, key: str) -> bool:
        """Whether something is wrong with *key* already."""
        return any(problem.key == key for problem in self.problems)
