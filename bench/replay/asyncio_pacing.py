"""How late asyncio fires: the pacing of Python load generators, on a Poisson schedule.

    python3 asyncio_pacing.py RATE SECONDS SEED

As `vllm bench serve` does it: the loop sleeps until a request is due and then makes a task of it. The
error is taken at the first line of the task, where the request would be written. One JSON object with
the median and the 99th percentile, us, and the share of a core.
"""

import asyncio
import json
import random
import sys
import time


async def main(rate, seconds, seed):
    generator = random.Random(seed)
    due, schedule = 0.0, []
    for _ in range(int(rate * seconds)):
        due += generator.expovariate(rate)
        schedule.append(due)
    late = []

    async def request(due):
        late.append((time.perf_counter() - due) * 1e6)

    origin = time.perf_counter() + 0.005
    tasks = []
    for offset in schedule:
        due = origin + offset
        wait = due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(request(due)))
    await asyncio.gather(*tasks)
    late.sort()
    at = lambda q: late[int(q * len(late))]
    return {"p50": at(0.5), "p99": at(0.99)}


if __name__ == "__main__":
    rate, seconds, seed = float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    began, busy = time.perf_counter(), time.process_time()
    found = asyncio.run(main(rate, seconds, seed))
    found["cores"] = (time.process_time() - busy) / (time.perf_counter() - began)
    print(json.dumps(found))
