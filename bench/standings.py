"""What the trials of ``pair.py`` come to: the table, and the targets met or missed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from statistics import median
from typing import Final

from contestants import PAIRS, Contestant, contestants
from report import Report, Target
from trial import FAULTS, HOME_S, WATCH_S, Trial

#: Trials by ``FAULT/PAIR/CONTESTANT``.
Samples = dict[str, list[Trial]]
Figure = Callable[[Trial], float]

NONE: Final = "-"
#: Appended to a cell whose pair was not as before in the end.
PERSON: Final = " †"
WATCH_MS: Final = WATCH_S * 1000
#: The faults whose healing is a hand-over as well.
BACK: Final = {"stop": "and started again", "stepdown": "sentinel resume"}


def outage_ms(trial: Trial) -> float:
    """For how long the client had no good answer."""
    return trial.outage_ms


def shared_ms(trial: Trial) -> float:
    """For how long two nodes held the VIP; as long as was watched, if that did not end."""
    return trial.shared_ms if trial.settled else WATCH_MS


def back_ms(trial: Trial) -> float:
    """What the way back cost the client."""
    return trial.back_ms


def apart(trial: Trial) -> float:
    """How many requests failed that were not under way when the VIP moved."""
    return trial.apart


def back_apart(trial: Trial) -> float:
    """The same of the way back."""
    return trial.back_apart


def cell(trials: list[Trial], figure: Figure, lost: Figure | None, *, person: bool) -> str:
    """Return ``median (least-greatest) / failed requests``."""
    if not trials:
        return NONE
    found = sorted(map(figure, trials))
    text = "never" if median(found) >= 0.99 * WATCH_MS else f"{median(found):.0f}"
    if len(found) > 1 and text != "never":
        text += f" ({found[0]:.0f}-{found[-1]:.0f})"
    if lost is not None:
        text += f" / {median(map(lost, trials)):.0f}"
    return text + (PERSON if person and not all(trial.ended for trial in trials) else "")


def rows(samples: Samples, columns: tuple[Contestant, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table."""
    for fault in FAULTS:
        for pair in PAIRS:
            found = [samples.get(f"{fault.name}/{pair}/{each.name}", []) for each in columns]
            if not any(found):
                continue
            if fault.name == "killed":
                cells = (cell(trials, shared_ms, None, person=True) for trials in found)
                yield (f"{fault.title}: VIP on two nodes, {pair}", *cells)
            cells = (cell(t, outage_ms, lambda t: t.failed, person=True) for t in found)
            yield (f"{fault.title}, {pair}", *cells)
            if fault.name in BACK:
                cells = (cell(t, back_ms, lambda t: t.back_failed, person=False) for t in found)
                yield (f"{BACK[fault.name]}, {pair}", *cells)


def medians(samples: Samples, fault: str, pair: str, figure: Figure) -> dict[str, float]:
    """Return a figure's median by contestant."""
    where = f"{fault}/{pair}/"
    return {
        name.removeprefix(where): median(map(figure, trials))
        for name, trials in samples.items()
        if name.startswith(where)
    }


def beside_peers(samples: Samples, pair: str) -> Iterator[Target]:
    """Yield what is asked of sentinel beside the best peer with the same VRRP settings."""
    for fault, share in (("crash", 1.0), ("broken", 0.2), ("hang", 1 / 3)):
        found = medians(samples, fault, pair, outage_ms)
        ours = found.get("sentinel")
        peers = {name: ms for name, ms in found.items() if not name.startswith("sentinel")}
        if ours is None or not peers:
            continue
        best = min(peers, key=lambda name: peers[name])
        part = {1.0: "no worse than", 0.2: "1/5 of", 1 / 3: "1/3 of"}[share]
        yield Target(
            what=f"{fault}, {pair}: outage {part} the best peer's ({best}, {peers[best]:.0f} ms)",
            figure=ours,
            limit=peers[best] * share,
            unit="ms",
        )


def alone(samples: Samples, pair: str) -> Iterator[Target]:
    """Yield what is asked of sentinel itself."""
    fast = pair == "fast"
    for fault, what, figure, limit, unit in (
        ("broken", "outage", outage_ms, 30.0 if fast else None, "ms"),
        ("hang", "outage", outage_ms, 600.0 if fast else None, "ms"),
        ("killed", "VIP on two nodes", shared_ms, 1000.0 if fast else None, "ms"),
        ("killed", "VIP on two nodes", shared_ms, 500.0, "ms"),
        ("stepdown", "failed requests but those under way", apart, 0.0, "requests"),
        ("stepdown", "gap", outage_ms, 20.0, "ms"),
        ("stepdown", "of resume", back_apart, 0.0, "requests"),
        ("stepdown", "gap of resume", back_ms, 20.0, "ms"),
    ):
        found = medians(samples, fault, pair, figure)
        if limit is not None and "sentinel" in found:
            yield Target(
                what=f"{fault}, {pair}: {what}", figure=found["sentinel"], limit=limit, unit=unit
            )


def ended(samples: Samples) -> Iterator[Target]:
    """Yield that every trial of sentinel's ended with everything as before."""
    ours = [trial for name, trials in samples.items() if "/sentinel" in name for trial in trials]
    if ours:
        yield Target(
            what=f"trials of sentinel's that did not end without a person, of {len(ours)}",
            figure=sum(not trial.ended for trial in ours),
            limit=0,
            unit="trials",
        )


def conclusion(samples: Samples, runs: int, minutes: float) -> Report:
    """Judge by medians."""
    tried = {name.rpartition("/")[2] for name in samples}
    compared = any(not name.startswith("sentinel") for name in tried)
    columns = tuple(e for e in contestants() if e.name in tried or (e.unfit and compared))
    found = [trial for trials in samples.values() for trial in trials]
    targets = [target for pair in PAIRS for target in beside_peers(samples, pair)]
    targets += (target for pair in PAIRS for target in alone(samples, pair))
    return Report(
        name="pair",
        title=(
            "A pair under fault: longest gap between good answers in ms / failed requests,"
            f" {runs} runs of each"
        ),
        header=("", *(each.title for each in columns)),
        rows=tuple(rows(samples, columns)),
        targets=(*targets, *ended(samples)),
        notes=(
            "median (least-greatest) / median of failed requests, of 100 a second",
            f"never: not within the {WATCH_S:.0f} s watched",
            f"† needs a person: {HOME_S:.0f} s after the cause was mended, not all was as before",
            "every column has HAProxy restarted as by Debian's unit: Restart=always after 100 ms",
            f"longest gap before the fault: {median(t.calm_ms for t in found):.0f} ms (median)",
            *(f"{each.title}: {each.unfit}" for each in columns if each.unfit),
            f"{len(found)} trials in {minutes:.0f} minutes",
        ),
        samples=dict(_flat(samples)),
    )


def _flat(samples: Samples) -> Iterator[tuple[str, list[float]]]:
    """Yield all figures as ``FAULT/PAIR/CONTESTANT/FIGURE``."""
    for name in sorted(samples):
        for figure in asdict(samples[name][0]):
            yield f"{name}/{figure}", [float(getattr(trial, figure)) for trial in samples[name]]
