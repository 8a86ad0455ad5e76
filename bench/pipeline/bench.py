#!/usr/bin/env python3
"""The built-in pipeline beside LlamaIndex, a part at a time, in the same run.

    bench.py [--rounds 3] [--only split,query] [--documents 1000]

Each measurement is a process of its own; the two take turns, and who is first changes with the round.
Prints the median of every goal of the design with its ratio to the peer, and writes
`bench/out/pipeline.json`. `PIPELINE_BENCH_BIN` names the built program; without `PEER_PYTHON` (a
Python with llama-index-core) the peer is installed from PyPI into the cache folder; if it cannot be
had, its columns are empty.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEER = "llama-index-core==0.14.25"

# What is measured: measure, figure, what it says, goal, and whether more is better.
GOALS = [
    ("split", "docs_per_s", "split and count, docs/s", 1_000, True),
    ("ingest", "docs_per_s", "ingest, docs/s", None, True),
    ("ingest", "unchanged_docs_per_s", "ingest again, nothing changed, docs/s", None, True),
    ("cache", "warm_docs_per_s", "ingest with a warm cache, docs/s", 50_000, True),
    ("cache", "one_changed_docs_per_s", "1 document changed, docs/s", None, True),
    ("cache", "chunks_embedded_after_one_change", "1 document changed, chunks embedded", 8, False),
    ("eval", "us_per_item", "evaluation without an evaluator, us an item", 5, False),
    ("tokens", "us_per_prompt", "tokens of a prompt without usage, us", 150, False),
    ("tokens", "us_with_usage", "tokens of an answer with usage, us", 2, False),
    ("query", "us_per_query", "query with mock models, recorded, us", 300, False),
    ("nearest", "ms_p50", "exact 10 of 58,703 x 384, ms", 6, False),
    ("pgvector", "load_rows_per_s", "pgvector load, rows/s", 50_000, True),
    ("pgvector", "ms_p50", "pgvector 10 nearest by index, ms", 2, False),
    ("pgvector", "recall_at_10", "its recall@10", 0.99, True),
]
WORDS = (
    "the of and to in is that for it with as was on be at by this from or have an are not which but "
    "index vector query latency cache token model embed chunk store graph node batch worker span "
    "event trace column filter rank retrieve answer context prompt document section paragraph "
    "sentence system memory throughput pipeline request response server client network disk"
).split()


def main():
    arguments = parse()
    program = os.environ.get("PIPELINE_BENCH_BIN")
    if not program:
        sys.exit("PIPELINE_BENCH_BIN names no program: build it, or use `make bench-pipeline`")
    peer = peer_python()
    names = list(dict.fromkeys(measure for measure, *_ in GOALS))
    names = [name for name in names if not arguments.only or name in arguments.only]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write_documents(Path(folder), arguments.documents)
        for turn in range(arguments.rounds):
            for name in names:
                sides = [("retake", [program, name, folder])]
                if peer and name != "pgvector":
                    sides.append(("peer", [peer, str(HERE / "peer.py"), name, folder]))
                for side, command in sides if turn % 2 == 0 else sides[::-1]:
                    figures = run(command)
                    print(f"round {turn + 1} {name} {side}: {figures}", file=sys.stderr)
                    for figure, value in (figures or {}).items():
                        found.setdefault((name, figure, side), []).append(value)
    rows = judge(found)
    show(rows)
    out = HERE.parent / "out"
    out.mkdir(exist_ok=True)
    machine = {"cores": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()}
    raw = [
        {"measure": name, "figure": figure, "side": side, "values": values}
        for (name, figure, side), values in found.items()
    ]
    document = {"schema_version": 1, "machine": machine, "rows": rows, "raw": raw}
    (out / "pipeline.json").write_text(json.dumps(document, indent=1))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--documents", type=int, default=1_000)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[])
    return parser.parse_args()


def peer_python():
    if given := os.environ.get("PEER_PYTHON"):
        return given
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "retake/bench-pipeline"
    python = cache / "bin/python"
    try:
        if not python.exists():
            venv.create(cache, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", PEER]
        subprocess.run(install, check=True, timeout=900)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"without the peer: {error}", file=sys.stderr)
        return None
    return str(python)


def write_documents(folder, count):
    """Documents of some 5 KB, the same on every machine."""
    for number in range(count):
        dice = random.Random(number)
        text = []
        for place in range(60):
            words = [dice.choice(WORDS) for _ in range(dice.randint(6, 22))]
            text.append(" ".join(words).capitalize() + ".")
            if place % 8 == 7:
                text.append("\n\n")
        (folder / f"doc{number:05}.txt").write_text(" ".join(text))


def run(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=True)
        return json.loads(done.stdout)
    except subprocess.CalledProcessError as error:
        print(f"{' '.join(command)}: {error.stderr.strip()[-500:]}", file=sys.stderr)
    except (OSError, subprocess.TimeoutExpired, json.JSONDecodeError) as error:
        print(f"{' '.join(command)}: {error}", file=sys.stderr)
    return None


def judge(found):
    rows = []
    for measure, figure, says, goal, is_more_better in GOALS:
        ours, theirs = (
            statistics.median(values) if (values := found.get((measure, figure, side))) else None
            for side in ("retake", "peer")
        )
        if ours is None:
            continue
        ratio = None
        if theirs and ours:
            ratio = ours / theirs if is_more_better else theirs / ours
        is_met = None if goal is None else (ours >= goal if is_more_better else ours <= goal)
        rows.append(
            {"what": says, "retake": ours, "peer": theirs, "times": ratio, "goal": goal, "met": is_met}
        )
    return rows


def show(rows):
    print("| what | retake | LlamaIndex | times better | goal | met |")
    print("|---|---:|---:|---:|---:|---|")
    for row in rows:
        cells = [figure(row[name]) for name in ("retake", "peer", "times", "goal")]
        met = {None: "-", True: "yes", False: "**no**"}[row["met"]]
        print(f"| {row['what']} | {' | '.join(cells)} | {met} |")


def figure(value):
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


if __name__ == "__main__":
    main()
