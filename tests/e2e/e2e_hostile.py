#!/usr/bin/env python3
"""Bad input over raw sockets: each gets a clear JSON error or a closed connection, and the worker goes on serving."""
import json
import socket
import sys
import time

import worker


def exchange(w, data, seconds=30, shut=False):
    """Sends raw bytes, reads until the peer closes or a whole reply with Content-Length is there."""
    with socket.create_connection(("127.0.0.1", w.port), timeout=seconds) as s:
        try:
            s.sendall(data)
            if shut:
                s.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the worker may refuse before it has read all
        got = b""
        while True:
            try:
                part = s.recv(65536)
            except OSError:
                break
            if not part:
                break
            got += part
            head, sep, body = got.partition(b"\r\n\r\n")
            for line in head.lower().split(b"\r\n") if sep else []:
                if line.startswith(b"content-length:") and len(body) >= int(line.split(b":")[1]):
                    return got
        return got


def post(w, body, path="/v1/completions"):
    if isinstance(body, str):
        body = body.encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return exchange(w, head.encode() + body)


def refused(w, body, status=400, path="/v1/completions", word=None):
    raw = post(w, body, path)
    head, _, text = raw.partition(b"\r\n\r\n")
    shown = body[:80]
    assert head.split(b" ")[1:2] == [str(status).encode()], f"{shown!r}: wanted {status}, got {raw[:300]!r}"
    error = json.loads(text)["error"]
    assert error["message"] and error["type"] and "code" in error and "param" in error, error
    assert word is None or word in error["message"], f"{shown!r}: {word!r} is not in {error['message']!r}"
    w.alive()


def completion(fields):
    return '{"prompt": "Hi", ' + fields + ("}" if '"max_tokens"' in fields else ', "max_tokens": 2}')


def case_broken_json(w):
    for body in ("", "{", "nonsense", "[]", "5", '"text"', "null", '{"prompt": "Hi",}', '{"prompt": "Hi"} trailing',
                 '{"prompt": "\\ud800"}', "{'prompt': 'Hi'}", "\x00", '{"prompt": "Hi\x00"}', "{}"):
        refused(w, body)


def case_nan_and_huge_numbers(w):
    for value in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" + "0" * 400, "0x10", "1.5.2", "--1"):
        for field in ("temperature", "max_tokens", "top_p", "seed", "n", "top_k"):
            refused(w, completion(f'"{field}": {value}'))


def case_wrong_types(w):
    for field in ("temperature", "max_tokens", "top_p", "seed", "n", "top_k", "stream", "stop", "logit_bias",
                  "stream_options", "model", "ignore_eos", "frequency_penalty", "nvext"):
        refused(w, '{"prompt": "Hi", "%s": [[{}]]}' % field, word=field)


def case_numbers_out_of_range(w):
    for text, word in (('"max_tokens": -1', "max_tokens"), ('"n": 1000000000', "n"), ('"n": -1', "n"),
                       ('"top_k": -7', "top_k"), ('"max_tokens": 1.5', "max_tokens"), ('"seed": 1e300', "seed")):
        refused(w, completion(text), word=word)


def case_deep_json(w):
    refused(w, '{"prompt": ' + "[" * 100000 + "]" * 100000 + "}")
    refused(w, '{"a":' * 100000)
    refused(w, "[" * 1000000)


def case_many_stop_strings(w):
    refused(w, completion('"stop": [' + ",".join(f'"s{i}"' for i in range(5000)) + "]"), word="stop")
    refused(w, completion('"stop": "' + "x" * 100000 + '"'), word="stop")


def case_invalid_utf8(w):
    for bad in (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"):
        refused(w, b'{"prompt": "a' + bad + b'b", "max_tokens": 2}')


def case_chat_shapes(w):
    for messages in ("[]", "{}", "[null]", "[[]]", '[{"role": "wizard", "content": "x"}]', '[{"role": 5, "content": "x"}]',
                     '[{"role": "user", "content": {}}]', '[{"role": "user", "content": [{"type": "hologram"}]}]',
                     '[{"role": "user", "content": [{"type": "text", "text": 4}]}]'):
        refused(w, '{"messages": %s, "max_tokens": 2}' % messages, path="/v1/chat/completions")


def case_prompt_longer_than_context(w):
    refused(w, json.dumps({"prompt": [504] * 9001, "max_tokens": 4}), word="8192")
    refused(w, json.dumps({"prompt": "word " * 60000, "max_tokens": 4}), word="8192")
    refused(w, json.dumps({"messages": [{"role": "user", "content": "word " * 60000}]}), path="/v1/chat/completions",
            word="8192")


def case_body_over_the_limit(w):
    raw = post(w, b'{"prompt": "' + b"x" * (3 << 20) + b'"}')
    assert raw.split(b" ")[1] == b"413", raw[:200]
    assert json.loads(raw.partition(b"\r\n\r\n")[2])["error"]["message"]
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n"
    raw = exchange(w, head + b"{", shut=True)
    assert raw == b"" or raw.split(b" ")[1] in (b"413", b"400"), raw[:200]
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    raw = exchange(w, b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 40
                   + b"0\r\n\r\n")
    assert raw.split(b" ")[1] == b"413", raw[:200]
    w.alive()


def case_paths_and_methods(w):
    for method, path, want in (("GET", "/nowhere", 404), ("POST", "/nowhere", 404), ("GET", "/v1/completions", 405),
                               ("DELETE", "/v1/models", 405), ("GET", "/v1/models/none", 404), ("GET", "/../etc/passwd", 404)):
        status, _, body = w.request(method, path, "{}" if method == "POST" else None)
        assert status == want, (method, path, status)
        assert json.loads(body)["error"]["message"]


def case_no_http_at_all(w):
    for data in (b"\r\n" * 1000, b"\x16\x03\x01\x02\x00\x01\x00" + bytes(range(256)), b"GET\r\n\r\n", b"A" * 200000,
                 b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
                 b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
                 b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20000 + b"\r\n"):
        raw = exchange(w, data, seconds=10, shut=True)
        assert raw == b"" or raw.startswith(b"HTTP/1.1 4") or raw.startswith(b"HTTP/1.1 5"), (data[:40], raw[:120])
        w.alive()


def case_client_gone_in_the_middle(w):
    body = json.dumps({"prompt": "Count:", "max_tokens": 4000, "ignore_eos": True, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for cut in (10, len(head), len(head) + 5, len(head) + len(body)):
        for _ in range(8):
            s = socket.create_connection(("127.0.0.1", w.port))
            s.sendall((head + body)[:cut])
            s.close()
    w.wait_idle(10)
    w.alive()


def case_slow_client_is_dropped(w):
    """The worker runs with --client-timeout 2: a request that never completes loses its connection."""
    slow = socket.create_connection(("127.0.0.1", w.port))
    slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    slow.settimeout(15)
    w.alive()
    started = time.monotonic()
    got = slow.recv(4096)
    assert got == b"" or got.split(b" ")[1] == b"408", got
    assert time.monotonic() - started < 14
    slow.close()


def case_slow_reader_does_not_stall_others(w):
    body = json.dumps({"prompt": "Count:", "max_tokens": 2000, "ignore_eos": True, "stream": True}).encode()
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    s.connect(("127.0.0.1", w.port))
    s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    for _ in range(5):
        status, _, text = w.request("POST", "/v1/completions", {"prompt": "Hi", "max_tokens": 4, "ignore_eos": True})
        assert status == 200 and json.loads(text)["usage"]["completion_tokens"] == 4
    s.close()
    w.wait_idle(10)


def case_still_speaks_english(w):
    status, _, body = w.request("POST", "/v1/chat/completions", {
        "messages": [{"role": "user", "content": "Name the capital city of France."}], "temperature": 0, "max_tokens": 40})
    assert status == 200 and "Paris" in json.loads(body)["choices"][0]["message"]["content"]


def main():
    with worker.Worker("--max-body-bytes", "2M", "--client-timeout", "2") as w:
        failed = worker.run_cases(sys.modules[__name__], w)
    worker.finish(failed)


main()
