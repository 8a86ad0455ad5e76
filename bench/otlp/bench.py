#!/usr/bin/env python3
"""Receivers of OTLP beside each other: the same bodies, one receiver at a time, in turns.

    bench.py [--rounds 3] [--secs 10] [--rates 100,300,1000,...] [--only retake,phoenix]

Every round starts each receiver afresh with an empty folder, in another order each round, and raises
the rate until it no longer keeps up. Then it is asked what it stored, ended, and its folder is
weighed. Prints the medians over rounds and writes `bench/out/otlp.json`. Loopback only.

`RETAKE_BIN` names the binary of retake. Receivers that are not there are left out, and said.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Traces in a body: 64 spans, as batch processors send under some load.
TRACES_PER_BODY = 8
# Idle memory is read when start-up is over.
IDLE_SECS = 3


def measure(peer, arguments, bodies, numbers, folder):
    """One round of one receiver."""
    begun = next(numbers)
    running = peers.Running(peer, folder, bodies.body(begun))
    result = {"start_secs": running.start_secs}
    try:
        time.sleep(IDLE_SECS)
        result["idle_bytes"] = running.memory_bytes()
        acknowledged = bodies.spans
        peak, stop = [0], threading.Event()

        def watch():
            while not stop.wait(0.5):
                peak[0] = max(peak[0], running.memory_bytes())

        watcher = threading.Thread(target=watch)
        watcher.start()
        steps = []
        for rate in arguments.rates:
            step = load.run(running.port, bodies, numbers, rate, arguments.secs, peer.headers)
            acknowledged += step.spans_acknowledged
            steps.append(step)
            print(
                f"  {peer.name:17} {rate:>7} spans/s: {step.spans_per_sec():>9.0f} acknowledged, "
                f"p50 {step.quantile_ms(0.5):.1f} ms, p99 {step.quantile_ms(0.99):.1f} ms, "
                f"answers {step.statuses}",
                file=sys.stderr,
                flush=True,
            )
            if not step.is_sustained():
                break
        stop.set()
        watcher.join()
        result |= summary(steps)
        result["load_bytes"] = peak[0]
        result["acknowledged"] = acknowledged
        result["stored"], result["stored_after_secs"] = running.settled(acknowledged)
    finally:
        running.end()
    # What it wrote while it ended counts too.
    stored = peer.stored(folder)
    if stored is not None:
        result["stored"] = stored
    if result["stored"]:
        result["disk_bytes_per_span"] = running.disk_bytes() / result["stored"]
    return result


def summary(steps):
    sustained = [step for step in steps if step.is_sustained()]
    best = max(step.spans_per_sec() for step in steps)
    calm = steps[0]
    last = sustained[-1] if sustained else steps[0]
    return {
        "spans_per_sec": best,
        "sustained_rate": last.rate if sustained else 0,
        "ack_ms_p50": calm.quantile_ms(0.5),
        "ack_ms_p99": calm.quantile_ms(0.99),
        "ack_ms_p50_at_load": last.quantile_ms(0.5),
        "ack_ms_p99_at_load": last.quantile_ms(0.99),
        "refused": sum(n for step in steps for status, n in step.statuses.items() if status != 200),
    }


COLUMNS = [
    ("start-up", "start_secs", lambda v: f"{v:.1f} s"),
    ("idle", "idle_bytes", lambda v: f"{v / 2**20:.0f} MiB"),
    ("spans/s", "spans_per_sec", lambda v: f"{v:,.0f}"),
    ("kept up at", "sustained_rate", lambda v: f"{v:,.0f}/s"),
    ("ack p50", "ack_ms_p50", lambda v: f"{v:.1f} ms"),
    ("ack p99", "ack_ms_p99", lambda v: f"{v:.1f} ms"),
    ("p50 at load", "ack_ms_p50_at_load", lambda v: f"{v:.1f} ms"),
    ("p99 at load", "ack_ms_p99_at_load", lambda v: f"{v:.1f} ms"),
    ("at load", "load_bytes", lambda v: f"{v / 2**20:.0f} MiB"),
    ("disk", "disk_bytes_per_span", lambda v: f"{v:,.0f} B/span"),
    ("stored", "share_stored", lambda v: f"{v * 100:.1f} %"),
    ("stored after", "stored_after_secs", lambda v: f"{v:.1f} s"),
]


def table(results):
    """Medians over rounds, as Markdown."""
    lines = ["| receiver | " + " | ".join(head for head, _, _ in COLUMNS) + " |"]
    lines.append("|---|" + "---:|" * len(COLUMNS))
    for name, rounds in results.items():
        cells = []
        for _, key, show in COLUMNS:
            values = [r[key] for r in rounds if r.get(key) is not None]
            cells.append(show(statistics.median(values)) if values else "-")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratios(results):
    """Each peer to retake: the median of the ratios within rounds."""
    ours = results.get("retake")
    lines = []
    for name, rounds in results.items():
        if not ours or name == "retake":
            continue
        parts = []
        for head, key, _ in COLUMNS:
            pairs = [
                theirs[key] / mine[key]
                for theirs, mine in zip(rounds, ours)
                if theirs.get(key) and mine.get(key)
            ]
            if pairs:
                parts.append(f"{head} {statistics.median(pairs):.2f}x")
        lines.append(f"{name} / retake: " + ", ".join(parts))
    return lines


def machine():
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown",
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} x {cpu}, {memory:.0f} GiB, load {os.getloadavg()[0]:.1f}"


def with_protobuf():
    """Starts this program again in an environment that has OTLP's messages, if this one does not."""
    try:
        import opentelemetry.proto.trace.v1.trace_pb2  # noqa: F401
    except ImportError:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = cache / "retake" / "bench-otlp" / "sender"
        python = folder / "bin" / "python"
        if not (folder / ".ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            subprocess.run([*pip, "opentelemetry-proto==1.45.2"], check=True)
            (folder / ".ready").touch()
        if Path(sys.prefix) == folder:
            raise
        os.execv(python, [python, __file__, *sys.argv[1:]])


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--secs", type=float, default=10, help="for each rate")
    parser.add_argument(
        "--rates",
        type=lambda text: [int(rate) for rate in text.split(",")],
        default=[64, 250, 1000, 2500, 5000, 10_000, 20_000, 40_000],
        help="spans a second, rising",
    )
    parser.add_argument("--only", default="", help="receivers, with commas between")
    return parser.parse_args()


def main():
    options = arguments()
    wanted = [name for name in options.only.split(",") if name]
    taking_part, left_out = [], []
    for peer in peers.ALL:
        if wanted and peer.name not in wanted:
            continue
        try:
            version = peer.install()
            taking_part.append(peer)
            print(f"{peer.name}: {version}", file=sys.stderr, flush=True)
        except peers.Unavailable as why:
            left_out.append(f"{peer.name} is left out: {why}")
    bodies = spans.Bodies(TRACES_PER_BODY, seed=1)
    numbers = itertools.count(1)
    results = {peer.name: [] for peer in taking_part}
    scratch = Path(tempfile.mkdtemp(prefix="retake-bench-otlp-"))
    try:
        for number in range(options.rounds):
            # Whoever comes first finds the machine colder; everybody is first in turn.
            turn = number % max(len(taking_part), 1)
            for peer in taking_part[turn:] + taking_part[:turn]:
                if peer.name not in results:
                    continue
                folder = scratch / f"{peer.name}-{number}"
                try:
                    result = measure(peer, options, bodies, numbers, folder)
                except peers.Unavailable as why:
                    left_out.append(f"{peer.name} is left out: {why}")
                    del results[peer.name]
                    continue
                if result["stored"] is not None:
                    result["share_stored"] = result["stored"] / result["acknowledged"]
                results[peer.name].append(result)
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        if not left_out:
            shutil.rmtree(scratch, ignore_errors=True)
    report(options, bodies, results, left_out)


def report(options, bodies, results, left_out):
    size = len(bodies.template)
    print(
        f"OTLP over HTTP, protobuf, bodies of {bodies.spans} spans and {size:,} bytes "
        f"({size / bodies.spans:.0f} B/span), {load.SENDERS} connections, {options.rounds} rounds "
        f"of {options.secs:.0f} s a rate; medians. {machine()}."
    )
    print("The sender shares the processors with the receiver: rates are lower bounds.\n")
    print(table(results))
    for line in [*ratios(results), *left_out]:
        print(f"\n{line}")
    out = HERE.parent / "out"
    out.mkdir(exist_ok=True)
    document = {"schema_version": 1, "machine": machine(), "results": results, "left_out": left_out}
    (out / "otlp.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    with_protobuf()
    sys.path.insert(0, str(HERE))
    import load
    import peers
    import spans

    main()
