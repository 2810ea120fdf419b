#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What existing clients of the API do, call by call, with nothing but the standard library.

Environment: AREG_URL, OWNER_KEY, OWNER_WALLET, CLIENT_KEY, CLIENT_WALLET, FACILITATOR_KEY,
TX_HASH (of a payment on base that nobody has recorded yet). Prints one line of JSON for each step: name, status, answer.
"""
import json
import os
import urllib.error
import urllib.parse
import urllib.request


class Client:
    def __init__(self, base_url, api_key, base="/api/v1/agents"):
        self.base = base_url + base
        self.key = api_key

    def call(self, method, path, body=None, params=None):
        url = self.base + path
        if params:
            url += "?" + urllib.parse.urlencode({k: v for k, v in params.items() if v is not None})
        request = urllib.request.Request(url, method=method)
        request.add_header("Authorization", "Bearer " + self.key)
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, data, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


def step(name, result):
    print(json.dumps({"step": name, "status": result[0], "answer": result[1]}), flush=True)
    return result[1]


owner = Client(os.environ["AREG_URL"], os.environ["OWNER_KEY"])
client = Client(os.environ["AREG_URL"], os.environ["CLIENT_KEY"])
facilitator = Client(os.environ["AREG_URL"], os.environ["FACILITATOR_KEY"], "/api/v1")

agent = step("register", owner.call("POST", "/register", {
    "owner_address": os.environ["OWNER_WALLET"],
    "chain": "base",
    "registration_file": {"name": "Trader", "description": "Trades while you sleep."},
}))
uuid = agent["agent_uuid"]
step("get", owner.call("GET", "/" + uuid))
step("feedback", client.call("POST", "/feedback", {
    "agent_uuid": uuid,
    "client_address": os.environ["CLIENT_WALLET"],
    "score": 95,
    "tag1": "quality",
    "tag2": "speed",
}))
step("pay", facilitator.call("POST", "/payments", {
    "tx_hash": os.environ["TX_HASH"], "chain": "base", "amount_usdc": "3.25",
    "payer": os.environ["CLIENT_WALLET"], "payee": os.environ["OWNER_WALLET"], "status": "verified"}))
step("link", owner.call("POST", "/link-payment", {
    "agent_uuid": uuid, "tx_hash": os.environ["TX_HASH"], "chain": "base"}))
step("stats", owner.call("GET", f"/{uuid}/stats"))
step("reputation", owner.call("GET", f"/{uuid}/reputation"))
step("search", owner.call("GET", "/", params={
    "owner_address": os.environ["OWNER_WALLET"], "chain": "base", "min_reputation_score": 80,
    "min_success_rate": 90.0, "trust_level": None, "limit": 20, "offset": 0}))
level = owner.call("GET", f"/{uuid}/stats")[1].get("trust_level")
step("search by trust", owner.call("GET", "/", params={"trust_level": level, "limit": 1, "offset": 0}))
step("missing", owner.call("GET", "/00000000-0000-4000-8000-000000000000"))
