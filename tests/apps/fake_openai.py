"""A service that speaks as much of OpenAI's interface as `openai_app.py` needs.

    fake_openai.py [PORT]

Prints the port it listens on, on loopback only, and serves until it is ended. A token is a word. The
model decides: `error-429` and `error-503` fail with that status, every other one answers.
"""

import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWER = "Light of short waves is scattered more than light of long waves is"


def words(value):
    if isinstance(value, list):
        return sum(words(item) for item in value)
    if isinstance(value, dict):
        return words(value.get("content") or "")
    return len(str(value).split())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        length = int(self.headers.get("content-length", 0))
        request = json.loads(self.rfile.read(length) or b"{}")
        model = request.get("model", "")
        if model.startswith("error-"):
            status = int(model.removeprefix("error-"))
            message = {"message": f"asked to fail with {status}", "type": "server_error"}
            return self.reply(status, {"error": message})
        if self.path == "/v1/chat/completions":
            return self.stream(request) if request.get("stream") else self.chat(request)
        if self.path == "/v1/embeddings":
            return self.embeddings(request)
        return self.reply(404, {"error": {"message": f"no such path {self.path}"}})

    def usage(self, request):
        prompt, completion = words(request.get("messages", [])), words(ANSWER)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            # The system prompt is as good as always in the cache.
            "prompt_tokens_details": {"cached_tokens": prompt // 2},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }

    def head(self, request, kind):
        digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        return {
            "id": f"chatcmpl-{digest[:12]}",
            "object": kind,
            "created": 1_700_000_000,
            "model": f"{request['model']}-2026",
        }

    def chat(self, request):
        message = {"role": "assistant", "content": ANSWER}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = self.head(request, "chat.completion")
        self.reply(200, body | {"choices": [choice], "usage": self.usage(request)})

    def stream(self, request):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        head = self.head(request, "chat.completion.chunk")
        options = request.get("stream_options") or {}
        try:
            for number, word in enumerate(ANSWER.split()):
                delta = {"content": word if number == 0 else f" {word}"}
                if number == 0:
                    delta["role"] = "assistant"
                self.chunk(head | {"choices": [{"index": 0, "delta": delta}]})
            last = {"index": 0, "delta": {}, "finish_reason": "stop"}
            self.chunk(head | {"choices": [last]})
            if options.get("include_usage"):
                self.chunk(head | {"choices": [], "usage": self.usage(request)})
            self.wfile.write(b"data: [DONE]\n\n")
        except (BrokenPipeError, ConnectionResetError):
            # The client went away, which is one of the things it is there to try.
            pass
        self.close_connection = True

    def chunk(self, body):
        self.wfile.write(b"data: " + json.dumps(body).encode() + b"\n\n")
        self.wfile.flush()

    def embeddings(self, request):
        texts = request["input"] if isinstance(request["input"], list) else [request["input"]]

        def vector(text):
            return [byte / 255 for byte in hashlib.sha256(str(text).encode()).digest()[:16]]

        rows = [
            {"object": "embedding", "index": at, "embedding": vector(text)}
            for at, text in enumerate(texts)
        ]
        used = words(texts)
        usage = {"prompt_tokens": used, "total_tokens": used}
        body = {"object": "list", "data": rows, "model": request["model"], "usage": usage}
        self.reply(200, body)

    def reply(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """Says nothing: what an app prints on its last line is read by programs."""


def main():
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
