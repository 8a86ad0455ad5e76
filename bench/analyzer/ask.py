"""Asks one engine one question and prints what it took, as JSON. A process of its own each time.

    ask.py ENGINE QUESTION STORE NAMES

`NAMES` is the JSON object with the run and trace ids that questions name. The time is that of the
question alone; starting Python and importing the engine is not counted.
"""

import json
import resource
import sys
import time

import queries


def duckdb(question, names):
    import duckdb as engine

    connection = engine.connect()
    connection.execute("set threads to 2")
    spans = queries.DUCKDB_SPANS.format(**names)
    asked = queries.DUCKDB[question]
    asked = asked if isinstance(asked, list) else [asked]

    def run():
        return [connection.execute(sql.format(spans=spans, **names)).fetchall() for sql in asked][-1]

    return run


def polars(question, names):
    import polars as engine

    frame = engine.scan_parquet(
        f"{names['store']}/runs/*/spans-*.parquet",
        missing_columns="insert",
        extra_columns="ignore",
    )
    asked = queries.polars(question, frame, names)
    return lambda: asked.collect(engine="streaming").rows()


def chdb(question, names):
    from chdb import session

    connection = session.Session()
    spans = queries.CHDB_SPANS.format(**names)
    sql = queries.CHDB[question].format(spans=spans, **names)
    return lambda: str(connection.query(sql, "CSV")).splitlines()


def main():
    engine, question, store, names = sys.argv[1:]
    names = json.loads(names) | {"store": store}
    run = {"duckdb": duckdb, "polars": polars, "chdb": chdb}[engine](question, names)
    began = time.perf_counter()
    rows = run()
    secs = time.perf_counter() - began
    result = {
        "secs": secs,
        "rows": len(rows),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    if question == "percentiles" and engine == "duckdb":
        result["p95"] = {f"{row[0]}/{row[1]}": row[2][1] for row in rows}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
