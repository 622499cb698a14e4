#!/usr/bin/env python3
"""The real router's library against this worker's KV events: the hashes that it computes from tokens, with and without salt, are
those of the events, and the tree that it builds from them is the worker's own index. Once under load, from the record of
test_dyn_traffic; once live, from a worker's socket.

The record: `request SALT TOKEN...` (prompt and output), `events HEX` (a message's payload), `tree HEX` (the recovery's answer)."""
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import time

HERE = sys.path.pop(0)  # its dynamo.py must not hide the package of that name
try:
    import msgpack
    import zmq
    from dynamo._core import RadixTree, compute_block_hash_for_seq
except ImportError:
    pass  # main() starts this file again, with Dynamo's own Python
sys.path.insert(0, HERE)
from plane import record  # noqa: E402
from worker import BINARY, Worker  # noqa: E402

BLOCK, WORKER = 16, 77
SALTS = [None, "tenantA", "tenant B with a longer name"]

# Fixed points, so that a library that changes its mind is noticed as such.
KNOWN = [
    ([1] * 16, {}, 0xBB9AFAC0E6FD46EF),
    (range(1, 17), {}, 0xEA06FC71A5EE6E88),
    (range(1, 17), {"cache_namespace": "tenantA"}, 0x873E8DB37D0BD24D),
    (range(1, 17), {"lora_name": "ad"}, 0x969AC44C1C7B8EB4),
    (range(1, 17), {"lora_name": "ad", "cache_namespace": "tenantA"}, 0x03E188CBE3F1848E),
]


def hashes(tokens, salt):
    return compute_block_hash_for_seq(list(tokens), BLOCK, cache_namespace=salt)


def blocks_of(events, tier):
    """block_hash -> (parent_hash, tokens_hash) of stored events"""
    out = {}
    for e in events:
        if e["storage_tier"] != tier:
            continue
        stored = e["event"]["data"]["stored"]
        parent = stored["parent_hash"]
        for b in stored["blocks"]:
            assert b["block_hash"] not in out, "stored twice"
            out[b["block_hash"]] = (parent, b["tokens_hash"])
            parent = b["block_hash"]
    return out


def follow(index):
    """(parent_hash, tokens_hash) -> block_hash"""
    edges = {edge: block for block, edge in index.items()}
    assert len(edges) == len(index), "two blocks behind one edge"
    return edges


def overlap(edges, wanted):
    parent, n = None, 0
    for h in wanted:
        if (parent, h) not in edges:
            break
        parent, n = edges[parent, h], n + 1
    return n


def replay(lines):
    tree, requests, dump, last = RadixTree(), [], None, 0
    for line in lines:
        what, _, rest = line.partition(" ")
        if what == "request":
            salt, *tokens = map(int, rest.split())
            requests.append((SALTS[salt], tokens))
            continue
        value = msgpack.unpackb(bytes.fromhex(rest))
        if what == "tree":
            dump = value["TreeDump"]
            continue
        for e in value:
            last += 1
            assert e["worker_id"] == WORKER and e["event"]["event_id"] == last, "an id is out of order"
            if e["storage_tier"] == "device":
                tree.apply_event(WORKER, json.dumps(e["event"]).encode())
    return tree, requests, dump, last


def check(tree, requests, dump, last):
    assert dump["last_event_id"] == last and dump["reset_scope"] == "all"
    index = blocks_of(dump["events"], "device")
    seen = blocks_of(map(json.loads, tree.dump_tree_as_events()), "device")
    assert seen == index, f"the router has {len(seen)} blocks, the worker {len(index)}: {len(set(seen) ^ set(index))} differ"
    edges, matched = follow(index), {s: 0 for s in SALTS}
    for salt, tokens in requests:
        wanted = hashes(tokens, salt)
        want, got = overlap(edges, wanted), tree.find_matches(wanted).scores.get((WORKER, 0), 0)
        assert got == want, f"the router sees {got} of {len(wanted)} blocks, the worker has {want}"
        matched[salt] += want > 0
    # What one tenant left is not another's.
    for salt, tokens in requests[-500:]:
        other = random.choice([s for s in SALTS if s != salt])
        assert not set(hashes(tokens, salt)) & set(hashes(tokens, other)), "two tenants share a hash"
    assert sum(n > 0 for n in matched.values()) > 1, f"too few tenants have a block left to compare: {matched}"
    host = blocks_of(dump["events"], "host_pinned")
    print(f"{len(requests)} requests, {last} events; router and worker agree on {len(index)} blocks; {len(host)} more claims in the "
          f"host tier; requests with blocks left, by tenant: {list(matched.values())}")


def load():
    test = os.path.join(os.path.dirname(BINARY), "test_dyn_traffic")
    if not os.path.exists(test):
        print("not there, so not under load:", test)
        return
    with tempfile.NamedTemporaryFile("r") as f:
        subprocess.run([test, f.name], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        check(*replay(f.read().splitlines()))


def hear(socket, tree, state, seconds):
    """Takes what comes until nothing has for so long."""
    while socket.poll(1000 * seconds):
        topic, publisher, sequence, envelope = socket.recv_multipart()
        assert topic == b"kv-events" and struct.unpack(">Q", publisher)[0] == state["publisher"]
        assert envelope[0] == 1 and struct.unpack(">I", envelope[1:5])[0] == len(envelope) - 5
        outer = msgpack.unpackb(envelope[5:])
        assert outer["sequence"] == struct.unpack(">Q", sequence)[0] == state["sequence"]
        state["sequence"] += 1
        for e in msgpack.unpackb(outer["payload"]):
            state["last"] += 1
            assert e["event"]["event_id"] == state["last"] and e["worker_id"] == state["worker"]
            if e["storage_tier"] == "device":
                tree.apply_event(e["worker_id"], json.dumps(e["event"]).encode())


def live():
    rng = random.Random(3)
    with tempfile.TemporaryDirectory() as folder, Worker("--dynamo", "--dyn-file-kv", folder) as w:
        channel, source = record(folder, "event_channels", "kv-events"), record(folder, "event_sources", "kv-events")
        meta = source["metadata"]
        state = {"publisher": channel["instance_id"], "worker": meta["worker"]["worker_id"], "sequence": 0, "last": 0}
        assert state["publisher"] == source["publisher_id"] < 1 << 53 and meta["recovery_target"]["endpoint"].endswith(
            f"{state['publisher']:x}")
        socket, tree = zmq.Context.instance().socket(zmq.SUB), RadixTree()
        socket.setsockopt(zmq.SUBSCRIBE, b"kv-events")
        socket.connect(channel["transport"]["config"]["endpoint"])
        time.sleep(2)  # a PUB socket says nothing to who has not subscribed yet
        prompts = [(salt, [rng.randrange(1000, 40000) for _ in range(rng.randrange(16, 200))]) for salt in [None, "a", "tenantA"] * 4]
        prompts += [(rng.choice([None, "a"]), t[:len(t) // 2] + [77] * 40) for _, t in prompts]
        for salt, tokens in prompts:
            body = {"prompt": tokens, "max_tokens": 2, "temperature": 0, **({"cache_salt": salt} if salt else {})}
            assert w.request("POST", "/v1/completions", body)[0] == 200
        hear(socket, tree, state, 1)
        for salt, tokens in prompts:
            wanted = hashes(tokens, salt)
            got = tree.find_matches(wanted).scores.get((state["worker"], 0), 0)
            assert got == len(tokens) // BLOCK, (salt, len(tokens), got)
            assert not tree.find_matches(hashes(tokens, "nobody's")).scores
        print(f"live: {len(prompts)} prompts in {state['last']} events, each found by the router's library whole, under its salt only")


def main():
    if "dynamo" not in sys.argv:
        import dynamo as deployment
        sys.exit(subprocess.run([deployment.python(), os.path.abspath(__file__), "dynamo"]).returncode)
    for tokens, kind, want in KNOWN:
        got = compute_block_hash_for_seq(list(tokens), BLOCK, **kind)
        assert got == [want], f"{kind}: {got[0]:x}, expected {want:x}"
    load()
    live()


if __name__ == "__main__":
    main()
