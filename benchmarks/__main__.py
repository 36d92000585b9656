"""Time Regularity beside its peers and print the table as Markdown.

Every contender runs in a fresh process, so that nothing is warm for one and not for another.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.known import FORET, NOISE, SRIVASTAVA, order
from benchmarks.problem import PROGRAMS, STRENGTHS, Kind

_PEERS = ("KerasTuner", "Optuna + fit", "scikit-learn")
_TARGETS = {10: 40, 100: 15}  # times faster than KerasTuner and Optuna + fit, by epochs
_ENGINE_TARGET, _MEMORY_TARGET = 1.3, 4.0
_MEMBERS = (64, 512)  # between which memory may grow


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=["peers", "engine", "memory", "costs", "known"], help="one part of the table")
    parser.add_argument("--quick", action="store_true", help="fewer trials, repeats and epochs, to try the program")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the numbers there, too")
    options = parser.parse_args()
    parts = {"peers": peers, "engine": engine, "memory": memory, "costs": costs, "known": known}
    chosen = [options.only] if options.only else list(parts)
    found: dict[str, Any] = {"machine": machine.describe(), "quick": options.quick}
    show_machine(found["machine"])
    for part in chosen:
        found[part] = parts[part](options.quick)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def in_process(module: str, *arguments: Any) -> Any:
    """Run a module of this package in a fresh process and return the JSON on the last line it prints."""
    print(f"{module} {' '.join(map(str, arguments))} ...", file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)],
        env={**os.environ, "KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise SystemExit(f"benchmarks.{module} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# -- peers -------------------------------------------------------------------------------------------------------------


def peers(quick: bool) -> dict[str, Any]:
    """Time searches over all strengths, then training steps alone."""
    found: dict[str, Any] = {"searches": [], "steps": []}
    for kind in PROGRAMS:
        for epochs in _TARGETS:
            rows = [search(name, kind, epochs, quick) for name in ("Regularity", *_PEERS) if can(name, kind)]
            for row in rows:
                row["ratio"] = row["seconds"] / rows[0]["seconds"]
            found["searches"] += rows
        ours = in_process("contenders", "warm_steps", "Regularity", kind, 5 if quick else 20)["microseconds"]
        fit = in_process("contenders", "warm_steps", "Optuna + fit", kind, 5 if quick else 20)["microseconds"]
        found["steps"].append({"program": kind, "Regularity": ours, "keras.fit": fit, "ratio": fit / ours})
    show_peers(found)
    return found


def can(name: str, kind: Kind) -> bool:
    return name != "scikit-learn" or kind == "l1l2"


def search(name: str, kind: Kind, epochs: int, quick: bool) -> dict[str, Any]:
    """Time one search; a peer's over fewer trials is scaled to all of them.

    Ours is over in seconds, in which a disturbance weighs most, so it is the median of three processes.
    """
    ours, trials = name == "Regularity", STRENGTHS
    if not ours and (quick or epochs > 10):
        trials = 2 if quick else min(max(8, os.cpu_count() or 1), STRENGTHS)  # scikit-learn keeps every core at work
    runs = [
        in_process("contenders", "search", name, kind, epochs, "--trials", trials)
        for _ in range(1 if quick else 1 + 2 * ours)
    ]
    measured = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
    seconds = measured["seconds"] * STRENGTHS / trials
    return {
        "program": kind,
        "epochs": epochs,
        "contender": name,
        "seconds": seconds,
        "trials": trials,
        "accuracy": measured["accuracy"],
        "runs": [run["seconds"] for run in runs],
    }


def show_peers(found: dict[str, Any]) -> None:
    print(f"\n## {STRENGTHS} strengths of one program: seconds until each has its score on the validation rows\n")
    rows = []
    for row in found["searches"]:
        target = f"≥ {_TARGETS[row['epochs']]}" if row["contender"] in _PEERS[:2] else ""
        times = "" if row["contender"] == "Regularity" else f"{row['ratio']:.1f} ×"
        scaled = "" if row["trials"] == STRENGTHS else f" (from {row['trials']} of {STRENGTHS} trials)"
        seconds = f"{row['seconds']:.1f}{scaled}"
        rows.append(
            [
                PROGRAMS[row["program"]],
                row["epochs"],
                row["contender"],
                seconds,
                times,
                target,
                f"{row['accuracy']:.3f}",
            ]
        )
    show(["program", "epochs", "", "seconds", "of ours", "to reach", "best accuracy"], rows)
    print(
        "\nEach in a fresh process; imports and the first model are left out for all, compiling is in for all. Ours is the "
        "median of three processes. Where fewer trials ran, their seconds are scaled up linearly. scikit-learn trains on "
        "all cores, with one L2 penalty on all kernels, and scores only at the end; the others after each epoch."
    )
    print("\n## Training steps alone, everything compiled: microseconds a member and step\n")
    steps = found["steps"]
    rows = [
        [PROGRAMS[r["program"]], f"{r['keras.fit']:.0f}", f"{r['Regularity']:.1f}", f"{r['ratio']:.1f} ×"]
        for r in steps
    ]
    show(["program", "keras.fit", "Regularity", "ratio"], rows)


# -- engine ------------------------------------------------------------------------------------------------------------


def engine(quick: bool) -> dict[str, Any]:
    """Time the engine beside a population written by hand."""
    found = in_process("engine", *((5, 3) if quick else (20, 7)))
    rows = [
        ["by hand in JAX, one batch for all members", found["chunk_by_hand"], f"{found['by_hand']:.1f}", "", ""],
        [
            "Regularity, one batch for all members",
            found["chunk"],
            *beside(found, "same_batches", f"≤ {_ENGINE_TARGET}"),
        ],
        ["Regularity, each member in its own order", found["chunk"], *beside(found, "own_batches", "")],
        ["Regularity, the same, chunk as it chooses", "", *beside(found, "as_chosen", "")],
    ]
    print("\n## The engine: microseconds a member and step of the dropout program's net\n")
    show(["", "chunk", "microseconds", "of by hand", "to reach"], rows)
    print(
        f"\n{found['members']} members, warm, in turns in one process, median of {found['repeats']}. The chunk is each "
        "one's best. Ours draws members, trains them, and reports every epoch; by hand nothing is drawn or reported."
    )
    return found


def beside(found: dict[str, Any], name: str, target: str) -> list[str]:
    return [f"{found[name]:.1f}", f"{found[name] / found['by_hand']:.2f} ×", target]


# -- memory ------------------------------------------------------------------------------------------------------------


def memory(quick: bool) -> list[dict[str, Any]]:
    """Measure the memory of a member: as a population runs, and with all its members in training at once."""
    found = []
    for what, flags in {"in chunks, as it chooses": [], "all in training at once": ["--at-once"]}.items():
        few, many = (in_process("memory", members, *flags) for members in _MEMBERS)
        growth = (many["peak"] - few["peak"]) / (_MEMBERS[1] - _MEMBERS[0])
        found.append({"what": what, "bytes": growth, "state": few["state"], "ratio": growth / few["state"]})
    print(f"\n## Memory: growth of the peak from {_MEMBERS[0]} to {_MEMBERS[1]} members, for each member\n")
    rows = [
        [
            r["what"],
            f"{r['bytes'] / 1024:.0f}",
            f"{r['state'] / 1024:.0f}",
            f"{r['ratio']:.2f} ×",
            f"≤ {_MEMORY_TARGET}",
        ]
        for r in found
    ]
    show(["members", "KiB", "weights + moments, KiB", "of those", "to reach"], rows)
    print("\nPeak resident memory of a fresh process while it trains the dropout program warm, results held.")
    return found


# -- costs -------------------------------------------------------------------------------------------------------------


def costs(quick: bool) -> list[dict[str, Any]]:
    """Time a step with each technique beside one without."""
    epochs, repeats = (2, 1) if quick else (10, 5)
    found = in_process("costs", epochs, repeats)
    print("\n## What a technique adds to a step: 64 members with it beside 64 of the same net without any\n")
    rows = [
        [r["technique"], r["net"], f"{r['plain']:.1f}", f"{r['ratio']:.2f} ×", f"{r['declared']:g} ×"] for r in found
    ]
    show(["technique", "net", "without, microseconds", "with it", "declared"], rows)
    print(
        f"\nMicroseconds a member and step. Warm, in turns in one process; pairs to take the median of: {repeats}. What is "
        "declared counts gradients; the optimizer steps once all the same, so that less may be found."
    )
    return found


# -- known answers -----------------------------------------------------------------------------------------------------


def known(quick: bool) -> dict[str, Any]:
    """Ask again what two papers found."""
    found = in_process("known", *["--quick"] * quick)
    noise, few = found["noise"], found["few rows"]
    levels = [f"{share:.0%}" for share in NOISE]
    entrants = list(zip(*noise, strict=True))  # each one's rows, by level
    print("\n## Wrong labels: test accuracy and, in brackets, what it is over plain; by the share of wrong labels\n")
    papers = [[f"{name}, in the paper", *accuracies] for name, accuracies in FORET.items()]
    show(["", *levels], [[rows[0]["name"], *map(scored, rows)] for rows in entrants] + papers)
    print("\nThe strength chosen and, in brackets, the accuracy with the best in hindsight:\n")
    show(["", *levels], [[rows[0]["name"], *map(chosen_strength, rows)] for rows in entrants[1:]])
    print("\n## Few rows\n")
    paper = {name: f"{accuracy:.2f}" for name, accuracy in SRIVASTAVA.items()}
    rows = [[row["name"], scored(row, 2), chosen_strength(row, 2), paper.get(row["name"], "")] for row in few]
    show(["", "accuracy (over plain)", "strength (in hindsight)", "in the paper"], rows)
    print("\n## Best first; `>` where the next is behind by more than two standard errors\n")
    asked = [*zip(levels, noise, [FORET] * len(levels), strict=True), ("few rows", few, SRIVASTAVA)]
    rows = [[what, order(rows), order([r for r in rows if r["name"] in paper])] for what, rows, paper in asked]
    show(["", "all", "those in the paper"], rows)
    return found


def scored(row: dict[str, Any], digits: int = 1) -> str:
    """Accuracy, and how far above plain, in percent with standard errors."""
    mean, error, over, paired = (100 * number for number in row["accuracy"] + row["over plain"])
    above = f" ({over:+.{digits}f} ± {paired:.{digits}f})" if row["name"] != "plain" else ""
    return f"{mean:.{digits}f} ± {error:.{digits}f}{above}"


def chosen_strength(row: dict[str, Any], digits: int = 1) -> str:
    """The mean of the strengths chosen, and the accuracy with the one that is best over all splits in hindsight."""
    strengths = ", ".join(f"{strength:.2g}" for strength in row["strengths"].values())
    return f"{strengths} ({100 * row['hindsight']:.{digits}f})" if strengths else ""


# -- Markdown ----------------------------------------------------------------------------------------------------------


def show_machine(facts: dict[str, str]) -> None:
    versions = ", ".join(f"{name} {value}" for name, value in facts.items() if name not in ("processor", "system"))
    print(f"{facts['processor']}; {facts['system']}; {versions}.", flush=True)


def show(header: list[str], rows: list[list[Any]]) -> None:
    """Print a Markdown table with its columns in line."""
    lines = [header, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    padded = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    padded.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    print("\n".join(padded), flush=True)


if __name__ == "__main__":
    main()
