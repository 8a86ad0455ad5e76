"""A program as a target of `retake replay run --target-cmd`: JSON lines on stdin and stdout.

Copy this file beside your app; it needs nothing but Python. With OpenTelemetry installed, what the app
records becomes a part of the operation it belongs to. docs/replay.md has the lines themselves.
"""

import contextlib
import inspect
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor


class Refused(Exception):
    """The app does not know how to do an operation."""


def serve(start, name=None, threads=64):
    """Answers until there is nothing more to do.

    `start(settings)` gives the settings in force and a function `answer(kind, input)`, which gives the
    output: text, or a dict with `output` and, if known, `model`, `input_tokens`, `output_tokens`. A
    `ValueError` of `start` refuses the settings. A function that has a parameter `token` gets one that
    says that output arrived: `token()`, or `token(3)`.
    """
    # What libraries print is not for the replay.
    out, sys.stdout = sys.stdout, sys.stderr
    lock = threading.Lock()

    def say(**message):
        line = json.dumps(message, default=str)
        with lock:
            out.write(line + "\n")
            out.flush()

    hello = json.loads(sys.stdin.readline())
    try:
        settings, answer = start(hello["settings"])
    except ValueError as error:
        say(type="refused", message=str(error))
        return
    say(type="ready", name=name, settings=settings)
    takes_token = "token" in inspect.signature(answer).parameters
    cancelled = set()

    def work(operation):
        number = operation["id"]
        if number in cancelled:
            return
        result = {"type": "result", "id": number}
        more = {"token": lambda count=1: say(type="token", id=number, count=count)} if takes_token else {}
        try:
            with _within(operation["traceparent"]):
                output = answer(operation["kind"], operation["input"], **more)
            result.update(output if isinstance(output, dict) else {"output": output})
        except Refused as reason:
            result["refused"] = str(reason)
        except Exception as error:  # an operation that fails is a result, and no end of the replay
            result["error"] = {"type": type(error).__name__, "message": str(error)}
        say(**result)

    with ThreadPoolExecutor(threads) as pool:
        for line in sys.stdin:
            message = json.loads(line)
            if message["type"] == "operation":
                pool.submit(work, message)
            elif message["type"] == "cancel":
                cancelled.add(message["id"])


@contextlib.contextmanager
def _within(traceparent):
    """Spans that begin in here are parts of the operation."""
    try:
        from opentelemetry import context
        from opentelemetry.propagate import extract
    except ImportError:
        yield
        return
    token = context.attach(extract({"traceparent": traceparent}))
    try:
        yield
    finally:
        context.detach(token)
