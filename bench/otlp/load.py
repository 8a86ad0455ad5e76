"""Sends bodies at a rate and notes how long each answer takes."""

import http.client
import threading
import time

# Connections that send at once: what a few processes of an app make.
SENDERS = 8
# An answer that takes longer counts as none.
TIMEOUT_SECS = 30


class Step:
    """What came of one rate."""

    def __init__(self, rate):
        self.rate = rate
        self.latencies_ms = []
        self.spans_acknowledged = 0
        self.statuses = {}
        self.secs = 0.0

    def spans_per_sec(self):
        return self.spans_acknowledged / self.secs if self.secs else 0.0

    def quantile_ms(self, q):
        values = sorted(self.latencies_ms)
        return values[min(int(len(values) * q), len(values) - 1)] if values else float("nan")

    def is_sustained(self):
        """Whether the peer kept up: nearly everything due was acknowledged."""
        return self.spans_per_sec() >= 0.9 * self.rate


def run(port, bodies, numbers, rate, secs, headers):
    """Sends at `rate` spans a second for `secs`. Bodies are due at fixed times; a sender that finds
    itself late sends at once, and the latency is from when the body was due, so that a peer that
    stalls is not spared what piled up meanwhile."""
    step = Step(rate)
    lock = threading.Lock()
    interval = bodies.spans / rate
    count = max(1, int(secs / interval))
    begin = time.perf_counter() + 0.05
    give_up = begin + 2 * secs
    next_body = iter(range(count))

    def send():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECS)
        while time.perf_counter() < give_up:
            with lock:
                at = next(next_body, None)
                if at is None:
                    break
                number = next(numbers)
            body = bodies.body(number)
            due = begin + at * interval
            wait = due - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            status = post(connection, body, headers)
            took_ms = (time.perf_counter() - due) * 1000
            with lock:
                step.statuses[status] = step.statuses.get(status, 0) + 1
                if status == 200:
                    step.spans_acknowledged += bodies.spans
                    step.latencies_ms.append(took_ms)
        connection.close()

    threads = [threading.Thread(target=send) for _ in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    step.secs = max(time.perf_counter() - begin, count * interval)
    return step


def post(connection, body, headers):
    """Posts a trace request; the status, or what went wrong as text."""
    try:
        connection.request(
            "POST",
            "/v1/traces",
            body,
            {"content-type": "application/x-protobuf", **headers},
        )
        response = connection.getresponse()
        response.read()
        return response.status
    except OSError as error:
        connection.close()
        return type(error).__name__
    except http.client.HTTPException as error:
        connection.close()
        return type(error).__name__
