"""LlamaIndex doing what pipeline-bench does. usage: peer.py MEASURE [FOLDER]; prints a line of JSON.

Models cost nothing: MockEmbedding, MockLLM. What has no counterpart says so by being absent.
"""

import asyncio
import json
import logging
import random
import statistics
import sys
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)

from llama_index.core import Document, MockEmbedding, Settings, VectorStoreIndex  # noqa: E402
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler  # noqa: E402
from llama_index.core.evaluation import (  # noqa: E402
    BaseEvaluator,
    BatchEvalRunner,
    EvaluationResult,
)
from llama_index.core.ingestion import IngestionPipeline  # noqa: E402
from llama_index.core.ingestion.pipeline import DocstoreStrategy  # noqa: E402
from llama_index.core.llms import MockLLM  # noqa: E402
from llama_index.core.node_parser import SentenceSplitter  # noqa: E402
from llama_index.core.schema import TextNode  # noqa: E402
from llama_index.core.storage.docstore import SimpleDocumentStore  # noqa: E402
from llama_index.core.vector_stores import SimpleVectorStore, VectorStoreQuery  # noqa: E402

EMBED = MockEmbedding(embed_dim=384)
Settings.embed_model = EMBED
Settings.llm = MockLLM(max_tokens=64)


def texts(folder):
    return {path.name: path.read_text() for path in sorted(Path(folder).iterdir())}


def documents(folder):
    return [Document(text=text, id_=name) for name, text in texts(folder).items()]


def splitter():
    return SentenceSplitter(chunk_size=256, chunk_overlap=20)


def timed(pipeline, documents):
    started = time.perf_counter()
    nodes = pipeline.run(documents=documents)
    return len(documents) / (time.perf_counter() - started), len(nodes)


def split(folder):
    rate, nodes = timed(
        IngestionPipeline(transformations=[splitter()], disable_cache=True), documents(folder)
    )
    return {"docs_per_s": rate, "chunks": nodes}


def ingest(folder):
    pipeline = IngestionPipeline(
        transformations=[splitter(), EMBED],
        vector_store=SimpleVectorStore(),
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS,
        disable_cache=True,
    )
    first, nodes = timed(pipeline, documents(folder))
    unchanged, _ = timed(pipeline, documents(folder))
    return {"docs_per_s": first, "unchanged_docs_per_s": unchanged, "chunks": nodes}


def cache(folder):
    pipeline = IngestionPipeline(transformations=[splitter(), EMBED])
    cold, _ = timed(pipeline, documents(folder))
    warm, _ = timed(pipeline, documents(folder))
    changed = documents(folder)
    middle = changed[len(changed) // 2]
    text = middle.text + " One changed sentence."
    changed[len(changed) // 2] = Document(text=text, id_=middle.id_)
    one, nodes = timed(pipeline, changed)
    return {
        "cold_docs_per_s": cold,
        "warm_docs_per_s": warm,
        "one_changed_docs_per_s": one,
        "chunks_embedded_after_one_change": nodes,
    }


class Nothing(BaseEvaluator):
    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts):
        pass

    async def aevaluate(self, query=None, response=None, contexts=None, **_):
        return EvaluationResult(query=query, response=response, score=1.0, passing=True)


def evaluate(_):
    count = 1000
    best = None
    for _ in range(5):
        runner = BatchEvalRunner({"nothing": Nothing()}, workers=8)
        started = time.perf_counter()
        runner.evaluate_response_strs(
            queries=[f"question {n}" for n in range(count)],
            response_strs=["answer"] * count,
            contexts_list=[["context"]] * count,
        )
        took = (time.perf_counter() - started) / count * 1e6
        best = took if best is None else min(best, took)
    return {"us_per_item": best}


def tokens(folder):
    prompt = next(iter(texts(folder).values()))

    def call(llm, calls=300):
        started = time.perf_counter()
        for _ in range(calls):
            llm.complete(prompt)
        return (time.perf_counter() - started) / calls * 1e6

    plain = MockLLM(max_tokens=64)
    counter = TokenCountingHandler()
    counting = MockLLM(max_tokens=64, callback_manager=CallbackManager([counter]))
    call(plain, 30), call(counting, 30)
    return {
        "us_per_prompt": call(counting) - call(plain),
        "prompt_tokens": counter.llm_token_counts[-1].prompt_token_count,
    }


def query(folder):
    nodes = splitter().get_nodes_from_documents(documents(folder)[:40])
    engine = VectorStoreIndex(nodes).as_query_engine(similarity_top_k=4)
    question = "How does the cache of the vector index answer a query?"
    for _ in range(10):
        engine.query(question)
    count = 100
    started = time.perf_counter()
    for _ in range(count):
        engine.query(question)
    return {"us_per_query": (time.perf_counter() - started) / count * 1e6, "nodes": len(nodes)}


def nearest(_):
    rows, dim = 58_703, 384
    dice = random.Random(42)
    centres = [[dice.random() - 0.5 for _ in range(dim)] for _ in range(500)]
    store = SimpleVectorStore()
    nodes = []
    for number in range(rows):
        vector = [value + 0.6 * (dice.random() - 0.5) for value in centres[number % 500]]
        length = sum(value * value for value in vector) ** 0.5
        embedding = [value / length for value in vector]
        nodes.append(TextNode(text="x" * 700, id_=str(number), embedding=embedding))
    started = time.perf_counter()
    store.add(nodes)
    load = rows / (time.perf_counter() - started)
    took = []
    for node in nodes[:: rows // 10][:10]:
        started = time.perf_counter()
        found = store.query(VectorStoreQuery(query_embedding=node.embedding, similarity_top_k=10))
        took.append((time.perf_counter() - started) * 1e3)
        assert found.ids[0] == node.node_id
    return {"ms_p50": statistics.median(took), "load_rows_per_s": load}


MEASURES = {
    "split": split,
    "ingest": ingest,
    "cache": cache,
    "eval": evaluate,
    "tokens": tokens,
    "query": query,
    "nearest": nearest,
}

if __name__ == "__main__":
    asyncio.set_event_loop(asyncio.new_event_loop())
    print(json.dumps(MEASURES[sys.argv[1]](sys.argv[2] if len(sys.argv) > 2 else None)))
