#!/usr/bin/env python3
"""retake's SQL beside DuckDB, polars and ClickHouse (chdb), on the same Parquet files.

    bench.py [--spans 1000000,10000000] [--rounds 3] [--only retake,duckdb] [--questions percentiles]

Every measurement is a process of its own, page cache warm, engines in another order each round. Of
retake the whole process counts, with its start and with the check of every file's digest; of the
others the question alone. Prints medians with the ratio to DuckDB, and writes
`bench/out/analyzer.json`. The stores are made once and kept in the cache folder.

`RETAKE_BIN` names retake's binary, `SPAN_STORE_BIN` the maker of stores.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import queries

HERE = Path(__file__).resolve().parent
# At most this many times DuckDB: time, and memory where there is a goal for it.
BARS = {
    "percentiles": (0.6, 0.6),
    "self_time": (0.25, None),
    "compare": (1.0, None),
    "budgets": (1.0, None),
    "slowest": (1.0, None),
    "lookup": (1.0, None),
    "count": (1.0, None),
}
# Self time and critical path, whatever the number of spans.
SELF_TIME_BYTES_MAX = 200 << 20
# Of a reading of the spans.
HISTORY_BAR = 0.05
PEERS = ["duckdb", "polars", "chdb"]
MEMORY_POOL = "1GiB"


def main():
    arguments = parse()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "retake/bench-analyzer"
    cache.mkdir(parents=True, exist_ok=True)
    python = environment(cache)
    rows = []
    for spans in arguments.spans:
        store = make_store(cache, spans, arguments.runs)
        names = ids(store)
        measured = measure(arguments, python, store, names)
        rows += judge(spans, measured)
        if "retake" in arguments.only:
            rows += history(spans, store, arguments.rounds)
    machine = {"cores": os.cpu_count(), "kernel": platform.release()}
    out = HERE.parent / "out"
    out.mkdir(exist_ok=True)
    document = {"schema_version": 1, "machine": machine, "rows": rows}
    (out / "analyzer.json").write_text(json.dumps(document, indent=1))


def parse():
    numbers = lambda text: [int(float(part)) for part in text.split(",")]
    names = lambda text: text.split(",")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spans", type=numbers, default=[1_000_000, 10_000_000])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", type=names, default=["retake", *PEERS])
    parser.add_argument("--questions", type=names, default=list(queries.QUESTIONS))
    return parser.parse_args()


def environment(cache):
    """A Python with the peers."""
    venv = cache / "venv"
    python = venv / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        for peer in PEERS:
            # One that cannot be had is left out, and said.
            subprocess.run([python, "-m", "pip", "install", "--quiet", peer], check=False)
    return python


def make_store(cache, spans, runs):
    store = cache / f"store-{spans}-{runs}"
    if not store.exists():
        making = store.with_suffix(".making")
        subprocess.run(["rm", "-rf", making], check=True)
        binary = os.environ["SPAN_STORE_BIN"]
        subprocess.run([binary, making, str(spans), str(runs)], check=True)
        making.rename(store)
    return store


def retake(store, sql, forgets=True):
    """Runs a query, all output into nothing: seconds, peak bytes, and what it said. What was kept of
    earlier questions is forgotten first, unless it is what is measured."""
    if forgets:
        shutil.rmtree(store / "history", ignore_errors=True)
    with tempfile.TemporaryFile() as output:
        command = [os.environ["RETAKE_BIN"], "--store", str(store), "sql"]
        command += ["--memory", MEMORY_POOL, "--format", "ndjson", sql]
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        secs = time.perf_counter() - began
        if status != 0:
            raise SystemExit(f"{command} ended with {status}")
        output.seek(0)
        return secs, usage.ru_maxrss * 1024, output.read().decode()


def ids(store):
    """Two runs and a trace, by name and by order, so that they are the same each time."""
    lines = lambda sql: [json.loads(line) for line in retake(store, sql)[2].splitlines()]
    runs = lines("select run_id from runs order by name")
    run, other = runs[len(runs) // 3]["run_id"], runs[len(runs) * 4 // 5]["run_id"]
    sql = f"select trace_id from spans where run_id = '{run}' order by start_unix_ns, trace_id limit 1"
    return {"run": run, "other": other, "trace": lines(sql)[0]["trace_id"]}


def measure(arguments, python, store, names):
    """By question and engine, the results of every round."""
    measured = {}
    for round_ in range(arguments.rounds):
        engines = arguments.only[round_ % len(arguments.only) :] + arguments.only[: round_ % len(arguments.only)]
        for question in arguments.questions:
            for engine in engines:
                if (engine, question) in queries.NOT_ASKED:
                    continue
                if engine == "retake":
                    secs, peak, output = retake(store, queries.RETAKE[question].format(**names))
                    result = {"secs": secs, "peak_bytes": peak, "rows": output.count("\n")}
                    if question == "percentiles":
                        rows = [json.loads(line) for line in output.splitlines()]
                        result["p95"] = {f"{r['run_id']}/{r['stage']}": r["q"][1] for r in rows}
                else:
                    command = [python, HERE / "ask.py", engine, question, store, json.dumps(names)]
                    asked = subprocess.run(command, capture_output=True, text=True)
                    if asked.returncode != 0:
                        why = (asked.stderr.strip().splitlines() or ["it failed"])[-1]
                        measured.setdefault((question, engine), []).append({"why": why})
                        continue
                    result = json.loads(asked.stdout)
                measured.setdefault((question, engine), []).append(result)
                print(f"  {question:12} {engine:8} {result['secs']:7.3f} s {result['peak_bytes'] >> 20:6} MiB", file=sys.stderr, flush=True)
    return measured


def middle(results, what):
    values = [result[what] for result in results if what in result]
    return statistics.median(values) if values else None


def judge(spans, measured):
    rows = []
    print(f"\n{spans:,} spans; median s (MiB), and retake's ratio to DuckDB")
    print(f"{'':14}{'retake':>18}{'duckdb':>18}{'polars':>18}{'chdb':>18}{'time':>8}{'bar':>6}{'memory':>8}")
    for question in queries.QUESTIONS:
        cells, found = [], {}
        for engine in ["retake", *PEERS]:
            results = measured.get((question, engine), [])
            secs, peak = middle(results, "secs"), middle(results, "peak_bytes")
            found[engine] = (secs, peak)
            cells.append(f"{secs:.3f} ({peak / (1 << 20):.0f})" if secs else "-")
        (secs, peak), (peer, peer_peak) = found["retake"], found["duckdb"]
        if secs is None:
            continue
        ratio = secs / peer if peer else None
        memory = peak / peer_peak if peer else None
        bar, memory_bar = BARS[question]
        shown = lambda ratio: f"{ratio:.2f}" if ratio else "-"
        print(f"{question:14}" + "".join(f"{cell:>18}" for cell in cells) + f"{shown(ratio):>8}{bar:>6}{shown(memory):>8}")
        spread = sorted(result["secs"] for result in measured[(question, "retake")])
        row = {
            "goal": f"{question}_vs_duckdb",
            "spans": spans,
            "what": queries.QUESTIONS[question],
            "value": secs,
            "unit": "s",
            "peer": "duckdb",
            "peer_value": peer,
            "ratio": ratio,
            "bar": bar,
            "holds": ratio is not None and ratio <= bar,
            "spread": [spread[0], spread[-1]],
            "peak_bytes": peak,
            "memory_ratio": memory,
            "others": {engine: {"secs": found[engine][0], "peak_bytes": found[engine][1]} for engine in PEERS[1:]},
        }
        if peer is None:
            row["why"] = next((r["why"] for r in measured.get((question, "duckdb"), []) if "why" in r), "not asked")
        if memory_bar and memory is not None:
            row |= {"memory_bar": memory_bar, "memory_holds": memory <= memory_bar}
        if question == "self_time":
            row |= {"peak_bytes_max": SELF_TIME_BYTES_MAX, "memory_holds": peak <= SELF_TIME_BYTES_MAX}
        if question == "percentiles" and peer:
            ours = next(r["p95"] for r in measured[(question, "retake")] if "p95" in r)
            exact = next(r["p95"] for r in measured[(question, "duckdb")] if "p95" in r)
            errors = [abs(ours[key] / value - 1) for key, value in exact.items() if value]
            row["p95_error_mean"] = statistics.mean(errors)
            print(f"{'':14}p95 of {len(errors)} groups: mean error {row['p95_error_mean']:.3%}, largest {max(errors):.3%}")
        rows.append(row)
    return rows


def history(spans, store, rounds):
    """Questions about all runs, asked of their spans and asked again with what was kept of them."""
    rows = []
    print(f"\n{spans:,} spans; asked of the spans, and again (median s)")
    for question, sql in queries.HISTORY.items():
        first, again = [], []
        for _ in range(rounds):
            cold = retake(store, sql)
            warm = retake(store, sql, forgets=False)
            # The same rows, in whatever order.
            if sorted(cold[2].splitlines()) != sorted(warm[2].splitlines()):
                raise SystemExit(f"{question}: another answer from what was kept")
            first.append(cold[0])
            again.append(warm[0])
        value, rescan = statistics.median(again), statistics.median(first)
        ratio = value / rescan
        print(f"{question:14}{rescan:18.3f}{value:18.3f}{ratio:26.3f}{HISTORY_BAR:6}")
        rows.append({
            "goal": f"history_{question}",
            "spans": spans,
            "value": value,
            "unit": "s",
            "peer": "the same of the spans",
            "peer_value": rescan,
            "ratio": ratio,
            "bar": HISTORY_BAR,
            "holds": ratio <= HISTORY_BAR,
            "spread": [min(again), max(again)],
        })
    return rows


if __name__ == "__main__":
    main()
