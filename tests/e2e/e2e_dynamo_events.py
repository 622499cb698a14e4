#!/usr/bin/env python3
"""The real router's library against this worker's KV events: the hashes that it computes from tokens, with and without salt, are
those of the events, and the tree that it builds from them is the worker's own index.

  e2e_dynamo_events.py TEST_DYN_TRAFFIC    (Python with ai-dynamo-runtime 1.6.1 and msgpack; runs the test with a record)

The record: `request SALT TOKEN...` (prompt and output), `events HEX` (a message's payload), `tree HEX` (the recovery's answer)."""
import json
import random
import subprocess
import sys
import tempfile

import msgpack
from dynamo._core import RadixTree, compute_block_hash_for_seq

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
    assert all(matched.values()), f"a tenant has no block left to compare: {matched}"
    host = blocks_of(dump["events"], "host_pinned")
    print(f"{len(requests)} requests, {last} events; router and worker agree on {len(index)} blocks; {len(host)} more claims in the "
          f"host tier; requests with blocks left, by tenant: {list(matched.values())}")


def main():
    for tokens, kind, want in KNOWN:
        got = compute_block_hash_for_seq(list(tokens), BLOCK, **kind)
        assert got == [want], f"{kind}: {got[0]:x}, expected {want:x}"
    with tempfile.NamedTemporaryFile("r") as f:
        subprocess.run([sys.argv[1], f.name], check=True, stdout=subprocess.DEVNULL)
        check(*replay(f.read().splitlines()))


if __name__ == "__main__":
    main()
